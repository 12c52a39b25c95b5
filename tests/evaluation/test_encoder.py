"""What an encoder hears, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from batcli.evaluation.encoder import event_map, great_circle, place_scores


def test_map_is_scikit_learn_s_over_the_classes_that_occur():
    rng = np.random.default_rng(0)
    truth = rng.random((200, 12)) < 0.1
    truth[:, 3] = False
    scores = np.round(rng.random((200, 12)) + 0.3 * truth, 1)  # with ties
    classes = [average_precision_score(truth[:, c], scores[:, c]) for c in range(12) if c != 3]
    assert event_map(scores, truth) == pytest.approx(np.mean(classes))


def test_angles_between_directions():
    right, front, up = np.eye(3)
    said = np.array([right, right, 0.1 * right, right, np.zeros(3), right])
    truth = np.array([right, front, up, -right, right, right + front])
    np.testing.assert_allclose(great_circle(said, truth), [0, 90, 90, 180, 90, 45], atol=1e-6)


def test_twenty_degrees_and_one_class_are_the_limits():
    angles = np.radians([0, 19.9, 20.1, 90])
    said = np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    truth = np.repeat([[1.0, 0, 0]], 4, 0)
    found = place_scores(said, truth, np.array([4, 5, 6, 2]), np.array([2.0, 2.0, 2.0, 2.2]))
    assert found == {"er20": 0.5, "mae": pytest.approx(32.5), "der": 0.5, "n": 4}
    assert place_scores(said[:0], truth[:0], np.zeros(0), np.zeros(0)) == {"n": 0}
