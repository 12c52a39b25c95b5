"""Render scenes from files of clips and BRIRs, which are kept in memory for the scenes that use them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from batcli.audio.convolve import Filter, prepare, render
from batcli.audio.io import onset, read_brir, read_clip, resample
from batcli.core.errors import BatError, InputError
from batcli.data.constants import FAST, PUBLISHED, RMS_DBFS, SAMPLE_RATE, SCENE_SECONDS

CLIPS_KEPT = 256  # in memory
FILTERS_KEPT = 128


@dataclass(frozen=True)
class RenderSettings:
    """How a scene is rendered; length, rate and level are the published ones by default."""

    seconds: float = SCENE_SECONDS
    sample_rate: int = SAMPLE_RATE
    rms_dbfs: float = RMS_DBFS
    rendering: str = FAST  # or PUBLISHED, see `data.constants`
    brir_seconds: float | None = None  # length that BRIRs are cut to; None: as long as a scene

    @property
    def length(self) -> int:
        """Samples of a scene."""
        return round(self.seconds * self.sample_rate)

    @property
    def resampler(self) -> str:
        """Of clips; see `io.resample`."""
        return "poly" if self.rendering == PUBLISHED else "soxr"

    @property
    def brir_length(self) -> int:
        """Most samples of a BRIR: later ones are not heard within a scene, or are cut off."""
        longest = self.seconds if self.brir_seconds is None else min(self.seconds, self.brir_seconds)
        return round(longest * self.sample_rate)


def _modified_ns(path: Path) -> int:
    """When a file was last written, so that a changed one is not taken from memory; 0 if that is not known."""
    try:
        return path.stat().st_mtime_ns
    except (OSError, ValueError):
        return 0


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Make any error inside one of this file: InputError with its path."""
    try:
        yield
    except (BatError, MemoryError):
        raise
    except Exception as error:
        raise InputError(f"cannot be used: {type(error).__name__}: {error}", path) from error


@lru_cache(CLIPS_KEPT)
def _clip(path: Path, modified_ns: int, sample_rate: int, resampler: str) -> tuple[np.ndarray, int]:
    """(clip, the sample at which it begins to sound)"""
    with _faults_of(path):
        clip = read_clip(path, sample_rate, resampler)
        return clip, onset(clip)


@lru_cache(FILTERS_KEPT)
def _filter(path: Path, modified_ns: int, sample_rate: int, length: int, rendering: str) -> tuple[Filter, int]:
    """(filter of a BRIR, the sample at which it begins to sound)"""
    with _faults_of(path):
        # Convolution sums over samples: at twice the rate, the same response must be half as large.
        brir = resample(read_brir(path), SAMPLE_RATE, sample_rate) * np.float32(SAMPLE_RATE / sample_rate)
        if brir.shape[1] == 0:
            raise InputError(f"holds no samples at {sample_rate:,} Hz", path)
        start = onset(brir)
        if start >= length:
            what = f"is silent in its first {length / sample_rate:g} s, and no more of it is used"
            raise InputError(what, path, f"cut off its latency of {start / sample_rate:.3g} s")
        return prepare(brir, length, exact=rendering == PUBLISHED), start


def load_source(clip: Path, brir: Path, settings: RenderSettings) -> tuple[np.ndarray, Filter]:
    """A clip (n,) and its BRIR as `convolve.render` takes them, shared with the cache: not to be modified.

    Raises InputError that names a file that is missing, damaged, or silent within the scene.
    """
    samples, late = _clip(clip, _modified_ns(clip), settings.sample_rate, settings.resampler)
    filter, later = _filter(brir, _modified_ns(brir), settings.sample_rate, settings.brir_length, settings.rendering)
    if late + later >= settings.length:
        what = f"is silent within the scene of {settings.seconds:g} s"
        hint = f"cut off the {late / settings.sample_rate:.3g} s before its sound"
        raise InputError(what, clip, hint)
    return samples, filter


def render_files(files: Sequence[tuple[Path, Path]], settings: RenderSettings) -> np.ndarray:
    """(clip, BRIR) of each source → the scene, float32 (2, settings.length), channel 0 left.

    Raises InputError that names a file that is missing, damaged, or silent within the scene.
    """
    sources = [load_source(clip, brir, settings) for clip, brir in files]
    with _faults_of(files[0][0]):
        return render(sources, settings.length, settings.rms_dbfs)


def clear_cache() -> None:
    """Drop the clips and BRIRs that are kept in memory."""
    _clip.cache_clear()
    _filter.cache_clear()
