"""Source tokens: one token per event that is heard, with where it is, beside the patch tokens.

Two sources that sound at once share every patch, and a network that must first learn to tell them
apart from patches needs far more data than a network that is shown inter-aural statistics. So:

1. cues: per block of 50 ms and mel band, the level at both ears, and the cross-spectrum between them
   (Blauert, Spatial Hearing, 1997: ILD, IPD and inter-aural coherence carry direction, and coherence
   and level carry distance).
2. events: a small convolutional network reads the levels and says which events sound.
3. For each of the K likeliest events: which cells are this event's? A network sees the levels and the
   event's embedding and weights every cell; the cues are averaged with these weights, and a
   perceptron reads direction and distance from the averages.

The K tokens hold the event's embedding and probability, the direction, the distance and the hidden
state that they were read from. An encoder cannot know the question, but it can place whatever it
hears; which of it a question is about, `model/qformer.py` sees from the names.

What each choice bought (made clips of 28 classes, rooms up to 4 m, unseen rooms and clips, one seed;
octant right with one source, with two):

- 10,222 scenes used eight times: 66, 44 %. Hearing clips or rooms again that training knew changed
  nothing (64 and 60 against 61 %, one source), whole scenes did (80 %): what lacked were scenes.
- 36,000 scenes from draws of six sources in a room, each alone and in pairs (`CuedRooms`), three
  times: 71, 49 %, in the time of the first line. With distances drawn evenly, up to 4 m (n = 319,
  270): five times: 77, 67 %; 42,000 scenes eight times: 78, 70 %.
- 192 instead of 128 hidden units, five times: 78, 67 %, at half as much time again. The mean of what
  is said of the scene and of its mirror image: 78, 64 % (64 % without, in another run).
- Stretches of 60 % of a scene instead of whole scenes: as good per pass, two thirds of the time.
- Blocks of 20 ms and 48 bands instead of 50 ms and 64, six passes: 65, 40 → 71, 42 %, at twice the
  time; 40 ms and 48 bands is the compromise. Bands dropped at random: 64, 41 %.

Distance more than 0.5 m off by the median of the classes, 30,000 scenes three times (other rooms and
clips again, n = 2,100 and 4,200 sources; one source, two): from weighted cells alone 20.3, 21.5 %; with
the level of the whole scene 16.7, 21.4; its error counted twice 14.6, 21.1, but octants 2 points worse;
read by a perceptron of its own and both of them twice as wide, 14.9, 21.0 and octants 1 point better.
Averages of coherence over the whole scene added nothing: 14.7, 22.3. With averages of the states around
the cells, and at moments of their own: 13.8, 21.6; six times: 12.0, 18.2, octants 75, 55 %. A boosted
tree that sees features of the BRIR itself is 4.4 % off, and with its energy alone 18 %.

Learning rates (all at one rate of 0.002 before; the same scenes three times, so octants of one source,
of two, and distances of two off; one to three seeds each): 0.002 68, 43, 22.0 %; 0.004 67, 50, 19.3;
0.008 42, 36, 18.3. The perceptrons at 0.002 and the rest at 0.005 70, 53, 18.8; at 0.008 70, 55, 17.7;
at 0.012 70, 56, 17.6. Muon for all 72, 43, 22.0, for the perceptrons alone 71, 54, 19.4, at twice the time
of an update. A tenth of dropout instead of a fifth: 1 point better. With scenes that count alike instead of
sources that do, distances of one source off 12.7 → 11.2 % and of two 17.5 → 19.4, octants 72, 56 → 71, 55.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batcli.model.config import SourcesConfig
from batcli.model.encoders.spatial_ast import N_DISTANCES
from batcli.model.features import mel_filterbank

CUES = 6  # level left, level right, level difference, coherence (cosine, sine), onset
READERS_RATE = 0.25  # of the learning rate: see above
FLOOR = 1e-10  # power; 100 dB below full scale


class Located(NamedTuple):
    """What is known of B × K events: directions as unit vectors (right, front, above)."""

    direction: Tensor  # (B, K, 3), length at most about 1: shorter where it is in doubt
    words: Tensor  # (B, K, 3) logits of right, front, above
    distance: Tensor  # (B, K, 21) logits of the distance classes
    hidden: Tensor  # (B, K, hidden)


class SourceTokens(nn.Module):
    """STFT (B, 2, bins, T) → source tokens (B, K, `dim`)."""

    mel: Tensor
    mel_pairs: Tensor

    named = True

    def __init__(self, config: SourcesConfig) -> None:
        super().__init__()
        self.config = config
        c, n_events = config, config.n_classes
        mel = torch.from_numpy(mel_filterbank(c.bands)) / c.block  # (F, bands): from sums over blocks to means
        self.register_buffer("mel", mel, persistent=False)
        self.register_buffer("mel_pairs", mel.repeat_interleave(2, 0), persistent=False)
        # Levels span 100 dB, so everything is standardised before it is weighed: without it the same
        # 13,000 scenes named 77 % instead of 98 % of single events.
        self.standardise = Norm(3 * c.bands, affine=False)
        self.trunk = nn.Sequential(
            *_layer(3 * c.bands, c.hidden), *_layer(c.hidden, c.hidden), *_layer(c.hidden, c.hidden)
        )
        self.event_attention = nn.Linear(c.hidden, n_events)
        self.event_logits = nn.Linear(c.hidden, n_events)
        self.event_embedding = nn.Embedding(n_events, c.event_dim)
        nn.init.normal_(self.event_embedding.weight, std=0.5)
        self.query = nn.Linear(c.event_dim, c.hidden)
        self.cell_weights = nn.Linear(c.hidden, 2 * c.bands)
        self.standardise_pooled = nn.BatchNorm1d((CUES + 1) * c.bands, affine=False)
        self.moments = nn.Linear(c.hidden, 1)
        levels = 2 * (c.bands + 1)
        self.standardise_level = nn.BatchNorm1d(levels, affine=False)
        features = (CUES + 2) * c.bands + 2 * c.hidden + levels + c.event_dim
        self.read, self.read_distance = _reader(features, c.hidden), _reader(features, c.hidden)
        self.direction = nn.Linear(c.hidden, 3)
        self.words = nn.Linear(c.hidden, 3)
        self.distance = nn.Linear(c.hidden, N_DISTANCES)

    @staticmethod
    def rate_of(name: str) -> float:
        """A parameter's share of the learning rate."""
        return READERS_RATE if name.startswith("read") else 1.0

    @property
    def dim(self) -> int:
        """Width of a source token, its event's number aside."""
        return self.config.event_dim + self.config.hidden + 1 + 3 + 3 + N_DISTANCES

    @property
    def count(self) -> int:
        """Tokens of a scene."""
        return self.config.tokens

    def tokenize(self, waveform: Tensor, stft: Tensor) -> Tensor:
        """STFT (B, 2, bins, T) → tokens (B, K, 1 + dim), each with the number of its event first."""
        return self(stft)[0]

    def cues(self, stft: Tensor) -> Tensor:
        """STFT (B, 2, bins, T) → (B, CUES, blocks, bands)."""
        # Time before frequency in memory, as `torch.stft` lays it out, and real and imaginary parts side by
        # side: sums over whole rows, for which each band's weights stand there twice.
        left, right = torch.view_as_real(stft.mT.contiguous()).unbind(1)  # (B, T, F, 2) each
        p_left, p_right, cosine = (
            self._pool((a * b).flatten(2), self.mel_pairs) for a, b in ((left, left), (right, right), (left, right))
        )
        sine = self._pool(left[..., 1] * right[..., 0] - left[..., 0] * right[..., 1], self.mel)
        p_left, p_right = p_left.clamp_min(FLOOR), p_right.clamp_min(FLOOR)
        coherence = torch.stack([cosine, sine], 1) / (p_left * p_right).sqrt().unsqueeze(1)
        level_left, level_right = p_left.log(), p_right.log()
        level = torch.logaddexp(level_left, level_right)
        onset = F.pad(level[:, 1:] - level[:, :-1], (0, 0, 1, 0))
        return torch.stack(
            [level_left / 4, level_right / 4, level_left - level_right, *coherence.unbind(1), onset / 2], 1
        )

    def _pool(self, products: Tensor, mel: Tensor) -> Tensor:
        """(B, T, F) → means over blocks and bands, (B, blocks, bands)."""
        usable = products.shape[1] // self.config.block * self.config.block
        return products[:, :usable].unflatten(1, (-1, self.config.block)).sum(2) @ mel

    def hear(self, cues: Tensor) -> tuple[Tensor, Tensor]:
        """Cues → (states (B, blocks, hidden), event logits (B, n_events))."""
        coherence = cues[:, 3:5].square().sum(1, keepdim=True)  # high where the direct sound prevails
        shown = torch.cat([cues[:, :2], coherence], 1).transpose(1, 2).flatten(2)  # (B, blocks, 3 · bands)
        states = self.trunk(self.standardise(shown))
        weights = self.event_attention(states).softmax(1)
        return states, (weights * self.event_logits(states)).sum(1)

    def level(self, cues: Tensor) -> Tensor:
        """Cues of whole scenes → (B, 2 · (bands + 1)): the log of the mean power at each ear, in each band and in all.

        Clips are played at one power, so what arrives of it says how far its source is: direct sound falls
        with the distance, what the room adds hardly. A mean of logs over the loudest cells says as much
        of the clip as of the room.
        """
        power = (4 * cues[:, :2]).exp().mean(2)
        return torch.cat([power.log().flatten(1), power.sum(-1).log()], 1)

    def locate(self, cues: Tensor, states: Tensor, events: Tensor, level: Tensor) -> Located:
        """Where the events (B, K) are: numbers of events, whether they sound or not.

        `cues` and `states` may be a stretch of the scenes; `level` is that of whole ones.
        """
        embedding = self.event_embedding(events)  # (B, K, E)
        mixed = states.unsqueeze(1) + self.query(embedding).unsqueeze(2)  # (B, K, blocks, H)
        mixed = F.gelu(mixed)
        logits, gate = self.cell_weights(mixed).chunk(2, -1)  # (B, K, blocks, bands)
        loudness = 2 * (cues[:, 0] + cues[:, 1]).unsqueeze(1)  # the log of the geometric mean power
        weights = (logits + loudness).softmax(2)
        # Not as products of matrices: for those both would be laid out anew, which takes twice the time.
        pooled = (weights.unsqueeze(2) * cues.unsqueeze(1)).sum(3)  # (B, K, CUES, bands)
        spectrum = pooled[:, :, :2].sum(2, keepdim=True)
        shape = spectrum - spectrum.mean(-1, keepdim=True)  # the spectrum without its level: what the pinna changes
        features = torch.cat([pooled, shape], 2)
        features = self.standardise_pooled(features.flatten(0, 1).flatten(1)).view_as(features)
        use = (gate * weights).sum(2).sigmoid()  # (B, K, bands): is the event in this band at all?
        # What goes on around the cells, and at moments of their own: rises and decays, which tell near from far.
        when = torch.stack([weights.mean(-1), self.moments(mixed).squeeze(-1).softmax(-1)], 2)  # (B, K, 2, blocks)
        course = (when @ mixed).flatten(2)
        level = self.standardise_level(level).unsqueeze(1).expand(-1, events.shape[1], -1)
        features = torch.cat([(features * use.unsqueeze(2)).flatten(2), use, course, level, embedding], -1)
        hidden = self.read(features)
        distance = self.distance(self.read_distance(features))
        return Located(self.direction(hidden), self.words(hidden), distance, hidden)

    def forward(self, stft: Tensor) -> tuple[Tensor, Tensor]:
        """→ (tokens (B, K, 1 + dim), event logits (B, n_events)), likeliest event first.

        A token's first entry is the number of its event, so that the projector can give it the name.
        """
        cues = self.cues(stft)
        states, logits = self.hear(cues)
        probability, events = logits.sigmoid().topk(self.config.tokens, -1)
        found = self.locate(cues, states, events, self.level(cues))
        parts = [
            events.unsqueeze(-1).float(),
            self.event_embedding(events),
            probability.unsqueeze(-1),
            found.direction,
            found.words.tanh(),
            # As large as the rest: without, the language model's distances are 18.8 instead of 15.7 % off (n = 383).
            found.distance.softmax(-1) * math.sqrt(N_DISTANCES),
            found.hidden,
        ]
        return torch.cat(parts, -1), logits


def mirror(cues: Tensor) -> Tensor:
    """The cues (B, CUES, blocks, bands) of the same scene with left and right exchanged."""
    left, right, difference, cosine, sine, onset = cues.unbind(1)
    return torch.stack([right, left, -difference, cosine, -sine, onset], 1)


def _reader(features: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 4 * hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * hidden, hidden), nn.GELU()
    )


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return Convolution(inputs, outputs, 3, padding=1), Norm(outputs), nn.GELU()


class Convolution(nn.Conv1d):
    """Along time, (B, T, channels) → (B, T, channels): channels last, so that nothing is laid out anew for products.

    As an image one pixel high, for which oneDNN has that layout.
    """

    def forward(self, x: Tensor) -> Tensor:
        image = F.conv2d(x.mT.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=(0, *self.padding))
        return image.squeeze(2).mT


class Norm(nn.BatchNorm1d):
    """(B, T, channels), each channel over all else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)
