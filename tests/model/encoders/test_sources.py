"""Cues, and the source tokens computed from them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batcli.model.config import PRESETS
from batcli.model.encoders.sources import SourceTokens, group, mirror
from batcli.model.encoders.token_kind import NO_EVENT, TokenKind
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


# ---- sources with several events -----------------------------------------------------------------------


@given(st.integers(1, 8), st.integers(0, 1000))
def test_every_event_is_of_one_source_that_begins_with_its_likeliest(count: int, seed: int):
    logits = torch.randn(3, count, count, generator=torch.Generator().manual_seed(seed))
    members = group(logits + logits.mT)
    assert (members.sum(1) == 1).all()
    for scene, same in zip(members, logits + logits.mT, strict=True):
        for number, source in enumerate(scene):
            found = source.nonzero().flatten().tolist()
            assert not found or (found[0] == number and all(same[number, other] > 0 for other in found[1:]))
        begins = scene.any(1).nonzero().flatten().tolist()
        assert all(same[a, b] <= 0 for a in begins for b in begins if a < b)


def test_events_join_the_source_that_they_most_resemble():
    same = torch.tensor([[[9.0, -1, 2, 3], [-1, 9, 4, 1], [2, 4, 9, 0], [3, 1, 0, 9]]])
    assert group(same).int().tolist() == [[[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]]


@torch.inference_mode()
def test_a_source_s_token_names_its_events_and_has_the_mean_of_their_values():
    torch.manual_seed(0)
    config = replace(PRESETS["tiny"].sources, n_classes=6, tokens=4)
    alone, grouped = SourceTokens(config).eval(), SourceTokens(replace(config, grouped=True)).eval()
    grouped.load_state_dict(alone.state_dict(), strict=False)
    stft = spectrum(torch.cat([noise(0.1, 0.05), noise(0.02, 0.1)]))
    scores = torch.tensor([[0.0, 3, -1, 2, 1, -2], [5.0, 0, 4, -3, 1, 2]])  # of an event head
    each = TokenKind(alone.dim, alone.names).split(alone.tokenize(stft, stft, scores))
    assert each.events[..., 0].tolist() == [[1, 3, 4, 0], [0, 2, 5, 4]]
    chances = scores.sort(descending=True).values[:, :4].sigmoid()
    assert grouped.key is not None
    grouped.key.weight.zero_(), grouped.key.bias.zero_()
    for nearness, sources in ((-1.0, 4), (1.0, 1)):
        grouped.nearness.fill_(nearness)
        kind = TokenKind(grouped.dim, grouped.names)
        tokens = grouped.tokenize(stft, stft, scores)
        assert tokens.shape == (2, grouped.count, kind.width)
        found = kind.split(tokens)
        if sources == 4:
            assert torch.equal(found.events.amax(-1), each.events[..., 0])
            torch.testing.assert_close(found.values, each.values)
            assert ((found.events != NO_EVENT).sum(-1) == 1).all()
        else:
            assert torch.equal(found.events[:, 0], each.events[..., 0])
            shares = chances / chances.sum(1, keepdim=True)
            torch.testing.assert_close(found.shares[:, 0], shares)
            torch.testing.assert_close(found.values[:, 0], (shares.unsqueeze(-1) * each.values).sum(1))
            assert (found.events[:, 1:] == NO_EVENT).all()
            assert not found.shares[:, 1:].any()
            assert not found.values[:, 1:].any()


def test_without_an_event_head_the_own_events_are_the_likeliest():
    stft = spectrum(noise(0.1, 0.1))
    _, logits = SOURCES.detect(SOURCES.cues(stft))
    assert torch.equal(SOURCES.tokenize(stft, stft), SOURCES.tokenize(stft, stft, logits))
