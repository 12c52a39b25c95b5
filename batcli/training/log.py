"""`log.jsonl`: a line per logged update and per validation; optionally the same for TensorBoard."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError

TRAINING, VALIDATION = "training", "validation"  # kinds of records
BOARD = "tensorboard"


class Log:
    """Appends records to a file, after truncating it to `bytes_kept`, from where a resumed run continues.

    A record has `kind`, `stage`, `update` (of the stage) and `step` (of all stages). With `board`, its numbers
    also go to `tensorboard/` beside the file, which is written anew from the kept records.
    """

    def __init__(self, path: Path, bytes_kept: int, board: bool = False) -> None:
        self.path = path
        self.file = path.open("ab")
        self.file.truncate(bytes_kept)
        self.board: Any = _open_board(path.with_name(BOARD)) if board else None
        if self.board:
            for record in read_log(path):
                self._add_to_board(record)

    def write(self, **record: Any) -> None:
        """Append a record, with numbers rounded to six digits."""
        record = _finite(record)
        self.file.write((json.dumps(record) + "\n").encode())
        self.file.flush()
        if self.board:
            self._add_to_board(record)

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.seek(0, 2)

    def _add_to_board(self, record: dict[str, Any]) -> None:
        for name, value in _numbers(record):
            self.board.add_scalar(f"{record['kind']}/{name}", value, record["step"])
        self.board.flush()


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log."""
    with path.open("rb") as file:
        yield from map(json.loads, file)


def _numbers(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """(name, value) of every number in a record; names of nested ones are joined by /."""
    for name, value in record.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and name not in ("update", "step"):
            yield prefix + name, value


def _finite(value: Any) -> Any:
    """Round to six digits; infinities and NaN, which JSON does not have, become None."""
    if isinstance(value, dict):
        return {name: _finite(nested) for name, nested in value.items()}
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def summary(scores: Mapping[str, Any]) -> str:
    """Write the scores of a validation in a line, without those of single question types."""
    numbers = _numbers(_finite({name: value for name, value in scores.items() if name != "types"}))
    return ", ".join(f"{name.removeprefix('mean/')} {value:.3g}" for name, value in numbers if name[-2:] != "/n")


def _open_board(folder: Path) -> Any:
    require_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    return SummaryWriter(str(folder))


def require_tensorboard() -> None:
    """Raise InputError if TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ModuleNotFoundError:
        raise InputError("not installed", "--tensorboard", "pip install 'batcli[tensorboard]'") from None
