"""Finishing the step in hand when a signal asks to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from batcli.core.errors import ExitCode, Stopped

CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class StopRequest:
    """Whether a signal came; `check` raises `Stopped` if so."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None

    def __bool__(self) -> bool:
        return self.code is not None

    def check(self) -> None:
        if self.code is not None:
            raise Stopped(self.code)


@contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Inside, the first Ctrl-C or SIGTERM is noted, not obeyed; a second one is obeyed at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in CODES}

    def note(number: int, frame: object) -> None:
        request.code = CODES[signal.Signals(number)]
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def block_signals() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM wait, and a process that is started hears neither until `leave_signals_to_parent`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, CODES)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_parent() -> None:
    """For a worker process, started where signals are `block_signals`: what they mean is its parent's to decide.

    Terminals, `timeout` and batch systems send them to all processes of a command at once. A worker that
    ended there and then would take the step in hand from a parent that finishes it. SIGTERM from the parent
    itself still ends the worker. Where systems do not tell who sent a signal (macOS), SIGTERM ends it always.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_await_parents_word, daemon=True).start()
    elif hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _await_parents_word() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
