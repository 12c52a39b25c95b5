"""Objectives: values, and where their minimum is."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from batcli.model.config import PRESETS
from batcli.model.encoders.sources import CUES, SourceTokens
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
