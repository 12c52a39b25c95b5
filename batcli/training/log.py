"""`log.jsonl`: one line per logged update and per measurement; on demand the same for TensorBoard."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError

TRAINING, VALIDATION = "training", "validation"
BOARD = "tensorboard"


class Log:
    """Appends records; cut back to `bytes_kept`, where a resumed run goes on.

    A record has `kind`, `stage`, `update` (of the stage) and `step` (of all stages). With `board`, the
    numbers in it also go to `tensorboard/` beside the file, which is made anew from what was kept.
    """

    def __init__(self, path: Path, bytes_kept: int, board: bool = False) -> None:
        self.path = path
        self.file = path.open("ab")
        self.file.truncate(bytes_kept)
        self.board: Any = _open_board(path.with_name(BOARD)) if board else None
        if self.board:
            for record in read_log(path):
                self._show(record)

    def write(self, **record: Any) -> None:
        record = _finite(record)
        self.file.write((json.dumps(record) + "\n").encode())
        self.file.flush()
        if self.board:
            self._show(record)

    @property
    def size(self) -> int:
        return self.file.seek(0, 2)

    def _show(self, record: dict[str, Any]) -> None:
        for name, value in _numbers(record):
            self.board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        self.board.flush()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        yield from map(json.loads, file)


def _numbers(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(`a/b`, value) of every number in a record and the tables below it."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name not in ("update", "step"):
            yield prefix + name, value


def _finite(value: Any) -> Any:
    """Six digits; null for what is no number, which JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(below) for name, below in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def summary(found: Mapping[str, Any]) -> str:
    """A measurement in a line, its means in place of the single types."""
    numbers = _numbers(_finite({name: value for name, value in found.items() if name != "types"}))
    return ", ".join(f"{name.removeprefix('mean/')} {value:.3g}" for name, value in numbers if name[-2:] != "/n")


def _open_board(folder: Path) -> Any:
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))


def require_tensorboard() -> None:
    try:
        import tensorboard  # noqa: F401 -- only whether it is there
    except ModuleNotFoundError:
        raise InputError("not installed", "--tensorboard", "pip install 'batcli[tensorboard]'") from None
