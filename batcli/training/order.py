"""The order in which a stage takes its samples. It depends on seed and stage alone, so a resumed run repeats it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from batcli.data.schema import Question
from batcli.questions.generate import is_turned
from batcli.training.recipe import STAGES

WINDOW = 16  # updates among which questions of like length are put together


def epoch_order(count: int, length: int, seed: int, stage: int) -> np.ndarray:
    """`length` sample numbers below `count`: one shuffled epoch after another, each its own shuffle."""
    epochs = max(1, -(-length // count))
    return np.concatenate([np.random.default_rng([seed, stage, epoch]).permutation(count) for epoch in range(epochs)])[
        :length
    ]


def one_way(questions: Sequence[Question], length: int, seed: int) -> np.ndarray:
    """`length` numbers of the questions that ask by one word of each pair of opposites: by right, never by left.

    While both words of a pair are asked alike, neither the word nor the sound predicts the answer by
    itself, and relations stay at chance; asked one way first, the sound does. Where every question asks
    by the other word, all are taken.
    """
    numbers = [number for number, question in enumerate(questions) if not is_turned(question)]
    chosen = np.array(numbers or range(len(questions)))
    return chosen[epoch_order(len(chosen), length, seed, len(STAGES) + 1)]


def bucket_by_length(order: np.ndarray, sizes: np.ndarray, per_update: int, seed: int, stage: int) -> np.ndarray:
    """The same order, but within `WINDOW` updates samples of like size share an update: less padding."""
    rng = np.random.default_rng([seed, stage, WINDOW])
    out = []
    for start in range(0, len(order), WINDOW * per_update):
        some = order[start : start + WINDOW * per_update]
        updates = some[np.argsort(sizes[some], kind="stable")].reshape(-1, per_update)
        out.append(updates[rng.permutation(len(updates))].ravel())
    return np.concatenate(out)
