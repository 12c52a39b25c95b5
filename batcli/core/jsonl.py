"""JSON Lines: one object a line; errors name the line. `core.records` reads files of any JSON form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from batcli.core.errors import InputError
from batcli.core.files import require_plain, writing

MARK = "\ufeff"  # byte-order mark
MAX_LINE = 1 << 20  # characters; a longer line is refused unread: it could fill the memory


def parse_line(line: str, where: str) -> dict[str, Any]:
    """The object on a line. Raises InputError that starts with `where` (file:line)."""
    require_utf8(line, where)
    line = line.removeprefix(MARK)  # within a file where files were put together
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
    """Yield (`name:number`, line) for each line that is not blank. Raises InputError for one that is too long.

    The file is opened by `core.records.opened`: bytes that are no text are in the line as surrogates.
    """
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        where = f"{name}:{number}"
        if len(line) > MAX_LINE:
            raise InputError(f"a line of more than {MAX_LINE:,} characters", where, "is this JSON Lines?")
        if not line.isspace():
            yield where, line


def require_utf8(text: str, where: str) -> None:
    """Raises InputError for text with bytes that were no UTF-8 (see `numbered_lines`)."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InputError("not UTF-8 text", where, "save the file as UTF-8") from None


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
