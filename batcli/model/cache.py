"""Encodings of many scenes on disk: the frozen encoder hears each scene once for all epochs and stages.

Three memory-mapped files below a folder whose name is the key of everything that changes the
encodings. A byte per scene says whether it is there, so that several processes can fill one cache
and a killed one can go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from batcli.model.bat import Encoding

MISSING, STORED, BAD = 0, 1, 2


class EncodingCache:
    """Room for `count` encodings, each like the one of `sample` (B = 1), as float16."""

    def __init__(self, folder: Path, count: int, sample: Encoding, create: bool) -> None:
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        self.state = _map(folder / "state.u8", (count,), np.uint8, create)
        self.tokens = _map(folder / "tokens.f16", (count, *sample.tokens.shape[1:]), np.float16, create)
        self.sources = None
        if sample.sources is not None:
            self.sources = _map(folder / "sources.f16", (count, *sample.sources.shape[1:]), np.float16, create)

    @staticmethod
    def bytes_needed(count: int, sample: Encoding) -> int:
        return count * (1 + 2 * sum(part.numel() for part in sample if part is not None))

    def missing(self) -> np.ndarray:
        """Positions that nobody has encoded yet."""
        return np.flatnonzero(self.state == MISSING)

    def bad(self) -> np.ndarray:
        """Positions of scenes that could not be rendered."""
        return np.flatnonzero(self.state == BAD)

    def put(self, positions: Sequence[int], encoding: Encoding) -> None:
        where = np.asarray(positions)
        self.tokens[where] = encoding.tokens.to(torch.float16).cpu().numpy()
        if self.sources is not None and encoding.sources is not None:
            self.sources[where] = encoding.sources.to(torch.float16).cpu().numpy()
        self.state[where] = STORED  # last: a reader must not find a state without its encoding

    def put_bad(self, position: int) -> None:
        self.state[position] = BAD

    def get(self, positions: Sequence[int]) -> Encoding:
        """Encodings (B, …) in float32."""
        where = np.asarray(positions)
        tokens = torch.from_numpy(self.tokens[where].astype(np.float32))
        sources = torch.from_numpy(self.sources[where].astype(np.float32)) if self.sources is not None else None
        return Encoding(tokens, sources)


def _map(path: Path, shape: tuple[int, ...], dtype: type, create: bool) -> np.ndarray:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if create and not (path.exists() and path.stat().st_size == size):
        with open(path, "wb") as file:
            file.truncate(size)  # sparse: takes room as it is filled
    return np.memmap(path, dtype=dtype, mode="r+", shape=shape)
