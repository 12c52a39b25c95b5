"""Share work out over the ranks of a launcher, and over processes of one machine.

Results do not depend on how many there are: an item's result depends on the item alone, and results come in
the order of the items.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from multiprocessing import resource_tracker, util
from pathlib import Path
from typing import TypeVar

from batcli.core.errors import BatError, InputError
from batcli.core.files import exclusive_lock
from batcli.core.signals import CODES

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PATIENCE = 24 * 3600.0  # seconds that processes wait for one another, such as for the slowest one's share of scenes
CHUNKS_AHEAD = 4  # chunks per process that are handed out before their results are taken
POLL_SECONDS = 0.2  # between a worker's looks for SIGTERM


def rank_and_world() -> tuple[int, int]:
    """(number of this process, number of processes) under torchrun or accelerate; (0, 1) otherwise."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        raise InputError("RANK and WORLD_SIZE are not whole numbers", "environment") from None
    if not 0 <= rank < world:
        raise InputError(f"RANK {rank} is not below WORLD_SIZE {world}", "environment")
    return rank, world


def local_rank() -> int:
    """Number of this process among those that a launcher started on this machine; 0 without one."""
    text = os.environ.get("LOCAL_RANK", "0")
    if not text.isdecimal():
        raise InputError(f"LOCAL_RANK {text!r:.40} is not a whole number", "environment")
    return int(text)


def share(items: Sequence[Item]) -> Sequence[Item]:
    """The items for this process of a launcher's `world` processes: every `world`-th, from its rank on."""
    rank, world = rank_and_world()
    return items[rank::world]


def main_rank_lock(path: Path) -> AbstractContextManager[None]:
    """`exclusive_lock` in the first rank, on behalf of all; nothing in the others."""
    return exclusive_lock(path) if rank_and_world()[0] == 0 else nullcontext()


def wait_for(paths: Sequence[Path], timeout: float = PATIENCE) -> None:
    """Wait until every path exists: the first rank waits so for the files of the others.

    Raises InputError after `timeout` seconds. When a rank fails, the launcher stops all.
    """
    end = time.monotonic() + timeout
    for path in paths:
        while not path.exists():
            if time.monotonic() > end:
                raise InputError("another process did not write this file", path, "run again to go on")
            time.sleep(0.05)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Limit processes that are started inside to one thread each.

    N processes of N threads on N cores are slower than N processes of one thread.
    """
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def block_signals() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait. A process that is started inside receives neither, then or later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # Python's own process; starting it unblocks signals, so it comes first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker() -> None:
    """Make this process, started inside `block_signals`, end with its parent, or by SIGTERM from its parent alone.

    Terminals, `timeout` and batch systems send signals to all processes of a command. A worker that obeyed
    would take the step in hand from a parent that finishes it.
    """
    threading.Thread(target=_watch_parent, daemon=True).start()
    if hasattr(signal, "pthread_sigmask") and not hasattr(signal, "sigtimedwait"):  # macOS does not tell who sent it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def kill_workers_at_exit() -> None:
    """Let this process, at its end, kill the daemon processes that it started, and not only ask them to end.

    `multiprocessing` sends them SIGTERM and waits. A worker with another's SIGTERM pending, as `timeout` sends it to
    all, would never see this one: signals do not queue.
    """
    if os.getpid() not in _KILLERS:
        _KILLERS.add(os.getpid())
        util.Finalize(None, _kill_workers, exitpriority=100)


_KILLERS: set[int] = set()  # processes in which `kill_workers_at_exit` was called; a fork inherits no finalizers


def _kill_workers() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def _watch_parent() -> None:
    """End this process as soon as its parent ends or sends it SIGTERM."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        parent.join(POLL_SECONDS)  # returns at once when it ends
        if hasattr(signal, "sigtimedwait"):
            sent = signal.sigtimedwait({signal.SIGTERM}, 0)
            if sent is not None and sent.si_pid == parent.pid:
                break
    os._exit(0)


def _call_all(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def run_jobs(function: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int = 8) -> Iterator[Result]:
    """Like `map(function, items)`, over `jobs` processes, `chunk` items at a time, with bounded memory.

    `function` must be importable (top level of a module). With one job no process is started.
    """
    if jobs <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    chunks = (list(items[start : start + chunk]) for start in range(0, len(items), chunk))
    pool = None
    try:
        with one_thread_each(), block_signals():  # the processes are started here
            pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=start_worker)
            pending = [pool.submit(_call_all, function, c) for c in islice(chunks, CHUNKS_AHEAD * jobs)]
        while pending:
            yield from pending.pop(0).result()
            pending += [pool.submit(_call_all, function, c) for c in islice(chunks, 1)]
        pool.shutdown()
    except BrokenProcessPool:
        raise BatError("a worker process died, perhaps for want of memory; try fewer --jobs") from None
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def default_jobs() -> int:
    """The number of processors for this process: its share where a launcher started several here."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, count // max(1, int(beside))) if beside.isdecimal() else count
