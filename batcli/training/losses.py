"""What training minimises: the encoder's published objective, that of the source tokens, and the answers'."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batcli.model.bat import BAT, Encoding
from batcli.model.encoders.sources import SourceTokens, mirror
from batcli.model.encoders.spatial_ast import N_AZIMUTHS, N_DISTANCES, N_ELEVATIONS, SpatialAST
from batcli.model.tokens import IGNORED, Tokens
from batcli.training.scenes import EncoderBatch

EVENT_WEIGHT, DIRECTION_WEIGHT = 1250.0, 2.0  # published
LOG_DISTANCE_WIDTH = 0.15  # of the softened distance target: 15 %, about what a listener can tell apart
DISTANCE_WEIGHT = 2.0  # of source tokens: see `model/encoders/sources.py`
CROP = 0.6
DISTANCES = torch.arange(N_DISTANCES) * 0.5  # metres


class EncoderObjective(nn.Module):
    """`forward(heard)` → losses by name; their sum is minimised.

    Published (Zheng et al. 2024, eq. 4): 1250 BCE(events) + CE(distance) + 2 (CE(azimuth) + CE(elevation)).
    Place is asked where sound comes from one place: one direction token cannot hold two directions.
    """

    def __init__(self, encoder: SpatialAST) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, heard: EncoderBatch) -> dict[str, Tensor]:
        read = self.encoder.heads(self.encoder(heard.waveform))
        alone = (heard.places == 1).float()
        x, front, up = heard.direction[:, 0].unbind(-1)
        azimuth = torch.rad2deg(torch.atan2(front, x)).round().long() % N_AZIMUTHS
        elevation = (torch.rad2deg(torch.asin(up.clamp(-1, 1))).round().long() + 90).clamp(0, N_ELEVATIONS - 1)
        distance = (2 * heard.distance[:, 0]).round().long().clamp(0, N_DISTANCES - 1)

        def place(logits: Tensor, target: Tensor) -> Tensor:
            return (F.cross_entropy(logits, target, reduction="none") * alone).sum() / alone.sum().clamp_min(1)

        return {
            "events": EVENT_WEIGHT * F.binary_cross_entropy_with_logits(read.events, heard.events),
            "distance": place(read.distance, distance),
            "direction": DIRECTION_WEIGHT * (place(read.azimuth, azimuth) + place(read.elevation, elevation)),
        }


class SourceObjective(nn.Module):
    """`forward(heard)`, with cues in place of the waveform, → losses by name.

    Unit vectors by squared error, the three words and softened distance classes by cross entropy: they
    learn faster than 360 and 180 hard classes. Each event is placed by its true name, so that learning
    to place does not wait for learning to name. Half the scenes are heard in the mirror, which costs
    nothing and is another scene: heads and rooms have no side. Each batch is a stretch of its scenes,
    `CROP` of their length, another at every use: two thirds of the time, and as good a model. Each scene
    counts alike, however many sources it has.
    """

    def __init__(self, sources: SourceTokens) -> None:
        super().__init__()
        self.sources = sources

    def forward(self, heard: EncoderBatch) -> dict[str, Tensor]:
        mirrored = torch.rand(len(heard.events), device=heard.events.device) < 0.5
        cues = torch.where(mirrored[:, None, None, None], mirror(heard.waveform), heard.waveform)
        level = self.sources.level(cues)
        blocks = cues.shape[2]
        length = math.ceil(CROP * blocks)
        start = int(torch.randint(blocks - length + 1, ()))
        cues = cues[:, :, start : start + length]
        asked, present, metres = heard.asked, heard.present, heard.distance
        side = torch.where(mirrored, -1.0, 1.0)[:, None]
        right, front, up = heard.direction.unbind(-1)
        direction = torch.stack([right * side, front, up], -1)
        states, events = self.sources.hear(cues)
        found = self.sources.locate(cues, states, asked, level)
        share = present / present.sum(1, keepdim=True).clamp_min(1)

        def mean(loss: Tensor) -> Tensor:
            return (loss * share).sum() / len(share)

        words = F.binary_cross_entropy_with_logits(found.words, (direction > 0).float(), reduction="none")
        distance = -(soft_distance(metres) * found.distance.log_softmax(-1)).sum(-1)
        return {
            "events": F.binary_cross_entropy_with_logits(events, heard.events) * events.shape[1],
            "direction": mean((found.direction - direction).square().sum(-1)),
            "words": mean(words.sum(-1)),
            "distance": DISTANCE_WEIGHT * mean(distance),
        }


class AnswerObjective(nn.Module):
    """`forward(encoding, tokens)` → the cross entropy of answers and their ends; the encoder stays as it is.

    `soft`: the share of a distance's weight that goes to `near` (vocabulary, 2), the tokens half a metre
    nearer and farther. A distance half a metre off counts as right (DER), so the best answer is the
    middle of the likeliest metre, which is then the likeliest token; without, it is the likeliest half
    metre. On what the source tokens say of distance after three passes, that is 15 instead of 18 % off.
    """

    near: Tensor

    def __init__(self, model: BAT, near: Tensor | None = None, soft: float = 0.0) -> None:
        super().__init__()
        self.model, self.soft = model, soft if near is not None else 0.0
        self.register_buffer("near", near, persistent=False)

    def train(self, mode: bool = True) -> AnswerObjective:
        super().train(mode)
        for name in self.model.encoders:
            getattr(self.model, name).eval()
        return self

    @property
    def _no_split_modules(self) -> list[str]:
        """What FSDP shards one by one, as accelerate asks for it: the language model's layers."""
        return list(self.model.llm._no_split_modules)

    def forward(self, encoding: Encoding, tokens: Tokens) -> dict[str, Tensor]:
        logits, labels = self.model(encoding, tokens), tokens.labels
        return {"answers": self._softened(logits, labels) if self.soft else answer_loss(logits, labels)}

    def _softened(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Not of the labelled cells alone: how many they are, the host would have to wait for.
        counts = labels != IGNORED
        truth = labels.clamp_min(0)
        nats = -logits.float().log_softmax(-1).gather(-1, torch.cat([truth.unsqueeze(-1), self.near[truth]], -1))
        mixed = (1 - self.soft) * nats[..., 0] + self.soft * nats[..., 1:].mean(-1)
        return (mixed * counts).sum() / counts.sum()


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, A, vocabulary), labels (B, A) → the mean cross entropy over all answers' tokens and ends."""
    return F.cross_entropy(logits.float().mT, labels, ignore_index=IGNORED)


def soft_distance(metres: Tensor) -> Tensor:
    """Metres (…) → class probabilities (…, 21): a bell over log distance, so that a near miss costs little."""
    centres = DISTANCES.to(metres).clamp_min(0.25).log()
    off = (metres.clamp_min(0.25).log().unsqueeze(-1) - centres) / LOG_DISTANCE_WIDTH
    return (-0.5 * off.square()).softmax(-1)
