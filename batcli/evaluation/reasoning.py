"""Relations of two sources (E): yes or no, left or right, which of two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def agreement(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n,) codes → (n,) bool. A negative code is what could not be read, and wrong."""
    return np.equal(said, truth) & (said >= 0)


def choices_right(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n, 3) direction codes → (n,) bool: right on every axis that the true answer names; others do not matter."""
    return np.all(np.equal(said, truth) | (truth < 0), axis=1)


def choices_read(said: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(n, 3) direction codes → (n,) bool: a word was said on every axis that the true answer names."""
    return np.all((said >= 0) | (truth < 0), axis=1)


def same_labels(said: Sequence[frozenset[int]], truth: Sequence[frozenset[int]]) -> np.ndarray:
    """(n,) bool: exactly the true labels, and no other."""
    return np.array([s == t for s, t in zip(said, truth, strict=True)], dtype=bool)
