"""Source tokens: one token per event, with its direction and distance.

1. cues: per block of 20 ms and mel band, the level at both ears, and the cross-spectrum between them. ILD, IPD
   and inter-aural coherence carry direction; coherence and level carry distance (Blauert 1997, Spatial Hearing).
2. events: a convolutional network reads the levels and gives the probability of each event.
3. places: for each of the K likeliest events, a network reads its states and the event's embedding and weights
   every cell (block × band), twice; perceptrons read direction and distance from the cues averaged with these
   weights.
4. sources, if `grouped`: events that are heard at one place are one source.

Beside an encoder with an event head, that head chooses the events of 3, and 2 only serves training: a network that
learns to name events has the states that locating them needs.

Two sources at once share every patch of a spectrogram. A network that must learn to separate them from patches
needs far more data than one whose input is inter-aural statistics.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from batcli.model.config import SourcesConfig
from batcli.model.encoders.token_kind import NO_EVENT
from batcli.model.encoders.transformer import N_DISTANCES
from batcli.model.features import mel_filterbank
from batcli.model.heard import Heard, from_vectors

CUES = 6  # level left, level right, level difference, coherence (cosine, sine), onset
READOUT_LR_SCALE = 0.25  # for `read` and `read_distance`, which need a smaller learning rate than the rest
FLOOR = 1e-10  # power; 100 dB below full scale
KEY = 16  # dimensions in which events of one source are near one another


class Places(NamedTuple):
    """Predicted places of B × K events."""

    direction: Tensor  # (B, K, 3) vectors (right, front, above) of length 1, or shorter if uncertain
    octant: Tensor  # (B, K, 3) logits of right (not left), front (not behind), above (not below)
    distance: Tensor  # (B, K, 21) logits of the distance classes
    hidden: Tensor  # (B, K, hidden) states that direction and octant are read from
    same: Tensor | None  # (B, K, K) logits of two events being one source, if sources are grouped


class Cues(nn.Module):
    """The inter-aural cues of scenes. It has no parameters: rendering workers compute with one of their own."""

    mel: Tensor  # (bins, bands)
    mel_pairs: Tensor  # (2 · bins, bands), each row of `mel` twice

    def __init__(self, config: SourcesConfig) -> None:
        super().__init__()
        self.block = config.block
        mel = torch.from_numpy(mel_filterbank(config.bands)) / config.block  # turns sums over blocks into means
        self.register_buffer("mel", mel, persistent=False)
        self.register_buffer("mel_pairs", mel.repeat_interleave(2, 0), persistent=False)

    def forward(self, stft: Tensor) -> Tensor:
        """STFT (B, 2, bins, T) → cues (B, CUES, blocks, bands), scaled to similar ranges."""
        # Keeps the memory layout of `torch.stft`: time before frequency, real beside imaginary parts. Sums then
        # run over whole rows, with the weights of `mel_pairs`.
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
        """Average (B, T, F) over blocks and bands → (B, blocks, bands)."""
        usable = products.shape[1] // self.block * self.block
        return products[:, :usable].unflatten(1, (-1, self.block)).sum(2) @ mel


class SourceTokens(nn.Module):
    """Encoder of binaural scenes into K tokens, one for each of the likeliest events.

    A token holds the number of its event, then (`dim` values) the event's embedding and probability,
    its direction, octant and distance, and the hidden state that they were read from. If sources are `grouped`, a
    token begins with the numbers of all events of its source and their shares, and its values are the mean of these
    events' values; where events share a source, the tokens that are left over name none and hold zeros.
    """

    def __init__(self, config: SourcesConfig) -> None:
        super().__init__()
        self.config = config
        c, n_events = config, config.n_classes
        self.cues = Cues(c)
        # Standardised, since levels span 100 dB.
        self.standardise = Norm(3 * c.bands, affine=False)
        self.trunk = nn.Sequential(
            *_layer(3 * c.bands, c.hidden), *_layer(c.hidden, c.hidden), *_layer(c.hidden, c.hidden)
        )
        self.event_attention = nn.Linear(c.hidden, n_events)
        self.event_logits = nn.Linear(c.hidden, n_events)
        self.event_embedding = nn.Embedding(n_events, c.event_dim)
        nn.init.normal_(self.event_embedding.weight, std=0.5)
        self.query = nn.Linear(c.event_dim, c.hidden)
        self.cell_weights = nn.Linear(c.hidden, (c.averages + 1) * c.bands)
        self.standardise_pooled = nn.BatchNorm1d(c.averages * (CUES + 1) * c.bands, affine=False)
        self.moments = nn.Linear(c.hidden, 1)
        levels = 2 * (c.bands + 1)
        self.standardise_level = nn.BatchNorm1d(levels, affine=False)
        features = (c.averages * (CUES + 1) + 1) * c.bands + 2 * c.hidden + levels + c.event_dim
        self.read, self.read_distance = _reader(features, c.hidden), _reader(features, c.hidden)
        self.direction = nn.Linear(c.hidden, 3)
        self.words = nn.Linear(c.hidden, 3)
        self.distance = nn.Linear(c.hidden, N_DISTANCES)
        self.key = nn.Linear(c.hidden, KEY) if c.grouped else None
        self.nearness = nn.Parameter(torch.ones(())) if c.grouped else None

    @staticmethod
    def lr_scale(name: str) -> float:
        """Factor on the learning rate of the parameter `name`."""
        return READOUT_LR_SCALE if name.startswith("read") else 1.0

    @property
    def dim(self) -> int:
        """Width of a token without the event number."""
        return self.config.event_dim + self.config.hidden + 1 + 3 + 3 + N_DISTANCES

    @property
    def names(self) -> int:
        """Most events that a token names."""
        return self.config.tokens if self.config.grouped else 1

    @property
    def count(self) -> int:
        """Tokens per scene."""
        return self.config.tokens

    def detect(self, cues: Tensor) -> tuple[Tensor, Tensor]:
        """Detect events: cues → (states (B, blocks, hidden), event logits (B, n_events))."""
        coherence = cues[:, 3:5].square().sum(1, keepdim=True)  # high where the direct sound prevails
        features = torch.cat([cues[:, :2], coherence], 1).transpose(1, 2).flatten(2)  # (B, blocks, 3 · bands)
        states = self.trunk(self.standardise(features))
        weights = self.event_attention(states).softmax(1)
        return states, (weights * self.event_logits(states)).sum(1)

    def level(self, cues: Tensor) -> Tensor:
        """Cues of whole scenes → log mean power at each ear, of each band and of all bands: (B, 2 · (bands + 1)).

        Only cues 0 and 1, the levels, are read. All clips are played at one power, so the level at the ears tells
        the distance.
        """
        power = (4 * cues[:, :2]).exp().mean(2)
        return torch.cat([power.log().flatten(1), power.sum(-1).log()], 1)

    def locate(self, cues: Tensor, states: Tensor, events: Tensor, level: Tensor) -> Places:
        """Locate events given by their numbers (B, K), which need not sound.

        `cues` and `states` may be an excerpt of the scenes; `level` is of whole scenes.
        """
        embedding = self.event_embedding(events)  # (B, K, E)
        mixed = states.unsqueeze(1) + self.query(embedding).unsqueeze(2)  # (B, K, blocks, H)
        mixed = F.gelu(mixed)
        *logits, gate = self.cell_weights(mixed).split(self.config.bands, -1)  # (B, K, blocks, bands) each
        loudness = 2 * (cues[:, 0] + cues[:, 1]).unsqueeze(1)  # the log of the geometric mean power
        # The first average is of the loudest cells, the next of softer ones, too.
        weights = [(each + loudness / 2**number).softmax(2) for number, each in enumerate(logits)]
        averages = []
        for each in weights:
            # Not as a matrix product, which would copy both to another layout and take twice the time.
            average = (each.unsqueeze(2) * cues.unsqueeze(1)).sum(3)  # (B, K, CUES, bands)
            spectrum = average[:, :, :2].sum(2, keepdim=True)
            averages += [average, spectrum - spectrum.mean(-1, keepdim=True)]  # without its level, for pinna cues
        features = torch.cat(averages, 2)
        features = self.standardise_pooled(features.flatten(0, 1).flatten(1)).view_as(features)
        use = (gate * weights[0]).sum(2).sigmoid()  # (B, K, bands): whether the event is in this band at all
        # States around the cells, and at blocks of their own choice: onsets and decays tell the distance.
        blocks = torch.stack([weights[0].mean(-1), self.moments(mixed).squeeze(-1).softmax(-1)], 2)  # (B, K, 2, blocks)
        context = (blocks @ mixed).flatten(2)
        level = self.standardise_level(level).unsqueeze(1).expand(-1, events.shape[1], -1)
        features = torch.cat([(features * use.unsqueeze(2)).flatten(2), use, context, level, embedding], -1)
        hidden = self.read(features)
        distance = self.distance(self.read_distance(features))
        return Places(self.direction(hidden), self.words(hidden), distance, hidden, self._same(hidden))

    def _same(self, hidden: Tensor) -> Tensor | None:
        """States of events (B, K, H) → logits (B, K, K) of being one source, by the distance of their keys."""
        if self.key is None or self.nearness is None:
            return None
        keys = self.key(hidden)
        return self.nearness - (keys.unsqueeze(1) - keys.unsqueeze(2)).square().sum(-1)

    def tokenize(self, waveform: Tensor, stft: Tensor, scores: Tensor | None = None) -> Tensor:
        """STFT (B, 2, bins, T) → tokens (B, K, width), likeliest event first; `waveform` is not used.

        `scores`: logits (B, n_classes) of an event head that chooses the events; by default, the own ones do.
        """
        cues = self.cues(stft)
        states, logits = self.detect(cues)
        probability, events = (logits if scores is None else scores).sigmoid().topk(self.config.tokens, -1)
        places = self.locate(cues, states, events, self.level(cues))
        parts = [
            self.event_embedding(events),
            probability.unsqueeze(-1),
            places.direction,
            places.octant.tanh(),
            places.distance.softmax(-1) * math.sqrt(N_DISTANCES),  # to the scale of the rest
            places.hidden,
        ]
        values = torch.cat(parts, -1)
        if places.same is None:
            return torch.cat([events.unsqueeze(-1).float(), values], -1)
        members = group(places.same)
        shares = shares_of(members, probability)
        names = events.unsqueeze(1).where(members, NO_EVENT)
        return torch.cat([names.float(), shares, shares @ values], -1)

    def hear(self, waveform: Tensor, stft: Tensor, events: Tensor | None = None, scores: Tensor | None = None) -> Heard:
        """See `Encoder.hear`. Places are those of the tokens, or of the given events. `scores`: see `tokenize`."""
        cues = self.cues(stft)
        states, logits = self.detect(cues)
        scores = logits if scores is None else scores
        chosen = scores.topk(self.config.tokens, -1).indices if events is None else events
        places = self.locate(cues, states, chosen, self.level(cues))
        direction, distance = places.direction, places.distance
        if places.same is not None and events is None:
            members = group(places.same)
            mean = members.mT.float() @ shares_of(
                members, scores.gather(-1, chosen).sigmoid()
            )  # over an event's source
            direction, distance = mean @ direction, (mean @ distance.softmax(-1)).log()
        return from_vectors(scores, chosen, direction, distance)


def shares_of(members: Tensor, probability: Tensor) -> Tensor:
    """Share (B, K, K) of each event in each source, from `members` of `group` and probabilities (B, K)."""
    weights = members * probability.unsqueeze(1)
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def group(same: Tensor) -> Tensor:
    """Logits (B, K, K) of two events being one source → members: bool (B, K, K), [k, j] if event j is of source k.

    Likeliest events come first: each joins the source whose first event it most resembles, or begins another. Row k
    is empty if event k joined one.
    """
    count = same.shape[-1]
    numbers = torch.arange(count, device=same.device)
    first = numbers.repeat(len(same), 1)  # of each event's source
    for event in range(1, count):
        begins = first[:, :event] == numbers[:event]
        likeness, source = same[:, event, :event].masked_fill(~begins, -math.inf).max(-1)
        first[:, event] = torch.where(likeness > 0, source, event)
    return first.unsqueeze(1) == numbers.unsqueeze(-1)


def mirror(cues: Tensor) -> Tensor:
    """Cues (B, CUES, blocks, bands) → the cues of the same scenes with left and right exchanged."""
    left, right, difference, cosine, sine, onset = cues.unbind(1)
    return torch.stack([right, left, -difference, cosine, -sine, onset], 1)


def _reader(features: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 4 * hidden), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * hidden, hidden), nn.GELU()
    )


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return Convolution(inputs, outputs, 3, padding=1), Norm(outputs), nn.GELU()


class Convolution(nn.Conv1d):
    """Convolution along time of (B, T, channels).

    Computed in two dimensions, one of them of size 1: for these, oneDNN takes channels last without a copy.
    """

    def forward(self, x: Tensor) -> Tensor:
        image = F.conv2d(x.mT.unsqueeze(2), self.weight.unsqueeze(2), self.bias, padding=(0, *self.padding))
        return image.squeeze(2).mT


class Norm(nn.BatchNorm1d):
    """Batch norm of (B, T, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, 1)).view_as(x)
