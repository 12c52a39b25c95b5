"""The largest batch that fits into memory."""

from __future__ import annotations

import torch
from torch import nn

from batcli.training import batch_size as probe


class Product(nn.Module):
    """Keeps 4 MB per sample for the gradient, twice, and its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1 << 20))

    def forward(self, samples):
        return {"loss": (samples * self.weight).square().sum()}


def test_the_largest_batch_that_fits_into_half_of_the_free_memory(monkeypatch):
    model, largest = Product(), []
    for free in (64, 256, 1024, 1 << 20):
        monkeypatch.setattr(probe, "free_memory", lambda free=free: free << 20)
        largest.append(probe.largest_batch(model, lambda n: (torch.ones(n, 1 << 20),), torch.device("cpu")))
    # Each sample is kept twice (for the product, and for its square); gradient and moments take 12 MB.
    assert largest == [2, 8, 32, probe.LARGEST]
    assert model.weight.grad is None


def test_at_least_one_sample(monkeypatch):
    monkeypatch.setattr(probe, "free_memory", lambda: 1)
    assert probe.largest_batch(Product(), lambda n: (torch.ones(n, 1 << 20),), torch.device("cpu")) == 1


def test_the_machine_has_memory():
    assert 1 << 24 < probe.free_memory() < 1 << 50
