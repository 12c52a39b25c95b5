"""What training minimises: the encoder's published objective, that of the source tokens, and the answers'."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batcli.model.bat import BAT, Encoding
from batcli.model.data import Heard
from batcli.model.prompt import Tokens
from batcli.model.sources import N_DISTANCES, SourceTokens
from batcli.model.spatial_ast import SpatialAST

EVENT_WEIGHT, DIRECTION_WEIGHT = 1250.0, 2.0  # published
LOG_DISTANCE_WIDTH = 0.15  # of the softened distance target: 15 %, about what a listener can tell apart
DISTANCES = torch.arange(N_DISTANCES) * 0.5  # metres


class EncoderObjective(nn.Module):
    """`forward(heard)` → losses by name; their sum is minimised.

    Published (Zheng et al. 2024, eq. 4): 1250 BCE(events) + CE(distance) + 2 (CE(azimuth) + CE(elevation)).
    Where a scene has two sources, place is only asked of the source tokens: one direction token
    cannot hold two directions.
    """

    def __init__(self, encoder: SpatialAST, sources: SourceTokens | None, patch_share: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.sources, self.patch_share = encoder, sources, patch_share

    def forward(self, heard: Heard) -> dict[str, Tensor]:
        some = max(1, round(self.patch_share * len(heard.waveform)))
        found = published(self.encoder, Heard(*(part[:some] for part in heard)))
        if self.sources is not None:
            found |= of_sources(self.sources, heard)
        return found


class AnswerObjective(nn.Module):
    """`forward(encoding, tokens)` → the cross entropy of answers and their ends; the encoder stays as it is."""

    def __init__(self, model: BAT) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> AnswerObjective:
        super().train(mode)
        self.model.encoder.eval()
        return self

    def forward(self, encoding: Encoding, tokens: Tokens) -> dict[str, Tensor]:
        return {"answers": self.model(encoding, tokens).loss}


def published(encoder: SpatialAST, heard: Heard) -> dict[str, Tensor]:
    read = encoder.heads(encoder(heard.waveform))
    alone = (heard.present.sum(1) == heard.present[:, 0]).float()
    x, front, up = heard.direction[:, 0].unbind(-1)
    azimuth = torch.rad2deg(torch.atan2(front, x)).round().long() % 360
    elevation = (torch.rad2deg(torch.asin(up.clamp(-1, 1))).round().long() + 90).clamp(0, 179)
    distance = (2 * heard.distance[:, 0]).round().long().clamp(0, N_DISTANCES - 1)

    def place(logits: Tensor, target: Tensor) -> Tensor:
        return (F.cross_entropy(logits, target, reduction="none") * alone).sum() / alone.sum().clamp_min(1)

    return {
        "ast_events": EVENT_WEIGHT * F.binary_cross_entropy_with_logits(read.events, heard.events),
        "ast_distance": place(read.distance, distance),
        "ast_direction": DIRECTION_WEIGHT * (place(read.azimuth, azimuth) + place(read.elevation, elevation)),
    }


def of_sources(sources: SourceTokens, heard: Heard) -> dict[str, Tensor]:
    """Unit vectors by squared error, the three words and softened distance classes by cross entropy.

    The place of each event that sounds is asked by its true name, so that learning to place does not
    wait for learning to name.
    """
    cues = sources.cues(heard.waveform)
    states, events = sources.hear(cues)
    found = sources.locate(cues, states, heard.asked)
    count = heard.present.sum().clamp_min(1)

    def mean(loss: Tensor) -> Tensor:
        return (loss * heard.present).sum() / count

    words = F.binary_cross_entropy_with_logits(found.words, (heard.direction > 0).float(), reduction="none")
    distance = -(soft_distance(heard.distance) * found.distance.log_softmax(-1)).sum(-1)
    return {
        "events": F.binary_cross_entropy_with_logits(events, heard.events) * events.shape[1],
        "direction": mean((found.direction - heard.direction).square().sum(-1)),
        "words": mean(words.sum(-1)),
        "distance": mean(distance),
    }


def soft_distance(metres: Tensor) -> Tensor:
    """Metres (…) → class probabilities (…, 21): a bell over log distance, so that a near miss costs little."""
    centres = DISTANCES.to(metres).clamp_min(0.25).log()
    off = (metres.clamp_min(0.25).log().unsqueeze(-1) - centres) / LOG_DISTANCE_WIDTH
    return (-0.5 * off.square()).softmax(-1)
