"""Cues, and the source tokens computed from them."""

from dataclasses import replace

import pytest
import torch

from batcli.model.config import PRESETS
from batcli.model.encoders.sources import SourceTokens, mirror
from batcli.model.features import spectrum

SOURCES = SourceTokens(replace(PRESETS["tiny"].sources, n_classes=5)).eval()


def noise(left: float, right: float, seconds: float = 0.5) -> torch.Tensor:
    """A batch of one (1, 2, samples): noise at these two amplitudes."""
    sound = torch.randn(2, int(32_000 * seconds), generator=torch.Generator().manual_seed(0))
    return (sound * torch.tensor([[left], [right]]))[None]


def level(waveform: torch.Tensor) -> torch.Tensor:
    """Log mean power (2, bands + 1) of a batch of one: at each ear, of each band and of all."""
    found = SOURCES.level(SOURCES.cues(spectrum(waveform)))[0]
    bands = SOURCES.config.bands
    return torch.cat([found[: 2 * bands].view(2, bands), found[2 * bands :].unsqueeze(1)], 1)


def test_the_level_of_a_scene_is_its_power():
    quiet, loud = level(noise(0.01, 0.01)), level(noise(0.02, 0.01))
    torch.testing.assert_close(loud[0] - quiet[0], torch.full_like(loud[0], 4.0).log(), atol=1e-3, rtol=0)
    torch.testing.assert_close(loud[1], quiet[1])
    assert quiet[0, :-1].exp().sum().log() == pytest.approx(quiet[0, -1].item(), abs=1e-4)


def test_silence_beside_a_sound_lowers_the_level_by_its_share():
    """Unlike a mean of logs, which silence would dominate."""
    sound = noise(0.1, 0.1)
    half = torch.cat([sound, torch.zeros_like(sound)], 2)
    assert (level(sound) - level(half)).mean().exp() == pytest.approx(2, rel=0.05)


def test_the_mirror_exchanges_the_ears():
    there, back = noise(0.2, 0.1), noise(0.2, 0.1).flip(1)
    cues, mirrored = (SOURCES.cues(spectrum(waveform)) for waveform in (there, back))
    torch.testing.assert_close(mirror(cues), mirrored, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(level(there).flip(0), level(back))


def test_distance_depends_on_the_level():
    """The same cues with another level of the whole scene give another distance."""
    cues = SOURCES.cues(spectrum(noise(0.1, 0.1)))
    states, _ = SOURCES.detect(cues)
    near, far = (SOURCES.locate(cues, states, torch.tensor([[1]]), SOURCES.level(cues) - less) for less in (0.0, 3.0))
    assert not torch.allclose(near.distance, far.distance, atol=1e-4)
