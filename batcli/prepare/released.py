"""`bat prepare import`: import released question files into a dataset, checked record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import exclusive_lock, require_file, require_writable
from batcli.core.progress import SILENT, Reporter
from batcli.core.records import EXPECTED, read_items
from batcli.data.dataset import extend_dataset, require_split_name
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import Question, parse_question
from batcli.options import ImportOptions, require


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
                if isinstance(item, InputError):
                    raise item
                question = parse_question(item, where)
            except InputError as error:
                reporter.warn(str(error))
                bad.append(where)
                continue
            good += 1
            yield question
        if not good:
            what = "no question among its records, see above" if len(bad) > before else "no records"
            raise InputError(what, path, EXPECTED)
