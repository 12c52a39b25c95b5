"""The predictions of encoders about whole scenes: of the heads' classes and of source tokens."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from batcli.model.bat import Encoders, hear
from batcli.model.config import EncoderConfig, ModelConfig, QFormerConfig, SourcesConfig
from batcli.model.encoders.sources import SourceTokens
from batcli.model.encoders.token_kind import TokenKind
from batcli.model.features import spectrum
from batcli.model.heard import from_classes, from_vectors

ENCODER = EncoderConfig(seconds=0.3, n_classes=5, dim=16, depth=2, heads=2)
SOURCES = SourcesConfig(tokens=2, bands=16, hidden=8, event_dim=4, seconds=0.3, n_classes=5)


@pytest.fixture(scope="module")
def encoders():
    torch.manual_seed(0)
    config = ModelConfig(ENCODER, QFormerConfig(layers=2, queries=3, dim=16, heads=2), sources=SOURCES)
    return Encoders(config).eval()


@pytest.fixture(scope="module")
def scenes():
    return 0.1 * torch.randn(3, 2, ENCODER.samples, generator=torch.Generator().manual_seed(3))


def test_a_class_is_a_degree_or_half_a_metre():
    azimuth, elevation, distance = torch.tensor([0, 90, 359]), torch.tensor([0, 90, 179]), torch.tensor([0, 7, 20])
    heard = from_classes(
        torch.zeros(3, 5),
        F.one_hot(azimuth, 360).float(),
        F.one_hot(elevation, 180).float(),
        F.one_hot(distance, 21).float(),
    )
    assert heard.azimuth.tolist() == [[0], [90], [359]]
    assert heard.elevation.tolist() == [[-90], [0], [89]]
    assert heard.distance.tolist() == [[0], [3.5], [10]]
    assert heard.events is None


def test_a_vector_of_any_length_is_a_direction():
    vectors = torch.tensor([[[2.0, 0, 0], [0, 0.1, 0], [-3, 0, 0], [0, -1, 0], [1, 1, 1], [0, 0, -1]]])
    heard = from_vectors(torch.zeros(1, 5), torch.zeros(1, 6, dtype=torch.long), vectors, torch.eye(6, 21)[None])
    assert heard.azimuth[0, :5].tolist() == pytest.approx([0, 90, 180, 270, 45], abs=1e-4)
    assert heard.elevation[0].tolist() == pytest.approx([0, 0, 0, 0, math.degrees(math.atan(0.5**0.5)), -90], abs=1e-4)
    assert heard.distance[0].tolist() == [0, 0.5, 1, 1.5, 2, 2.5]


@torch.inference_mode()
def test_the_heads_are_heard_through_their_likeliest_classes(encoders, scenes):
    found = encoders["encoder"].heads(encoders["encoder"](scenes))
    heard = hear(encoders, scenes, torch.zeros(3, 1, dtype=torch.long))["encoder"]
    torch.testing.assert_close(heard.scores, found.events)
    assert heard.azimuth.flatten().tolist() == found.azimuth.argmax(-1).tolist()
    assert heard.elevation.flatten().tolist() == (found.elevation.argmax(-1) - 90).tolist()
    assert heard.distance.flatten().tolist() == (found.distance.argmax(-1) / 2).tolist()


@torch.inference_mode()
@pytest.mark.parametrize("alone", [True, False])
def test_source_tokens_are_heard_as_the_tokens_have_them(encoders, scenes, alone):
    """Alone, they choose the events; beside an encoder, its head does."""
    scores = None if alone else encoders["encoder"].heads(encoders["encoder"](scenes)).events
    tokens = encoders["sources"].tokenize(scenes, spectrum(scenes), scores)
    heard = hear(nn.ModuleDict({"sources": encoders["sources"]}) if alone else encoders, scenes)["sources"]
    assert heard.events.shape == (3, 2)
    assert torch.equal(heard.events, tokens[..., 0].long())
    probability = tokens[..., 1 + SOURCES.event_dim]
    torch.testing.assert_close(heard.scores.sigmoid().gather(1, heard.events), probability)
    assert (probability[:, 0] >= probability[:, 1]).all()
    direction = tokens[..., 2 + SOURCES.event_dim : 5 + SOURCES.event_dim]
    again = from_vectors(heard.scores, heard.events, direction, torch.zeros(3, 2, 21))
    torch.testing.assert_close(again.azimuth, heard.azimuth)
    torch.testing.assert_close(again.elevation, heard.elevation)


@torch.inference_mode()
def test_events_of_one_source_are_heard_at_its_place(encoders, scenes):
    torch.manual_seed(1)
    sources = SourceTokens(replace(SOURCES, tokens=4, grouped=True)).eval()
    sources.nearness.fill_(0.0)  # of one source only if their keys are the same
    apart = hear(nn.ModuleDict({"sources": sources}), scenes)["sources"]
    sources.nearness.fill_(100.0)
    together = hear(nn.ModuleDict({"sources": sources}), scenes)["sources"]
    assert torch.equal(apart.events, together.events)
    assert (apart.azimuth != apart.azimuth[:, :1]).any()
    for part in (together.azimuth, together.elevation, together.distance):
        assert (part == part[:, :1]).all()
    tokens = sources.tokenize(scenes, spectrum(scenes))
    values = TokenKind(sources.dim, sources.names).split(tokens).values[:, :1]
    direction = values[..., 1 + SOURCES.event_dim : 4 + SOURCES.event_dim]
    again = from_vectors(together.scores, together.events[:, :1], direction, torch.zeros(3, 1, 21))
    torch.testing.assert_close(again.azimuth, together.azimuth[:, :1])


@torch.inference_mode()
def test_given_events_are_located_instead(encoders, scenes):
    heard = hear(encoders, scenes)["sources"]
    given = torch.tensor([[4, 0, 1]] * 3)
    located = hear(encoders, scenes, given)["sources"]
    assert torch.equal(located.events, given)
    assert torch.equal(located.scores, heard.scores)
    swapped = hear(encoders, scenes, heard.events.flip(1))["sources"]
    torch.testing.assert_close(swapped.azimuth.flip(1), heard.azimuth)


def test_encoders_alone_have_the_names_that_they_have_in_the_whole_model(encoders):
    names = set(encoders.state_dict())
    assert {name.split(".")[0] for name in names} == {"encoder", "sources"}
    alone = Encoders(replace(ModelConfig(ENCODER, QFormerConfig(dim=16, heads=2)), sources=None))
    assert set(alone.state_dict()) == {name for name in names if name.startswith("encoder.")}
