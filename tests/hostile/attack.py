"""Spoilt files by the thousand, and what the readers made of them."""

from __future__ import annotations

import logging
import os
import random
import resource
import signal
import sys
import sysconfig
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostile.readers import READERS, Reader

SECONDS = 20  # for one input
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pty.spawn", "os.fork")
"""What no file may bring about."""


@dataclass
class Outcome:
    """What became of the inputs of one reader."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)  # read, refused, wrong
    wrong: dict[str, str] = field(default_factory=dict)  # fault → which input, and how it came about
    seconds: float = 0.0
    megabytes: float = 0.0  # peak memory of the process


class TookTooLong(BaseException):
    pass


class Watch:
    """Notes what the interpreter opens and starts while a file is read: an audit hook, which cannot be removed."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        self.reads_anywhere = False
        known = {sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"], str(Path(__file__).resolve().parents[2])}
        self.known = (*tuple(known), "/dev/", "/proc/", "/sys/", "/usr/", "/lib", "/etc/ld.so", "/etc/localtime")
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event} {arguments!r:.100}")
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.abspath(os.fsdecode(arguments[0]))
            writes = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not path.startswith(self.folder) and (
                writes or not (self.reads_anywhere or path.startswith(self.known))
            ):
                self.seen.append(f"open {path!r:.100}")


_watch: Watch | None = None


def attack(reader: Reader, count: int, seed: int = 0) -> Outcome:
    """`count` spoilt inputs for one reader: it returns, or raises InputError of one short line, and nothing else."""
    global _watch
    if _watch is None:
        _watch = Watch()
    logging.disable(logging.CRITICAL)
    outcome = Outcome(reader.name)
    before = signal.signal(signal.SIGALRM, _too_long)
    start = time.monotonic()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk would take most of the time
    with tempfile.TemporaryDirectory(prefix="bat-attack-", dir=memory) as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name).resolve()
        before_folder, tempfile.tempdir = tempfile.tempdir, name
        reader.make(folder)
        reader.read(folder)  # what is good is read
        good = {file: (folder / file).read_bytes() for file in reader.files}
        names = list(good)
        for number in range(count):
            rng = random.Random(f"{seed} {reader.name} {number}")
            file = names[number % len(names)]
            bad = reader.files[file](good[file], rng, good[rng.choice(names)])
            (folder / file).write_bytes(bad)
            fault = _fault(reader, folder, outcome, _watch)
            if fault:
                outcome.counts["wrong"] += 1
                outcome.wrong.setdefault(fault, f"input {number} ({file})")
            (folder / file).write_bytes(good[file])
        tempfile.tempdir = before_folder
    signal.signal(signal.SIGALRM, before)
    logging.disable(logging.NOTSET)
    outcome.seconds = time.monotonic() - start
    outcome.megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return outcome


def _too_long(number: int, frame: object) -> None:
    raise TookTooLong


def _fault(reader: Reader, folder: Path, outcome: Outcome, watch: Watch) -> str | None:
    from batcli.core.errors import InputError

    watch.folder, watch.seen, watch.reads_anywhere = str(folder), [], reader.names_places
    signal.alarm(SECONDS)
    try:
        reader.read(folder)
        outcome.counts["read"] += 1
    except InputError as error:
        outcome.counts["refused"] += 1
        line = str(error)
        if "\n" in line or len(line) > 3000:
            return f"a message of {len(line)} characters, {line.count(chr(10))} line breaks: {line!r:.100}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "batcli" in f.filename]
        where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return f"{type(error).__name__} at {where}: {error!s:.120}"
    finally:
        signal.alarm(0)
        watch.folder = None
    return watch.seen[0] if watch.seen else None


def attacks(count: int, only: list[str], seed: int = 0) -> Iterator[Outcome]:
    """About `count` inputs, shared out over the readers (those whose name holds a word of `only`)."""
    chosen = [r for r in READERS if not only or any(word in r.name for word in only)]
    total = sum(reader.share for reader in chosen)
    for reader in chosen:
        yield attack(reader, max(4 * len(reader.files), round(count * reader.share / total)), seed)
