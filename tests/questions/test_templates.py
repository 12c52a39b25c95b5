"""The wordings: enough of them, grammatical with names that hold commas, and giving nothing away."""

import itertools
import re

import pytest

from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import Question
from batcli.questions import templates
from batcli.questions.generate import MAKERS, is_turned

NAMES = ("accelerating, revving, vroom", "whack, thwack", "speech", "bark, growl (dog)")
SLOTS = {
    "CLASSIFICATION": set(),
    "DOA": set(),
    "MIXUP_SINGLE_CLASSIFICATION": {"distance"},
    "MIXUP_SINGLE_DOA": {"x"},
    "MIXUP_DIRECTION": {"x", "y", "relation"},
    "MIXUP_DISTANCE_BOTH": {"x", "y", "relation"},
    "MIXUP_NONBINARY_DIRECTION": {"x", "y"},
    "MIXUP_NONBINARY_DISTANCE": {"x", "y"},
    "MIXUP_NONBINARY_SOURCE": {"x", "y", "relation"},
    "DOA_PLANE": {"axes"},
    "MIXUP_SINGLE_DOA_PLANE": {"x", "axes"},
}
EVERY = [(kind, wording) for kind in QUESTION_TYPES for wording in MAKERS[kind].wordings]


def phrases(wording: str) -> list[str]:
    """The phrases that may stand for {relation} in a wording."""
    if wording in templates.DIRECTION_BOTH:
        return list(templates.PLACES.values())
    if wording in templates.NONBINARY_SOURCE:
        return list(templates.EXTREMES.values())
    return list(templates.BESIDE.values())


def spoken(wording: str) -> list[str]:
    """The wording with everything that can fill it."""
    words = list(itertools.product(("left", "right"), ("front", "behind"), ("above", "below")))
    words += [("left", "behind"), ("front", "below"), ("right",)]
    asked = itertools.cycle([(True, True, False), (False, True, True), (True, False, False)])
    filled = [
        wording.format(
            x=x, y=y, relation=phrase, direction=", ".join(w), place=templates.place(w), distance=templates.meters(d),
            axes=templates.axes(a),
        )
        for x, y in itertools.permutations(NAMES, 2)
        for phrase in phrases(wording)
        for w, d, a in zip(words, itertools.cycle((0.5, 1.0, 3.5)), asked, strict=False)
    ]  # fmt: skip
    return [text[0].upper() + text[1:] if wording.startswith("{axes}") else text for text in filled]


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_twenty_wordings_each(kind):
    assert len(set(MAKERS[kind].wordings)) == len(MAKERS[kind].wordings) >= 20


@pytest.mark.parametrize(("kind", "wording"), EVERY)
def test_slots(kind, wording):
    slots = set(re.findall(r"{(\w+)}", wording))
    if kind.startswith("MIXUP_SINGLE_CLASSIFICATION"):
        assert slots - {"distance"} in ({"direction"}, {"place"})
    else:
        assert slots == SLOTS[kind]
    assert all(wording.count(f"{{{slot}}}") == 1 for slot in slots)


@pytest.mark.parametrize(("kind", "wording"), EVERY)
def test_grammar(kind, wording):
    # A name with commas is one thing only if something holds it together: "the sound of …".
    assert len(re.findall(r"\b[Tt]he sound of \{[xy]}", wording)) == len(re.findall(r"\{[xy]}", wording))
    for text in spoken(wording):
        assert re.fullmatch(r"[A-Z].*[?.]", text), text
        assert not re.search(r"[{}]|  | [,;:?.]|\b(\w+) \1\b|\b1 meters|,,", text, re.IGNORECASE), text
        assert not re.search(r"\b(from|to|at|in|of|than) (to|from|in|of|than)\b(?! front)", text), text


@pytest.mark.parametrize(("kind", "wording"), EVERY)
def test_no_wording_favours_an_answer(kind, wording):
    words = re.findall(r"[a-z]+", wording.lower())
    for one, other in (("left", "right"), ("front", "behind"), ("above", "below"), ("yes", "no")):
        assert words.count(one) == words.count(other)
    assert not re.search(r"\d", wording)


def test_both_orders_of_left_and_right_are_heard():
    first = [
        re.search("left|right", wording, re.IGNORECASE).group().lower() for wording in templates.NONBINARY_DIRECTION
    ]
    assert 0 < first.count("right") < len(first)


def test_phrases_differ():
    for table in (templates.PLACES, templates.BESIDE, templates.EXTREMES):
        assert len(set(table.values())) == len(table)


def test_place_and_meters():
    assert templates.place(("right", "front", "above")) == "to your right, in front of you and above you"
    assert templates.place(("left", "behind")) == "to your left and behind you"
    assert templates.place(("above",)) == "above you"
    assert templates.axes((True, False, True)) == "to the left or to the right, above or below"
    assert [templates.meters(d) for d in (0.5, 1.0, 10.0)] == ["0.5 meters", "1 meter", "10 meters"]


@pytest.mark.parametrize("kind", [kind for kind, slots in SLOTS.items() if "relation" in slots])
def test_of_two_opposites_one_is_turned(kind: str):
    for wording in MAKERS[kind].wordings:
        for phrase in (
            phrases(wording) if wording not in templates.DISTANCE_BOTH else list(templates.BESIDE.values())[-2:]
        ):
            text = wording.format(x="bark", y="speech", relation=phrase)
            turned = is_turned(Question("a", "b", "c", "d", 0, kind, text, "Yes"))
            assert turned == any(word in phrase for word in ("left", "behind", "back", "below", "down", "near")), text


def test_a_question_without_a_relation_is_not_turned():
    text = templates.fill_place(templates.SINGLE_CLASSIFICATION[1], ("left", "behind", "below"), 1.0)
    assert not is_turned(Question("a", "b", "c", "d", 0, "MIXUP_SINGLE_CLASSIFICATION", text, "bark"))
