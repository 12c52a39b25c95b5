"""Measured rooms: binaural room impulse responses from SOFA files, or from sound files with a table of places.

Axes of positions: x front, y left, z up, in metres from the head. Which ear is the left one is decided from the
direct sound (`batcli.audio.sofa.assign_ears`): public sets differ in the sign of their angles, and some are wrong.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from batcli.audio.hrtf import decompose, kemar
from batcli.audio.io import read_audio, resample
from batcli.audio.sofa import MeasuredHrirs, SofaVariables, assign_ears, receivers, relative_positions
from batcli.core.errors import InputError
from batcli.data.constants import DIRECT_SAMPLE, SAMPLE_RATE
from batcli.data.geometry import Vector

Array = NDArray[np.floating]
Azimuths = Literal["left", "right", "bat"]

CONVENTIONS = {
    "SingleRoomSRIR": "(responses of one room)",
    "SingleRoomMIMOSRIR": "(of several loudspeakers)",
    "SingleRoomDRIR": "(of one room)",
    "MultiSpeakerBRIR": "(of several loudspeakers)",
    "GeneralFIR": "(of any kind)",
    "GeneralFIR-E": "(of any kind, several loudspeakers)",
    "SimpleFreeFieldHRIR": "(of heads, used for rooms, too)",
}
ONSET = 10 ** (-20 / 20)  # of a response's peak: where the direct sound begins (ISO 3382-1)
DIRECT = round(0.0025 * SAMPLE_RATE)  # samples after the onset that are direct sound
BEFORE = 16  # samples before the onset that belong to it
LEVEL_BAND = (300.0, 6_000.0)  # Hz in which levels are compared: all loudspeakers and rates have them
FADE = round(0.010 * SAMPLE_RATE)  # samples
NEAREST, FARTHEST = 0.2, 100.0  # m
SMOOTHING = round(0.010 * SAMPLE_RATE)  # samples over which the loudest part of a decay is averaged
LEAST_RANGE = 30.0  # dB from there to the noise, for a decay of 20 dB to be seen
SHORTEST_RT60 = 0.05  # s; less is a head without a room
QUIET = 1e-4  # of the set's largest peak: no response of a source


class Place(NamedTuple):
    """The place of one measured response."""

    file: str  # where it comes from, for messages and metadata
    position: tuple[float, float, float]  # x front, y left, z up, in metres from the head


@dataclass(frozen=True, eq=False)
class MeasuredRoom:
    """Responses of one room, with one head that did not move."""

    name: str
    places: Sequence[Place]
    irs: Sequence[Array]  # of each place [2 x samples], channels in the files' order
    rate: int  # Hz
    left_channel: int | None = 0  # by the file; None if it does not say
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class MeasuredBrir:
    """A response as scenes are rendered with: the direct sound at DIRECT_SAMPLE, 32 kHz, left ear first."""

    source: Vector  # relative to the listener: x right, y up, −z front, in metres
    samples: NDArray[np.float32]  # [2 x T]
    gain_db: float  # that it was multiplied with
    shift: int  # samples at 32 kHz by which it was moved; negative: to an earlier time
    rt60: float | None  # s, three times T20 of its decay; None where noise hides it
    drr: float  # direct sound over all else, dB


# ---- reading -------------------------------------------------------------------------------------


def read_room_sofa(path: Path) -> list[MeasuredRoom]:
    """The responses of a SOFA file: a room for each pose of the listener. Needs the extra `sofa`.

    Raises InputError for a file that is damaged, has another convention than CONVENTIONS, or not two receivers.
    """
    file = SofaVariables(path, CONVENTIONS)
    irs = _by_measurement(file)
    measurements, emitters, ears, _ = irs.shape
    if ears != 2:
        raise InputError(f"{ears} receivers", path, "a binaural room has two ears")
    rates = np.unique(file.contents["Data.SamplingRate"])
    if len(rates) != 1 or not 8_000 <= rates[0] <= 384_000:
        raise InputError(f"sampling rate {', '.join(f'{rate:g}' for rate in rates[:3])} Hz", path, "from 8 to 384 kHz")
    poses = _poses(file, measurements)
    places = np.stack([relative_positions(file, part, measurements) for part in _sources(file, measurements, emitters)])
    sides = receivers(file)[:, 1]
    left = None if abs(sides[0] - sides[1]) < 1e-6 else int(sides[1] > sides[0])
    rooms: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for measurement in range(measurements):
        rooms[poses[measurement]] += [(measurement, emitter) for emitter in range(emitters)]
    found = []
    for number, members in rooms.items():
        name = path.stem if len(rooms) == 1 else f"{path.stem}-{number}"
        at = [Place(f"{path.name}#{m}.{e}", _triple(places[e, m])) for m, e in members]
        found.append(MeasuredRoom(name, at, [irs[m, e] for m, e in members], int(rates[0]), left, tuple(file.warnings)))
    return found


def _triple(numbers: Array) -> tuple[float, float, float]:
    x, y, z = numbers.tolist()
    return x, y, z


def _by_measurement(file: SofaVariables) -> Array:
    """Data.IR as [measurements x emitters x receivers x samples], by the names of its dimensions."""
    irs, names = file.contents["Data.IR"], file.dimensions["Data.IR"]
    if irs.ndim == 3:
        return irs[:, None]
    order = [names.index(name) for name in "MERN" if name in names]
    if irs.ndim != 4 or len(order) != 4:
        raise InputError(f"impulse responses of dimensions {', '.join(names)}", file.path, "M, R, N and perhaps E")
    return irs.transpose(order)


def _sources(file: SofaVariables, measurements: int, emitters: int) -> list[Array]:
    """The positions of each emitter in the room, [1 or measurements x 3]: that of its source plus its own."""
    sources = file.positions("SourcePosition", (0.0, 0.0, 0.0))
    if emitters == 1:
        return [sources]
    offsets = file.positions("EmitterPosition", (0.0, 0.0, 0.0), like="SourcePosition")
    if len(offsets) != emitters:
        raise InputError(f"EmitterPosition has {len(offsets)} rows for {emitters} emitters", file.path)
    if len(sources) not in (1, measurements):
        raise InputError(f"SourcePosition has {len(sources)} rows for {measurements} impulse responses", file.path)
    return [sources + offset for offset in offsets]


def _poses(file: SofaVariables, measurements: int) -> list[int]:
    """The number of the listener's pose, position and view, in each measurement."""
    parts = [file.contents.get(name) for name in ("ListenerPosition", "ListenerView", "ListenerUp")]
    rows = [part for part in parts if part is not None and len(part) == measurements > 1]
    if not rows:
        return [0] * measurements
    poses = np.concatenate([part.reshape(measurements, -1) for part in rows], 1).round(4)
    return np.unique(poses, axis=0, return_inverse=True)[1].ravel().tolist()


class Row(NamedTuple):
    """A line of a table of places."""

    where: str  # file:line
    file: Path
    room: str
    azimuth: float  # degrees
    elevation: float  # degrees, up is positive
    distance: float  # m


def read_room_files(rows: Sequence[Row], azimuths: Azimuths) -> list[MeasuredRoom]:
    """The rooms of a table whose files hold one response of two channels each, the left ear first.

    azimuths: `left` runs from 0 in front to +90 at the left, `right` to +90 at the right, `bat` from 0 at the right
    to 90 in front. Raises InputError for a file that cannot be read, and for rates that differ within a room.
    """
    by_room: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_room[row.room].append(row)
    rooms = []
    for name, members in by_room.items():
        audio = [read_audio(row.file, 2) for row in members]
        rates = sorted({rate for _, rate in audio})
        if len(rates) > 1:
            raise InputError(f"room {name!r:.40} has rates of {rates[0]:,} and {rates[1]:,} Hz", members[0].where)
        places = [Place(row.file.name, position(row, azimuths)) for row in members]
        rooms.append(MeasuredRoom(name, places, [samples for samples, _ in audio], rates[0]))
    return rooms


def position(row: Row, azimuths: Azimuths) -> tuple[float, float, float]:
    """x front, y left, z up in metres. Raises InputError for numbers out of range."""
    if not (abs(row.azimuth) <= 360 and abs(row.elevation) <= 90 and NEAREST <= row.distance <= FARTHEST):
        hint = f"degrees, and {NEAREST:g} to {FARTHEST:g} m"
        numbers = f"azimuth {row.azimuth:g}, elevation {row.elevation:g}, distance {row.distance:g}"
        raise InputError(numbers, row.where, hint)
    turned = {"left": row.azimuth, "right": -row.azimuth, "bat": row.azimuth - 90.0}[azimuths]
    a, e = math.radians(turned), math.radians(row.elevation)
    across = row.distance * math.cos(e)
    return across * math.cos(a), across * math.sin(a), row.distance * math.sin(e)


# ---- from measured to BRIRs ----------------------------------------------------------------------


def to_brirs(
    room: MeasuredRoom, level: Literal["as-is", "direct"], seconds: float
) -> tuple[list[MeasuredBrir], tuple[str, ...]]:
    """(the BRIRs of a room's places, corrections of what its files say).

    Resampled to 32 kHz, moved so that the nearer ear hears the direct sound at DIRECT_SAMPLE, cut to `seconds` with a
    short fade. level `direct`: the direct sound of each gets the level that KEMAR has for a source there, as simulated
    rooms have it; measured sets are not calibrated, and without this, distances mean nothing.

    Raises InputError for a silent response and where left and right cannot be told.
    """
    irs = [resample(np.asarray(samples, np.float32), room.rate, SAMPLE_RATE) for samples in room.irs]
    peak = max(float(np.abs(samples).max()) for samples in irs)
    for place, samples in zip(room.places, irs, strict=True):
        if not float(np.abs(samples).max(1).min()) > QUIET * peak:
            raise InputError("an ear's response is silent or not finite", place.file)
    onsets = [onset(samples) for samples in irs]
    direct = np.stack([_direct(samples, at) for samples, at in zip(irs, onsets, strict=True)])
    positions = np.array([place.position for place in room.places])
    assigned = _assign(room, positions, direct)
    exchanged = not np.array_equal(assigned.irs, direct)
    distances = np.linalg.norm(positions, axis=-1)
    places = assigned.directions * distances[:, None]
    brirs = []
    for samples, at, (front, left, up), own in zip(irs, onsets, places.tolist(), direct, strict=True):
        ears = samples[::-1] if exchanged else samples
        source = (-left, up, -front)
        gain = _direct_gain(own, source) if level == "direct" else 1.0
        moved = _moved(ears, DIRECT_SAMPLE - at, round(seconds * SAMPLE_RATE)) * np.float32(gain)
        brirs.append(
            MeasuredBrir(
                source, moved, 20 * math.log10(gain), DIRECT_SAMPLE - at, reverberation_time(samples), _drr(moved)
            )
        )
    return brirs, (*assigned.corrections, *room.warnings)


def onset(samples: Array) -> int:
    """The sample of [2 x n] at which the first ear hears the direct sound."""
    magnitude = np.abs(samples).max(0)
    return int((magnitude >= ONSET * magnitude.max()).argmax())


def _direct(samples: Array, at: int) -> Array:
    """The direct sound [2 x 256] of a response, which begins at BEFORE."""
    padded = np.pad(samples, ((0, 0), (BEFORE, 256)))[:, at : at + BEFORE + DIRECT]
    faded = padded * np.concatenate([np.ones(BEFORE + DIRECT - 16), np.linspace(1, 0, 16)])
    return np.pad(faded, ((0, 0), (0, 256 - BEFORE - DIRECT)))


def _assign(room: MeasuredRoom, positions: Array, direct: Array) -> MeasuredHrirs:
    """The direct sounds and directions with the left ear first, as level and delay between the ears tell."""
    directions = positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    measured = MeasuredHrirs(directions, direct, np.zeros((len(direct), 2)), SAMPLE_RATE, room.left_channel)
    _, delays = decompose(direct)
    levels = 10 * np.log10((direct**2).sum(-1))
    return assign_ears(measured, levels, delays / SAMPLE_RATE, Path(room.name))


def _energy(direct: Array) -> float:
    """Energy of both ears within LEVEL_BAND."""
    spectrum = np.abs(np.fft.rfft(direct, 512)) ** 2
    frequencies = np.fft.rfftfreq(512, 1 / SAMPLE_RATE)
    return float(spectrum[:, (frequencies >= LEVEL_BAND[0]) & (frequencies <= LEVEL_BAND[1])].sum())


def _direct_gain(direct: Array, source: Vector) -> float:
    """The factor that brings a direct sound to the level of KEMAR's for a source there."""
    x, y, z = source
    distance = math.hypot(x, y, z)
    azimuth, elevation = math.degrees(math.atan2(-z, x)) % 360, math.degrees(math.asin(y / distance))
    return math.sqrt(_energy(kemar().direct(azimuth, elevation, distance)[0]) / _energy(direct))


def _moved(samples: Array, shift: int, longest: int) -> NDArray[np.float32]:
    """[2 x n] moved by `shift` samples and cut to `longest`, with a fade at the end."""
    moved = np.pad(samples, ((0, 0), (shift, 0))) if shift > 0 else samples[:, -shift:]
    moved = moved[:, :longest].astype(np.float32)
    end = min(FADE, moved.shape[1])
    moved[:, moved.shape[1] - end :] *= np.cos(np.pi / 2 * np.arange(end) / end, dtype=np.float32)
    return moved


def _drr(samples: Array) -> float:
    """Energy of the direct sound of a BRIR over that of all else, dB."""
    energy = np.square(samples, dtype=np.float64).sum(0)
    direct = energy[: DIRECT_SAMPLE + DIRECT].sum()
    return 10 * math.log10(direct / max(energy.sum() - direct, 1e-20))


_MIDDLE = signal.butter(4, (353.6, 1414.2), "bandpass", fs=SAMPLE_RATE, output="sos")  # two octaves


def reverberation_time(samples: Array) -> float | None:
    """Seconds at 500 and 1,000 Hz, three times T20: the slope of the decay from −5 to −25 dB (ISO 3382-1), both ears.

    None where the decay, from which the noise of the last tenth is taken, does not fall so far, and without a room.
    """
    energy = np.square(signal.sosfilt(_MIDDLE, samples)).sum(0)
    noise = float(energy[-max(1, len(energy) // 10) :].mean())
    loudest = float(np.convolve(energy, np.full(SMOOTHING, 1 / SMOOTHING), "same").max())
    if noise > 10 ** (-LEAST_RANGE / 10) * loudest:
        return None
    decay = np.cumsum((energy - noise)[::-1])[::-1]
    decay = 10 * np.log10(np.maximum(decay, 1e-20) / max(decay.max(), 1e-20))
    start, end = int((decay <= -5).argmax()), int((decay <= -25).argmax())
    if not 0 < start < end or end > 0.9 * len(energy):
        return None
    slope = np.polyfit(np.arange(start, end) / SAMPLE_RATE, decay[start:end], 1)[0]
    seconds = float(-60 / slope)
    return seconds if seconds >= SHORTEST_RT60 else None
