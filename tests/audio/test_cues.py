"""Inter-aural cues: a source at the right is louder and earlier in channel 1."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcli.audio.convolve import prepare, render
from batcli.audio.cues import Cues, interaural
from batcli.audio.hrtf import kemar
from batcli.audio.io import read_brir, read_clip

NOISE = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)


def heard(azimuth: float, distance: float = 2.0) -> Cues:
    """Noise in the free field, at KEMAR's ears."""
    brir, _ = kemar().direct(azimuth, 0.0, distance)
    return interaural(render([(NOISE, prepare(brir.astype(np.float32), len(NOISE)))], len(NOISE)))


@pytest.mark.parametrize("azimuth", [0, 30, 60, 300, 330])
def test_the_right_is_louder_and_earlier_in_channel_1(azimuth):
    right, left = heard(azimuth), heard(180 - azimuth)
    assert right.ild_db < -3
    assert right.itd_us > 150  # the left ear hears it later
    assert left.ild_db == pytest.approx(-right.ild_db, abs=0.5)  # KEMAR is not quite even
    assert left.itd_us == pytest.approx(-right.itd_us, abs=40)


def test_a_head_delays_by_what_was_measured():
    assert heard(0).itd_us == pytest.approx(746, abs=50)  # a source at the very side
    assert heard(60).itd_us == pytest.approx(336, abs=60)  # 30° from the front
    assert abs(heard(90).itd_us) <= 40


@settings(deadline=None)
@given(st.integers(-32, 32), st.floats(-30, 30))
def test_a_delay_and_a_gain_are_found(delay, gain_db):
    low = np.convolve(NOISE, np.hanning(64), "same")
    left, right = np.roll(low, max(0, delay)), np.roll(low, max(0, -delay))
    cues = interaural(np.stack([left * 10 ** (gain_db / 20), right]))
    assert cues.ild_db == pytest.approx(gain_db, abs=0.05)
    assert cues.itd_us == pytest.approx(1e6 * delay / 32_000)


@pytest.mark.parametrize("samples", [1, 10, 40, 1000])
def test_short_recordings_and_silence(samples):
    for audio in (np.zeros((2, samples), np.float32), np.ones((2, samples), np.float32)):
        assert interaural(audio) == (0, 0)


def test_words():
    assert Cues(14.04, -312.5).words() == "left ear 14.0 dB louder, left ear 312 µs earlier"
    assert Cues(-3.0, 400).words() == "right ear 3.0 dB louder, right ear 400 µs earlier"
    assert Cues(0.01, 0).words() == "both ears alike, at once"


@pytest.mark.parametrize(("name", "louder"), [("74.npy", "left"), ("75.npy", "right")])
def test_the_published_brirs(shared, name, louder):
    sign = 1 if louder == "left" else -1
    brir = read_brir(shared / "real" / name)
    # The bare response: the figure in the project's notes on acoustics.
    assert sign * interaural(brir).ild_db == pytest.approx(14, abs=1)
    for clip in sorted((shared / "real").glob("*.wav")):
        cues = interaural(render([(read_clip(clip), prepare(brir, 320_000))], 320_000))
        assert sign * cues.ild_db > 1  # little, for most of their sound is below 500 Hz
        assert sign * cues.itd_us < -100
        assert cues.words().startswith(f"{louder} ear")
        assert f", {louder} ear" in cues.words()
