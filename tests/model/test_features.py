from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batcli.model.features import (
    MEL_HIGH,
    MEL_LOW,
    dspast_features,
    features,
    hz_to_mel,
    mel_filterbank,
    mel_to_hz,
    spectrum,
)

HZ_PER_BIN = 31.25
MEL = torch.from_numpy(mel_filterbank())
GOLDEN = Path(__file__).parents[1] / "parity/mel_filterbank.npz"


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_filterbank_is_the_published_one():
    golden = np.load(GOLDEN)["mel"]
    assert mel_filterbank().dtype == golden.dtype
    assert np.abs(mel_filterbank() - golden).max() < 1e-6 * golden.max()


@given(st.floats(0, 16_000))
def test_mel_and_hertz_are_inverse(hz):
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize("n_mels", [16, 64, 128])
def test_each_band_has_unit_area_between_its_neighbours_centres(n_mels):
    bank = mel_filterbank(n_mels).astype(np.float64)
    edges = mel_to_hz(np.linspace(hz_to_mel(MEL_LOW), hz_to_mel(MEL_HIGH), n_mels + 2))
    hz = np.arange(513) * HZ_PER_BIN
    for band in range(n_mels):
        inside = bank[:, band] > 0
        assert (hz[inside] > edges[band]).all()
        assert (hz[inside] < edges[band + 2]).all()
        if edges[band + 2] - edges[band] > 20 * HZ_PER_BIN:  # wide enough for a sum to be an integral
            assert bank[:, band].sum() * HZ_PER_BIN == pytest.approx(1, rel=0.01)


def test_the_spectrum_is_the_hann_windowed_fourier_transform_of_centred_frames():
    wave = noise(2, 4000).double()
    found = spectrum(wave)
    assert found.shape == (2, 513, 1 + 4000 // 320)
    padded = np.pad(wave.numpy(), ((0, 0), (512, 512)), mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    for frame in (0, 5, 12):
        expected = np.fft.rfft(padded[:, 320 * frame : 320 * frame + 1024] * hann)
        np.testing.assert_allclose(found[..., frame].numpy(), expected, atol=1e-9)


def test_features_are_mel_levels_in_db_and_mel_phases_of_right_against_left():
    found = spectrum(noise(3, 2, 3200))
    left, right = found[:, 0].mT.numpy(), found[:, 1].mT.numpy()
    between = np.angle(right) - np.angle(left)
    expected = [
        10 * np.log10(np.abs(left) @ MEL.numpy()),
        10 * np.log10(np.abs(right) @ MEL.numpy()),
        np.cos(between) @ MEL.numpy(),
        np.sin(between) @ MEL.numpy(),
    ]
    np.testing.assert_allclose(features(found, MEL).numpy(), np.stack(expected, axis=1), atol=2e-4)


def test_a_later_right_ear_has_a_negative_phase():
    wave = noise(1, 32_000)
    delayed = torch.roll(wave, 4)  # 125 µs: a source on the left
    sine = features(spectrum(torch.stack([wave, delayed], dim=1)), MEL)[0, 3, 2:-2].mean(0)
    centres = mel_to_hz(np.linspace(hz_to_mel(MEL_LOW), hz_to_mel(MEL_HIGH), 130))[1:-1]
    assert (sine[centres < 3700] < 0).all()  # less than half a period
    assert (sine[(centres > 4300) & (centres < 7700)] > 0).all()  # more than half, less than one


def test_twice_the_amplitude_is_3_db_of_magnitude_more():
    both = noise(1, 2, 6400)
    quiet, loud = features(spectrum(both), MEL), features(spectrum(2 * both), MEL)
    torch.testing.assert_close(loud[:, :2] - quiet[:, :2], torch.full_like(loud[:, :2], 10 * np.log10(2)))
    torch.testing.assert_close(loud[:, 2:], quiet[:, 2:])


def test_silence_is_the_floor_and_has_no_phase():
    silent = features(spectrum(torch.zeros(1, 2, 3200)), MEL)
    assert (silent[:, :2] == -100).all()
    torch.testing.assert_close(silent[:, 2], MEL.sum(0).expand_as(silent[:, 2]))
    assert (silent[:, 3] == 0).all()


def test_one_silent_ear_gives_finite_features():
    wave = torch.stack([noise(1, 3200), torch.zeros(1, 3200)], dim=1)
    assert features(spectrum(wave), MEL).isfinite().all()


@pytest.mark.parametrize("compute", [features, dspast_features])
def test_autocast_leaves_the_features_alone(compute):
    stft = spectrum(noise(1, 2, 6_400))
    with torch.autocast("cpu", torch.bfloat16):
        found = compute(stft, MEL)
    assert torch.equal(found, compute(stft, MEL))
