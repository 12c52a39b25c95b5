"""Objectives: modules that return the losses of a batch by name, of which training minimises the sum."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batcli.model.bat import BAT, Encoding
from batcli.model.encoders.sources import SourceTokens, mirror
from batcli.model.encoders.transformer import (
    N_AZIMUTHS,
    N_DISTANCES,
    N_ELEVATIONS,
    PatchTransformer,
    PlaceClasses,
)
from batcli.model.tokens import IGNORED, TextBatch
from batcli.training.scenes import EncoderBatch

LOG_DISTANCE_WIDTH = 0.15  # of the soft distance target: 15 %, about a listener's threshold
DISTANCE_WEIGHT = 2.0  # of source tokens
CROP = 0.15  # share of a scene in each excerpt
DISTANCES = torch.arange(N_DISTANCES) * 0.5  # metres


class EncoderObjective(nn.Module):
    """The published objective of Spatial-AST (Zheng et al. 2024, eq. 4) and of DSpAST.

    w₀ BCE(events) + w₁ CE(distance) + w₂ (CE(azimuth) + CE(elevation)), the last three in scenes with one place
    only: there is one direction token. `weights`: w₀, w₁, w₂.
    """

    def __init__(self, encoder: PatchTransformer, weights: tuple[float, float, float]) -> None:
        super().__init__()
        self.encoder, self.weights = encoder, weights

    def forward(self, batch: EncoderBatch) -> dict[str, Tensor]:
        counted = batch.n_places == 1
        true = place_classes(batch)
        logits = self.encoder.training_logits(self.encoder.heads(self.encoder(batch.audio)), true, counted)
        one_place = counted.float()

        def mean(logits: Tensor, target: Tensor) -> Tensor:
            return (F.cross_entropy(logits, target, reduction="none") * one_place).sum() / one_place.sum().clamp_min(1)

        events = F.binary_cross_entropy_with_logits(logits.events, batch.events)
        direction = mean(logits.azimuth, true.azimuth) + mean(logits.elevation, true.elevation)
        losses = {"events": events, "distance": mean(logits.distance, true.distance), "direction": direction}
        return {name: weight * losses[name] for name, weight in zip(losses, self.weights, strict=True)}


def place_classes(batch: EncoderBatch) -> PlaceClasses:
    """The classes of each scene's first place."""
    right, front, up = batch.direction[:, 0].unbind(-1)
    return PlaceClasses(
        distance=(2 * batch.distance[:, 0]).round().long().clamp(0, N_DISTANCES - 1),
        azimuth=torch.rad2deg(torch.atan2(front, right)).round().long() % N_AZIMUTHS,
        elevation=(torch.rad2deg(torch.asin(up.clamp(-1, 1))).round().long() + 90).clamp(0, N_ELEVATIONS - 1),
    )


class SourceObjective(nn.Module):
    """Objective of the source tokens, on batches of cues.

    Events: binary cross entropy. Of each target event, detected or not: squared error of the direction vector,
    binary cross entropy of the octant, cross entropy of soft distance classes; these give gradients at once,
    unlike 360 azimuth classes. Each scene counts alike, each place in it, and each event at a place. If sources are
    grouped: of each pair of target events, binary cross entropy of their being at one place.

    Augmentation: an excerpt of `CROP` of the scenes, and half of the scenes with left and right exchanged.
    """

    def __init__(self, sources: SourceTokens) -> None:
        super().__init__()
        self.sources = sources

    def forward(self, batch: EncoderBatch) -> dict[str, Tensor]:
        mirrored = torch.rand(len(batch.events), device=batch.events.device) < 0.5
        chosen = mirrored[:, None, None, None]
        ears = batch.audio[:, :2]
        level = self.sources.level(torch.where(chosen, ears.flip(1), ears))
        blocks = batch.audio.shape[2]
        length = math.ceil(CROP * blocks)
        start = int(torch.randint(blocks - length + 1, ()))
        cues = batch.audio[:, :, start : start + length]
        cues = torch.where(chosen, mirror(cues), cues)
        side = torch.where(mirrored, -1.0, 1.0)[:, None]
        right, front, up = batch.direction.unbind(-1)
        direction = torch.stack([right * side, front, up], -1)
        states, events = self.sources.detect(cues)
        places = self.sources.locate(cues, states, batch.event_ids, level)
        together = batch.place.unsqueeze(1) == batch.place.unsqueeze(2)
        both = batch.present.unsqueeze(1) * batch.present.unsqueeze(2)  # (B, events, events)
        share = batch.present / ((together * both).sum(2).clamp_min(1) * batch.n_places.unsqueeze(1))

        def mean(loss: Tensor) -> Tensor:
            return (loss * share).sum() / len(share)

        octant = F.binary_cross_entropy_with_logits(places.octant, (direction > 0).float(), reduction="none")
        distance = -(soft_distance(batch.distance) * places.distance.log_softmax(-1)).sum(-1)
        losses = {
            "events": F.binary_cross_entropy_with_logits(events, batch.events) * events.shape[1],
            "direction": mean((places.direction - direction).square().sum(-1)),
            "words": mean(octant.sum(-1)),
            "distance": DISTANCE_WEIGHT * mean(distance),
        }
        if places.same is not None:
            nats = F.binary_cross_entropy_with_logits(places.same, together.float(), reduction="none")
            pairs = both.triu(1)
            losses["grouping"] = ((nats * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp_min(1)).mean()
        return losses


class AnswerObjective(nn.Module):
    """Cross entropy of answers and their ends; the encoders stay in evaluation mode.

    `objective(encoding, batch)` → {"answers": mean per answer token, in nats}; prompts and padding do not count.

    `near` (vocabulary, 2): token ids from `near_distances`, for a distance those 0.5 m nearer and farther. The
    target of a distance then gives the share `soft`, 0…1, of its probability to these two. The reason: the
    distance error rate accepts errors up to 0.5 m, so the best answer is the one with the most probability
    within 0.5 m of it, and not always the single most probable distance. Without `near`, `soft` has no effect.
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
        """Classes of modules that accelerate's FSDP shards one by one: the language model's layers."""
        return list(self.model.llm._no_split_modules)

    def forward(self, encoding: Encoding, batch: TextBatch) -> dict[str, Tensor]:
        logits, labels = self.model(encoding, batch), batch.labels
        return {"answers": self._soft_loss(logits, labels) if self.soft else answer_loss(logits, labels)}

    def _soft_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        # Over all columns: to select the labelled ones, the host would wait for the device.
        counts = labels != IGNORED
        target = labels.clamp_min(0)
        nats = -logits.float().log_softmax(-1).gather(-1, torch.cat([target.unsqueeze(-1), self.near[target]], -1))
        mixed = (1 - self.soft) * nats[..., 0] + self.soft * nats[..., 1:].mean(-1)
        return (mixed * counts).sum() / counts.sum()


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Logits (B, A, vocabulary), labels (B, A) → mean cross entropy over all labelled tokens."""
    return F.cross_entropy(logits.float().mT, labels, ignore_index=IGNORED)


def soft_distance(metres: Tensor) -> Tensor:
    """Distances (…) in metres → target probabilities (…, 21) of the classes, a Gaussian over log distance."""
    centres = DISTANCES.to(metres).clamp_min(0.25).log()
    deviation = (metres.clamp_min(0.25).log().unsqueeze(-1) - centres) / LOG_DISTANCE_WIDTH
    return (-0.5 * deviation.square()).softmax(-1)
