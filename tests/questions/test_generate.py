"""The generator against an oracle that knows the metadata files and English, but none of its code."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import os
import re
import subprocess
import sys
import tracemalloc
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.core.errors import InputError
from batcli.data.geometry import locate
from batcli.data.metadata import Clip, Label, Reverb, read_clips, read_labels, read_reverbs
from batcli.data.question_types import PUBLISHED_TYPES
from batcli.questions.balance import BalanceCounter
from batcli.questions.generate import MAKERS, PER_SCENE, counts_by_type, generate, question_types

COUNT = 20_000
NOT_A_CHOICE = ("CLASSIFICATION", "MIXUP_SINGLE_CLASSIFICATION", "MIXUP_NONBINARY_DISTANCE")
MEANING = {
    "to your left": ("x", -1), "to your right": ("x", 1), "in front of you": ("z", -1), "behind you": ("z", 1),
    "above you": ("y", 1), "below you": ("y", -1), "further to the left": ("x", -1), "further to the right": ("x", 1),
    "further forward": ("z", -1), "further back": ("z", 1), "higher up": ("y", 1), "lower down": ("y", -1),
    "nearer to you": ("r", -1), "farther from you": ("r", 1),
}  # fmt: skip
"""What a phrase means: a coordinate (−z front; r is the distance), and which way."""
WORD = {
    "left": ("x", -1),
    "right": ("x", 1),
    "front": ("z", -1),
    "behind": ("z", 1),
    "above": ("y", 1),
    "below": ("y", -1),
}


def stage(material):
    labels, clips = read_labels(material.labels), read_clips(material.clips)
    return clips, labels, read_reverbs(material.reverb_root / "train_reverberation.json")


@pytest.fixture(scope="module")
def made(material):
    """(records, balance) of 20,000 questions of all types."""
    balance = BalanceCounter()
    return [q.to_dict() for q in generate(*stage(material), COUNT, balance=balance)], balance


# ---- the oracle ----------------------------------------------------------------------------------


class Oracle:
    """Answers questions from the three metadata files."""

    def __init__(self, material) -> None:
        with open(material.labels, newline="") as file:
            names = {row["mid"]: row["display_name"].lower() for row in csv.DictReader(file)}
        entries = json.loads(material.clips.read_text())
        self.labels = {f"{e['folder']}/{e['id']}": {names[mid] for mid in e["label"]} for e in entries}
        self.at = {}
        for entry in json.loads((material.reverb_root / "train_reverberation.json").read_text())["data"]:
            here, there = ([float(v) for v in entry[k].split(",")] for k in ("sensor_position", "source_position"))
            place = dict(zip("xyz", (b - a for a, b in zip(here, there, strict=True)), strict=True))
            self.at[entry["fname"]] = place | {"r": math.sqrt(sum(v * v for v in place.values()))}
        name = "|".join(sorted(map(re.escape, names.values()), key=len, reverse=True))
        phrase = "|".join(sorted(MEANING, key=len, reverse=True))
        part = {
            "{x}": f"(?P<x>{name})",
            "{y}": f"(?P<y>{name})",
            "{relation}": f"(?P<relation>{phrase})(?: than)?",
            "{direction}": "(?P<place>right|left), (?P<place2>front|behind), (?P<place3>above|below)",
            "{place}": r"to your (?P<place>\w+), (?P<place2>in front of|behind) you and (?P<place3>above|below) you",
            "{distance}": r"(?P<metres>[\d.]+) meters?",
        }
        self.patterns = {
            kind: [
                re.compile("".join(part.get(piece, re.escape(piece)) for piece in re.split(r"(\{\w+})", wording)))
                for wording in maker.wordings
            ]
            for kind, maker in MAKERS.items()
        }

    def parse(self, record) -> dict[str, str]:
        found = [m for p in self.patterns[record["question_type"]] if (m := p.fullmatch(record["question"]))]
        assert found, record["question"]
        assert len({tuple(sorted(m.groupdict().items())) for m in found}) == 1, f"reads two ways: {record['question']}"
        return found[0].groupdict()

    def sources(self, record) -> list[tuple[set[str], dict[str, float]]]:
        pairs = [(record["audio_id"], record["reverb_id"]), (record["audio_id2"], record["reverb_id2"])]
        return [(self.labels[audio], self.at[reverb]) for audio, reverb in pairs if audio is not None]

    def named(self, record, name: str) -> dict[str, float]:
        (place,) = [place for labels, place in self.sources(record) if name in labels]
        return place


def degrees(place, coordinate: str) -> float:
    """Angle between a direction and the plane where the coordinate is 0."""
    return math.degrees(math.asin(place[coordinate] / place["r"]))


def surely(place, coordinate: str, sign: int) -> bool:
    """Whether the source is on that side, by a margin."""
    return sign * degrees(place, coordinate) >= (5 if coordinate == "y" else 10) - 1e-9


def compare(one, other, coordinate: str, sign: int) -> bool:
    """Whether `one` is further that way than `other`; fails where a person could doubt it."""
    if coordinate == "r":
        low, high = sorted((one["r"], other["r"]))
        assert high - low >= 1 - 1e-9
        assert high >= 1.25 * low
    else:
        turn, step = degrees(one, coordinate) - degrees(other, coordinate), one[coordinate] - other[coordinate]
        assert turn * step > 0
        assert abs(turn) >= 15 - 1e-9
        assert abs(step) >= 0.5 - 1e-9
    return sign * (one[coordinate] - other[coordinate]) > 0


def half(metres: float) -> str:
    steps = math.floor(2 * metres + 0.5)
    return f"{steps // 2}{'.5' if steps % 2 else ''}m"


def words(place) -> list[str]:
    return [
        "right" if place["x"] > 0 else "left",
        "front" if place["z"] < 0 else "behind",
        "above" if place["y"] > 0 else "below",
    ]


def doa(place) -> str:
    assert all(surely(place, *WORD[word]) for word in words(place))
    return f"{', '.join(words(place))}; {half(place['r'])}"


def answer(oracle: Oracle, record) -> str:
    kind, slots, sources = record["question_type"], oracle.parse(record), oracle.sources(record)
    if kind == "CLASSIFICATION":
        return "; ".join(sorted(sources[0][0]))
    if kind == "DOA":
        return doa(sources[0][1])
    if kind == "MIXUP_SINGLE_DOA":
        return doa(oracle.named(record, slots["x"]))
    if kind == "MIXUP_SINGLE_CLASSIFICATION":
        asked = [slots["place"], slots["place2"].removeprefix("in ").removesuffix(" of"), slots["place3"]]
        distance = float(slots["metres"])
        fitting = []
        for labels, place in sources:
            same = [not surely(place, WORD[word][0], -WORD[word][1]) for word in asked]
            if all(same) and abs(place["r"] - distance) <= 0.5:
                fitting.append((labels, place))
        ((labels, place),) = fitting
        assert doa(place) == f"{', '.join(asked)}; {half(distance)}"
        return "; ".join(sorted(labels))
    x, y = (oracle.named(record, slots[name]) for name in "xy")
    assert x is not y
    if kind == "MIXUP_NONBINARY_DISTANCE":
        return half(math.dist([x[c] for c in "xyz"], [y[c] for c in "xyz"]))
    if kind == "MIXUP_NONBINARY_DIRECTION":
        return "right" if compare(x, y, "x", 1) else "left"
    coordinate, sign = MEANING[slots["relation"]]
    if kind == "MIXUP_NONBINARY_SOURCE":
        return slots["x"] if compare(x, y, coordinate, sign) else slots["y"]
    if slots["relation"].endswith(("you", "to your left", "to your right")) and coordinate != "r":
        for place in (x, y):
            assert surely(place, coordinate, 1) or surely(place, coordinate, -1)
        return "Yes" if sign * x[coordinate] > 0 and sign * y[coordinate] > 0 else "No"
    return "Yes" if compare(x, y, coordinate, sign) else "No"


# ---- right ---------------------------------------------------------------------------------------


def test_every_answer_follows_from_the_metadata(made, material):
    oracle, records = Oracle(material), made[0]
    assert len(records) == COUNT
    wrong = [(r["question"], r["answer"], answer(oracle, r)) for r in records if answer(oracle, r) != r["answer"]]
    assert not wrong, wrong[:5]


def test_the_oracle_is_no_yes_man(made, material):
    """It tells swapped names and swapped sources from the right ones."""
    oracle = Oracle(material)
    record = next(r for r in made[0] if r["question_type"] == "MIXUP_DISTANCE_BOTH" and r["answer"] == "Yes")
    slots = oracle.parse(record)
    swapped = record["question"].replace(slots["x"], "\0").replace(slots["y"], slots["x"]).replace("\0", slots["y"])
    assert answer(oracle, record | {"question": swapped}) == "No"
    record = next(r for r in made[0] if r["question_type"] == "MIXUP_SINGLE_DOA")
    turned = record | {"reverb_id": record["reverb_id2"], "reverb_id2": record["reverb_id"]}
    with contextlib.suppress(AssertionError):  # raised where the other source is too near to a plane: seen, too
        assert answer(oracle, turned) != record["answer"]


def test_two_sources_can_be_told_apart(made, material):
    oracle = Oracle(material)
    for record in made[0]:
        if record["audio_id2"] is None:
            continue
        (labels, place), (labels2, place2) = oracle.sources(record)
        assert record["reverb_id"].split("/")[0] == record["reverb_id2"].split("/")[0]
        assert not labels & labels2
        cosine = sum(place[c] * place2[c] for c in "xyz") / place["r"] / place2["r"]
        assert cosine <= math.cos(math.radians(30)) + 1e-9


def test_names_are_lower_case_and_hold_their_commas(made):
    asked = [r["question"] for r in made[0]]
    assert any("the sound of accelerating, revving, vroom" in text for text in asked)
    assert not any("Accelerating" in text or "Whack" in text for text in asked)
    assert any(r["answer"] == "whack, thwack" for r in made[0] if r["question_type"] == "MIXUP_NONBINARY_SOURCE")
    assert any(
        "accelerating, revving, vroom; " in r["answer"] for r in made[0] if r["question_type"] == "CLASSIFICATION"
    )


# ---- even ----------------------------------------------------------------------------------------


def even(counts: Counter, keys) -> bool:
    values = [counts[key] for key in keys]
    return max(values) - min(values) <= 1


def test_counts_have_the_released_proportions(made):
    counts = Counter(r["question_type"] for r in made[0])
    assert counts == {kind: made[1].counts[kind] for kind in PUBLISHED_TYPES}
    assert [r["question_id"] for r in made[0]] == list(range(COUNT))
    share = [139_392 / 872_312] * 2 + [118_000 / 872_312] * 2 + [357_528 / 872_312 / 5] * 5
    assert all(abs(counts[kind] - COUNT * s) < 1 for kind, s in zip(PUBLISHED_TYPES, share, strict=True))


def test_yes_and_no_are_even_for_every_relation_and_wording(made, material):
    oracle = Oracle(material)
    overall, relations, wordings = defaultdict(Counter), defaultdict(Counter), defaultdict(Counter)
    for r in made[0]:
        if r["answer"] in ("Yes", "No"):
            slots = oracle.parse(r)
            frame = r["question"].replace(f"sound of {slots['x']}", "X").replace(f"sound of {slots['y']}", "Y")
            overall[r["question_type"]][r["answer"]] += 1
            relations[slots["relation"]][r["answer"]] += 1
            wordings[frame][r["answer"]] += 1
    assert len(overall) == 2
    assert set(relations) == set(MEANING)
    for group in (overall, relations, wordings):
        assert all(even(counts, ("Yes", "No")) for counts in group.values())
    direction = [sum(counts.values()) for phrase, counts in relations.items() if MEANING[phrase][0] != "r"]
    assert max(direction) <= 1.2 * min(direction)


def test_left_and_right_and_the_order_of_names_are_even(made, material):
    oracle = Oracle(material)
    sides = Counter(r["answer"] for r in made[0] if r["question_type"] == "MIXUP_NONBINARY_DIRECTION")
    assert even(sides, ("left", "right"))
    order = defaultdict(Counter)
    for r in made[0]:
        if r["question_type"] == "MIXUP_NONBINARY_SOURCE":
            slots = oracle.parse(r)
            order[slots["relation"]][slots["x"] == r["answer"]] += 1
    assert len(order) == 8
    assert all(even(counts, (True, False)) for counts in order.values())


def test_a_no_to_both_does_not_follow_from_one_source(made, material):
    """Of the answers No about "both", two in three are about one source here and one there."""
    oracle, one = Oracle(material), Counter()
    for r in made[0]:
        slots = oracle.parse(r)
        if (
            r["question_type"] == "MIXUP_DIRECTION"
            and r["answer"] == "No"
            and slots["relation"].endswith(("you", "r left"))
        ):
            coordinate, sign = MEANING[slots["relation"]]
            one[sum(sign * oracle.named(r, slots[name])[coordinate] > 0 for name in "xy")] += 1
    assert set(one) == {0, 1}
    assert 0.6 < one[1] / sum(one.values()) < 0.75


@pytest.mark.parametrize(("kind", "slack"), [("DOA", 0.01), ("MIXUP_SINGLE_DOA", 0.1)])
def test_octants_are_even(made, kind, slack):
    octants = Counter(r["answer"].split(";")[0] for r in made[0] if r["question_type"] == kind)
    mean = sum(octants.values()) / 8
    assert len(octants) == 8
    assert all(abs(n - mean) <= slack * mean for n in octants.values())


@pytest.mark.parametrize("kind", ["DOA", "MIXUP_SINGLE_DOA", "MIXUP_NONBINARY_DISTANCE"])
def test_distances_are_flatter_than_the_rooms(made, material, kind):
    """The most frequent step is no more than twice its even share of the steps that every room allows."""
    steps = Counter(r["answer"].split("; ")[-1] for r in made[0] if r["question_type"] == kind)
    assert max(steps.values()) <= 2 * sum(steps.values()) / 20


def test_clips_are_dealt_like_cards(made):
    scenes = {(r["audio_id"], r["reverb_id"], r["audio_id2"], r["reverb_id2"]) for r in made[0]}
    heard = Counter(audio for scene in scenes for audio in (scene[0], scene[2]) if audio)
    assert len(heard) == 300
    # A scene that could not be made leaves its first clip out, now and then.
    assert max(heard.values()) - min(heard.values()) <= 0.1 * max(heard.values()) + 2


@pytest.mark.parametrize("count", [1_000, COUNT])
def test_nothing_is_given_away(made, material, count):
    """One fixed answer per wording scores no better than one fixed answer, even in a small split."""
    balance = made[1] if count == COUNT else BalanceCounter()
    if count != COUNT:
        list(generate(*stage(material), count, balance=balance))
    choices = [found for found in balance.report().parts if found.part in ("answer", "named", "octant")]
    assert [a.question_type for a in choices] == [k for k in PUBLISHED_TYPES if k not in NOT_A_CHOICE]
    for found in choices:
        chance = 1 / len(found.values)
        slack = 0.01 if count == COUNT else 0.04
        assert found.most_frequent <= chance + slack, found
        assert found.ceiling <= chance + 2 * slack, found


# ---- sparing -------------------------------------------------------------------------------------


def test_questions_share_scenes(made):
    def scene(record) -> tuple:
        return record["audio_id"], record["reverb_id"], record["audio_id2"], record["reverb_id2"]

    groups = [list(group) for _, group in itertools.groupby(made[0], key=scene)]
    two = [group for group in groups if group[0]["audio_id2"]]
    one = [group for group in groups if not group[0]["audio_id2"]]
    assert 0.95 * PER_SCENE < sum(map(len, two)) / len(two) <= PER_SCENE
    assert 1.95 < sum(map(len, one)) / len(one) <= 2
    assert made[1].scenes == {1: len(one), 2: len(two)}
    assert all(len({r["question"] for r in group}) == len(group) for group in groups)
    located = Counter(sum(r["question_type"] == "MIXUP_SINGLE_DOA" for r in group) for group in two)
    assert max(located) == 2
    # The same audio with two answers, wherever both sources have clear words (here 58 % of all have).
    assert located[2] > 0.4 * (located[1] + located[2])


def test_any_stretch_has_all_types(made):
    for start in range(0, COUNT, 200):
        assert {r["question_type"] for r in made[0][start : start + 200]} == set(PUBLISHED_TYPES)


def test_memory_does_not_grow_with_the_questions(material):
    arguments = stage(material)

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in generate(*arguments, count, balance=BalanceCounter()):
            pass
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # whatever is made once
    # Its table of label combinations fills up, then stays.
    assert peak(8_000) < 1.6 * peak(2_000)


# ---- the same again ------------------------------------------------------------------------------

SCRIPT = """
import hashlib, sys
from pathlib import Path
from batcli.data.metadata import *
from batcli.questions.generate import generate
clips, labels, reverbs = read_clips(Path(sys.argv[1])), read_labels(Path(sys.argv[2])), read_reverbs(Path(sys.argv[3]))
print(hashlib.sha256(repr(list(generate(clips, labels, reverbs, 1000, seed=3))).encode()).hexdigest())
"""


def test_same_seed_same_questions_in_another_process(material):
    files = [material.clips, material.labels, material.reverb_root / "train_reverberation.json"]

    def run(hash_seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", SCRIPT, *map(str, files)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert run("1") == run("2")


def test_another_seed_other_questions(material):
    first, again, other = ([*generate(*stage(material), 200, seed=seed)] for seed in (0, 0, 1))
    assert first == again
    assert not {q.scene for q in first} & {q.scene for q in other}


# ---- which and how many --------------------------------------------------------------------------


def test_more_questions_about_a_scene_are_asked_in_rounds(material):
    few, many = (list(generate(*stage(material), 1_200, per_scene=n)) for n in (4, 12))
    assert len({q.scene for q in many}) < 0.5 * len({q.scene for q in few})
    by_scene = Counter(q.scene for q in many)
    assert max(by_scene.values()) <= 12
    assert max(n for scene, n in by_scene.items() if len(scene) == 1) == 6  # three of A, three of B
    answers = Counter(q.answer for q in many if q.question_type in ("MIXUP_DIRECTION", "MIXUP_DISTANCE_BOTH"))
    assert abs(answers["Yes"] - answers["No"]) <= 4


def test_types_come_in_the_shares_that_are_asked_for(material):
    shares = {**{name: kind.released for name, kind in PUBLISHED_TYPES.items()}, "DOA": 1e7}
    counts = Counter(q.question_type for q in generate(*stage(material), 400, shares=shares))
    assert counts == counts_by_type(400, PUBLISHED_TYPES, shares)
    assert counts["DOA"] > 350


def test_types_by_family_and_by_name():
    assert question_types("A,B,C,D,E") == tuple(PUBLISHED_TYPES)
    assert question_types("mixup_direction, a") == ("CLASSIFICATION", "MIXUP_DIRECTION")
    with pytest.raises(InputError, match=r"--types: unknown question type 'F'; known: A, B"):
        question_types("A,F")
    with pytest.raises(InputError, match="no question types"):
        question_types(" , ")


@given(st.integers(1, 10_000), st.sets(st.sampled_from(list(PUBLISHED_TYPES)), min_size=1))
def test_counts_are_exact(count, types):
    counts = counts_by_type(count, [kind for kind in PUBLISHED_TYPES if kind in types])
    assert sum(counts.values()) == count
    assert set(counts) == types
    assert min(counts.values()) >= 0


@pytest.mark.parametrize("kind", PUBLISHED_TYPES)
def test_each_type_alone(material, kind):
    asked = list(generate(*stage(material), 150, (kind,)))
    assert [q.question_type for q in asked] == [kind] * 150
    oracle = Oracle(material)
    assert all(answer(oracle, q.to_dict()) == q.answer for q in asked)


# ---- what cannot be asked ------------------------------------------------------------------------

LABELS = [Label(0, "/m/0", "Dog"), Label(1, "/m/1", "Bell"), Label(2, "/m/2", "Rain, heavy")]
CLIPS = [Clip(f"c{i}", (f"/m/{i % 3}",)) for i in range(12)]


def room(*sources: tuple[float, float, float]) -> dict[str, Reverb]:
    return {f"r/{i}.npy": Reverb(f"r/{i}.npy", locate((0, 0, 0), s), s, {}) for i, s in enumerate(sources)}


def test_one_brir_per_room_is_too_few_for_two_sources():
    assert len(list(generate(CLIPS, LABELS, room((1, 1, 1)), 4, ("CLASSIFICATION", "DOA")))) == 4
    with pytest.raises(InputError, match="no room has two BRIRs"):
        list(generate(CLIPS, LABELS, room((1, 1, 1)), 4, ("MIXUP_DIRECTION",)))


def test_sources_on_a_plane_have_no_words():
    with pytest.raises(InputError, match="too near to a plane"):
        list(generate(CLIPS, LABELS, room((0, 1, 1), (1, 0, 1)), 4, ("DOA",)))
    assert len(list(generate(CLIPS, LABELS, room((0, 1, 1), (1, 0, 1)), 4, ("CLASSIFICATION",)))) == 4


@pytest.mark.parametrize(
    ("sources", "kind"),
    [
        ([(1, 1, 1), (-1, 1, 1)], "MIXUP_DISTANCE_BOTH"),  # a tie
        ([(6, 6, 6), (-6.5, 6.5, 6.5)], "MIXUP_DISTANCE_BOTH"),  # 10.4 m and 11.3 m: who hears that?
        ([(2, 2, 2), (2.1, 2.1, 2.2)], "MIXUP_NONBINARY_DISTANCE"),  # in the same direction
        ([(1, 2, 2), (1.2, 2, -2)], "MIXUP_NONBINARY_DIRECTION"),  # about as far to the right
        ([(1, 1, -1), (2, 1, -8)], "MIXUP_NONBINARY_DIRECTION"),  # further right in metres, further left in degrees
        ([(1, 1, 0.1), (1, 2, -0.1)], "MIXUP_SINGLE_DOA"),  # at the very side
    ],
)
def test_doubtful_questions_are_not_asked(sources, kind):
    with pytest.raises(InputError, match=f"no scene allows another question of type {kind}|too near to a plane"):
        list(generate(CLIPS, LABELS, room(*sources), 4, (kind,)))


def test_sources_with_one_label_never_meet():
    alike = [Clip("a", ("/m/0",)), Clip("b", ("/m/0", "/m/1"))]
    with pytest.raises(InputError, match="no scene allows"):
        list(generate(alike, LABELS, room((1, 1, 1), (-1, 1, 2)), 4, ("MIXUP_DIRECTION",)))


def test_labels_that_the_csv_lacks_are_not_spoken_of():
    clips = [Clip("known", ("/m/0", "/m/9")), Clip("unknown", ("/m/9",))]
    asked = list(generate(clips, LABELS, room((1, 1, 1)), 6, ("CLASSIFICATION",)))
    assert {(q.audio_id, q.answer) for q in asked} == {("known", "dog")}
    with pytest.raises(InputError, match="no clip has a label of the CSV"):
        generate(clips[1:], LABELS, room((1, 1, 1)), 6, ("CLASSIFICATION",))
