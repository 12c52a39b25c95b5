"""Directions and distances, against loops and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.evaluation.localization import (
    OCTANTS,
    axes_right,
    calibration,
    confusion,
    distance_wrong,
    octants,
)

CODES = st.lists(st.tuples(*[st.integers(-1, 1)] * 3), min_size=1, max_size=30)


@given(CODES, st.data())
def test_axes_and_confusion_against_loops(said, data):
    truth = data.draw(st.lists(st.tuples(*[st.integers(0, 1)] * 3), min_size=len(said), max_size=len(said)))
    right = axes_right(np.array(said), np.array(truth))
    assert right.tolist() == [[s == t for s, t in zip(a, b, strict=True)] for a, b in zip(said, truth, strict=True)]
    counts = np.zeros((8, 9), dtype=int)
    for a, b in zip(said, truth, strict=True):
        words = [("left", "right")[b[0]], ("front", "behind")[b[1]], ("above", "below")[b[2]]]
        row = OCTANTS.index(", ".join(words))
        column = 8 if -1 in a else 4 * a[0] + 2 * a[1] + a[2]
        counts[row, column] += 1
    assert confusion(np.array(said), np.array(truth))["counts"] == counts.tolist()


def test_what_was_not_said_is_wrong():
    assert not axes_right(np.array([[-1, -1, -1]]), np.array([[0, 1, 0]])).any()
    assert octants(np.array([[1, 0, -1]])).tolist() == [8]


@pytest.mark.parametrize(
    ("said", "truth", "wrong"),
    [
        (2.0, 2.0, False),
        (2.5, 2.0, False),  # 0.5 m off is not more than 0.5 m
        (1.5, 2.0, False),
        (2.51, 2.0, True),
        (3.0, 2.0, True),
        (0.3 + 0.5, 0.3, False),  # as decimals, whatever their binary sums
        (2.3, 1.8, False),
        (np.nan, 2.0, True),
    ],
)
def test_distance_error_at_half_a_metre(said, truth, wrong):
    assert distance_wrong(np.array([said]), np.array([truth])).tolist() == [wrong]


@given(st.integers(0, 40), st.integers(0, 40))
def test_on_the_grid_the_neighbours_are_right(said, truth):
    wrong = distance_wrong(np.array([said / 2]), np.array([truth / 2]))
    assert wrong.tolist() == [abs(said - truth) > 1]


def test_calibration_by_hand():
    rows = calibration(np.array([1.0, 2.0, np.nan, 4.0]), np.array([1.0, 1.0, 1.0, 3.0]))
    assert [(row["truth"], row["n"], row["given"], row["mean"], row["median"]) for row in rows] == [
        (1.0, 3, 2, 1.5, 1.5),
        (3.0, 1, 1, 4.0, 4.0),
    ]


def test_calibration_without_any_distance_said():
    (row,) = calibration(np.array([np.nan]), np.array([1.0]))
    assert row["given"] == 0
    assert np.isnan(row["mean"])
