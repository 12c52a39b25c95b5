"""Where and how far: direction words, distance (B, D, E), and what errors look like.

Directions are (n, 3) codes: side (0 left, 1 right), depth (0 front, 1 behind), height (0 above,
1 below); −1 is not said. Distances are metres, NaN where not said.
"""

from __future__ import annotations

from typing import Any

import numpy as np

WORDS = (("left", "right"), ("front", "behind"), ("above", "below"))
OCTANTS = tuple(f"{side}, {depth}, {height}" for side in WORDS[0] for depth in WORDS[1] for height in WORDS[2])
AXIS_METRICS = ("lr_acc", "fb_acc", "ud_acc")
DISTANCE_TOLERANCE = 0.5
"""Metres. The published DER: an answer is wrong when it is off by more than this."""

EPSILON = 1e-9  # distances are sums of decimals: 0.3 + 0.5 m is not off by more than 0.5 m


def axes_right(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n, 3) codes → (n, 3) bool: which of the words are right. What is not said is wrong."""
    return np.equal(said, truth) & (truth >= 0)


def distance_wrong(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) metres → (n,) bool, the mean of which is the DER: off by more than 0.5 m, or not said."""
    return ~(np.abs(said - truth) <= DISTANCE_TOLERANCE + EPSILON)


def octants(codes: np.ndarray) -> np.ndarray:
    """(n, 3) codes → (n,) place in `OCTANTS`; 8 where a word is missing."""
    numbers = codes @ np.array([4, 2, 1])
    return np.where((codes < 0).any(axis=1), len(OCTANTS), numbers)


def confusion(said: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Counts of true octant (row) against said octant (column); the last column was not said in full."""
    size = len(OCTANTS)
    cells = octants(truth) * (size + 1) + octants(said)
    counts = np.bincount(cells, minlength=size * (size + 1))[: size * (size + 1)].reshape(size, size + 1)
    return {"rows": list(OCTANTS), "columns": [*OCTANTS, "not read"], "counts": counts.tolist()}


def calibration(said: np.ndarray, truth: np.ndarray) -> list[dict[str, float]]:
    """Per true distance: how many answers, how many of them gave a distance, its mean and its quartiles."""
    rows = []
    for distance in np.unique(truth):
        here = said[truth == distance]
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
