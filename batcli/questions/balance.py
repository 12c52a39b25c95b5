"""The balance of a set of questions: counts of answers, and how well a wording alone predicts them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from batcli.data.question_types import QUESTION_TYPES


@dataclass(frozen=True)
class PartBalance:
    """How often each value of one part of a question type's answers occurs."""

    question_type: str
    part: str  # labels, octant, distance, answer (one word), or named (whether the right event is named first)
    n: int  # questions
    values: dict[str, int]  # most frequent first
    ceiling: float
    """Best accuracy of one fixed value per wording (its names left out), 0…1, and so of answers without the
    audio. It is measured on the questions themselves, so with few questions a wording it lies above
    chance: compare with the value that is most frequent over all wordings."""

    @property
    def most_frequent(self) -> float:
        """Share of the most frequent value, 0…1."""
        return next(iter(self.values.values())) / self.n


@dataclass(frozen=True)
class BalanceReport:
    """Numbers of questions and scenes of a split, and how evenly each part of their answers is distributed."""

    counts: dict[str, int]  # question type → number of questions
    scenes: dict[int, int]  # number of sources in a scene → number of distinct scenes
    parts: tuple[PartBalance, ...]

    def lines(self) -> list[str]:
        """A table of at most 80 columns."""
        total, scenes = sum(self.counts.values()), sum(self.scenes.values())
        rows = [
            f"{total:,} questions, {scenes:,} scenes: "
            f"{self.scenes.get(1, 0):,} of one source, {self.scenes.get(2, 0):,} of two",
            f"{'type':<27}{'n':>9} {'about':<8} {'kinds':>6} {'most frequent':<13}{'share':>6} {'ceil.':>6}",
        ]
        for found in self.parts:
            top = next(iter(found.values))
            top = top if len(top) <= 13 else top[:12] + "…"
            rows.append(
                f"{found.question_type:<27}{found.n:>9,} {found.part:<8} {len(found.values):>6,} {top:<13}"
                f"{100 * found.most_frequent:>5.1f}% {100 * found.ceiling:>5.1f}%"
            )
        return [
            *rows,
            "ceil.: what one fixed answer per wording scores at best, without listening;",
            "where a wording has few questions, chance alone lifts it above the share",
        ]


class BalanceCounter:
    """Counts questions as they are generated. Its size depends on how many different answers there are."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.scenes: Counter[int] = Counter()
        self.values: dict[tuple[str, str], dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))

    def add(self, question_type: str, wording: str, parts: Mapping[str, str]) -> None:
        """Count a question. `parts`: of its answer, such as `{"octant": "right, front, above", "distance": "2m"}`.

        `wording`: the template of the question, in which names and places of sources are still in braces.
        """
        self.counts[question_type] += 1
        for part, value in parts.items():
            self.values[question_type, part][wording][value] += 1

    def report(self) -> BalanceReport:
        parts = []
        order = list(QUESTION_TYPES)
        for type_name, part in sorted(self.values, key=lambda key: order.index(key[0])):
            values: Counter[str] = Counter()
            best = 0
            for of_wording in self.values[type_name, part].values():
                values.update(of_wording)
                best += max(of_wording.values())
            n = sum(values.values())
            parts.append(PartBalance(type_name, part, n, dict(values.most_common()), best / n))
        counts = {name: self.counts[name] for name in QUESTION_TYPES if self.counts[name]}
        return BalanceReport(counts, dict(sorted(self.scenes.items())), tuple(parts))
