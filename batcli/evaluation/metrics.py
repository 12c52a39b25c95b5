"""Metrics of many answers or predictions together; those of one answer stand in `data/question_types`.

mAP of events, octant confusion, calibration of distances, and the published measures of the encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.sparse import csr_array

WRONG_DIRECTION = 20.0  # degrees: ER20 counts directions that are off by more
CLASSES_PER_METRE = 2
OCTANTS = tuple(map(", ".join, product(("left", "right"), ("front", "behind"), ("above", "below"))))

# ---- mean average precision ----------------------------------------------------------------------

Column = tuple[np.ndarray, np.ndarray]
"""Of one class: the texts that have a score, (r,), and their scores, (r,). All others lie below."""


@dataclass(frozen=True)
class MeanAveragePrecision:
    """Mean average precision over the classes that have a positive, as a function of the clusters' weights.

    Average precision is Σ (Rᵢ − Rᵢ₋₁)·Pᵢ over the distinct scores, as scikit-learn has it: questions
    with equal scores enter together. Questions without a score come last, together.

    A level is a distinct score that a positive has. Levels stand class after class, from the highest
    score to the lowest; the counts are of questions per cluster, so that a bootstrap is one product.
    """

    ranked: csr_array  # (levels, clusters) questions from the level before, exclusive, to this one
    hits: csr_array  # (levels, clusters) positives at this level
    missed: csr_array  # (classes, clusters) positives without a score
    starts: np.ndarray  # (classes,) first level of each class
    sizes: np.ndarray  # (classes,) levels of each class
    clusters: np.ndarray  # (n,) of all questions
    names: Sequence[str] = ("map",)

    def values(self, weights: np.ndarray) -> np.ndarray:
        """weights (clusters, replicates) → (1, replicates)."""
        everything = np.bincount(self.clusters, minlength=len(weights)) @ weights
        hits = self.hits @ weights
        seen, found = self._within_class(self.ranked @ weights), self._within_class(hits)
        precision = np.divide(found, seen, out=np.zeros(seen.shape), where=seen > 0)
        area, ranked = self._per_class(hits * precision), self._per_class(hits)
        missed = self.missed @ weights
        positives = ranked + missed
        with np.errstate(invalid="ignore", divide="ignore"):
            # Questions without a score are one last level, where precision is positives / all questions.
            values = (area + missed * positives / everything) / positives
            return np.nansum(values, axis=0, keepdims=True) / np.count_nonzero(positives, axis=0)

    def _within_class(self, levels: np.ndarray) -> np.ndarray:
        """Running totals that start anew with each class."""
        totals = np.vstack([np.zeros((1, levels.shape[1])), levels.cumsum(axis=0, dtype=float)])
        return totals[1:] - np.repeat(totals[self.starts], self.sizes, axis=0)

    def _per_class(self, levels: np.ndarray) -> np.ndarray:
        totals = np.vstack([np.zeros((1, levels.shape[1])), levels.cumsum(axis=0, dtype=float)])
        return totals[self.starts + self.sizes] - totals[self.starts]


def mean_average_precision(
    columns: Iterable[Column],
    texts: np.ndarray,
    targets: Sequence[frozenset[int]],
    clusters: np.ndarray,
    n_clusters: int,
) -> MeanAveragePrecision:
    """The metric of n questions. columns: per class, the scores of the distinct texts that questions have; texts
    (n,): each question's text, −1 for none; targets (n,): its classes; clusters (n,): its cluster, of `n_clusters`."""
    order = np.argsort(texts, kind="stable")  # questions grouped by text
    firsts = np.searchsorted(texts[order], np.arange(texts.max(initial=-1) + 2))
    having: dict[int, list[int]] = {}
    for question, classes in enumerate(targets):
        for number in classes:
            having.setdefault(number, []).append(question)
    ranked, hits, missed = (_Counts(clusters, n_clusters) for _ in range(3))
    sizes = []
    positive = np.zeros(len(texts), dtype=bool)
    for number, (scored, scores) in enumerate(columns):
        if number not in having:
            continue
        mine = np.array(having[number])
        positive[mine] = True
        best_first = np.argsort(-scores, kind="stable")
        scored, scores = scored[best_first], scores[best_first]
        counts = firsts[scored + 1] - firsts[scored]
        # Questions of the texts in this order: the ranges [first, first + count) laid end to end.
        questions = order[np.arange(counts.sum()) + np.repeat(firsts[scored] - counts.cumsum() + counts, counts)]
        scores = np.repeat(scores, counts)
        are_hits = positive[questions]
        ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)) if len(scores) else np.empty(0, int)
        level, level_sizes = np.unique(np.searchsorted(ends, np.flatnonzero(are_hits)), return_counts=True)
        ranked.add(questions[: ends[level[-1]] + 1] if len(level) else questions[:0], np.diff(ends[level], prepend=-1))
        hits.add(questions[are_hits], level_sizes)
        positive[questions] = False
        unranked = mine[positive[mine]]
        missed.add(unranked, [len(unranked)])
        positive[mine] = False
        sizes.append(len(level))
    size = np.array(sizes, dtype=int)
    return MeanAveragePrecision(ranked.matrix(), hits.matrix(), missed.matrix(), size.cumsum() - size, size, clusters)


class _Counts:
    """Builds a sparse matrix (rows, clusters) of counts of questions."""

    def __init__(self, clusters: np.ndarray, n_clusters: int) -> None:
        self.clusters, self.n_clusters = clusters.astype(np.int32), n_clusters
        self.columns: list[np.ndarray] = []
        self.lengths: list[np.ndarray] = []

    def add(self, questions: np.ndarray, lengths: Sequence[int] | np.ndarray) -> None:
        """Add rows of the given lengths, their questions end to end."""
        self.columns.append(self.clusters[questions])
        self.lengths.append(np.asarray(lengths, dtype=int))

    def matrix(self) -> csr_array:
        columns = np.concatenate([np.empty(0, np.int32), *self.columns])
        edges = np.concatenate([[0], *self.lengths]).cumsum()
        return csr_array((np.ones(len(columns), np.float32), columns, edges), shape=(len(edges) - 1, self.n_clusters))


def event_map(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean average precision of the classes that occur. scores (n, classes); targets (n, classes), 0 or 1."""
    n = len(scores)
    if not targets.any():
        return float("nan")
    places = np.arange(n)
    columns = ((places, scores[:, number]) for number in range(scores.shape[1]))
    having = [frozenset(np.flatnonzero(row).tolist()) for row in targets]
    return float(mean_average_precision(columns, places, having, places, n).values(np.ones((n, 1)))[0, 0])


# ---- directions and distances --------------------------------------------------------------------


def confusion(predicted: Iterable[str | None], targets: Iterable[str | None]) -> dict[str, Any]:
    """Counts of target octant (row) against predicted octant (column); None, not given in full, is the last column."""
    columns = [*OCTANTS, "not read"]
    counts = np.zeros((len(OCTANTS), len(columns)), dtype=int)
    for column, row in zip(predicted, targets, strict=True):
        counts[OCTANTS.index(str(row)), columns.index(column or "not read")] += 1
    return {"rows": list(OCTANTS), "columns": columns, "counts": counts.tolist()}


def calibration(predicted: np.ndarray, targets: np.ndarray) -> list[dict[str, float]]:
    """Mean and quartiles of the predicted distances (n,), metres, NaN where not given, for each target distance."""
    rows = []
    for distance in np.unique(targets):
        here = predicted[targets == distance]
        given = here[~np.isnan(here)]
        low, middle, high = np.quantile(given, [0.25, 0.5, 0.75]) if len(given) else [np.nan] * 3
        rows.append(
            {
                "truth": float(distance),
                "n": len(here),
                "given": len(given),
                "mean": float(given.mean()) if len(given) else np.nan,
                "q25": float(low),
                "median": float(middle),
                "q75": float(high),
            }
        )
    return rows


def great_circle(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Angles (n,), degrees, between vectors (n, 3) of any length; 90° from a vector of length 0."""
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(targets, axis=1)
    cosine = np.divide((predicted * targets).sum(1), lengths, out=np.zeros(len(predicted)), where=lengths > 0)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def place_scores(
    directions: np.ndarray, target_directions: np.ndarray, distances: np.ndarray, target_distances: np.ndarray
) -> dict[str, float]:
    """Scores of the encoder, as published for Spatial-AST: `er20`, `mae`, `der` and their `n`.

    Directions are vectors (n, 3); distances (n,) are classes of 0.5 m where predicted, metres where true.
    er20: share of directions off by more than 20°; mae: mean great-circle error, degrees; der: share of
    distances off by more than one class.
    """
    if not len(directions):
        return {"n": 0}
    error = great_circle(directions, target_directions)
    off = np.abs(distances - np.rint(CLASSES_PER_METRE * target_distances))
    return {
        "er20": float((error > WRONG_DIRECTION).mean()),
        "mae": float(error.mean()),
        "der": float((off > 1).mean()),
        "n": len(directions),
    }
