"""Objectives: values, and where their minimum is."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from batcli.model.config import PRESETS
from batcli.model.encoders.sources import CUES, SourceTokens, group
from batcli.model.tokens import IGNORED
from batcli.training.losses import AnswerObjective, SourceObjective
from batcli.training.scenes import EncoderBatch

NEAR = torch.tensor([[0, 1], [0, 2], [1, 3], [2, 3], [4, 4]])  # tokens 0 to 3 are 0 to 1.5 m; 4 is a word
LABELS = torch.tensor([[4, 2], [1, IGNORED]])


class FixedLogits(nn.Module):
    """A model whose output is `logits` (1 or B, A, vocabulary) for any input."""

    encoder, sources = nn.Identity(), None

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, encoding, tokens):
        return self.logits.expand(len(tokens.labels), -1, -1)


def loss(logits: torch.Tensor, soft: float) -> torch.Tensor:
    return AnswerObjective(FixedLogits(logits), NEAR, soft)(None, SimpleNamespace(labels=LABELS))["answers"]


def test_soft_distances():
    logits = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(0))
    nats = -logits.log_softmax(-1)
    by_hand = [
        nats[0, 0, 4],
        0.5 * nats[0, 1, 2] + 0.25 * (nats[0, 1, 1] + nats[0, 1, 3]),
        0.5 * nats[1, 0, 1] + 0.25 * (nats[1, 0, 0] + nats[1, 0, 2]),
    ]
    assert loss(logits, 0.5).item() == pytest.approx(sum(by_hand).item() / 3)
    assert loss(logits, 0.0).item() == pytest.approx((nats[0, 0, 4] + nats[0, 1, 2] + nats[1, 0, 1]).item() / 3)


def test_the_likeliest_token_is_then_the_middle_of_the_likeliest_metre():
    """Answers of 0.5 m in 40 %, of 1 and 1.5 m in 30 % each: 1 m is within half a metre of all of them."""
    labels = torch.tensor([1] * 4 + [2] * 3 + [3] * 3).unsqueeze(1)
    for soft, best in ((0.0, 1), (0.5, 2)):
        model = FixedLogits(torch.zeros(1, 1, 5))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            AnswerObjective(model, NEAR, soft)(None, SimpleNamespace(labels=labels))["answers"].backward()
            optimizer.step()
        assert int(model.logits.argmax()) == best


def random_batch(places: list[int], seed: int = 0) -> EncoderBatch:
    """Random cues and targets of scenes with the given numbers of sources, in four slots."""
    random = torch.Generator().manual_seed(seed)
    count, slots = len(places), 4
    present = (torch.arange(slots) < torch.tensor(places)[:, None]).float()
    direction = torch.nn.functional.normalize(torch.randn(count, slots, 3, generator=random), dim=-1)
    event_ids = torch.stack([torch.randperm(5, generator=random)[:slots] for _ in places])
    return EncoderBatch(
        torch.randn(count, CUES, 20, PRESETS["tiny"].sources.bands, generator=random),
        (torch.rand(count, 5, generator=random) < 0.5).float(),
        event_ids,
        direction,
        1 + 3 * torch.rand(count, slots, generator=random),
        torch.arange(slots).repeat(count, 1),
        present,
        torch.tensor(places),
    )


def test_padding_has_no_loss_and_each_scene_counts_alike(monkeypatch):
    torch.manual_seed(0)
    objective = SourceObjective(SourceTokens(replace(PRESETS["tiny"].sources, n_classes=5))).eval()
    scenes = [random_batch([count], seed) for seed, count in enumerate([1, 2, 1])]
    together = EncoderBatch.concat(scenes)
    monkeypatch.setattr("batcli.training.losses.CROP", 1.0)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(size))  # none is mirrored

    def losses(batch: EncoderBatch) -> dict[str, float]:
        return {name: loss.item() for name, loss in objective(batch).items()}

    assert together.without_padding().event_ids.shape == (3, 2)
    assert losses(together.without_padding()) == pytest.approx(losses(together), rel=1e-5)
    alone = [losses(scene) for scene in scenes]
    assert losses(together) == pytest.approx({k: sum(a[k] for a in alone) / 3 for k in alone[0]}, rel=1e-5)


@pytest.fixture
def whole_scenes(monkeypatch):
    """No excerpts, and none is mirrored."""
    monkeypatch.setattr("batcli.training.losses.CROP", 1.0)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(size))


@pytest.mark.usefixtures("whole_scenes")
def test_each_place_counts_alike_however_many_labels_it_has():
    torch.manual_seed(0)
    config = replace(PRESETS["tiny"].sources, n_classes=5, grouped=True)
    objective = SourceObjective(SourceTokens(config)).eval()
    scene = random_batch([4])._replace(place=torch.tensor([[0, 1, 0, 0]]), n_places=torch.tensor([2]))
    parts = ("direction", "words", "distance")

    def losses(*slots: int) -> torch.Tensor:
        present = torch.isin(torch.arange(4), torch.tensor(slots)).float()[None]
        found = objective(scene._replace(present=present, n_places=torch.tensor([1])))
        return torch.stack([found[part] for part in parts])

    expected = (losses(1) + (losses(0) + losses(2) + losses(3)) / 3) / 2
    found = objective(scene)
    torch.testing.assert_close(torch.stack([found[part] for part in parts]), expected)
    # With one place, its labels share the scene.
    torch.testing.assert_close(losses(0, 2, 3), (losses(0) + losses(2) + losses(3)) / 3)


@pytest.mark.usefixtures("whole_scenes")
def test_grouping_is_of_all_pairs_of_events_that_sound():
    torch.manual_seed(0)
    sources = SourceTokens(replace(PRESETS["tiny"].sources, n_classes=5, grouped=True)).eval()
    objective = SourceObjective(sources)
    scene = random_batch([3])._replace(place=torch.tensor([[0, 1, 0, 0]]), n_places=torch.tensor([2]))
    states, _ = sources.detect(scene.audio)
    same = sources.locate(scene.audio, states, scene.event_ids, sources.level(scene.audio)).same[0]
    nats = torch.stack([-(-same[0, 1]).sigmoid().log(), -same[0, 2].sigmoid().log(), -(-same[1, 2]).sigmoid().log()])
    torch.testing.assert_close(objective(scene)["grouping"], nats.mean())
    alone = random_batch([1])
    assert objective(alone)["grouping"] == 0
    both = objective(EncoderBatch.concat([scene, alone]))["grouping"]
    torch.testing.assert_close(both, nats.mean() / 2)


@pytest.mark.usefixtures("whole_scenes")
def test_events_of_one_source_learn_to_be_one():
    """Four events, of which the first two sound from one place and the others from another, in every scene."""
    torch.manual_seed(0)
    sources = SourceTokens(
        replace(PRESETS["tiny"].sources, n_classes=4, bands=16, hidden=16, event_dim=8, grouped=True)
    )
    objective = SourceObjective(sources)
    scene = random_batch([4] * 8)
    scene = scene._replace(
        audio=scene.audio[..., :16],
        events=torch.ones(8, 4),
        event_ids=torch.arange(4).repeat(8, 1),
        place=torch.tensor([0, 0, 1, 1]).repeat(8, 1),
        n_places=torch.full((8,), 2),
    )

    def grouped() -> float:
        """Share of scenes that are grouped right."""
        sources.eval()
        with torch.no_grad():
            states, _ = sources.detect(scene.audio)
            same = sources.locate(scene.audio, states, scene.event_ids, sources.level(scene.audio)).same
        sources.train()
        expected = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
        return (group(same) == expected).all((1, 2)).float().mean().item()

    assert grouped() == 0
    optimizer = torch.optim.Adam(sources.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        objective(scene)["grouping"].backward()
        optimizer.step()
    assert grouped() > 0.8
