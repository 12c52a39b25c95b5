"""Read records from JSON in any of its forms: one reader for all commands.

A file of records is JSON Lines; or one JSON list; or one JSON object with the list under `"data"`, before, between or
after other keys. Line breaks, byte-order marks and blank lines do not matter. Memory does not grow with the file.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from batcli.core.errors import InputError
from batcli.core.files import STDIO, require_file, require_plain
from batcli.core.jsonl import MARK, MAX_LINE, numbered_lines, parse_line, require_utf8

CHUNK = 1 << 20  # characters that are read at a time
MAX_OTHER = 1 << 24  # characters of what stands beside the list of records
EXPECTED = 'expected JSON Lines, a JSON list or {"data": [...]}'
OTHER_KEYS = ("predictions", "results", "records", "questions", "samples", "examples", "items", "outputs", "answers")
"""Under which others keep a list of records; no record of ours has them."""
SPACE = " \n\r\t" + MARK
BETWEEN = SPACE + ","
NEXT_RECORD = re.compile(r'\}\s*,\s*(?=\{\s*"[^"\\]*"\s*:)')
"""The end of a record that is not JSON: reading goes on after it. It matches no text, which holds no bare quotes."""

_decode = json.JSONDecoder().raw_decode
Item = tuple[str, "dict[str, Any] | InputError"]
"""Where a record stands (`file:line`), and the record, or the error that stands in its place."""


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[str], str]]:
    """Open a file as text that can be read twice: (file, its name in messages); `-` is standard input.

    Bytes that are not UTF-8 become surrogates, which `require_utf8` finds. Raises InputError for a compressed file.
    """
    with tempfile.TemporaryFile() if path == STDIO else open(require_file(path), "rb") as file:
        if path == STDIO:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.seek(0)
        if file.read(2) in (b"\x1f\x8b", b"PK"):
            raise InputError("is compressed", "stdin" if path == STDIO else path, "unpack it (gunzip, unzip)")
        file.seek(0)
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")
        yield text, "stdin" if path == STDIO else str(path)


def read_records(path: Path, name: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, object) for each record of a file. Raises InputError at the first that is none.

    `name`: the file's in messages, unless it is its path.
    """
    for where, item in read_items(path, name):
        if isinstance(item, InputError):
            raise item
        yield where, item


def read_items(path: Path, name: str | None = None) -> Iterator[Item]:
    """(`file:line`, object) for each record of a file; an InputError in place of a bad one.

    Raises InputError for a file of another form.
    """
    with opened(path) as (file, shown):
        name = name or shown
        text = _Text(file, name)
        if not _holds_lines(file) and text.find_list():
            yield from text.records()
            return
        file.seek(0)
        first = _first_line(file).strip(SPACE)
        if first == "{":
            raise InputError("a JSON object without a list of records", name, EXPECTED)
        if key := _other_list(first):
            raise InputError(f"a JSON object with its list under {key!r:.60}", name, EXPECTED)
        file.seek(0)
        yield from _lines(file, name)


def _first_line(file: IO[str]) -> str:
    """The first line that is not blank, or the beginning of a long one."""
    while (line := file.readline(MAX_LINE + 1)).isspace():
        pass
    return line


def _holds_lines(file: IO[str]) -> bool:
    """Whether the first line is a whole JSON object which is a record; the file is at its start again."""
    first = _first_line(file)
    rest = file.read(1)
    while rest.isspace():
        rest = file.read(1)
    file.seek(0)
    if len(first) > MAX_LINE:
        return False
    try:
        record = json.loads(first.strip(SPACE))
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and (bool(rest) or not isinstance(record.get("data"), list))


def _other_list(line: str) -> str | None:
    """The key of OTHER_KEYS under which the object on a line holds a list; None where there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    values = record.items() if isinstance(record, dict) else ()
    return next((key for key, value in values if key in OTHER_KEYS and isinstance(value, list)), None)


def _lines(file: IO[str], name: str) -> Iterator[Item]:
    for where, line in numbered_lines(file, name):
        try:
            yield where, parse_line(line, where)
        except InputError as error:
            yield where, error


class _Text:
    """A JSON text that is read piece by piece, and the place in it where reading goes on."""

    def __init__(self, file: IO[str], name: str) -> None:
        self.file, self.name = file, name
        self.text, self.at = "", 0
        self.line, self.counted = 1, 0  # `line` is that of text[counted]
        self.in_braces = False  # whether the list stands in an object

    def more(self) -> bool:
        """Read the next piece; False at the end of the file."""
        piece = self.file.read(CHUNK)
        if piece:
            self.line += self.text.count("\n", self.counted, self.at)
            self.text, self.at, self.counted = self.text[self.at :] + piece, 0, 0
        return bool(piece)

    def where(self) -> str:
        """`file:line` of the place."""
        self.line, self.counted = self.line + self.text.count("\n", self.counted, self.at), self.at
        return f"{self.name}:{self.line}"

    def skip(self, signs: str) -> str:
        """Go on to the next character that is none of `signs`, and return it; "" at the end of the file."""
        while True:
            while self.at < len(self.text) and self.text[self.at] in signs:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def value(self, longest: int) -> tuple[Any, str]:
        """The JSON value that starts here, and its text; the place is then after it.

        Raises ValueError or RecursionError for what is no JSON, and for more than about `longest` characters.
        """
        while True:
            try:
                value, end = _decode(self.text, self.at)
            except (ValueError, RecursionError):
                # It may be the end of the piece that is bad, not the value.
                if len(self.text) - self.at > longest or not self.more():
                    raise
                continue
            # A number may go on in the next piece: "1e+" is read as 1.
            if end + len("e+0") < len(self.text) or not self.more():
                source, self.at = self.text[self.at : end], end
                return value, source

    def find_list(self) -> bool:
        """Go on to the first record of the list; False where there is none."""
        sign = self.skip(SPACE)
        if sign == "[":
            self.at += 1
            return True
        self.in_braces = sign == "{"
        return self.in_braces and self._find_data()

    def _find_data(self) -> bool:
        """Within an object, at its opening brace: go on to the first record of `"data"`."""
        self.at += 1
        try:
            while self.skip(BETWEEN) == '"':
                key, _ = self.value(MAX_LINE)
                if self.skip(SPACE) != ":":
                    return False
                self.at += 1
                if self.skip(SPACE) == "[" and key == "data":
                    self.at += 1
                    return True
                self.value(MAX_OTHER)
        except (ValueError, RecursionError):
            return False
        return False

    def records(self) -> Iterator[Item]:
        """The records of a list, from the first on, and errors in place of bad ones."""
        before, count = "", 0
        while (sign := self.skip(BETWEEN)) != "]":
            where, count = self.where(), count + 1
            if not sign:
                yield where, InputError("the list does not end", where, "is the file cut short?")
                return
            before, where = where, f"{where}: record {count}" if where == before else where
            try:
                item, source = self.value(MAX_LINE)
            except (ValueError, RecursionError) as error:
                found = NEXT_RECORD.search(self.text, self.at)
                message = f"not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
                hint = None if found else "nothing is read after this; is the file cut short?"
                yield where, InputError(message, where, hint)
                if found is None:
                    return
                self.at = found.end()
                continue
            yield where, _checked(item, source, where)
        self.at += 1
        if problem := self._after_list():
            yield self.where(), InputError(problem, self.where(), "is this one file, and whole?")

    def _after_list(self) -> str | None:
        """What is wrong with the text after the list; None where nothing is."""
        while len(self.text) - self.at <= MAX_OTHER and self.more():
            pass
        rest = self.text[self.at :]
        if len(rest) > MAX_OTHER:
            return f"more than {MAX_OTHER:,} characters after the list of records"
        try:
            require_utf8(rest, self.name)
            if self.in_braces:
                json.loads('{"data": []' + rest.strip(SPACE), object_pairs_hook=_one_list)
                return None
        except (ValueError, RecursionError, InputError) as error:
            return f"no JSON after the list of records: {error}"
        return None if not rest.strip(SPACE) else f"text after the list of records: {rest.strip(SPACE):.40}"


def _one_list(pairs: list[tuple[str, Any]]) -> None:
    """Raises ValueError for an object with two lists of records."""
    if sum(key == "data" for key, _ in pairs) > 1:
        raise ValueError('"data" stands twice')


def _checked(item: Any, source: str, where: str) -> dict[str, Any] | InputError:
    """A record, or the error that stands in its place; `source`: its JSON."""
    if not isinstance(item, dict):
        return InputError(f"not a JSON object: {source:.60}", where)
    try:
        require_utf8(source, where)
        require_plain(source, item, where)
    except InputError as error:
        return error
    return item
