"""What was computed once for many scenes, on disk: named arrays, a row per scene.

Memory-mapped files below a folder whose name is the key of everything that changes their content. A
byte per scene says whether it is there, so that several processes can fill one cache and a killed
one can go on.
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

from batcli.core.errors import InputError
from batcli.core.jsonl import dump
from batcli.core.shards import content_key
from batcli.training.scenes import ENCODE_BATCH, RenderError, no_collate, threads_for
from batcli.training.trainer import Trainer

CACHE = "cache"  # a run's folder
BAD_SCENES = "bad.jsonl"
MISSING, STORED, BAD = 0, 1, 2


class EncodingCache:
    """Room for `count` rows of each array of `sample`; floating point is kept as float16."""

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
        return count * (1 + sum(row.numel() * _stored(row).itemsize for row in sample.values()))

    def missing(self) -> np.ndarray:
        """Rows that nobody has filled yet."""
        return np.flatnonzero(self.state == MISSING)

    def bad(self) -> np.ndarray:
        """Rows of scenes that could not be rendered."""
        return np.flatnonzero(self.state == BAD)

    def put(self, rows: Sequence[int] | np.ndarray, values: Mapping[str, Tensor]) -> None:
        where = np.asarray(rows)
        for name, array in self.arrays.items():
            array[where] = values[name].cpu().numpy()
        self.state[where] = STORED  # last: a reader must not find a state without its content

    def put_bad(self, row: int) -> None:
        self.state[row] = BAD

    def get(self, rows: Sequence[int] | np.ndarray) -> dict[str, Tensor]:
        """Rows (B, …), floating point as float32."""
        where = np.asarray(rows)
        found = {name: torch.from_numpy(np.asarray(array[where])) for name, array in self.arrays.items()}
        return {name: value.float() if value.is_floating_point() else value for name, value in found.items()}


def _stored(row: Tensor) -> np.dtype:
    return np.dtype(np.float16 if row.is_floating_point() else np.int64)


def _map(path: Path, shape: tuple[int, ...], dtype: np.dtype, create: bool) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    if create and not (path.exists() and path.stat().st_size == size):
        with open(path, "wb") as file:
            file.truncate(size)  # sparse: takes room as it is filled
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)


def open_cache(trainer: Trainer, facts: Mapping[str, Any], count: int, sample: Mapping[str, Tensor]) -> EncodingCache:
    """Room on disk for `count` rows like `sample`, under a key of everything that changes them.

    Raises InputError when it would take more than `cache_gb`.
    """
    plan = trainer.plan
    size = EncodingCache.bytes_needed(count, sample) / 1e9
    if size > plan.cache_gb:
        raise InputError(f"{count:,} scenes need {size:.1f} GB", "--cache-gb", "allow as much")
    trainer.reporter.info(f"{count:,} scenes to hear once, {size:.2f} GB")
    everything = {**facts, **plan.dataset_facts(), "settings": asdict(trainer.settings), "count": count}
    folder = plan.output / CACHE / content_key(**everything)
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
    """Store `compute` of this process's share of the missing items; scenes that fail go to `bad.jsonl`."""
    missing = np.unique(cache.missing() // rows_each)
    accelerator, reporter = trainer.accelerator, trainer.reporter
    todo = missing[accelerator.process_index :: accelerator.num_processes].tolist()
    loader = trainer.load(Subset(items, todo), batch_size=max(1, ENCODE_BATCH // rows_each), collate_fn=no_collate)
    with torch.inference_mode(), threads_for(trainer.model):
        for batch in reporter.track(loader, description, len(loader)):
            good = [(row, value) for row, value in batch if not isinstance(value, RenderError)]
            for row, value in batch:
                if isinstance(value, RenderError):
                    reporter.warn(value.error["message"])
                    with open(trainer.plan.output / BAD_SCENES, "a", encoding="utf-8") as file:
                        file.write(dump({"sources": [s._asdict() for s in value.scene], "error": value.error}))
                    cache.put_bad(row)
            if good:
                numbers, values = zip(*good, strict=True)
                rows = [number * rows_each + row for number in numbers for row in range(rows_each)]
                cache.put(rows, compute(values))
    accelerator.wait_for_everyone()
