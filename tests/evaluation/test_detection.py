"""Label F1 and mean average precision, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from batcli.evaluation.detection import label_f1, mean_average_precision

SETS = st.lists(st.frozensets(st.integers(0, 4), max_size=4), min_size=1, max_size=20)


def ones(size: int) -> np.ndarray:
    return np.ones((size, 1), dtype=np.float32)


def value(metric, weights) -> float:
    return metric.values(np.asarray(weights, dtype=np.float32).reshape(-1, 1))[0, 0]


def columns_of(scores: np.ndarray):
    """(texts, classes) → per class the texts that have a score; NaN is none."""
    for column in scores.T:
        scored = np.flatnonzero(~np.isnan(column))
        yield scored, column[scored]


@given(SETS, st.data())
def test_label_f1_is_scikit_learns_micro_average(truth, data):
    said = data.draw(st.lists(st.frozensets(st.integers(0, 4), max_size=4), min_size=len(truth), max_size=len(truth)))
    above, below = label_f1(said, truth)
    dense = [[[n in labels for n in range(5)] for labels in sets] for sets in (truth, said)]
    expected = f1_score(np.array(dense[0]), np.array(dense[1]), average="micro", zero_division=np.nan)
    if np.isnan(expected):
        assert below.sum() == 0
    else:
        assert above.sum() / below.sum() == pytest.approx(expected, abs=1e-12)


def test_label_f1_by_hand():
    above, below = label_f1([frozenset({0, 1}), frozenset()], [frozenset({0}), frozenset({2})])
    assert above.sum() / below.sum() == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_map_is_scikit_learns(questions, classes, levels, seed):
    """Few levels: many questions with equal scores."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (questions, classes)) / levels
    truth = rng.random((questions, classes)) < 0.3
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in truth]
    metric = mean_average_precision(columns_of(scores), np.arange(questions), sets, np.arange(questions), questions)
    present = [c for c in range(classes) if truth[:, c].any()]
    if present:
        expected = np.mean([average_precision_score(truth[:, c], scores[:, c]) for c in present])
        assert value(metric, ones(questions)) == pytest.approx(expected, abs=1e-9)
    else:
        assert np.isnan(value(metric, ones(questions)))


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_weights_of_clusters_are_sample_weights(questions, seed):
    """A resample is the data with each question as often as its cluster was drawn."""
    rng = np.random.default_rng(seed)
    texts = np.unique(np.append(rng.integers(-1, 6, questions), -1), return_inverse=True)[1][:-1] - 1
    per_text = np.where(rng.random((7, 3)) < 0.3, np.nan, rng.integers(0, 4, (7, 3)) / 4.0)
    per_text[texts.max() + 1 :] = np.nan  # only texts that questions have are scored
    truth = rng.random((questions, 3)) < 0.4
    clusters = rng.integers(0, 5, questions)
    weights = rng.integers(0, 3, 5)
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in truth]
    metric = mean_average_precision(columns_of(per_text), texts, sets, clusters, 5)
    dense = np.where((texts < 0)[:, None], np.nan, per_text[texts])
    dense = np.where(np.isnan(dense), -1.0, dense)  # without a score: below all, together
    drawn = weights[clusters]
    expected = [
        average_precision_score(truth[:, c], dense[:, c], sample_weight=drawn)
        for c in range(3)
        if drawn[truth[:, c]].sum() > 0
    ]
    found = value(metric, weights)
    assert np.isnan(found) if not expected else found == pytest.approx(np.mean(expected), abs=1e-9)


def test_map_by_hand():
    """One class, scores 3, 2, 1, 0 with positives at 3 and 1: (1/1 + 2/3) / 2."""
    scores = np.array([[3.0], [2.0], [1.0], [0.0]])
    truth = [frozenset({0}), frozenset(), frozenset({0}), frozenset()]
    metric = mean_average_precision(columns_of(scores), np.arange(4), truth, np.arange(4), 4)
    assert value(metric, ones(4)) == pytest.approx((1 + 2 / 3) / 2)


def test_map_leaves_out_classes_without_a_positive():
    scores = np.array([[1.0, 0.2], [0.0, 0.9]])
    metric = mean_average_precision(columns_of(scores), np.arange(2), [frozenset({0}), frozenset()], np.arange(2), 2)
    assert value(metric, ones(2)) == 1.0


def test_questions_without_a_text_come_last_together():
    """Positive without a text, among two such: precision is 1 positive of 3 questions."""
    truth = [frozenset(), frozenset({0}), frozenset()]
    metric = mean_average_precision(columns_of(np.array([[0.5]])), np.array([0, -1, -1]), truth, np.arange(3), 3)
    assert value(metric, ones(3)) == pytest.approx(1 / 3)


def test_no_texts_at_all():
    truth = [frozenset({0}), frozenset()]
    metric = mean_average_precision(columns_of(np.empty((0, 1))), np.array([-1, -1]), truth, np.arange(2), 2)
    assert value(metric, ones(2)) == pytest.approx(0.5)
