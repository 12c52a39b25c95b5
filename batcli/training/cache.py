"""Encodings and cues on disk: named memory-mapped arrays with a row per scene.

The folder's name is a hash of everything that changes the content. A byte per scene records whether its
row is filled, so that several processes can fill one cache, and a resumed run continues.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Subset

from batcli.core.files import readable
from batcli.core.progress import track_batches
from batcli.core.shards import content_key
from batcli.training.bad_scenes import BadScenes
from batcli.training.loader import no_collate
from batcli.training.scenes import ENCODE_BATCH, RenderError, threads_for
from batcli.training.trainer import Trainer

CACHE = "cache"  # folder in the run directory
MISSING, STORED, BAD = 0, 1, 2  # states of a row


class EncodingCache:
    """Arrays of `count` rows, each row like that of `sample`; floating point is stored as float16.

    `create`: make the files unless they exist.
    """

    def __init__(self, folder: Path, count: int, sample: Mapping[str, Tensor], create: bool) -> None:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        self.state = _map(folder / "state.u8", (count,), np.dtype(np.uint8), create)
        self.arrays = {
            name: _map(folder / f"{name}.bin", (count, *row.shape), _stored(row), create)
            for name, row in sample.items()
        }

    @staticmethod
    def bytes_needed(count: int, sample: Mapping[str, Tensor]) -> int:
        """Disk space of a cache of `count` rows like `sample`."""
        return count * (1 + sum(row.numel() * _stored(row).itemsize for row in sample.values()))

    def missing(self) -> np.ndarray:
        """Indices of the rows that are not filled."""
        return np.flatnonzero(self.state == MISSING)

    def bad(self) -> np.ndarray:
        """Indices of the rows whose scenes could not be rendered."""
        return np.flatnonzero(self.state == BAD)

    def put(self, rows: Sequence[int] | np.ndarray, values: Mapping[str, Tensor]) -> None:
        """Store values (B, …) of each array in B rows."""
        index = np.asarray(rows)
        for name, array in self.arrays.items():
            array[index] = values[name].cpu().numpy()
        self.state[index] = STORED  # last, for readers in other processes

    def put_bad(self, row: int) -> None:
        """Mark a row whose scene could not be rendered."""
        self.state[row] = BAD

    def get(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Read rows (B, …), floating point as float32."""
        index = np.asarray(rows)
        values = {name: torch.from_numpy(np.asarray(array[index])) for name, array in self.arrays.items()}
        return {name: value.float() if value.is_floating_point() else value for name, value in values.items()}


def as_stored(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values as `EncodingCache.get` reads them back: floating point rounded to 16 bits."""
    return {name: value.half().float() if value.is_floating_point() else value for name, value in values.items()}


def _stored(row: Tensor) -> np.dtype:
    return np.dtype(np.float16 if row.is_floating_point() else np.int64)


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype, create: bool) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    if create and not (path.exists() and path.stat().st_size == size):
        with open(path, "wb") as file:
            file.truncate(size)  # sparse: takes disk space as it is filled
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def open_cache(trainer: Trainer, facts: Mapping[str, Any], count: int, sample: Mapping[str, Tensor]) -> EncodingCache:
    """Open or create a cache of `count` rows like `sample`, under a hash of `facts` and what else changes the rows."""
    plan = trainer.plan
    size = readable(EncodingCache.bytes_needed(count, sample))
    trainer.reporter.info(f"{count:,} scenes to encode once, {size}")
    settings = {"settings": asdict(trainer.settings), "count": count, "arrays": sorted(sample)}
    folder = plan.output / CACHE / content_key(**facts, **plan.dataset_facts(), **settings)
    if trainer.accelerator.is_main_process:
        EncodingCache(folder, count, sample, create=True)
    trainer.accelerator.wait_for_everyone()
    return EncodingCache(folder, count, sample, create=False)


def fill_cache(
    trainer: Trainer,
    cache: EncodingCache,
    items: TorchDataset,
    description: str,
    compute: Callable[[Sequence[Any]], Mapping[str, Tensor]],
    rows_each: int = 1,
) -> None:
    """Compute and store this process's share of the missing items; scenes that fail are recorded in `bad.jsonl`.

    `items` yields (index, value or RenderError); `compute` turns a list of values into `rows_each` rows per value.
    With more than one row per value, items must not yield a RenderError.
    """
    missing = np.unique(cache.missing() // rows_each)
    accelerator, reporter = trainer.accelerator, trainer.reporter
    bad = BadScenes(trainer.plan.output, reporter)
    mine = missing[accelerator.process_index :: accelerator.num_processes].tolist()
    loader = trainer.load(Subset(items, mine), batch_size=max(1, ENCODE_BATCH // rows_each), collate_fn=no_collate)
    with torch.inference_mode(), threads_for(trainer.model):
        for batch in track_batches(
            reporter, loader, description, len(mine) * rows_each, lambda batch: len(batch) * rows_each
        ):
            good = {index: value for index, value in batch if not isinstance(value, RenderError)}
            for index, value in batch:
                if isinstance(value, RenderError):
                    bad.add(value)
                    cache.put_bad(index)
            if good:
                rows = [index * rows_each + row for index in good for row in range(rows_each)]
                cache.put(rows, compute(list(good.values())))
    accelerator.wait_for_everyone()
