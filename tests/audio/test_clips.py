"""Recordings → clips: channel, offset, excerpts, level, and what is refused."""

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from batcli.audio.clips import ClipSettings, excerpt_starts, is_clipped, write_clips
from batcli.core.errors import InputError

RATE = 32_000


def tone(seconds, hertz=440.0, rate=RATE, level=0.3):
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def saved(tmp_path, audio, rate=RATE, name="sound.wav", subtype="FLOAT"):
    soundfile.write(tmp_path / name, np.asarray(audio), rate, subtype=subtype)
    return tmp_path / name


def read(folder, record, number=0):
    return soundfile.read(folder / record["excerpts"][number]["file"])


def test_a_recording_keeps_its_pitch_and_gets_one_channel_32_khz_and_minus_1_dbfs(tmp_path):
    path = saved(tmp_path, np.stack([tone(1, rate=44_100), tone(1, 880, 44_100)], 1), 44_100)
    record = write_clips(path, tmp_path / "clips", "dog/a", ClipSettings(2.0))
    audio, rate = read(tmp_path / "clips", record)
    assert rate == RATE
    assert audio.ndim == 1
    assert len(audio) == RATE
    assert np.abs(np.fft.rfft(audio)).argmax() == 440, "the first channel"
    assert 20 * np.log10(np.abs(audio).max()) == pytest.approx(-1, abs=0.05)
    assert (record["channels"], record["rate"], record["seconds"]) == (2, 44_100, 1.0)


def test_the_mean_of_the_channels_holds_both(tmp_path):
    path = saved(tmp_path, np.stack([tone(1), tone(1, 880)], 1))
    record = write_clips(path, tmp_path / "clips", "a", ClipSettings(2.0, channel="mean"))
    spectrum = np.abs(np.fft.rfft(read(tmp_path / "clips", record)[0]))
    assert spectrum[440] == pytest.approx(spectrum[880], rel=1e-3)
    assert spectrum[440] > 100 * spectrum[600]


def test_silence_is_refused_and_the_other_channel_named(tmp_path):
    silent = saved(tmp_path, np.zeros(RATE))
    with pytest.raises(InputError, match="is silent"):
        write_clips(silent, tmp_path, "a", ClipSettings(2.0))
    first = saved(tmp_path, np.stack([np.zeros(RATE), tone(1)], 1))
    with pytest.raises(InputError, match="first channel is silent; try --channel mean"):
        write_clips(first, tmp_path, "a", ClipSettings(2.0))
    assert write_clips(first, tmp_path, "a", ClipSettings(2.0, channel="mean"))["excerpts"]


def test_a_constant_offset_is_taken_out_and_told(tmp_path):
    record = write_clips(saved(tmp_path, tone(1) + 0.2), tmp_path, "a", ClipSettings(2.0))
    assert record["offset"]
    assert abs(read(tmp_path, record)[0].mean()) < 1e-3
    assert not write_clips(saved(tmp_path, tone(1)), tmp_path, "b", ClipSettings(2.0))["offset"]


def test_a_constant_alone_is_silence(tmp_path):
    with pytest.raises(InputError, match="is silent"):
        write_clips(saved(tmp_path, np.full(RATE, 0.5)), tmp_path, "a", ClipSettings(2.0))


@pytest.mark.parametrize(("gain", "clipped"), [(0.5, False), (0.99, False), (1.5, True), (10, True)])
def test_clipping_is_found(gain, clipped):
    noise = np.random.default_rng(0).normal(size=RATE).cumsum()
    noise = (noise - noise.mean()) / np.abs(noise - noise.mean()).max()
    assert is_clipped(np.clip(noise * gain, -1, 1)) == clipped


def test_the_loudest_part_is_found():
    audio = np.concatenate([tone(3, level=0.01), tone(1, level=0.5), tone(3, level=0.01)])
    (start,) = excerpt_starts(audio, RATE, ClipSettings(1.0), 0)
    assert start == pytest.approx(3 * RATE, abs=0.05 * RATE)


def test_a_start_without_sound_is_refused():
    with pytest.raises(InputError, match="first seconds are silent"):
        excerpt_starts(np.concatenate([np.zeros(2 * RATE), tone(2)]), RATE, ClipSettings(1.0, "start"), 0)


def test_random_parts_depend_on_seed_and_name_and_hold_sound():
    audio = np.concatenate([np.zeros(5 * RATE), tone(20), np.zeros(5 * RATE)])

    def start(seed, number):
        return excerpt_starts(audio, RATE, ClipSettings(1.0, "random", seed=seed), number)[0]

    assert start(0, 1) == start(0, 1)
    assert len({start(seed, number) for seed in range(3) for number in range(3)}) > 5
    assert all(4 * RATE < start(seed, 7) < 25 * RATE for seed in range(20))


@settings(max_examples=30, deadline=None)
@given(seconds=st.floats(0.3, 8), length=st.integers(2_000, 64_000), excerpts=st.integers(1, 5), seed=st.integers(0, 9))
def test_excerpts_lie_within_the_recording_and_do_not_overlap(seconds, length, excerpts, seed):
    audio = np.random.default_rng(seed).normal(size=round(seconds * RATE)) * 0.1
    starts = excerpt_starts(audio, length, ClipSettings(length / RATE, excerpts=excerpts), 0)
    assert 1 <= len(starts) <= excerpts
    assert all(start >= 0 for start in starts)
    if len(audio) >= length:
        assert all(start + length <= len(audio) for start in starts)
        assert all(b - a >= length for a, b in zip(sorted(starts), sorted(starts)[1:], strict=False))
    else:
        assert starts == [0]


def test_several_excerpts_are_files_of_their_own_with_their_place(tmp_path):
    audio = np.concatenate([tone(1, 300), tone(1, 600, level=0.2), tone(1, 900, level=0.001)])
    record = write_clips(saved(tmp_path, audio), tmp_path, "a", ClipSettings(1.0, excerpts=3))
    assert [excerpt["file"] for excerpt in record["excerpts"]] == ["a.wav", "a-2.wav"], "the third is 50 dB quieter"
    assert [excerpt["start"] for excerpt in record["excerpts"]] == [0.0, 1.0]
    peaks = [np.abs(np.fft.rfft(read(tmp_path, record, number)[0])).argmax() for number in (0, 1)]
    assert peaks == [300, 600]
