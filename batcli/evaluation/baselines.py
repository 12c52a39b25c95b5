"""Baselines that answer without the audio, from the wording of a question and the frequencies of answers.

random
    An answer drawn from the true answers of the question's type.
majority
    The commonest answer of the type.
prior-by-wording
    The commonest answer among the questions of the type with the same wording, names of events and
    numbers left out; the type's, where fewer than 20 have it.

Direction and distance are chosen apart, and the distance so that most true ones are no more than
0.5 m away. Where a question names the events to choose from, what counts is which of them it is: the
first, or the second. Frequencies come from other questions where given (a training split), and otherwise from
the scored questions themselves: then they flatter the baseline, the more the fewer questions there
are, and are the most that anyone could know without the audio.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from batcli.core.errors import InputError
from batcli.data.answers import Vocabulary, find_labels, read_distance, words_of, write_distance
from batcli.data.question_types import QUESTION_TYPES
from batcli.evaluation.predictions import Prediction, Predictions

NAMES = ("random", "majority", "prior-by-wording")
FEWEST = 20
"""Questions with one wording, for its commonest answer to mean anything."""
STEP = 0.5  # metres between the distances of answers


@dataclass(frozen=True)
class Prior:
    """Counts of the true answers of some questions, which the baselines answer other questions by."""

    whole: dict[str, Counter[str]]  # question type → how often each answer occurs
    parts: dict[tuple[str, str], list[Counter[str]]]
    """(question type, `wording_of` a question, or "" for all) → for each part of an answer, such as direction and
    distance, how often each value occurs."""


_QUANTITY = re.compile(r"\d+(?:\.\d+)?(?: ?m(?:et(?:er|re)s?)?\b)?")


def wording_of(question: str, vocabulary: Vocabulary) -> str:
    """The question with "…" for the names of events and "0" for numbers and metres."""
    words = words_of(_QUANTITY.sub(" 0 ", question))
    kept = list(words)
    for start, stop, _ in find_labels(words, vocabulary):
        kept[start:stop] = ["…"] + [""] * (stop - start - 1)
    return " ".join(filter(None, kept))


def _named(question: str, vocabulary: Vocabulary) -> list[str]:
    """The events that a question names, in its order."""
    found = (vocabulary.names[number] for _, _, number in find_labels(words_of(question), vocabulary))
    return list(dict.fromkeys(found))


def _parts(one: Prediction, vocabulary: Vocabulary) -> list[str]:
    """The parts of a true answer that are counted; `#1` is the second event that the question names."""
    question_type = QUESTION_TYPES[one.type_name]
    if len(question_type.parts) > 1:
        return [part.strip() for part in one.target.split(";")]
    named = _named(one.question, vocabulary) if question_type.names_choices else []
    return [f"#{named.index(one.target)}" if one.target in named else one.target]


def _text(parts: str, question: str, vocabulary: Vocabulary) -> str:
    """The answer to `question` whose joined parts are `parts`."""
    if not parts.startswith("#"):
        return parts
    named = _named(question, vocabulary)
    return named[min(int(parts[1:]), len(named) - 1)] if named else ""


def count_answers(predictions: Iterable[Prediction], vocabulary: Vocabulary) -> Prior:
    """Count the true answers of questions; their predictions do not matter."""
    prior = Prior({}, {})
    for one in predictions:
        parts = _parts(one, vocabulary)
        prior.whole.setdefault(one.type_name, Counter())["; ".join(parts)] += 1
        for wording in ("", wording_of(one.question, vocabulary)):
            counts = prior.parts.setdefault((one.type_name, wording), [])
            counts += [Counter() for _ in parts[len(counts) :]]
            for count, part in zip(counts, parts, strict=False):
                count[part] += 1
    return prior


def commonest(prior: Prior, type_name: str, wording: str) -> str:
    """The commonest answer, part by part; ties go to the first in the alphabet."""
    counts = prior.parts.get((type_name, wording), [])
    if not counts or counts[0].total() < FEWEST:
        counts = prior.parts[type_name, ""]
    parts = QUESTION_TYPES[type_name].parts
    distance = parts.index("distance") if "distance" in parts else None
    return "; ".join(_central(count) if place == distance else _mode(count) for place, count in enumerate(counts))


def _mode(count: Counter[str]) -> str:
    return min(count, key=lambda text: (-count[text], text))


def _central(count: Counter[str]) -> str:
    """The distance with the most true distances no farther than `STEP` from it; the smallest of several."""
    metres: Counter[float] = Counter()
    for text, times in count.items():
        metres[read_distance(text) or 0.0] += times
    near = {d: sum(times for e, times in metres.items() if abs(d - e) <= STEP + 1e-9) for d in metres}
    return write_distance(min(near, key=lambda distance: (-near[distance], distance)))


def answer_by_prior(
    name: str, file: Predictions, predictions: Iterable[Prediction], prior: Prior, vocabulary: Vocabulary, seed: int
) -> Predictions:
    """Answer the questions of `file` by the baseline `name`. `predictions`: the same questions, in the same order."""
    texts = {text: place for place, text in enumerate(file.texts)}
    rng = np.random.default_rng(seed)
    predicted = np.empty_like(file.predicted)
    drawn = {type_name: (list(count), np.cumsum(list(count.values()))) for type_name, count in prior.whole.items()}
    chosen: dict[tuple[str, str], str] = {}
    for row, one in enumerate(predictions):
        if one.type_name not in prior.whole:
            raise InputError(f"no {one.type_name} among the questions of --prior", hint="give a split that has them")
        if name == "random":
            choices, ends = drawn[one.type_name]
            parts = choices[int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))]
        else:
            key = one.type_name, wording_of(one.question, vocabulary) if name == "prior-by-wording" else ""
            parts = chosen[key] = chosen.get(key) or commonest(prior, *key)
        predicted[row] = texts.setdefault(_text(parts, one.question, vocabulary), len(texts))
    return replace(file, name=name, predicted=predicted, texts=list(texts), answered=True)
