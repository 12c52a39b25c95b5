"""Orders of a stage's samples. They depend on seed and stage alone, so a resumed run has the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from batcli.data.schema import Question
from batcli.questions.generate import is_turned
from batcli.training.recipe import STAGES


def epoch_order(count: int, length: int, seed: int, stage: int) -> np.ndarray:
    """Indices (length,) of `count` samples: independently shuffled epochs, one after another, the last one cut."""
    epochs = max(1, -(-length // count))
    return np.concatenate([np.random.default_rng([seed, stage, epoch]).permutation(count) for epoch in range(epochs)])[
        :length
    ]


def clip_order(labels: Sequence[Sequence[int]], epochs: int, each: int, balanced: bool, seed: int) -> np.ndarray:
    """Numbers (epochs · each,) of clips: in every epoch `each` different ones, drawn anew, in random order.

    `labels`: of each clip. `balanced`: clips are drawn one after another by their `rarity_weights`; else all alike.
    """
    weights = rarity_weights(labels) if balanced else None
    return np.concatenate([_draw(len(labels), each, weights, [seed, epoch]) for epoch in range(epochs)])


def _draw(count: int, each: int, weights: np.ndarray | None, entropy: Sequence[int]) -> np.ndarray:
    """`each` of `count` numbers without replacement, in the order in which they are drawn."""
    rng = np.random.default_rng(entropy)
    if weights is None:
        return rng.permutation(count)[:each]
    # The next of several Poisson processes to ring is one of them by their rates.
    times = rng.standard_exponential(count) / weights
    first = np.argpartition(times, each - 1)[:each]
    return first[np.argsort(times[first])]


def rarity_weights(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Weight of each clip, the published Σ 1000 / (count of label + 0.01) over its labels."""
    counts = Counter(event for events in labels for event in events)
    return np.array([sum(1000 / (counts[event] + 0.01) for event in events) for events in labels])


def one_way(questions: Sequence[Question], length: int, seed: int) -> np.ndarray:
    """Indices (length,) of questions that use only one word of each pair of opposites: right, never left.

    While both words are used alike, neither the word nor the sound by itself predicts the answer to "is A to
    the right of B?", and training stays at chance; with one word, the sound does. If every question uses the
    other word, all are taken.
    """
    numbers = np.array([n for n, question in enumerate(questions) if not is_turned(question)] or range(len(questions)))
    return numbers[epoch_order(len(numbers), length, seed, len(STAGES) + 1)]


def bucket_by_length(
    order: np.ndarray, sizes: np.ndarray, per_update: int, bucket: int, seed: int, stage: int
) -> np.ndarray:
    """Reorder samples within `bucket` updates so that those of similar size share an update, which saves padding."""
    rng = np.random.default_rng([seed, stage, bucket])
    windows = []
    for start in range(0, len(order), bucket * per_update):
        window = order[start : start + bucket * per_update]
        updates = window[np.argsort(sizes[window], kind="stable")].reshape(-1, per_update)
        windows.append(updates[rng.permutation(len(updates))].ravel())
    return np.concatenate(windows)
