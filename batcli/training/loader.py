"""Load items in worker processes, through shared memory where it has room."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from batcli.core.parallel import block_signals, kill_workers_at_exit, start_worker
from batcli.core.progress import SILENT, Reporter

SHARED = Path("/dev/shm")  # where Linux keeps what processes share; a container has 64 MB of it unless told otherwise
LOADER_SHARE = 0.5  # of what is free there, for one loader: validation has one beside that of training
IN_HAND = 2  # batches per worker beside the prefetched ones: the one that it makes, and the one in use


def no_collate(batch: list[Any]) -> list[Any]:
    """Return the items as they are, since a `RenderError` cannot be stacked."""
    return batch


class Loader(DataLoader):
    """A DataLoader whose worker processes leave Ctrl-C and SIGTERM to their parent.

    Batches of tensors come through shared memory, where they are not copied, if all that may wait there fit; else
    through pipes, which is slower and has no limit. Their values are the same.
    """

    def __init__(
        self,
        items: TorchDataset,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        reporter: Reporter = SILENT,
        **options: Any,
    ) -> None:
        self.packed = Packed(collate_fn)
        super().__init__(
            items, num_workers=num_workers, collate_fn=self.packed, worker_init_fn=_start_loading, **options
        )
        self.reporter = reporter

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        if self.num_workers:
            waiting = self.num_workers * (int(self.prefetch_factor or 0) + IN_HAND)
            self.packed.limit = shared_memory() * LOADER_SHARE / (waiting * processes_here())
            kill_workers_at_exit()
        with block_signals():  # while the worker processes are started
            batches = super().__iter__()
        return self._unpacked(batches)

    def _unpacked(self, batches: Iterator[Any]) -> Iterator[Any]:
        told = False
        for batch in batches:
            if not isinstance(batch, ByValue):
                yield batch
                continue
            if not told:
                told = True
                size, free = _bytes(batch, np.ndarray) / 1e6, shared_memory() / 1e6
                self.reporter.info(
                    f"batches of {size:,.0f} MB come from the workers through pipes, which is slower: "
                    f"{SHARED} has {free:,.0f} MB free (docker run --shm-size, or fewer --workers)"
                )
            yield self.packed.collate(_convert(batch.items, np.ndarray, torch.from_numpy))


class ByValue(NamedTuple):
    """The items of a batch with arrays for tensors, as a worker sends them through its pipe."""

    items: list[Any]


class Packed:
    """Collate in a worker, whose batches torch makes in shared memory; more than `limit` bytes are sent by value."""

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate, self.limit = collate, float("inf")

    def __call__(self, items: list[Any]) -> Any:
        if _bytes(items, Tensor) > self.limit:
            return ByValue(_convert(items, Tensor, Tensor.numpy))
        return self.collate(items)


def shared_memory() -> float:
    """Bytes that are free in shared memory; infinite where it has no limit of its own."""
    if not SHARED.is_dir():
        return float("inf")
    free = os.statvfs(SHARED)
    return free.f_bavail * free.f_frsize


def processes_here() -> int:
    """Processes of a launcher on this machine, which share its memory."""
    count = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(count)) if count.isdecimal() else 1


def _convert(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Apply `function` to everything of a kind in nested lists and tuples."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_convert(part, kind, function) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_convert(part, kind, function) for part in value)
    return value


def _bytes(value: Any, kind: type[Any]) -> int:
    """Bytes of all arrays or tensors of a kind in nested lists and tuples."""
    if isinstance(value, kind):
        return int(value.nbytes)
    return sum(_bytes(part, kind) for part in value) if isinstance(value, (list, tuple)) else 0


def _start_loading(_: int) -> None:
    gc.freeze()  # the collector would touch, and so copy, all memory shared with the parent
    start_worker()
    torch.set_num_threads(1)  # the others are for the model
