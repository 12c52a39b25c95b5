"""Read clips and BRIRs, write scenes. Every fault of a file is an InputError with its path."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from tokenize import TokenError

import numpy as np
import soundfile
import soxr
from numpy.lib.format import MAGIC_PREFIX

from batcli.audio.containers import Patched, open_sound, truncated
from batcli.core.errors import InputError
from batcli.core.files import require_file, writing
from batcli.core.signals import defer_signals
from batcli.data.constants import SAMPLE_RATE

MAX_CLIP_SECONDS = 1_200.0
MAX_BRIR_SECONDS = 20.0
MAX_BRIR_BYTES = 1 << 25  # 20 s of two channels of 128 bits are 20.5 MB
MAX_CLIP_PEAK = 2.0**31  # whole numbers of 32 bits, converted to floats, reach it
MAX_BRIR_PEAK = 1e6  # 16-bit integers, converted to floats, reach 3e4
MIN_RATE, MAX_RATE = 1_000, 384_000
MAX_FRAMES = 1 << 27  # 512 MB of one channel: ten minutes at 192 kHz are 115 million
BLOCK = 1 << 19  # samples read at a time, so that many channels or a wrong header take no more memory
FAINTEST = 2.0**-32  # peak of what is not silent: a quarter of a step of 32 bits
AUDIBLE = 1e-4  # of the peak: what is 80 dB below it lies below the noise of any recording
EARS = ("left", "right")
FORMATS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3")
UNKNOWN_FRAMES = 1 << 62  # libsndfile reports more for a FLAC that was written to a pipe
HEADER = 100  # bytes of a WAV, at least up to its samples

ENCODINGS = {"float": "FLOAT", "pcm16": "PCM_16", "pcm24": "PCM_24"}
SAMPLE_BYTES = {"float": 4, "pcm16": 2, "pcm24": 3}


def read_audio(path: Path, channels: int | None) -> tuple[np.ndarray, int]:
    """Read the first channels of a file of one or two, None: all: (float32 (channels, n), sample rate in Hz).

    Integers are scaled to [−1, 1]. Raises InputError for a file that is missing, empty, truncated, too long, silent,
    not finite, not audio or of more channels.
    """
    source = open_sound(require_file(path))
    try:
        with _sound_file(source, path) as file:
            channels = file.channels if channels is None else channels
            audio, frames = _read_channels(file, channels, path), file.frames
            rate = file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"not audio: {error.error_string}", path) from None
    finally:
        if isinstance(source, Patched):
            source.close()
    if audio.shape[1] == 0:
        raise InputError("holds no samples", path)
    if audio.shape[1] < frames < UNKNOWN_FRAMES:
        raise truncated(path, audio.shape[1], frames, "samples")
    peak = _peak(audio)  # NaN where any sample is
    if not math.isfinite(peak):
        raise InputError("holds NaN or infinite samples", path)
    if peak > MAX_CLIP_PEAK:
        raise InputError(f"holds samples of {peak:.1g}", path, "is it damaged?")
    if peak < FAINTEST:
        if file.channels > channels:
            raise InputError("its first channel is silent", path, "if the other is not, keep that alone")
        raise InputError("is silent", path)
    return audio, rate


class _ReadOnce(soundfile.SoundFile):
    """Sound that is read from its start to its end.

    soundfile seeks after each read, which fails in a FLAC whose header says nothing of its length.
    """

    def seekable(self) -> bool:
        return False


def _sound_file(source: Path | Patched, path: Path) -> soundfile.SoundFile:
    """Raises InputError for a file of a format whose length is not checked."""
    try:
        # As bytes, for soundfile takes only names in UTF-8 as text.
        file = _ReadOnce(os.fsencode(source) if isinstance(source, Path) and os.name != "nt" else source)
    except TypeError:  # soundfile asks for the rate of a .raw, whatever is in it
        raise InputError("not audio: samples without a header", path, "make it a WAV or FLAC file") from None
    if file.format not in FORMATS:
        file.close()
        raise InputError(f"a file of the format {file.format}", path, "make it a WAV or FLAC file")
    return file


def _read_channels(file: soundfile.SoundFile, channels: int, path: Path) -> np.ndarray:
    """The first channels, float32 (channels, n)."""
    if file.channels > 2:
        hint = "render it to two ears" if channels == 2 else "mix it down to one, or choose one"
        raise InputError(f"{file.channels} channels (surround sound, ambisonics?), not one or two", path, hint)
    if file.channels < channels:
        raise InputError(f"{file.channels} channel, needed {channels}", path, "give a binaural recording")
    if not MIN_RATE <= file.samplerate <= MAX_RATE:
        raise InputError(f"a sample rate of {file.samplerate:,} Hz", path, f"from {MIN_RATE:,} to {MAX_RATE:,}")
    longest = min(int(MAX_CLIP_SECONDS * file.samplerate), MAX_FRAMES)
    too_long = InputError(f"longer than {longest / file.samplerate:,.0f} s", path, "cut it")
    if longest < file.frames < UNKNOWN_FRAMES:
        raise too_long
    # int16 read as such and scaled afterwards takes a fifth of the time of libsndfile's conversion.
    integer = file.subtype == "PCM_16"
    blocks, frames = [np.empty((channels, 0), np.float32)], 0
    while count := min(BLOCK // file.channels, file.frames - frames):
        block = file.read(count, dtype="int16" if integer else "float32", always_2d=True)
        if not len(block):
            break
        frames += len(block)
        if frames > longest:
            raise too_long
        block = block[:, :channels].T
        blocks.append(np.multiply(block, 2.0**-15, dtype=np.float32) if integer else block.copy())
    return np.ascontiguousarray(blocks[1] if len(blocks) == 2 else np.concatenate(blocks, axis=1))


def _peak(audio: np.ndarray) -> float:
    """The largest magnitude; NaN where any sample is."""
    return max(-float(audio.min()), float(audio.max())) if audio.size else 0.0


def silent_ear(audio: np.ndarray) -> str | None:
    """`left` or `right` where that channel of (2, n) is silent, else None."""
    return next((name for name, channel in zip(EARS, audio, strict=True) if _peak(channel) < FAINTEST), None)


def onset(audio: np.ndarray) -> int:
    """The first sample of (…, n) within 80 dB of the peak, of any channel: where the sound begins."""
    magnitude = np.abs(audio).reshape(-1, audio.shape[-1]).max(axis=0)
    return int(np.argmax(magnitude >= AUDIBLE * magnitude.max()))


def resample(audio: np.ndarray, rate: int, new_rate: int, resampler: str = "soxr") -> np.ndarray:
    """Resample audio (…, n) from `rate` to `new_rate`, in Hz; float32.

    `soxr` is flat to 0.92 of the band and does not alias; `poly` is `scipy.signal.resample_poly`, which
    the published data was made with (an alias of 48 → 32 kHz is 14 dB down at 17 kHz).
    """
    if rate == new_rate:
        return audio
    if resampler == "poly":
        from scipy.signal import resample_poly  # takes 0.6 s to import, in every worker process

        common = math.gcd(rate, new_rate)
        return resample_poly(audio.astype(np.float64), new_rate // common, rate // common, axis=-1).astype(np.float32)
    return np.ascontiguousarray(soxr.resample(audio.T, rate, new_rate, quality="HQ").T, dtype=np.float32)


def read_clip(path: Path, sample_rate: int = SAMPLE_RATE, resampler: str = "soxr") -> np.ndarray:
    """Read a mono clip, or the first channel of another: float32 (n,) at `sample_rate`."""
    audio, rate = read_audio(path, channels=1)
    return _resampled(audio[0], rate, sample_rate, resampler, path)


def read_binaural(path: Path, sample_rate: int = SAMPLE_RATE, resampler: str = "soxr") -> np.ndarray:
    """Read a binaural recording: float32 (2, n) at `sample_rate`, channel 0 left."""
    audio, rate = read_audio(path, channels=2)
    return _resampled(audio, rate, sample_rate, resampler, path)


def _resampled(audio: np.ndarray, rate: int, new_rate: int, resampler: str, path: Path) -> np.ndarray:
    """`resample`. Raises InputError where nothing is left: of a single sample, or of ultrasound alone."""
    found = resample(audio, rate, new_rate, resampler)
    if _peak(found) < max(FAINTEST, AUDIBLE * _peak(audio)):
        raise InputError(f"is silent at {new_rate:,} Hz", path, f"it holds nothing below {new_rate / 2000:g} kHz")
    return found


def read_brir(path: Path) -> np.ndarray:
    """Read a BRIR: float32 (2, T) at 32 kHz, channel 0 left.

    Raises InputError for a file that is missing, no array, of another shape, not finite, or silent at an ear.
    """
    hint = "a BRIR is a .npy of shape (2, T)"
    if require_file(path).stat().st_size > MAX_BRIR_BYTES:  # NumPy reads a header as long as it says to be
        raise InputError(f"larger than {MAX_BRIR_BYTES:,} bytes", path, hint)
    with open(path, "rb") as file:
        if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:  # `np.load` would take text for a pickle, and say so
            raise InputError("not a NumPy array", path, hint)
    try:
        # Mapped: the shape in the header is checked against the file's size before memory is taken.
        with np.errstate(over="ignore"):  # of a shape that no file could have, which is an error all the same
            brir = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, SyntaxError, OverflowError, TokenError) as error:
        raise InputError(f"a damaged NumPy array: {error}", path, hint) from None
    if brir.ndim != 2 or brir.shape[0] != 2:
        raise InputError(f"shape {brir.shape}, not (2, T)", path, "a BRIR has a left and a right channel")
    if brir.dtype.kind != "f":
        raise InputError(f"{brir.dtype} samples, not floating point", path)
    if not 0 < brir.shape[1] <= MAX_BRIR_SECONDS * SAMPLE_RATE:
        raise InputError(f"{brir.shape[1]:,} samples", path, f"a BRIR has 1 to {MAX_BRIR_SECONDS * SAMPLE_RATE:,.0f}")
    peak = _peak(brir)
    if not math.isfinite(peak):
        raise InputError("holds NaN or infinite samples", path)
    if peak > MAX_BRIR_PEAK:
        raise InputError(f"holds samples of {peak:.1g}", path, "is it damaged?")
    if peak < FAINTEST:
        raise InputError("is silent", path)
    if ear := silent_ear(brir):
        raise InputError(f"is silent at the {ear} ear", path, "no head is: measure or make it again")
    return np.asarray(brir, dtype=np.float32)


def write_wav(path: Path, audio: np.ndarray, sample_rate: int, encoding: str = "float") -> None:
    """Write audio (channels, n), whole or not at all. Integer encodings clip at ±1: see `peak_and_clipped`."""
    # In memory first: a full disk is then an error with a name, which libsndfile's is not.
    whole = io.BytesIO()
    with defer_signals() as stop:  # libsndfile calls Python to write, and loses whatever is raised there
        soundfile.write(whole, audio.T, sample_rate, subtype=ENCODINGS[encoding], format="WAV")
    stop.check()
    if (peak := whole.getvalue()[:HEADER].find(b"PEAK")) > 0:
        whole.seek(peak + 12)
        whole.write(bytes(4))  # no time of writing: the same scene gives the same bytes
    with writing(path, "wb") as file:
        file.write(whole.getbuffer())


def peak_and_clipped(audio: np.ndarray, encoding: str) -> tuple[float, int]:
    """The largest magnitude, and how many samples `write_wav` clips."""
    magnitude = np.abs(audio)
    return float(magnitude.max()), 0 if encoding == "float" else int(np.count_nonzero(magnitude > 1.0))


def write_brir(path: Path, brir: np.ndarray) -> None:
    """Write a BRIR (channels, T) as float32, whole or not at all."""
    whole = io.BytesIO()  # as in `write_wav`
    np.save(whole, np.ascontiguousarray(brir, dtype=np.float32), allow_pickle=False)
    with writing(path, "wb") as file:
        file.write(whole.getbuffer())
