"""Open the run directory of a training: a new one, or an unfinished one with the same options."""

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
    "lora_targets",
    "precision",
    "quantize",
    "attention",
)
"""Options that decide the weights and so cannot change on resuming. The recipe is compared by its own table, data
and language model by their hashes."""

Tables = Mapping[str, Mapping[str, Any]]


def open_run_dir(root: Path, tables: Tables, resume: bool, overwrite: bool) -> None:
    """Make a new run directory, or check that `resume` can continue the one that is there.

    `tables`: of `config.toml`, with this training's values. Raises InputError if the directory holds anything but
    the unfinished run of these values.
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
    """Raise InputError for the first value that decides the weights and differs from the recorded one."""
    for where, old, new in _compared(recorded(root), tomllib.loads(to_toml(tables))):
        if old != new:
            raise InputError(
                f"the run was begun with {_shown(old)}, not {_shown(new)}",
                where,
                "go on with that, or choose another -o",
            )


def recorded(root: Path) -> dict[str, Any]:
    """Read the `config.toml` of a run; empty if the run was stopped before it was written."""
    return read_toml(root / CONFIG) if (root / CONFIG).exists() else {}


def _compared(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(option, value before, value now) of every value in both that decides the weights."""
    if "train" in before and "train" in now:
        for name in FIXED:
            yield f"--{name.replace('_', '-')}", before["train"].get(name), now["train"].get(name)
    if "processes" in before and "processes" in now:
        old, new = (tables["processes"].get("batches_per_update") for tables in (before, now))
        yield "--accumulate × processes", old, new
    for table in sorted(set(before) & set(now) - {"train", "processes"}):
        for name in sorted((set(before[table]) | set(now[table])) - {"path"}):  # data may have moved
            recipe = "--batch-size" if name == "batch" else f"--set {name}"
            scenes = "--rendering" if name == "rendering" else "--cache"
            options = {"recipe": recipe, "dataset": "DATA", "language_model": "--llm", "scenes": scenes}
            yield options.get(table, f"[{table}] {name}"), before[table].get(name), now[table].get(name)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value!r:.60}"
