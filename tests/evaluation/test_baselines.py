"""Answers without listening: what is counted, and what is answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.data.answers import Vocabulary, read_distance, write_distance
from batcli.data.geometry import round_distance
from batcli.evaluation.baselines import FEWEST, commonest, count_answers, wording_of
from batcli.evaluation.predictions import Prediction

VOCABULARY = Vocabulary.of(["Dog", "Music", "Accelerating, revving, vroom", "Whack, thwack"])


def asked(type_name: str, question: str, target: str) -> Prediction:
    return Prediction("here:1", type_name, ("a", "r/0.npy"), question, target, None, {})


@pytest.mark.parametrize(
    ("question", "wording"),
    [
        ("Is the sound of dog nearer than the sound of music?", "is the sound of … nearer than the sound of …"),
        ("Where is the sound of accelerating, revving, vroom?", "where is the sound of …"),
        ("What sounds 3.5 meters away?", "what sounds 0 away"),
        ("What sounds 1m away?", "what sounds 0 away"),
        ("Is it to your left?", "is it to your left"),
    ],
)
def test_a_wording_has_no_events_and_no_numbers(question, wording):
    assert wording_of(question, VOCABULARY) == wording


def test_the_commonest_is_the_wordings_where_enough_have_it_and_else_the_types():
    pairs = [("left?", "Yes")] * FEWEST + [("right?", "No")] * (FEWEST - 1) + [("other?", "No")] * FEWEST
    prior = count_answers((asked("MIXUP_DIRECTION", *pair) for pair in pairs), VOCABULARY)
    assert commonest(prior, "MIXUP_DIRECTION", "left") == "Yes"
    assert commonest(prior, "MIXUP_DIRECTION", "right") == "No", "of the type, where No is commoner"
    assert commonest(prior, "MIXUP_DIRECTION", "unknown") == "No"


def test_direction_and_distance_are_chosen_apart():
    targets = (
        ["left, front, above; 1m"] * 2
        + ["left, front, above; 4m", "right, front, above; 4.5m"]
        + ["right, behind, below; 4m"]
    )
    prior = count_answers((asked("DOA", "Where?", target) for target in targets), VOCABULARY)
    assert commonest(prior, "DOA", "where") == "left, front, above; 4m"


@given(st.lists(st.floats(0.0, 12.0).map(round_distance), min_size=1, max_size=30))
def test_no_constant_distance_is_right_more_often(metres):
    targets = [write_distance(distance) for distance in metres]
    prior = count_answers((asked("MIXUP_NONBINARY_DISTANCE", "?", target) for target in targets), VOCABULARY)
    predicted = read_distance(commonest(prior, "MIXUP_NONBINARY_DISTANCE", ""))

    def right(distance: float) -> int:
        return sum(abs(distance - target) <= 0.5 for target in metres)

    assert right(predicted) == max(right(distance) for distance in metres)


def test_of_two_named_events_their_place_is_counted():
    pairs = [("dog or music?", "music")] * 3 + [("music or whack, thwack?", "whack, thwack")] * 2
    prior = count_answers((asked("MIXUP_NONBINARY_SOURCE", *pair) for pair in pairs), VOCABULARY)
    assert commonest(prior, "MIXUP_NONBINARY_SOURCE", "") == "#1"
