"""Read and write TOML."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError
from batcli.core.files import require_file

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAX_BYTES = 1 << 20


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises InputError when it is missing, too large or not TOML."""
    require_file(path)
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"larger than {MAX_BYTES:,} bytes", path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise InputError(f"not TOML: {error}", path) from None


def refuse_unknown(keys: Collection[str], known: Collection[str], where: str | Path) -> None:
    """Raises InputError for the first key that is not known, with the nearest one that is."""
    for key in keys:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise InputError(
                f"unknown key {key!r}",
                where,
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}",
            )


def to_toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables by name → TOML. Values of None are left out: TOML has no null."""
    lines = []
    for name, values in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {to_text(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def to_text(value: Any) -> str:
    """A value in TOML's notation."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(to_text, value)) + "]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
