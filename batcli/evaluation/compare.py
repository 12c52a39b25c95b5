"""Comparison of two systems on the questions that both answered."""

from __future__ import annotations

import numpy as np

from batcli.core.errors import InputError
from batcli.core.progress import Reporter
from batcli.data.answers import Vocabulary
from batcli.evaluation.embed import Embedder
from batcli.evaluation.predictions import NO_ID, Predictions, match_questions
from batcli.evaluation.report import Comparison, Difference
from batcli.evaluation.scores import ScoredAnswers, mean_score, measure, paper_scores, sample
from batcli.evaluation.stats import Score, mcnemar
from batcli.evaluation.subjects import ANSWERS, LOWER_IS_BETTER


def compare(
    first: Predictions,
    second: Predictions,
    vocabulary: Vocabulary,
    embedder: Embedder,
    replicates: int,
    seed: int,
    reporter: Reporter,
) -> Comparison:
    """Scores of `first` minus those of `second`, with intervals of the paired bootstrap and McNemar's test."""
    rows, others = _pairs(first, second, reporter)
    names, clusters = np.unique(first.clusters[rows], return_inverse=True)
    pair = [first.only(rows), second.only(others)]
    measured = [measure(file, clusters, len(names), vocabulary, embedder) for file in pair]
    here, there = (sample(found, len(names), replicates, seed) for found in measured)
    differences = {key: (here[key][0] - there[key][0], here[key][1] - there[key][1]) for key in here}
    by_type: dict[str, dict[str, Difference]] = {}
    for one, other in zip(*measured, strict=True):
        by_type[one.type_name] = {
            metric: _difference(metric, mean_score(differences, [(name, metric)]), one.answers, other.answers)
            for name, metric in differences
            if name == one.type_name
        }
    return Comparison(
        second.name,
        len(rows),
        len(first) - len(rows),
        len(second) - len(rows),
        by_type,
        paper_scores(differences, ANSWERS.columns),
    )


def _pairs(first: Predictions, second: Predictions, reporter: Reporter) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the same questions in both. Warns of those that cannot be told apart; raises InputError if all are so."""
    pairs = match_questions(first, second)
    where, hint = f"--against {second.name}", "name the field of the ids: --field question_id=THEIR_NAME"
    if pairs.left_out:
        what = f"{pairs.left_out:,} of {len(first):,} questions cannot be told apart: no scene, no id of their own"
        if not len(pairs.rows):
            if shared := len(np.intersect1d(first.ids[first.ids != NO_ID], second.ids[second.ids != NO_ID])):
                what = f"{shared:,} ids stand in both, and none with the same type, question and true answer"
                raise InputError(what, where, "both must answer the same questions")
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


def _difference(metric: str, score: Score, one: ScoredAnswers, other: ScoredAnswers) -> Difference:
    """The difference `score`, with wins, losses and their p-value where answers are right or wrong."""
    if metric in ("map", "label_f1", "distance_mae"):  # no right or wrong per question
        return Difference(score)
    return with_counts(metric, score, *(found.ratios[metric][0] > 0 for found in (one, other)))


def with_counts(metric: str, score: Score, here: np.ndarray, there: np.ndarray) -> Difference:
    """The difference `score` with wins, losses and p-value. `here`, `there` (n,): whether each counts in the metric."""
    if metric in LOWER_IS_BETTER:
        here, there = ~here, ~there
    wins, losses = int(np.count_nonzero(here & ~there)), int(np.count_nonzero(there & ~here))
    return Difference(score, wins, losses, mcnemar(wins, losses))
