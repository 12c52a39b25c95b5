"""Convolve dry clips with BRIRs, as the published data was rendered.

Each clip is brought to −14 dBFS RMS, convolved with its BRIR, cut or padded; a scene is the mean of its
sources. Nothing is normalised after the convolution, because level is a distance cue; peaks above 1
happen. Not `scipy.signal.oaconvolve`: it takes 1.4 times as long and rounds otherwise, so that the same
seed would give other bytes than before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.fft import fft, ifft, next_fast_len

from batcli.data.constants import RMS_DBFS

SILENCE = float(np.finfo(np.float32).tiny)  # an RMS below it is rounded, and is left as faint as it is
TRIM_DB = -80.0
"""Energy of the tail h₂ of a BRIR h, in dB re its whole energy, that is not convolved. No sample of a scene
changes by more than ‖h₂‖₂ · ‖x‖₂ ≤ 10^(TRIM_DB/20) · ‖h‖₂ · ‖x‖₂ (Cauchy–Schwarz), whatever the clip x. Such a
tail lies below the noise of any recording, and is two thirds to nine tenths of a real BRIR."""
ROWS = 4  # blocks transformed together: scipy's FFT computes four in one instruction
BLOCK = 40_000  # samples of a block, about: eight are the published 10 s, and stay in the processor's cache

# The C library keeps freed memory for blocks as large as the largest that was ever freed (mallopt(3),
# M_MMAP_THRESHOLD). A scene's arrays are then not mapped anew each time, which would take as long as its arithmetic.
np.empty((1 << 25) - (1 << 16), np.uint8)


class Filter:
    """A BRIR as `render` takes it, float32 or float64 (2, T), with its last computed spectrum."""

    def __init__(self, response: np.ndarray) -> None:
        self.response = response
        self._spectrum = np.empty((2, 0), np.complex64)

    def spectrum(self, size: int) -> np.ndarray:
        """FFT of `size` points: (2, size), complex64 or complex128."""
        if self._spectrum.shape[1] != size:
            self._spectrum = fft(self.response, size)
        return self._spectrum


def gain(clip: np.ndarray, rms_dbfs: float = RMS_DBFS) -> np.float32:
    """The factor that brings a clip (n,) to an RMS in dB re full scale; 1 for an RMS below `SILENCE`."""
    total = 0.0
    for start in range(0, len(clip), 1 << 14):
        part = clip[start : start + (1 << 14)].astype(np.float64)
        total += float(np.square(part, out=part).sum())  # not `@`: BLAS wakes threads that others need
    rms = (total / max(1, len(clip))) ** 0.5
    return np.float32(1.0 if rms < SILENCE else 10.0 ** (rms_dbfs / 20.0) / rms)


def trim(brir: np.ndarray, db: float = TRIM_DB) -> np.ndarray:
    """Cut off the longest tail of a BRIR (2, T) whose energy is at most `db` (negative) relative to the whole.

    The energy is that of both ears together (Schroeder's backward integral). Returns a view (2, 1 ≤ … ≤ T).
    """
    left, right = np.square(brir, dtype=np.float64)
    remaining = np.cumsum((left + right)[::-1])
    tail = int(np.searchsorted(remaining, remaining[-1] * 10.0 ** (db / 10.0), "right"))
    return brir[:, : max(1, brir.shape[1] - tail)]  # of silence, one sample


def prepare(brir: np.ndarray, length: int, exact: bool = False) -> Filter:
    """BRIR (2, T) → `Filter` for scenes of `length` samples.

    `exact`: keep the whole tail, and compute in 64 bits, which takes five times as long. In 32 bits, the FFT leaves
    rounding noise in a silence after a loud sound; the published encoder reads the phase difference between the
    ears at any level, so its input would contain that of the noise.
    """
    brir = brir[:, :length]
    return Filter(brir.astype(np.float64) if exact else trim(brir).astype(np.float32))


def render(sources: Sequence[tuple[np.ndarray, Filter]], length: int, rms_dbfs: float | None = RMS_DBFS) -> np.ndarray:
    """(clip (n,), filter) of each source → their mean, the scene: float32 (2, length), channel 0 left.

    `rms_dbfs`: the level that each clip is brought to first; None leaves it as it is.

    Overlap-save (Oppenheim and Schafer, section 8.7.3). Two blocks are carried as the real and the
    imaginary part of one, since the filters are real, and all sources' spectra are added before
    they are transformed back.
    """
    taps = max(filter.response.shape[1] for _, filter in sources)
    groups = max(1, round(length / (2 * ROWS * BLOCK)))
    block = -(-length // (2 * ROWS * groups))
    size = next_fast_len(block + taps - 1)
    dtype = np.result_type(np.complex64, *(filter.response for _, filter in sources))
    scale = np.float32(1 / len(sources))
    gains = [scale if rms_dbfs is None else scale * gain(clip, rms_dbfs) for clip, _ in sources]
    scene = np.empty((2, 2 * ROWS * groups, block), np.float32)
    blocks, ears = np.zeros((ROWS, size), dtype), np.empty((2, ROWS, size), dtype)
    for first in range(0, 2 * ROWS * groups, 2 * ROWS):
        for number, ((clip, filter), factor) in enumerate(zip(sources, gains, strict=True)):
            for row in range(ROWS):
                for part, place in ((blocks.real, first + row), (blocks.imag, first + row + ROWS)):
                    _cut(clip, factor, place * block - taps + 1, part[row, : block + taps - 1])
            spectra = fft(blocks)
            for ear, response in zip(ears, filter.spectrum(size), strict=True):
                if number == 0:
                    np.multiply(spectra, response, out=ear)
                else:
                    ear += spectra * response
        for ear in range(2):
            filtered = ifft(ears[ear], overwrite_x=True)[:, taps - 1 : taps - 1 + block]
            scene[ear, first : first + ROWS] = filtered.real
            scene[ear, first + ROWS : first + 2 * ROWS] = filtered.imag
    end = max(len(clip) + filter.response.shape[1] - 1 for clip, filter in sources)
    scene = np.ascontiguousarray(scene.reshape(2, -1)[:, :length])
    scene[:, end:] = 0  # no rounding after the last echo
    return scene


def _cut(clip: np.ndarray, factor: np.float32, start: int, out: np.ndarray) -> None:
    """Write factor · clip[start : start + len(out)] to `out`, with zeros outside the clip."""
    before = min(max(0, -start), len(out))
    after = min(max(before, len(clip) - start), len(out))
    out[:before] = 0
    np.multiply(clip[start + before : start + after], factor, out=out[before:after])
    out[after:] = 0
