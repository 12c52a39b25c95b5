"""Write numbered records as they are made: to standard output, or to a file that a stopped run goes on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError
from batcli.core.files import STDIO, read_json, require_writable_file, sha256, write_json, writing
from batcli.core.jsonl import dump, write_records
from batcli.core.manifest import describe
from batcli.core.parallel import main_rank_lock, rank_and_world, share
from batcli.core.progress import Reporter
from batcli.core.shards import ResumableShards, content_key

Record = dict[str, Any]
Make = Callable[[Sequence[int]], Iterator[tuple[int, Record]]]
"""A function that makes the records of some places, in their order: yields (place, record)."""
ERROR = "error"  # the field that a bad record has


def require_output(output: Path) -> None:
    """Raises InputError if `write_stream` could not write to `output`."""
    if output != STDIO:
        require_writable_file(output)
    elif rank_and_world()[1] > 1:
        raise InputError("several processes cannot share standard output", "-o", "name a file")


def write_stream(
    output: Path,
    count: int,
    make: Make,
    facts: Mapping[str, Any],
    about: Mapping[str, Any],
    reporter: Reporter,
    overwrite: bool = False,
) -> int:
    """Write the records of the places 0 … count − 1; return how many have an error (0 in other ranks than the first).

    A file appears when it is whole, with `….manifest.json` beside it; what a stopped run made is kept, and taken up
    by a run with the same `facts`, all that decides the records. Under a launcher each process makes a share.
    `about`: what else the manifest holds. A file that is whole already, of the same `facts`, is left as it is, unless
    `overwrite`, which throws away what a stopped run made, too.
    """
    if output == STDIO:
        return _to_stdout(make(range(count)))
    with main_rank_lock(output):
        if overwrite:
            if rank_and_world()[0] == 0:
                _manifest(output).unlink(missing_ok=True)
            ResumableShards(output, content_key(**facts)).discard()
        elif (bad := _complete(output, facts)) is not None:
            reporter.info(f"{output} is already complete; --overwrite makes it anew")
            return bad if rank_and_world()[0] == 0 else 0
        return _to_file(output, count, make, facts, about, reporter)


def _manifest(output: Path) -> Path:
    return output.with_name(output.name + ".manifest.json")


def _complete(output: Path, facts: Mapping[str, Any]) -> int | None:
    """The number of bad records of a file that is whole, of the same facts and as it was written; else None."""
    if not (output.is_file() and _manifest(output).is_file()):
        return None
    try:
        known = read_json(_manifest(output))
    except InputError:
        return None
    if not isinstance(known, dict) or not isinstance(known.get("bad"), int):
        return None
    same = all(name in known and known[name] == value for name, value in json.loads(json.dumps(facts)).items())
    return known["bad"] if same and known.get("output_sha256") == sha256(output) else None


def _to_stdout(records: Iterator[tuple[int, Record]]) -> int:
    bad = 0
    with writing(STDIO) as out:
        for _, record in records:
            bad += ERROR in record
            out.write(dump(record))
            out.flush()
    return bad


def _to_file(
    output: Path, count: int, make: Make, facts: Mapping[str, Any], about: Mapping[str, Any], reporter: Reporter
) -> int:
    """Write this rank's share of the records, then, in the first rank, all."""
    with ResumableShards(output, content_key(**facts)) as parts:
        done = parts.finished()
        todo = [place for place in share(range(count)) if place not in done]
        if done:
            reporter.info(f"{len(done):,} are there already")
        if todo:
            for place, record in make(todo):
                parts.append(place, record)
        if rank_and_world()[0] != 0:
            return 0
        records = parts.gather(count)
    bad = sum(ERROR in record for record in records)
    _manifest(output).unlink(missing_ok=True)
    write_records(output, records)
    write_json(_manifest(output), describe(**facts, **about, bad=bad, output_sha256=sha256(output)))
    parts.remove()
    return bad
