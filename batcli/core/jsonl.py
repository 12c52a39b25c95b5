"""Read and write JSON Lines: one object a line; errors name the line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from batcli.core.errors import InputError
from batcli.core.files import STDIO, require_file, require_plain, writing

NEWLINE = b"\n"
MAX_LINE = 1 << 20  # characters; a longer line is refused unread: it could fill the memory


def parse_line(line: str, where: str) -> dict[str, Any]:
    """The object on a line. Raises InputError that starts with `where` (file:line)."""
    try:
        record = json.loads(line.rstrip())  # a newline would make a second line, and columns count from it
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg} at column {error.colno}", where) from None
    except (ValueError, RecursionError) as error:  # too many digits, nested too deep
        raise InputError(f"not JSON: {error}", where) from None
    if not isinstance(record, dict):
        raise InputError(f"not a JSON object: {line.strip():.60}", where)
    require_plain(line, record, where)
    return record


def numbered_lines(file: IO[str], name: str | Path) -> Iterator[tuple[str, str]]:
    """Yield (`name:number`, line) for each line that is not blank. Raises InputError for one that is no text."""
    number = 0
    while True:
        number += 1
        where = f"{name}:{number}"
        try:
            line = file.readline(MAX_LINE + 1)
        except UnicodeDecodeError as error:
            # A block of many lines is decoded at once: the bad byte's line is counted within it.
            where = f"{name}:{number + error.object[: error.start].count(NEWLINE)}"
            raise InputError(f"not UTF-8 text: {error.reason}", where) from None
        if not line:
            return
        if len(line) > MAX_LINE:
            raise InputError(f"a line of more than {MAX_LINE:,} characters", where, "is this JSON Lines?")
        if not line.isspace():
            yield where, line


@contextmanager
def reading(path: Path) -> Iterator[tuple[IO[str], str]]:
    """Open `path` for reading: (file, its name in messages); `-` is standard input."""
    if path == STDIO:
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")  # whatever the locale says
        yield sys.stdin, "stdin"
    else:
        with open(require_file(path), encoding="utf-8-sig") as file:
            yield file, str(path)


def read_records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, object) for each line of a JSONL file. Raises InputError at the first bad line."""
    with reading(path) as (file, name):
        for where, line in numbered_lines(file, name):
            yield where, parse_line(line, where)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode  # json.dumps would make one per call


def dump(record: dict[str, Any]) -> str:
    """A record as a line, with its newline."""
    return _encode(record) + "\n"


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write a JSONL file, whole or not at all; return the number of records."""
    count = 0
    with writing(path) as file:
        for record in records:
            file.write(dump(record))
            count += 1
    return count
