"""Running a command in a process that is killed, and what it leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import util
from pathlib import Path
from subprocess import DEVNULL, run
from typing import NamedTuple

from crash.commands import Command

from batcli.core.errors import Stopped

SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
ANSWERS = {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130, -2)}
TIMES = ("created", "weight_per_second", "command")
LONGEST = 300  # seconds for one command


class Ended(NamedTuple):
    code: int  # negative: the signal that ended it
    errors: str
    seconds: float


@dataclass
class Tried:
    """What became of one command's runs."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0  # of the undisturbed run


def start(words: list[str], folder: Path, pipe: tuple[int, int] | None = None) -> int:
    """The command in a child of this process, which has loaded what it needs; returns the child's number.

    It writes into `pipe`, or where its errors go.
    """
    # A file of its own: of a run that was killed, Python's resource tracker may still have something to say.
    (folder / "stderr").unlink(missing_ok=True)
    (folder / "stderr").touch()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        errors = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(errors, 2)
        os.dup2(pipe[1] if pipe else errors, 1)
        for end in pipe or ():  # as long as it could read what it writes, no pipe of its own would be closed
            os.close(end)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _main(words)
    except (KeyboardInterrupt, Stopped) as error:  # before `main` began, or after it had ended: none of its business
        code = 130 if isinstance(error, KeyboardInterrupt) else 143
        os.write(2, b"bat: outside\n")
    finally:
        os._exit(code)


def _main(words: list[str]) -> int:
    import sys

    from batcli.cli import main

    sys.argv = ["bat", *words]
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") for number in (1, 2))
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    threading._shutdown()  # type: ignore[attr-defined]  # this and the next as at the end of any process
    util._exit_function()  # type: ignore[attr-defined]
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    return code


def finish(
    child: int, folder: Path, began: float, moment: float | None = None, number: int = 0, to_all: bool = False
) -> Ended:
    """Wait for a child, after `number` was sent to it at `moment`, in seconds from `began`.

    `to_all`: its workers get it too, as from a terminal, `timeout` or a batch system.
    """
    sent = moment is None
    while time.monotonic() - began < LONGEST:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            return Ended(code, (folder / "stderr").read_text(errors="replace"), time.monotonic() - began)
        if not sent and time.monotonic() - began >= (moment or 0):
            _send(child, number, to_all)
            sent = True
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return Ended(-99, "took too long", LONGEST)


def _send(child: int, number: int, to_all: bool) -> None:
    try:
        (os.killpg if to_all else os.kill)(child, number)
    except ProcessLookupError:  # it is no leader of a group yet
        os.kill(child, number)


def complete(words: list[str], folder: Path) -> Ended:
    return finish(start(words, folder), folder, time.monotonic())


# ---- what is there -------------------------------------------------------------------------------


def contents(out: Path) -> dict[str, bytes]:
    """Every file below `out` but the states of a training, which hold times; these are taken out of JSON."""
    return {
        path.relative_to(out).as_posix(): _timeless(path)
        for path in sorted(out.rglob("*"))
        if path.is_file() and not path.is_symlink() and path != out / "stderr" and "/state/" not in str(path)
    }


def _timeless(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "config.toml":
        return b"".join(line for line in content.splitlines(True) if not line.startswith((b"output =", b"path =")))
    if path.suffix not in (".json", ".jsonl") or not any(name.encode() in content for name in TIMES):
        return content
    try:
        records = (
            [json.loads(content)] if path.suffix == ".json" else [json.loads(line) for line in content.splitlines()]
        )
    except ValueError:
        return content
    return json.dumps(
        [{k: v for k, v in r.items() if k not in TIMES} if isinstance(r, dict) else r for r in records]
    ).encode()


def half_files(command: Command, out: Path, calm: dict[str, bytes]) -> list[str]:
    """What stands under a final name and is not what an undisturbed run leaves there."""
    found = contents(out)
    wrong = []
    for name, content in found.items():
        if "/.tmp-" in f"/{name}" or name.startswith(command.growing):
            continue
        if name not in calm or content != calm[name]:
            wrong.append(name)
    if command.done in found and any(found.get(name) != content for name, content in calm.items()):
        wrong.append(f"{command.done}, but the rest is not there")
    return wrong


def lost_processes(seconds: float = 10.0) -> list[int]:
    """Children of dead commands that live on: they were handed to us, or they are in no session of a living one."""
    end = time.monotonic() + seconds
    while left := [pid for pid in _sessions() if not _lives(_session_of(pid), pid)]:
        if time.monotonic() > end:
            return left
        time.sleep(0.05)
    return []


STARTED: set[int] = set()


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _sessions() -> list[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    return [pid for pid in pids if _session_of(pid) in STARTED]


def _lives(leader: int, pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z" or leader == 0 or Path(f"/proc/{leader}").exists()


# ---- the trials ----------------------------------------------------------------------------------


def one_line(ended: Ended) -> bool:
    """The last line is the message; no traceback anywhere."""
    return "Traceback" not in ended.errors and ended.errors.rstrip().rpartition("\n")[2].startswith("bat: ")


def kills(command: Command, inputs: Path, folder: Path, count: int, seed: int = 0) -> Tried:
    """Kill the command `count` times, up to four times on the same work, and let it end in between."""
    rng = random.Random(f"{seed} {command.name}")
    tried = Tried(command.name)
    calm_folder = folder / "calm"
    calm_folder.mkdir()
    complete(command.words(inputs, folder / "warm"), _made(folder / "warm"))  # the disk's cache is then as for all
    ended = complete(command.words(inputs, calm_folder), calm_folder)
    tried.seconds = ended.seconds
    if ended.code != 0:
        tried.wrong.append(f"undisturbed: exit {ended.code}: {ended.errors[-300:]}")
        return tried
    calm = contents(calm_folder)
    done = number = 0
    while done < count and not tried.wrong and number < 10 * count:
        number += 1
        out = _made(folder / f"out-{number}")
        for _ in range(rng.choice((1, 1, 2, 4))):
            name, to_all = rng.choice(list(SIGNALS)), rng.random() < 0.5
            began = time.monotonic()
            child = start(command.words(inputs, out), out)
            STARTED.add(child)
            ended = finish(child, out, began, rng.uniform(0.0, 1.02 * tried.seconds), SIGNALS[name], to_all)
            if ended.code == 0:
                tried.counts["was done before"] += 1
                break
            done += 1
            tried.counts[f"{name} to all" if to_all else name] += 1
            if ended.code not in ANSWERS[SIGNALS[name]]:
                tried.wrong.append(f"{name}{' to all' * to_all}: exit {ended.code}: {ended.errors[-300:]}")
            if ended.code > 0 and ended.errors and not one_line(ended):  # nothing: it had not begun
                tried.wrong.append(f"{name}{' to all' * to_all}: says {ended.errors[-300:]!r}")
            if wrong := half_files(command, out, calm):
                tried.wrong.append(f"{name} leaves {', '.join(wrong[:3])}")
        _require_same(command, inputs, out, calm, tried)
    if left := lost_processes():
        tried.wrong.append(f"processes live on: {left}")
    return tried


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _require_same(command: Command, inputs: Path, out: Path, calm: dict[str, bytes], tried: Tried) -> None:
    """Run to the end; what is there then is what an undisturbed run leaves, and nothing beside it."""
    ended = complete(command.words(inputs, out), out)
    if ended.code == 2 and one_line(ended) and (out / str(command.done)).exists():
        tried.counts["said that it is finished"] += 1
    elif ended.code != 0:
        tried.wrong.append(f"again: exit {ended.code}: {ended.errors[-300:]}")
        return
    found = contents(out)
    if found != calm:
        names = sorted(name for name in found.keys() | calm.keys() if found.get(name) != calm.get(name))
        tried.wrong.append(f"again: differs in {', '.join(names[:5])}")
    else:
        tried.counts["same bytes"] += 1


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A file system of so many kilobytes at `folder`. Raises PermissionError where it cannot be mounted."""
    _made(folder)
    mounted = run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], stderr=DEVNULL)
    if mounted.returncode:
        raise PermissionError("no right to mount")
    try:
        yield
    finally:
        run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def disks(command: Command, inputs: Path, folder: Path, count: int, seed: int = 0) -> Tried:
    """A disk that fills up at `count` different sizes, and one that is read-only; then enough room."""
    rng = random.Random(f"{seed} {command.name} disk")
    tried = Tried(f"{command.name}, full disk")
    calm_folder = _made(folder / "calm")
    ended = complete(command.words(inputs, calm_folder), calm_folder)
    calm = contents(calm_folder)
    size = sum(map(len, calm.values())) // 1024 + 8
    for number in range(count + 1):
        disk, out = folder / f"disk-{number}", folder / f"disk-{number}/out"
        with small_disk(disk, max(4, int(size * rng.uniform(0.0, 0.95)))):
            out.mkdir()
            if number == count:
                remount(disk, "ro")
            logs = _made(folder / f"logs-{number}")
            ended = complete(command.words(inputs, out), logs)
            kind = "read-only" if number == count else "full"
            tried.counts[kind if ended.code else f"{kind}, enough"] += 1
            if ended.code and (ended.code != 2 or not one_line(ended)):
                tried.wrong.append(f"{kind}: exit {ended.code}: {ended.errors[-300:]}")
            if wrong := half_files(command, out, calm):
                tried.wrong.append(f"{kind} leaves {', '.join(wrong[:3])}")
            remount(disk, f"rw,size={4 * size + 4096}k")
            _require_same(command, inputs, out, calm, tried)
    return tried


def closed_pipes(inputs: Path, folder: Path, with_models: bool = True) -> Tried:
    """`… | head -1`, with a reader that ends after its first line and one that reads nothing."""
    tried = Tried("closed pipe")
    streams = {
        "score": ["score", f"{inputs}/preds.jsonl", "--format=csv", "--replicates=0"],
        "score --unparsed -": ["score", f"{inputs}/preds.jsonl", "--replicates=0", "--unparsed=-", "-o", f"{folder}/s"],
        "--print-config": ["train", "x", "--print-config"],
        "--help": ["train", "--help"],
    }
    if with_models:
        streams["decode"] = ["decode", f"{inputs}/run", f"{inputs}/data", "-o", "-", "--workers=1", "--split=train"]
    for name, words in streams.items():
        for reads in (True, False):
            ends = os.pipe()
            began = time.monotonic()
            child = start(words, folder, ends)
            os.close(ends[1])
            if reads:
                os.read(ends[0], 10)
            os.close(ends[0])
            ended = finish(child, folder, began)
            tried.counts[name] += 1
            if ended.code != 0 or "Traceback" in ended.errors or "BrokenPipe" in ended.errors:
                tried.wrong.append(f"{name}: exit {ended.code}: {ended.errors[-300:]}")
    return tried
