"""Measured rooms: sides by acoustics, alignment, level, reverberation; SOFA conventions of rooms, tables."""

from itertools import product

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_room import PLACES, RT60, simulated

from batcli.audio.measured import (
    MeasuredRoom,
    Place,
    Row,
    position,
    read_room_files,
    read_room_sofa,
    reverberation_time,
    to_brirs,
)
from batcli.core.errors import InputError
from batcli.data.constants import DIRECT_SAMPLE, SAMPLE_RATE


def measured(exchanged=False, clockwise=False, left_channel=0, gain=1.0, delay=0, rate=SAMPLE_RATE) -> MeasuredRoom:
    """The simulated room as somebody measured it: ears exchanged, angles reversed, quieter, later, at another rate."""
    irs, places = [], []
    for number, (samples, place) in enumerate(zip(simulated(), PLACES, strict=True)):
        moved = np.pad(samples * gain, ((0, 0), (delay, 0)))
        moved = soxr.resample(moved.T, SAMPLE_RATE, rate, "VHQ").T if rate != SAMPLE_RATE else moved
        irs.append(moved[::-1] if exchanged else moved)
        places.append(Place(f"{number}.wav", tuple(place * (1, -1, 1) if clockwise else place)))
    return MeasuredRoom("lab", places, irs, rate, left_channel)


def louder_side(samples):
    return "left" if np.square(samples[0]).sum() > np.square(samples[1]).sum() else "right"


@settings(max_examples=24, deadline=None)
@given(
    exchanged=st.booleans(), clockwise=st.booleans(), named=st.sampled_from([0, 1, None]), delay=st.integers(0, 2_000)
)
def test_the_louder_ear_is_on_the_side_of_the_source_however_a_set_is_wrong(exchanged, clockwise, named, delay):
    brirs, notes = to_brirs(measured(exchanged, clockwise, named, delay=delay), "direct", 2.0)
    for brir in brirs:
        x = brir.source[0]
        if abs(x) > 0.8 * np.linalg.norm(brir.source):
            assert louder_side(brir.samples) == ("left" if x < 0 else "right")
    contradicted = named is not None and (named == 1) != (exchanged != clockwise)
    assert bool(notes) == contradicted


def test_a_right_set_keeps_its_places_and_gets_its_own_level_and_time():
    brirs, notes = to_brirs(measured(gain=0.05, delay=700), "direct", 2.0)
    assert notes == ()
    for brir, place, samples in zip(brirs, PLACES, simulated(), strict=True):
        assert brir.source == pytest.approx((-place[1], place[2], -place[0]), abs=1e-9)
        assert brir.gain_db == pytest.approx(26.0, abs=1.0), "the level that the simulation had"
        at = np.abs(brir.samples).max(0)
        assert abs(int((at > 0.1 * at.max()).argmax()) - DIRECT_SAMPLE) <= 1
        assert brir.shift == pytest.approx(-700, abs=2)
        common = min(samples.shape[1], brir.samples.shape[1]) - 400
        likeness = [np.corrcoef(samples[0, :common], np.roll(brir.samples[0], n)[:common])[0, 1] for n in range(-3, 4)]
        assert max(likeness) > 0.999


def test_level_as_is_changes_no_sample():
    brirs, _ = to_brirs(measured(gain=0.05), "as-is", 2.0)
    assert all(brir.gain_db == 0 for brir in brirs)
    peak = max(np.abs(samples).max() for samples in simulated())
    assert max(np.abs(brir.samples).max() for brir in brirs) == pytest.approx(0.05 * peak, rel=1e-6)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_other_rates(rate):
    brirs, _ = to_brirs(measured(rate=rate), "direct", 2.0)
    for brir, samples in zip(brirs, simulated(), strict=True):
        assert brir.samples.shape[1] == pytest.approx(samples.shape[1], abs=8)
        assert abs(brir.gain_db) < 1.5
        assert brir.rt60 == pytest.approx(RT60, rel=0.25)


def test_a_response_is_cut_with_a_fade():
    brirs, _ = to_brirs(measured(), "direct", 0.1)
    assert all(brir.samples.shape == (2, 3_200) for brir in brirs)
    assert all(np.abs(brir.samples[:, -3:]).max() < 1e-3 * np.abs(brir.samples).max() for brir in brirs)


def test_reverberation_time_of_a_decay_with_and_without_noise():
    rng = np.random.default_rng(1)
    decay = rng.normal(size=(2, SAMPLE_RATE)) * 10 ** (-3 * np.arange(SAMPLE_RATE) / SAMPLE_RATE / 0.5)
    assert reverberation_time(decay) == pytest.approx(0.5, rel=0.08)
    assert reverberation_time(decay + 1e-3 * rng.normal(size=decay.shape)) == pytest.approx(0.5, rel=0.1)
    assert reverberation_time(decay + 0.3 * rng.normal(size=decay.shape)) is None
    click = np.zeros((2, SAMPLE_RATE))
    click[:, 40] = 1
    assert reverberation_time(click) is None, "a head without a room"


def test_a_set_without_cues_is_refused():
    room = measured()
    same = MeasuredRoom("lab", room.places, [room.irs[0]] * len(room.irs), room.rate)
    with pytest.raises(InputError, match="left and right cannot be told"):
        to_brirs(same, "direct", 2.0)
    front = MeasuredRoom("lab", room.places[:2], room.irs[:2], room.rate)
    with pytest.raises(InputError, match="no source within 30° of straight left"):
        to_brirs(front, "direct", 2.0)


@pytest.mark.parametrize("bad", ["zero", "one ear", "nan"])
def test_a_silent_or_broken_response_is_refused_by_its_file(bad):
    room = measured()
    broken = np.array(room.irs[3])
    if bad == "one ear":
        broken[1] = 0
    else:
        broken[:] = 0 if bad == "zero" else np.nan
    irs = [*room.irs[:3], broken, *room.irs[4:]]
    with pytest.raises(InputError, match=r"3\.wav: an ear's response is silent"):
        to_brirs(MeasuredRoom("lab", room.places, irs, room.rate), "direct", 2.0)


@pytest.mark.parametrize(
    ("azimuths", "azimuth", "expected"),
    [("left", 90, (0, 1, 0)), ("right", 90, (0, -1, 0)), ("bat", 90, (1, 0, 0)), ("bat", 0, (0, -1, 0)),
     ("left", 0, (1, 0, 0)), ("right", 180, (-1, 0, 0)), ("bat", 180, (0, 1, 0))],
)  # fmt: skip
def test_conventions_of_azimuths(azimuths, azimuth, expected):
    assert position(Row("t:1", None, "r", azimuth, 0, 1), azimuths) == pytest.approx(expected, abs=1e-12)
    assert position(Row("t:1", None, "r", azimuth, 90, 2), azimuths) == pytest.approx((0, 0, 2), abs=1e-12)


@pytest.mark.parametrize("numbers", [(400, 0, 1), (0, 91, 1), (0, 0, 0.01), (0, 0, 1e4), (np.nan, 0, 1)])
def test_places_out_of_range_are_refused(numbers):
    with pytest.raises(InputError, match="t:1"):
        position(Row("t:1", None, "r", *numbers), "left")


def test_files_of_one_room_have_one_rate(tmp_path):
    for name, rate in (("a", 48_000), ("b", 44_100)):
        soundfile.write(tmp_path / f"{name}.wav", simulated()[0].T, rate)
    rows = [Row(f"t:{n}", tmp_path / f"{n}.wav", "r", 0, 0, 1) for n in "ab"]
    with pytest.raises(InputError, match="rates of 44,100 and 48,000"):
        read_room_files(rows, "left")


# ---- SOFA ----------------------------------------------------------------------------------------


def write(path, convention, irs, dimensions, **variables):
    """A SOFA file as netCDF; variables are (values, attributes)."""
    netCDF4 = pytest.importorskip("netCDF4")
    with netCDF4.Dataset(path, "w") as file:
        file.Conventions, file.SOFAConventions = "SOFA", convention
        for name, size in {**dict(zip(dimensions, irs.shape, strict=True)), "C": 3, "I": 1}.items():
            file.createDimension(name, size)
        file.createVariable("Data.IR", "f8", dimensions)[:] = irs
        file.createVariable("Data.SamplingRate", "f8", ("I",))[:] = SAMPLE_RATE
        for name, (values, attributes) in variables.items():
            values = np.atleast_2d(np.asarray(values, float))
            rows = f"rows_{name}"
            file.createDimension(rows, len(values))
            variable = file.createVariable(name, "f8", (rows, "C"))
            variable[:] = values
            variable.setncatts(attributes)
    return path


CARTESIAN = {"Type": "cartesian", "Units": "metre"}
EARS = ([[0, 0.09, 0], [0, -0.09, 0]], CARTESIAN)


def stacked():
    longest = max(samples.shape[1] for samples in simulated())
    return np.stack([np.pad(samples, ((0, 0), (0, longest - samples.shape[1]))) for samples in simulated()])


@pytest.mark.parametrize("convention", ["SingleRoomSRIR", "SimpleFreeFieldHRIR", "SingleRoomDRIR", "GeneralFIR"])
def test_one_loudspeaker_at_many_places(tmp_path, convention):
    path = write(tmp_path / "hall.sofa", convention, stacked(), ("M", "R", "N"),
                 SourcePosition=(PLACES, CARTESIAN), ReceiverPosition=EARS)  # fmt: skip
    (room,) = read_room_sofa(path)
    brirs, notes = to_brirs(room, "direct", 2.0)
    assert (room.name, notes) == ("hall", ())
    assert [brir.source for brir in brirs] == [pytest.approx((-y, z, -x)) for x, y, z in PLACES]


@pytest.mark.parametrize(
    ("convention", "names"), [("MultiSpeakerBRIR", "MREN"), ("GeneralFIR-E", "MRNE"), ("SingleRoomMIMOSRIR", "MRNE")]
)
def test_many_loudspeakers_and_two_poses_of_the_head(tmp_path, convention, names):
    """The second pose is the first one turned by 180°: its sources lie on the other side of the listener."""
    order = ["MERN".index(name) for name in names]
    irs = np.stack([stacked(), stacked()]).transpose(order)
    emitters = np.array(PLACES)
    views = [[1, 0, 0], [-1, 0, 0]]
    path = write(tmp_path / "hall.sofa", convention, irs, tuple(names), ReceiverPosition=EARS,
                 SourcePosition=([[0, 0, 0]], CARTESIAN), EmitterPosition=(emitters, CARTESIAN),
                 ListenerView=(views, CARTESIAN))  # fmt: skip
    rooms = read_room_sofa(path)
    assert sorted(room.name for room in rooms) == ["hall-0", "hall-1"]
    turned, straight = sorted(rooms, key=lambda room: room.places[0].position[0])
    assert np.array([place.position for place in straight.places]) == pytest.approx(emitters)
    assert np.array([place.position for place in turned.places]) == pytest.approx(emitters * (-1, -1, 1), abs=1e-9)
    assert [np.array_equal(a, b) for a, b in zip(straight.irs, stacked(), strict=True)] == [True] * len(PLACES)


@pytest.mark.parametrize(("swapped", "clockwise"), list(product([False, True], repeat=2)))
def test_a_sofa_room_that_contradicts_itself_is_corrected(tmp_path, swapped, clockwise):
    ears = (EARS[0][::-1] if swapped else EARS[0], CARTESIAN)
    places = np.array(PLACES) * (1, -1 if clockwise else 1, 1)
    path = write(tmp_path / "h.sofa", "SingleRoomSRIR", stacked(), ("M", "R", "N"),
                 SourcePosition=(places, CARTESIAN), ReceiverPosition=ears)  # fmt: skip
    (room,) = read_room_sofa(path)
    brirs, notes = to_brirs(room, "direct", 2.0)
    assert all(louder_side(brir.samples) == ("left" if brir.source[0] < 0 else "right") for brir in brirs[2:4])
    assert bool(notes) == (swapped != clockwise)


def test_what_is_no_binaural_room_is_refused(tmp_path):
    four = np.concatenate([stacked(), stacked()], 1)
    path = write(tmp_path / "four.sofa", "SingleRoomSRIR", four, ("M", "R", "N"), SourcePosition=(PLACES, CARTESIAN))
    with pytest.raises(InputError, match="4 receivers; a binaural room has two ears"):
        read_room_sofa(path)
    path = write(tmp_path / "hp.sofa", "SimpleHeadphoneIR", stacked(), ("M", "R", "N"),
                 SourcePosition=(PLACES, CARTESIAN))  # fmt: skip
    with pytest.raises(InputError, match="its convention is 'SimpleHeadphoneIR'"):
        read_room_sofa(path)
