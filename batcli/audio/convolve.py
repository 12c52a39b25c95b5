"""From dry clips and BRIRs to what arrives at the two ears.

The published rendering: each clip is brought to −14 dBFS RMS, convolved with its BRIR, cut or padded;
a scene is the mean of its sources. Nothing is normalised after the convolution, because level is a
distance cue; peaks above 1 happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

RMS_DBFS = -14.0
SILENCE = float(np.finfo(np.float32).tiny)
"""RMS below which float32 holds no sound in full, and no gain that would make one of it."""
TRIM_DB = -120.0
"""Energy of a BRIR's tail, relative to the whole, that is not worth convolving. The rendered scene
differs by at most 10^(TRIM_DB/20) · ‖h‖₂ · ‖x‖₂ (Cauchy–Schwarz), whatever the clip x."""
BLOCK_PER_BRIR = 3
"""Overlap-add with blocks of three BRIR lengths: longer ones fall out of the processor's cache,
shorter ones spend their time on the overlap."""


class Filter(NamedTuple):
    """A BRIR made ready for overlap-add: its spectrum (2, size // 2 + 1), complex64 or 128, and its length."""

    spectrum: np.ndarray
    length: int
    size: int  # of the FFT


def normalise(clip: np.ndarray, rms_dbfs: float = RMS_DBFS) -> np.ndarray:
    """Scale a clip (n,) to an RMS in dB re full scale; silence stays as it is, and what is as faint as rounding."""
    rms = float(np.sqrt(np.square(clip, dtype=np.float64).sum() / max(1, len(clip))))
    if rms < SILENCE:
        return clip
    return clip * np.float32(10.0 ** (rms_dbfs / 20.0) / rms)


def trim(brir: np.ndarray, db: float = TRIM_DB) -> np.ndarray:
    """Cut the tail whose energy lies `db` below the whole (Schroeder's backward integral, both ears)."""
    remaining = np.cumsum(np.square(brir[:, ::-1], dtype=np.float64).sum(axis=0))[::-1]
    return brir[:, : int(np.count_nonzero(remaining > remaining[0] * 10.0 ** (db / 10.0)))]


def prepare(brir: np.ndarray, length: int, exact: bool = False) -> Filter:
    """BRIR (2, T) → `Filter` for scenes of `length` samples.

    `exact`: the whole tail, and 64 bits. A silence after a loud sound then holds its reverberation and
    no rounding, which a model that compares phases hears: without it, the published encoder's tokens
    of a real clip with silences differ by up to 1 %. It takes twice the time.
    """
    brir = brir[:, :length].astype(np.float64) if exact else trim(brir[:, :length])
    taps = brir.shape[1]
    size = next_fast_len(min((1 + BLOCK_PER_BRIR) * taps, taps + length), real=True)
    return Filter(rfft(brir, size, axis=-1), taps, size)


def convolve(clip: np.ndarray, filter: Filter, length: int) -> np.ndarray:
    """(n,) through a `Filter` → float32 (2, length): cut, or padded with silence."""
    clip = clip[:length]
    block = filter.size - filter.length + 1
    blocks = -(-len(clip) // block)
    padded = np.zeros((blocks, block), filter.spectrum.real.dtype)
    padded.reshape(-1)[: len(clip)] = clip
    spectra = rfft(padded, filter.size, axis=-1)
    out = np.zeros((2, blocks * block + filter.size), padded.dtype)
    for ear in range(2):
        for number, part in enumerate(irfft(spectra * filter.spectrum[ear], filter.size, axis=-1, overwrite_x=True)):
            out[ear, number * block : number * block + filter.size] += part
    if out.shape[1] < length:
        out = np.pad(out, ((0, 0), (0, length - out.shape[1])))
    return out[:, :length].astype(np.float32, copy=False)


def render(sources: Sequence[tuple[np.ndarray, Filter]], length: int, rms_dbfs: float | None = RMS_DBFS) -> np.ndarray:
    """(clip (n,), filter) of each source → the scene, float32 (2, length), channel 0 left.

    One source is not attenuated; of n sources the mean is taken, as (a + b) / 2 in the published data.
    `rms_dbfs`: what each clip is brought to before; None leaves it as it is.
    """
    scene = np.zeros((2, length), np.float32)
    for clip, filter in sources:
        scene += convolve(clip if rms_dbfs is None else normalise(clip, rms_dbfs), filter, length)
    if len(sources) > 1:
        scene /= np.float32(len(sources))
    return scene
