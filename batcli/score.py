"""`bat score`: read answers, score them with intervals, compare them, hold them against gates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

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
from batcli.evaluation.predictions import (
    File,
    Layout,
    Prediction,
    Predictions,
    about_published,
    align_to_test_set,
    iterate_predictions,
    match_questions,
    open_predictions,
    read_predictions,
    vocabulary_of,
)
from batcli.evaluation.report import Scores, to_junit
from batcli.evaluation.scores import score_systems, unparsed
from batcli.evaluation.stats import LEVEL
from batcli.options import ScoreOptions


def score(options: ScoreOptions, reporter: Reporter = SILENT) -> Scores:
    """Score every file of predictions, and write the files that the options ask for.

    Raises InputError for what is no prediction and for wrong options. Gates that are missed are in
    `verdicts`: what to do about them is the caller's business.
    """
    gates = parse_gates(options.fail_under, options.fail_over)
    layout = _layout(options)
    _check_options(options, gates)
    dataset = open_dataset(options.data) if options.data else None
    paths = [*options.predictions, *([options.against] if options.against else [])]
    reread = bool(options.unparsed or options.report or options.baseline)
    with open_predictions(paths, reread) as files:
        origin, origin_layout = files[0], layout
        read = [read_predictions(file, layout, options.cluster, reporter) for file in files]
        if options.questions:
            origin = File(options.questions, options.questions.stem, str(options.questions))
            origin_layout = Layout({}, questions_only=True)
            whole = read_predictions(origin, origin_layout, options.cluster, reporter)
            read = [align_to_test_set(found, whole, reporter) for found in read]
        vocabulary = vocabulary_of(read, *_label_names(options, dataset))
        against = read.pop() if options.against else None
        answered = _answered_files(read, against, gates, reporter)
        answers = partial(iterate_predictions, origin, origin_layout)  # the questions of the first column, again
        columns = [*answered, *_baselines(options, read[0], answers, vocabulary)]
        if options.dry_run:
            return _counts_only(columns, reporter)
        embedder = embedder_of(options.embedder, vocabulary, options.embedder_cache)
        systems, measured = score_systems(columns, vocabulary, embedder, options.replicates, options.seed, reporter)
        settings = {"interval": LEVEL, "replicates": options.replicates, "cluster": options.cluster}
        result = Scores(
            systems,
            {**settings, "seed": options.seed, "labels": len(vocabulary.names)},
            compare(columns[0], against, vocabulary, embedder, options.replicates, options.seed, reporter)
            if against
            else None,
            judge(systems[: len(answered)], gates),
            about_published(read[0]) if options.published else None,
        )
        if options.unparsed:
            count = write_records(options.unparsed, unparsed(answers(), columns[0], measured))
            reporter.info(f"{options.unparsed}: {count:,} of {len(columns[0]):,} answers could not be read in full")
        if options.report:
            from batcli.evaluation.html import write_report

            write_report(options.report, result, answers(), columns[0], measured, dataset, options.scenes)
    if options.junit:
        write_text(options.junit, to_junit(result))
    return result


def _answered_files(
    files: Sequence[Predictions], against: Predictions | None, gates: Sequence[Gate], reporter: Reporter
) -> list[Predictions]:
    """All files, or none where all are questions alone, for the baselines to answer."""
    missing = [file for file in [*files, *([against] if against else [])] if not file.answered]
    if missing and (gates or against or len(missing) < len(files)):
        raise InputError("questions without predictions", missing[0].name, "only baselines can do with them")
    if missing:
        return []
    for other in files[1:]:
        pairs = match_questions(files[0], other)
        common = len(pairs.rows) + pairs.left_out
        if common < max(len(files[0]), len(other)):
            reporter.warn(
                f"{files[0].name} ({len(files[0]):,} questions) and {other.name} ({len(other):,}) share {common:,}: "
                "their columns are about different questions"
            )
    return list(files)


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
