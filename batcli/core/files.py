"""Writing so that nothing half-written is mistaken for whole, and paths that stay below their root."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from batcli.core.errors import InputError

STDIO = Path("-")
TEMPORARY = ".tmp-"
"""Files whose name starts so are unfinished; they can be deleted when no command runs."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    A link stays and what it points to is replaced; a pipe or a device such as `/dev/null` is itself
    what is yielded.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())  # the name must not appear on disk before the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing, whole or not at all; `-` is standard output."""
    if path == STDIO:
        yield sys.stdout if "b" not in mode else sys.stdout.buffer
        sys.stdout.flush()
        return
    with (
        replacing(path) as temporary,
        open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file,
    ):
        yield file
        file.flush()


def write_text(path: Path, text: str) -> None:
    with writing(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, max_bytes: int = 1 << 30) -> Any:
    """Raises InputError for what is missing, too large or not JSON."""
    require_file(path)
    if path.stat().st_size > max_bytes:
        raise InputError(f"larger than {max_bytes:,} bytes", path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", f"{path}:{error.lineno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", path) from None


def require_file(path: Path, hint: str | None = None) -> Path:
    try:
        if path.is_file():
            if os.access(path, os.R_OK):
                return path
            what = "no permission to read"
        elif path.is_dir():
            what = "is a directory, not a file"
        else:
            what = "is no regular file" if path.exists() else "no such file"
    except (OSError, ValueError) as error:  # a name too long, a NUL byte
        what = str(error)
    raise InputError(what, path, hint)


def require_directory(path: Path, hint: str | None = None) -> Path:
    if not path.is_dir():
        raise InputError("is a file, not a directory" if path.is_file() else "no such directory", path, hint)
    return path


def require_writable(directory: Path) -> Path:
    """Make `directory` and prove that it can be written, before any work is done."""
    if directory.is_file():
        raise InputError("is a file, not a directory", directory, "choose another output")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory, prefix=TEMPORARY):
            pass
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", directory, "choose another output") from None
    return directory


def require_writable_file(path: Path) -> Path:
    """Prove that a file can be written under this name, before any work is done."""
    if path.is_dir():
        raise InputError("is a directory, not a file", path, "choose another output")
    require_writable(path.parent)
    return path


def stays_below(relative: str) -> bool:
    """Whether a path from a file can be trusted to stay below its root, links aside."""
    # By hand: `PurePosixPath` says the same at ten times the cost, four times for every record read.
    parts = relative.split("/")
    names_something = any(part not in ("", ".") for part in parts)
    return names_something and parts[0] != "" and ".." not in parts and "\0" not in relative and "\\" not in relative


def inside(root: Path, relative: str, where: str | Path | None = None) -> Path:
    """`root / relative`, refused when it leads out of `root` (absolute, `..`, a link, NUL)."""
    hint = "ids are relative paths below their root"
    if not stays_below(relative):
        raise InputError(f"leads out of {root}: {relative!r:.120}", where, hint)
    path = root / relative
    try:
        escaped = not path.resolve().is_relative_to(_resolved(root))
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise InputError(f"not a path: {relative!r:.120} ({error})", where or root, hint) from None
    if escaped:
        raise InputError(f"leads out of {root} through a link: {relative!r:.120}", where, hint)
    return path


@lru_cache(64)
def _resolved(root: Path) -> Path:
    """Where a root really is: looked up once, for it takes as long as each of the paths below it."""
    return root.resolve()


def sha256(path: Path) -> str:
    """Hex digest of a file, or of a directory: the digests of its files in the order of their names."""
    digest = hashlib.sha256()
    if path.is_dir():
        for below in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{below.relative_to(path).as_posix()}\0{sha256(below)}\n".encode())
        return digest.hexdigest()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
