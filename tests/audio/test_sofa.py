"""SOFA files, also such as name the wrong ear, turn the wrong way or are damaged: sides, front and behind."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sofa_sets import grid, responses, unit, write_set

from batcli.audio import hrtf as heads
from batcli.audio.hrtf import SAMPLE_RATE, Hrtf
from batcli.audio.rooms import DIRECT_SAMPLE, ListenerPose, Room, simulate
from batcli.core.errors import InputError

pytest.importorskip("netCDF4", reason="the extra 'sofa' is not installed")
pytest.importorskip("sofar", reason="the extra 'sofa' is not installed")

FRONT, LEFT, BEHIND, RIGHT = 90, 180, 270, 0  # azimuths of the data
TURNED = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # facing the room's left
ROLLED = np.array([[0.6, 0.0, 0.8], [0.8, 0.0, -0.6], [0.0, 1.0, 0.0]])  # facing up, the top to the room's left


def lead_of_left(head: Hrtf, azimuth: float, elevation: float = 0.0) -> tuple[float, float]:
    """(dB that the left ear is louder, samples that it is earlier)."""
    irs, delays = head.at(azimuth, elevation)
    level = 10 * np.log10((irs**2).sum(-1))
    return level[0] - level[1], delays[1] - delays[0]


def spectrum(head: Hrtf, azimuth: float, elevation: float) -> np.ndarray:
    """dB from 3 to 14 kHz, the mean of both ears."""
    bins = slice(48, 224)  # of 512 points at 32 kHz
    return 20 * np.log10(np.abs(np.fft.rfft(head.at(azimuth, elevation)[0], 512)[:, bins])).mean(0)


def is_turned_rightly(head: Hrtf) -> bool:
    """Whether left, right, front, behind and above of `head` are those of the sphere head."""
    true = heads.sphere()
    for azimuth, sign in ((LEFT, 1), (LEFT - 30, 1), (LEFT + 30, 1), (RIGHT, -1), (RIGHT + 30, -1), (RIGHT - 30, -1)):
        level, delay = lead_of_left(head, azimuth)
        if sign * level < 6 or sign * delay < 10:
            return False
    places = [(FRONT, 0), (BEHIND, 0), (FRONT, 60), (FRONT, -40)]
    for place in places:
        errors = [np.abs(spectrum(head, *place) - spectrum(true, *other)).mean() for other in places]
        if int(np.argmin(errors)) != places.index(place):
            return False
    return True


# ---- every combination ---------------------------------------------------------------------------


@pytest.mark.parametrize("coordinates", ["cartesian", "degrees", "radians"])
@pytest.mark.parametrize(("turned", "moved"), list(product([False, True], repeat=2)))
@pytest.mark.parametrize(("swapped", "clockwise"), list(product([False, True], repeat=2)))
def test_sides_are_right_however_a_file_is_wrong(tmp_path, swapped, clockwise, turned, moved, coordinates):
    path = write_set(
        tmp_path / "h.sofa",
        receivers_swapped=swapped,
        clockwise=clockwise,
        frame=TURNED if turned else np.eye(3),
        position=(3.0, -2.0, 1.2) if moved else (0.0, 0.0, 0.0),
        coordinates=coordinates,
    )
    head = heads.sofa(path)
    assert is_turned_rightly(head)
    # Both at once are a mirrored head, sound in itself.
    assert len(head.warnings) == len(head.corrections) == (swapped != clockwise)


@st.composite
def frames(draw: st.DrawFn) -> np.ndarray:
    """A head turned in any way: rows are its front, left and top."""
    turn = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 1 << 30))).normal(size=(3, 3)))[0]
    return turn * np.linalg.det(turn)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    frame=st.one_of(st.just(np.eye(3)), st.just(ROLLED), frames()),
    position=st.tuples(*[st.floats(-20, 20)] * 3),
    coordinates=st.sampled_from(["cartesian", "degrees", "radians"]),
    errors=st.fixed_dictionaries(
        {name: st.booleans() for name in ("receivers_swapped", "channels_swapped", "clockwise", "turntable")}
    ),
    suffix=st.sampled_from([".sofa", ".SOFA", ".Sofa"]),
)
def test_any_turn_and_place_of_the_listener(tmp_path, frame, position, coordinates, errors, suffix):
    path = write_set(tmp_path / f"h{suffix}", frame=frame, position=position, coordinates=coordinates, **errors)
    head = heads.sofa(path)
    assert is_turned_rightly(head)
    assert bool(head.warnings) == (errors["receivers_swapped"] != errors["clockwise"])


def test_a_fixed_loudspeaker_and_a_head_that_turns(tmp_path):
    """One SourcePosition for all rows; ListenerView says where the head looks."""
    azimuth, elevation = grid()
    forward, up = unit(-azimuth, np.zeros(len(azimuth))), unit(np.zeros(1), np.array([90.0]))
    # Up and down cannot be reached by turning alone: the loudspeaker stands elsewhere for those rows.
    sources = unit(np.zeros(len(azimuth)), elevation) * 1.4
    path = write_set(
        tmp_path / "h.sofa",
        coordinates="cartesian",
        ListenerView=forward,
        ListenerUp=up,
        SourcePosition=sources,
    )
    assert is_turned_rightly(heads.sofa(path))


def test_angles_in_radians_that_are_called_degrees(tmp_path):
    import netCDF4

    path = write_set(tmp_path / "h.sofa", coordinates="radians")
    with netCDF4.Dataset(path, "r+") as file:
        file["SourcePosition"].Units = "degree, degree, metre"
    head = heads.sofa(path)
    assert is_turned_rightly(head)
    assert head.corrections == ("SourcePosition read as radians",)
    path = write_set(tmp_path / "h.sofa")
    with netCDF4.Dataset(path, "r+") as file:
        file["SourcePosition"].Units = "radian, radian, metre"
    head = heads.sofa(path)
    assert is_turned_rightly(head)
    assert "can only be degrees" in head.warnings[0]


@pytest.mark.parametrize("units", ["degree, degree, metre", None])
def test_coordinates_that_no_type_names(tmp_path, units):
    import netCDF4

    path = write_set(tmp_path / "h.sofa", frame=TURNED)
    with netCDF4.Dataset(path, "r+") as file:
        file["SourcePosition"].delncattr("Type")
        if units is None:
            file["SourcePosition"].delncattr("Units")
    assert is_turned_rightly(heads.sofa(path))


def test_distances_that_vary(tmp_path):
    """All that differ by a few per cent are read; of two shells, the farther."""
    count = len(grid()[0])
    path = write_set(tmp_path / "h.sofa", distances=1.4 + 0.05 * np.sin(np.arange(count)))
    assert is_turned_rightly(heads.sofa(path))
    places = np.stack([*grid(), np.full(count, 1.4)], -1)
    near = places * (1, 1, 0.5)
    irs = np.concatenate([responses()[:, ::-1], responses()])
    path = write_set(tmp_path / "h.sofa", irs=irs, SourcePosition=np.concatenate([near, places]))
    assert is_turned_rightly(heads.sofa(path))


def test_channels_need_not_have_the_same_gain(tmp_path):
    """A channel that is 12 dB louder than the other for all directions says nothing of sides."""
    irs = responses() * np.array([[1.0], [4.0]])
    head = heads.sofa(write_set(tmp_path / "h.sofa", irs=irs, receivers_swapped=True))
    assert lead_of_left(head, LEFT)[0] > lead_of_left(head, RIGHT)[0] + 12
    assert lead_of_left(head, LEFT)[1] > 10


@pytest.mark.parametrize("kept", ["level", "delay"])
def test_one_cue_is_enough(tmp_path, kept):
    irs = responses()
    if kept == "level":
        spectra = np.abs(np.fft.rfft(irs, 512))
        irs = heads._minimum_phase(spectra, 512)[..., :160]
    else:
        irs = irs / np.sqrt((irs**2).sum(-1, keepdims=True))
    head = heads.sofa(write_set(tmp_path / "h.sofa", irs=irs, receivers_swapped=True))
    assert lead_of_left(head, LEFT)[kept == "delay"] > 5
    assert lead_of_left(head, RIGHT)[kept == "delay"] < -5


# ---- what is said, and what is refused -----------------------------------------------------------


def test_a_contradiction_is_named_in_one_line(tmp_path):
    head = heads.sofa(write_set(tmp_path / "h.sofa", receivers_swapped=True))
    (warning,) = head.warnings
    assert warning.startswith("ReceiverPosition calls channel 0 the right ear, but it is 1")
    assert "dB louder" in warning
    assert head.corrections == ("ears by the responses, against ReceiverPosition",)
    head = heads.sofa(write_set(tmp_path / "h.sofa", clockwise=True))
    (warning,) = head.warnings
    assert warning.startswith("SourcePosition contradicts ReceiverPosition")
    assert head.corrections == ("azimuths clockwise by the responses, against SourcePosition",)
    assert heads.sofa(write_set(tmp_path / "h.sofa")).warnings == ()


def test_front_and_behind_exchanged_are_warned_of(tmp_path):
    backwards = np.array([[-1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0]])
    path = write_set(tmp_path / "h.sofa", frame=backwards, coordinates="cartesian", ListenerView=[1.0, 0, 0])
    assert any("correct ListenerView" in warning for warning in heads.sofa(path).warnings)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=responses().shape)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"irs": np.repeat(responses()[:1], 145, 0)}, "left and right cannot be told"),
        ({"irs": responses()[:, [0, 0]]}, "left and right cannot be told"),
        ({"irs": noise()}, "left and right cannot be told"),
        ({"irs": np.repeat(noise()[:1], 145, 0) + 1e-3 * noise(1)}, "left and right cannot be told"),
        ({"irs": np.zeros((145, 2, 160)) + np.eye(1, 160)}, "left and right cannot be told"),
        ({"pick": np.abs(unit(*grid())[:, 1]) < 0.8}, "no source within 30° of straight left"),
        ({"pick": unit(*grid())[:, 1] > -0.8}, "no source within 30° of straight right"),
        ({"coordinates": "cartesian", "frame": TURNED, "ListenerView": [1.0, 0, 0]}, "one ear lies at azimuth"),
        ({"ListenerPosition": [[2.0, 0, 0]]}, "ListenerPosition 2, 0, 0 contradicts SourcePosition"),
        ({"coordinates": "cartesian", "ListenerView": [[0.0, 0, 0]]}, "ListenerView is 0, 0, 0"),
        ({"coordinates": "cartesian", "ListenerUp": [[2.0, 0, 0]]}, "ListenerUp points along ListenerView"),
        ({"coordinates": "cartesian", "ListenerView": [[np.nan, 0, 0]]}, "ListenerView is not three finite"),
        ({"Data_Delay": [[0.0, 1e300]]}, "Data.Delay is not finite, or longer"),
        ({"irs": responses() * 1e300}, "a response with a peak of"),
        ({"irs": responses() * 1e-200}, "a response with a peak of"),
    ],
)  # fmt: skip
def test_refused_in_one_line(tmp_path, changes, what):
    path = write_set(tmp_path / "h.sofa", **changes)
    with pytest.raises(InputError, match=what) as error:
        heads.sofa(path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(path))


def test_level_against_delay_is_refused(tmp_path):
    irs = responses()
    gains = np.sqrt((irs**2).sum(-1, keepdims=True))
    with pytest.raises(InputError, match="one channel is louder and the other earlier"):
        heads.sofa(write_set(tmp_path / "h.sofa", irs=irs / gains**2))


@pytest.mark.parametrize("first_louder", [-12.0, -5.0, 5.0, 12.0])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_louder_microphone_is_brought_to_the_level_of_the_other(tmp_path, first_louder, swapped):
    """Else sources at the side of the weaker one would be louder at the other ear."""
    gains = 10 ** (np.array([[first_louder], [0.0]]) / 20)
    path = write_set(tmp_path / "h.sofa", irs=responses() * gains, channels_swapped=swapped)
    head = heads.sofa(path)
    assert head.corrections == ("ears brought to one level",)
    right, left = (10 * np.log10((head.at(azimuth, 0)[0] ** 2).sum(-1)) for azimuth in (0, 180))
    assert left[0] - left[1] == pytest.approx(right[1] - right[0], abs=1)
    assert not heads.sofa(write_set(tmp_path / "same.sofa", irs=responses() * gains[0])).corrections


def test_a_listener_up_left_at_its_default(tmp_path):
    """Where ListenerView was made spherical, 0, 0, 1 would be straight ahead: it is straight up."""
    assert is_turned_rightly(heads.sofa(write_set(tmp_path / "h.sofa", ListenerUp=[[0.0, 0.0, 1.0]])))


# ---- real heads ----------------------------------------------------------------------------------

REAL = {
    "real/heads/FHK_HRIR_L2354.sofa": True,  # whether ReceiverPosition contradicts the responses
    "real/heads/dtf_nh2.sofa": False,
    "real/heads/hrtf_c_nh898.sofa": False,
    "cases/05-sofa/legacy_small.sofa": True,
}


def test_all_files_are_named(shared: Path):
    found = {str(path.relative_to(shared)) for path in shared.rglob("*") if path.suffix.lower() == ".sofa"}
    assert found == set(REAL)


@pytest.mark.parametrize(("name", "contradicts"), REAL.items())
def test_brirs_are_louder_at_the_labelled_side(shared, name, contradicts):
    head = heads.sofa(shared / name)
    assert bool(head.warnings) == contradicts
    room = Room((5.0, 2.8, 4.0), np.full((6, 7), 0.5))
    sources = [
        (sign * 1.2 * np.cos(np.radians(from_side)), height, 1.2 * np.sin(np.radians(from_side)))
        for sign in (-1, 1)
        for from_side in (-30.0, 0.0, 30.0)
        for height in (-0.3, 0.0, 0.3)
    ]
    brirs = simulate(room, ListenerPose((2.5, 1.4, 2.0), 25.0), sources, head, np.random.default_rng(0))
    right = 0
    for (x, _, _), brir in zip(sources, brirs, strict=True):
        left_ear, right_ear = (brir.samples[:, : DIRECT_SAMPLE + SAMPLE_RATE // 1000] ** 2).sum(-1)
        left_all, right_all = (brir.samples**2).sum(-1)
        right += (left_ear > right_ear) == (left_all > right_all) == (x < 0)
    assert right == 18
