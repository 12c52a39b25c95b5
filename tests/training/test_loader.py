"""Batches come from workers through shared memory where it has room, and through pipes where it has not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch.utils.data import Dataset

from batcli.core.progress import Silent
from batcli.training import loader
from batcli.training.loader import Loader, no_collate

SAMPLES = 100_000  # 0.8 MB a scene


class Messages(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


class Item(NamedTuple):
    audio: torch.Tensor
    number: torch.Tensor


class Scenes(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[int, Item]:
        audio = torch.rand(2, SAMPLES, generator=torch.Generator().manual_seed(index))
        return index, Item(audio, torch.tensor(index))


def load(free: float, monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[list[Any], list[str]]:
    messages = Messages()
    monkeypatch.setattr(loader, "shared_memory", lambda: free)
    return list(Loader(Scenes(), batch_size=2, num_workers=1, reporter=messages, **options)), messages.lines


@pytest.mark.parametrize("collate", [{}, {"collate_fn": no_collate}])
def test_batches_are_the_same_either_way(monkeypatch: pytest.MonkeyPatch, collate: dict[str, Callable]):
    roomy, said = load(float("inf"), monkeypatch, **collate)
    assert said == []
    tight, said = load(1e6, monkeypatch, **collate)
    assert len(said) == 1
    assert "batches of 2 MB come from the workers through pipes" in said[0]
    assert "/dev/shm has 1 MB free (docker run --shm-size, or fewer --workers)" in said[0]
    plain = list(Loader(Scenes(), batch_size=2, **collate))
    for a, b, c in zip(*(map(tensors, batches) for batches in (roomy, tight, plain)), strict=True):
        assert len(a) == len(b) == len(c) > 0
        assert all(torch.equal(x, y) and torch.equal(x, z) for x, y, z in zip(a, b, c, strict=True))
        assert [type(x) for x in a] == [type(x) for x in b]


def tensors(batch: Any) -> list[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch]
    return [found for part in batch for found in tensors(part)] if isinstance(batch, (list, tuple)) else []


def test_what_comes_through_pipes_takes_no_shared_memory(monkeypatch: pytest.MonkeyPatch):
    shared, _ = load(float("inf"), monkeypatch)
    sent, _ = load(0.0, monkeypatch)
    assert all(tensor.is_shared() for tensor in tensors(shared[0]))
    assert not any(tensor.is_shared() for tensor in tensors(sent[0]))


def test_all_that_may_wait_fits(monkeypatch: pytest.MonkeyPatch):
    """Half of the room, for all batches that the workers of all processes of the machine hold at once."""
    monkeypatch.setattr(loader, "shared_memory", lambda: 64e6)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    made = Loader(Scenes(), batch_size=1, num_workers=2, prefetch_factor=3)
    del made.packed.limit  # set when the workers start
    monkeypatch.setattr(torch.utils.data.DataLoader, "__iter__", lambda self: iter(()))
    assert list(made) == []
    assert made.packed.limit * 2 * 2 * (3 + loader.IN_HAND) == pytest.approx(32e6)


def test_room_is_measured_where_it_is():
    assert loader.shared_memory() > 0


ENDED_FROM_OUTSIDE = """
import os, subprocess
from multiprocessing import active_children, util
from batcli.training.loader import Loader
batches = iter(Loader(list(range(64)), num_workers=1, batch_size=1))
next(batches)
subprocess.run(["kill", "-TERM", *(str(worker.pid) for worker in active_children())])
util._exit_function()  # as at the end of any process
os._exit(3)
"""


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs signals between processes")
def test_a_worker_that_got_the_signal_itself_does_not_outlast_its_parent():
    """Its parent's own SIGTERM is lost beside one that is pending; the parent must not wait for it for ever."""
    done = subprocess.run([sys.executable, "-c", ENDED_FROM_OUTSIDE], timeout=60)
    assert done.returncode == 3
