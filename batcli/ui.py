"""Progress bars and messages on stderr."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from batcli.core.errors import printable

T = TypeVar("T")


def open_streams() -> None:
    """Make the standard streams usable, whatever the caller and the locale did.

    Closed ones lead to the null device. Output is UTF-8, as input is. What cannot be written to standard error,
    because nothing reads it any more, is dropped: work goes on without its messages.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # else the next file that is opened would get the number, and messages
            os.open(os.devnull, os.O_RDWR)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")
    if type(sys.stderr) is io.TextIOWrapper and sys.stderr is sys.__stderr__:
        sys.stderr = _Messages(sys.stderr.buffer, sys.stderr.encoding, "backslashreplace", line_buffering=True)


class _Messages(io.TextIOWrapper):
    """Standard error that loses what it cannot write, and raises nothing."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            super().flush()


class Terminal:
    """The `Reporter` of the command line. verbosity −1: only warnings, 0: normal, 1: details too.

    rich is imported with the first bar: it takes 0.1 s.
    """

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self._progress: object | None = None
        self._task: object | None = None

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        if self.verbosity < 0 or not sys.stderr.isatty():
            yield from self._track_without_bar(items, description, total)
            return
        from rich import progress as rich
        from rich.console import Console

        bar = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeElapsedColumn(),
            rich.TextColumn("ETA"),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[status]}"),
            console=Console(stderr=True),
        )
        with bar as progress:
            task = progress.add_task(description, total=total, status="")
            self._progress, self._task = progress, task
            try:
                for item in items:
                    yield item
                    progress.advance(task)
            finally:
                self._progress = self._task = None

    def _track_without_bar(self, items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        """Without a terminal: one line at the end."""
        start, count = time.monotonic(), 0
        for item in items:
            yield item
            count += 1
        self.info(f"{description}: {count:,} in {time.monotonic() - start:.1f} s")

    def status(self, text: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, status=text)  # type: ignore[attr-defined]

    def info(self, message: str) -> None:
        if self.verbosity >= 0:
            self._print(message)

    def warn(self, message: str) -> None:
        self._print(f"warning: {message}")

    def detail(self, message: str) -> None:
        if self.verbosity >= 1:
            self._print(message)

    def _print(self, message: str) -> None:
        message = "\n".join(map(printable, message.split("\n")))
        if self._progress is not None:
            self._progress.console.print(message, markup=False, highlight=False, soft_wrap=True)  # type: ignore[attr-defined]
        else:
            print(message, file=sys.stderr, flush=True)
