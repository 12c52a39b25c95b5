"""Intervals and tests of scores: bootstrap over clusters of questions, Wilson's interval, McNemar's test.

Answers about one scene are not independent, so scenes are drawn, not questions, whose interval would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, Protocol

import numpy as np

LEVEL = 0.95
BLOCK = 1 << 20
"""Weights drawn at a time (4 MiB): bounds the memory, and stays in the processor's cache."""


class Score(NamedTuple):
    """A value and its interval; NaN where there is none."""

    value: float
    low: float = math.nan
    high: float = math.nan


class Statistic(Protocol):
    """Metrics that can be computed on any resample of the questions.

    A cluster holds questions that are drawn together, such as those about one scene; its weight is the number of
    times that the resample holds it, 1 for the data themselves.
    """

    @property
    def names(self) -> Sequence[str]: ...

    def values(self, weights: np.ndarray) -> np.ndarray:
        """weights (clusters, replicates) → (metrics, replicates); NaN where a metric has no data."""


@dataclass(frozen=True)
class Ratios:
    """Metrics that are a ratio of two sums over questions: all but average precision."""

    names: Sequence[str]
    clusters: np.ndarray  # (c,) the clusters that have such questions
    above: np.ndarray  # (metrics, c) numerators, summed within each cluster
    below: np.ndarray  # (metrics, c) denominators

    @classmethod
    def of(cls, parts: Mapping[str, tuple[np.ndarray, np.ndarray]], clusters: np.ndarray) -> Ratios:
        """Sum the ratios of questions by cluster. parts: metric → numerators and denominators (n,); clusters (n,)."""
        present, place = np.unique(clusters, return_inverse=True)

        def summed(column: int) -> np.ndarray:
            sums = [np.bincount(place, part[column], len(present)) for part in parts.values()]
            return np.array(sums).reshape(len(parts), len(present))

        return cls(tuple(parts), present, summed(0), summed(1))

    def values(self, weights: np.ndarray) -> np.ndarray:
        drawn = weights[self.clusters]
        with np.errstate(invalid="ignore", divide="ignore"):
            return (self.above @ drawn) / (self.below @ drawn)


def resamples(clusters: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Draws of clusters with replacement: blocks of counts, (clusters, some replicates).

    Replicate i depends on the seed, i and the number of clusters alone, so that two systems
    measured on the same scenes are measured on the same draws.
    """
    block = max(1, min(replicates, BLOCK // max(1, clusters)))
    for start in range(0, replicates, block):
        # Counts are exact in 32 bits, and take half the memory.
        weights = np.empty((min(block, replicates - start), clusters), dtype=np.float32)
        for row in range(len(weights)):
            draws = np.random.default_rng([seed, start + row]).integers(0, clusters, clusters)
            weights[row] = np.bincount(draws, minlength=clusters)
        yield np.ascontiguousarray(weights.T)


def bootstrap(
    statistics: Sequence[Statistic], clusters: int, replicates: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Bootstrap over clusters. Returns of each statistic its values on the data, (metrics,), and on the resamples,
    (metrics, replicates)."""
    ones = np.ones((clusters, 1))
    values = [statistic.values(ones)[:, 0] for statistic in statistics]
    # One cluster, or none, says nothing about how much scenes differ.
    blocks: Iterable[np.ndarray] = resamples(clusters, replicates, seed) if clusters > 1 else ()
    drawn: list[list[np.ndarray]] = [[np.empty((len(statistic.names), 0))] for statistic in statistics]
    for weights in blocks:
        for statistic, samples in zip(statistics, drawn, strict=True):
            samples.append(statistic.values(weights))
    return [(value, np.concatenate(samples, axis=1)) for value, samples in zip(values, drawn, strict=True)]


def interval(value: float, samples: np.ndarray, reflected: bool = False) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap samples (replicates,); NaN samples had no data and are left out.

    `reflected`: the basic interval instead, the percentiles mirrored at the value. For average precision, which
    is biased upwards in small samples, and again in resamples, which hold some questions twice. Where that leaves
    the value itself outside, as with few questions, the interval is widened to hold it.
    """
    samples = samples[np.isfinite(samples)]
    if not len(samples) or math.isnan(value):
        return math.nan, math.nan
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    if reflected:
        least = 0.0 if samples.min() >= 0.0 else -1.0  # of a score, and of a difference of two
        low, high = max(least, 2.0 * value - high), min(1.0, 2.0 * value - low)
    return min(float(low), value), max(float(high), value)


def wilson(hits: np.ndarray, trials: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % score interval (1927) of shares of independent trials: (low, high)."""
    z = NormalDist().inv_cdf((1.0 + LEVEL) / 2.0)
    share, weight = hits / trials, z * z / trials
    middle = (share + weight / 2.0) / (1.0 + weight)
    reach = z * np.sqrt(share * (1.0 - share) / trials + weight / (4.0 * trials)) / (1.0 + weight)
    return np.minimum(middle - reach, share), np.maximum(middle + reach, share)  # at 0 and 1 but for rounding


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p-value of McNemar's test (1947): of the questions on which exactly one of two
    systems is right, `only_first` and `only_second` are binomial with p = 1/2 if neither is better."""
    trials, fewer = only_first + only_second, min(only_first, only_second)
    if not trials:
        return 1.0
    wins = np.arange(fewer + 1)
    logs = np.array([math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in wins])
    return float(min(1.0, 2.0 * np.exp(logs - trials * math.log(2.0)).sum()))
