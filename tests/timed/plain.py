"""The reference's rendering, in a file that imports nothing of ours: a process that runs it is as it would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import fftconvolve

RATE = 32_000
RMS_DBFS = -14.0
Files = list[tuple[Path, Path]]


def plain_render(files: Files, seconds: float) -> np.ndarray:
    """Everything in float64, the whole convolution, cut at the end: float32 (2, n)."""
    length, scene = round(seconds * RATE), []
    for clip_path, brir_path in files:
        clip = soundfile.read(clip_path, always_2d=True)[0][:, 0]
        clip = clip * 10 ** (RMS_DBFS / 20) / np.sqrt(np.mean(clip**2))
        wet = fftconvolve(clip[None], np.load(brir_path), axes=-1)[:, :length].astype(np.float32)
        scene.append(np.pad(wet, ((0, 0), (0, length - wet.shape[1]))))
    return scene[0] if len(scene) == 1 else sum(scene) / len(scene)


def plain_many(files: Files, seconds: float, count: int) -> None:
    for _ in range(count):
        plain_render(files, seconds)
