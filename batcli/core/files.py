"""Write files whole or not at all, lock outputs, check paths, read JSON."""

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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

STDIO = Path("-")
MAX_DEPTH = 100  # of nested lists and objects in a JSON file
MAX_JSON = 1 << 26  # bytes of a JSON file that a command wrote
MAX_LIST = 1 << 29  # bytes of a list of clips or BRIRs: AudioSet's two million clips take 220 MB
TEMPORARY = ".tmp-"  # prefix of unfinished files; they can be deleted when no command runs
LONGEST_ENDING = 20  # characters, beside 8 at random: a part's key, rank and suffix after the name (`core.shards`)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an error.

    Of a link, the target is replaced. A pipe or a device such as `/dev/null` is yielded itself. Raises
    InputError when another process is writing the same file.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(TEMPORARY + path.name)
    with _locked(temporary, path):
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # the name must not appear on disk before the content
            os.replace(temporary, path)
        finally:
            remove(temporary)


@contextmanager
def writing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open `path` for writing, to appear whole or not at all (see `replacing`); `-` is standard output."""
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


def read_json(path: Path, max_bytes: int = MAX_JSON) -> Any:
    """The content of a JSON file. Raises InputError when it is missing, too large or not JSON."""
    require_file(path)
    if path.stat().st_size > max_bytes:
        raise InputError(f"larger than {max_bytes:,} bytes", path)
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows write a byte-order mark
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg}", f"{path}:{error.lineno}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON: {error}", path) from None
    require_plain(text, value, path)
    return value


def require_plain(text: str, value: Any, where: str | Path) -> None:
    """Raises InputError for a `value`, read from the JSON `text`, that could not be written again.

    That is half of a surrogate pair, or nesting deep enough to exhaust a stack.
    """
    if "\\ud" in text.lower():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            hint = r"\ud800 to \udfff stand in pairs only"
            raise InputError("holds bytes that are no text", where, hint) from None
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deep(value):
        raise InputError(f"nested more than {MAX_DEPTH} deep", where)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested more than MAX_DEPTH deep."""
    level, depth = [value], 0
    while level and depth <= MAX_DEPTH:
        inner = [part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list))]
        level, depth = [part for parts in inner for part in parts if isinstance(part, (dict, list))], depth + 1
    return depth > MAX_DEPTH


def require_file(path: Path, hint: str | None = None) -> Path:
    """`path`, a regular file that can be read. Raises InputError otherwise."""
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
    """`path`, a directory. Raises InputError otherwise."""
    if not os.path.isdir(path):  # unlike `is_dir`, no error for a name that no file can have
        raise InputError("is a file, not a directory" if os.path.isfile(path) else "no such directory", path, hint)
    return path


def require_text(path: Path) -> Path:
    """`path`, if its absolute form is UTF-8 text, as the files that record it are. Raises InputError otherwise."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        raise InputError("the name is not UTF-8, so no file can record it", path, "rename it, or use another") from None
    return path


def require_writable(directory: Path) -> Path:
    """Make `directory` and test that files can be written in it. Raises InputError otherwise."""
    _require_writable(require_text(directory), "", "")
    return directory


def _require_writable(directory: Path, prefix: str, suffix: str) -> None:
    """Make `directory` and test that a file whose name starts and ends so can be written in it."""
    if directory.is_file():
        raise InputError("is a file, not a directory", directory, "choose another output")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=TEMPORARY + prefix, suffix=suffix):
            pass
    except OSError as error:
        where = directory / prefix if prefix else directory
        raise InputError(f"cannot be written: {error.strerror or error}", where, "choose another output") from None


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Lock `path`, a directory or a file that is to be written: two runs at once would spoil each other's work.

    Raises InputError when another process holds it. The lock ends with the process, however that ends.
    File systems without locks, and Windows, hold nothing.
    """
    # Not `filelock`: it leaves a file in every directory, and in its older releases, which Python 3.10 needs,
    # forked workers keep the lock of a parent that was killed.
    lock = path if path.is_dir() else path.with_name(f"{TEMPORARY}{path.name}-lock")
    with _locked(lock, path):
        try:
            yield
        finally:
            if lock != path:
                remove(lock)


@contextmanager
def _locked(lock: Path, path: Path) -> Iterator[None]:
    """Hold the directory or the file `lock`, which is made if it is not there, on behalf of `path`."""
    if fcntl is None:
        yield
        return
    directory = lock.is_dir()
    descriptor = os.open(lock, os.O_RDONLY if directory else os.O_RDONLY | os.O_CREAT, 0o666)
    _LOCKED.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = directory or os.path.samestat(os.fstat(descriptor), os.stat(lock))
        except (BlockingIOError, FileNotFoundError):
            held = False
        except OSError:
            held = True  # a network file system without locks
        if not held:
            raise InputError("another run is writing here", path, "wait for it, or choose another output")
        yield
    finally:
        _LOCKED.discard(descriptor)
        os.close(descriptor)


_LOCKED: set[int] = set()  # descriptors


def _close_locked() -> None:
    """Let go, in a forked child, of its parent's locks, which would outlast a parent that is killed."""
    while _LOCKED:
        os.close(_LOCKED.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_locked)


def require_writable_file(path: Path) -> Path:
    """Make the directory of `path` and test that the file, and those made on the way to it, can be written there.

    Raises InputError otherwise, also for a name that is too long.
    """
    if os.path.isdir(path):
        raise InputError("is a directory, not a file", path, "choose another output")
    if not path.name:
        raise InputError("is no name of a file", path, "choose another output")
    _require_writable(require_text(path).parent, path.name, "-" * LONGEST_ENDING)
    return path


def stays_below(relative: str) -> bool:
    """Whether a relative path, read from a file, stays below its root, links aside."""
    # Not `PurePosixPath`: ten times as slow, and every record has up to four paths.
    parts = relative.split("/")
    names_something = any(part not in ("", ".") for part in parts)
    return names_something and parts[0] != "" and ".." not in parts and "\0" not in relative and "\\" not in relative


def inside(root: Path, relative: str, where: str | Path | None = None, follow_links: bool = False) -> Path:
    """`root / relative`. Raises InputError when it leads out of `root`: absolute, `..`, NUL, a link.

    With `follow_links`, links below `root` may lead anywhere. A link to nothing leads nowhere: it is a missing file.
    """
    hint = "ids are relative paths below their root"
    if not stays_below(relative):
        raise InputError(f"leads out of {root}: {relative!r:.120}", where, hint)
    path = root / relative
    try:
        top, folder = _resolved(root), _resolved(path.parent)
        if follow_links or (folder.is_relative_to(top) and not os.path.islink(path)):
            os.fsencode(path)
            return path
        escaped = not path.resolve().is_relative_to(top) and not _is_broken(root, relative)
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, a loop of links, half a surrogate pair
        raise InputError(f"not a path: {relative!r:.120} ({error})", where or root, hint) from None
    if escaped:
        hint = "--follow-links reads it, if you trust who made the link"
        raise InputError(f"leads out of {root} through a link: {relative!r:.120}", where, hint)
    return path


def _is_broken(root: Path, relative: str) -> bool:
    """Whether a part of the path, below `root`, is a link to nothing."""
    path = root
    for part in relative.split("/"):
        path = path / part
        if os.path.islink(path) and not os.path.exists(path):
            return True
    return False


@lru_cache(4096)
def _resolved(folder: Path) -> Path:
    """`folder` without links; remembered, because a folder holds many files and looking it up takes long."""
    return folder.resolve()


def readable(size: float) -> str:
    """A number of bytes in the unit that gives it one to three digits: `3.2 GB`, `12 MB`, `840 B`."""
    amount, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while amount >= 999.5 and len(units) > 1:
        amount /= 1_000
        units.pop(0)
    return f"{amount:.1f} {units[0]}" if amount < 9.95 and units[0] != "B" else f"{amount:,.0f} {units[0]}"


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex; of a directory, that of its files' names and digests in order."""
    digest = hashlib.sha256()
    if path.is_dir():
        for below in sorted(p for p in path.rglob("*") if p.is_file()):
            name = below.relative_to(path).as_posix().encode(errors="surrogateescape")  # whatever bytes it has
            digest.update(b"%s\0%s\n" % (name, sha256(below).encode()))
        return digest.hexdigest()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove(path: Path) -> None:
    """Delete a file, if it is there."""
    with suppress(FileNotFoundError):
        path.unlink()
