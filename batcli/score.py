"""Score answers: read them, measure them, say how sure the numbers are."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from batcli.core.catalogue import read_labels as read_label_file
from batcli.core.errors import InputError
from batcli.core.files import STDIO
from batcli.core.jsonl import read_records
from batcli.core.options import ScoreOptions
from batcli.core.progress import SILENT, Reporter
from batcli.core.schema import FAMILIES, QUESTION_TYPES, Question, parse_question
from batcli.metrics import detection, localization, reasoning
from batcli.metrics.embed import Embedder, Lexical
from batcli.metrics.report import Scores, System, TypeScores, paper_names
from batcli.metrics.stats import Ratios, Score, Statistic, bootstrap, interval
from batcli.questions.answers import Vocabulary, read_distance, read_doa, read_labels, read_yes_no, split_labels

NOT_READ = -1
LABEL_TYPES = ("CLASSIFICATION", "MIXUP_SINGLE_CLASSIFICATION", "MIXUP_NONBINARY_SOURCE")
PLACE_TYPES = ("DOA", "MIXUP_SINGLE_DOA")


@dataclass(frozen=True)
class Predictions:
    """A file of predictions as columns: 36 bytes a question, and each distinct text once."""

    name: str
    kinds: np.ndarray  # (n,) int8: place in QUESTION_TYPES
    clusters: np.ndarray  # (n,) uint64: hash of what is drawn together, such as the scene
    questions: np.ndarray  # (n,) uint64: hash of scene, type and wording
    wordings: np.ndarray  # (n,) int32: place in `texts` of the question
    truths: np.ndarray  # (n,) int32: place in `texts` of the true answer
    said: np.ndarray  # (n,) int32: place in `texts` of the prediction, or NOT_READ for none
    texts: list[str]

    def __len__(self) -> int:
        return len(self.kinds)

    def rows(self, kind: str) -> np.ndarray:
        return np.flatnonzero(self.kinds == QUESTION_TYPES.index(kind))


def _hash(*parts: str | None) -> int:
    """64 bits, the same in every process."""
    text = "\0".join("" if part is None else part for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def read_predictions(path: Path, options: ScoreOptions, reporter: Reporter) -> Predictions:
    """Raises InputError at the first line that is no prediction, and when there is none."""
    texts: dict[str, int] = {}
    columns = {name: array(code) for name, code in zip(_COLUMNS, _CODES, strict=True)}
    failed = 0
    checked: set[tuple[str, str]] = set()
    for where, record in reporter.track(read_records(path), f"reading {path}"):
        question = parse_question(record, where, extra=("prediction", "error"))
        if (question.question_type, question.answer) not in checked:
            _check_truth(question, where)
            checked.add((question.question_type, question.answer))
        said = _prediction(record, where)
        failed += said is None
        scene = _hash(*(part for source in question.scene for part in source))
        columns["kinds"].append(QUESTION_TYPES.index(question.question_type))
        columns["clusters"].append(scene)
        columns["questions"].append(_hash(str(scene), question.question_type, question.question))
        columns["wordings"].append(texts.setdefault(question.question, len(texts)))
        columns["truths"].append(texts.setdefault(question.answer, len(texts)))
        columns["said"].append(NOT_READ if said is None else texts.setdefault(said, len(texts)))
    name = "stdin" if path == STDIO else path.stem
    found = Predictions(name, **{n: np.array(c) for n, c in columns.items()}, texts=list(texts))
    if not len(found):
        raise InputError("no predictions", "stdin" if path == STDIO else path, "is this the output of `bat decode`?")
    if failed:
        reporter.warn(f"{name}: {failed:,} of {len(found):,} questions have no answer (null); they count as wrong")
    if repeated := len(found) - len(np.unique(found.questions)):
        reporter.warn(f"{name}: {repeated:,} questions repeat another (scene, type and wording); each one counts")
    return found


_COLUMNS = ("kinds", "clusters", "questions", "wordings", "truths", "said")
_CODES = ("b", "Q", "Q", "i", "i", "i")


def _prediction(record: dict[str, Any], where: str) -> str | None:
    if "prediction" not in record:
        raise InputError("no field 'prediction'", where, "score the output of `bat decode`, not the questions")
    said = record["prediction"]
    if said is not None and not isinstance(said, str):
        raise InputError(f"'prediction' is neither text nor null: {said!r:.80}", where)
    return said


def _check_truth(question: Question, where: str) -> None:
    kind, answer = question.question_type, question.answer
    if kind in LABEL_TYPES:
        fine, expected = bool(split_labels(answer)), "labels"
    elif kind in PLACE_TYPES:
        fine, expected = None not in read_doa(answer), "a direction and a distance"
    elif kind == "MIXUP_NONBINARY_DIRECTION":
        fine, expected = read_doa(answer)[:3] != (None, None, None), "a direction"
    elif kind == "MIXUP_NONBINARY_DISTANCE":
        fine, expected = read_distance(answer) is not None, "a distance"
    else:
        fine, expected = read_yes_no(answer) is not None, "Yes or No"
    if not fine:
        raise InputError(f"the true answer of a {kind} is not {expected}: {answer!r:.80}", where)


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """The questions of one type: what the metrics are made of."""

    kind: str
    n: int
    statistics: list[Statistic]
    parts: dict[str, detection.Parts]  # the metrics in `Ratios`, per question
    details: dict[str, Any]


def vocabulary_of(files: Iterable[Predictions], labels: Path | None) -> Vocabulary:
    """The label names: those of `--labels`, or all that stand in the true answers."""
    names: dict[str, None] = {}
    for file in files:
        for kind in LABEL_TYPES:
            for text in np.unique(file.truths[file.rows(kind)]):
                names.update(dict.fromkeys(split_labels(file.texts[text])))
    if labels is None:
        return Vocabulary.of(sorted(names))
    known = [label.name.lower() for label in read_label_file(labels)]
    if unknown := [name for name in names if name not in known]:
        raise InputError(f"{unknown[0]!r} is a true answer, but no label", labels, "give the labels of this data")
    return Vocabulary.of(known)


def measure(file: Predictions, kind: str, clusters: np.ndarray, vocabulary: Vocabulary, embedder: Embedder) -> Measured:
    """All metrics of one type. clusters (n,) int: the cluster of each of the file's questions."""
    rows = file.rows(kind)
    said, truth, clusters = file.said[rows], file.truths[rows], clusters[rows]
    statistics: list[Statistic] = []
    details: dict[str, Any] = {}
    parts: dict[str, detection.Parts] = {}
    every = np.ones(len(rows))

    def count(name: str, right: np.ndarray) -> None:
        parts[name] = right.astype(float), every

    if kind in LABEL_TYPES:
        said_labels, true_labels = _labels(file, said, vocabulary), _labels(file, truth, vocabulary, written=True)
        if kind == "MIXUP_NONBINARY_SOURCE":
            count("source_acc", reasoning.same_labels(said_labels, true_labels))
        else:
            statistics.append(_mean_average_precision(file, said, true_labels, clusters, vocabulary, embedder))
            parts["label_f1"] = detection.label_f1(said_labels, true_labels)
        count("answered", np.array([bool(labels) for labels in said_labels]))
    elif kind in PLACE_TYPES:
        (said_codes, said_metres), (codes, metres) = _places(file, said), _places(file, truth)
        right = localization.axes_right(said_codes, codes)
        count("doa_acc", right.all(axis=1))
        for axis, name in enumerate(localization.AXIS_METRICS):
            count(name, right[:, axis])
        _distance_parts(parts, said_metres, metres)
        count("answered", (said_codes >= 0).all(axis=1) & ~np.isnan(said_metres))
        details["confusion"] = localization.confusion(said_codes, codes)
        details["calibration"] = localization.calibration(said_metres, metres)
    elif kind == "MIXUP_NONBINARY_DIRECTION":
        said_codes, codes = _places(file, said)[0], _places(file, truth)[0]
        count("choice_acc", reasoning.choices_right(said_codes, codes))
        count("answered", reasoning.choices_read(said_codes, codes))
    elif kind == "MIXUP_NONBINARY_DISTANCE":
        said_metres, metres = (_of_texts(file, ids, _metres, np.nan) for ids in (said, truth))
        _distance_parts(parts, said_metres, metres)
        count("answered", ~np.isnan(said_metres))
        details["calibration"] = localization.calibration(said_metres, metres)
    else:
        said_codes, codes = (_of_texts(file, ids, _yes_no, NOT_READ) for ids in (said, truth))
        count("binary_acc", reasoning.agreement(said_codes, codes))
        count("answered", said_codes >= 0)
    statistics.append(Ratios.of(parts, clusters))
    return Measured(kind, len(rows), statistics, parts, details)


def _distance_parts(parts: dict[str, detection.Parts], said: np.ndarray, truth: np.ndarray) -> None:
    given = ~np.isnan(said)
    parts["der"] = localization.distance_wrong(said, truth).astype(float), np.ones(len(said))
    parts["distance_mae"] = np.where(given, np.abs(said - truth), 0.0), given.astype(float)


def _mean_average_precision(
    file: Predictions,
    said: np.ndarray,
    truth: Sequence[frozenset[int]],
    clusters: np.ndarray,
    vocabulary: Vocabulary,
    embedder: Embedder,
) -> detection.MeanAveragePrecision:
    distinct, texts = np.unique(said, return_inverse=True)
    if distinct[0] == NOT_READ:  # no text: no score
        distinct, texts = distinct[1:], texts - 1
    columns = embedder.columns([file.texts[text] for text in distinct], vocabulary.names)
    return detection.MeanAveragePrecision(detection.rankings(columns, texts, truth, clusters), clusters)


def _of_texts(file: Predictions, ids: np.ndarray, read: Any, missing: Any) -> np.ndarray:
    """`read` of every text, each distinct one once; `missing` for no text."""
    distinct, places = np.unique(ids, return_inverse=True)
    return np.array([missing if text == NOT_READ else read(file.texts[text]) for text in distinct])[places]


def _metres(text: str) -> float:
    metres = read_distance(text)
    return math.nan if metres is None else metres


def _yes_no(text: str) -> int:
    said = read_yes_no(text)
    return NOT_READ if said is None else int(said)


def _place(text: str) -> tuple[float, ...]:
    doa = read_doa(text)
    codes = (
        NOT_READ if word is None else words.index(word) for word, words in zip(doa, localization.WORDS, strict=False)
    )
    return *codes, math.nan if doa.distance is None else doa.distance


def _places(file: Predictions, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction codes (n, 3) and metres (n,)."""
    found = _of_texts(file, ids, _place, (NOT_READ, NOT_READ, NOT_READ, math.nan))
    return found[:, :3].astype(int), found[:, 3]


def _labels(file: Predictions, ids: np.ndarray, vocabulary: Vocabulary, written: bool = False) -> list[frozenset[int]]:
    """Of each text its labels; a `written` one has exactly those between its semicolons."""
    found: dict[int, frozenset[int]] = {NOT_READ: frozenset()}
    for text in np.unique(ids).tolist():
        if text != NOT_READ:
            parts = split_labels(file.texts[text]) if written else [file.texts[text]]
            found[text] = frozenset().union(*(read_labels(part, vocabulary) for part in parts))
    return [found[text] for text in ids.tolist()]


# ---- the systems of a table ----------------------------------------------------------------------


def score_system(
    file: Predictions, vocabulary: Vocabulary, embedder: Embedder, options: ScoreOptions, reporter: Reporter
) -> System:
    """Every metric of one file, with its interval."""
    names, clusters = np.unique(file.clusters, return_inverse=True)
    measured = [measure(file, kind, clusters, vocabulary, embedder) for kind in QUESTION_TYPES if len(file.rows(kind))]
    statistics = [statistic for found in measured for statistic in found.statistics]
    owners = [found.kind for found in measured for _ in found.statistics]
    drawn = bootstrap(statistics, len(names), options.replicates, options.seed)
    samples = {
        (kind, name): (float(value), values)
        for kind, statistic, (value_of, samples_of) in zip(owners, statistics, drawn, strict=True)
        for name, value, values in zip(statistic.names, value_of, samples_of, strict=True)
    }
    by_type = {
        found.kind: TypeScores(
            found.n,
            {name: _score([samples[kind, name]]) for kind, name in samples if kind == found.kind},
            found.details,
        )
        for found in measured
    }
    return System(
        file.name,
        len(file),
        by_type,
        _families(samples),
        {
            name: _score([samples.get(part, _NOTHING) for part in parts]) if parts else Score(math.nan)
            for name, parts in paper_names().items()
        },
        {"name": embedder.name, "hash": embedder.hash(vocabulary.names)} if vocabulary.names else None,
    )


_NOTHING = (math.nan, np.empty(0))


def _score(samples: Sequence[tuple[float, np.ndarray]]) -> Score:
    """The mean of some metrics, with its interval."""
    value = sum(value for value, _ in samples) / len(samples)
    if math.isnan(value):
        return Score(math.nan)
    return Score(value, *interval(np.mean([drawn for _, drawn in samples], axis=0)))


def _families(samples: dict[tuple[str, str], tuple[float, np.ndarray]]) -> dict[str, dict[str, Score]]:
    """family → metric → the plain mean over the family's types that have it, as the published average is."""
    grouped: dict[str, dict[str, list[tuple[float, np.ndarray]]]] = {}
    for (kind, name), found in samples.items():
        grouped.setdefault(FAMILIES[kind], {}).setdefault(name, []).append(found)
    return {family: {name: _score(found) for name, found in names.items()} for family, names in grouped.items()}


# ---- baselines -----------------------------------------------------------------------------------


def random_baseline(file: Predictions, seed: int) -> Predictions:
    """Answers each question with the true answer of another one of its type, drawn at random."""
    rng = np.random.default_rng(seed)
    said = file.truths.copy()
    for kind in QUESTION_TYPES:
        rows = file.rows(kind)
        said[rows] = file.truths[rng.choice(rows, len(rows))] if len(rows) else said[rows]
    return replace(file, name="random", said=said)


# ---- the verb ------------------------------------------------------------------------------------


def score(options: ScoreOptions, reporter: Reporter = SILENT) -> Scores:
    """Score each file of predictions; raises InputError for what is no prediction."""
    files = [read_predictions(path, options, reporter) for path in options.predictions]
    vocabulary = vocabulary_of(files, options.labels)
    if options.baseline:
        files.append(random_baseline(files[0], options.seed))
    embedder = Lexical()
    systems = [score_system(file, vocabulary, embedder, options, reporter) for file in files]
    settings = {"interval": 0.95, "replicates": options.replicates, "cluster": "scene", "seed": options.seed}
    return Scores(systems, settings)
