"""Rendering: level, convolution against scipy in float64, the bound of what is cut off, the mean of sources."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from batcli.audio.convolve import RMS_DBFS, TRIM_DB, convolve, normalise, prepare, render, trim


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def decaying(seed: int, taps: int, decay: float) -> np.ndarray:
    """A BRIR that falls by 60 dB in `decay` samples."""
    return (noise(seed, 2, taps) * 10 ** (-3 * np.arange(taps) / decay)).astype(np.float32)


def reference(clip: np.ndarray, brir: np.ndarray, length: int) -> np.ndarray:
    """Full convolution in float64, then cut or padded: what the published code does."""
    out = np.zeros((2, length))
    for ear in range(2):
        whole = fftconvolve(clip.astype(np.float64), brir[ear].astype(np.float64))[:length]
        out[ear, : len(whole)] = whole
    return out


@settings(deadline=None)
@given(
    samples=st.integers(1, 5000),
    taps=st.integers(1, 3000),
    length=st.integers(1, 6000),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolution_is_scipys(samples, taps, length, exact, seed):
    clip, brir = noise(seed, samples), decaying(seed + 1, taps, 1500)
    out = convolve(clip, prepare(brir, length, exact), length)
    assert out.dtype == np.float32
    assert out.shape == (2, length)
    expected = reference(clip, brir, length)
    assert np.abs(out - expected).max() <= 1e-5 * max(1e-9, np.abs(expected).max())


def test_ten_seconds_of_the_published_size():
    clip, brir = noise(0, 320_000), decaying(1, 80_000, 30_000)
    out, expected = convolve(clip, prepare(brir, 320_000), 320_000), reference(clip, brir, 320_000)
    assert np.abs(out - expected).max() <= 1e-5 * np.abs(expected).max()


@given(taps=st.integers(1, 4000), decay=st.floats(20, 5000), seed=st.integers(0, 99))
@settings(deadline=None)
def test_what_is_trimmed_cannot_be_heard(taps, decay, seed):
    brir = decaying(seed, taps, decay)
    short = trim(brir)
    rest = brir[:, short.shape[1] :].astype(np.float64)
    np.testing.assert_array_equal(short, brir[:, : short.shape[1]])
    assert 1 <= short.shape[1] <= taps
    # Cauchy–Schwarz: no sample of the scene moves by more than this, whatever the clip.
    bound = 10 ** (TRIM_DB / 20) * np.linalg.norm(brir.astype(np.float64))
    assert np.linalg.norm(rest) <= bound
    # And no more is kept than it takes: with one sample less it would be too little.
    assert np.linalg.norm(brir[:, short.shape[1] - 1 :].astype(np.float64)) > bound * 0.999


def test_the_bound_holds_for_the_clip_that_reaches_it():
    brir = decaying(3, 4000, 1000)
    rest = brir.astype(np.float64).copy()
    rest[:, : trim(brir).shape[1]] = 0
    worst = rest[0, ::-1]  # convolved with itself reversed, the tail gives its whole energy in one sample
    change = np.abs(reference(worst, rest.astype(np.float32), 8000)).max()
    bound = 10 ** (TRIM_DB / 20) * np.linalg.norm(brir.astype(np.float64)) * np.linalg.norm(worst)
    assert 0 < change <= bound * (1 + 1e-6)


def test_exact_leaves_no_rounding_in_a_silence():
    clip = np.zeros(40_000, np.float32)
    clip[:2000] = noise(0, 2000)
    brir = decaying(1, 3000, 1000)
    assert np.abs(convolve(clip, prepare(brir, 40_000, exact=True), 40_000)[:, 6000:]).max() < 1e-13
    assert np.abs(convolve(clip, prepare(brir, 40_000), 40_000)[:, 6000:]).max() < 1e-4


# ---- level ---------------------------------------------------------------------------------------


def dbfs(x: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(x, dtype=np.float64))))


@given(level=st.floats(1e-20, 1e20), rms_dbfs=st.floats(-80, 0))
def test_clips_are_brought_to_their_level(level, rms_dbfs):
    out = normalise(noise(0, 500) * np.float32(level), rms_dbfs)
    assert dbfs(out) == pytest.approx(rms_dbfs, abs=1e-3)
    assert out.dtype == np.float32


def test_the_default_is_minus_14_dbfs():
    assert RMS_DBFS == -14
    assert dbfs(normalise(noise(0, 32_000))) == pytest.approx(-14, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-42])
def test_silence_stays_silence(value):
    # 1e-42 is below what float32 holds in full: a gain that brings it to −14 dBFS is infinite.
    clip = np.full(100, value, np.float32)
    out = normalise(clip)
    np.testing.assert_array_equal(out, clip)
    assert np.isfinite(render([(clip, prepare(decaying(0, 50, 20), 100))], 100)).all()


def test_a_clip_of_no_samples_is_silence():
    assert not render([(np.zeros(0, np.float32), prepare(decaying(0, 50, 20), 100))], 100).any()


# ---- scenes --------------------------------------------------------------------------------------


def test_a_scene_is_the_mean_of_its_sources():
    brirs = [decaying(n, 500, 200) for n in range(3)]
    clips = [noise(n, 1000) * 10.0**n for n in range(3)]
    alone = [render([(c, prepare(b, 900))], 900) for c, b in zip(clips, brirs, strict=True)]
    sources = [(c, prepare(b, 900)) for c, b in zip(clips, brirs, strict=True)]
    np.testing.assert_allclose(render(sources[:2], 900), (alone[0] + alone[1]) / 2, atol=1e-6)
    np.testing.assert_allclose(render(sources, 900), sum(alone) / 3, atol=1e-6)
    expected = reference(normalise(clips[0]), brirs[0], 900)  # one source is not attenuated
    np.testing.assert_allclose(alone[0], expected, atol=1e-5 * np.abs(expected).max())


def test_scenes_are_cut_and_padded():
    click = np.zeros((2, 3), np.float32)
    click[:, 2] = 1
    clip = noise(0, 100)
    long = render([(clip, prepare(click, 200))], 200)
    np.testing.assert_allclose(long[0, 2:102], normalise(clip), atol=1e-6)
    assert not long[:, 102:].any() or np.abs(long[:, 102:]).max() < 1e-6
    np.testing.assert_allclose(render([(clip, prepare(click, 50))], 50), long[:, :50], atol=1e-5)


def test_what_was_given_is_not_changed():
    clip, brir = noise(0, 100), decaying(1, 50, 20)
    before = clip.copy(), brir.copy()
    render([(clip, prepare(brir, 80)), (clip, prepare(brir, 80))], 80)
    np.testing.assert_array_equal(clip, before[0])
    np.testing.assert_array_equal(brir, before[1])
