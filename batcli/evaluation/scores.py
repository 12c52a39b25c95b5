"""Scores of predictions: of every answer, then of each question type and family, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from batcli.core.progress import Reporter
from batcli.data.answers import Doa, Vocabulary
from batcli.data.question_types import QUESTION_TYPES, QuestionType
from batcli.evaluation.embed import Embedder
from batcli.evaluation.metrics import calibration, confusion, mean_average_precision
from batcli.evaluation.predictions import NO_ANSWER, Prediction, Predictions
from batcli.evaluation.report import System, TypeScores, finite
from batcli.evaluation.stats import Ratios, Score, Statistic, bootstrap, interval
from batcli.evaluation.subjects import ANSWERS, Columns, paper_name

Samples = dict[tuple[str, str], tuple[float, np.ndarray]]
"""(type, metric) → its value, and its values on the resamples."""


@dataclass(frozen=True)
class ScoredAnswers:
    """Answers to n questions of one type, scored one by one."""

    question_type: QuestionType
    predicted: list[Any]  # (n,) values, as the type parses them
    targets: list[Any]
    ratios: dict[str, tuple[np.ndarray, np.ndarray]]  # metric → numerators and denominators, (n,) each
    unread: list[tuple[str, ...]]  # (n,) parts of the answer that could not be read
    errors: np.ndarray  # (n,) how wrong: 0 is right

    def details(self) -> dict[str, Any]:
        """The `confusion` of octants and the `calibration` of distances, where answers have these parts."""
        found: dict[str, Any] = {}
        if "direction" in self.question_type.parts:
            found["confusion"] = confusion(*([doa.octant for doa in side] for side in (self.predicted, self.targets)))
        if "distance" in self.question_type.parts:
            found["calibration"] = calibration(distances(self.predicted), distances(self.targets))
        return found


def distances(values: Sequence[Doa]) -> np.ndarray:
    """Distances (n,) in metres, NaN where there is none."""
    return np.array([math.nan if value.distance is None else value.distance for value in values])


def score_answers(
    type_name: str, predicted: Sequence[str], targets: Sequence[str], vocabulary: Vocabulary
) -> ScoredAnswers:
    """Read and score the texts of n ≥ 1 answers of one type; equal pairs of texts once."""
    question_type = QUESTION_TYPES[type_name]
    parse = cache(partial(question_type.parse, vocabulary=vocabulary))
    parse_target = cache(partial(question_type.parse_target, vocabulary=vocabulary))
    texts = list(zip(predicted, targets, strict=True))
    number_of = {pair: number for number, pair in enumerate(dict.fromkeys(texts))}
    numbers = [number_of[pair] for pair in texts]
    pairs = [(parse(prediction), parse_target(target)) for prediction, target in number_of]
    scores = [question_type.score(*pair) for pair in pairs]
    ratios = {metric: np.array([score[metric] for score in scores])[numbers] for metric in scores[0]}
    unread = [question_type.unread(*pair) for pair in pairs]
    return ScoredAnswers(
        question_type,
        [pairs[number][0] for number in numbers],
        [pairs[number][1] for number in numbers],
        {metric: (columns[:, 0], columns[:, 1]) for metric, columns in ratios.items()},
        [unread[number] for number in numbers],
        np.array([question_type.error(*pair) for pair in pairs])[numbers],
    )


# ---- a file --------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """The scored answers of one question type in a file of predictions, and the metrics to be bootstrapped."""

    rows: np.ndarray  # (n,) which questions of the file
    answers: ScoredAnswers
    statistics: list[Statistic]

    @property
    def type_name(self) -> str:
        return self.answers.question_type.name


def measure(
    file: Predictions, clusters: np.ndarray, n_clusters: int, vocabulary: Vocabulary, embedder: Embedder
) -> list[Measured]:
    """Score the answers of each question type in a file.

    clusters (n,): the cluster of each question, 0 … n_clusters − 1; the bootstrap draws whole clusters.
    """
    measured = []
    for name, question_type in QUESTION_TYPES.items():
        rows = file.rows(name)
        if not len(rows):
            continue
        predicted, here = file.predicted[rows], clusters[rows]
        texts = [file.answer(row) or "" for row in rows]
        answers = score_answers(name, texts, [file.texts[text] for text in file.targets[rows].tolist()], vocabulary)
        statistics: list[Statistic] = []
        if question_type.has_map:
            distinct, places = np.unique(predicted, return_inverse=True)
            if distinct[0] == NO_ANSWER:  # no text, no score
                distinct, places = distinct[1:], places - 1
            columns = embedder.columns([file.texts[text] for text in distinct], vocabulary.names)
            statistics.append(mean_average_precision(columns, places, answers.targets, here, n_clusters))
        statistics.append(Ratios.of(answers.ratios, here))
        measured.append(Measured(rows, answers, statistics))
    return measured


def unparsed(
    predictions: Iterator[Prediction], file: Predictions, measured: Sequence[Measured]
) -> Iterator[dict[str, Any]]:
    """The records whose answer could not be read in full, with the parts that were not."""
    missing = {
        row: list(parts)
        for found in measured
        for row, parts in zip(found.rows.tolist(), found.answers.unread, strict=True)
        if parts
    }
    for row, one in enumerate(predictions):
        if row in missing:
            yield {**finite(one.record), "prediction": file.answer(row), "not_read": missing[row]}


# ---- scores --------------------------------------------------------------------------------------


class HasStatistics(Protocol):
    """Something of one type, with metrics to be bootstrapped."""

    @property
    def type_name(self) -> str: ...

    @property
    def statistics(self) -> list[Statistic]: ...


def sample(measured: Sequence[HasStatistics], n_clusters: int, replicates: int, seed: int) -> Samples:
    """Value and resamples of every metric. Equal clusters and seed give equal draws, whatever the system."""
    statistics = [statistic for found in measured for statistic in found.statistics]
    names = [found.type_name for found in measured for _ in found.statistics]
    drawn = bootstrap(statistics, n_clusters, replicates, seed)
    return {
        (type_name, metric): (float(value), samples)
        for type_name, statistic, (values, resamples) in zip(names, statistics, drawn, strict=True)
        for metric, value, samples in zip(statistic.names, values, resamples, strict=True)
    }


def mean_score(samples: Samples, keys: Sequence[tuple[str, str]]) -> Score:
    """The plain mean of some metrics, with its interval; NaN where one of them is missing."""
    if not all(key in samples for key in keys):
        return Score(math.nan)
    value = sum(samples[key][0] for key in keys) / len(keys)
    drawn = np.mean([samples[key][1] for key in keys], axis=0)
    return Score(value, *interval(value, drawn, reflected=keys[0][1] == "map"))


def paper_scores(samples: Samples, table: Columns) -> dict[str, Score]:
    """Scores in the columns of a published table: `mAP A` → its score."""
    return {
        paper_name(heading, column): mean_score(samples, keys)
        for heading, columns in table.items()
        for column, keys in columns.items()
    }


def _families(samples: Samples) -> dict[str, dict[str, Score]]:
    """Family → metric → mean over the family's types that have it and count, like the published average."""
    grouped: dict[str, dict[str, list[tuple[str, str]]]] = {}
    for type_name, metric in samples:
        if not QUESTION_TYPES[type_name].in_family:
            continue
        family = grouped.setdefault(QUESTION_TYPES[type_name].family, {})
        family.setdefault(metric, []).append((type_name, metric))
    return {
        family: {metric: mean_score(samples, keys) for metric, keys in metrics.items()}
        for family, metrics in grouped.items()
    }


def system_of(file: Predictions, measured: Sequence[Measured], samples: Samples, embedder: dict[str, str]) -> System:
    """The scores of one file, as a column of the report. `embedder`: its name and hash."""
    by_type = {
        found.type_name: TypeScores(
            len(found.rows),
            {metric: mean_score(samples, [(name, metric)]) for name, metric in samples if name == found.type_name},
            found.answers.details(),
        )
        for found in measured
    }
    has_map = any(metric == "map" for _, metric in samples)
    return System(
        file.name,
        len(file),
        by_type,
        _families(samples),
        paper_scores(samples, ANSWERS.columns),
        embedder if has_map else None,
    )


def score_systems(
    files: Sequence[Predictions],
    vocabulary: Vocabulary,
    embedder: Embedder,
    replicates: int,
    seed: int,
    reporter: Reporter,
) -> tuple[list[System], list[Measured]]:
    """Score every file. Returns the systems, and the measures of the first file."""
    facts = {"name": embedder.name, "hash": embedder.hash(vocabulary.names)}
    systems: list[System] = []
    first: list[Measured] = []
    for file in reporter.track(files, "scoring"):
        names, clusters = np.unique(file.clusters, return_inverse=True)
        measured = measure(file, clusters, len(names), vocabulary, embedder)
        systems.append(system_of(file, measured, sample(measured, len(names), replicates, seed), facts))
        first = first or measured
    return systems, first
