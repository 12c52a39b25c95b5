"""Configuration files: TOML in, checked; TOML out, resolved."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from batcli.core.errors import InputError
from batcli.core.files import require_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20


def read_toml(path: Path) -> dict[str, Any]:
    require_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES:,} bytes", path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise InputError(f"not TOML: {error}", path) from None


WRITTEN = ("model", "language_model", "recipe", "dataset", "processes")
"""Tables that `config.toml` of a run has beside its command's: it is a configuration file, too."""


def refuse_stray_tables(content: Mapping[str, Any], commands: Mapping[str, Collection[str]], path: Path) -> None:
    """Whatever is no command's table is an error. `commands`: name → the names of its subcommands."""
    refuse_unknown([name for name in content if name not in WRITTEN], commands, path)
    for name, below in commands.items():
        if below and isinstance(content.get(name), dict):
            refuse_unknown(content[name], below, f"{path} [{name}]")


def table(content: Mapping[str, Any], names: Collection[str], path: Path) -> dict[str, Any]:
    """The table `[a.b]` of a file, dashes in keys read as underscores; empty when it is not there."""
    found: Any = content
    for name in names:
        found = found.get(name, {})
        if not isinstance(found, dict):
            raise InputError(f"{name!r} is not a table", path, f"write [{'.'.join(names)}]")
    return {key.replace("-", "_"): value for key, value in found.items()}


def refuse_unknown(keys: Collection[str], known: Collection[str], where: str | Path) -> None:
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                f"unknown key {key!r}",
                where,
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
            )


def as_given(value: Any, kind: Literal["switch", "list", "value"], where: str) -> Any:
    """A TOML value as a flag gives it: text, so that the same rules hold for it (1.5 is no whole number)."""
    if kind == "switch":
        if not isinstance(value, bool):
            raise InputError(f"{value!r:.60} is neither true nor false", where)
        return value
    if kind == "list":
        if not isinstance(value, list):
            raise InputError(f"{value!r:.60} is not a list", where, f"write [{_value(value)}]")
        return [as_given(item, "value", where) for item in value]
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise InputError(f"{value!r:.60} is neither text nor a number", where)
    return str(value)


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """`{"train": {"seed": 0}}` → TOML. None is left out: TOML has no null."""
    lines = []
    for name, values in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
