"""The encoder: Spatial-AST of the published size on scenes of 10 s."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timed.timing import Line, compare, quartiles, run_python, times
from torch import Tensor

from batcli.data.constants import HOP, N_BINS, N_FFT
from batcli.model.config import PATCH, EncoderConfig
from batcli.model.encoders.spatial_ast import SpatialAST


@cache
def fourier_kernel() -> Tensor:
    """The windowed cosines and sines of the STFT as the kernel of a convolution, (2 · 513, 1, 1024)."""
    n, k = np.arange(N_FFT), np.arange(N_BINS)[:, None]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / N_FFT)
    angle = 2 * np.pi * k * n / N_FFT
    return torch.from_numpy(np.concatenate([np.cos(angle), -np.sin(angle)]) * window)[:, None].float()


def plain_encode(encoder: SpatialAST, waveform: Tensor) -> Tensor:
    """What the reference computes, the way it does: STFT by convolution, phases by arctangent, attention in steps.

    (B, 2, samples) → tokens (B, 3 + patches, dim).
    """
    batch = len(waveform)
    kernel = fourier_kernel().to(waveform.device)
    padded = F.pad(waveform, (N_FFT // 2, N_FFT // 2), mode="reflect").flatten(0, 1).unsqueeze(1)
    real, imaginary = F.conv1d(padded, kernel, stride=HOP).unflatten(0, (batch, 2)).mT.chunk(2, dim=-1)
    level = 10 * torch.log10(((real**2 + imaginary**2).sqrt() @ encoder.mel).clamp_min(1e-10))
    phase = torch.atan2(imaginary, real)
    between = phase[:, 1:] - phase[:, :1]
    x = torch.cat([encoder.bn(level), torch.cos(between) @ encoder.mel, torch.sin(between) @ encoder.mel], dim=1)
    config = encoder.config
    x = F.interpolate(x, (config.frames, config.n_mels), mode="bicubic", align_corners=True)
    x = encoder.patch_embed(encoder.conv_downsample(x)) + encoder.pos_embed[:, 1:]
    x = torch.cat([encoder.cls_tokens.expand(batch, -1, -1), x], dim=1)
    for block in encoder.blocks:
        q, k, v = block.attn.qkv(block.norm1(x)).unflatten(-1, (3, config.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT * (1 / math.sqrt(q.shape[-1]))).softmax(dim=-1)
        x = x + block.attn.proj((weights @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
    return x


def products(config: EncoderConfig, batch: int, device: str = "cpu") -> list[tuple[Tensor, Tensor]]:
    """The operands of every matrix product of one forward pass that the reference and we have in common."""
    dim, heads = config.dim, config.heads
    patches = math.prod(config.grid)
    tokens, hidden = 3 + patches, int(config.dim * config.mlp_ratio)
    shapes = [((batch * patches, PATCH**2), (PATCH**2, dim))]
    for _ in range(config.depth):
        shapes += [((batch * tokens, n), (n, m)) for n, m in ((dim, 3 * dim), (dim, dim), (dim, hidden), (hidden, dim))]
        head = (batch * heads, tokens, dim // heads)
        shapes += [(head, (head[0], head[2], tokens)), ((head[0], tokens, tokens), head)]
    made = {shape: torch.randn(shape, device=device) for pair in shapes for shape in pair}
    return [(made[a], made[b]) for a, b in shapes]


def lines(quick: bool) -> Iterator[Line]:
    config = EncoderConfig()
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        encoder = SpatialAST(config).to(device).eval()
        for batch in [1] if quick else [1, 4]:
            yield _line(encoder, batch, 3 if quick else 7, device)
    if Path("/proc/self/clear_refs").exists():
        yield _memory(2 if quick else 8)


def _line(encoder: SpatialAST, batch: int, rounds: int, device: str) -> Line:
    waveform = 0.1 * torch.randn(batch, 2, encoder.config.samples, device=device)
    operands = products(encoder.config, batch, device)

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    @torch.inference_mode()
    def ours() -> None:
        encoder(waveform)
        wait()

    @torch.no_grad()
    def plain() -> None:
        plain_encode(encoder, waveform)
        wait()

    def products_alone() -> None:
        for a, b in operands:
            a @ b
        wait()

    mine, theirs, floor = times([ours, plain, products_alone], rounds)
    over = statistics.median(a / b for a, b in zip(mine, floor, strict=True))
    beside = statistics.median(a / b for a, b in zip(theirs, floor, strict=True))
    note = f"its matrix products alone: {statistics.median(floor):.3f} s; ours {over:.2f} ×, plain {beside:.2f} × that"
    name = f"encode 10 s, batch {batch}{'' if device == 'cpu' else ', GPU'}"
    ratio = quartiles(mine, theirs)
    return Line(name, statistics.median(mine) / batch, statistics.median(theirs) / batch, ratio, rounds, batch, note)


def _memory(batch: int) -> Line:
    """Peak memory of a forward pass beside the weights, per clip, each way in a process of its own."""
    folder = Path(__file__).resolve().parents[1]
    program = "import sys; sys.path.insert(0, {!r}); from timed.encoder import weigh; print(weigh({!r}, {}))"
    ours, plain = (float(run_python("-c", program.format(str(folder), w, batch))) for w in ("ours", "plain"))
    ratio = plain / ours
    return Line(f"encode, memory per clip of {batch}", ours, plain, (ratio, ratio, ratio), 1, 1, unit="MB")


def growth(quick: bool) -> Iterator[Line]:
    """Against the scene's length: its attention grows with the square of it, a tenth of all products at 10 s."""
    for seconds in (0.3, 1.0, 3.0) if quick else (0.3, 1.0, 3.0, 10.0, 30.0):
        encoder = SpatialAST(EncoderConfig(seconds=seconds)).eval()
        waveform = 0.1 * torch.randn(1, 2, encoder.config.samples)

        @torch.inference_mode()
        def ours(encoder: SpatialAST = encoder, waveform: Tensor = waveform) -> None:
            encoder(waveform)

        line = compare("", ours, None, 3)
        yield line._replace(name=f"encode, per second of {seconds:g} s", ours=line.ours / seconds)


def weigh(which: str, batch: int) -> float:
    """MB per clip that a forward pass adds to this process at its peak. Linux only."""
    encoder = SpatialAST(EncoderConfig()).eval()
    waveform = 0.1 * torch.randn(batch, 2, encoder.config.samples)
    work = encoder if which == "ours" else partial(plain_encode, encoder)
    with torch.inference_mode():
        work(waveform[:1])
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        work(waveform)
    return (_status("VmHWM") - before) / batch


def _status(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(name))
