"""Questions about sources near a plane between two words: on the other axes alone, and scored so."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcli.core.errors import InputError
from batcli.data.answers import Vocabulary, read_doa
from batcli.data.geometry import locate, unit_vector
from batcli.data.metadata import Clip, Label, Reverb
from batcli.data.question_types import PLANE, PUBLISHED_TYPES, QUESTION_TYPES
from batcli.questions import templates
from batcli.questions.generate import generate, question_types
from batcli.questions.scenes import MARGINS, all_on_planes, is_unambiguous, location_of

LABELS = [Label(number, f"/m/{name}", name.title()) for number, name in enumerate(("dog", "rain", "piano", "horn"))]
CLIPS = [Clip(f"{label.name}-{n}", (label.mid,)) for label in LABELS for n in range(6)]
NAMES = Vocabulary.of(label.name.lower() for label in LABELS)


def brir(name, azimuth, elevation, distance):
    x, y, z = (distance * part for part in unit_vector(azimuth, elevation))
    return Reverb(name, locate((0, 0, 0), (x, y, z)), (x, y, z), {})


def room(name, elevations, first=3, count=12):
    """BRIRs all round the listener, from azimuth `first` on."""
    return {
        f"{name}/{n}": brir(f"{name}/{n}", n * 360 / count + first, elevations[n % len(elevations)], 1 + n % 3)
        for n in range(count)
    }


HORIZONTAL = room("a", [0.0]) | room("b", [2.0, -3.0])
FULL = room("c", [30.0, -30.0], first=15)


def asked(reverbs, count=600, types=None, **options):
    return list(generate(CLIPS, LABELS, reverbs, count, types, **options))


def test_a_set_on_the_horizontal_plane_is_asked_about_on_the_other_axes():
    assert all_on_planes(HORIZONTAL.values())
    questions = asked(HORIZONTAL, types=question_types("A,B,C,D,E", on_planes=True))
    kinds = Counter(question.question_type for question in questions)
    assert len(kinds) == len(PUBLISHED_TYPES)
    assert {kind.removesuffix(PLANE) for kind in kinds} == set(PUBLISHED_TYPES)
    assert {kind for kind in kinds if kind.endswith(PLANE)} == {name for name in QUESTION_TYPES if name.endswith(PLANE)}
    for question in questions:
        if question.question_type not in ("DOA_PLANE", "MIXUP_SINGLE_DOA_PLANE"):
            continue
        value = read_doa(question.answer)
        assert value.height is None
        assert value.distance is not None
        assert "above" not in question.question
        angles = [location_of(HORIZONTAL[source.reverb_id]).clear for source in question.scene]
        for axis, phrase in enumerate(templates.AXIS_CHOICES):
            named = phrase.lower() in question.question.lower()
            assert named == (value[axis] is not None), question.question
            assert not named or any(clear[axis] for clear in angles)


def test_answers_are_those_of_the_metadata():
    for question in asked(HORIZONTAL, types=["DOA_PLANE"]):
        position = HORIZONTAL[question.reverb_id].position
        x, _, z = unit_vector(position.azimuth, 0)
        value = read_doa(question.answer)
        assert value.side in (None, "right" if x > 0 else "left")
        assert value.depth in (None, "front" if z < 0 else "behind")
        assert (value.side is None) == (abs(math.degrees(math.asin(x))) < MARGINS[0])
        assert value.distance == pytest.approx(position.distance, abs=0.26)


def test_places_of_one_of_two_are_described_by_clear_words():
    for question in asked(HORIZONTAL, types=["MIXUP_SINGLE_CLASSIFICATION_PLANE"]):
        described = read_doa(question.question)
        assert described.height is None
        assert (described.side, described.depth) != (None, None)
        first, second = (location_of(HORIZONTAL[source.reverb_id]) for source in question.scene)
        fits = [
            location
            for location in (first, second)
            if all(word in (None, known) for word, known in zip(described[:3], location.words, strict=True))
            and location.rounded == described.distance
        ]
        assert fits, question.question


def test_a_set_with_heights_is_asked_as_before_and_by_name_about_planes_too():
    assert not all_on_planes((FULL | HORIZONTAL).values())
    assert {question.question_type for question in asked(FULL | HORIZONTAL)} == set(PUBLISHED_TYPES)
    both = asked(FULL | HORIZONTAL, types=["DOA", "DOA_PLANE"])
    counts = Counter(question.question_type for question in both)
    assert counts["DOA"] == counts["DOA_PLANE"] == 300
    heights = {question.question_type: read_doa(question.answer).height for question in both}
    assert heights["DOA"] is not None
    assert heights["DOA_PLANE"] is None
    with pytest.raises(InputError, match="no source is near to one or two planes"):
        asked(FULL, types=["DOA_PLANE"])


def test_a_family_stands_for_its_published_types():
    assert question_types("B,D") == ("DOA", "MIXUP_SINGLE_DOA")
    assert question_types("B,DOA_PLANE") == ("DOA", "DOA_PLANE")
    assert question_types("B,E,MIXUP_SINGLE_DOA", on_planes=True)[0] == "MIXUP_SINGLE_DOA", "what is named stays"
    assert "DOA_PLANE" in question_types("B", on_planes=True)


@pytest.mark.parametrize("wordings", [templates.DOA_PLANE, templates.SINGLE_DOA_PLANE])
def test_wordings_differ_and_ask_for_axes_and_distance(wordings):
    assert len(set(wordings)) == len(wordings) == 20
    for wording in wordings:
        assert wording.count("{axes}") == 1
        assert any(word in wording.lower() for word in ("how far", "distance", "distant", "how many meters", "range"))


def plane(text):
    return read_doa(text)


@pytest.mark.parametrize("name", [name for name, kind in QUESTION_TYPES.items() if name.endswith("DOA" + PLANE)])
def test_scores_are_over_the_axes_that_are_asked_for(name):
    kind = QUESTION_TYPES[name]
    target = plane("left, front; 1.5m")
    right = kind.score(plane("left, front, above; 2m"), target)
    assert right["doa_acc"] == (1, 1), "a word too many does not matter"
    assert right["ud_acc"] == (0, 0)
    assert right["der"] == (0, 1)
    assert right["answered"] == (1, 1)
    wrong = kind.score(plane("left, behind; 4m"), target)
    assert (wrong["doa_acc"], wrong["lr_acc"], wrong["fb_acc"], wrong["der"]) == ((0, 1), (1, 1), (0, 1), (1, 1))
    assert kind.unread(plane("left; 1m"), target) == ("front/behind",)
    assert kind.error(plane("left, behind; 1.5m"), target) > kind.error(plane("left, front; 9m"), target) > 0
    assert kind.error(target, target) == 0


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("left; 1m", True),
        ("left, below; 2.5m", True),
        ("left, front, above; 1m", False),
        ("1m", False),
        ("left", False),
    ],
)
def test_what_a_true_answer_looks_like(text, valid):
    assert QUESTION_TYPES["DOA_PLANE"].is_valid(text) == valid


@settings(max_examples=60, deadline=None)
@given(*(st.tuples(st.floats(0, 359), st.floats(-80, 80), st.floats(0.6, 9)) for _ in range(2)))
def test_a_description_that_is_unambiguous_fits_one_source(first, second):
    target, other = (location_of(brir("r/0", *each)) for each in (first, second))
    for near_plane in (False, True):
        if is_unambiguous(target, other, near_plane):
            assert target.clear_words
            assert near_plane == (len(target.clear_words) < 3)
            said_of_other = all(word in other.words for word in target.clear_words)
            assert not said_of_other or abs(target.distance - other.distance) >= 1
