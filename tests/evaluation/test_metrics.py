"""Mean average precision, confusion, calibration and scores of the encoder, against scikit-learn, loops and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from batcli.evaluation.metrics import (
    OCTANTS,
    calibration,
    confusion,
    event_map,
    great_circle,
    mean_average_precision,
    place_scores,
)


def ones(size: int) -> np.ndarray:
    return np.ones((size, 1), dtype=np.float32)


def value(metric, weights) -> float:
    return metric.values(np.asarray(weights, dtype=np.float32).reshape(-1, 1))[0, 0]


def columns_of(scores: np.ndarray):
    """(texts, classes) → per class the texts that have a score; NaN is none."""
    for column in scores.T:
        scored = np.flatnonzero(~np.isnan(column))
        yield scored, column[scored]


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_map_is_scikit_learns(questions, classes, levels, seed):
    """Few levels: many questions with equal scores."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (questions, classes)) / levels
    targets = rng.random((questions, classes)) < 0.3
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in targets]
    metric = mean_average_precision(columns_of(scores), np.arange(questions), sets, np.arange(questions), questions)
    present = [c for c in range(classes) if targets[:, c].any()]
    if present:
        expected = np.mean([average_precision_score(targets[:, c], scores[:, c]) for c in present])
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
    targets = rng.random((questions, 3)) < 0.4
    clusters = rng.integers(0, 5, questions)
    weights = rng.integers(0, 3, 5)
    sets = [frozenset(np.flatnonzero(row).tolist()) for row in targets]
    metric = mean_average_precision(columns_of(per_text), texts, sets, clusters, 5)
    dense = np.where((texts < 0)[:, None], np.nan, per_text[texts])
    dense = np.where(np.isnan(dense), -1.0, dense)  # without a score: below all, together
    drawn = weights[clusters]
    expected = [
        average_precision_score(targets[:, c], dense[:, c], sample_weight=drawn)
        for c in range(3)
        if drawn[targets[:, c]].sum() > 0
    ]
    found = value(metric, weights)
    assert np.isnan(found) if not expected else found == pytest.approx(np.mean(expected), abs=1e-9)


def test_map_by_hand():
    """One class, scores 3, 2, 1, 0 with positives at 3 and 1: (1/1 + 2/3) / 2."""
    scores = np.array([[3.0], [2.0], [1.0], [0.0]])
    targets = [frozenset({0}), frozenset(), frozenset({0}), frozenset()]
    metric = mean_average_precision(columns_of(scores), np.arange(4), targets, np.arange(4), 4)
    assert value(metric, ones(4)) == pytest.approx((1 + 2 / 3) / 2)


def test_map_leaves_out_classes_without_a_positive():
    scores = np.array([[1.0, 0.2], [0.0, 0.9]])
    metric = mean_average_precision(columns_of(scores), np.arange(2), [frozenset({0}), frozenset()], np.arange(2), 2)
    assert value(metric, ones(2)) == 1.0


def test_questions_without_a_text_come_last_together():
    """Positive without a text, among two such: precision is 1 positive of 3 questions."""
    targets = [frozenset(), frozenset({0}), frozenset()]
    metric = mean_average_precision(columns_of(np.array([[0.5]])), np.array([0, -1, -1]), targets, np.arange(3), 3)
    assert value(metric, ones(3)) == pytest.approx(1 / 3)


def test_no_texts_at_all():
    targets = [frozenset({0}), frozenset()]
    metric = mean_average_precision(columns_of(np.empty((0, 1))), np.array([-1, -1]), targets, np.arange(2), 2)
    assert value(metric, ones(2)) == pytest.approx(0.5)


def test_event_map_is_scikit_learns_over_the_classes_that_occur():
    rng = np.random.default_rng(0)
    targets = rng.random((200, 12)) < 0.1
    targets[:, 3] = False
    scores = np.round(rng.random((200, 12)) + 0.3 * targets, 1)  # with ties
    classes = [average_precision_score(targets[:, c], scores[:, c]) for c in range(12) if c != 3]
    assert event_map(scores, targets) == pytest.approx(np.mean(classes))


# ---- directions and distances --------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([*OCTANTS, None]), st.sampled_from(OCTANTS)), min_size=1, max_size=30))
def test_confusion_against_counting(pairs):
    found = confusion(*zip(*pairs, strict=True))
    for row, target in enumerate(found["rows"]):
        for column, predicted in enumerate(found["columns"]):
            pair = (None if predicted == "not read" else predicted, target)
            assert found["counts"][row][column] == pairs.count(pair)


def test_octants_are_in_the_order_of_their_words():
    assert OCTANTS[0] == "left, front, above"
    assert OCTANTS[1] == "left, front, below"
    assert OCTANTS[-1] == "right, behind, below"


def test_calibration_by_hand():
    rows = calibration(np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.0, 1.0, 1.0, 3.0]))
    assert [(row["truth"], row["n"], row["given"], row["mean"], row["median"]) for row in rows] == [
        (1.0, 3, 2, 1.5, 1.5),
        (3.0, 1, 1, 4.0, 4.0),
    ]


def test_calibration_without_any_predicted_distance():
    (row,) = calibration(np.array([np.nan]), np.array([1.0]))
    assert row["given"] == 0
    assert np.isnan(row["mean"])


def test_angles_between_directions():
    right, front, up = np.eye(3)
    predicted = np.array([right, right, 0.1 * right, right, np.zeros(3), right])
    targets = np.array([right, front, up, -right, right, right + front])
    np.testing.assert_allclose(great_circle(predicted, targets), [0, 90, 90, 180, 90, 45], atol=1e-6)


def test_twenty_degrees_and_one_class_are_the_limits():
    angles = np.radians([0, 19.9, 20.1, 90])
    predicted = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    targets = np.repeat([[1.0, 0, 0]], 4, 0)
    found = place_scores(predicted, targets, np.array([4, 5, 6, 2]), np.array([2.0, 2.0, 2.0, 2.2]))
    assert found == {"er20": 0.5, "mae": pytest.approx(32.5), "der": 0.5, "n": 4}
    assert place_scores(predicted[:0], targets[:0], np.zeros(0), np.zeros(0)) == {"n": 0}
