"""Answers without listening: what the wording of the questions and the answers' frequencies give away.

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
are, and are the most that anyone could know without listening.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from batcli.core.errors import InputError
from batcli.evaluation.predictions import PLACE_TYPES, Answered, Predictions
from batcli.questions.answers import Vocabulary, find_labels, read_distance, words_of, write_distance

NAMES = ("random", "majority", "prior-by-wording")
FEWEST = 20
"""Questions with one wording, for its commonest answer to mean anything."""
STEP = 0.5  # metres between the distances of answers


@dataclass(frozen=True)
class Prior:
    """How often which answer is true."""

    whole: dict[str, Counter[str]]  # type → answers
    parts: dict[tuple[str, str], list[Counter[str]]]  # (type, wording) → a count for each part of an answer


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


def _parts(answer: Answered, vocabulary: Vocabulary) -> list[str]:
    """What is counted of a true answer; `#1` is the second event that the question names."""
    if answer.kind in PLACE_TYPES:
        return [part.strip() for part in answer.truth.split(";")]
    named = _named(answer.question, vocabulary) if answer.kind == "MIXUP_NONBINARY_SOURCE" else []
    return [f"#{named.index(answer.truth)}" if answer.truth in named else answer.truth]


def _text(parts: str, question: str, vocabulary: Vocabulary) -> str:
    """An answer to `question` from its parts, joined."""
    if not parts.startswith("#"):
        return parts
    named = _named(question, vocabulary)
    return named[min(int(parts[1:]), len(named) - 1)] if named else ""


def count_answers(answers: Iterable[Answered], vocabulary: Vocabulary) -> Prior:
    prior = Prior({}, {})
    for answer in answers:
        parts = _parts(answer, vocabulary)
        prior.whole.setdefault(answer.kind, Counter())["; ".join(parts)] += 1
        for wording in ("", wording_of(answer.question, vocabulary)):
            counts = prior.parts.setdefault((answer.kind, wording), [])
            counts += [Counter() for _ in parts[len(counts) :]]
            for count, part in zip(counts, parts, strict=False):
                count[part] += 1
    return prior


def commonest(prior: Prior, kind: str, wording: str) -> str:
    """The commonest answer, part by part; ties go to the first in the alphabet."""
    counts = prior.parts.get((kind, wording), [])
    if not counts or counts[0].total() < FEWEST:
        counts = prior.parts[kind, ""]
    distance = {"MIXUP_NONBINARY_DISTANCE": 0, "DOA": 1, "MIXUP_SINGLE_DOA": 1}.get(kind)  # which part is one
    return "; ".join(_central(count) if part == distance else _mode(count) for part, count in enumerate(counts))


def _mode(count: Counter[str]) -> str:
    return min(count, key=lambda text: (-count[text], text))


def _central(count: Counter[str]) -> str:
    """The distance that most are within a step of; the nearest of several."""
    metres: Counter[float] = Counter()
    for text, times in count.items():
        metres[read_distance(text) or 0.0] += times
    near = {d: sum(times for e, times in metres.items() if abs(d - e) <= STEP + 1e-9) for d in metres}
    return write_distance(min(near, key=lambda distance: (-near[distance], distance)))


def answer_without_listening(
    name: str, file: Predictions, answers: Iterable[Answered], prior: Prior, vocabulary: Vocabulary, seed: int
) -> Predictions:
    """The questions of `file` (`answers`: the same, in their order) answered by one of `NAMES`."""
    texts = {text: place for place, text in enumerate(file.texts)}
    rng = np.random.default_rng(seed)
    said = np.empty_like(file.said)
    drawn = {kind: (list(count), np.cumsum(list(count.values()))) for kind, count in prior.whole.items()}
    chosen: dict[tuple[str, str], str] = {}
    for row, answer in enumerate(answers):
        if answer.kind not in prior.whole:
            raise InputError(f"no {answer.kind} among the questions of --prior", hint="give a split that has them")
        if name == "random":
            choices, ends = drawn[answer.kind]
            parts = choices[int(np.searchsorted(ends, rng.integers(ends[-1]), side="right"))]
        else:
            key = answer.kind, wording_of(answer.question, vocabulary) if name == "prior-by-wording" else ""
            parts = chosen[key] = chosen.get(key) or commonest(prior, *key)
        said[row] = texts.setdefault(_text(parts, answer.question, vocabulary), len(texts))
    return replace(file, name=name, said=said, texts=list(texts), answered=True)
