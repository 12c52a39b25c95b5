import numpy as np

from batcli.evaluation.reasoning import agreement, choices_read, choices_right, same_labels


def test_what_could_not_be_read_agrees_with_nothing():
    assert agreement(np.array([1, 0, -1, -1]), np.array([1, 1, 1, -1])).tolist() == [True, False, False, False]


def test_a_choice_is_right_on_the_axis_that_was_asked():
    truth = np.array([[0, -1, -1]] * 4)  # left
    said = np.array([[0, -1, -1], [0, 1, 1], [1, -1, -1], [-1, 0, 0]])
    assert choices_right(said, truth).tolist() == [True, True, False, False]
    assert choices_read(said, truth).tolist() == [True, True, True, False]


def test_sources_are_the_same_labels_and_no_other():
    said = [frozenset({1}), frozenset({1, 2}), frozenset()]
    assert same_labels(said, [frozenset({1})] * 3).tolist() == [True, False, False]
