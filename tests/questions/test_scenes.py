"""Scenes: margins, comparisons, balanced drawing, labels that do not meet."""

import math
import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.data.geometry import Position, locate, offset
from batcli.data.metadata import Clip, Label, Reverb
from batcli.evaluation.metrics import great_circle
from batcli.questions.scenes import (
    MAX_REUSE,
    MIN_ANGLE,
    LocationSampler,
    ProportionalSampler,
    SceneSampler,
    ShuffledCycle,
    compare,
    even_shares,
    incompatible_labels,
    is_unambiguous,
    location_of,
)


def location(azimuth: float, elevation: float, distance: float, name: str = "r/0.npy"):
    position = Position(azimuth, elevation, distance)
    return location_of(Reverb(name, position, offset(position), {}))


positions = st.builds(location, st.floats(0, 360, exclude_max=True), st.floats(-89, 89), st.floats(0.3, 10))


# ---- clear words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("azimuth", "elevation", "clear"),
    [
        (45, 30, (True, True, True)),
        (9, 30, (True, False, True)),  # nearly at the side: front or behind?
        (81, 30, (False, True, True)),  # nearly ahead: left or right?
        (45, 4.9, (True, True, False)),
        (45, -5.1, (True, True, True)),
        (45, 84, (False, False, True)),  # overhead
    ],
)
def test_a_word_needs_its_margin(azimuth, elevation, clear):
    assert location(azimuth, elevation, 2).clear == clear


@given(positions)
def test_words_agree_with_coordinates(here):
    x, y, z = here.offset
    for value, word, positive in zip((x, -z, y), here.words, ("right", "front", "above"), strict=True):
        assert abs(value) < 1e-9 or (value > 0) == (word == positive)
    assert math.isclose(math.hypot(*here.direction), 1, rel_tol=1e-9)


# ---- comparisons ---------------------------------------------------------------------------------


@given(positions, positions)
def test_comparing_is_antisymmetric(a, b):
    for axis in range(4):
        assert compare(a, b, axis) == -compare(b, a, axis)
        assert compare(a, a, axis) == 0


@given(positions, positions)
def test_what_is_compared_differs_in_metres_and_in_degrees(a, b):
    for axis, name in enumerate(("right", "front", "up")):
        sign = compare(a, b, axis)
        if sign:
            assert sign * (a.along[axis] - b.along[axis]) >= 0.5, name
            assert sign * (a.angles[axis] - b.angles[axis]) >= 15, name
    if compare(a, b, 3):
        assert abs(a.distance - b.distance) >= 1
        assert max(a.distance, b.distance) >= 1.25 * min(a.distance, b.distance)


def test_a_description_fits_one_source_only():
    target = location(45, 30, 2)
    assert is_unambiguous(target, location(135, 30, 2))  # on the other side
    assert is_unambiguous(target, location(60, 40, 3.5))  # in the same octant, but farther
    assert not is_unambiguous(target, location(60, 40, 2.5))
    assert not is_unambiguous(target, location(95, 30, 2))  # left, but who could tell?
    assert not is_unambiguous(location(88, 30, 2), location(225, -30, 6))  # the description itself is in doubt


# ---- drawing -------------------------------------------------------------------------------------


@given(st.lists(st.integers(), min_size=1, unique=True), st.integers(0, 9))
def test_a_cycle_draws_all_before_any_again(items, seed):
    cycle = ShuffledCycle(items, random.Random(seed))
    for _ in range(3):
        assert sorted(cycle.draw() for _ in items) == sorted(items)


@given(st.integers(2, 40), st.integers(0, 9))
def test_a_wanted_item_takes_no_one_elses_turn(size, seed):
    cycle = ShuffledCycle(range(size), random.Random(seed))
    wanted = cycle.draw_where(lambda item: item == size - 1)
    assert wanted == size - 1
    assert sorted([wanted, *(cycle.draw() for _ in range(size - 1))]) == list(range(size))
    assert cycle.draw_where(lambda item: item > size) is None


@given(st.dictionaries(st.integers(), st.integers(1, 1000), min_size=1), st.floats(1, 10))
def test_even_shares(counts, reuse):
    cap = reuse / sum(counts.values())
    shares = even_shares(counts, 1.0, cap)
    assert math.isclose(sum(shares.values()), 1.0)
    full = [key for key in counts if shares[key] >= cap * counts[key] * (1 - 1e-9)]
    assert all(shares[key] <= cap * counts[key] * (1 + 1e-9) for key in counts)
    free = [share for key, share in shares.items() if key not in full]
    assert not free or max(free) - min(free) < 1e-9  # even, but where the cap holds a key back
    assert not free or all(shares[key] <= min(free) + 1e-9 for key in full)


@given(st.dictionaries(st.integers(), st.floats(0.01, 1), min_size=1, max_size=8), st.integers(0, 9))
def test_shares_hold_at_every_moment(weights, seed):
    whole = sum(weights.values())
    shares = {key: weight / whole for key, weight in weights.items()}
    sampler, drawn = ProportionalSampler(shares, random.Random(seed)), Counter()
    for n in range(1, 200):
        drawn[sampler.draw()] += 1
        assert all(abs(drawn[key] - n * share) < 1 + len(shares) * share for key, share in shares.items())


def test_octants_and_distances_are_even_where_places_are_not():
    """Nine in ten BRIRs near and in front on the right, the rest anywhere."""
    rng = random.Random(5)
    near = [location(rng.uniform(15, 75), rng.uniform(10, 50), rng.uniform(0.5, 2), f"r/{i}") for i in range(900)]
    rest = [
        location(90 * rng.randrange(4) + rng.uniform(15, 75), rng.choice((-1, 1)) * 30, rng.uniform(0.5, 8), f"s/{i}")
        for i in range(800)
    ]
    sampler = LocationSampler(near + rest, random.Random(0))
    drawn = [sampler.draw() for _ in range(8_000)]
    octants = Counter(one.words for one in drawn)
    assert max(octants.values()) - min(octants.values()) <= 8
    used = Counter(one.reverb_id for one in drawn)
    assert max(used.values()) <= MAX_REUSE * len(drawn) / 1700 + 1


def test_pairs_are_apart_and_clips_take_turns():
    rng = random.Random(2)
    reverbs = {}
    for number in range(60):
        source = tuple(rng.uniform(-4, 4) for _ in range(3))
        name = f"{number // 4}/{number}.npy"
        reverbs[name] = Reverb(name, locate((0, 0, 0), source), source, {})
    labels = [Label(i, f"/m/{i}", f"Name {i}") for i in range(5)]
    clips = [Clip(f"c{i}", (f"/m/{i % 5}",)) for i in range(20)]
    scenes = SceneSampler(clips, labels, reverbs, random.Random(1))
    for _ in range(200):
        scene = scenes.two(clear=True)
        if scene:
            a, b = (reverbs[placed.location.reverb_id] for placed in scene)
            assert a.scene == b.scene
            assert great_circle(np.array([offset(a.position)]), np.array([offset(b.position)]))[0] >= MIN_ANGLE - 1e-6
            assert not set(scene[0].names) & set(scene[1].names)


# ---- labels --------------------------------------------------------------------------------------


def test_labels_that_usually_come_together_do_not_meet():
    clips = [
        *(Clip(f"g{i}", ("guitar", "music")) for i in range(6)),
        *(Clip(f"m{i}", ("music",)) for i in range(20)),
        *(Clip(f"d{i}", ("dog",)) for i in range(6)),
        *(Clip(f"s{i}", ("dog", "speech")) for i in range(2)),
        *(Clip(f"t{i}", ("speech",)) for i in range(9)),
        Clip("rare", ("banjo", "dog")),
    ]
    apart = incompatible_labels(clips)
    assert apart["guitar"] == {"guitar", "music"}  # six of six clips with a guitar hold music
    assert apart["music"] == {"music", "guitar"}  # so no clip of music alone may play to a guitar either
    assert apart["dog"] == {"dog"}  # two of nine hold speech
    assert apart["banjo"] == {"banjo"}  # one clip says nothing about its company
