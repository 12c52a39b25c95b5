"""What is minimised has its least value where it should."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from batcli.model.losses import AnswerObjective
from batcli.model.prompt import IGNORED

NEAR = torch.tensor([[0, 1], [0, 2], [1, 3], [2, 3], [4, 4]])  # tokens 0 to 3 are 0 to 1.5 m; 4 is a word
LABELS = torch.tensor([[4, 2], [1, IGNORED]])


class Says(nn.Module):
    """A model that says `logits` (1 or B, A, vocabulary) whatever it is asked."""

    encoder, sources = nn.Identity(), None

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, encoding, tokens):
        return self.logits.expand(len(tokens.labels), -1, -1)


def loss(logits: torch.Tensor, soft: float) -> torch.Tensor:
    return AnswerObjective(Says(logits), NEAR, soft)(None, SimpleNamespace(labels=LABELS))["answers"]


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
        says = Says(torch.zeros(1, 1, 5))
        optimizer = torch.optim.Adam(says.parameters(), lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            AnswerObjective(says, NEAR, soft)(None, SimpleNamespace(labels=labels))["answers"].backward()
            optimizer.step()
        assert int(says.logits.argmax()) == best
