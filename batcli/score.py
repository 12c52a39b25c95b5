"""`bat score`: read answers, measure them, say how sure the numbers are, hold them against gates."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from batcli.core.errors import InputError
from batcli.core.files import STDIO, inside, require_writable, require_writable_file, write_text
from batcli.core.jsonl import read_records, write_records
from batcli.core.progress import SILENT, Reporter
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.metadata import Reverb
from batcli.data.metadata import read_labels as read_label_file
from batcli.data.schema import FAMILIES, FIELDS, QUESTION_TYPES, Source
from batcli.evaluation import baselines, detection, embed, localization, reasoning
from batcli.evaluation.predictions import (
    LABEL_TYPES,
    NOT_SAID,
    PLACE_TYPES,
    Answered,
    File,
    Layout,
    Predictions,
    matched,
    of_test_set,
    opened,
    read_answers,
    read_predictions,
    vocabulary_of,
)
from batcli.evaluation.report import (
    Comparison,
    Difference,
    Scores,
    System,
    TypeScores,
    Verdict,
    paper_columns,
    to_junit,
)
from batcli.evaluation.stats import LEVEL, Ratios, Score, Statistic, bootstrap, interval, mcnemar
from batcli.options import ScoreOptions
from batcli.questions.answers import (
    Vocabulary,
    read_distance,
    read_doa,
    read_labels,
    read_yes_no,
    split_labels,
    write_doa,
)

Samples = dict[tuple[str, str], tuple[float, np.ndarray]]
"""(type, metric) → its value, and its values on the resamples."""


# ---- measuring -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """The questions of one type, measured."""

    kind: str
    rows: np.ndarray  # (n,) which questions of the file
    statistics: list[Statistic]
    parts: dict[str, detection.Parts]  # per question: what the ratios among the metrics are made of
    details: dict[str, Any]
    unread: dict[str, np.ndarray]  # part of an answer → (n,) bool: asked for, and not read
    said_metres: np.ndarray | None = None  # (n,), where the answer has a distance

    def badness(self) -> np.ndarray:
        """(n,) how wrong each answer is: 0 is right. What could not be read is the least of what is wrong."""
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


def measure(
    file: Predictions, kind: str, clusters: np.ndarray, width: int, vocabulary: Vocabulary, embedder: embed.Embedder
) -> Measured:
    """All metrics of one type. clusters (n,): number of each question's cluster, of `width`."""
    rows = file.rows(kind)
    said, truth, clusters = file.said[rows], file.truths[rows], clusters[rows]
    every = np.ones(len(rows))
    statistics: list[Statistic] = []
    parts: dict[str, detection.Parts] = {}
    details: dict[str, Any] = {}
    unread: dict[str, np.ndarray] = {}
    metres_said: np.ndarray | None = None

    def share(name: str, of: np.ndarray) -> None:
        parts[name] = of.astype(float), every

    def distances(said_metres: np.ndarray, metres: np.ndarray) -> None:
        nonlocal metres_said
        metres_said = said_metres
        unread["distance"] = np.isnan(said_metres)
        share("der", localization.distance_wrong(said_metres, metres))
        error = np.where(unread["distance"], 0.0, np.abs(said_metres - metres))
        parts["distance_mae"] = error, (~unread["distance"]).astype(float)
        details["calibration"] = localization.calibration(said_metres, metres)

    if kind in LABEL_TYPES:
        said_labels = _labels(file, said, partial(read_labels, vocabulary=vocabulary))
        labels = _labels(file, truth, partial(_written_labels, vocabulary=vocabulary))
        unread["labels"] = np.array([not found for found in said_labels])
        if kind == "MIXUP_NONBINARY_SOURCE":
            share("source_acc", reasoning.same_labels(said_labels, labels))
        else:
            distinct, texts = np.unique(said, return_inverse=True)
            if distinct[0] == NOT_SAID:  # no text, no score
                distinct, texts = distinct[1:], texts - 1
            columns = embedder.columns([file.texts[text] for text in distinct], vocabulary.names)
            statistics.append(detection.mean_average_precision(columns, texts, labels, clusters, width))
            parts["label_f1"] = detection.label_f1(said_labels, labels)
    elif kind in PLACE_TYPES:
        (said_codes, said_metres), (codes, metres) = _places(file, said), _places(file, truth)
        right = localization.axes_right(said_codes, codes)
        share("doa_acc", np.all(right, axis=1))
        for axis, name in enumerate(localization.AXIS_METRICS):
            share(name, right[:, axis])
            unread["/".join(localization.WORDS[axis])] = said_codes[:, axis] < 0
        details["confusion"] = localization.confusion(said_codes, codes)
        distances(said_metres, metres)
    elif kind == "MIXUP_NONBINARY_DIRECTION":
        said_codes, codes = _places(file, said)[0], _places(file, truth)[0]
        unread["direction"] = ~reasoning.choices_read(said_codes, codes)
        share("choice_acc", reasoning.choices_right(said_codes, codes))
    elif kind == "MIXUP_NONBINARY_DISTANCE":
        distances(_of_texts(file, said, _metres, math.nan), _of_texts(file, truth, _metres, math.nan))
    else:
        said_codes, codes = (_of_texts(file, ids, _yes_no, NOT_SAID) for ids in (said, truth))
        unread["yes/no"] = said_codes < 0
        share("binary_acc", reasoning.agreement(said_codes, codes))
    share("answered", ~np.any(list(unread.values()), axis=0))
    statistics.append(Ratios.of(parts, clusters))
    return Measured(kind, rows, statistics, parts, details, unread, metres_said)


def _of_texts(file: Predictions, ids: np.ndarray, read: Callable[[str], Any], missing: Any) -> np.ndarray:
    """`read` of every text, each distinct one once; `missing` for no text."""
    distinct, places = np.unique(ids, return_inverse=True)
    return np.array([missing if text == NOT_SAID else read(file.texts[text]) for text in distinct])[places]


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


def _places(file: Predictions, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction codes (n, 3) and metres (n,)."""
    found = _of_texts(file, ids, _place, (-1, -1, -1, math.nan))
    return found[:, :3].astype(int), found[:, 3]


def _labels(file: Predictions, ids: np.ndarray, read: Callable[[str], frozenset[int]]) -> list[frozenset[int]]:
    found = {text: read(file.texts[text]) if text != NOT_SAID else frozenset() for text in np.unique(ids).tolist()}
    return [found[text] for text in ids.tolist()]


def _written_labels(text: str, vocabulary: Vocabulary) -> frozenset[int]:
    """Of a true answer: exactly the names between its semicolons."""
    return frozenset().union(*(read_labels(name, vocabulary) for name in split_labels(text)))


def measure_all(
    file: Predictions, clusters: np.ndarray, width: int, vocabulary: Vocabulary, embedder: embed.Embedder
) -> list[Measured]:
    kinds = [kind for kind in QUESTION_TYPES if len(file.rows(kind))]
    return [measure(file, kind, clusters, width, vocabulary, embedder) for kind in kinds]


def sample(measured: Sequence[Measured], width: int, options: ScoreOptions) -> Samples:
    """Every metric's value and resamples. Equal clusters and seed give equal draws, whatever the system."""
    statistics = [statistic for found in measured for statistic in found.statistics]
    kinds = [found.kind for found in measured for _ in found.statistics]
    drawn = bootstrap(statistics, width, options.replicates, options.seed)
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


def _paper(samples: Samples) -> dict[str, Score]:
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
        found.kind: TypeScores(
            len(found.rows),
            {name: mean_score(samples, [(kind, name)]) for kind, name in samples if kind == found.kind},
            found.details,
        )
        for found in measured
    }
    has_map = any(name == "map" for _, name in samples)
    return System(file.name, len(file), by_type, _families(samples), _paper(samples), embedder if has_map else None)


# ---- comparing -----------------------------------------------------------------------------------


def compare(
    first: Predictions,
    second: Predictions,
    vocabulary: Vocabulary,
    embedder: embed.Embedder,
    options: ScoreOptions,
    reporter: Reporter,
) -> Comparison:
    """`first` − `second` on the questions that both answered: bootstrap of the pairs, and McNemar's test."""
    rows, others = _pairs(first, second, reporter)
    names, clusters = np.unique(first.clusters[rows], return_inverse=True)
    pair = [first.only(rows), second.only(others)]
    measured = [measure_all(file, clusters, len(names), vocabulary, embedder) for file in pair]
    here, there = (sample(found, len(names), options) for found in measured)
    differences = {key: (here[key][0] - there[key][0], here[key][1] - there[key][1]) for key in here}
    by_type: dict[str, dict[str, Difference]] = {}
    for one, other in zip(*measured, strict=True):
        by_type[one.kind] = {
            name: _difference(name, mean_score(differences, [(kind, name)]), one, other)
            for kind, name in differences
            if kind == one.kind
        }
    return Comparison(
        second.name, len(rows), len(first) - len(rows), len(second) - len(rows), by_type, _paper(differences)
    )


def _pairs(first: Predictions, second: Predictions, reporter: Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the same questions in both. Says how many could not be told apart; refuses if that is all of them."""
    pairs = matched(first, second)
    where, hint = f"--against {second.name}", "name the field of the ids: --field question_id=THEIR_NAME"
    if pairs.left_out:
        what = f"{pairs.left_out:,} of {len(first):,} questions cannot be told apart: no scene, no id of their own"
        if not len(pairs.rows):
            raise InputError(what, where, hint)
        reporter.warn(f"{where}: {what}; they are left out ({hint})")
    if not len(pairs.rows):
        raise InputError("no question in common", where, "both must answer the same questions")
    if pairs.by_order:
        reporter.warn(
            f"{where}: {pairs.by_order:,} of {len(pairs.rows):,} pairs are of questions that stand more than once "
            "and have no id of their own; they are paired in the order of the files"
        )
    return pairs.rows, pairs.others


def _difference(name: str, score: Score, one: Measured, other: Measured) -> Difference:
    if name in ("map", "label_f1", "distance_mae"):  # no right or wrong per question
        return Difference(score)
    here, there = (found.parts[name][0] > 0 for found in (one, other))
    if name == "der":
        here, there = ~here, ~there
    wins, losses = int(np.count_nonzero(here & ~there)), int(np.count_nonzero(there & ~here))
    return Difference(score, wins, losses, mcnemar(wins, losses))


# ---- gates ---------------------------------------------------------------------------------------


def parse_gates(options: ScoreOptions) -> list[tuple[str, bool, float]]:
    """(`TYPE.metric`, whether it is an upper limit, the limit). Raises InputError for what is none."""
    gates = []
    for over, texts in ((False, options.fail_under), (True, options.fail_over)):
        for text in texts:
            flag = "--fail-over" if over else "--fail-under"
            name, _, value = text.partition("=")
            try:
                limit = float(value)
            except ValueError:
                limit = math.nan
            if "." not in name or not math.isfinite(limit):
                raise InputError(f"not a gate: {text!r:.80}", flag, "such as DOA.doa_acc=0.4 or E.binary_acc=0.6")
            if abs(limit) > 1.0 and not name.endswith("distance_mae"):
                raise InputError(f"{text}: scores are fractions", flag, f"did you mean {limit / 100:g}?")
            gates.append((name.strip(), over, limit))
    return gates


def judge(systems: Sequence[System], gates: Sequence[tuple[str, bool, float]]) -> list[Verdict]:
    """A gate holds for each system; a metric that is not there fails it."""
    return [
        Verdict(system.name, name, over, limit, (system.find(name) or Score(math.nan)).value)
        for system in systems
        for name, over, limit in gates
    ]


# ---- the verb ------------------------------------------------------------------------------------


def score(options: ScoreOptions, reporter: Reporter = SILENT) -> Scores:
    """Score every file of predictions, and write the files that the options ask for.

    Raises InputError for what is no prediction and for wrong options. Gates that are missed are in
    `verdicts`: what to do about them is the caller's business.
    """
    gates = parse_gates(options)
    layout = _layout(options)
    _check_options(options, gates)
    dataset = open_dataset(options.data) if options.data else None
    paths = [*options.predictions, *([options.against] if options.against else [])]
    again = bool(options.unparsed or options.report or options.baseline)
    with opened(paths, again) as files:
        origin, origin_layout = files[0], layout
        read = [read_predictions(file, layout, options.cluster, reporter) for file in files]
        if options.questions:
            origin = File(options.questions, options.questions.stem, str(options.questions))
            origin_layout = Layout({}, questions_only=True)
            whole = read_predictions(origin, origin_layout, options.cluster, reporter)
            read = [of_test_set(found, whole, reporter) for found in read]
        vocabulary = vocabulary_of(read, *_label_names(options, dataset))
        against = read.pop() if options.against else None
        answered = _answered_files(read, against, gates, reporter)
        answers = partial(read_answers, origin, origin_layout)  # the questions of the first column, again
        columns = [*answered, *_baselines(options, read[0], answers, vocabulary)]
        if options.dry_run:
            return _counts_only(columns, reporter)
        embedder = _embedder(options, vocabulary)
        systems, measured = _systems(columns, vocabulary, embedder, options, reporter)
        settings = {"interval": LEVEL, "replicates": options.replicates, "cluster": options.cluster}
        result = Scores(
            systems,
            {**settings, "seed": options.seed, "labels": len(vocabulary.names)},
            compare(columns[0], against, vocabulary, embedder, options, reporter) if against else None,
            judge(systems[: len(answered)], gates),
            _about_published(read[0]) if options.published else None,
        )
        if options.unparsed:
            count = write_records(options.unparsed, _unparsed(answers(), columns[0], measured))
            reporter.info(f"{options.unparsed}: {count:,} of {len(columns[0]):,} answers could not be read in full")
        if options.report:
            write_report(options, result, answers(), columns[0], measured, dataset)
    if options.junit:
        write_text(options.junit, to_junit(result))
    return result


def _answered_files(
    files: Sequence[Predictions], against: Predictions | None, gates: Sequence[Any], reporter: Reporter
) -> list[Predictions]:
    """All files, or none where all are questions alone, for the baselines to answer."""
    missing = [file for file in [*files, *([against] if against else [])] if not file.answered]
    if missing and (gates or against or len(missing) < len(files)):
        raise InputError("questions without predictions", missing[0].name, "only baselines can do with them")
    if missing:
        return []
    for other in files[1:]:
        pairs = matched(files[0], other)
        common = len(pairs.rows) + pairs.left_out
        if common < max(len(files[0]), len(other)):
            reporter.warn(
                f"{files[0].name} ({len(files[0]):,} questions) and {other.name} ({len(other):,}) share {common:,}: "
                "their columns are about different questions"
            )
    return list(files)


def _systems(
    columns: Sequence[Predictions],
    vocabulary: Vocabulary,
    embedder: embed.Embedder,
    options: ScoreOptions,
    reporter: Reporter,
) -> tuple[list[System], list[Measured]]:
    """Every column scored, and what the first was measured to be."""
    facts = {"name": embedder.name, "hash": embedder.hash(vocabulary.names)}
    systems: list[System] = []
    first: list[Measured] = []
    for file in reporter.track(columns, "scoring"):
        names, clusters = np.unique(file.clusters, return_inverse=True)
        measured = measure_all(file, clusters, len(names), vocabulary, embedder)
        systems.append(system_of(file, measured, sample(measured, len(names), options), facts))
        first = first or measured
    return systems, first


def _layout(options: ScoreOptions) -> Layout:
    fields = {}
    for text in options.field:
        ours, equals, theirs = text.partition("=")
        if not equals or not theirs or ours not in (*FIELDS, "prediction"):
            hint = "OURS=THEIRS, ours one of prediction, " + ", ".join(FIELDS)
            raise InputError(f"not a field: {text!r:.80}", "--field", hint)
        fields[ours] = theirs
    if options.type and options.type not in QUESTION_TYPES:
        raise InputError(f"unknown question type {options.type!r:.80}", "--type", "known: " + ", ".join(QUESTION_TYPES))
    return Layout(fields, options.type, questions_only=bool(options.baseline))


def _check_options(options: ScoreOptions, gates: Sequence[Any]) -> None:
    for name in options.baseline:
        if name not in baselines.NAMES:
            raise InputError(f"unknown baseline {name!r:.80}", "--baseline", "known: " + ", ".join(baselines.NAMES))
    if options.junit and not gates:
        raise InputError("no gates to write", "--junit", "give --fail-under or --fail-over")
    if options.prior and not options.baseline:
        raise InputError("nothing to count for", "--prior", "give --baseline")
    if not options.predictions:
        raise InputError("no predictions given", hint="a JSONL file, or - for standard input")
    for path in (options.output, options.junit, options.unparsed):
        if path is not None and path != STDIO:
            require_writable_file(path)
    if options.report:
        require_writable(options.report)
        try:
            import matplotlib  # noqa: F401  (before the work, not after it)
        except ImportError:
            raise InputError("needs matplotlib", "--report", "pip install 'batcli[plot]'") from None


def _label_names(options: ScoreOptions, dataset: Dataset | None) -> tuple[list[str] | None, Path | None]:
    """The names of `--labels`, else of `--data`, and their file."""
    if options.labels:
        return [label.name for label in read_label_file(options.labels)], options.labels
    if dataset:
        return [label.name for label in dataset.labels], dataset.path(dataset.labels_file)
    return None, None


def _embedder(options: ScoreOptions, vocabulary: Vocabulary) -> embed.Embedder:
    kind, _, value = options.embedder.partition(":")
    if kind == "lexical" and not value:
        return embed.Lexical()
    if kind == "labels" and value:
        return embed.label_vectors(Path(value), vocabulary.names, partial(read_labels, vocabulary=vocabulary))
    if kind == "sentence" and value:
        return embed.sentence_model(value)
    if kind == "openai" and value:
        return embed.endpoint(value, options.embedder_cache or embed.default_cache())
    if kind == "python" and value:
        return embed.installed_function(value)
    hint = "lexical, sentence:DIR, openai:MODEL, labels:FILE.npy or python:MODULE:FUNCTION"
    raise InputError(f"unknown embedder {options.embedder!r:.80}", "--embedder", hint)


def _baselines(
    options: ScoreOptions, file: Predictions, answers: Callable[[], Iterator[Answered]], vocabulary: Vocabulary
) -> Iterator[Predictions]:
    if not options.baseline:
        return
    counted = answers
    if options.prior:
        prior_file = File(options.prior, options.prior.stem, str(options.prior))
        counted = partial(read_answers, prior_file, Layout({}, questions_only=True))
    prior = baselines.count_answers(counted(), vocabulary)
    for name in dict.fromkeys(options.baseline):
        yield baselines.answer_without_listening(name, file, answers(), prior, vocabulary, options.seed)


def _about_published(file: Predictions) -> str:
    """What a reader must know before comparing with the published rows."""
    if file.published_look == len(file):
        return (
            "The published rows are of SpatialSoundQA's test set with OpenAI embeddings. These questions have ids of "
            "its form (AudioSet evaluation clips, Matterport3D rooms); whether they are all of it cannot be told here."
        )
    return (
        f"The published rows are of another test set: {len(file) - file.published_look:,} of these {len(file):,} "
        "questions are not about AudioSet evaluation clips in Matterport3D rooms. They are for orientation, and do "
        "not compare."
    )


def _counts_only(files: Sequence[Predictions], reporter: Reporter) -> Scores:
    for file in files:
        counts = {kind: len(file.rows(kind)) for kind in QUESTION_TYPES}
        listed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        reporter.info(f"{file.name}: {len(file):,} questions ({listed})")
    return Scores([], {})


def _unparsed(answers: Iterator[Answered], file: Predictions, measured: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """The records whose answer could not be read in full, with what is missing of it."""
    missing: dict[int, list[str]] = {}
    for found in measured:
        for part, unread in found.unread.items():
            for row in found.rows[unread].tolist():
                missing.setdefault(row, []).append(part)
    for row, answer in enumerate(answers):
        if row in missing:
            said = int(file.said[row])
            text = None if said == NOT_SAID else file.texts[said]
            yield {**_finite(answer.record), "prediction": text, "not_read": missing[row]}


def _finite(value: Any) -> Any:
    """JSON as others write it, null for NaN and infinity, which JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- the page ------------------------------------------------------------------------------------

WORST = 6
"""Cases of each type on the page."""


def write_report(
    options: ScoreOptions,
    result: Scores,
    answers: Iterator[Answered],
    file: Predictions,
    measured: Sequence[Measured],
    dataset: Dataset | None,
) -> None:
    """`index.html` in the report's folder, about the first system."""
    import pandas

    from batcli.evaluation.html import AXES, Case, html_report

    assert options.report is not None
    reverbs = _all_reverbs(dataset) if dataset else {}
    links = _scene_links(options.scenes, options.report) if options.scenes else {}
    worst = {row: order for found in measured for order, row in enumerate(_worst(found))}
    with_distance = {
        int(row): (found, place)
        for found in measured
        if found.said_metres is not None
        for place, row in enumerate(found.rows)
    }
    places, cases = [], []
    for row, answer in enumerate(answers):
        if row in with_distance:
            places.append(_located(answer, *with_distance[row], reverbs))
        if row in worst:
            said = int(file.said[row])
            text = "(no answer)" if said == NOT_SAID else file.texts[said]
            files = links.get(answer.scene) or _source_links(answer.scene, dataset, options.report)
            case = Case(answer.kind, answer.question, answer.truth, text, " + ".join(answer.scene), files)
            cases.append((QUESTION_TYPES.index(answer.kind), worst[row], case))
    frame = pandas.DataFrame(places, columns=["kind", "truth", "said", "near", "right", *AXES])
    ordered = [case for _, _, case in sorted(cases, key=lambda entry: entry[:2])]
    write_text(options.report / "index.html", html_report(result, frame, ordered))


def _worst(found: Measured) -> list[int]:
    """Rows of the worst answers, the worst first."""
    badness = found.badness()
    return [int(found.rows[place]) for place in np.argsort(-badness, kind="stable")[:WORST] if badness[place] > 0]


def _located(answer: Answered, found: Measured, place: int, reverbs: Mapping[str, Reverb]) -> dict[str, Any]:
    """One row of the page's pictures."""
    assert found.said_metres is not None
    row = {
        "kind": answer.kind,
        "truth": read_distance(answer.truth),
        "said": found.said_metres[place],
        "near": 1.0 - found.parts["der"][0][place],
    }
    row["distance"] = row["truth"]
    if answer.kind not in PLACE_TYPES:
        return row
    row["right"] = found.parts["doa_acc"][0][place]
    # Which of two sources was asked about, the true answer tells; if both fit, neither is taken.
    fitting = [
        reverb
        for name in answer.scene[1::2]
        if (reverb := reverbs.get(name)) and write_doa(reverb.position) == answer.truth
    ]
    if len(fitting) == 1:
        position, extra = fitting[0].position, fitting[0].extra
        row |= {"azimuth": position.azimuth, "elevation": position.elevation, "distance": position.distance}
        row |= {name: extra[name] for name in ("rt60", "drr") if isinstance(extra.get(name), (int, float))}
    return row


def _all_reverbs(dataset: Dataset) -> dict[str, Reverb]:
    found: dict[str, Reverb] = {}
    for name, split in dataset.splits.items():
        if split.reverbs is not None:
            found |= dataset.reverbs(name)
    return found


def _address(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def _scene_links(folder: Path, report: Path) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Of the scenes that `bat spatialize` rendered: ids → link to the WAV."""
    links = {}
    for where, record in read_records(folder / "scenes.jsonl"):
        try:
            ids = tuple(part for source in record["sources"] for part in (source["audio_id"], source["reverb_id"]))
            if record["file"] is not None:
                links[ids] = [(record["file"], _address(inside(folder, record["file"], where), report))]
        except (KeyError, TypeError):
            raise InputError("not a scene of `bat spatialize`", where) from None
    return links


def _source_links(scene: Sequence[str], dataset: Dataset | None, report: Path) -> list[tuple[str, str]]:
    """Clips and BRIRs of a scene, where the dataset is known."""
    if dataset is None:
        return []
    files = [path for pair in zip(scene[::2], scene[1::2], strict=True) for path in dataset.files_of(Source(*pair))]
    return [(path.name, _address(path, report)) for path in files if path.exists()]
