"""`bat score`: score answers, or what encoders hear, with intervals; compare them, hold them against gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError
from batcli.core.files import STDIO, require_writable, require_writable_file, write_text
from batcli.core.jsonl import write_records
from batcli.core.progress import SILENT, Reporter
from batcli.data.answers import Vocabulary
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.metadata import read_labels
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import FIELDS
from batcli.evaluation import baselines
from batcli.evaluation.compare import compare
from batcli.evaluation.embed import embedder_of
from batcli.evaluation.gates import Gate, judge, parse_gates
from batcli.evaluation.heard import is_heard, read_heard
from batcli.evaluation.heard_scores import about_published as heard_and_published
from batcli.evaluation.heard_scores import compare_heard, score_heard
from batcli.evaluation.predictions import (
    File,
    Layout,
    Prediction,
    Predictions,
    about_published,
    align_to_test_set,
    answered_files,
    iterate_predictions,
    open_predictions,
    read_predictions,
    vocabulary_of,
)
from batcli.evaluation.report import Scores, to_junit
from batcli.evaluation.scores import score_systems, unparsed
from batcli.evaluation.stats import LEVEL
from batcli.evaluation.subjects import HEARING
from batcli.options import ScoreOptions, refuse_given

OF_ANSWERS = [
    *("baseline", "prior", "embedder", "embedder_cache", "labels", "unparsed", "report", "data", "scenes"),
    *("questions", "field", "type"),
]
"""Options about answers to questions, which an encoder does not give."""


def score(options: ScoreOptions, reporter: Reporter = SILENT) -> Scores:
    """Score every file of predictions, and write the files that the options ask for.

    Raises InputError for what is no prediction and for wrong options. Gates that are missed are in
    `verdicts`: what to do about them is the caller's business.
    """
    gates = parse_gates(options.fail_under, options.fail_over)
    layout = _layout(options)
    _check_options(options, gates)
    paths = [*options.predictions, *([options.against] if options.against else [])]
    with open_predictions(paths) as files:
        if any(map(is_heard, files)):
            result = _score_heard(options, files, gates, reporter)
        else:
            result = _score_answers(options, files, layout, gates, reporter)
    if options.junit and result.systems:
        write_text(options.junit, to_junit(result))
    return result


def _score_answers(
    options: ScoreOptions, files: Sequence[File], layout: Layout, gates: Sequence[Gate], reporter: Reporter
) -> Scores:
    """Score answers to questions."""
    # Its clips and BRIRs are named, not read.
    dataset = open_dataset(options.data, follow_links=True) if options.data else None
    origin, origin_layout = files[0], layout
    read = [read_predictions(file, layout, options.cluster, reporter) for file in files]
    if options.questions:
        origin = File(options.questions, options.questions.stem, str(options.questions))
        origin_layout = Layout({}, questions_only=True)
        whole = read_predictions(origin, origin_layout, options.cluster, reporter)
        read = [align_to_test_set(found, whole, reporter) for found in read]
    vocabulary = vocabulary_of(read, *_label_names(options, dataset))
    against = read.pop() if options.against else None
    answered = answered_files(read, against, bool(gates), reporter)
    answers = partial(iterate_predictions, origin, origin_layout)  # the questions of the first column, again
    columns = [*answered, *_baselines(options, read[0], answers, vocabulary)]
    if options.dry_run:
        return _counts_only(columns, reporter)
    embedder = embedder_of(options.embedder, vocabulary, options.embedder_cache)
    systems, measured = score_systems(columns, vocabulary, embedder, options.replicates, options.seed, reporter)
    comparison = (
        compare(columns[0], against, vocabulary, embedder, options.replicates, options.seed, reporter)
        if against
        else None
    )
    settings = {**_settings(options), "labels": len(vocabulary.names)}
    note = about_published(read[0]) if options.published else None
    result = Scores(systems, settings, comparison, judge(systems[: len(answered)], gates), note)
    if options.unparsed:
        count = write_records(options.unparsed, unparsed(answers(), columns[0], measured))
        reporter.info(f"{options.unparsed}: {count:,} of {len(columns[0]):,} answers could not be read in full")
    if options.report:
        from batcli.evaluation.html import write_report

        write_report(options.report, result, answers(), columns[0], measured, dataset, options.scenes)
    return result


def _score_heard(options: ScoreOptions, files: Sequence[File], gates: Sequence[Gate], reporter: Reporter) -> Scores:
    """Score what encoders hear. `--against` has one encoder, or those of the first file."""
    refuse_given(options, OF_ANSWERS, "is about answers; these files are what an encoder hears")
    read = [read_heard(file, options.cluster, reporter) for file in files]
    against = read.pop() if options.against else []
    columns = [column for file in read for column in file]
    if options.dry_run:
        for column in columns:
            reporter.info(f"{column.name}: {len(column):,} scenes")
        return Scores([], {})
    systems = list(score_heard(columns, options.replicates, options.seed, reporter))
    comparison = compare_heard(columns[0], against[0], options.replicates, options.seed) if against else None
    note = heard_and_published(columns[0]) if options.published else None
    return Scores(systems, _settings(options), comparison, judge(systems, gates), note, HEARING)


def _settings(options: ScoreOptions) -> dict[str, Any]:
    names = ("replicates", "cluster", "seed")
    return {"interval": LEVEL, **{name: getattr(options, name) for name in names}}


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


def _check_options(options: ScoreOptions, gates: Sequence[Gate]) -> None:
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
        return [label.name for label in read_labels(options.labels)], options.labels
    if dataset:
        return [label.name for label in dataset.labels], dataset.path(dataset.labels_file)
    return None, None


def _baselines(
    options: ScoreOptions, file: Predictions, answers: Callable[[], Iterator[Prediction]], vocabulary: Vocabulary
) -> Iterator[Predictions]:
    if not options.baseline:
        return
    counted = answers
    if options.prior:
        prior_file = File(options.prior, options.prior.stem, str(options.prior))
        counted = partial(iterate_predictions, prior_file, Layout({}, questions_only=True))
    prior = baselines.count_answers(counted(), vocabulary)
    for name in dict.fromkeys(options.baseline):
        yield baselines.answer_by_prior(name, file, answers(), prior, vocabulary, options.seed)


def _counts_only(files: Sequence[Predictions], reporter: Reporter) -> Scores:
    for file in files:
        counts = {kind: len(file.rows(kind)) for kind in QUESTION_TYPES}
        listed = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        reporter.info(f"{file.name}: {len(file):,} questions ({listed})")
    return Scores([], {})
