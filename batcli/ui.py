"""Progress bars and messages on stderr."""

from __future__ import annotations

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from batcli.core.errors import printable
from batcli.core.progress import Estimate, Part

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


@contextmanager
def foreign_messages(shown: bool) -> Iterator[None]:
    """Inside, warnings and log messages of other packages are shown or not; errors always are.

    They are about their code, not about the user's input: what a user should know, we say ourselves.
    """
    if shown:
        yield
        return
    before = logging.root.manager.disable
    variables = {name: os.environ.get(name) for name in QUIET}
    os.environ.update({name: value for name, value in QUIET.items() if variables[name] is None})
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        for name in (name for name, value in variables.items() if value is None):
            os.environ.pop(name, None)


QUIET = {"PYTHONWARNINGS": "ignore", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
"""Variables of the same effect on processes that are started meanwhile; those that the user set are left alone."""


class _Messages(io.TextIOWrapper):
    """Standard error that loses what it cannot write, and raises nothing."""

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            super().flush()


EVERY = 60.0  # seconds between lines about progress where there is no terminal
SHOWN = 0.1  # seconds that a step without a bar's new figures may be


class Terminal:
    """The `Reporter` of the command line: a context manager. verbosity −1: only warnings, 0: normal, 1: details too.

    In a terminal, one bar is over all that is planned; without one, a line tells of each part at its end, and of long
    ones each minute. rich is imported with the first bar: it takes 0.1 s.
    """

    def __init__(self, verbosity: int = 0) -> None:
        self.verbosity = verbosity
        self.began = time.monotonic()
        self._bar: Any = None  # rich.Progress
        self._planned = False
        self._tracking = False
        self._waiting = False  # whether the last line on the screen is one that the next takes the place of
        self._work = Estimate()
        self._note = ""

    def __enter__(self) -> Terminal:
        self.status("starting …")
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Take bar and status off the screen."""
        self._clear()
        if self._bar is not None:
            self._bar.stop()
            self._bar, self._planned = None, False

    @property
    def _live(self) -> bool:
        return self.verbosity >= 0 and sys.stderr.isatty()

    # ---- progress

    def plan(self, parts: Sequence[Part]) -> None:
        self._work.expect(parts)
        if self._live and parts:
            self._planned = True
            self._open()

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        if total is None and hasattr(items, "__len__"):
            total = len(items)  # type: ignore[arg-type]
        if self.verbosity < 0:
            yield from items
        elif total == 0:
            if self._planned and description in self._work.parts:
                self._work.begin(description, 0)
            yield from items
        elif self._tracking or (self._planned and description not in self._work.parts):
            yield from self._beside_the_bar(items, description, total)
        else:
            yield from self._measured(items, description, total)

    def _beside_the_bar(self, items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        """Work within or between other work, whose bar stays: a few words."""
        of_all = "" if total is None else f"/{total:,}"
        for number, item in enumerate(items):
            self.status(f"{description} {number:,}{of_all}")
            yield item
        self.status("")

    def _measured(self, items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
        """Work with the bar, or, without a terminal, with lines."""
        if not self._planned and description not in self._work.parts:
            self._work = Estimate()
        self._work.begin(description, total or 0)
        if self._live:
            self._open()
        start = said = shown = time.monotonic()
        count, self._tracking = 0, True
        try:
            for item in items:
                yield item
                count += 1
                self._work.step()
                now = time.monotonic()
                if self._bar is not None and (now - shown > SHOWN or count == total):
                    shown = now
                    self._show()
                elif self._bar is None and now - said > EVERY:
                    said = now
                    self.info(", ".join(filter(None, (_figures(self._work, total), _left(self._work, total)))))
        finally:
            self._note, self._tracking = "", False
            if self._bar is not None:
                self._show()
                self._bar.refresh()
                if not self._planned:
                    self.close()
        self.info(f"{description}: {count:,} in {duration(time.monotonic() - start)}")

    def _open(self) -> None:
        if self._bar is None:
            self._clear()
            self._note = ""
            from rich import progress as rich
            from rich.console import Console
            from rich.table import Column

            columns = (
                rich.TextColumn("{task.fields[figures]}"),
                rich.BarColumn(20),
                rich.TextColumn("{task.fields[left]}"),
                rich.TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            )
            self._bar = rich.Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task("", total=1.0, figures="", left="", note="")
            self._bar.start()
        self._show()

    def _show(self) -> None:
        total = self._work.current.count if self._work.current else None
        self._bar.update(
            0,
            total=1.0 if total or not self._work.current else None,
            completed=self._work.share,
            figures=_figures(self._work, total),
            left=_left(self._work, total),
            note=self._note,
        )

    def status(self, text: str) -> None:
        self._note = text
        if self._bar is not None:
            self._show()
        elif self._live:
            self._clear()
            if text:
                print(text, end="", file=sys.stderr, flush=True)
                self._waiting = True

    def _clear(self) -> None:
        if self._waiting:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._waiting = False

    # ---- messages

    def done(self, made: str, then: str = "") -> None:
        """The last line: what was made, how long it took since the command began, and what comes next."""
        took = duration(time.monotonic() - self.began)
        self.close()
        self.info(f"done in {took}: {made}" + (f"; next: {then}" if then else ""))

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
        self._clear()
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=sys.stderr, flush=True)


def _figures(work: Estimate, total: int | None) -> str:
    """`stage 2: 120/400 updates`."""
    if work.current is None:
        return ""
    part = work.current
    of_all = f"/{part.count:,}" if total else ""
    return f"{part.name}: {part.done:,}{of_all} {part.unit}".rstrip()


def _left(work: Estimate, total: int | None) -> str:
    """`34 %, 2 min 10 s left`, of all parts."""
    if not total:
        return ""
    rest = "" if not work.left else f", {duration(work.left, whole=True)} left"
    return f"{100 * work.share:.0f} %{rest}"


def duration(seconds: float, whole: bool = False) -> str:
    """`0.8 s`, `3 min 20 s`, `2 h 5 min`. whole: no tenths."""
    if seconds < 59.95:
        return f"{seconds:.0f} s" if whole or seconds >= 9.95 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
