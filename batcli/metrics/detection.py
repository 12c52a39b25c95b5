"""Which events sound: label F1 and mean average precision (A, C)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Parts = tuple[np.ndarray, np.ndarray]
"""Numerator and denominator of a metric per question, (n,) each: the metric is Σ / Σ."""


def label_f1(said: Sequence[frozenset[int]], truth: Sequence[frozenset[int]]) -> Parts:
    """Micro-averaged F1 over all labels of all questions: 2·TP / (2·TP + FP + FN) = 2·TP / (|said| + |truth|)."""
    both = np.array([2.0 * len(s & t) for s, t in zip(said, truth, strict=True)])
    sizes = np.array([float(len(s) + len(t)) for s, t in zip(said, truth, strict=True)])
    return both, sizes


@dataclass(frozen=True)
class Ranking:
    """One class: its questions from the highest score to the lowest, as far as average precision needs them."""

    clusters: np.ndarray  # (r,) cluster of each ranked question; those below all others are left out
    ends: np.ndarray  # (levels,) for each distinct score that a positive has: its last place in `clusters`
    positives: np.ndarray  # (p,) clusters of the positives, in the order of their levels
    starts: np.ndarray  # (levels,) where each level begins in `positives`
    last: int  # how many of the positives were ranked

    @classmethod
    def of(cls, scores: np.ndarray, truth: np.ndarray, clusters: np.ndarray, unranked: np.ndarray) -> Ranking:
        """scores (r,), truth (r,) bool, clusters (r,); `unranked`: clusters of positives without a score."""
        order = np.argsort(-scores, kind="stable")
        scores, truth, clusters = scores[order], truth[order], clusters[order]
        level_ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, int)
        level = np.searchsorted(level_ends, np.flatnonzero(truth))  # of each positive
        levels, starts = np.unique(level, return_index=True)
        positives = np.concatenate([clusters[truth], unranked])
        return cls(clusters, level_ends[levels], positives, starts, int(truth.sum()))


@dataclass(frozen=True)
class MeanAveragePrecision:
    """mAP over the classes that have a positive, as a function of the clusters' weights.

    Average precision is Σ (Rᵢ − Rᵢ₋₁)·Pᵢ over the distinct scores, as scikit-learn has it: questions
    with equal scores enter together. Questions without a score come last, together.
    """

    classes: Sequence[Ranking]
    clusters: np.ndarray  # (n,) of all questions
    names: Sequence[str] = ("map",)

    def values(self, weights: np.ndarray) -> np.ndarray:
        everything = np.bincount(self.clusters, minlength=len(weights)) @ weights  # (replicates,)
        total, count = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
        for ranking in self.classes:
            value = average_precision(ranking, weights, everything)
            has_positives = ~np.isnan(value)
            total += np.where(has_positives, value, 0.0)
            count += has_positives
        with np.errstate(invalid="ignore"):
            return (total / count)[np.newaxis]


def average_precision(ranking: Ranking, weights: np.ndarray, everything: np.ndarray) -> np.ndarray:
    """weights (clusters, replicates), everything (replicates,) = weight of all questions → (replicates,).

    NaN where no positive is drawn.
    """
    positives = weights[ranking.positives]
    all_positives = positives.sum(axis=0)
    unranked = positives[ranking.last :].sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        # The questions without a score make one last level: its precision is all positives / all questions.
        value = unranked * all_positives / everything
        if len(ranking.ends):
            hits = np.add.reduceat(positives[: ranking.last], ranking.starts, axis=0)  # per level
            ranked = weights[ranking.clusters[: ranking.ends[-1] + 1]]
            edges = np.concatenate([[0], ranking.ends[:-1] + 1])
            seen = np.add.reduceat(ranked, edges, axis=0).cumsum(axis=0)  # down to the end of each level
            precision = np.divide(hits.cumsum(axis=0), seen, out=np.zeros_like(seen), where=seen > 0)
            value = value + (hits * precision).sum(axis=0)
        return value / all_positives


def rankings(
    columns: Iterable[tuple[np.ndarray, np.ndarray]],
    texts: np.ndarray,
    truth: Sequence[frozenset[int]],
    clusters: np.ndarray,
) -> list[Ranking]:
    """One `Ranking` per class that has a positive.

    columns: per class (texts with a score, their scores); texts (n,): each question's predicted
    text, −1 for none; truth: each question's classes; clusters (n,).
    """
    order = np.argsort(texts, kind="stable")  # questions grouped by text
    firsts = np.searchsorted(texts[order], np.arange(texts.max(initial=-1) + 2))
    having: dict[int, list[int]] = {}
    for question, classes in enumerate(truth):
        for number in classes:
            having.setdefault(number, []).append(question)
    found = []
    positive = np.zeros(len(texts), dtype=bool)
    for number, (scored, scores) in enumerate(columns):
        if number not in having:
            continue
        sizes = firsts[scored + 1] - firsts[scored]
        # Questions of all scored texts: the ranges [first, first + size) laid end to end.
        shifts = np.repeat(firsts[scored] - sizes.cumsum() + sizes, sizes)
        questions = order[np.arange(sizes.sum()) + shifts]
        having_it = np.array(having[number])
        positive[having_it] = True
        truth_here = positive[questions]
        unranked = np.setdiff1d(having_it, questions[truth_here])
        found.append(Ranking.of(np.repeat(scores, sizes), truth_here, clusters[questions], clusters[unranked]))
        positive[having_it] = False
    return found
