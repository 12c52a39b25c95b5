"""Transformer over the patches of a spectrogram: the part that the published encoders have in common."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from batcli.model.config import PATCH, EncoderConfig
from batcli.model.features import mel_filterbank, spectrum
from batcli.model.heard import Heard, from_classes

DISTANCE, DIRECTION, EVENT = range(3)  # the summary token of each task
N_SUMMARY = 3
N_DISTANCES = 21  # 0 … 10 m in steps of 0.5 m
N_AZIMUTHS = 360  # degrees, 0 right, 90 front
N_ELEVATIONS = 180  # degrees + 90
HEAD_STD = 2e-5  # of the heads' first weights, as AudioMAE's


class HeadOutputs(NamedTuple):
    """Outputs of the four heads: logits, or cosines for the places of DSpAST; the largest is the likeliest class."""

    events: Tensor  # (B, n_classes), multi-label
    distance: Tensor  # (B, 21)
    azimuth: Tensor  # (B, 360)
    elevation: Tensor  # (B, 180)


class PlaceClasses(NamedTuple):
    """True classes of the place of B scenes."""

    distance: Tensor  # (B,)
    azimuth: Tensor  # (B,)
    elevation: Tensor  # (B,)


class PatchEmbedding(nn.Module):
    """Linear map of each 16 × 16 patch of a spectrogram."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, frames, mels) → (B, patches, dim), ordered by time, then frequency."""
        return self.proj(x).flatten(2).mT


class Attention(nn.Module):
    """Multi-head self-attention over (B, T, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block; in training, a sample skips each half with probability `drop`."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, drop: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._drop_path(self.attn(self.norm1(x)))
        return x + self._drop_path(self.mlp(self.norm2(x)))

    def _drop_path(self, x: Tensor) -> Tensor:
        """Stochastic depth (Huang et al. 2016)."""
        if not self.training or self.drop == 0:
            return x
        kept = torch.rand(len(x), 1, 1, device=x.device) >= self.drop
        return x * kept / (1 - self.drop)


class PatchTransformer(nn.Module):
    """Base of the published encoders: waveform → class tokens and one token per patch, from which the heads read.

    Parameters have the names of the published checkpoints. Not a module of its own within the encoders, since
    their checkpoints have `blocks.0…` and `patch_embed…` at the top.
    """

    pos_embed: Tensor
    mel: Tensor
    names = 0

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.checkpointing = False  # whether to compute the activations within blocks again for the gradient
        self.register_buffer("mel", torch.from_numpy(mel_filterbank(config.n_mels)), persistent=False)
        self.patch_embed = PatchEmbedding(config.dim)
        self.register_buffer("pos_embed", positions(*config.grid, config.dim))
        drops = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.mlp_ratio, drop) for drop in drops)

    @property
    def dim(self) -> int:
        """Width of a token."""
        return self.config.dim

    @property
    def count(self) -> int:
        """Tokens per scene that the Q-Former gets."""
        return N_SUMMARY + math.prod(self.config.grid)

    def forward(self, waveform: Tensor, stft: Tensor | None = None) -> Tensor:
        """Waveform (B, 2, samples) at 32 kHz, left ear first → tokens (B, 3 + patches, dim), without a last norm.

        The first three are the summaries DISTANCE, DIRECTION and EVENT. `stft`: its `spectrum`, if already computed.
        In training mode, patches are dropped, frames and bands set to zero, and blocks skipped as configured.
        Raises ValueError for another shape.
        """
        if waveform.shape[1:] != (2, self.config.samples):
            raise ValueError(f"waveform {tuple(waveform.shape)}, this encoder takes (B, 2, {self.config.samples})")
        return self.encode(spectrum(waveform) if stft is None else stft)

    def encode(self, stft: Tensor) -> Tensor:
        """STFT (B, 2, bins, T) → tokens (B, 3 + patches, dim)."""
        raise NotImplementedError

    def heads(self, tokens: Tensor) -> HeadOutputs:
        """Apply the heads to the first three tokens of `forward`'s result."""
        raise NotImplementedError

    def training_logits(self, found: HeadOutputs, true: PlaceClasses, counted: Tensor) -> HeadOutputs:
        """The heads' outputs as logits for the loss. `counted` (B,): which scenes have one place, that of `true`."""
        return found

    def tokenize(self, waveform: Tensor, stft: Tensor) -> Tensor:
        """See `Encoder.tokenize`."""
        return self.kept(self(waveform, stft))

    def kept(self, tokens: Tensor) -> Tensor:
        """The tokens of `forward` that the Q-Former gets."""
        return tokens

    def hear(self, waveform: Tensor, stft: Tensor, events: Tensor | None = None) -> Heard:
        """See `Encoder.hear`. The heads give one place, whatever the events."""
        found = self.heads(self(waveform, stft))
        return from_classes(found.events, found.azimuth, found.elevation, found.distance)

    def transform(self, spectrogram: Tensor, summaries: Tensor) -> Tensor:
        """Summary tokens (1, 3, dim) and patches of (B, 1, frames, mels), through the blocks: (B, 3 + patches, dim)."""
        x = self.patch_embed(spectrogram) + self.pos_embed[:, 1:]
        if self.training and self.config.patch_mask > 0:
            x = drop_patches(x, self.config.grid, self.config.patch_mask)
        x = torch.cat([summaries.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        return x

    def stretch(self, channels: Tensor) -> Tensor:
        """Interpolate features (B, C, T, mels) to the patches' frames."""
        size = (self.config.frames, self.config.n_mels)
        return F.interpolate(channels, size, mode="bicubic", align_corners=True)

    def mask(self, x: Tensor) -> Tensor:
        """In training mode, set frames and bands of a stem's output (B, 1, frames, mels) to zero as configured."""
        if not self.training:
            return x
        return mask_bands(mask_bands(x, 2, self.config.frame_mask), 3, self.config.band_mask)

    def layers_below_top(self, name: str) -> int:
        """Depth of a parameter below the heads, in blocks; 0 for whatever AudioMAE's checkpoint cannot initialise."""
        if name.startswith("patch_embed."):
            return self.config.depth + 1
        return self.config.depth - int(name.split(".")[1]) if name.startswith("blocks.") else 0


def positions(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed sinusoidal positions of column and row (MAE, He et al. 2022): (1, 1 + rows · columns, dim).

    The first position is zero and not used. In MAE it is the class token's, and the published checkpoint has it.
    """
    omega = 10_000 ** -(torch.arange(dim // 4) / (dim // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.reshape(-1, 1) * omega for place in (column, row)]
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return F.pad(patches, (0, 0, 1, 0))[None]


def drop_patches(x: Tensor, grid: tuple[int, int], share: float) -> Tensor:
    """Drop a share of the rows (times), then of the columns (bands) of patches (B, T, dim), drawn for each sample."""
    for axis, count in ((1, grid[0]), (2, grid[1])):
        x = x.unflatten(1, (-1, grid[1])) if x.ndim == 3 else x
        kept = torch.rand(len(x), count, device=x.device).argsort(dim=1)[:, : int(count * (1 - share))].sort().values
        shape = [len(x), 1, 1, 1]
        shape[axis] = kept.shape[1]
        x = torch.take_along_dim(x, kept.view(shape), dim=axis)
    return x.flatten(1, 2)


def mask_bands(x: Tensor, axis: int, longest: int) -> Tensor:
    """Set 0 … `longest` adjacent frames or bands of (B, 1, T, M) to zero (SpecAugment, Park et al. 2019).

    They are the same in the whole batch, as in the published training.
    """
    size = x.shape[axis]
    width = (torch.rand(1, device=x.device) * (min(longest, size) + 1)).floor()
    start = (torch.rand(1, device=x.device) * (size - width + 1)).floor()
    place = torch.arange(size, device=x.device)
    hidden = (place >= start) & (place < start + width)
    shape = [1, 1, 1, 1]
    shape[axis] = size
    return x.masked_fill(hidden.view(shape), 0.0)


def initialise(module: nn.Module) -> None:
    """Initialise as timm's ViT and AudioMAE do, with `Module.apply`; norms and the stem keep torch's values."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, PatchEmbedding):
        nn.init.xavier_uniform_(module.proj.weight.detach().flatten(1))
