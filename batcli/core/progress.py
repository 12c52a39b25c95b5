"""Messages and progress of the work below the command line, through a `Reporter` that it is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

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


@dataclass(frozen=True)
class Part:
    """A part of long work, which `track` shows under its name."""

    name: str  # the description that `track` is given
    count: int  # of steps
    unit: str  # of a step, in the plural: updates, scenes
    done: int = 0  # steps that an earlier run did
    seconds: float = 1.0  # guess of what a step takes, in proportion to those of other parts
    alike: str = ""  # parts with the same word take the same time per step; by default, each takes its own


@runtime_checkable
class PlansAhead(Protocol):
    """A reporter that is told of all parts before the first, to show one bar over them."""

    def plan(self, parts: Sequence[Part]) -> None:
        """Expect these parts, from the first that is not done. A second call replaces the parts that have not begun."""


FEWEST = 8  # steps that an estimate of time is made from


class Estimate:
    """How much of work of several parts is done, and how long the rest will take.

    What a step takes is measured, on its part and those alike; of what has not begun it is guessed, in proportion.
    """

    def __init__(self, parts: Sequence[Part] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.parts = {part.name: part for part in parts}
        self.current: Part | None = None
        self._begun: set[str] = set()
        self._took: dict[str, tuple[int, float]] = {}  # kind of part → steps measured, seconds
        self._since = clock()

    def expect(self, parts: Sequence[Part]) -> None:
        """Replace the parts that have not begun."""
        self.parts = {part.name: self.parts[part.name] if part.name in self._begun else part for part in parts}

    def begin(self, name: str, count: int) -> None:
        """Begin the part `name`, of which `count` steps are left."""
        self._begun.add(name)
        known = self.parts.get(name, Part(name, count, ""))
        self.current = self.parts[name] = replace(known, count=known.done + count)
        self._since = self.clock()

    def step(self) -> None:
        """Count one step of the current part."""
        assert self.current is not None
        part, now = self.current, self.clock()
        self.current = self.parts[part.name] = replace(part, done=part.done + 1)
        steps, seconds = self._took.get(_kind(part), (0, 0.0))
        self._took[_kind(part)] = (steps + 1, seconds + now - self._since)
        self._since = now

    def seconds_of(self, part: Part) -> float:
        """What a step of this part takes."""
        if _kind(part) in self._took:
            steps, seconds = self._took[_kind(part)]
            return seconds / steps
        guesses = {_kind(one): one.seconds for one in self.parts.values()}
        measured = [(took[1], took[0] * guesses[kind]) for kind, took in self._took.items() if kind in guesses]
        guessed = sum(guess for _, guess in measured)
        return part.seconds * (sum(took for took, _ in measured) / guessed if guessed else 1.0)

    @property
    def left(self) -> float | None:
        """Seconds until all is done; None before some steps are measured, for the first may have been waited for."""
        if sum(steps for steps, _ in self._took.values()) < FEWEST:
            return None
        return sum((part.count - part.done) * self.seconds_of(part) for part in self.parts.values())

    @property
    def share(self) -> float:
        """Share of the work that is done, from 0 to 1."""
        whole = sum(part.count * self.seconds_of(part) for part in self.parts.values())
        return sum(part.done * self.seconds_of(part) for part in self.parts.values()) / whole if whole else 0.0


def _kind(part: Part) -> str:
    return part.alike or part.name


def track_batches(
    reporter: Reporter,
    batches: Iterable[T],
    description: str,
    total: int,
    size: Callable[[T], int] = len,  # type: ignore[assignment]
) -> Iterator[T]:
    """Yield batches, and show progress in what they hold: `size(batch)` of `total`."""

    def steps() -> Iterator[T | None]:
        for batch in batches:
            yield batch
            yield from [None] * (size(batch) - 1)

    for batch in reporter.track(steps(), description, total):
        if batch is not None:
            yield batch


class Silent:
    """The reporter that shows nothing: for use as a library, in tests and in all ranks but the first."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        yield from items

    def status(self, text: str) -> None: ...

    def info(self, message: str) -> None: ...

    def warn(self, message: str) -> None: ...

    def detail(self, message: str) -> None: ...


SILENT: Reporter = Silent()
