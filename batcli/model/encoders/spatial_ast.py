"""Spatial-AST: a transformer from a binaural waveform to three summary tokens and one token per patch.

Zheng et al., "BAT: Learning to Reason about Spatial Sounds with Large Language Models", ICML 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from batcli.model.config import EncoderConfig
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
    initialise,
)
from batcli.model.features import features


class SpatialAST(PatchTransformer):
    """The published encoder with its four heads; parameters have the names of the published checkpoint."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        dim = self.dim
        self.bn = nn.BatchNorm2d(2, affine=False)
        self.conv_downsample = nn.Sequential(nn.Conv2d(4, 1, 3, padding=1, bias=False), nn.BatchNorm2d(1), nn.GELU())
        self.cls_tokens = nn.Parameter(torch.empty(1, N_SUMMARY, dim))
        self.fc_norm = nn.LayerNorm(dim, eps=1e-6)
        self.dis_norm = nn.LayerNorm(dim, eps=1e-6)
        self.doa_norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, config.n_classes)
        self.distance_head = nn.Linear(dim, N_DISTANCES)
        self.azimuth_head = nn.Linear(dim, N_AZIMUTHS)
        self.elevation_head = nn.Linear(dim, N_ELEVATIONS)
        self.apply(initialise)
        nn.init.normal_(self.cls_tokens, std=0.02)
        for head in (self.head, self.distance_head, self.azimuth_head, self.elevation_head):
            nn.init.normal_(head.weight, std=HEAD_STD)

    def encode(self, stft: Tensor) -> Tensor:
        return self.transform(self.stem(stft), self.cls_tokens)

    def stem(self, stft: Tensor) -> Tensor:
        """STFT (B, 2, bins, T) → input of the patch embedding (B, 1, frames, mels)."""
        x = features(stft, self.mel)
        x = torch.cat([self.bn(x[:, :2]), x[:, 2:]], dim=1)
        return self.mask(self.conv_downsample(self.stretch(x)))

    def heads(self, tokens: Tensor) -> HeadOutputs:
        direction = self.doa_norm(tokens[:, DIRECTION])
        return HeadOutputs(
            self.head(self.fc_norm(tokens[:, EVENT])),
            self.distance_head(self.dis_norm(tokens[:, DISTANCE])),
            self.azimuth_head(direction),
            self.elevation_head(direction),
        )
