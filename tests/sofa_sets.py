"""Small SOFA files of the sphere head, written as laboratories write them: rightly or wrongly."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from batcli.audio import hrtf as heads

FORWARD_LEFT_UP = np.eye(3)


def grid() -> tuple[np.ndarray, np.ndarray]:
    """Azimuths (0 front, 90 left) and elevations of 145 directions, every 20°."""
    azimuth, elevation = (part.ravel() for part in np.meshgrid(np.arange(0, 360, 20.0), np.arange(-60, 81, 20.0)))
    return np.append(azimuth, 0.0), np.append(elevation, 90.0)


def unit(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Degrees [n] → [n x 3], x front, y left, z up."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], -1)


@cache
def responses() -> np.ndarray:
    """[145 x 2 x 160] at 32 kHz, left ear first, with their delays."""
    head, found = heads.sphere(), []
    for azimuth, elevation in zip(*grid(), strict=True):
        irs, delays = head.at(azimuth + 90, elevation)
        shift = np.exp(-2j * np.pi * np.fft.rfftfreq(256) * (24 + delays)[:, None])
        found.append(np.fft.irfft(np.fft.rfft(irs, 256) * shift, 256)[:, :160])
    return np.array(found)


def spherical(places: np.ndarray) -> np.ndarray:
    """[n x 3] in metres → azimuth 0…360°, elevation, radius."""
    radius = np.linalg.norm(places, axis=-1)
    azimuth = np.degrees(np.arctan2(places[:, 1], places[:, 0])) % 360
    return np.stack([azimuth, np.degrees(np.arcsin(np.clip(places[:, 2] / radius, -1, 1))), radius], -1)


def write_set(
    path: Path,
    *,
    irs: np.ndarray | None = None,
    receivers_swapped: bool = False,
    channels_swapped: bool = False,
    clockwise: bool = False,
    frame: np.ndarray = FORWARD_LEFT_UP,
    turntable: bool = False,
    position: tuple[float, float, float] = (0.0, 0.0, 0.0),
    coordinates: str = "degrees",
    distances: float | np.ndarray = 1.4,
    pick: slice | np.ndarray = slice(None),
    **changes: Any,
) -> Path:
    """Write the sphere head's 145 directions.

    receivers_swapped: ReceiverPosition names the wrong ear. channels_swapped: the right ear's
    channel is first, and ReceiverPosition says so. clockwise: azimuths of sources run to the right
    of the head. frame: rows are where front, left and top of the head point in the room.
    turntable: the head turns by 20° about its top after each direction. coordinates: `cartesian`,
    `degrees` or `radians`. changes: variables of the file (sofar's names) set to something else.
    """
    import netCDF4
    import sofar

    azimuth, elevation = grid()
    relative = unit(-azimuth if clockwise else azimuth, elevation) * np.broadcast_to(distances, len(azimuth))[:, None]
    frames = np.broadcast_to(frame, (len(azimuth), 3, 3))
    if turntable:
        turn = np.radians(20.0 * np.arange(len(azimuth)))
        c, s, zero, one = np.cos(turn), np.sin(turn), np.zeros(len(turn)), np.ones(len(turn))
        turns = np.stack([c, s, zero, -s, c, zero, zero, zero, one], -1).reshape(-1, 3, 3)
        frames = turns @ frames
    places = np.einsum("nk,nkx->nx", relative, frames) + position
    ears = np.array([[0, 0.09, 0], [0, -0.09, 0]])
    content = sofar.Sofa("SimpleFreeFieldHRIR")
    content.Data_IR = (responses() if irs is None else irs)[pick, :: -1 if channels_swapped else 1]
    content.ReceiverPosition = ears[:: -1 if channels_swapped != receivers_swapped else 1]
    content.SourcePosition = (places if coordinates == "cartesian" else spherical(places))[pick]
    content.SourcePosition_Type = "cartesian" if coordinates == "cartesian" else "spherical"
    content.SourcePosition_Units = "metre" if coordinates == "cartesian" else "degree, degree, metre"
    view, up = (frames[pick, row] if turntable else frame[None, row] for row in (0, 2))
    listener = np.array([position], float)
    if coordinates != "cartesian":
        view, up = spherical(view), spherical(up)
        content.ListenerView_Type, content.ListenerView_Units = "spherical", "degree, degree, metre"
    content.ListenerView, content.ListenerUp, content.ListenerPosition = view, up, listener
    content.Data_SamplingRate = heads.SAMPLE_RATE
    for name, value in changes.items():
        setattr(content, name, value)
    written = path.with_suffix(".sofa")  # sofar writes no others
    sofar.write_sofa(str(written), content)
    written.rename(path)
    if coordinates == "radians":  # which sofar takes for an error
        with netCDF4.Dataset(path, "r+") as file:
            for name in ("SourcePosition", "ListenerView", "ListenerUp"):
                file[name][:, :2] = np.radians(file[name][:, :2])
            for name in ("SourcePosition", "ListenerView"):
                file[name].Units = "radian, radian, metre"
    return path
