"""Sharing work out: over the ranks of a launcher, and over the processes of one machine.

Results never depend on how many there are: an item's result depends on the item alone, and the
order is the items' own.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TypeVar

from batcli.core.errors import BatError, InputError
from batcli.core.files import exclusive_lock
from batcli.core.signals import block_signals, leave_signals_to_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
CHUNKS_AHEAD = 4


def rank_and_world() -> tuple[int, int]:
    """(this process's number, how many there are) under torchrun or accelerate; (0, 1) otherwise."""
    try:
        rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        raise InputError("RANK and WORLD_SIZE are not whole numbers", "environment") from None
    if not 0 <= rank < world:
        raise InputError(f"RANK {rank} is not below WORLD_SIZE {world}", "environment")
    return rank, world


def share(items: Sequence[Item]) -> Sequence[Item]:
    """This rank's items: every world-th, so that all ranks get alike mixtures."""
    rank, world = rank_and_world()
    return items[rank::world]


def main_rank_lock(path: Path) -> AbstractContextManager[None]:
    """`exclusive_lock` in the first rank; the other ranks write under it without one of their own."""
    return exclusive_lock(path) if rank_and_world()[0] == 0 else nullcontext()


def wait_for(paths: Sequence[Path], timeout: float = 24 * 3600.0) -> None:
    """Until every path exists: how the first rank waits for what the others write.

    A rank that fails is the launcher's business: it stops all of them.
    """
    end = time.monotonic() + timeout
    for path in paths:
        while not path.exists():
            if time.monotonic() > end:
                raise InputError("another process did not write this file", path, "run again to go on")
            time.sleep(0.05)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Child processes started inside get one thread: N processes of N threads are slower than N of one."""
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


def start_worker() -> None:
    """What a worker process does first: from then on its parent alone ends it, whether by its word or by its end."""
    leave_signals_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot tell its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call_all(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]


def run_jobs(function: Callable[[Item], Result], items: Sequence[Item], jobs: int, chunk: int = 8) -> Iterator[Result]:
    """`map(function, items)` over `jobs` processes, in order, with bounded memory.

    `function` must be importable (top level of a module). With one job nothing is started.
    """
    if jobs <= 1 or len(items) <= 1:
        yield from map(function, items)
        return
    chunks = (list(items[start : start + chunk]) for start in range(0, len(items), chunk))
    context = multiprocessing.get_context("spawn")
    _start_tracker()
    pool = None
    try:
        with one_thread_each():
            with block_signals():  # here the processes are started, and the semaphores between them made
                pool = ProcessPoolExecutor(jobs, context, initializer=start_worker)
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


def _start_tracker() -> None:
    """Python's process that cleans up semaphores: when it starts, signals that were held are let through."""
    if os.name == "posix":
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()


def default_jobs() -> int:
    """The processors this process may use: its share of them where a launcher started several here."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    beside = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, count // max(1, int(beside))) if beside.isdecimal() else count
