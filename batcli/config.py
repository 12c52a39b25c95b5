"""Configuration files: a TOML table for each command, whose values are read as flags are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from batcli.core.errors import InputError
from batcli.core.toml import refuse_unknown, to_text

RUN_TABLES = ("model", "language_model", "recipe", "dataset", "scenes", "processes")
"""Tables of a run's `config.toml`, which is a configuration file too, beside those of commands."""


def refuse_stray_tables(content: Mapping[str, Any], commands: Mapping[str, Collection[str]], path: Path) -> None:
    """Raises InputError for a table of no command. `commands`: name → the names of its subcommands."""
    refuse_unknown([name for name in content if name not in RUN_TABLES], commands, path)
    for name, below in commands.items():
        if below and isinstance(content.get(name), dict):
            refuse_unknown(content[name], below, f"{path} [{name}]")


def table(content: Mapping[str, Any], names: Collection[str], path: Path) -> dict[str, Any]:
    """The table `[a.b]` of `content`, with underscores for dashes in its keys; empty when it is not there."""
    found: Any = content
    for name in names:
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise InputError(f"{name!r} is not a table", path, f"write [{'.'.join(names)}]")
    return {key.replace("-", "_"): value for key, value in found.items()}


def to_flag(value: Any, kind: Literal["switch", "list", "value"], where: str) -> Any:
    """A TOML value as a flag would give it, as text, so that it is checked alike (1.5 is no whole number)."""
    if kind == "switch":
        if not isinstance(value, bool):
            raise InputError(f"{value!r:.60} is neither true nor false", where)
        return value
    if kind == "list":
        if not isinstance(value, list):
            raise InputError(f"{value!r:.60} is not a list", where, f"write [{to_text(value)}]")
        return [to_flag(item, "value", where) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{value!r:.60} is neither text nor a number", where)
    return str(value)
