"""Records that several processes make in any order, kept on disk so that a killed run can go on.

Each process appends to a file of its own, beside the final one and under a temporary name. A run with the
same key (a hash of all that decides the result) finds the records of earlier ones; when all are there,
the first process writes the final file.
"""

from __future__ import annotations

import hashlib
import json
import time
from glob import escape
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError
from batcli.core.files import TEMPORARY, remove
from batcli.core.jsonl import dump
from batcli.core.parallel import rank_and_world

POLL_SECONDS = 0.2


def content_key(**facts: Any) -> str:
    """A hash of `facts`, twelve hex digits."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


class ResumableShards:
    """The records of `final` that are finished so far. A context manager: inside, `append` writes.

    key: see `content_key`.
    """

    def __init__(self, final: Path, key: str) -> None:
        self.final = final
        self.pattern = f"{TEMPORARY}{final.name}-{key}-part-"
        self.rank = rank_and_world()[0]
        self.own = final.with_name(f"{self.pattern}{self.rank}.jsonl")

    def __enter__(self) -> ResumableShards:
        self._file = open(self.own, "ab")
        # A kill may have cut the last line; what follows must not be glued to it.
        self._file.truncate(self.own.read_bytes().rfind(b"\n") + 1)
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def discard(self) -> None:
        """Delete the finished records before work begins: this rank's, or all if there is no other rank."""
        for path in self.final.parent.glob(f"{escape(self.pattern)}*.jsonl"):
            if path == self.own or rank_and_world()[1] == 1:
                remove(path)

    def append(self, position: int, record: dict[str, Any]) -> None:
        """Write the finished record of a position, at once."""
        self._file.write(dump({"position": position, "record": record}).encode())
        self._file.flush()

    def finished(self) -> dict[int, dict[str, Any]]:
        """Position → record, of all processes of this run and of earlier ones with the same key."""
        found = {}
        for path in sorted(self.final.parent.glob(f"{escape(self.pattern)}*.jsonl")):
            for line in path.read_bytes().splitlines(keepends=True):
                # A kill cuts the last line; a loss of power may leave any bytes. Such records are made again.
                if line.endswith(b"\n") and (entry := _entry(line)):
                    found[entry[0]] = entry[1]
        return found

    def gather(self, count: int, timeout: float = 24 * 3600.0) -> list[dict[str, Any]]:
        """Wait until all `count` records are there; return them in order. Raises InputError after `timeout` s."""
        end = time.monotonic() + timeout
        while len(found := self.finished()) < count:
            if time.monotonic() > end:
                raise InputError(f"{count - len(found)} records are missing", self.final, "run again to go on")
            time.sleep(POLL_SECONDS)
        return [found[position] for position in range(count)]

    def remove(self) -> None:
        """Delete the records of this run and of abandoned ones, when the final file is written."""
        for path in self.final.parent.glob(f"{escape(TEMPORARY + self.final.name)}-*-part-*.jsonl"):
            remove(path)


def _entry(line: bytes) -> tuple[int, dict[str, Any]] | None:
    """(position, record) of a line that `append` wrote; None for any other line."""
    try:
        entry = json.loads(line)
        position, record = entry["position"], entry["record"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return (position, record) if type(position) is int and isinstance(record, dict) else None
