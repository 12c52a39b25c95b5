"""The answer grammar: what is written is read back, and free text is read as a careful person would."""

import csv
import json
import math
import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.data.answers import (
    MAX_CHARACTERS,
    Vocabulary,
    read_distance,
    read_doa,
    read_labels,
    read_yes_no,
    split_labels,
    words_of,
    write_distance,
    write_doa,
    write_labels,
    write_yes_no,
)
from batcli.data.geometry import Position, octant, round_distance

POSITIONS = st.builds(
    Position,
    st.floats(0.0, 359.999),
    st.floats(-90.0, 90.0),
    st.floats(0.0, 1000.0),
)

# ---- directions: text → (side, depth, height) ----------------------------------------------------

_ = None
DIRECTIONS = [
    ("right, behind, above", ("right", "behind", "above")),
    ("left, front, below", ("left", "front", "below")),
    ("LEFT, FRONT, BELOW", ("left", "front", "below")),
    ("left front below", ("left", "front", "below")),
    ("right behind above", ("right", "behind", "above")),
    ("right front below 2m", ("right", "front", "below")),
    ("above,behind,right", ("right", "behind", "above")),
    ("left/front/above", ("left", "front", "above")),
    ("front-left, above", ("left", "front", "above")),
    ("upper right, in front", ("right", "front", "above")),
    ("bottom left behind", ("left", "behind", "below")),
    ("**left**, *front*, `above`", ("left", "front", "above")),
    ('{"direction": "left, front, above"}', ("left", "front", "above")),
    ("The answer is: left; front; above.", ("left", "front", "above")),
    ("Left\nFront\nAbove", ("left", "front", "above")),
    ("ｌｅｆｔ, ｆｒｏｎｔ, ａｂｏｖｅ", ("left", "front", "above")),
    ("It's to your left, behind you, a bit below", ("left", "behind", "below")),
    ("It\u2019s on the right-hand side, ahead of you and overhead", ("right", "front", "above")),
    ("somewhere to the left and to the rear, lower than you", ("left", "behind", "below")),
    ("leftwards, forwards, upwards", ("left", "front", "above")),
    ("rightward, backward, downward", ("right", "behind", "below")),
    ("the rightmost, rear, bottom corner", ("right", "behind", "below")),
    ("underneath you, to the back, on your left", ("left", "behind", "below")),
    ("under you and in front of you", (_, "front", "below")),
    ("over your head, behind", (_, "behind", "above")),
    ("beneath and ahead", (_, "front", "below")),
    ("higher up, at the front right", ("right", "front", "above")),
    ("on top, left", ("left", _, "above")),
    ("right behind you", (_, "behind", _)),
    ("It is right in front of you, above", (_, "front", "above")),
    ("right above your head", (_, _, "above")),
    ("right overhead", (_, _, "above")),
    ("right here, left of you", ("left", _, _)),
    ("to the right ahead", ("right", "front", _)),
    ("to your right behind you", ("right", "behind", _)),
    ("on the right in front of you", ("right", "front", _)),
    ("upper right ahead", ("right", "front", "above")),
    ("That's right, it is on the left", ("left", _, _)),
    ("You are right: behind", (_, "behind", _)),
    ("all right, front", (_, "front", _)),
    ("to the right at 3 m", ("right", _, _)),
    ("not left but right", ("right", _, _)),
    ("not on the left, but on the right", ("right", _, _)),
    ("It isn't behind you, it's in front", (_, "front", _)),
    ("neither above nor below, front left", ("left", "front", _)),
    ("left rather than right", ("left", _, _)),
    ("behind instead of in front", (_, "behind", _)),
    ("not left or right, just above", (_, _, "above")),
    ("never from the right", (_, _, _)),
    # Which way somebody faces is not where the sound is.
    ("facing forward, it is behind", (_, "behind", _)),
    ("When you are facing front, the sound is to your left", ("left", _, _)),
    ("looking straight ahead, it is above you", (_, _, "above")),
    ("from a forward-facing position it is behind you", (_, "behind", _)),
    ("relative to the front, it is on the left and behind", ("left", "behind", _)),
    ("It is facing you from behind", (_, "behind", _)),
    # Contradictions: both words of an axis take that axis away, and no other.
    ("left or right", (_, _, _)),
    ("left, no, right, in front", (_, "front", _)),
    ("left and right, behind, above", (_, "behind", "above")),
    ("left, left, left, front, front", ("left", "front", _)),
    ("front and behind, above and below", (_, _, _)),
    ("right, behind, above or perhaps below", ("right", "behind", _)),
    # Bounds and other senses are no directions.
    ("up to 3 m", (_, _, _)),
    ("under 2 metres", (_, _, _)),
    ("under about 2 m, left", ("left", _, _)),
    ("over 4 m away", (_, _, _)),
    ("background noise in the foreground", (_, _, _)),
    ("an upright piano from Brighton", (_, _, _)),
    ("ear level, straight on", (_, _, _)),
    ("I do not know", (_, _, _)),
    ("", (_, _, _)),
    ("north-west", (_, _, _)),
]


@pytest.mark.parametrize(("text", "expected"), DIRECTIONS, ids=[text or "empty" for text, _ in DIRECTIONS])
def test_direction(text, expected):
    assert read_doa(text)[:3] == expected


# ---- distances: text → metres --------------------------------------------------------------------

FOOT, INCH = 0.3048, 0.0254
DISTANCES = [
    ("3.5m", 3.5),
    ("3.5 m", 3.5),
    ("3.5M", 3.5),
    ("right, behind, above; 3.5m", 3.5),
    ("right, behind, above; 3.5", 3.5),
    ("3.5", 3.5),
    ("3,5 m", 3.5),
    (".5 m", 0.5),
    ("0.5m.", 0.5),
    ("(2m)", 2.0),
    ("~2m", 2.0),
    ("≈ 2 m", 2.0),
    ("2 meters", 2.0),
    ("2 metres", 2.0),
    ("1 meter", 1.0),
    ("2-meter distance", 2.0),
    ("a two-metre gap", 2.0),
    ("two metres", 2.0),
    ("Two Metres", 2.0),
    ("two and a half metres", 2.5),
    ("two metres and a half", 2.5),
    ("two and a quarter metres", 2.25),
    ("three and three quarters metres", 3.75),
    ("a metre and a half", 1.5),
    ("a meter", 1.0),
    ("one metre", 1.0),
    ("half a metre", 0.5),
    ("half metre", 0.5),
    ("a half meter", 0.5),
    ("a quarter of a metre", 0.25),
    ("three quarters of a metre", 0.75),
    ("3½ m", 3.5),
    ("½ m", 0.5),
    ("3 1/2 metres", 3.5),
    ("1/2 m", 0.5),
    ("two point five meters", 2.5),
    ("two point two five meters", 2.25),
    ("zero point five metres", 0.5),
    ("twelve metres", 12.0),
    ("twenty-five metres", 25.0),
    ("twenty five metres", 25.0),
    ("ninety metres", 90.0),
    ("a couple of metres", 2.0),
    ("250 cm", 2.5),
    ("250 centimetres", 2.5),
    ("2 m 50 cm", 2.5),
    ("2 metres and 50 centimetres", 2.5),
    ("1500 mm", 1.5),
    ("0.01 km", 10.0),
    ("1,000 m", 1000.0),
    ("10 feet", 10 * FOOT),
    ("1 foot", FOOT),
    ("10 ft.", 10 * FOOT),
    ("6 feet 2 inches", 6 * FOOT + 2 * INCH),
    ("6 ft 2 in", 6 * FOOT + 2 * INCH),
    ("six feet and two inches", 6 * FOOT + 2 * INCH),
    ("40 inches", 40 * INCH),
    ("three yards", 3 * 0.9144),
    ("roughly 2.5 meters away", 2.5),
    ("It's to your left, behind you, a bit below, roughly 2.5 meters away", 2.5),
    ("about 3.5 away", 3.5),
    ("Distance: 4", 4.0),
    ("Distance: 4.", 4.0),
    ("the one on the left, 2 m", 2.0),
    ("3 in front", 3.0),
    # Some tokenizers put spaces around the decimal point.
    ("3 . 5 m", 3.5),
    ("3. 5 m", 3.5),
    ("3 .5 m", 3.5),
    ("3 . 5m", 3.5),
    ("2 . 0", 2.0),
    ("left , front , above ; 3 . 5 m", 3.5),
    ("3·5 m", 3.5),
    ("2~3 m", 2.5),
    ("2 ～ 3 m", 2.5),
    ("minus 2 m", None),
    ("3 , 5 m", None),
    ("5' 11\"", None),
    ("right, behind, below; 12 . 25 metres", 12.25),
    ("2. 3.5 m", 3.5),
    ("It is 2 m away. 3 dogs bark.", 2.0),
    # A range no wider than 1 m is its middle.
    ("2-3 m", 2.5),
    ("2–3 m", 2.5),
    ("2 - 3 metres", 2.5),
    ("2 to 3 metres", 2.5),
    ("2m to 3m", 2.5),
    ("between 2 and 3 metres", 2.5),
    ("two or three metres", 2.5),
    ("3.5 to 4 m", 3.75),
    ("between one and two metres", 1.5),
    ("1 to 10 m", None),
    ("between 2 and 4 metres", None),
    ("3 to 2 m", None),
    # A bound is its number.
    ("at least 3 m", 3.0),
    ("up to 3 m", 3.0),
    ("just over 3 m", 3.0),
    ("under 2 metres", 2.0),
    # One distance said twice is one; two distances are none.
    ("2 m (6.6 ft)", 2.0),
    ("2 m, that is 2.2 m", 2.0),
    ("2 m or 4 m", None),
    ("2 m … 4 m", None),
    ("2m, no, 4m", None),
    ("not 2 m but 4 m", 4.0),
    ("the left one at 2 m and the right one at 3.5 m", None),
    # No distances.
    ("-2 m", None),
    ("−2 m", None),
    ("-2", None),
    ("nan m", None),
    ("inf m", None),
    ("1e300 m", None),
    ("1/0 m", None),
    ("3.5.2 m", None),
    ("5 7 m", None),
    ("five seven metres", None),
    ("10 s", None),
    ("120 degrees", None),
    ("44 Hz", None),
    ("2 sounds", None),
    ("20 ms", None),
    ("m", None),
    ("several metres", None),
    ("nearby", None),
    ("left, front, above", None),
    ("", None),
    ("9" * 400 + " m", None),
]


@pytest.mark.parametrize(("text", "expected"), DISTANCES, ids=[text[:40] or "empty" for text, _ in DISTANCES])
def test_distance(text, expected):
    found = read_distance(text)
    assert (found is None) if expected is None else found == pytest.approx(expected, abs=1e-9)


# ---- yes or no -----------------------------------------------------------------------------------

YES_NO = [
    ("Yes", True),
    ("No", False),
    ("yes.", True),
    ("NO!", False),
    ("Yes, it is.", True),
    ("No, it is not.", False),
    ("Yeah", True),
    ("Yep, both of them.", True),
    ("Nope", False),
    ("nah", False),
    ("y", True),
    ("N.", False),
    ("True", True),
    ("False", False),
    ("Correct.", True),
    ("Incorrect.", False),
    ("That is correct", True),
    ("That's not correct", False),
    ("This is not true.", False),
    ("not false", True),
    ("It isn't right", False),
    ("That's right.", True),
    ("Right.", True),
    ("The answer is yes", True),
    ("The answer is no", False),
    ("The answer is no because it is nearer", False),
    ("Answer: No", False),
    ("**Yes**", True),
    ('"No"', False),
    ("Indeed", True),
    ("Certainly, both are on the left", True),
    ("Of course", True),
    ("Not at all.", False),
    ("By no means", False),
    ("It is.", True),
    ("They are.", True),
    ("It does", True),
    ("It is not.", False),
    ("They aren't.", False),
    ("It does not", False),
    ("Neither.", False),
    ("No doubt, yes", True),
    ("Yes, no doubt", True),
    ("The dog is on the left. Yes.", True),
    ("No, the dog is on the left, the cat on the right", False),
    # Both, or neither.
    ("Yes and no", None),
    ("Yes or no", None),
    ("No, wait, yes", None),
    ("yes/no", None),
    ("maybe", None),
    ("I do not know", None),
    ("The dog is closer", None),
    ("The dog is not closer", None),
    ("a piano on my left", None),
    ("I hear noise", None),
    ("left", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), YES_NO, ids=[text or "empty" for text, _ in YES_NO])
def test_yes_no(text, expected):
    assert read_yes_no(text) is expected


LABELLED = list(csv.DictReader((Path(__file__).parent / "yes_no.csv").read_text(encoding="utf-8").splitlines()))
VALUES = {"yes": True, "no": False, "none": None}


@pytest.mark.parametrize("row", LABELLED, ids=[row["text"] for row in LABELLED])
def test_refusals_hedges_and_emphatic_answers(row):
    assert read_yes_no(row["text"]) is VALUES[row["expected"]]


def test_half_of_the_table_is_refusals_hedges_and_emphatic_answers():
    assert len(LABELLED) >= 200
    assert sum(row["kind"] != "plain" for row in LABELLED) >= len(LABELLED) / 2


@pytest.mark.parametrize(("name", "expected"), [("emphatic_no", False), ("hedge", None), ("refusal", None)])
def test_cases_of_answers(shared, name, expected):
    lines = (shared / f"cases/10-answers/{name}.jsonl").read_text(encoding="utf-8").splitlines()
    for line in lines:
        assert read_yes_no(json.loads(line)["prediction"]) is expected, line


EXCHANGED = {"yes": "no", "true": "false", "correct": "incorrect"}
EXCHANGED |= {other: word for word, other in EXCHANGED.items()}
IDIOMS = ("by no means", "in no way", "no way")  # as a whole they are "not"; "by yes means" is no English


def replaced(text: str, replacement) -> str:
    words = "|".join([*IDIOMS, *EXCHANGED])
    pattern = re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    return pattern.sub(lambda m: replacement(m[0].lower()) if m[0].lower() in EXCHANGED else m[0], text)


def exchanged(text: str) -> str:
    return replaced(text, EXCHANGED.get)


def opposite(said: bool | None) -> bool | None:
    return None if said is None else not said


def without_answer_words(text: str) -> str:
    return replaced(text, lambda word: "zebra")


FRAMES = """{}|{}.|{}!|{}, it sounds like it.|The answer is {}.|The correct answer is {}|Answer: {}|**{}**|Not {}.
Definitely {}.|Definitely not {}.|That is {}.|This is not {}.|It isn't {}|That is completely {}, I am certain.
It is {} that the dog is nearer.|It is not {} that the dog is nearer.|The dog is nearer ({}).|The dog is nearer, so {}.
I cannot confirm that this is {}.|I can't say {}|It might be {}.|Perhaps {}.|If so, {}.|Is it {}?|I think it is {}.
{} idea.|{} audio was provided.|{} clear answer can be given.|{} dog is nearer.|{} doubt, it is {}.|{} or {}|{} and {}
{} the dog is nearer|{} because it is nearer
There is {} evidence that this is {}.|{}, but I am not sure.|Neither {} nor {}
It is {}, not {}.|{}: the statement is {}.|I hear {} dog and the answer is {}.|Of course {}!|Most likely {}|A clear {}.
{"answer": "{}"}|It is neither {} nor left.|{}, of course.|{}, definitely.|{}, it is.|{}, they are not."""
SENTENCES = st.builds(
    lambda frame, words: re.sub(r"\{\}", lambda _: words.pop(), frame),
    st.sampled_from(FRAMES.replace("\n", "|").split("|")),
    st.lists(st.sampled_from([*EXCHANGED, "Yes", "No", "TRUE", "False"]), min_size=2, max_size=2),
)


@given(st.lists(SENTENCES, min_size=1, max_size=3).map(" ".join))
def test_exchanging_yes_and_no_exchanges_what_is_read(text):
    assert read_yes_no(exchanged(text)) is opposite(read_yes_no(text))


_SOUP = """yes no true false correct incorrect not never is it that the answer was definitely , . ? ; : -
or and nor neither cannot say may doubt of course i think dog because so right both isn't audio"""


@given(st.lists(st.sampled_from(_SOUP.split()), max_size=12).map(" ".join))
def test_exchanging_exchanges_in_any_mixture_of_words(text):
    """Short answers such as "it is" have no such word in them, and stay."""
    said, other = read_yes_no(text), read_yes_no(exchanged(text))
    assert other is opposite(said) or other is said is read_yes_no(without_answer_words(text))


@pytest.mark.parametrize("row", LABELLED, ids=[row["text"] for row in LABELLED])
def test_exchanging_exchanges_in_the_table(row):
    text, said = row["text"], read_yes_no(row["text"])
    other = read_yes_no(exchanged(text))
    assert other is opposite(said) or other is said is read_yes_no(without_answer_words(text))


# ---- labels --------------------------------------------------------------------------------------

NAMES = [
    "Speech",
    "Male speech, man speaking",
    "Music",
    "Dog",
    "Bark",
    "Accelerating, revving, vroom",
    "Car",
    "Car passing by",
    "Tick-tock",
    "Glass",
    "Whack, thwack",
    "Child speech, kid speaking",
]
VOCABULARY = Vocabulary.of(NAMES)
LABELS = [
    ("music", {"music"}),
    ("Music.", {"music"}),
    ("dog; bark", {"dog", "bark"}),
    ("dog, bark", {"dog", "bark"}),
    ("dog bark", {"dog", "bark"}),
    ("accelerating, revving, vroom; car", {"accelerating, revving, vroom", "car"}),
    ("ACCELERATING REVVING VROOM", {"accelerating, revving, vroom"}),
    ("Male speech, man speaking", {"male speech, man speaking"}),
    ("male speech (man speaking)", {"male speech, man speaking"}),
    ("male speech, man speaking; speech", {"male speech, man speaking", "speech"}),
    ("male speech", {"speech"}),
    ("car passing by", {"car passing by"}),
    ("a car, passing by", {"car passing by"}),
    ("I can hear a dog barking and some music in the background.", {"dog", "music"}),
    ("Dogs", {"dog"}),
    ("two cars and glass", {"car", "glass"}),
    ("tick tock", {"tick-tock"}),
    ("whack thwack", {"whack, thwack"}),
    ("1. dog\n2. music", {"dog", "music"}),
    ("dog | music", {"dog", "music"}),
    ("There is no music, only speech", {"speech"}),
    ("a dog without a bark", {"dog"}),
    ("not a dog; music", {"music"}),
    ("neither music nor speech", set()),
    ("no dog, car or music", set()),
    ("no dog, car, or any music", set()),
    ("no dog, zebra, or a car", set()),
    ("neither dog, car nor glass, but music", {"music"}),
    ("no male speech, man speaking or music; dog", {"dog"}),
    ("without dog or car, just music", {"music"}),
    ("no dog. Car or music", {"car", "music"}),
    ("no dog, only music or speech", {"music", "speech"}),
    ("music, not speech or a dog", {"music"}),
    ("I do not hear a dog.", set()),
    ("I cannot hear any sign of the dog, only a car", {"car"}),
    ("I don't hear a dog, car or music", set()),
    ("can't detect the sound of a car", set()),
    ("without dog, car and music", set()),
    ("with a dog, a car and music", {"dog", "car", "music"}),
    ("no dog , car or music", set()),
    ("no dog/car/music", set()),
    ("none of dog, car or music", set()),
    ("absence of music", set()),
    ("No. Dog and car.", {"dog", "car"}),
    ("no, dog", {"dog"}),
    ("nothing but music", {"music"}),
    ("not only a dog but also music", {"dog", "music"}),
    ("cartoon dogma glasses", set()),
    ("silence", set()),
    ("", set()),
    ("music; music; music", {"music"}),
]


@pytest.mark.parametrize(("text", "expected"), LABELS, ids=[text[:40] or "empty" for text, _ in LABELS])
def test_labels(text, expected):
    assert {VOCABULARY.names[number] for number in read_labels(text, VOCABULARY)} == expected


def test_there_are_enough_cases_of_free_text():
    assert len(DIRECTIONS) + len(DISTANCES) + len(YES_NO) + len(LABELS) >= 150


# ---- what is written is read back ----------------------------------------------------------------


@given(POSITIONS)
def test_doa_round_trip(position):
    said = read_doa(write_doa(position))
    assert said[:3] == tuple(octant(position))
    assert said.distance == round_distance(position.distance)


@given(POSITIONS, st.randoms(use_true_random=False))
def test_doa_round_trip_without_its_form(position, random):
    """Any order, any case, any separator: the same answer."""
    words = list(octant(position))
    random.shuffle(words)
    separator = random.choice([", ", " ", "; ", " / ", "\n", " and "])
    text = separator.join([*words, write_distance(position.distance)])
    text = "".join(random.choice([c.upper(), c.lower()]) for c in text)
    assert read_doa(text) == read_doa(write_doa(position))


@given(st.floats(0.0, 5000.0))
def test_distance_round_trip(metres):
    assert read_distance(write_distance(metres)) == round_distance(metres)


@given(st.floats(0.01, 99.0).map(lambda metres: round(metres, 2)), st.sampled_from(["m", " m", " meters", "-metre"]))
def test_any_number_of_metres(metres, unit):
    assert read_distance(f"about {metres:g}{unit} away") == pytest.approx(metres)


@given(st.booleans())
def test_yes_no_round_trip(value):
    assert read_yes_no(write_yes_no(value)) is value


_NAME = st.text(string.ascii_letters + ", -", min_size=1, max_size=30).filter(words_of)


@given(st.lists(_NAME, min_size=1, max_size=8), st.data())
def test_labels_round_trip(names, data):
    vocabulary = Vocabulary.of([name.strip(", -") for name in names])
    said = data.draw(st.lists(st.sampled_from(vocabulary.names), unique=True))
    said = [name for name in said if not {"no", "not", "without", "nor", "neither", "never"} & set(words_of(name))]
    text = write_labels(said)
    assert split_labels(text) == said
    assert {vocabulary.names[number] for number in read_labels(text, vocabulary)} == set(said)


@given(st.text(max_size=200))
def test_no_text_breaks_a_reader(text):
    side, depth, height, distance = read_doa(text)
    assert side in ("left", "right", None)
    assert depth in ("front", "behind", None)
    assert height in ("above", "below", None)
    assert distance is None or (math.isfinite(distance) and distance >= 0.0)
    assert read_yes_no(text) in (True, False, None)
    assert read_labels(text, VOCABULARY) <= set(range(len(NAMES)))


_TOKENS = "0 1 2 3.5 1/2 ½ - , ; . and a half to not no yes m cm ft in right left front behind you above point two"


@given(st.lists(st.sampled_from(_TOKENS.split()), max_size=30).map(" ".join))
def test_no_mixture_of_its_own_words_breaks_a_reader(text):
    distance = read_doa(text).distance
    assert distance is None or (math.isfinite(distance) and distance >= 0.0)
    assert read_yes_no(text) in (True, False, None)


def test_only_the_beginning_of_a_long_text_is_read():
    assert read_doa("x" * MAX_CHARACTERS + " left").side is None
    assert read_doa("left " + "x " * 500_000).side == "left"


def test_labels_are_written_lower_case_and_trimmed():
    assert write_labels(["Accelerating, revving, vroom", " Car "]) == "accelerating, revving, vroom; car"
    assert split_labels("accelerating, revving, vroom; Car;") == ["accelerating, revving, vroom", "car"]


def test_a_name_that_repeats_anothers_words_is_dropped():
    assert Vocabulary.of(["Tick-tock", "tick tock", "...", "Bee"]).names == ("tick-tock", "bee")


def test_plural_and_singular_names_are_told_apart_where_both_exist():
    both = Vocabulary.of(["Bell", "Bells"])
    assert read_labels("bell", both) == {0}
    assert read_labels("bells", both) == {1}
