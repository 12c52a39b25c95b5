"""`bat prepare import`: import released question files into a dataset, checked record by record."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import STDIO, exclusive_lock, require_file, require_writable
from batcli.core.jsonl import MAX_LINE, numbered_lines, parse_line
from batcli.core.progress import SILENT, Reporter
from batcli.data.dataset import extend_dataset, require_split_name
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import Question, parse_question
from batcli.options import ImportOptions, require

CHUNK = 1 << 20  # characters
LIST_OPENS = re.compile(r'\s*(?:\[|\{.{0,100000}?"data"\s*:\s*\[)', re.DOTALL)
"""Text before the first record of a JSON file: `[`, or `{"data": [`, perhaps after other keys."""
NEXT_RECORD = re.compile(r'\}\s*,\s*(?=\{\s*")')
"""The end of a record that is not JSON: reading goes on after it. It matches no text, which holds no bare quote."""


@dataclass(frozen=True)
class Imported:
    """The result of an import."""

    counts: dict[str, dict[str, int]]  # split → questions by type
    bad: int  # records that were left out


def import_released(options: ImportOptions, reporter: Reporter = SILENT) -> Imported:
    """Read JSON `{"data": [...]}` or JSONL, and write the good records as splits of DATA.

    All files go into `options.split`, or each into a split of its own name. Bad records are reported as
    file:line and left out. Memory does not grow with the files. Raises InputError for inputs that cannot be
    used; TooManyBad, when all is written, for more than `options.max_bad` bad records.
    """
    for name in ("audio_root", "reverb_root", "labels"):
        require(options, name)
    splits = _splits(options)
    for path in (options.clips, options.reverbs):
        if path is not None:
            require_file(path)
    dataset = extend_dataset(options.data, options.audio_root, options.reverb_root, options.labels, seed=options.seed)
    bad: list[str] = []
    counts = {}
    with nullcontext() if options.dry_run else exclusive_lock(require_writable(options.data)):
        dataset.reload_splits()
        for name, files in splits.items():
            questions = reporter.track(_good(files, bad, reporter), name)
            if options.dry_run:
                counts[name] = _count(questions)
            else:
                counts[name] = dataset.add_split(name, questions, options.clips, options.reverbs).counts
        if not options.dry_run:
            dataset.save()
    for name, by_type in counts.items():
        reporter.info(f"{name}: {sum(by_type.values()):,} questions")
        for kind, n in by_type.items():
            reporter.info(f"  {kind:<27}{n:>11,}")
    if len(bad) > options.max_bad:
        raise TooManyBad(f"{len(bad):,} bad records left out, more than --max-bad {options.max_bad}; first {bad[0]}")
    return Imported(counts, len(bad))


def _splits(options: ImportOptions) -> dict[str, list[Path]]:
    """Split → its files. Raises InputError when two files would be the same split."""
    if options.split:
        return {require_split_name(options.split): list(options.files)}
    splits: dict[str, list[Path]] = {}
    for path in options.files:
        name = require_split_name(path.stem)
        if name in splits:
            hint = "give --split, or import them one by one"
            raise InputError(f"a second file named {name!r}, after {splits[name][0]}", path, hint)
        splits[name] = [path]
    return splits


def _count(questions: Iterator[Question]) -> dict[str, int]:
    counts = Counter(question.question_type for question in questions)
    return {kind: counts[kind] for kind in QUESTION_TYPES if counts[kind]}


def _good(files: list[Path], bad: list[str], reporter: Reporter) -> Iterator[Question]:
    """The questions of `files`; bad records are reported, and their places (file:line) appended to `bad`."""
    for path in files:
        before, good = len(bad), 0
        for where, item in read_items(path):
            try:
                question = _check(item, where)
            except InputError as error:
                reporter.warn(str(error))
                bad.append(where)
                continue
            good += 1
            yield question
        if not good:
            what = "no question among its records, see above" if len(bad) > before else "no records"
            raise InputError(what, path, 'expected JSON {"data": [...]} or JSON Lines')


def _check(item: Any, where: str) -> Question:
    """The question of a record. Raises InputError, also an `item` that is one."""
    if isinstance(item, InputError):
        raise item
    if not isinstance(item, dict):
        raise InputError(f"not a JSON object: {json.dumps(item):.60}", where)
    question = parse_question(item, where)
    parts = [part for source in question.scene for part in source]
    text = "".join([question.question, question.answer, str(question.question_id), *parts])
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("holds bytes that are no text", where, "the file should be UTF-8") from None
    return question


# ---- reading -------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[str], str]]:
    """Open a file as text: (file, its name in messages). Bytes that are not UTF-8 become surrogates: see `_check`."""
    # Standard input cannot be read twice, so it is copied first.
    with tempfile.TemporaryFile() if path == STDIO else open(require_file(path), "rb") as file:
        if path == STDIO:
            shutil.copyfileobj(sys.stdin.buffer, file)
            file.seek(0)
        yield (
            io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape"),
            "stdin" if path == STDIO else str(path),
        )


def read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """(`file:line`, record) for each record of a JSON or JSONL file; an InputError in place of a bad one."""
    with _opened(path) as (file, name):
        head = file.read(CHUNK)
        opening = LIST_OPENS.match(head)
        if opening:
            yield from _list_items(file, name, head, opening.end())
            return
        if head.lstrip().partition("\n")[0].rstrip() == "{":
            raise InputError('neither {"data": [...]} nor JSON Lines', name)
        file.seek(0)
        for where, line in numbered_lines(file, name):
            try:
                yield where, parse_line(line, where)
            except InputError as error:
                yield where, error


def _list_items(file: IO[str], name: str, text: str, at: int) -> Iterator[tuple[str, Any]]:
    """The items of a JSON list whose first may start at `text[at]`; `file` goes on after `text`."""
    decode = json.JSONDecoder().raw_decode
    line, counted = 1, 0  # `line` is that of text[counted]

    def read_more() -> bool:
        nonlocal text, at, line, counted
        more = file.read(CHUNK)
        if more:
            line += text.count("\n", counted, at)
            text, at, counted = text[at:] + more, 0, 0
        return bool(more)

    while True:
        while at < len(text) and text[at] in " \n\r\t,":
            at += 1
        if at == len(text):
            if read_more():
                continue
            yield f"{name}:{line}", InputError("the list does not end", f"{name}:{line}", "is the file cut short?")
            return
        if text[at] == "]":
            return
        line, counted = line + text.count("\n", counted, at), at
        where = f"{name}:{line}"
        try:
            item, end = decode(text, at)
        except (ValueError, RecursionError) as error:
            # It may be the end of the chunk that is bad, not the record.
            if len(text) - at <= MAX_LINE and read_more():
                continue
            found = NEXT_RECORD.search(text, at)
            message = f"not JSON: {error.msg if isinstance(error, json.JSONDecodeError) else error}"
            hint = None if found else "nothing is read after this; is the file cut short?"
            yield where, InputError(message, where, hint)
            if found is None:
                return
            at = found.end()
            continue
        yield where, item
        at = end
