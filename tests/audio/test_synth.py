"""Synthesised clips: common properties, differences between classes, and the physics of each."""

import re
from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import fftconvolve, find_peaks

from batcli.audio.synth import LABELS, LOUDEST, QUIETEST, synthesise
from batcli.audio.synth.parts import Synthesizer
from batcli.core.errors import InputError

RATE = 32_000
NAMES = [label.name for label in LABELS]


def make(name, seed, seconds=2.0, rate=RATE):
    return synthesise(name, np.random.default_rng(seed), seconds, rate).astype(np.float64)


def power(signal, size=2048, hop=512):
    """(frames, bins) and the bins' frequencies."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[::hop] * np.hanning(size)
    return np.abs(np.fft.rfft(frames, axis=1)) ** 2, np.fft.rfftfreq(size, 1 / RATE)


def shares(signal, edges):
    """Shares of the energy between neighbouring edges (Hz)."""
    spectrum = np.abs(np.fft.rfft(signal)) ** 2
    places = np.searchsorted(np.fft.rfftfreq(len(signal), 1 / RATE), edges)
    return np.array([spectrum[a:b].sum() for a, b in pairwise(places)]) / spectrum.sum()


def share(signal, low, high):
    return shares(signal, (low, high))[0]


def envelope(signal, per_second=1000):
    """RMS in blocks of a millisecond (or another)."""
    block = RATE // per_second
    return np.sqrt(np.mean(signal[: len(signal) // block * block].reshape(-1, block) ** 2, axis=1))


def modulation(signal, low, high, per_second=1000):
    """The strongest modulation (Hz) of the envelope between two frequencies."""
    curve = envelope(signal, per_second)
    spectrum = np.abs(np.fft.rfft((curve - curve.mean()) * np.hanning(len(curve)), 8 * len(curve)))
    f = np.fft.rfftfreq(8 * len(curve), 1 / per_second)
    inside = (f >= low) & (f <= high)
    return f[inside][spectrum[inside].argmax()]


def beginnings(signal, above=0.25, apart=0.05):
    """Times (s) at which blows fall: where the envelope jumps."""
    curve = envelope(signal, 500)
    rise = np.diff(curve, prepend=curve[0])
    peaks, _ = find_peaks(rise, height=above * np.sort(rise)[-3], distance=int(apart * 500))
    return peaks / 500


def pitch(frame, low, high):
    """Pitch (Hz) of a frame by autocorrelation."""
    frame = (frame - frame.mean()) * np.hanning(len(frame))
    correlation = fftconvolve(frame, frame[::-1])[len(frame) - 1 :]
    lags = np.arange(int(RATE / high), int(RATE / low))
    return RATE / lags[correlation[lags].argmax()]


# ---- the classes ---------------------------------------------------------------------------------


def test_labels_are_audiosets():
    assert len(LABELS) >= 24
    assert all(re.fullmatch(r"/(m|t|g)/[0-9a-z_]+", label.mid) for label in LABELS)
    assert len({label.mid for label in LABELS}) == len({name.lower() for name in NAMES}) == len(LABELS)
    by_name = {label.name: label.mid for label in LABELS}
    assert by_name["Speech"] == "/m/09x0r"
    assert by_name["Baby cry, infant cry"] == "/t/dd00002"
    assert by_name["Accelerating, revving, vroom"] == "/m/07q2z82"
    assert sum("," in name for name in NAMES) >= 5  # the questions' grammar must live with commas


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("seconds", "rate"), [(0.5, RATE), (2.0, RATE), (1.217, RATE), (1.0, 16_000), (1.0, 44_100)])
def test_every_clip_is_sound(name, seconds, rate):
    clip = synthesise(name, np.random.default_rng(3), seconds, rate)
    assert clip.dtype == np.float32
    assert clip.shape == (round(seconds * rate),)
    assert np.isfinite(clip).all()
    assert np.abs(clip).max() <= 1.0
    level = 20 * np.log10(clip.std())
    assert QUIETEST - 0.1 <= level <= LOUDEST + 0.1
    assert abs(clip.mean()) < 0.01 * clip.std()
    # Something is heard in every 0.7 s: a scene cut anywhere is not empty.
    window = min(len(clip), int(0.7 * rate))
    heard = [np.abs(clip[start : start + window]).max() for start in range(0, len(clip) - window + 1, window // 2)]
    assert min(heard) > 0.3 * clip.std()


def test_a_minute():
    clip = make("Speech", 1, 60.0)
    assert len(clip) == 60 * RATE
    assert envelope(clip, 1).min() > 0.2 * envelope(clip, 1).max()


@pytest.mark.parametrize("name", NAMES)
def test_a_clip_follows_from_its_seed_alone(name):
    first = synthesise(name, np.random.default_rng([5, 1]), 0.7)
    synthesise("Speech", np.random.default_rng(0), 0.5)  # nothing is remembered between clips
    assert np.array_equal(first, synthesise(NAMES.index(name), np.random.default_rng([5, 1]), 0.7))
    assert np.array_equal(first, synthesise(name.upper(), np.random.default_rng([5, 1]), 0.7))


def test_a_clip_does_not_depend_on_the_number_of_threads():
    from threadpoolctl import threadpool_limits

    def bytes_with(threads):
        with threadpool_limits(threads):
            return [make(name, 9).tobytes() for name in NAMES]

    assert bytes_with(1) == bytes_with(4)


@pytest.mark.parametrize("name", NAMES)
def test_no_two_clips_are_alike(name):
    clips = [make(name, [6, seed], 1.0) for seed in range(4)]
    clips = [clip / np.linalg.norm(clip) for clip in clips]
    spectra = [10 * np.log10(power(clip)[0].mean(0) + 1e-9) for clip in clips]
    for i in range(4):
        for j in range(i):
            assert np.abs(fftconvolve(clips[i], clips[j][::-1])).max() < 0.6  # at any shift
            assert np.abs(spectra[i] - spectra[j]).mean() > 1.0  # dB: the timbre differs too


def test_wrong_requests_are_refused():
    rng = np.random.default_rng(0)
    for what, seconds, rate in [
        ("Trombone duet", 1.0, RATE),
        (len(LABELS), 1.0, RATE),
        (-1, 1.0, RATE),
        ("Speech", 0.1, RATE),
        ("Speech", 61.0, RATE),
        ("Speech", float("nan"), RATE),
        ("Speech", 1.0, 4_000),
    ]:
        with pytest.raises(InputError):
            synthesise(what, rng, seconds, rate)


# ---- what tells the classes apart, and what must not ---------------------------------------------


@pytest.fixture(scope="module")
def collection():
    """Level (dB), time-averaged and deviating log spectra in third-octave-like bands; class; number."""
    edges = np.geomspace(60, 14_000, 41)
    levels, features, classes, numbers = [], [], [], []
    for index in range(len(LABELS)):
        for number in range(20):
            clip = make(index, [8, index, number], 1.0)
            levels.append(20 * np.log10(clip.std()))
            spectrum, f = power(clip / clip.std(), 1024, 512)
            bands = np.add.reduceat(spectrum, np.searchsorted(f, edges[:-1]), axis=1)
            log = 10 * np.log10(bands + 1e-2)
            features.append(np.concatenate([log.mean(0), log.std(0)]))
            classes.append(index)
            numbers.append(number)
    return np.array(levels), np.array(features), np.array(classes), np.array(numbers)


def _accuracy(features, classes, training):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=300))
    model.fit(features[training], classes[training])
    return model.score(features[~training], classes[~training])


def test_classes_are_learnt_from_a_few_clips_but_not_from_one_number(collection):
    levels, features, classes, numbers = collection
    training = numbers < 15
    chance = 1 / len(LABELS)
    assert _accuracy(features, classes, training) > 0.75
    assert _accuracy(levels[:, None], classes, training) < 4 * chance
    peakiest = max(_accuracy(features[:, [i]], classes, training) for i in range(0, features.shape[1], 8))
    assert peakiest < 0.4


def test_level_does_not_depend_on_the_class(collection):
    levels, _, classes, _ = collection
    means = np.array([levels[classes == index].mean() for index in range(len(LABELS))])
    # 20 draws from a uniform 15 dB: a standard error of 0.97 dB.
    assert np.abs(means - levels.mean()).max() < 4 * 0.97
    assert levels.max() - levels.min() > 13


# ---- each by its nature --------------------------------------------------------------------------


def test_speech_is_syllables_of_moving_formants():
    for seed in range(4):
        clip = make("Speech", seed, 6.0)
        assert share(clip, 200, 4000) > 0.6
        curve = envelope(clip, 100)
        spectrum = np.abs(np.fft.rfft(curve - curve.mean())) ** 2
        f = np.fft.rfftfreq(len(curve), 0.01)
        assert spectrum[(f >= 2) & (f <= 8)].sum() > spectrum[(f > 8) & (f < 30)].sum()
        frames, bins = power(clip, 1024, 320)
        inside = (bins > 700) & (bins < 3000)  # where the second formant lies
        loud = frames.sum(1) > np.median(frames.sum(1))
        centroid = (frames[:, inside] * bins[inside]).sum(1) / frames[:, inside].sum(1)
        assert centroid[loud].std() > 150


def test_speakers_are_men_and_women():
    pitches = []
    for seed in range(16):
        clip = make("Speech", [2, seed])
        loudest = envelope(clip, 20).argmax() * (RATE // 20)
        pitches.append(pitch(clip[loudest : loudest + 2048], 70, 320))
    assert min(pitches) < 150 < 170 < max(pitches)


def test_a_bark_falls():
    falls = []
    for seed in range(12):
        clip = make("Bark", seed)
        for start in beginnings(clip, 0.4, 0.2):
            early, late = (int((start + wait) * RATE) for wait in (0.02, 0.08))
            if late + 1024 < len(clip):
                falls.append(pitch(clip[late : late + 1024], 150, 1200) / pitch(clip[early : early + 1024], 150, 1200))
    assert len(falls) > 30
    assert 0.5 < np.median(falls) < 0.92


def test_a_baby_cries_higher_than_people_speak():
    for seed in range(6):
        clip = make("Baby cry, infant cry", seed)
        loudest = envelope(clip, 20).argmax() * (RATE // 20)
        assert 280 < pitch(clip[loudest : loudest + 2048], 200, 1000) < 900


def test_a_siren_sweeps_and_a_train_horn_does_not():
    def travel(name, seed):
        frames, bins = power(make(name, seed, 4.0), 4096, 2048)
        inside = (bins > 400) & (bins < 6000)
        log = np.log(frames[:, inside] + 1e-12)
        log -= log.mean(1, keepdims=True)
        still = np.corrcoef(log)  # a steady spectrum resembles itself at any later time
        return 1 - np.median(still[np.triu_indices(len(log), 4)])

    sirens, horns = ([travel(name, seed) for seed in range(8)] for name in ("Siren", "Train horn"))
    assert np.median(sirens) > 2 * np.median(horns)


def misfit(signal):
    """How far the eight strongest partials stay from the nearest harmonic series (in harmonic numbers)."""
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 4 * len(signal)))
    f = np.fft.rfftfreq(4 * len(signal), 1 / RATE)
    peaks, _ = find_peaks(spectrum, height=0.02 * spectrum.max(), distance=int(20 / f[1]))
    found = np.sort(f[peaks[np.argsort(spectrum[peaks])[-8:]]])
    ratios = found[None, :] / np.geomspace(0.5 * found[0], 1.05 * found[0], 3000)[:, None]
    return np.abs(ratios - np.round(ratios)).max(1).min()


def test_a_church_bell_is_no_harmonic_series():
    steady = Synthesizer(3 * RATE, RATE, np.random.default_rng(0))
    assert misfit(steady.harmonics(np.full(steady.n, 220.0), 1 / np.arange(1, 9))) < 0.02
    for seed in range(6):
        assert misfit(make("Church bell", seed, 3.0)) > 0.08


def test_a_clock_keeps_time_and_a_typist_does_not():
    def unevenness(name, seed, apart):
        gaps = np.diff(beginnings(make(name, seed, 4.0), 0.3, apart))
        return gaps.std() / gaps.mean()

    clocks = [unevenness("Tick-tock", seed, 0.12) for seed in range(6)]
    typists = [unevenness("Typing", seed, 0.03) for seed in range(6)]
    assert max(clocks) < 0.15
    assert min(typists) > 0.25


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("Helicopter", 10, 22), ("Telephone bell ringing", 18, 28), ("Frog", 25, 100), ("Cricket", 25, 60)],
)
def test_what_beats_beats_at_its_rate(name, low, high):
    """The strongest modulation lies in the class's range when looked for from half to twice of it."""
    hits = [0.95 * low <= modulation(make(name, seed), 0.6 * low, 1.6 * high) <= 1.05 * high for seed in range(10)]
    assert np.mean(hits) >= 0.8


@pytest.mark.parametrize(
    ("name", "low", "high", "least"),
    [
        ("Chirp, tweet", 1500, 9000, 0.8),
        ("Cricket", 2500, 9000, 0.8),
        ("Bicycle bell", 1500, 16_000, 0.9),
        ("Whistling", 500, 4000, 0.8),
        ("Wind", 20, 1500, 0.6),
        ("Knock", 60, 1600, 0.7),
        ("Rain", 1000, 16_000, 0.5),
        ("Typing", 1000, 16_000, 0.5),
    ],
)
def test_energy_lies_where_it_belongs(name, low, high, least):
    assert np.median([share(make(name, seed), low, high) for seed in range(8)]) > least


@pytest.mark.parametrize("name", NAMES)
def test_every_class_can_be_placed(name):
    """Ears need several octaves: in the median clip, at least three bands within 30 dB of the whole."""
    octaves = 177.0 * 2.0 ** np.arange(7)
    median = np.median([shares(make(name, [4, seed]), octaves) for seed in range(3)], axis=0)
    assert (10 * np.log10(median) > -30).sum() >= 3


def test_a_whack_is_heard_coming():
    for seed in range(6):
        clip = make("Whack, thwack", seed)
        blow = next(t for t in beginnings(clip, 0.5, 0.2) if t > 0.06)
        before = clip[int((blow - 0.04) * RATE) : int((blow - 0.01) * RATE)]
        after = clip[int(blow * RATE) : int((blow + 0.03) * RATE)]
        assert 0.01 < before.std() / after.std() < 0.7


# ---- the parts -----------------------------------------------------------------------------------


@pytest.fixture
def synth():
    return Synthesizer(RATE, RATE, np.random.default_rng(0))


def test_modes_are_damped_sinusoids(synth):
    t = np.arange(16_000) / RATE
    wanted = sum(
        a * np.sin(2 * np.pi * f * t) * 10 ** (-3 * t / d) for f, d, a in ((440, 0.3, 1.0), (1234.5, 0.7, 0.4))
    )
    found = synth.modes(0.5, [440, 1234.5, 20_000], [0.3, 0.7, 1.0], [1.0, 0.4, 1.0])  # the last cannot be heard
    assert np.allclose(found[:-128], wanted[:-128], atol=1e-5)


def test_harmonics_are_where_they_belong(synth):
    wave = synth.harmonics(np.full(RATE, 400.0), [1.0, 0.5, 0.25] + 97 * [0.1])
    spectrum = np.abs(np.fft.rfft(wave)) / (RATE / 2)
    assert spectrum[[400, 800, 1200]] == pytest.approx([1.0, 0.5, 0.25], abs=0.01)
    assert spectrum[14_401:].max() < 1e-3  # nothing near the Nyquist frequency
    between = np.delete(spectrum, np.arange(0, len(spectrum), 400))
    assert between.max() < 1e-3  # nothing folded back


def test_a_filter_that_does_nothing_changes_nothing(synth):
    signal = synth.rng.standard_normal(synth.n)
    gains = np.ones((synth.n // 256 + 2, 257))
    assert np.allclose(synth.filtered_over_time(signal, gains), signal)


def test_noise_follows_its_gain(synth):
    pink = synth.noise(lambda f: f**-0.5)
    assert pink.std() == pytest.approx(1.0, abs=0.01)
    octaves = shares(pink, (500, 1000, 2000, 4000, 8000))
    assert np.ptp(10 * np.log10(octaves)) < 1.0  # the same power in each octave


def test_onsets_keep_their_period_and_their_rests():
    synth = Synthesizer(10 * RATE, RATE, np.random.default_rng(1))
    gaps = np.diff(synth.onsets(0.1, 0.0, group=(4, 4), rest=0.5))
    assert np.allclose(gaps[gaps < 0.2], 0.1)
    rests = np.flatnonzero(gaps > 0.2)
    assert (np.diff(rests) == 4).all()
    assert ((gaps[rests] > 0.1 + 0.7 * 0.5) & (gaps[rests] < 0.1 + 1.3 * 0.5)).all()
