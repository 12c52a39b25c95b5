"""Finish the step in hand when Ctrl-C or SIGTERM asks to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from batcli.core.errors import ExitCode, Stopped

CODES = {signal.SIGINT: ExitCode.INTERRUPTED, signal.SIGTERM: ExitCode.TERMINATED}


class StopRequest:
    """True once a signal has come."""

    def __init__(self) -> None:
        self.code: ExitCode | None = None

    def __bool__(self) -> bool:
        return self.code is not None

    def check(self) -> None:
        """Raises Stopped if a signal has come."""
        if self.code is not None:
            raise Stopped(self.code)


@contextmanager
def defer_signals(say: Callable[[], None] = lambda: None) -> Iterator[StopRequest]:
    """Inside, the first Ctrl-C or SIGTERM is noted in the StopRequest, not obeyed; a second one is obeyed at once.

    say: called at once when the first comes.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request  # Python delivers signals to the main thread alone
        return
    before = {number: signal.getsignal(number) for number in CODES}

    def note(number: int, frame: object) -> None:
        request.code = CODES[signal.Signals(number)]
        for each, handler in before.items():
            signal.signal(each, handler)
        with suppress(RuntimeError):  # it came in the middle of another message
            say()

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
