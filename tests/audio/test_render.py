"""Scenes from files: as the reference renders them, from clips of any rate, with files kept in memory."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve, resample_poly
from sounds import CONTENTS, EARS, encode, save

from batcli.audio import render
from batcli.audio.io import write_brir, write_wav
from batcli.audio.render import RenderSettings, render_files
from batcli.core.errors import InputError
from batcli.data.constants import PUBLISHED, RENDERINGS

RNG = np.random.default_rng(5)
BRIRS = [(RNG.standard_normal((2, 4000)) * 10 ** (-np.arange(4000) / 800)).astype(np.float32) for _ in range(2)]
CLIPS = [(0.1 * RNG.standard_normal(n)).astype(np.float32) for n in (20_000, 50_000)]


@pytest.fixture
def files(tmp_path):
    """Two sources: a clip shorter than a second and one that is longer, each with a BRIR."""
    for number in range(2):
        write_wav(tmp_path / f"{number}.wav", CLIPS[number][None], 32_000)
        write_brir(tmp_path / f"{number}.npy", BRIRS[number])
    return [(tmp_path / f"{number}.wav", tmp_path / f"{number}.npy") for number in range(2)]


def reference(clip: np.ndarray, brir: np.ndarray, length: int = 32_000) -> np.ndarray:
    """−14 dBFS, the whole convolution in float64, cut or padded."""
    clip = clip.astype(np.float64) * 10 ** (-14 / 20) / np.sqrt(np.mean(clip.astype(np.float64) ** 2))
    out = np.stack([fftconvolve(clip, ear.astype(np.float64)) for ear in brir])[:, :length]
    return np.pad(out, ((0, 0), (0, length - out.shape[1])))


def test_the_published_settings_are_the_default():
    default = RenderSettings()
    assert (default.seconds, default.sample_rate, default.rms_dbfs, default.length) == (10, 32_000, -14, 320_000)


@pytest.mark.parametrize("rendering", RENDERINGS)
def test_one_source_and_two(files, rendering):
    how = RenderSettings(seconds=1.0, rendering=rendering)
    alone = [reference(clip, brir) for clip, brir in zip(CLIPS, BRIRS, strict=True)]
    for scene, expected in (
        (render_files(files[:1], how), alone[0]),
        (render_files(files, how), (alone[0] + alone[1]) / 2),
    ):
        # What `fast` leaves out of a BRIR is 80 dB down; `published` leaves nothing out.
        allowed = 1e-5 if rendering == PUBLISHED else 1e-3
        assert np.abs(scene - expected).max() <= allowed * np.abs(expected).max()


def test_the_level_is_the_whole_clips_and_not_the_scenes(files, tmp_path):
    late = np.concatenate([CLIPS[0], 3 * CLIPS[0]])  # what is cut off is louder
    write_wav(tmp_path / "late.wav", late[None], 32_000)
    scene = render_files([(tmp_path / "late.wav", files[0][1])], RenderSettings(seconds=0.5))
    np.testing.assert_allclose(scene, reference(late, BRIRS[0], 16_000), atol=1e-3)


def test_a_clip_of_another_rate(files, tmp_path):
    write_wav(tmp_path / "x.wav", CLIPS[0][None], 48_000)
    scene = render_files([(tmp_path / "x.wav", files[0][1])], RenderSettings(seconds=1.0, rendering=PUBLISHED))
    np.testing.assert_allclose(scene, reference(resample_poly(CLIPS[0], 2, 3), BRIRS[0]), atol=1e-4)


def published_reference(files: Sequence[tuple[Path, Path]], seconds: float) -> np.ndarray:
    """The published rendering in plain SciPy, all in float64: (2, samples)."""
    length, parts = round(32_000 * seconds), []
    for clip_path, brir_path in files:
        audio, rate = soundfile.read(clip_path, always_2d=True)
        common = math.gcd(rate, 32_000)
        clip = resample_poly(audio[:, 0], 32_000 // common, rate // common) if rate != 32_000 else audio[:, 0]
        if rms := np.sqrt(np.mean(clip**2)):
            clip = clip * 10 ** (-14 / 20) / rms
        wet = np.stack([fftconvolve(clip, ear) for ear in np.load(brir_path)])[:, :length]
        parts.append(np.pad(wet, ((0, 0), (0, length - wet.shape[1]))))
    return sum(parts) / len(parts)


@given(
    rates=st.lists(st.sampled_from([8_000, 16_000, 22_050, 32_000, 44_100, 48_000]), min_size=1, max_size=2),
    subtype=st.sampled_from(["PCM_16", "PCM_24", "FLOAT", "DOUBLE"]),
    seconds=st.sampled_from([0.3, 1.0, 1.7]),
    clip_seconds=st.sampled_from([0.05, 0.9, 2.5]),
    taps=st.sampled_from([1, 3_000, 45_000]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_the_published_rendering_is_the_reference(tmp_path_factory, rates, subtype, seconds, clip_seconds, taps, seed):
    """Clips of any rate and length, two channels of which one is heard, BRIRs longer than the scene; in 64 bits."""
    folder, rng = tmp_path_factory.mktemp("published"), np.random.default_rng(seed)
    files = []
    for number, rate in enumerate(rates):
        clip = 0.05 * rng.standard_normal((max(1, round(clip_seconds * rate)), 2))
        clip[len(clip) // 3 :] *= 1e-3 * (seed % 2)  # a loud beginning, then next to or exactly silence
        soundfile.write(folder / f"{number}.wav", clip, rate, subtype=subtype)
        brir = rng.standard_normal((2, taps)) * 10 ** (-np.arange(taps) / 9_000)
        np.save(folder / f"{number}.npy", brir)
        files.append((folder / f"{number}.wav", folder / f"{number}.npy"))
    expected = published_reference(files, seconds)
    scene = render_files(files, RenderSettings(seconds, rendering=PUBLISHED))
    assert np.abs(scene - expected).max() <= 1e-6 * np.abs(expected).max()


def test_published_silence_after_a_loud_sound_is_as_silent_as_the_reference(tmp_path):
    """The phase between the ears is heard at any level: what the FFT rounds must lie below each echo's own level."""
    clip = np.zeros(32_000)
    clip[:3_000] = 0.3 * RNG.standard_normal(3_000)
    soundfile.write(tmp_path / "x.wav", clip, 32_000, subtype="FLOAT")
    np.save(tmp_path / "x.npy", RNG.standard_normal((2, 20_000)) * 10 ** (-np.arange(20_000) / 2_500))  # to −160 dB
    files = [(tmp_path / "x.wav", tmp_path / "x.npy")]
    expected = published_reference(files, 1.0)
    scene = render_files(files, RenderSettings(1.0, rendering=PUBLISHED))
    for start in range(0, 22_000, 1_000):
        here = slice(start, start + 1_000)
        assert np.abs(scene[:, here] - expected[:, here]).max() <= 1e-4 * np.abs(expected[:, here]).max(), start
    fast = render_files(files, RenderSettings(1.0))
    late = slice(18_000, 22_000)
    assert np.abs(fast[:, late] - expected[:, late]).max() > 0.1 * np.abs(expected[:, late]).max(), "what it costs"


def test_a_silent_clip_is_refused(tmp_path):
    soundfile.write(tmp_path / "x.wav", np.zeros(3_000), 44_100)
    np.save(tmp_path / "x.npy", BRIRS[0].astype(np.float64))
    for rendering in RENDERINGS:
        with pytest.raises(InputError, match=r"x\.wav: is silent"):
            render_files([(tmp_path / "x.wav", tmp_path / "x.npy")], RenderSettings(rendering=rendering))


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_a_scene_of_another_rate_is_as_loud(files, tmp_path, rate):
    # A low sound, which every rate holds whole: level is a distance cue, so it must not hang on the rate.
    low = np.sin(2 * np.pi * 500 * np.arange(32_000) / 32_000).astype(np.float32)
    write_wav(tmp_path / "low.wav", low[None], 32_000)
    source = [(tmp_path / "low.wav", files[0][1])]
    scene = render_files(source, RenderSettings(seconds=1.0, sample_rate=rate))
    assert scene.shape == (2, rate)
    levels = [
        np.sqrt(np.mean(audio**2, axis=1)) for audio in (scene, render_files(source, RenderSettings(seconds=1.0)))
    ]
    np.testing.assert_allclose(levels[0], levels[1], rtol=0.02)


def test_files_that_repeat_are_read_once(files, monkeypatch):
    first = render_files(files, RenderSettings(seconds=1.0))
    for name in ("read_clip", "read_brir"):
        monkeypatch.setattr(render, name, lambda *_: pytest.fail("read again"))
    np.testing.assert_array_equal(render_files(files, RenderSettings(seconds=1.0)), first)


def test_a_file_that_changed_is_read_again(files):
    render_files(files, RenderSettings(seconds=1.0))
    clip, brir = files[0]
    write_wav(clip, CLIPS[1][None], 32_000)
    write_brir(brir, BRIRS[1])
    same = render_files(files[1:], RenderSettings(seconds=1.0))
    np.testing.assert_array_equal(render_files(files[:1], RenderSettings(seconds=1.0)), same)


def test_what_is_missing_is_named(files):
    for lost in files[0]:
        with pytest.raises(InputError, match=f"{lost.name}.x: no such file"):
            render_files([tuple(f.with_name(f.name + ".x") if f == lost else f for f in files[0])], RenderSettings(1.0))


# ---- samples that no one expects -------------------------------------------------------------------


def refusal(clip, brir, settings: RenderSettings) -> InputError:
    with pytest.raises(InputError) as caught:
        render_files([(clip, brir)], settings)
    assert caught.value.where in (clip, brir)
    assert caught.value.__cause__ is None  # foreseen
    return caught.value


@pytest.mark.parametrize("rendering", RENDERINGS)
@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_a_brir_that_begins_after_the_scene(files, tmp_path, rendering, floor):
    """40,000 zeros, or the noise of the measurement, before the direct sound."""
    late = floor * RNG.standard_normal((2, 44_000)).astype(np.float32)
    late[:, 40_000:] += BRIRS[0]
    write_brir(tmp_path / "late.npy", late)
    clip = files[0][0]
    cut = RenderSettings(2.0, rendering=rendering, brir_seconds=1.25)
    assert refusal(clip, tmp_path / "late.npy", cut).what.startswith("is silent in its first 1.25 s")
    found = refusal(clip, tmp_path / "late.npy", RenderSettings(1.0, rendering=rendering))
    assert found.what == "is silent in its first 1 s, and no more of it is used"
    assert found.hint == "cut off its latency of 1.25 s"
    assert found.where == tmp_path / "late.npy"
    scene = render_files([(clip, tmp_path / "late.npy")], RenderSettings(1.5, rendering=rendering))
    plain = render_files([files[0]], RenderSettings(1.5, rendering=rendering))
    assert np.abs(scene[:, 40_000:] - plain[:, :8_000]).max() < 1e-3


def test_a_clip_that_begins_after_the_scene(files, tmp_path):
    write_wav(tmp_path / "late.wav", np.pad(CLIPS[0], (33_000, 0))[None], 32_000)
    found = refusal(tmp_path / "late.wav", files[0][1], RenderSettings(1.0))
    assert found.what == "is silent within the scene of 1 s"
    assert found.hint == "cut off the 1.03 s before its sound"
    assert render_files([(tmp_path / "late.wav", files[0][1])], RenderSettings(2.0)).any()


def test_a_clip_and_a_brir_that_are_late_together(files, tmp_path):
    write_wav(tmp_path / "late.wav", np.pad(CLIPS[0], (20_000, 0))[None], 32_000)
    write_brir(tmp_path / "late.npy", np.pad(BRIRS[0], ((0, 0), (15_000, 0))))
    settings = RenderSettings(1.0)
    for pair in ((tmp_path / "late.wav", files[0][1]), (files[0][0], tmp_path / "late.npy")):
        assert np.abs(render_files([pair], settings)).max() > 0.01
    assert refusal(tmp_path / "late.wav", tmp_path / "late.npy", settings).where == tmp_path / "late.wav"
    with pytest.raises(InputError, match=r"late\.wav"):  # beside a source that is heard, too
        render_files([files[0], (tmp_path / "late.wav", tmp_path / "late.npy")], settings)


def test_a_brir_of_one_sample_is_a_gain_unless_it_vanishes(files, tmp_path):
    write_brir(tmp_path / "x.npy", np.float32([[0.5], [0.25]]))
    scene = render_files([(files[0][0], tmp_path / "x.npy")], RenderSettings(1.0))
    np.testing.assert_allclose(scene[0], 2 * scene[1], atol=1e-6)
    assert refusal(files[0][0], tmp_path / "x.npy", RenderSettings(1.0, 8_000)).what == "holds no samples at 8,000 Hz"


def test_an_error_that_no_one_foresaw_is_of_its_file(files, monkeypatch):
    for name, place in (("read_clip", 0), ("prepare", 1), ("render", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(render, name, lambda *_, **__: np.zeros(0).max())
            render.clear_cache()
            with pytest.raises(InputError, match="cannot be used: ValueError: zero-size array") as caught:
                render_files(files[:1], RenderSettings(1.0))
            assert caught.value.where == files[0][place]
    render.clear_cache()


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    contents=st.tuples(*[st.sampled_from(list(CONTENTS))] * 3),
    ears=st.sampled_from(list(EARS)),
    counts=st.tuples(st.sampled_from([1, 2, 31, 3_000]), st.sampled_from([1, 2, 31, 3_000])),
    late=st.sampled_from([0, 0, 1, 2_000, 40_000]),
    rate=st.sampled_from([1_000, 32_000, 48_000, 384_000]),
    how=st.builds(
        RenderSettings,
        st.sampled_from([0.05, 1.0]),
        st.sampled_from([8_000, 32_000, 48_000]),
        st.just(-14.0),
        st.sampled_from(RENDERINGS),
        st.sampled_from([None, 0.02, 0.5]),
    ),
)
def test_any_samples_make_a_scene_that_sounds_or_are_refused(tmp_path, contents, ears, counts, late, rate, how):
    clip = save(tmp_path / "x.wav", encode("WAV, float", CONTENTS[contents[0]](counts[0]), rate))
    brir = EARS[ears](*(CONTENTS[name](counts[1]) for name in contents[1:]))
    path = save(tmp_path / "x.npy", np.pad(brir, ((0, 0), (late, 0))).astype(np.float32))
    render.clear_cache()
    try:
        scene = render_files([(clip, path)], how)
    except InputError:
        refusal(clip, path, how)
        return
    assert scene.shape == (2, how.length)
    assert np.isfinite(scene).all()
    assert scene.any()
    assert contents[0] not in ("zeros", "minus zeros", "denormals", "1e30", "the largest")
    assert ears not in ("left alone", "right alone")
    assert late < min(how.seconds, how.brir_seconds or how.seconds) * 32_000
