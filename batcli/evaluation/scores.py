"""The answers of each question type measured: per question, then as scores with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from batcli.core.progress import Reporter
from batcli.data.schema import FAMILIES, QUESTION_TYPES
from batcli.evaluation import detection, localization, reasoning
from batcli.evaluation.embed import Embedder
from batcli.evaluation.predictions import LABEL_TYPES, NOT_SAID, PLACE_TYPES, Predictions
from batcli.evaluation.report import System, TypeScores, paper_columns
from batcli.evaluation.stats import Ratios, Score, Statistic, bootstrap, interval
from batcli.questions.answers import Vocabulary, read_distance, read_doa, read_labels, read_yes_no, split_labels

Samples = dict[tuple[str, str], tuple[float, np.ndarray]]
"""(type, metric) → its value, and its values on the resamples."""


class Texts(NamedTuple):
    """An answer per question; a text that several questions share stands once."""

    ids: np.ndarray  # (n,) place in `texts`, or NOT_SAID
    texts: Sequence[str]

    def codes(self, read: Callable[[str], Any], missing: Any) -> np.ndarray:
        """`read` of every answer, (n, …); `missing` for no answer. Each distinct text is read once."""
        distinct, places = np.unique(self.ids, return_inverse=True)
        return np.array([missing if text == NOT_SAID else read(self.texts[text]) for text in distinct])[places]

    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """Direction codes (n, 3) and metres (n,)."""
        found = self.codes(_place, (-1, -1, -1, math.nan))
        return found[:, :3].astype(int), found[:, 3]

    def metres(self) -> np.ndarray:
        """(n,), NaN where no distance could be read."""
        return self.codes(_metres, math.nan)

    def labels(self, read: Callable[[str], frozenset[int]]) -> list[frozenset[int]]:
        """`read` of every answer; no label for no answer."""
        distinct = np.unique(self.ids).tolist()
        found = {text: read(self.texts[text]) if text != NOT_SAID else frozenset() for text in distinct}
        return [found[text] for text in self.ids.tolist()]


def _metres(text: str) -> float:
    metres = read_distance(text)
    return math.nan if metres is None else metres


def _yes_no(text: str) -> int:
    said = read_yes_no(text)
    return NOT_SAID if said is None else int(said)


def _place(text: str) -> tuple[float, float, float, float]:
    side, depth, height, distance = read_doa(text)
    words = zip((side, depth, height), localization.WORDS, strict=True)
    first, second, third = (-1 if word is None else pair.index(word) for word, pair in words)
    return first, second, third, math.nan if distance is None else distance


def _written_labels(text: str, vocabulary: Vocabulary) -> frozenset[int]:
    """Of a true answer: exactly the names between its semicolons."""
    return frozenset().union(*(read_labels(name, vocabulary) for name in split_labels(text)))


@dataclass
class Marks:
    """The answers to questions of one type held against the true ones, question by question."""

    kind: str
    every: np.ndarray  # (n,) ones: the denominator of a share
    parts: dict[str, detection.Parts] = field(default_factory=dict)  # metric → its numerators and denominators
    details: dict[str, Any] = field(default_factory=dict)  # confusion, calibration
    unread: dict[str, np.ndarray] = field(default_factory=dict)  # part of an answer → (n,) bool: could not be read
    labels: list[frozenset[int]] = field(default_factory=list)  # (n,) true labels, where the answer has labels
    said_metres: np.ndarray | None = None  # (n,), where the answer has a distance

    def share(self, name: str, right: np.ndarray) -> None:
        self.parts[name] = right.astype(float), self.every

    def distances(self, said: np.ndarray, truth: np.ndarray) -> None:
        self.said_metres = said
        self.unread["distance"] = np.isnan(said)
        self.share("der", localization.distance_wrong(said, truth))
        error = np.where(self.unread["distance"], 0.0, np.abs(said - truth))
        self.parts["distance_mae"] = error, (~self.unread["distance"]).astype(float)
        self.details["calibration"] = localization.calibration(said, truth)

    def badness(self) -> np.ndarray:
        """(n,) how wrong each answer is: 0 is right. An answer that could not be read is the least wrong."""
        parts = {name: above for name, (above, _) in self.parts.items()}
        if self.kind in PLACE_TYPES:
            wrong_words = 3.0 - sum(parts[name] for name in localization.AXIS_METRICS)
            found = wrong_words + parts["der"] * np.minimum(parts["distance_mae"], 9.0) / 10.0
        elif "label_f1" in parts:
            both, sizes = self.parts["label_f1"]
            found = 1.0 - both / sizes
        elif "der" in parts:
            found = parts["der"] * parts["distance_mae"]
        else:
            found = 1.0 - next(iter(parts.values()))
        return np.where(parts["answered"] > 0, found, 1e-3)


def mark(kind: str, said: Texts, truth: Texts, vocabulary: Vocabulary) -> Marks:
    """All metrics of one type that compare an answer with its own true answer (all but mAP)."""
    marks = Marks(kind, np.ones(len(said.ids)))
    if kind in LABEL_TYPES:
        said_labels = said.labels(partial(read_labels, vocabulary=vocabulary))
        marks.labels = truth.labels(partial(_written_labels, vocabulary=vocabulary))
        marks.unread["labels"] = np.array([not found for found in said_labels])
        if kind == "MIXUP_NONBINARY_SOURCE":
            marks.share("source_acc", reasoning.same_labels(said_labels, marks.labels))
        else:
            marks.parts["label_f1"] = detection.label_f1(said_labels, marks.labels)
    elif kind in PLACE_TYPES:
        (said_codes, said_metres), (codes, metres) = said.places(), truth.places()
        right = localization.axes_right(said_codes, codes)
        marks.share("doa_acc", np.all(right, axis=1))
        for axis, name in enumerate(localization.AXIS_METRICS):
            marks.share(name, right[:, axis])
            marks.unread["/".join(localization.WORDS[axis])] = said_codes[:, axis] < 0
        marks.details["confusion"] = localization.confusion(said_codes, codes)
        marks.distances(said_metres, metres)
    elif kind == "MIXUP_NONBINARY_DIRECTION":
        said_codes, codes = said.places()[0], truth.places()[0]
        marks.unread["direction"] = ~reasoning.choices_read(said_codes, codes)
        marks.share("choice_acc", reasoning.choices_right(said_codes, codes))
    elif kind == "MIXUP_NONBINARY_DISTANCE":
        marks.distances(said.metres(), truth.metres())
    else:
        said_codes, codes = said.codes(_yes_no, NOT_SAID), truth.codes(_yes_no, NOT_SAID)
        marks.unread["yes/no"] = said_codes < 0
        marks.share("binary_acc", reasoning.agreement(said_codes, codes))
    marks.share("answered", ~np.any(list(marks.unread.values()), axis=0))
    return marks


# ---- a file --------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """The questions of one type in a file of predictions, measured."""

    rows: np.ndarray  # (n,) which questions of the file
    marks: Marks
    statistics: list[Statistic]


def measure(
    file: Predictions, clusters: np.ndarray, width: int, vocabulary: Vocabulary, embedder: Embedder
) -> list[Measured]:
    """Each type that the file has, with all its metrics. clusters (n,): number of each question's
    cluster, of `width`."""
    measured = []
    for kind in QUESTION_TYPES:
        rows = file.rows(kind)
        if not len(rows):
            continue
        said, here = file.said[rows], clusters[rows]
        marks = mark(kind, Texts(said, file.texts), Texts(file.truths[rows], file.texts), vocabulary)
        statistics: list[Statistic] = []
        if "label_f1" in marks.parts:
            distinct, texts = np.unique(said, return_inverse=True)
            if distinct[0] == NOT_SAID:  # no text, no score
                distinct, texts = distinct[1:], texts - 1
            columns = embedder.columns([file.texts[text] for text in distinct], vocabulary.names)
            statistics.append(detection.mean_average_precision(columns, texts, marks.labels, here, width))
        statistics.append(Ratios.of(marks.parts, here))
        measured.append(Measured(rows, marks, statistics))
    return measured


# ---- scores --------------------------------------------------------------------------------------


def sample(measured: Sequence[Measured], width: int, replicates: int, seed: int) -> Samples:
    """Every metric's value and resamples. Equal clusters and seed give equal draws, whatever the system."""
    statistics = [statistic for found in measured for statistic in found.statistics]
    kinds = [found.marks.kind for found in measured for _ in found.statistics]
    drawn = bootstrap(statistics, width, replicates, seed)
    return {
        (kind, name): (float(value), samples)
        for kind, statistic, (values, resamples) in zip(kinds, statistics, drawn, strict=True)
        for name, value, samples in zip(statistic.names, values, resamples, strict=True)
    }


def mean_score(samples: Samples, keys: Sequence[tuple[str, str]]) -> Score:
    """The plain mean of some metrics, with its interval; NaN where one of them is missing."""
    if not all(key in samples for key in keys):
        return Score(math.nan)
    value = sum(samples[key][0] for key in keys) / len(keys)
    drawn = np.mean([samples[key][1] for key in keys], axis=0)
    return Score(value, *interval(value, drawn, reflected=keys[0][1] == "map"))


def paper_scores(samples: Samples) -> dict[str, Score]:
    """Columns of the published table: `mAP A` → its score."""
    return {name: mean_score(samples, parts) for name, parts in paper_columns().items()}


def _families(samples: Samples) -> dict[str, dict[str, Score]]:
    """Family → metric → the mean over the family's types that have it, as the published average is."""
    grouped: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for kind, name in samples:
        grouped.setdefault(FAMILIES[kind], {}).setdefault(name, []).append((kind, name))
    return {
        family: {name: mean_score(samples, keys) for name, keys in names.items()} for family, names in grouped.items()
    }


def system_of(file: Predictions, measured: Sequence[Measured], samples: Samples, embedder: dict[str, str]) -> System:
    by_type = {
        found.marks.kind: TypeScores(
            len(found.rows),
            {name: mean_score(samples, [(kind, name)]) for kind, name in samples if kind == found.marks.kind},
            found.marks.details,
        )
        for found in measured
    }
    has_map = any(name == "map" for _, name in samples)
    return System(
        file.name, len(file), by_type, _families(samples), paper_scores(samples), embedder if has_map else None
    )


def score_systems(
    files: Sequence[Predictions],
    vocabulary: Vocabulary,
    embedder: Embedder,
    replicates: int,
    seed: int,
    reporter: Reporter,
) -> tuple[list[System], list[Measured]]:
    """Every file scored, and the measures of the first."""
    facts = {"name": embedder.name, "hash": embedder.hash(vocabulary.names)}
    systems: list[System] = []
    first: list[Measured] = []
    for file in reporter.track(files, "scoring"):
        names, clusters = np.unique(file.clusters, return_inverse=True)
        measured = measure(file, clusters, len(names), vocabulary, embedder)
        systems.append(system_of(file, measured, sample(measured, len(names), replicates, seed), facts))
        first = first or measured
    return systems, first
