"""Scores of what encoders hear, as Spatial-AST's evaluation has them.

map
    Mean over the events that occur of the average precision of their scores.
er20, mae
    Great-circle error of the direction against the label in whole degrees: share over 20°, and mean in degrees.
der
    Share of distances off by more than one class of 0.5 m.
named
    Share of sources with one of their labels among the events of the places heard, if these have names.

A scene without a result ranks below all others in `map`, is wrong in `er20`, `der` and `named`, and left out of `mae`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from batcli.core.errors import InputError
from batcli.core.progress import Reporter
from batcli.evaluation.compare import with_counts
from batcli.evaluation.heard import HeardScenes
from batcli.evaluation.metrics import WRONG_DIRECTION, mean_average_precision
from batcli.evaluation.report import Comparison, Difference, System, TypeScores
from batcli.evaluation.scores import Samples, mean_score, paper_scores, sample
from batcli.evaluation.stats import Ratios, Statistic
from batcli.evaluation.subjects import HEARING, ONE_SOURCE, TWO_SOURCES

TYPES = {1: ONE_SOURCE, 2: TWO_SOURCES}  # number of sources → type in the scores
PUBLISHED_SCENES = 17_148


class MeasuredScenes(NamedTuple):
    """The scenes with one number of sources, and their metrics, to be bootstrapped."""

    type_name: str
    n: int  # scenes
    counts: dict[str, int]  # sources; events that occur
    statistics: list[Statistic]
    right: dict[str, np.ndarray]  # metric of right and wrong → (sources,) whether each counts in it


def measure(heard: HeardScenes, clusters: np.ndarray, n_clusters: int) -> list[MeasuredScenes]:
    """The metrics of each number of sources. clusters (n,): the cluster of each scene, 0 … n_clusters − 1."""
    measured = []
    for count, type_name in TYPES.items():
        rows = np.flatnonzero(heard.counts == count)
        if not len(rows):
            continue
        good = np.flatnonzero(~np.isnan(heard.scores[rows]).any(axis=1))
        texts = np.full(len(rows), -1)  # here a "text" is a scene with a result
        texts[good] = good
        targets = [heard.targets[row] for row in rows.tolist()]
        columns = ((good, heard.scores[rows[good], event]) for event in range(heard.scores.shape[1]))
        precision = mean_average_precision(columns, texts, targets, clusters[rows], n_clusters)
        sources = np.flatnonzero(heard.counts[heard.scene_of] == count)
        angle, off = heard.angle[sources], heard.classes_off[sources]
        given, all_of_them = ~np.isnan(angle), np.ones(len(sources))
        right = {"er20": ~(angle <= WRONG_DIRECTION), "der": ~(off <= 1)}
        ratios = {
            "er20": (right["er20"].astype(float), all_of_them),
            "mae": (np.where(given, angle, 0.0), given.astype(float)),
            "der": (right["der"].astype(float), all_of_them),
        }
        if heard.named is not None:
            right["named"] = heard.named[sources]
            ratios["named"] = (right["named"].astype(float), all_of_them)
        occurring = len(frozenset[int]().union(*targets))
        statistics: list[Statistic] = [precision, Ratios.of(ratios, clusters[heard.scene_of[sources]])]
        counts = {"sources": len(sources), "events": occurring}
        measured.append(MeasuredScenes(type_name, len(rows), counts, statistics, right))
    return measured


def score_heard(columns: Sequence[HeardScenes], replicates: int, seed: int, reporter: Reporter) -> Iterator[System]:
    """The scores of each encoder."""
    for heard in reporter.track(columns, "scoring"):
        names, clusters = np.unique(heard.clusters, return_inverse=True)
        measured = measure(heard, clusters, len(names))
        samples = sample(measured, len(names), replicates, seed)
        by_type = {
            found.type_name: TypeScores(found.n, _scores(samples, found.type_name), found.counts) for found in measured
        }
        yield System(heard.name, len(heard), by_type, {}, paper_scores(samples, HEARING.columns))


def _scores(samples: Samples, type_name: str) -> dict[str, Any]:
    return {metric: mean_score(samples, [(name, metric)]) for name, metric in samples if name == type_name}


def compare_heard(first: HeardScenes, second: HeardScenes, replicates: int, seed: int) -> Comparison:
    """Scores of `first` minus those of `second` on the scenes that both have. Raises InputError if there are none."""
    _, rows, others = np.intersect1d(first.keys, second.keys, return_indices=True)
    if not len(rows):
        hint = "both must hear the same scenes: the same clips, split, --sources and --seed"
        raise InputError("no scene in common", f"--against {second.name}", hint)
    order = np.argsort(rows)
    rows, others = rows[order], others[order]
    names, clusters = np.unique(first.clusters[rows], return_inverse=True)
    pair = [measure(each.only(at), clusters, len(names)) for each, at in ((first, rows), (second, others))]
    here, there = (sample(found, len(names), replicates, seed) for found in pair)
    shared = [key for key in here if key in there]
    differences: Samples = {key: (here[key][0] - there[key][0], here[key][1] - there[key][1]) for key in shared}
    by_type: dict[str, dict[str, Difference]] = {}
    for one, other in zip(*pair, strict=True):
        by_type[one.type_name] = {}
        for metric, score in _scores(differences, one.type_name).items():
            found = (one.right.get(metric), other.right.get(metric))
            by_type[one.type_name][metric] = (
                with_counts(metric, score, *found) if found[0] is not None else Difference(score)
            )
    counts = (len(rows), len(first) - len(rows), len(second) - len(rows))
    return Comparison(second.name, *counts, by_type, paper_scores(differences, HEARING.columns))


def about_published(heard: HeardScenes) -> str:
    """A note on whether the scores can be compared with the published rows."""
    one = int(np.count_nonzero(heard.counts == 1))
    if heard.looks_published == len(heard) and one == PUBLISHED_SCENES:
        return (
            f"The published rows are of AudioSet's {PUBLISHED_SCENES:,} evaluation clips in Matterport3D rooms, one "
            "source each, with BRIRs drawn anew. These scenes have ids of that form, and are as many."
        )
    return (
        f"The published rows are of {PUBLISHED_SCENES:,} AudioSet evaluation clips in Matterport3D rooms, one source "
        f"each; these are {one:,} scenes of one source, {heard.looks_published:,} of all {len(heard):,} of that form. "
        "They are for orientation, and do not compare."
    )
