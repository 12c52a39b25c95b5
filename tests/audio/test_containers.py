"""Containers of sound: what is cut is refused, what has no length is read whole, and nothing is read half."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sounds import CONTAINERS, STREAMED, UNKNOWN, chunk, encode, save, wav, without_sizes

from batcli.audio.containers import Patched
from batcli.audio.io import read_audio, read_binaural, read_clip, silent_ear
from batcli.core.errors import InputError

RNG = np.random.default_rng(0)
NOISE = RNG.uniform(-0.5, 0.5, (12_000, 2)).astype(np.float32)
WHOLE = {(name, channels): encode(name, NOISE[:, :channels]) for name in CONTAINERS for channels in (1, 2)}
INTEGERS = RNG.integers(-9_000, 9_000, 1_000)
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def refusal(path, channels: int = 1) -> str:
    with pytest.raises(InputError) as caught:
        read_audio(path, channels)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.what


# ---- the cases that were reported ------------------------------------------------------------------

SAMPLES = 16_000
CASES = {
    "01-wav/ok.wav": SAMPLES,
    "01-wav/aiff_truncated.aiff": "is truncated: 16,027 of 32,054 bytes",
    "01-wav/data_half_riff_full.wav": "the 16,044 bytes up to the end of its samples are followed by 16,000 that",
    "01-wav/mp3_truncated.mp3": "is truncated: 2,646 of ",
    "01-wav/ogg_truncated.ogg": "is truncated: it ends before its last page",
    "01-wav/rf64_truncated.wav": "is truncated: 16,052 of 32,104 bytes",
    "01-wav/riffok_data_longer.wav": "is truncated: 16,044 of 32,044 bytes",
    "01-wav/silent.wav": "is silent",
    "01-wav/sox_pipe.wav": SAMPLES,
    "01-wav/stereo_left_silent.wav": "its first channel is silent",
    "01-wav/tts_placeholder.wav": SAMPLES,
    "01-wav/zero_both.wav": SAMPLES,
    "01-wav/zero_data_recorder_died.wav": SAMPLES,
    "04-channels/left_only.wav": 32_000,
    "04-channels/silent2.wav": "its first channel is silent",
}


@pytest.mark.parametrize("name", CASES)
def test_reported_clips(shared, name):
    path, expected = shared / "cases" / name, CASES[name]
    if isinstance(expected, str):
        assert refusal(path).startswith(expected)
    else:
        clip = read_clip(path)
        assert clip.shape == (expected,)
        if name.startswith("01"):  # the same sound in all
            np.testing.assert_array_equal(clip, read_clip(shared / "cases/01-wav/ok.wav"))


def test_all_reported_clips_are_tested(shared):
    found = {path.relative_to(shared / "cases").as_posix() for path in (shared / "cases").glob("0[14]-*/*")}
    assert found == set(CASES)


def test_reported_recordings(shared):
    with pytest.raises(InputError, match="is silent"):
        read_binaural(shared / "cases/04-channels/silent2.wav")
    for name, ear in (("04-channels/left_only.wav", "right"), ("01-wav/stereo_left_silent.wav", "left")):
        assert silent_ear(read_binaural(shared / "cases" / name)) == ear


# ---- whole files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_file_is_read_whole(tmp_path, name, channels):
    path = save(tmp_path / f"x{CONTAINERS[name][2]}", WHOLE[name, channels])
    audio, rate = read_audio(path, channels)
    assert (audio.shape, rate) == ((channels, len(NOISE)), 32_000)
    np.testing.assert_array_equal(audio, soundfile.read(path, dtype="float32", always_2d=True)[0].T)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "around",
    [
        {},
        {"before": chunk(b"LIST", b"INFOISFT" + struct.pack("<I", 4) + b"abc\0")},
        {"after": chunk(b"LIST", b"INFO")},
        {"after": chunk(b"id3 ", b"ID3" + bytes(40)) + chunk(b"bext", bytes(602))},
        {"after": b"TAG" + bytes(125), "all_off_by": -128},  # of players: not in the container
        {"after": b"ID3\4" + bytes(100), "all_off_by": -104},
        {"after": b"\n"},
        {"after": bytes(4_096)},  # filled up to a sector
        {"all_off_by": 8},  # the file's size where the content's belongs
        {"all_off_by": -1_000},
        {"after": chunk(b"LIST", bytes(40))[:30], "all_off_by": 18},  # cut after the sound
    ],
)
def test_what_stands_around_the_samples_is_no_fault(tmp_path, order, around):
    if order == ">" and {"before", "after"} & set(around):
        pytest.skip("these chunks are little-endian")
    clip = read_clip(save(tmp_path / "x.wav", wav(INTEGERS, order=order, **around)))
    np.testing.assert_array_equal(clip, INTEGERS / np.float32(32_768))


def test_sound_after_the_end_of_the_sound(tmp_path):
    """A recorder stopped before it wrote the last sizes, or two files stand behind each other."""
    half = bytearray(wav(INTEGERS))
    half[40:44] = struct.pack("<I", len(INTEGERS))
    for content, rest in ((bytes(half), 1_000), (wav(INTEGERS) + RNG.bytes(1_000), 1_000)):
        found = refusal(save(tmp_path / "x.wav", content))
        assert found.startswith(f"the {len(content) - rest:,} bytes up to the end of its samples are followed by 1,000")


CHUNKED = {
    "WAV": ("<I", b"LIST"),
    "RF64": ("<I", b"LIST"),
    "AIFF": (">I", b"ANNO"),
    "CAF": (">Q", b"info"),
    "W64": ("<Q", bytes.fromhex("6c6973742f91cf11a5d628db04c10000")),
}
"""How containers write a chunk's size, and one that may follow the samples."""


@quick
@given(
    form=st.sampled_from(list(CHUNKED)),
    subtype=st.sampled_from(["PCM_16", "PCM_24", "FLOAT"]),
    frames=st.integers(1, 3_000),
    content=st.binary(min_size=8, max_size=3_000),
)
def test_chunks_behind_the_samples_are_no_sound(tmp_path, form, subtype, frames, content):
    path = tmp_path / "x"
    soundfile.write(path, NOISE[:frames], 32_000, subtype=subtype, format=form)
    clip, whole = read_clip(path), path.read_bytes()
    size, name = CHUNKED[form]
    counted = len(content) + (len(name) + 8 if form == "W64" else 0)
    whole += bytes(-len(whole) % (8 if form == "W64" else 2))
    np.testing.assert_array_equal(read_clip(save(path, whole + name + struct.pack(size, counted) + content)), clip)
    np.testing.assert_array_equal(read_clip(save(path, whole + bytes(4_096))), clip)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24"])
@pytest.mark.parametrize("tag", [b"", b"TAG" + bytes(125), b"APETAGEX" + bytes(200)])
@pytest.mark.parametrize("has_length", [True, False])
def test_a_flac_is_read_whole_with_tags_and_without_a_length(tmp_path, subtype, tag, has_length):
    path = tmp_path / "x.flac"
    soundfile.write(path, NOISE, 32_000, subtype=subtype, format="FLAC")
    clip, content = read_clip(path), bytearray(path.read_bytes())
    if not has_length:  # as encoders write it into a pipe: 36 bits of STREAMINFO are zero
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        tag = b""
    np.testing.assert_array_equal(read_clip(save(path, bytes(content) + tag)), clip)


def test_bw64_is_rf64(tmp_path):
    whole = encode("RF64", NOISE)
    np.testing.assert_array_equal(
        read_clip(save(tmp_path / "bw.wav", b"BW64" + whole[4:])), read_clip(save(tmp_path / "rf.wav", whole))
    )
    assert refusal(save(tmp_path / "cut.wav", b"BW64" + whole[4:-2_000])).startswith("is truncated: ")


def test_of_ogg_streams_behind_each_other_not_only_the_first_is_read(tmp_path):
    first, second = encode("OGG", NOISE[:, 0]), encode("OGG", NOISE[:6_000, 0])
    other = bytearray(second)
    place = -1
    while (place := other.find(b"OggS", place + 1)) >= 0:
        other[place + 14 : place + 18] = b"next"
    assert refusal(save(tmp_path / "x.ogg", first + bytes(other))).startswith("holds several streams")


# ---- what is cut ------------------------------------------------------------------------------------


@quick
@given(name=st.sampled_from(list(CONTAINERS)), channels=st.sampled_from([1, 2]), share=st.floats(0.001, 0.995))
def test_what_is_cut_is_never_read(tmp_path, name, channels, share):
    whole = WHOLE[name, channels]
    size = max(1, int(share * len(whole)))
    path = save(tmp_path / f"x{CONTAINERS[name][2]}", whole[:size])
    found = refusal(path, channels)
    if name != "FLAC" and size > 5_000:  # beyond its head; of a FLAC libsndfile says that it is damaged
        assert found.startswith("is truncated: ")


@pytest.mark.parametrize("name", ["WAV", "AIFF", "RF64", "W64", "AU"])
def test_a_few_bytes_less_are_less(tmp_path, name):
    whole = WHOLE[name, 1]
    assert refusal(save(tmp_path / "x.wav", whole[:-2])).startswith(
        f"is truncated: {len(whole) - 2:,} of {len(whole):,} bytes"
    )


def test_a_flac_that_is_cut_between_frames(tmp_path):
    whole = WHOLE["FLAC", 1]
    frames = [place for place in range(60, len(whole)) if whole[place : place + 2] == b"\xff\xf8"]
    assert len(frames) >= 2
    for place in frames[1:]:
        assert refusal(save(tmp_path / "x.flac", whole[:place])).startswith(("is truncated: ", "not audio: "))


def test_an_mp3_whose_header_does_not_say_its_bytes(tmp_path):
    """The number of samples, which such a header says as well, is more than there are."""
    whole = bytearray(WHOLE["MP3", 1])
    at = max(whole.find(b"Xing"), whole.find(b"Info"))
    whole[at + 7] &= ~2
    assert refusal(save(tmp_path / "x.mp3", bytes(whole[: len(whole) // 2]))).startswith("is truncated: ")


def test_the_tags_before_an_mp3_are_no_sound(tmp_path):
    tag = b"ID3\4\0\0" + bytes([0, 0, 7, 104]) + bytes(1_000)
    assert len(read_clip(save(tmp_path / "x.mp3", tag + WHOLE["MP3", 1]))) == len(NOISE)
    assert refusal(save(tmp_path / "x.mp3", tag + WHOLE["MP3", 1][:-500])).startswith("is truncated: ")


# ---- what has no length -------------------------------------------------------------------------------


@quick
@given(
    name=st.sampled_from(STREAMED),
    channels=st.sampled_from([1, 2]),
    sizes=st.tuples(st.sampled_from(UNKNOWN), st.sampled_from(UNKNOWN)),
    less=st.tuples(st.sampled_from([0, 8, 36, 44]), st.sampled_from([0, 1, 8, 36, 44, 70])),
    silence=st.sampled_from([0, 3_000]),
)
def test_a_stream_is_read_to_its_end(tmp_path, name, channels, sizes, less, silence):
    """Whatever its writer put in place of the sizes, and even if it begins with digital silence."""
    samples = np.concatenate([np.zeros((silence, channels), np.float32), NOISE[:, :channels]])
    whole = encode(name, samples)
    of_all, of_samples = (max(0, size - by) for size, by in zip(sizes, less, strict=True))
    path = tmp_path / f"x{CONTAINERS[name][2]}"
    expected, _ = read_audio(save(path, whole), channels)
    found, _ = read_audio(save(path, without_sizes(name, whole, of_all, of_samples)), channels)
    np.testing.assert_array_equal(found, expected)
    assert found.shape == (channels, len(samples))


@pytest.mark.parametrize("size", [*UNKNOWN, 36, 32_036])
@pytest.mark.parametrize("order", ["<", ">"])
def test_one_size_may_be_right_and_the_other_not(tmp_path, size, order):
    content = bytearray(wav(INTEGERS, order=order))
    for of_all, of_samples in ((size, 2 * len(INTEGERS)), (size, 0), (size, 0xFFFFFFFF)):
        content[4:8], content[40:44] = (struct.pack(f"{order}I", each) for each in (of_all, of_samples))
        assert len(read_clip(save(tmp_path / "x.wav", bytes(content)))) == len(INTEGERS)


@pytest.mark.parametrize("after", [b"", chunk(b"LIST", b"INFO"), bytes(100)])
def test_no_samples_are_no_stream(tmp_path, after):
    path = save(tmp_path / "x.wav", wav(INTEGERS[:0], after=after))
    assert refusal(path) in ("holds no samples", "is silent")


@pytest.mark.parametrize("size", [1_000_000, 500_000_000, 0x7F000000 - 100_000, 3_000_000_000])
def test_other_sizes_are_meant(tmp_path, size):
    content = bytearray(wav(INTEGERS))
    content[40:44] = struct.pack("<I", size)
    assert refusal(save(tmp_path / "x.wav", bytes(content))) == f"is truncated: 2,044 of {size + 44:,} bytes"


@quick
@given(places=st.dictionaries(st.integers(0, 999), st.binary(min_size=1, max_size=9), max_size=4), data=st.data())
def test_a_patched_file_is_the_patched_bytes(tmp_path, places, data):
    expected = bytearray(RNG.bytes(1_000))
    path = save(tmp_path / "x", bytes(expected))
    for place, value in places.items():
        expected[place : place + len(value)] = value
    end = data.draw(st.integers(0, 1_000))
    expected = expected[:end]
    with Patched(path, places, end) as file:
        start, count = data.draw(st.integers(0, 1_100)), data.draw(st.integers(0, 1_100))
        assert file.seek(0, 2) == end
        assert file.seek(start) == start
        assert file.read(count) == expected[start : start + count]


# ---- channels and formats --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [3, 4, 6, 8, 16])
@pytest.mark.parametrize(("read", "hint"), [(read_binaural, "two ears"), (read_clip, "mix it down")])
def test_more_than_two_channels_are_no_ears(tmp_path, channels, read, hint):
    path = save(tmp_path / "x.wav", encode("WAVEX", np.tile(NOISE[:, :1], channels)))
    with pytest.raises(InputError, match=f"{channels} channels .*not one or two; .*{hint}"):
        read(path)


@pytest.mark.parametrize("form", ["VOC", "NIST", "IRCAM", "MAT5", "PAF", "SVX"])
def test_formats_whose_length_is_not_checked(tmp_path, form):
    soundfile.write(tmp_path / "x.snd", NOISE[:, 0], 32_000, format=form, subtype="PCM_16")
    with pytest.raises(InputError, match=f"a file of the format {form}; make it a WAV or FLAC file"):
        read_clip(tmp_path / "x.snd")


def test_raw_samples(tmp_path):
    path = save(tmp_path / "x.raw", WHOLE["WAV", 1])
    with pytest.raises(InputError, match="samples without a header; make it a WAV or FLAC file"):
        read_clip(path)
