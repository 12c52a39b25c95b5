"""What was asked and answered: how even it is, and what a question's wording alone gives away."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from batcli.data.schema import QUESTION_TYPES


@dataclass(frozen=True)
class Aspect:
    """One side of the answers of one type: their labels, octant, distance, answer, or which name it is."""

    question_type: str
    about: str
    n: int
    answers: dict[str, int]  # most frequent first
    ceiling: float
    """Best accuracy of one fixed answer per wording (its names left out), 0…1: what can be had without
    listening. It is measured on the questions themselves, so with few questions a wording it lies
    above what chance gives: compare with the answer that is most frequent over all wordings."""

    @property
    def most_frequent(self) -> float:
        """Share of the most frequent answer, 0…1."""
        return next(iter(self.answers.values())) / self.n


@dataclass(frozen=True)
class Report:
    counts: dict[str, int]  # questions by type
    scenes: dict[int, int]  # distinct scenes by number of sources
    aspects: tuple[Aspect, ...]

    def lines(self) -> list[str]:
        """A table of at most 80 columns."""
        total, scenes = sum(self.counts.values()), sum(self.scenes.values())
        rows = [
            f"{total:,} questions, {scenes:,} scenes: "
            f"{self.scenes.get(1, 0):,} of one source, {self.scenes.get(2, 0):,} of two",
            f"{'type':<27}{'n':>9} {'about':<8} {'kinds':>6} {'most frequent':<13}{'share':>6} {'ceil.':>6}",
        ]
        for a in self.aspects:
            top = next(iter(a.answers))
            top = top if len(top) <= 13 else top[:12] + "…"
            rows.append(
                f"{a.question_type:<27}{a.n:>9,} {a.about:<8} {len(a.answers):>6,} {top:<13}"
                f"{100 * a.most_frequent:>5.1f}% {100 * a.ceiling:>5.1f}%"
            )
        return [
            *rows,
            "ceil.: what one fixed answer per wording scores at best, without listening;",
            "where a wording has few questions, chance alone lifts it above the share",
        ]


class Tally:
    """Counts questions as they are made. Its size depends on how many different answers there are."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.scenes: Counter[int] = Counter()
        self.answers: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def add(self, question_type: str, wording: str, aspects: Mapping[str, str]) -> None:
        """`aspects`: what the answer says, by aspect, such as `{"octant": …, "distance": …}`."""
        self.counts[question_type] += 1
        for about, answer in aspects.items():
            self.answers[question_type, about][wording][answer] += 1

    def report(self) -> Report:
        aspects = []
        for kind, about in sorted(self.answers, key=lambda key: QUESTION_TYPES.index(key[0])):
            answers: Counter[str] = Counter()
            best = 0
            for of_wording in self.answers[kind, about].values():
                answers.update(of_wording)
                best += max(of_wording.values())
            n = sum(answers.values())
            aspects.append(Aspect(kind, about, n, dict(answers.most_common()), best / n))
        counts = {kind: self.counts[kind] for kind in QUESTION_TYPES if self.counts[kind]}
        return Report(counts, dict(sorted(self.scenes.items())), tuple(aspects))
