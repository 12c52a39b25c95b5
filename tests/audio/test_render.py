"""Scenes from files: as the reference renders them, from clips of any rate, with files kept in memory."""

import numpy as np
import pytest
from scipy.signal import fftconvolve, resample_poly

from batcli.audio import render
from batcli.audio.io import write_brir, write_wav
from batcli.audio.render import RenderSettings, render_files
from batcli.core.errors import InputError

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
    settings = RenderSettings()
    assert (settings.seconds, settings.sample_rate, settings.rms_dbfs, settings.length) == (10, 32_000, -14, 320_000)


@pytest.mark.parametrize("resampler", ["soxr", "poly"])
def test_one_source_and_two(files, resampler):
    settings = RenderSettings(seconds=1.0, resampler=resampler)
    alone = [reference(clip, brir) for clip, brir in zip(CLIPS, BRIRS, strict=True)]
    for scene, expected in (
        (render_files(files[:1], settings), alone[0]),
        (render_files(files, settings), (alone[0] + alone[1]) / 2),
    ):
        # What the default leaves out of a BRIR is 80 dB down; `poly` leaves nothing out.
        allowed = 1e-5 if resampler == "poly" else 1e-3
        assert np.abs(scene - expected).max() <= allowed * np.abs(expected).max()


def test_the_level_is_the_whole_clips_and_not_the_scenes(files, tmp_path):
    late = np.concatenate([CLIPS[0], 3 * CLIPS[0]])  # what is cut off is louder
    write_wav(tmp_path / "late.wav", late[None], 32_000)
    scene = render_files([(tmp_path / "late.wav", files[0][1])], RenderSettings(seconds=0.5))
    np.testing.assert_allclose(scene, reference(late, BRIRS[0], 16_000), atol=1e-3)


def test_a_clip_of_another_rate(files, tmp_path):
    write_wav(tmp_path / "x.wav", CLIPS[0][None], 48_000)
    scene = render_files([(tmp_path / "x.wav", files[0][1])], RenderSettings(seconds=1.0, resampler="poly"))
    np.testing.assert_allclose(scene, reference(resample_poly(CLIPS[0], 2, 3), BRIRS[0]), atol=1e-4)


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
