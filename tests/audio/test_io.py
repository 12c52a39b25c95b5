"""Reading and writing audio: every fault of a file is one error with its path."""

import io
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batcli.audio.io import (
    MAX_BRIR_SECONDS,
    onset,
    read_audio,
    read_binaural,
    read_brir,
    read_clip,
    resample,
    silent_ear,
    write_brir,
    write_wav,
)
from batcli.core.errors import InputError, Stopped

NOISE = (0.1 * np.random.default_rng(0).standard_normal((2, 16_000))).astype(np.float32)


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate).astype(np.float32)


# ---- what is read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "subtype", "accuracy"),
    [
        (".wav", "FLOAT", 0),
        (".wav", "DOUBLE", 0),
        (".wav", "PCM_16", 2**-15),
        (".wav", "PCM_24", 2**-23),
        (".wav", "PCM_32", 2**-24),
        (".wav", "PCM_U8", 2**-7),
        (".flac", "PCM_16", 2**-15),
        (".flac", "PCM_24", 2**-23),
    ],
)
def test_every_encoding_is_read_at_its_level(tmp_path, suffix, subtype, accuracy):
    file = tmp_path / f"x{suffix}"
    soundfile.write(file, NOISE.T, 32_000, subtype=subtype)
    audio, rate = read_audio(file, channels=2)
    assert (rate, audio.shape, audio.dtype) == (32_000, (2, 16_000), np.float32)
    assert np.abs(audio - NOISE).max() <= accuracy
    np.testing.assert_array_equal(read_clip(file), audio[0])  # mono: the first channel
    np.testing.assert_array_equal(read_binaural(file), audio)


def test_a_lossy_encoding_is_read(tmp_path):
    soundfile.write(tmp_path / "x.ogg", 0.5 * tone(1000, 32_000), 32_000)
    clip = read_clip(tmp_path / "x.ogg")
    assert len(clip) == 32_000
    np.testing.assert_allclose(clip[2000:-2000], 0.5 * tone(1000, 32_000)[2000:-2000], atol=0.02)


def test_full_scale_is_one(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.array([-32768, 32767, 0], np.int16), 32_000)
    np.testing.assert_array_equal(read_clip(tmp_path / "x.wav"), np.float32([-1, 32767 / 32768, 0]))


def test_reading_in_blocks_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("batcli.audio.io.BLOCK", 7)
    soundfile.write(tmp_path / "x.wav", NOISE[:, :100].T, 32_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_binaural(tmp_path / "x.wav"), NOISE[:, :100])


@pytest.mark.parametrize("resampler", ["soxr", "poly"])
@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 96_000])
def test_other_rates_are_resampled_and_not_refused(tmp_path, rate, resampler):
    soundfile.write(tmp_path / "x.wav", 0.5 * tone(1000, rate), rate, subtype="FLOAT")
    clip = read_clip(tmp_path / "x.wav", resampler=resampler)
    assert abs(len(clip) - 32_000) <= 1
    assert clip.dtype == np.float32
    middle = slice(4000, 28_000)
    np.testing.assert_allclose(clip[middle], 0.5 * tone(1000, 32_000)[middle], atol=2e-3)


def test_soxr_lets_no_alias_through():
    heard = {
        name: np.std(resample(tone(17_000, 48_000), 48_000, 32_000, name)[2000:-2000]) for name in ("soxr", "poly")
    }
    assert heard["soxr"] < 1e-4
    assert 0.05 < heard["poly"] < 0.3  # as in the published data


def test_resampling_works_along_the_last_axis():
    both = resample(NOISE, 32_000, 16_000)
    assert both.shape == (2, 8000)
    assert both.flags.c_contiguous
    np.testing.assert_allclose(both[1], resample(NOISE[1], 32_000, 16_000), atol=1e-6)


# ---- clips that are none -------------------------------------------------------------------------


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])


def hold(file: Path, value: float) -> None:
    audio = NOISE.copy()
    audio[0, 5] = value
    soundfile.write(file, audio.T, 32_000, subtype="FLOAT")


def ultrasound() -> np.ndarray:
    return np.tile(0.5 * tone(30_000, 96_000) * np.hanning(96_000), (2, 1)).T


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: (file.unlink(), file.mkdir()), "is a directory"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (lambda file: cut(file, 20), "is truncated: 20 of"),
        (lambda file: cut(file, 9000), "is truncated: 9,000 of"),
        (lambda file: cut(file, 11), "not audio"),
        (lambda file: file.write_text("hello"), "not audio"),
        (lambda file: file.write_bytes(bytes(1000)), "not audio"),
        (lambda file: soundfile.write(file, np.zeros((0, 2)), 32_000), "holds no samples"),
        (lambda file: soundfile.write(file, NOISE.T, 500_000), "a sample rate of 500,000 Hz"),
        (lambda file: hold(file, np.nan), "holds NaN or infinite samples"),
        (lambda file: hold(file, np.inf), "holds NaN or infinite samples"),
        (lambda file: soundfile.write(file, NOISE[0], 32_000), "1 channel, needed 2"),
        (lambda file: soundfile.write(file, np.tile(NOISE[0], (4, 1)).T, 32_000), "4 channels (surround"),
        (lambda file: soundfile.write(file, 0 * NOISE.T, 32_000), "is silent"),
        (lambda file: soundfile.write(file, 1e-10 * NOISE.T, 32_000, subtype="FLOAT"), "is silent"),
        (lambda file: hold(file, 1e30), "holds samples of 1e+30; is it damaged?"),
        (lambda file: hold(file, -1e30), "holds samples of 1e+30; is it damaged?"),
        (lambda file: soundfile.write(file, ultrasound(), 96_000), "is silent at 32,000 Hz; it holds nothing below 16"),
        (lambda file: soundfile.write(file, NOISE[:, :1].T, 384_000), "is silent at 32,000 Hz"),
    ],
)
def test_what_is_no_binaural_recording(tmp_path, spoil, message):
    file = tmp_path / "x.wav"
    soundfile.write(file, NOISE.T, 32_000)
    spoil(file)
    with pytest.raises(InputError) as caught:
        read_binaural(file)
    assert str(caught.value).startswith(f"{file}: {message}")


def test_the_first_channel_must_sound(tmp_path):
    soundfile.write(tmp_path / "x.wav", NOISE.T * [0, 1], 32_000)
    with pytest.raises(InputError, match="its first channel is silent; if the other is not, keep that alone"):
        read_clip(tmp_path / "x.wav")
    assert silent_ear(read_binaural(tmp_path / "x.wav")) == "left"
    assert silent_ear(NOISE) is None


def test_the_faintest_sound_that_whole_numbers_hold(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.int32([[0, 0], [1, -1]] * 50), 32_000, subtype="PCM_32")
    assert read_binaural(tmp_path / "x.wav").any()


@pytest.mark.parametrize("shape", [(3_000,), (2, 3_000)])
@pytest.mark.parametrize("start", [0, 1, 2_999])
def test_a_sound_begins_80_db_below_its_peak(shape, start):
    audio = np.zeros(shape)
    audio[..., :start] = 0.9e-4
    audio[..., start] = -1e-4
    audio[..., -1] = -1.0
    assert onset(audio) == start


def test_a_flac_that_is_cut(tmp_path):
    soundfile.write(tmp_path / "x.flac", NOISE.T, 32_000)
    cut(tmp_path / "x.flac", 9000)
    with pytest.raises(InputError, match="not audio"):
        read_clip(tmp_path / "x.flac")


def test_a_clip_that_is_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr("batcli.audio.io.MAX_CLIP_SECONDS", 0.1)
    monkeypatch.setattr("batcli.audio.io.BLOCK", 1000)
    soundfile.write(tmp_path / "x.wav", NOISE.T, 32_000)
    with pytest.raises(InputError, match="longer than 0 s"):
        read_clip(tmp_path / "x.wav")


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_from_a_pipe_does_not_know_its_length(tmp_path, size):
    file = tmp_path / "x.wav"
    soundfile.write(file, NOISE.T, 32_000)
    content = bytearray(file.read_bytes())
    content[4:8] = struct.pack("<I", size)
    file.write_bytes(content)
    assert read_clip(file).shape == (16_000,)


# ---- BRIRs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_brirs_of_every_precision(tmp_path, dtype, order):
    np.save(tmp_path / "x.npy", np.asarray(NOISE, dtype=dtype, order=order))
    brir = read_brir(tmp_path / "x.npy")
    assert brir.dtype == np.float32
    np.testing.assert_array_equal(brir, NOISE.astype(dtype).astype(np.float32))


def test_a_brir_comes_back(tmp_path):
    write_brir(tmp_path / "room/1.npy", NOISE.astype(np.float64))
    np.testing.assert_array_equal(read_brir(tmp_path / "room/1.npy"), NOISE)


def with_header(shape: str) -> bytes:
    """A .npy of 800 bytes that says it has `shape`."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(800)


def holding(value: float) -> np.ndarray:
    brir = NOISE.astype(np.float64)
    brir[1, 7] = value
    return brir


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a NumPy array"),
        (b"hello", "not a NumPy array; a BRIR is a .npy of shape (2, T)"),
        (b"\x93NUMPY\x01\x00", "a damaged NumPy array"),
        (with_header("(2, 100)")[:500], "a damaged NumPy array"),
        (with_header("(2, 99999999999)"), "a damaged NumPy array"),
        (with_header("(2, 99999999999999999999999)"), "a damaged NumPy array"),
        (with_header("(2, -100)"), "a damaged NumPy array"),
        (with_header("(2, 9**99)"), "a damaged NumPy array"),
        (with_header("(2, 100"), "a damaged NumPy array"),
        (np.array([{}, []], dtype=object), "a damaged NumPy array: Array can't be memory-mapped: Python objects"),
        (NOISE[0], "shape (16000,), not (2, T)"),
        (NOISE[:1], "shape (1, 16000), not (2, T)"),
        (NOISE.T, "shape (16000, 2), not (2, T)"),
        (NOISE[:, :0], "0 samples; a BRIR has 1 to 640,000"),
        (np.ones((2, int(MAX_BRIR_SECONDS * 32_000) + 1), np.float16), "640,001 samples"),
        ((NOISE * 1000).astype(np.int16), "int16 samples, not floating point"),
        (NOISE.astype(np.complex64), "complex64 samples"),
        (NOISE > 0, "bool samples"),
        (np.array([["a"], ["b"]]), "<U1 samples"),
        (holding(np.nan), "holds NaN or infinite samples"),
        (holding(-np.inf), "holds NaN or infinite samples"),
        (holding(1e300), "holds samples of 1e+300"),
        (0 * NOISE, "is silent"),
        (1e-42 * np.ones_like(NOISE), "is silent"),
        (NOISE * [[1], [0]], "is silent at the right ear"),
        (NOISE * [[1e-12], [1]], "is silent at the left ear"),
        (1e-60 * NOISE.astype(np.float64), "is silent"),
    ],
)
def test_what_is_no_brir(tmp_path, content, message):
    file = tmp_path / "x.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.save(file, content)
    with pytest.raises(InputError) as caught:
        read_brir(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)


def test_reported_brirs(shared):
    assert read_brir(shared / "cases/09-brir/dc.npy").shape == (2, 4_000)  # odd, and yet it sounds
    with pytest.raises(InputError, match="is silent at the right ear"):
        read_brir(shared / "cases/09-brir/one_ear_silent.npy")


def test_an_archive_is_no_brir(tmp_path):
    np.savez(tmp_path / "x.npz", brir=NOISE)
    with pytest.raises(InputError, match="not a NumPy array"):
        read_brir(tmp_path / "x.npz")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 135), byte=st.integers(0, 255), end=st.integers(0, 928))
def test_a_damaged_file_is_an_error_or_an_array(tmp_path, place, byte, end):
    content = bytearray(with_header("(2, 100)"))
    content[300:] = NOISE[0, : (len(content) - 300) // 4].tobytes()
    content[place] = byte
    (tmp_path / "x.npy").write_bytes(content[:end] if end > 200 else content)
    with suppress(InputError):
        brir = read_brir(tmp_path / "x.npy")
        assert brir.shape[0] == 2
        assert np.isfinite(brir).all()


# ---- what is written -----------------------------------------------------------------------------


def test_float_keeps_peaks_over_one(tmp_path):
    write_wav(tmp_path / "x.wav", 30 * NOISE, 32_000)
    assert np.abs(NOISE).max() * 30 > 1
    np.testing.assert_array_equal(read_binaural(tmp_path / "x.wav"), 30 * NOISE)
    assert soundfile.info(tmp_path / "x.wav").subtype == "FLOAT"


def test_the_same_samples_are_the_same_bytes_at_any_time(tmp_path):
    for second in range(2):
        for encoding in ("float", "pcm16", "pcm24"):
            write_wav(tmp_path / f"{encoding}-{second}.wav", NOISE, 32_000, encoding)
        time.sleep(1.01 * (1 - second))  # libsndfile writes the second into the file
    for encoding in ("float", "pcm16", "pcm24"):
        assert (tmp_path / f"{encoding}-0.wav").read_bytes() == (tmp_path / f"{encoding}-1.wav").read_bytes()


@pytest.mark.parametrize(("encoding", "step"), [("pcm16", 2**-15), ("pcm24", 2**-23)])
def test_integers_clip_and_do_not_wrap(tmp_path, encoding, step):
    loud = np.float32([[0.5, 1.5, -1.5, 1.0], [0, 3.0, -1.0, -100]])
    write_wav(tmp_path / "x.wav", loud, 16_000, encoding)
    audio, rate = read_audio(tmp_path / "x.wav", 2)
    assert rate == 16_000
    assert np.abs(audio - loud.clip(-1, 1)).max() <= step


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path):
    program = f"""
import resource, numpy as np
from pathlib import Path
from batcli.audio.io import write_wav
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # a disk that is full after 1,000 bytes
try:
    write_wav(Path({str(tmp_path / "x.wav")!r}), np.zeros((2, 32_000), "f4"), 32_000)
except OSError as error:
    print(error)
"""
    pytest.importorskip("resource")
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.stdout == "[Errno 27] File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_a_wav_is_encoded_leaves_no_file(tmp_path, monkeypatch):
    """libsndfile calls `write` of the file in memory and drops what that raises: the WAV would be cut."""

    signals = [signal.SIGINT]

    class Interrupted(io.BytesIO):
        def write(self, data):
            while signals:
                signal.raise_signal(signals.pop())
            return super().write(data)

    monkeypatch.setattr("batcli.audio.io.io.BytesIO", Interrupted)
    with pytest.raises(Stopped):
        write_wav(tmp_path / "a.wav", np.zeros((2, 1000), np.float32), 32_000)
    assert list(tmp_path.iterdir()) == []
