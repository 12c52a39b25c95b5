"""DSpAST: an encoder with a branch for each task, distance, direction and events, over one shared transformer.

Wilkinghoff and Tan, "DSpAST: Disentangled Representations for Spatial Audio Reasoning with Large Language Models",
2025, arXiv 2509.13927.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from batcli.model.config import DspastConfig
from batcli.model.encoders.transformer import (
    DIRECTION,
    DISTANCE,
    EVENT,
    HEAD_STD,
    N_AZIMUTHS,
    N_DISTANCES,
    N_ELEVATIONS,
    N_SUMMARY,
    HeadOutputs,
    PatchTransformer,
    PlaceClasses,
    initialise,
)
from batcli.model.features import dspast_features

FEATURES = 6
RATIO = 3  # the feature that is a ratio of levels
LARGEST_RATIO = 1e15  # in training: a larger one, at silence beside a sound, has a square that float32 cannot hold
BRANCHES = {DISTANCE: 1, DIRECTION: 2, EVENT: 3}
"""Task → number of its branch in the names of the published checkpoints, in the order of the tokens' parts."""


class FeatureAttention(nn.Module):
    """Scales the features by weights between 0 and 1, computed from their means (squeeze and excitation)."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm1d(FEATURES, affine=False)
        self.bn2 = nn.BatchNorm1d(FEATURES, affine=False)  # in the published checkpoints, without a use
        self.fc = nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES), nn.Sigmoid())

    def weights(self, x: Tensor) -> Tensor:
        """Features (B, 6, frames, mels) → their weights (B, 6)."""
        return self.fc(self.bn(x.mean((2, 3))))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights(x)[:, :, None, None]


class AdaCos(nn.Module):
    """Classes by the cosine between a token and the row of each class (Zhang et al. 2019, AdaCos).

    Training minimises the cross entropy of the cosines times `s`, which adapts to them.
    """

    s: Tensor  # (1,)
    pi: Tensor  # (1,), in the published checkpoints

    def __init__(self, dim: int, classes: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_uniform_(self.W)
        self.register_buffer("s", torch.full((1,), math.sqrt(2) * math.log(classes - 1)))
        self.register_buffer("pi", torch.full((1,), math.pi))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, dim) → cosines (B, classes)."""
        return F.linear(F.normalize(x), F.normalize(self.W))

    @torch.no_grad()
    def adapt(self, cosines: Tensor, target: Tensor, counted: Tensor) -> None:
        """Set `s` by a batch of cosines (B, classes) and true classes (B,), of which the `counted` (B,) ones count.

        s ← ln(mean of (1 + Σ over other classes of exp(s · cosine))) / cos(min(π/4, median angle to the true class)).
        """
        cosines = cosines.float()
        true = cosines.gather(1, target[:, None])
        others = (self.s * cosines).scatter(1, target[:, None], 0.0).logsumexp(1)  # exp(0) is the 1 of 1 + Σ
        count = counted.sum()
        mean = others.masked_fill(~counted, -math.inf).logsumexp(0) - count.log()
        angle = true[:, 0].clamp(-1, 1).acos().masked_fill(~counted, math.nan).nanmedian()
        adapted = mean / (angle.clamp_max(math.pi / 4).cos() + 1e-12)
        self.s.copy_(torch.where(count > 0, adapted, self.s))


class DSpAST(PatchTransformer):
    """The published encoder with its four heads; parameters have the names of the published checkpoint.

    Its tokens are those of the three branches side by side: distance, direction, events.
    """

    config: DspastConfig

    def __init__(self, config: DspastConfig) -> None:
        super().__init__(config)
        width = config.branch_dim
        self.bn = nn.BatchNorm2d(2, affine=False)
        self.bn_ild = nn.BatchNorm2d(1, affine=False)
        for number in BRANCHES.values():
            self.register_module(f"conv_downsample{number}", _stem())
            self.register_module(f"pre_head{number}", nn.Linear(config.dim, width))
            tokens = nn.Parameter(torch.empty(1, N_SUMMARY, config.dim))
            self.register_parameter(f"cls_tokens{number}", tokens)
            nn.init.normal_(tokens, std=0.02)
        self.fc_norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, config.n_classes)
        self.distance_head = AdaCos(width, N_DISTANCES)
        self.azimuth_head = AdaCos(width, N_AZIMUTHS)
        self.elevation_head = AdaCos(width, N_ELEVATIONS)
        self.apply(initialise)
        nn.init.normal_(self.head.weight, std=HEAD_STD)

    @property
    def dim(self) -> int:
        return len(BRANCHES) * self.config.branch_dim

    @property
    def count(self) -> int:
        return super().count - (0 if self.config.summary_tokens else N_SUMMARY)

    def kept(self, tokens: Tensor) -> Tensor:
        return tokens if self.config.summary_tokens else tokens[:, N_SUMMARY:]

    def encode(self, stft: Tensor) -> Tensor:
        features = self.stretch(self.features(stft))
        return torch.cat([self.branch(task, features)[1] for task in BRANCHES], dim=2)

    def features(self, stft: Tensor) -> Tensor:
        """STFT (B, 2, bins, T) → standardised features (B, 6, T, mels)."""
        x = dspast_features(stft, self.mel)
        ratio = x[:, RATIO : RATIO + 1]
        if self.training:
            ratio = ratio.clamp_max(LARGEST_RATIO)
        return torch.cat([self.bn(x[:, :2]), x[:, 2:RATIO], self.bn_ild(ratio), x[:, RATIO + 1 :]], dim=1)

    def stem(self, task: int, features: Tensor) -> Tensor:
        """Stretched features (B, 6, frames, mels) → input of a task's patch embedding (B, 1, frames, mels)."""
        return self.mask(self.get_submodule(f"conv_downsample{BRANCHES[task]}")(features))

    def branch(self, task: int, features: Tensor) -> tuple[Tensor, Tensor]:
        """A task's tokens of the stretched features: the transformer's (B, T, dim), mapped to (B, T, branch_dim)."""
        number = BRANCHES[task]
        tokens = self.transform(self.stem(task, features), self.get_parameter(f"cls_tokens{number}"))
        return tokens, self.get_submodule(f"pre_head{number}")(tokens)

    def summaries(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`forward`'s result → one token for distance, direction and events, (B, branch_dim) each."""
        distance, direction, event = tokens[:, :N_SUMMARY].mean(1).split(self.config.branch_dim, dim=-1)
        return distance, direction, event

    def heads(self, tokens: Tensor) -> HeadOutputs:
        distance, direction, event = self.summaries(tokens)
        return HeadOutputs(
            self.head(self.fc_norm(event)),
            self.distance_head(distance),
            self.azimuth_head(direction),
            self.elevation_head(direction),
        )

    def training_logits(self, found: HeadOutputs, true: PlaceClasses, counted: Tensor) -> HeadOutputs:
        """The cosines times the heads' scales, which adapt to the batch in training mode."""
        scaled = {}
        for name, classes in true._asdict().items():
            head, cosines = self.get_submodule(f"{name}_head"), getattr(found, name)
            assert isinstance(head, AdaCos)
            if self.training:
                head.adapt(cosines, classes, counted)
            scaled[name] = head.s.clone() * cosines  # the gradient needs this value; the next batch changes it
        return found._replace(**scaled)


def _stem() -> nn.Sequential:
    """Features (B, 6, frames, mels) → one channel (B, 1, frames, mels)."""
    return nn.Sequential(
        FeatureAttention(), nn.Conv2d(FEATURES, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.GELU()
    )
