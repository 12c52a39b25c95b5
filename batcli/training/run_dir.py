"""Open the run directory of a training: a new one, or one to go on with under unchanged options."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError
from batcli.core.files import TEMPORARY, require_writable
from batcli.core.toml import read_toml, to_toml, tomllib
from batcli.model.checkpoint import CONFIG, DONE

LOG = "log.jsonl"
FIXED = (
    "preset",
    "stages",
    "split",
    "seed",
    "init",
    "encoder_init",
    "source_tokens",
    "precision",
    "quantize",
    "attention",
)
"""Options that decide the weights. The others name paths, or say what is saved, shown and measured, or
are in the recipe; the data and the language model are known by their hashes, wherever they lie."""

Tables = Mapping[str, Mapping[str, Any]]


def open_run_dir(root: Path, tables: Tables, resume: bool, overwrite: bool) -> None:
    """Make a new run directory, or accept the one to go on with. `tables`: this run's of `config.toml`.

    Raises InputError when the directory holds anything but the unfinished run that is to go on.
    """
    if overwrite:
        _empty(root)
    require_writable(root)
    if (root / DONE).exists():
        raise InputError("holds a finished run", root, "choose another directory, or --overwrite")
    if not (root / LOG).exists() and any(not path.name.startswith(TEMPORARY) for path in root.iterdir()):
        raise InputError("is not empty and no run", root, "choose another directory")
    if (root / LOG).exists():
        if not resume:
            raise InputError("holds an unfinished run", root, "go on with --resume, or --overwrite")
        require_unchanged(root, tables)


def _empty(root: Path) -> None:
    """Delete the content; the directory itself stays, because it is locked."""
    for path in root.iterdir() if root.is_dir() else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def require_unchanged(root: Path, tables: Tables) -> None:
    """Raises InputError for the first value that decides the weights and is not what the run was begun with."""
    before = recorded(root)
    now = tomllib.loads(to_toml(tables))
    for where, old, new in _compared(before, now):
        if old != new:
            raise InputError(
                f"the run was begun with {_shown(old)}, not {_shown(new)}",
                where,
                "go on with that, or choose another -o",
            )


def recorded(root: Path) -> dict[str, Any]:
    """The `config.toml` of a run, or an empty dictionary where it was stopped before that."""
    return read_toml(root / CONFIG) if (root / CONFIG).exists() else {}


def _compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(option, value before, value now) of everything that both know and that decides the weights."""
    if "train" in before and "train" in now:
        for name in FIXED:
            yield f"--{name.replace('_', '-')}", before["train"].get(name), now["train"].get(name)
    if "processes" in before and "processes" in now:
        old, new = (tables["train"]["accumulate"] * tables["processes"]["count"] for tables in (before, now))
        yield "--accumulate × processes", old, new
    for table in sorted(set(before) & set(now) - {"train", "processes"}):
        for name in sorted((set(before[table]) | set(now[table])) - {"path"}):  # data may have moved
            recipe = "--batch-size" if name == "batch" else f"--set {name}"
            given_by = {"recipe": recipe, "dataset": "DATA", "language_model": "--llm"}.get(table, f"[{table}] {name}")
            yield given_by, before[table].get(name), now[table].get(name)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.60}"
