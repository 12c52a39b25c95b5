"""The game's rounds: scenes that can be guessed, questions with one answer, points for what is right."""

import io
import math
import random

import numpy as np
import pytest
import soundfile
from rounds import (
    FARTHEST,
    HALLS,
    NEAREST,
    PLAY_GAIN,
    POINTS,
    Match,
    Said,
    challenge,
    draw_placement,
    mark,
    more_questions,
    open_stock,
    place_by_hand,
    put,
    read_answers,
    render_placement,
    to_wav,
    truth,
)

from batcli.audio.cues import interaural
from batcli.core.errors import InputError
from batcli.data.answers import Doa, read_doa
from batcli.data.dataset import open_dataset
from batcli.data.question_types import PUBLISHED_TYPES


@pytest.fixture(scope="module")
def stock(demo):
    return open_stock(open_dataset(demo), "eval")


@pytest.mark.parametrize("hall", HALLS, ids=lambda hall: hall.name)
@pytest.mark.parametrize("count", [1, 2])
def test_drawn_sounds_stand_in_the_room_and_can_be_told_apart(stock, hall, count, rng):
    width, height, length = hall.size
    left, floor, front = hall.listener
    steps = set()
    for _ in range(40):
        placement = draw_placement(rng, stock, hall, count)
        assert len(placement) == count
        for placed in placement:
            x, y, z = placed.location.offset
            assert 0 < x + left < width
            assert 0 < y + floor < height
            assert 0 < z + front < length
            assert NEAREST <= math.hypot(x, y, z) <= FARTHEST + 0.02
            assert all(placed.location.clear)
            steps.add(placed.location.rounded)
        if count == 2:
            a, b = (np.array(placed.location.offset) for placed in placement)
            assert math.degrees(math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))) >= 30 - 1e-6
            assert not set(placement[0].names) & set(placement[1].names)
    assert len(steps) >= 4  # near and far


def test_a_room_has_the_reverberation_that_it_says():
    for hall in HALLS:
        assert hall.room.rt60 == pytest.approx(hall.rt60, rel=0.01)


@pytest.mark.parametrize(("place", "louder"), [((1.0, 0.3, -0.2), 1), ((-1.0, 0.3, -0.2), 0)])
def test_a_sound_is_louder_and_earlier_at_its_own_ear(stock, place, louder):
    rain = stock.by_label["rain"][0]  # high frequencies, which the head's shadow keeps from the other ear
    audio = render_placement(stock, HALLS[0], (put(stock, rain, place, 0),), 1.0)
    assert audio.shape == (2, 32_000)
    cues = interaural(audio)
    assert (cues.ild_db < -3) if louder else (cues.ild_db > 3)
    assert (cues.itd_us > 100) if louder else (cues.itd_us < -100)


def test_a_far_sound_is_fainter_to_play(stock):
    def level(distance: float) -> float:
        placement = (put(stock, stock.clips[0], (0.1, 0.1, -distance), 0),)
        heard, rate = soundfile.read(io.BytesIO(to_wav(render_placement(stock, HALLS[0], placement, 1.0))))
        assert rate == 32_000
        return float(np.sqrt(np.mean(heard**2)))

    assert level(0.6) > 1.5 * level(2.4)


def test_playing_clips_instead_of_wrapping():
    heard, _ = soundfile.read(io.BytesIO(to_wav(np.full((2, 10), 3 / PLAY_GAIN, np.float32))))
    assert heard.min() > 0.99


def test_two_sounds_are_asked_about_one_each(stock, rng):
    for _ in range(30):
        placement = draw_placement(rng, stock, HALLS[0], 2)
        asked = challenge(placement, rng)
        assert {asked.named, asked.located} == set(placement)
        assert asked.what is not None
        assert asked.what.answer == "; ".join(asked.named.names)
        assert all(word in asked.what.question for word in asked.named.location.words)
        assert any(name in asked.where.question for name in asked.located.names)
        assert read_doa(asked.where.answer)[:3] == asked.located.location.words


def test_a_place_that_fits_both_sounds_is_not_asked_for(stock, rng):
    placement = tuple(
        put(stock, stock.by_label[label][0], (1.0, 0.5, -1.0 - 0.1 * number), number)
        for number, label in enumerate(stock.labels[:2])
    )
    assert challenge(placement, rng).what is None


def test_further_questions_are_of_every_type_of_their_family(stock):
    kinds = set()
    for seed in range(20):
        rng = random.Random(seed)
        for count in (1, 2):
            for asked in more_questions(draw_placement(rng, stock, HALLS[0], count), rng):
                assert asked.question
                assert asked.answer
                kinds.add(asked.kind)
    assert kinds == set(PUBLISHED_TYPES)


def test_the_truth_is_right_and_its_opposite_wrong(stock, rng):
    for count in (1, 2):
        asked = challenge(draw_placement(rng, stock, HALLS[0], count), rng)
        right = truth(asked)
        assert mark(right, asked) == dict.fromkeys(POINTS, True)
        written = read_answers(stock, asked.what.answer, asked.where.answer)
        assert written == right
        other = {"left": "right", "front": "behind", "above": "below"}
        other |= {b: a for a, b in other.items()}
        wrong = Said(frozenset(["nothing"]), Doa(*(other[word] for word in right.doa[:3]), right.doa.distance + 1.0))
        assert mark(wrong, asked) == dict.fromkeys(POINTS, False)
        assert mark(Said(frozenset(), Doa(None, None, None, None)), asked) == dict.fromkeys(POINTS, False)


def test_half_a_metre_off_is_right_and_a_name_too_many_wrong(stock, rng):
    asked = challenge(draw_placement(rng, stock, HALLS[0], 1), rng)
    right = truth(asked)
    near = right._replace(doa=right.doa._replace(distance=right.doa.distance + 0.5))
    assert mark(near, asked)["distance"] is True
    assert mark(right._replace(names=right.names | {"another"}), asked)["what"] is False


def test_what_no_ear_can_tell_gives_no_point(stock, rng):
    asked = challenge((put(stock, stock.clips[0], (0.0, 0.6, -1.0), 0),), rng)
    marks = mark(truth(asked), asked)
    assert marks["side"] is None
    assert marks["depth"] is True
    match = Match().after(marks, marks)
    assert match == Match(rounds=1, possible=4, you=4, model=4)


def test_the_score_adds_up():
    none, one, all_right = ({name: i < n for i, name in enumerate(POINTS)} for n in (0, 1, 5))
    match = Match().after(one, all_right).after(none, one)
    assert match == Match(rounds=2, possible=10, you=1, model=6)


def test_placing_by_hand(stock, rng):
    a, b = stock.labels[:2]
    placement = place_by_hand(stock, HALLS[0], [(a, (1.0, 0.2, -1.0)), (b, (-1.0, 0.2, 1.0))], rng)
    assert [placed.names for placed in placement] == [(a,), (b,)]
    assert placement[1].location.words == ("left", "behind", "above")


@pytest.mark.parametrize(
    ("sounds", "what"),
    [
        ([], "0 sounds"),
        ([("LABEL", (0.1, 0.1, 0.1))], "outside the room or within"),
        ([("LABEL", (9.0, 0.0, 0.0))], "outside the room or within"),
        ([("LABEL", (math.nan, 0.0, 1.0))], "outside the room or within"),
        ([("no such", (1.0, 0.0, 1.0))], "no sound named"),
        ([("LABEL", (1.0, 0.0, 1.0)), ("LABEL", (-1.0, 0.0, 1.0))], "told apart"),
        ([("LABEL", (1.0, 0.0, 1.0))] * 3, "3 sounds"),
    ],
)
def test_what_cannot_be_placed_is_refused(stock, rng, sounds, what):
    wanted = [(stock.labels[0] if label == "LABEL" else label, place) for label, place in sounds]
    with pytest.raises(InputError, match=what):
        place_by_hand(stock, HALLS[0], wanted, rng)
