"""From dry clips and BRIRs to what arrives at the two ears.

The published rendering: each clip is brought to −14 dBFS RMS, convolved with its BRIR, cut or padded;
a scene is the mean of its sources. Nothing is normalised after the convolution, because level is a
distance cue; peaks above 1 happen.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from scipy.fft import fft, ifft, next_fast_len

from batcli.data.constants import RMS_DBFS

SILENCE = float(np.finfo(np.float32).tiny)
"""RMS below which float32 holds no sound in full, and no gain that would make one of it."""
TRIM_DB = -80.0
"""Energy of a BRIR's tail h₂, relative to the whole h, that is not worth convolving. No sample of a
scene differs by more than ‖h₂‖₂ · ‖x‖₂ ≤ 10^(TRIM_DB/20) · ‖h‖₂ · ‖x‖₂ (Cauchy–Schwarz), whatever the
clip x, and noise by 80 dB less than it sounds. A tail that has fallen by 80 dB lies below the noise
of any recording, and is two thirds to nine tenths of a real BRIR."""
ROWS = 4
"""Blocks of the scene that are transformed together: scipy's FFT then computes four in one instruction,
which takes half the time of one after the other."""
BLOCK = 40_000
"""Samples of a block, about. Eight of them are the published 10 s: a longer scene does not fall out of
the processor's cache."""


class Filter:
    """A BRIR made ready for `render`: float32 or float64 (2, T), with the spectrum that was used last."""

    def __init__(self, response: np.ndarray) -> None:
        self.response = response
        self._spectrum = np.empty((2, 0), np.complex64)

    def spectrum(self, size: int) -> np.ndarray:
        """(2, size), complex64 or complex128."""
        if self._spectrum.shape[1] != size:
            self._spectrum = fft(self.response, size)
        return self._spectrum


class _Workspace(threading.local):
    """Arrays that every scene needs anew, once for each thread.

    Fresh memory costs 1.7 µs per page of 4 KB, which was more than all the arithmetic of a scene.
    """

    def __init__(self) -> None:
        self.kept: dict[str, np.ndarray] = {}
        # The FFT's own arrays are out of reach. The C library keeps freed memory for blocks as large
        # as the largest that was ever freed (mallopt(3), M_MMAP_THRESHOLD); this one is never touched.
        np.empty((1 << 25) - (1 << 16), np.uint8)

    def take(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of unknown content; the next one of this name takes its place."""
        count = int(np.prod(shape))
        array = self.kept.get(name)
        if array is None or array.dtype != dtype or array.size < count:
            array = self.kept[name] = np.empty(count, dtype)
        return array[:count].reshape(shape)


_workspace = _Workspace()


def gain(clip: np.ndarray, rms_dbfs: float = RMS_DBFS) -> np.float32:
    """What brings a clip (n,) to an RMS in dB re full scale; 1 for silence, and what is as faint as rounding."""
    total = 0.0
    for start in range(0, len(clip), 1 << 14):
        part = clip[start : start + (1 << 14)].astype(np.float64)
        total += float(np.square(part, out=part).sum())  # not `@`: BLAS wakes threads that others need
    rms = (total / max(1, len(clip))) ** 0.5
    return np.float32(1.0 if rms < SILENCE else 10.0 ** (rms_dbfs / 20.0) / rms)


def trim(brir: np.ndarray, db: float = TRIM_DB) -> np.ndarray:
    """Cut the tail whose energy lies `db` below the whole (Schroeder's backward integral, both ears)."""
    left, right = np.square(brir, dtype=np.float64)
    remaining = np.cumsum((left + right)[::-1])
    return brir[:, : brir.shape[1] - int(np.searchsorted(remaining, remaining[-1] * 10.0 ** (db / 10.0), "right"))]


def prepare(brir: np.ndarray, length: int, exact: bool = False) -> Filter:
    """BRIR (2, T) → `Filter` for scenes of `length` samples.

    `exact`: the whole tail, and 64 bits. A silence after a loud sound then holds its reverberation and
    no rounding, which a model that compares phases hears: without it, the published encoder's tokens
    of a real clip with silences differ by up to 1 %. It takes five times as long.
    """
    brir = brir[:, :length]
    return Filter(brir.astype(np.float64) if exact else trim(brir).astype(np.float32))


def render(sources: Sequence[tuple[np.ndarray, Filter]], length: int, rms_dbfs: float | None = RMS_DBFS) -> np.ndarray:
    """(clip (n,), filter) of each source → the scene, float32 (2, length), channel 0 left.

    One source is not attenuated; of n sources the mean is taken, as (a + b) / 2 in the published data.
    `rms_dbfs`: what each clip is brought to before; None leaves it as it is.

    Overlap-save (Oppenheim and Schafer, section 8.7.3). Two blocks are carried as the real and the
    imaginary part of one, since the filters are real, and all sources' spectra are added before
    they are transformed back.
    """
    taps = max(filter.response.shape[1] for _, filter in sources)
    groups = max(1, round(length / (2 * ROWS * BLOCK)))
    block = -(-length // (2 * ROWS * groups))
    size = next_fast_len(block + taps - 1)
    dtype = np.result_type(np.complex64, *(filter.response for _, filter in sources))
    blocks, ears, product = (
        _workspace.take(name, shape, dtype)
        for name, shape in (("blocks", (ROWS, size)), ("ears", (2, ROWS, size)), ("product", (size,)))
    )
    scale = np.float32(1 / len(sources))
    gains = [scale if rms_dbfs is None else scale * gain(clip, rms_dbfs) for clip, _ in sources]
    scene = np.empty((2, 2 * ROWS * groups, block), np.float32)
    for group in range(groups):
        first = group * 2 * ROWS
        for number, ((clip, filter), factor) in enumerate(zip(sources, gains, strict=True)):
            for row in range(ROWS):
                for part, place in ((blocks.real, first + row), (blocks.imag, first + row + ROWS)):
                    _cut(clip, factor, place * block - taps + 1, part[row, : block + taps - 1])
            blocks[:, block + taps - 1 :] = 0
            spectra = fft(blocks, overwrite_x=True)
            for ear, response in zip(ears, filter.spectrum(size), strict=True):
                if number == 0:
                    np.multiply(spectra, response, out=ear)
                    continue
                for row in range(ROWS):
                    ear[row] += np.multiply(spectra[row], response, out=product)
        for ear in range(2):
            heard = ifft(ears[ear], overwrite_x=True)[:, taps - 1 : taps - 1 + block]
            scene[ear, first : first + ROWS] = heard.real
            scene[ear, first + ROWS : first + 2 * ROWS] = heard.imag
    sounding = max(len(clip) + filter.response.shape[1] - 1 for clip, filter in sources)
    scene = np.ascontiguousarray(scene.reshape(2, -1)[:, :length])
    scene[:, sounding:] = 0  # no rounding where nothing can be heard
    return scene


def _cut(clip: np.ndarray, factor: np.float32, start: int, out: np.ndarray) -> None:
    """factor · clip from sample `start` on, silence before and after it."""
    before = min(max(0, -start), len(out))
    after = min(max(before, len(clip) - start), len(out))
    out[:before] = 0
    np.multiply(clip[start + before : start + after], factor, out=out[before:after])
    out[after:] = 0
