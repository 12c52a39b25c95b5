"""What an encoder hears: events, directions, distances, in the published measures of Spatial-AST."""

from __future__ import annotations

import numpy as np

from batcli.evaluation.detection import mean_average_precision

WRONG_DIRECTION = 20.0  # degrees: what ER20 counts
CLASSES_PER_METRE = 2


def event_map(scores: np.ndarray, truth: np.ndarray) -> float:
    """scores (n, classes), truth (n, classes) of 0 and 1 → mean average precision of the classes that occur."""
    n = len(scores)
    if not truth.any():
        return float("nan")
    places = np.arange(n)
    columns = ((places, scores[:, number]) for number in range(scores.shape[1]))
    having = [frozenset(np.flatnonzero(row).tolist()) for row in truth]
    return float(mean_average_precision(columns, places, having, places, n).values(np.ones((n, 1)))[0, 0])


def great_circle(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Vectors (n, 3) of any length → angles between them (n,), degrees; a vector of no length is 90° off."""
    lengths = np.linalg.norm(said, axis=1) * np.linalg.norm(truth, axis=1)
    cosine = np.divide((said * truth).sum(1), lengths, out=np.zeros(len(said)), where=lengths > 0)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def place_scores(
    said: np.ndarray, truth: np.ndarray, said_distance: np.ndarray, true_distance: np.ndarray
) -> dict[str, float]:
    """Directions (n, 3), distance classes (n,), metres (n,) → `er20`, `mae`, `der` and their `n`.

    er20: share of directions off by more than 20°; mae: mean great-circle error, degrees; der: share of
    distances off by more than one class of 0.5 m.
    """
    if not len(said):
        return {"n": 0}
    error = great_circle(said, truth)
    off = np.abs(said_distance - np.rint(CLASSES_PER_METRE * true_distance))
    return {
        "er20": float((error > WRONG_DIRECTION).mean()),
        "mae": float(error.mean()),
        "der": float((off > 1).mean()),
        "n": len(said),
    }
