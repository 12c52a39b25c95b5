"""Rendering: level, convolution against scipy in float64, the bound of what is cut off, the mean of sources."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from batcli.audio.convolve import RMS_DBFS, TRIM_DB, gain, prepare, render, trim


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


def bound(clip: np.ndarray, brir: np.ndarray) -> float:
    """The most that trimming changes in any sample: 10^(TRIM_DB/20) · ‖h‖₂ · ‖x‖₂."""
    return float(10 ** (TRIM_DB / 20) * np.linalg.norm(brir.astype(np.float64)) * np.linalg.norm(clip))


@settings(deadline=None)
@given(
    samples=st.integers(1, 5000),
    taps=st.integers(1, 3000),
    length=st.integers(1, 6000),
    sources=st.integers(1, 3),
    exact=st.booleans(),
    seed=st.integers(0, 99),
)
def test_convolution_is_scipys(samples, taps, length, sources, exact, seed):
    clips = [noise(seed + n, max(1, samples // (n + 1))) for n in range(sources)]
    brirs = [decaying(seed + 5 + n, max(1, taps // (n + 1)), 1500) for n in range(sources)]
    levelled = [clip.astype(np.float64) * gain(clip) for clip in clips]
    out = render([(c, prepare(b, length, exact)) for c, b in zip(clips, brirs, strict=True)], length)
    assert out.dtype == np.float32
    assert out.shape == (2, length)
    expected = np.mean([reference(c, b, length) for c, b in zip(levelled, brirs, strict=True)], axis=0)
    allowed = 0 if exact else np.mean([bound(c, b) for c, b in zip(levelled, brirs, strict=True)])
    assert np.abs(out - expected).max() <= allowed + 1e-5 * max(1e-9, np.abs(expected).max())


@pytest.mark.parametrize("seconds", [10, 45])  # one stretch that fits the cache, and several
def test_the_published_size_and_longer(seconds):
    length = 32_000 * seconds
    clip, brir = noise(0, length), decaying(1, 80_000, 30_000)
    expected = reference(clip.astype(np.float64) * gain(clip), brir, length)
    loudest = np.abs(expected).max()
    assert np.abs(render([(clip, prepare(brir, length, exact=True))], length) - expected).max() <= 1e-6 * loudest
    # The bound is of the worst clip. Noise is changed by 80 dB less than its own level.
    change = render([(clip, prepare(brir, length))], length) - expected
    assert np.sqrt(np.mean(change**2)) == pytest.approx(1e-4 * np.sqrt(np.mean(expected**2)), rel=0.1)


def test_a_scene_is_the_same_bytes_whatever_was_rendered_before():
    clips = [noise(n, 30_000 - 9_000 * n) for n in range(2)]
    brirs = [decaying(n, 4_000 - 1_000 * n, 2_000) for n in range(2)]

    def scene(exact: bool) -> bytes:
        sources = [(c, prepare(b, 25_000, exact)) for c, b in zip(clips, brirs, strict=True)]
        return render(sources, 25_000).tobytes()

    fresh = [scene(exact) for exact in (False, True)]
    render([(noise(7, 90_000), prepare(decaying(8, 20_000, 9_000), 90_000))], 90_000)  # leaves its sound in memory
    kept = [prepare(brir, 25_000) for brir in brirs]
    render([(clips[0], kept[1])], 25_000)  # leaves a spectrum of another size
    assert render(list(zip(clips, kept, strict=True)), 25_000).tobytes() == fresh[0]
    assert [scene(exact) for exact in (False, True)] == fresh


def test_threads_do_not_share_memory():
    length = 40_000
    sources = [[(noise(n, length), prepare(decaying(n, 3_000, 900), length))] for n in range(8)]
    alone = [render(source, length).tobytes() for source in sources]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda source: render(source, length).tobytes(), sources * 4))
    assert together == alone * 4


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
    assert np.abs(render([(clip, prepare(brir, 40_000, exact=True))], 40_000)[:, 6000:]).max() < 1e-13
    assert 0 < np.abs(render([(clip, prepare(brir, 40_000))], 40_000)[:, 6000:]).max() < 1e-4


def test_after_the_last_echo_nothing_is_heard():
    clip, brir = noise(0, 2_000), decaying(1, 300, 400)
    out = render([(clip, prepare(brir, 40_000))], 40_000)
    assert out[:, :2_299].any(axis=0).all()
    assert not out[:, 2_299:].any()


# ---- level ---------------------------------------------------------------------------------------


def dbfs(x: np.ndarray) -> float:
    return 10 * float(np.log10(np.mean(np.square(x, dtype=np.float64))))


@given(level=st.floats(1e-20, 1e20), rms_dbfs=st.floats(-80, 0))
def test_clips_are_brought_to_their_level(level, rms_dbfs):
    clip = noise(0, 40_000) * np.float32(level)
    assert dbfs(clip * gain(clip, rms_dbfs)) == pytest.approx(rms_dbfs, abs=1e-5)
    assert (clip * gain(clip, rms_dbfs)).dtype == np.float32


def test_the_default_is_minus_14_dbfs():
    assert RMS_DBFS == -14
    assert dbfs(noise(0, 32_000) * gain(noise(0, 32_000))) == pytest.approx(-14, abs=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-42])
def test_silence_stays_silence(value):
    # 1e-42 is below what float32 holds in full: a gain that brings it to −14 dBFS is infinite.
    clip = np.full(100, value, np.float32)
    assert gain(clip) == 1
    assert np.isfinite(render([(clip, prepare(decaying(0, 50, 20), 100))], 100)).all()


@pytest.mark.parametrize("exact", [True, False])
def test_a_silent_response_is_silence(exact):
    assert trim(np.zeros((2, 50), np.float32)).shape == (2, 1)
    assert not render([(noise(0, 100), prepare(np.zeros((2, 50), np.float32), 80, exact))], 80).any()


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
    expected = reference(clips[0] * gain(clips[0]), brirs[0], 900)  # one source is not attenuated
    np.testing.assert_allclose(alone[0], expected, atol=bound(clips[0] * gain(clips[0]), brirs[0]))


def test_scenes_are_cut_and_padded():
    click = np.zeros((2, 3), np.float32)
    click[:, 2] = 1
    clip = noise(0, 100)
    long = render([(clip, prepare(click, 200))], 200)
    np.testing.assert_allclose(long[0, 2:102], clip * gain(clip), atol=1e-6)
    assert not long[:, 102:].any() or np.abs(long[:, 102:]).max() < 1e-6
    np.testing.assert_allclose(render([(clip, prepare(click, 50))], 50), long[:, :50], atol=1e-5)


def test_what_was_given_is_not_changed():
    clip, brir = noise(0, 100), decaying(1, 50, 20)
    before = clip.copy(), brir.copy()
    render([(clip, prepare(brir, 80)), (clip, prepare(brir, 80))], 80)
    np.testing.assert_array_equal(clip, before[0])
    np.testing.assert_array_equal(brir, before[1])
