"""How work below the command line speaks to a person: through a `Reporter` that it is handed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Reporter(Protocol):
    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` on, showing how far they are and when they will be done."""

    def status(self, text: str) -> None:
        """A short state beside the running bar, such as the loss; overwritten by the next."""

    def info(self, message: str) -> None:
        """What a user wants to know in passing."""

    def warn(self, message: str) -> None:
        """What a user should act upon."""

    def detail(self, message: str) -> None:
        """What a user asked for with `-v`."""


class Silent:
    """Says nothing: for use as a library, for tests and for all ranks but the first."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def status(self, text: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def detail(self, message: str) -> None: ...


SILENT: Reporter = Silent()
