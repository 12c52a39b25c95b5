"""Read measured heads from SOFA files (AES69).

`read_sofa` brings a file of the convention SimpleFreeFieldHRIR into the head's axes: x front, y left,
z up. `assign_ears` decides from level and delay which channel is the left ear: many files are wrong
about it, most by the order of ReceiverPosition, some by azimuths that run clockwise, and no version
number tells which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batcli.core.errors import InputError

Array = NDArray[np.floating]

CONVENTION = "SimpleFreeFieldHRIR"
MAX_NUMBERS = 1 << 26  # in a file: 11,950 directions of 2,048 samples are 49 million
FARTHEST = 1e4  # m, and the largest number in a position
LONGEST_DELAY = 1e6  # samples
SILENT = 1e-9  # peak of a silent response, over the largest of the set
SAME_DISTANCE = 0.9  # of the farthest source: what is nearer is left out; arcs differ by a few per cent
LATERAL = np.sin(np.radians(60.0))  # least y of a source within 30° of straight left
LEAST_LEVEL = 2.0  # dB between a source at the side and one in front; heads have 10 to 20
LEAST_DELAY = 100e-6  # s, likewise; heads have 500 to 700 µs
LEAST_EXPLAINED = 0.5  # share of a cue's variance that is linear in the direction; heads have 0.95 and more
MOST_UNEQUAL = 4.0  # dB between the ears where the direction makes no difference; heads have up to 2
MOST_TILT = 30.0  # degrees between the ears' axis by the responses and by the file; heads have up to 7
DULLER = 2.0  # dB from 3 to 8 kHz, the front below the back; heads are 2.5 to 6.5 dB louder from the front


@dataclass(frozen=True, eq=False)
class MeasuredHrirs:
    """Head-related impulse responses of sources at one distance.

    directions [n x 3]: unit vectors from the head to the source: x front, y left, z up.
    irs [n x 2 x samples]: responses at `rate` Hz, the channels in the file's order.
    delays [n x 2]: seconds to be added to the responses.
    left_channel: the left ear by ReceiverPosition, 0 or 1; None if the file does not say.
    corrections: short notes on what was read otherwise than the file says.
    warnings: a line on each correction, with the reason, and on all else that is odd.
    """

    directions: Array
    irs: Array
    delays: Array
    rate: float
    left_channel: int | None
    corrections: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


# ---- reading -------------------------------------------------------------------------------------


def read_sofa(path: Path) -> MeasuredHrirs:
    """Read the farthest sources of a SOFA file. Needs the extra `sofa`.

    Raises InputError for a file that is no SOFA file, has another convention than SimpleFreeFieldHRIR, or
    is damaged or contradicts itself.
    """
    file = SofaVariables(path, {CONVENTION: "is a set of HRIRs"})
    irs = file.contents["Data.IR"]
    if irs.ndim != 3 or 0 in irs.shape or irs.shape[1] != 2:
        raise InputError(f"impulse responses of shape {irs.shape}", path, "directions x two ears x samples")
    count = len(irs)
    given = file.contents.get("Data.Delay", np.zeros((1, 2)))
    try:
        given = np.broadcast_to(given, (count, 2))
    except ValueError:
        raise InputError(f"Data.Delay of shape {given.shape} for {count} directions of two ears", path) from None
    peaks = np.abs(irs).max(-1)
    if not (np.isfinite(peaks).all() and peaks.min() > SILENT * peaks.max()):
        raise InputError("a response that is silent or not finite", path)
    if not 1e-30 < peaks.max() < 1e12:
        raise InputError(f"a response with a peak of {peaks.max():.3g}", path)
    if not np.abs(given).max() < LONGEST_DELAY:
        raise InputError("Data.Delay is not finite, or longer than any response", path)
    rates = np.unique(file.contents["Data.SamplingRate"])
    if len(rates) != 1 or not 16_000 <= rates[0] <= 384_000:
        raise InputError(f"sampling rate {', '.join(f'{rate:g}' for rate in rates[:3])} Hz", path, "from 16 to 384 kHz")
    places = relative_positions(file, file.positions("SourcePosition", (0.0, 0.0, 0.0)), count)
    distances = np.linalg.norm(places, axis=-1)
    if not 0 < distances.min() <= distances.max() < FARTHEST:
        raise InputError(f"sources at {distances.min():.3g} to {distances.max():.3g} m", path)
    # Farthest first, to the millimetre: of two sources in one direction, the first is kept later on.
    order = np.argsort(-distances.round(3), kind="stable")
    order = order[distances[order] > SAME_DISTANCE * distances.max()]
    ears = receivers(file)
    return MeasuredHrirs(
        places[order] / distances[order, None],
        irs[order],
        given[order] / rates[0],
        float(rates[0]),
        None if abs(ears[0, 1] - ears[1, 1]) < 1e-6 else int(ears[1, 1] > ears[0, 1]),
        tuple(file.corrections),
        tuple(file.warnings),
    )


class SofaVariables:
    """The numeric variables of a SOFA file by name, and its positions in SOFA's axes.

    Missing numbers are NaN. Raises InputError as `read_sofa` does.
    """

    NEEDED = ("Data.IR", "Data.SamplingRate", "SourcePosition")
    OPTIONAL = (
        *("Data.Delay", "ReceiverPosition", "EmitterPosition"),
        *("ListenerPosition", "ListenerView", "ListenerUp"),
    )

    def __init__(self, path: Path, conventions: Mapping[str, str]) -> None:
        """`conventions`: those that are accepted, and what a file of them is, for the message on others."""
        if path.suffix.lower() != ".sofa":
            raise InputError("not a SOFA file: its name does not end in .sofa", path)
        self.path = path
        self.corrections: list[str] = []
        self.warnings: list[str] = []
        try:
            import netCDF4
        except ModuleNotFoundError:
            raise InputError("reading SOFA needs the extra 'sofa'", path, "pip install 'batcli[sofa]'") from None
        try:
            with netCDF4.Dataset(path) as file:
                # Compressed, so the size on disk says little.
                numbers = sum(int(variable.size) for variable in file.variables.values())
                if numbers > MAX_NUMBERS:
                    raise ValueError(f"{numbers:,} numbers, more than {MAX_NUMBERS:,}")
                convention = str(file.SOFAConventions).strip()
                found = [name for name in (*self.NEEDED, *self.OPTIONAL) if name in file.variables]
                contents = {name: file[name][...] for name in found}
                self.dimensions: dict[str, tuple[str, ...]] = {name: file[name].dimensions for name in found}
                self._attributes: dict[str, dict[str, Any]] = {
                    name: {key: file[name].getncattr(key) for key in file[name].ncattrs()} for name in found
                }
        except Exception as error:  # whatever netCDF and HDF5 raise for a file that is not SOFA
            raise InputError(f"not a SOFA file: {error}", path) from None
        if convention not in conventions:
            known = "; ".join(f"{name} {what}" for name, what in conventions.items())
            raise InputError(f"its convention is {convention!r:.60}", path, f"only {known}")
        self.convention = convention
        missing = [name for name in self.NEEDED if name not in contents]
        if missing:
            raise InputError(f"damaged: no {missing[0]}", path)
        try:
            self.contents: dict[str, Array] = {
                name: np.ma.filled(np.ma.asarray(value, float), np.nan) for name, value in contents.items()
            }
        except (TypeError, ValueError) as error:
            raise InputError(f"damaged: {error}", path) from None

    def text(self, name: str, attribute: str, default: str) -> str:
        """An attribute of a variable, in lower case; `default` if either is not there."""
        return str(self._attributes.get(name, {}).get(attribute, default)).strip().lower()

    def positions(self, name: str, default: tuple[float, float, float], like: str | None = None) -> Array:
        """A variable of positions [n x 3] in metres, x front, y left, z up.

        `like`: the variable whose coordinates it shares if it does not name its own.
        """
        values = self.contents.get(name, np.array([default]))
        if values.ndim == 3 and values.shape[2]:  # of receivers, which may differ by measurement: the first
            values = values[..., 0]
        if values.ndim != 2 or values.shape[1] != 3 or not len(values) or not np.abs(values).max() < FARTHEST:
            raise InputError(f"{name} is not three finite numbers each", self.path, f"up to {FARTHEST:g}")
        if name not in self.contents:
            return values
        kind, units = (
            self.text(name, attribute, self.text(like, attribute, "") if like else "")
            for attribute in ("Type", "Units")
        )
        if not kind:  # the convention's own defaults, unless the units tell
            angular = units.startswith(("deg", "rad")) or (not units and name == "SourcePosition")
            kind = "spherical" if angular else "cartesian"
        if kind == "cartesian":
            return values
        if kind != "spherical":
            raise InputError(f"{name} has coordinates {kind!r:.60}", self.path, "cartesian and spherical are read")
        angles = self._radians(name, values[:, :2], units)
        if np.abs(angles[:, 1]).max() > np.radians(90.5):
            highest = np.degrees(np.abs(angles[:, 1]).max())
            raise InputError(f"{name} has elevations to {highest:.0f}°", self.path, "elevations are −90 to 90°")
        (azimuth, elevation), radius = angles.T, values[:, 2:]
        across = np.cos(elevation)
        return radius * np.stack([across * np.cos(azimuth), across * np.sin(azimuth), np.sin(elevation)], -1)

    def _radians(self, name: str, angles: Array, units: str) -> Array:
        """Azimuths and elevations [n x 2] in radians, by the units that the file names unless they cannot be."""
        named = "radians" if units.startswith("rad") else "degrees"
        azimuth, elevation = angles.T
        # All round the head in less than 7°: no head has been measured so finely, and nothing else.
        small = np.ptp(azimuth) > np.pi and np.abs(azimuth).max() < 6.4 and np.abs(elevation).max() < 1.6
        true = "radians" if small else "degrees" if np.abs(angles).max() > 6.4 else named
        if true != named:
            self.corrections.append(f"{name} read as {true}")
            self.warnings.append(f"the units of {name} are {named}, but its angles can only be {true}; read as such")
        return angles if true == "radians" else np.radians(angles)


def receivers(file: SofaVariables) -> Array:
    """ReceiverPosition as [2 x 3]; of several measurements the first. Two zeros if there is none."""
    if "ReceiverPosition" not in file.contents:
        return np.zeros((2, 3))
    ears = file.positions("ReceiverPosition", (0.0, 0.0, 0.0))
    if len(ears) != 2:
        raise InputError(f"ReceiverPosition of {len(ears)} ears", file.path, "two ears, three numbers each")
    return ears


def relative_positions(file: SofaVariables, sources: Array, count: int) -> Array:
    """`sources` [1 or count x 3] relative to the listener, whatever their position and view: [count x 3], metres."""
    listener = file.positions("ListenerPosition", (0.0, 0.0, 0.0))
    view = file.positions("ListenerView", (1.0, 0.0, 0.0))
    up = file.positions("ListenerUp", (0.0, 0.0, 1.0), like="ListenerView")
    if np.array_equal(file.contents.get("ListenerUp", up), [[0.0, 0.0, 1.0]]):
        up = np.array([[0.0, 0.0, 1.0]])  # left at its default where ListenerView was made spherical
    parts = {"SourcePosition": sources, "ListenerPosition": listener, "ListenerView": view, "ListenerUp": up}
    for name, part in parts.items():
        if len(part) not in (1, count):
            raise InputError(f"{name} has {len(part)} rows for {count} impulse responses", file.path)
    forward = _unit(view, "ListenerView", file.path)
    left = np.cross(_unit(up, "ListenerUp", file.path), forward)
    if np.linalg.norm(left, axis=-1).min() < 0.1:  # the sine of the angle between them
        raise InputError("ListenerUp points along ListenerView", file.path, "it must stand across it")
    left = _unit(left, "ListenerUp", file.path)
    offsets = sources - listener
    if np.abs(listener).max() > 0:
        around_origin, around_listener = (np.linalg.norm(part, axis=-1) for part in (sources, offsets))
        if len(sources) > 1 and _equidistant(around_origin) and not _equidistant(around_listener):
            raise InputError(
                f"ListenerPosition {', '.join(f'{value:g}' for value in listener[0])} contradicts SourcePosition, "
                "whose sources lie on a sphere around 0, 0, 0",
                file.path,
                "if the sources are given relative to the listener, set ListenerPosition to 0, 0, 0",
            )
    turned = [(offsets * axis).sum(-1) for axis in (forward, left, np.cross(forward, left))]
    return np.broadcast_to(np.stack(turned, -1), (count, 3))


def _equidistant(distances: Array) -> bool:
    return bool(distances.min() > SAME_DISTANCE * distances.max())


def _unit(vectors: Array, name: str, path: Path) -> Array:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if not lengths.min() > 0:
        raise InputError(f"{name} is 0, 0, 0, which is no direction", path)
    return vectors / lengths


# ---- which channel is the left ear ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cue:
    """The difference between the first and the second channel in level or delay, over directions.

    lead: half of its median for sources within 30° of straight left minus that for straight right;
    positive if the first channel is the left ear.
    axis: its slope over the direction [3], which points to the first channel's ear.
    explained: the share of its variance that this slope explains.
    """

    lead: float
    axis: Array
    explained: float

    def is_reliable(self, least: float) -> bool:
        return self.explained >= LEAST_EXPLAINED and float(np.linalg.norm(self.axis)) >= least


def _cue(directions: Array, difference: Array) -> _Cue:
    """The cue of a `difference` [n], first channel minus second."""
    at_left, at_right = (np.median(difference[sign * directions[:, 1] >= LATERAL]) for sign in (1, -1))
    known = np.column_stack([directions, np.ones(len(directions))])
    fit = np.linalg.lstsq(known, difference, rcond=None)[0]
    variance = float(np.var(difference))
    explained = 1 - float(np.var(difference - known @ fit)) / variance if variance > 0 else 0.0
    return _Cue(float(at_left - at_right) / 2, fit[:3], explained)


def assign_ears(measured: MeasuredHrirs, levels: Array, delays: Array, path: Path) -> MeasuredHrirs:
    """The same set with the left ear as channel 0, as level and delay tell; corrections and warnings are added.

    levels, delays [n x 2]: dB, and seconds after the sound passes the head's centre. Raises InputError
    where they do not tell left from right, or the ears are not at the sides.
    """
    directions = measured.directions
    for sign, side in ((1, "left"), (-1, "right")):
        if not (sign * directions[:, 1] >= LATERAL).any():
            raise InputError(
                f"no source within 30° of straight {side}: left and right cannot be told",
                path,
                "use a set that was measured all round",
            )
    level, delay = _cue(directions, levels[:, 0] - levels[:, 1]), _cue(directions, delays[:, 1] - delays[:, 0])
    cues = [cue for cue, least in ((level, LEAST_LEVEL), (delay, LEAST_DELAY)) if cue.is_reliable(least)]
    if not cues:
        raise InputError(
            "left and right cannot be told: level and delay between the ears do not follow the direction", path,
            "use a set that was measured at both ears of a head",
        )  # fmt: skip
    axis = max(cues, key=lambda cue: cue.explained).axis
    axis = axis / np.linalg.norm(axis)
    if np.degrees(np.arccos(min(abs(axis[1]), 1.0))) > MOST_TILT:
        azimuth, elevation = np.degrees(np.arctan2(axis[1], axis[0])), np.degrees(np.arcsin(np.clip(axis[2], -1, 1)))
        raise InputError(
            f"by level and delay one ear lies at azimuth {azimuth:.0f}°, elevation {elevation:.0f}°, not at the side",
            path,
            "ListenerView, ListenerUp or the angles of SourcePosition are wrong",
        )
    if len({cue.lead > 0 for cue in cues}) > 1:
        raise InputError("for sources at the left one channel is louder and the other earlier", path)
    return _left_first(measured, 0 if cues[0].lead > 0 else 1, abs(level.lead), 1e6 * abs(delay.lead))


def _left_first(measured: MeasuredHrirs, left: int, louder: float, earlier: float) -> MeasuredHrirs:
    """The set with channel `left` first. For sources at the file's left it is `louder` dB and `earlier` µs."""
    exchanged = replace(measured, irs=measured.irs[:, ::-1], delays=measured.delays[:, ::-1])
    if measured.left_channel in (left, None):
        return measured if left == 0 else exchanged
    much = f"is {louder:.1f} dB louder and {earlier:.0f} µs earlier"
    if left == 0:
        return _with_notes(
            measured,
            f"ReceiverPosition calls channel 0 the right ear, but it {much} for sources at the left; "
            "it is taken as the left ear",
            "ears by the responses, against ReceiverPosition",
        )
    # ReceiverPosition and custom agree that channel 0 is the left ear, so the angles are wrong.
    return _with_notes(
        replace(measured, directions=measured.directions * (1, -1, 1)),
        f"SourcePosition contradicts ReceiverPosition: channel 0, called the left ear, {much} "
        "for sources at azimuth −90°; azimuths are taken as clockwise",
        "azimuths clockwise by the responses, against SourcePosition",
    )


def equally_loud(measured: MeasuredHrirs, levels: Array) -> MeasuredHrirs:
    """The set, of all directions, with its channels at one level if one is louder as such than any head makes it.

    levels [n x 2]: dB. A louder microphone would make sources at the other side louder at the wrong ear.
    """
    known = np.column_stack([measured.directions, np.ones(len(levels))])
    offset = float(np.linalg.lstsq(known, levels[:, 0] - levels[:, 1], rcond=None)[0][3])  # without a direction
    if abs(offset) <= MOST_UNEQUAL:
        return measured
    gains = 10 ** (np.array([-offset, offset]) / 40)
    return _with_notes(
        replace(measured, irs=measured.irs * gains[:, None]),
        f"the left ear is {offset:+.1f} dB louder than the right, over all directions; they are brought to one level",
        "ears brought to one level",
    )


def _with_notes(measured: MeasuredHrirs, warning: str, *corrections: str) -> MeasuredHrirs:
    return replace(measured, corrections=(*measured.corrections, *corrections), warnings=(*measured.warnings, warning))


def warn_if_front_is_back(measured: MeasuredHrirs, bright: Array) -> MeasuredHrirs:
    """The same set, with a warning if front and behind seem to be exchanged.

    bright [n]: level from 3 to 8 kHz in dB, the mean of both ears. Outer ears amplify it from the front.
    """
    forward = measured.directions[:, 0]
    near_horizon = np.abs(measured.directions[:, 2]) < 0.6
    front, behind = near_horizon & (forward > 0.5), near_horizon & (forward < -0.5)
    if not (front.any() and behind.any()):
        return measured
    duller = float(bright[behind].mean() - bright[front].mean())
    if duller < DULLER:
        return measured
    return _with_notes(
        measured,
        f"sources in front are {duller:.1f} dB weaker from 3 to 8 kHz than sources behind, which no outer ear "
        "does; if front and behind are exchanged, correct ListenerView or SourcePosition",
    )
