"""Labels: the published formula, its inverse, and the words of a direction."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batcli.data.geometry import (
    Direction,
    Position,
    locate,
    octant,
    offset,
    parse_vector,
    round_distance,
    unit_vector,
)

positions = st.builds(
    Position,
    azimuth=st.floats(0, 360, exclude_max=True),
    elevation=st.floats(-89.9, 89.9),  # at a pole there is no azimuth to come back to
    distance=st.floats(0.1, 100),
)
metres = st.floats(-50, 50)


@pytest.mark.parametrize(
    ("source", "azimuth", "elevation", "words"),
    [
        ((1, 0.1, -0.1), 5.7, 5.7, Direction("right", "front", "above")),
        ((0.1, -0.1, -1), 84.3, -5.7, Direction("right", "front", "below")),
        ((-1, 0.1, 0.1), 185.7, 5.7, Direction("left", "behind", "above")),
        ((-0.1, -0.1, 1), 264.3, -5.7, Direction("left", "behind", "below")),
        ((1, -1, 0), 0.0, -45.0, Direction("right", "front", "below")),
        ((0, 1, 0), 0.0, 90.0, Direction("right", "front", "above")),
    ],
)
def test_azimuth_runs_right_front_left_behind(source, azimuth, elevation, words):
    position = locate((0, 0, 0), source)
    assert position.azimuth == pytest.approx(azimuth, abs=0.05)
    assert position.elevation == pytest.approx(elevation, abs=0.05)
    assert octant(position) == words


@given(positions)
def test_locate_undoes_offset(position):
    back = locate((0, 0, 0), offset(position))
    assert back.distance == pytest.approx(position.distance)
    assert back.elevation == pytest.approx(position.elevation, abs=1e-6)
    assert math.remainder(back.azimuth - position.azimuth, 360) == pytest.approx(0, abs=1e-6)
    assert 0 <= back.azimuth < 360 or back.azimuth == pytest.approx(360)


@given(st.tuples(metres, metres, metres), st.tuples(metres, metres, metres))
def test_octant_has_the_signs_of_the_offset(sensor, source):
    x, y, z = (b - a for a, b in zip(sensor, source, strict=True))
    assume(min(abs(x), abs(y), abs(z)) > 1e-6)
    words = Direction("right" if x > 0 else "left", "behind" if z > 0 else "front", "above" if y > 0 else "below")
    assert octant(locate(sensor, source)) == words


@given(st.floats(0, 360), st.floats(-90, 90))
def test_unit_vectors_have_unit_length(azimuth, elevation):
    assert math.hypot(*unit_vector(azimuth, elevation)) == pytest.approx(1)


@pytest.mark.parametrize(("metres", "rounded"), [(0.24, 0), (0.25, 0.5), (0.75, 1), (1.25, 1.5), (3.3, 3.5), (10, 10)])
def test_distances_round_to_half_metres_halves_up(metres, rounded):
    assert round_distance(metres) == rounded


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "a,b,c", "", "1;2;3", "nan,0,0", "0,inf,0", None, 3, [1, 2, 3]])
def test_what_is_no_position(text):
    with pytest.raises(ValueError, match="position"):
        parse_vector(text)


def test_positions_may_have_spaces_and_exponents():
    assert parse_vector(" 1, -2.5 ,3e-1") == (1, -2.5, 0.3)
