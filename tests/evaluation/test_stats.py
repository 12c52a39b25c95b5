"""Bootstrap, intervals, McNemar: against scipy, by hand, and by how often they hold the true value."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from batcli.evaluation import stats
from batcli.evaluation.metrics import mean_average_precision
from batcli.evaluation.stats import Ratios, bootstrap, interval, mcnemar, resamples, wilson


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_test(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(expected, abs=1e-9)


def test_mcnemar_of_many_questions_stays_finite():
    assert 0.0 < mcnemar(50_500, 49_500) < 0.01
    assert mcnemar(100_000, 0) == 0.0


@given(st.integers(1, 200), st.data())
def test_wilson_is_scipys(trials, data):
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(np.array([float(hits)]), np.array([float(trials)]))
    expected = binomtest(hits, trials).proportion_ci(method="wilson")
    assert low[0] == pytest.approx(expected.low, abs=1e-9)
    assert high[0] == pytest.approx(expected.high, abs=1e-9)


def test_each_resample_draws_as_many_clusters_as_there_are():
    weights = np.hstack(list(resamples(7, 50, seed=3)))
    assert weights.shape == (7, 50)
    assert (weights.sum(axis=0) == 7).all()
    assert weights.mean() == pytest.approx(1.0)


def test_resamples_do_not_depend_on_the_block(monkeypatch):
    whole = np.hstack(list(resamples(7, 50, seed=3)))
    monkeypatch.setattr(stats, "BLOCK", 20)
    assert (np.hstack(list(resamples(7, 50, seed=3))) == whole).all()
    assert (np.hstack(list(resamples(7, 50, seed=4))) != whole).any()


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 5), st.floats(0.5, 5)), min_size=1, max_size=30))
def test_ratios_against_a_loop(rows):
    clusters = np.array([row[0] for row in rows])
    parts = {"m": (np.array([row[1] for row in rows]), np.array([row[2] for row in rows]))}
    weights = np.array([[1.0], [0.0], [2.0], [1.0], [3.0]])
    above = sum(weights[c, 0] * a for c, a, _ in rows)
    below = sum(weights[c, 0] * b for c, _, b in rows)
    found = Ratios.of(parts, clusters).values(weights)[0, 0]
    assert np.isnan(found) if below == 0 else found == pytest.approx(above / below, abs=1e-9)


def test_the_bootstrap_is_seeded_and_the_value_is_of_the_data():
    right = np.array([1.0, 0.0, 1.0, 1.0])
    statistic = Ratios.of({"acc": (right, np.ones(4))}, np.arange(4))
    (first,), (second,) = (bootstrap([statistic], 4, 100, seed=5) for _ in range(2))
    assert first[0].tolist() == [0.75]
    assert (first[1] == second[1]).all()


def test_one_cluster_has_no_interval():
    statistic = Ratios.of({"acc": (np.array([1.0, 0.0]), np.ones(2))}, np.zeros(2, dtype=int))
    ((value, samples),) = bootstrap([statistic], 1, 100, seed=0)
    assert value.tolist() == [0.5]
    assert np.isnan(interval(0.5, samples[0])).all()


def test_interval_by_hand():
    samples = np.linspace(0.0, 1.0, 1001)
    assert interval(0.5, samples) == pytest.approx((0.025, 0.975))
    assert interval(0.6, samples, reflected=True) == pytest.approx((0.225, 1.0))  # 1.2 − 0.025 is no fraction
    assert interval(0.5, np.append(samples, np.nan)) == pytest.approx((0.025, 0.975))


VALUES = st.floats(-1, 10)


@given(VALUES, st.lists(VALUES | st.just(float("nan")), max_size=30), st.booleans())
def test_an_interval_holds_its_value_whatever_the_resamples(value, samples, reflected):
    low, high = interval(value, np.array(samples), reflected)
    if np.isnan(samples).all():
        assert np.isnan([low, high]).all()
    else:
        assert low <= value <= high


def test_average_precision_of_few_questions_lies_in_its_interval():
    """Ten questions, each of a class of its own, none answered: mAP 0.1, but a resample has fewer classes, so more."""
    n = 10
    nothing = (np.empty(0, dtype=int), np.empty(0))
    targets = [frozenset({number}) for number in range(n)]
    statistic = mean_average_precision([nothing] * n, np.full(n, -1), targets, np.arange(n), n)
    ((value, samples),) = bootstrap([statistic], n, 1000, seed=0)
    assert value[0] == pytest.approx(0.1)
    assert np.quantile(samples[0], 0.025) > 0.11
    low, high = interval(value[0], samples[0], reflected=True)
    assert low <= value[0] <= high


@given(st.integers(1, 200), st.data())
def test_wilson_holds_its_share(trials, data):
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(np.array([float(hits)]), np.array([float(trials)]))
    assert low[0] <= hits / trials <= high[0]


def test_clustered_intervals_hold_the_true_value_where_naive_ones_do_not():
    """Scenes of 12 questions that succeed and fail together: 120 data sets, nominal 95 %."""
    rng = np.random.default_rng(0)
    scenes, each, runs = 60, 12, 120
    scene_of = np.repeat(np.arange(scenes), each)
    true, held = 0.5, {"scene": 0, "question": 0}
    for run in range(runs):
        chance = rng.beta(0.5, 0.5, scenes)  # mean 1/2: some scenes are easy, others hopeless
        right = (rng.random((scenes, each)) < chance[:, None]).astype(float).ravel()
        for name, clusters in (("scene", scene_of), ("question", np.arange(scenes * each))):
            statistic = Ratios.of({"acc": (right, np.ones_like(right))}, clusters)
            ((value, samples),) = bootstrap([statistic], clusters.max() + 1, 200, seed=run)
            low, high = interval(value[0], samples[0])
            held[name] += low <= true <= high
    assert held["scene"] / runs > 0.90
    assert held["question"] / runs < 0.70
