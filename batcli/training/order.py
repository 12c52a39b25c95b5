"""Orders of a stage's samples. They depend on seed and stage alone, so a resumed run has the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batcli.data.schema import Question
from batcli.questions.generate import is_turned
from batcli.training.recipe import STAGES

WINDOW = 16  # updates within which questions are sorted by length


def epoch_order(count: int, length: int, seed: int, stage: int) -> np.ndarray:
    """Indices (length,) of `count` samples: independently shuffled epochs, one after another, the last one cut."""
    epochs = max(1, -(-length // count))
    return np.concatenate([np.random.default_rng([seed, stage, epoch]).permutation(count) for epoch in range(epochs)])[
        :length
    ]


def one_way(questions: Sequence[Question], length: int, seed: int) -> np.ndarray:
    """Indices (length,) of questions that use only one word of each pair of opposites: right, never left.

    While both words are used alike, neither the word nor the sound by itself predicts the answer to "is A to
    the right of B?", and training stays at chance; with one word, the sound does. If every question uses the
    other word, all are taken.
    """
    numbers = np.array([n for n, question in enumerate(questions) if not is_turned(question)] or range(len(questions)))
    return numbers[epoch_order(len(numbers), length, seed, len(STAGES) + 1)]


def bucket_by_length(order: np.ndarray, sizes: np.ndarray, per_update: int, seed: int, stage: int) -> np.ndarray:
    """Reorder samples within `WINDOW` updates so that those of similar size share an update, which saves padding."""
    rng = np.random.default_rng([seed, stage, WINDOW])
    windows = []
    for start in range(0, len(order), WINDOW * per_update):
        window = order[start : start + WINDOW * per_update]
        updates = window[np.argsort(sizes[window], kind="stable")].reshape(-1, per_update)
        windows.append(updates[rng.permutation(len(updates))].ravel())
    return np.concatenate(windows)
