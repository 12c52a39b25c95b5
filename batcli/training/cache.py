"""What was computed once for many scenes, on disk: named arrays, a row per scene.

Memory-mapped files below a folder whose name is the key of everything that changes their content. A
byte per scene says whether it is there, so that several processes can fill one shelf and a killed
one can go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
