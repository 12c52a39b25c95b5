"""Messages and progress of the work below the command line, through a `Reporter` that it is given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    """Shows progress and messages to a user."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Yield `items`, showing progress."""

    def status(self, text: str) -> None:
        """Show a short text beside the running bar, such as the loss, until the next."""

    def info(self, message: str) -> None:
        """Show a message."""

    def warn(self, message: str) -> None:
        """Show a warning."""

    def detail(self, message: str) -> None:
        """Show a message that is wanted with `-v` only."""


class Silent:
    """The reporter that shows nothing: for use as a library, in tests and in all ranks but the first."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def status(self, text: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def detail(self, message: str) -> None: ...


SILENT: Reporter = Silent()
