"""Recordings as people have them → mono clips for scenes: channel, rate, offset, excerpts, level."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from batcli.audio.io import read_audio, resample, write_wav
from batcli.core.errors import InputError
from batcli.data.constants import SAMPLE_RATE

SILENCE = 10 ** (-90 / 20)  # RMS; under it is what a 16-bit recorder writes without a microphone
OFFSET = 0.01  # mean of the samples, of full scale; more is a fault of the recorder
FULL_SCALE = 0.98  # of a peak that may be clipped
CLIPPED_RUN = 4  # samples in a row at the peak
CLIPPED_SHARE = 1e-3  # of the samples
PEAK = 10 ** (-1 / 20)  # of a written clip, so that 16 bits are used and resampling clips nothing
MIN_EXCERPT_DB = 20.0  # below the loudest excerpt, others are left out
WINDOW_STEP = 0.05  # seconds between the excerpts that are compared

Crop = Literal["loudest", "start", "random"]


@dataclass(frozen=True)
class ClipSettings:
    """How a recording becomes clips."""

    seconds: float  # longest clip; a longer recording is cut
    crop: Crop = "loudest"  # which part of a longer recording
    excerpts: int = 1  # most clips from one recording, without overlap
    channel: Literal["first", "mean"] = "first"
    seed: int = 0  # for random crops


def write_clips(path: Path, folder: Path, name: str, settings: ClipSettings) -> dict[str, Any]:
    """Read a recording and write its clips as `folder/name[-N].wav`: mono, 16 bits, 32 kHz, peak −1 dBFS.

    Returns {"excerpts": [{"file", "start", "seconds"}], "seconds" (of the recording), "channels", "rate",
    "clipped", "offset" (whether a constant offset was taken out), "sha256" (of its samples)}. Raises InputError
    for a recording that cannot be read or is silent.
    """
    audio, rate, channels = _mono(path, settings.channel)
    digest = hashlib.sha256(audio.tobytes()).hexdigest()
    clipped = is_clipped(audio)
    mean = float(audio.mean())
    offset = abs(mean) > OFFSET
    if offset:
        audio = audio - np.float32(mean)
    if float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) < SILENCE:
        which = "its first channel is silent; try --channel mean" if channels > 1 else "is silent"
        raise InputError(which, path)
    audio = resample(audio, rate, SAMPLE_RATE)
    length = round(settings.seconds * SAMPLE_RATE)
    starts = excerpt_starts(audio, length, settings, zlib.crc32(name.encode()))
    excerpts = []
    for number, start in enumerate(starts):
        part = audio[start : start + length]
        file = f"{name}.wav" if number == 0 else f"{name}-{number + 1}.wav"
        write_wav(folder / file, part[None] * (PEAK / np.abs(part).max()), SAMPLE_RATE, "pcm16")
        excerpts.append({"file": file, "start": round(start / SAMPLE_RATE, 3), "seconds": len(part) / SAMPLE_RATE})
    seconds = len(audio) / SAMPLE_RATE
    return {
        "excerpts": excerpts,
        "seconds": seconds,
        "channels": channels,
        "rate": rate,
        "clipped": clipped,
        "offset": offset,
        "sha256": digest,
    }


def _mono(path: Path, channel: Literal["first", "mean"]) -> tuple[np.ndarray, int, int]:
    """(samples (n,), rate in Hz, number of channels) of a recording's first channel or of the mean of all."""
    audio, rate = read_audio(path, None)
    return audio.mean(0, dtype=np.float32) if channel == "mean" else audio[0], rate, len(audio)


def is_clipped(audio: np.ndarray) -> bool:
    """Whether more than CLIPPED_SHARE of the samples (n,) lie in runs at a peak near full scale."""
    peak = float(np.abs(audio).max())
    if peak < FULL_SCALE:
        return False
    at_peak = np.abs(audio) >= peak * 0.9999
    edges = np.flatnonzero(np.diff(np.concatenate([[0], at_peak.view(np.int8), [0]])))
    runs = edges[1::2] - edges[::2]
    return bool(runs[runs >= CLIPPED_RUN].sum() > CLIPPED_SHARE * len(audio))


def excerpt_starts(audio: np.ndarray, length: int, settings: ClipSettings, number: int) -> list[int]:
    """The first sample of each excerpt of `length` samples, at most `settings.excerpts`, without overlap.

    The first is chosen by `settings.crop`; the others are the loudest that are left. `number` seeds random crops.
    """
    if len(audio) <= length:
        return [0]
    step = max(1, round(WINDOW_STEP * SAMPLE_RATE))
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio, dtype=np.float64))])
    starts = np.append(np.arange(0, len(audio) - length, step), len(audio) - length)
    energies = energy[starts + length] - energy[starts]
    audible = np.flatnonzero(energies > energies.max() * 10 ** (-MIN_EXCERPT_DB / 10))
    if settings.crop == "start":
        first = 0
    elif settings.crop == "random":
        first = int(np.random.default_rng([settings.seed, number]).choice(audible))
    else:
        first = int(energies.argmax())
    chosen = [first]
    while len(chosen) < settings.excerpts:
        free = [n for n in audible if all(abs(starts[n] - starts[other]) >= length for other in chosen)]
        if not free:
            break
        chosen.append(int(max(free, key=lambda n: energies[n])))
    if energies[first] == 0:
        raise InputError("its first seconds are silent", "--crop start", "try --crop loudest")
    return [int(starts[n]) for n in chosen]
