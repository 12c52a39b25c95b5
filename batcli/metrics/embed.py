"""Embedders: how much a predicted text has of each class, for mean average precision.

The published mAP is the cosine similarity of a text's embedding and that of each class name. Which
model embeds decides the number, so a result carries the embedder's name and hash.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

Column = tuple[np.ndarray, np.ndarray]
"""Of one class: the texts that have a score, (r,), and their scores, (r,). All others lie below."""


class Embedder(Protocol):
    name: str

    def columns(self, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Column]:
        """The similarity of every text with each label, one label after the other."""

    def hash(self, labels: Sequence[str]) -> str:
        """16 hex digits that differ whenever the similarities could."""


_STOP = frozenset(
    {"a", "an", "and", "at", "by", "for", "from", "in", "into", "of", "on", "or", "s", "the", "to", "with"}
)


def _words(text: str) -> set[str]:
    """Words without case, plural and function words."""
    words = set(re.findall(r"[^\W_]+", text.casefold())) - _STOP
    return {word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


class Lexical:
    """Cosine of bags of words, weighted by how rare a word is among the class names.

    Words of no class name are left out, so what a sentence says around the labels does not matter.
    Needs no model: same texts, same scores, everywhere.
    """

    name = "lexical"

    def _vectors(self, labels: Sequence[str]) -> tuple[dict[str, float], list[float]]:
        """(weight of each word, norm of each label)."""
        bags = [_words(label) for label in labels]
        counts = Counter(word for bag in bags for word in bag)
        weights = {word: math.log((1 + len(labels)) / (1 + n)) + 1.0 for word, n in counts.items()}
        return weights, [_norm(bag, weights) for bag in bags]

    def columns(self, texts: Sequence[str], labels: Sequence[str]) -> Iterator[Column]:
        weights, norms = self._vectors(labels)
        containing = defaultdict(list)  # word → labels
        for number, label in enumerate(labels):
            for word in _words(label):
                containing[word].append(number)
        scored: list[list[int]] = [[] for _ in labels]
        scores: list[list[float]] = [[] for _ in labels]
        for index, text in enumerate(texts):
            bag = sorted(word for word in _words(text) if word in weights)  # sums in one order: same bits
            norm = _norm(bag, weights)
            shared: dict[int, float] = defaultdict(float)
            for word in bag:
                for number in containing[word]:
                    shared[number] += weights[word] ** 2
            for number, product in shared.items():
                scored[number].append(index)
                scores[number].append(product / (norm * norms[number]))
        for number in range(len(labels)):
            yield np.array(scored[number], dtype=int), np.array(scores[number])

    def hash(self, labels: Sequence[str]) -> str:
        weights, norms = self._vectors(labels)
        return _digest(repr((1, sorted(weights.items()), list(zip(labels, norms, strict=True)))).encode())


def _norm(bag: set[str] | list[str], weights: dict[str, float]) -> float:
    return math.sqrt(sum(weights[word] ** 2 for word in sorted(bag)))
