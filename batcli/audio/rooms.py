"""Simulate shoebox rooms: binaural room impulse responses (BRIRs).

A BRIR is the direct sound, image sources up to a mixing time, each from its own direction, and a
diffuse tail of decaying noise. A room has its own axes: x along the width, y up from the floor, z
along the length, the origin in a corner. Sources are given relative to the listener, in the
listener's axes (x right, y up, −z front), as in the labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft, optimize, signal

from batcli.audio.hrtf import BANK_LEAD, BANK_TAPS, HEAD_RADIUS, PHASES, SPEED_OF_SOUND, Hrtf
from batcli.core.errors import InputError
from batcli.data.constants import DIRECT_SAMPLE, SAMPLE_RATE
from batcli.data.geometry import Direction, Vector

Array = NDArray[np.floating]

BANDS = (125, 250, 500, 1000, 2000, 4000, 8000)  # Hz, octaves
AIR = np.array([0.1, 0.3, 0.6, 1.0, 1.9, 5.8, 20.3]) * 1e-3  # 1/m of energy; 20 °C, 50–70 % humidity (ISO 9613-1)
MIXING_TIME = 0.080  # s after the direct sound, at most: from then on there is the tail alone
MIXING_IMAGES = 1000  # image sources after which a small room is mixed, if they come earlier
CROSSFADE = 0.020  # s before the mixing time, in which image sources fade out
SCATTERING = 0.15  # share of energy that each reflection scatters, as off furniture
HIGH_PASS = 30.0  # Hz; image sources are all positive and would add up to a constant


@dataclass(frozen=True, eq=False)
class Room:
    """A shoebox.

    size: width, height, length in metres.
    absorption [6 x 7]: −ln(1 − α), where α is the share of energy absorbed per reflection, of the
    walls at x=0, x=width, floor, ceiling, z=0, z=length, in the octave bands BANDS.
    scattering: share of the energy that each reflection moves from the image sources to the diffuse
    tail. Without it, a hall with a low ceiling is silent between the echoes of floor and ceiling and
    those of the far walls.
    """

    size: Vector
    absorption: Array
    scattering: float = SCATTERING

    @property
    def volume(self) -> float:
        return math.prod(self.size)

    @property
    def mean_free_path(self) -> float:
        """Metres between reflections, 4 V / S."""
        width, height, length = self.size
        return 2 * self.volume / (width * height + height * length + length * width)

    @property
    def mixing_time(self) -> float:
        """Seconds after the direct sound from which there is the tail alone."""
        radius = (MIXING_IMAGES * self.volume * 3 / (4 * math.pi)) ** (1 / 3)
        return min(MIXING_TIME, radius / SPEED_OF_SOUND)

    @cached_property
    def rt60_by_band(self) -> Array:
        """Seconds in which each band falls by 60 dB."""
        return _rt60(self.size, self.absorption, self.mixing_time)

    @property
    def rt60(self) -> float:
        """Seconds, the mean of 500 Hz and 1 kHz."""
        return float(self.rt60_by_band[2:4].mean())


@dataclass(frozen=True)
class ListenerPose:
    """Where a listener is in a room, and which way they face."""

    position: Vector  # of the head's centre, in the room's axes
    yaw: float = 0.0  # degrees to the left of the room's −z


def _shape(size: Vector) -> str:
    width, height, length = size
    return f"{width:g} x {length:g} x {height:g}"


def to_room(offset: Array, listener: ListenerPose) -> Array:
    """Offsets [... x 3] in the listener's axes → positions in the room's axes."""
    return _rotated(offset, listener.yaw) + np.asarray(listener.position)


def _rotated(offset: Array, yaw: float) -> Array:
    """Offsets [... x 3], rotated to the left by `yaw` degrees about the vertical axis."""
    c, s = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    return np.asarray(offset) @ np.array([[c, 0.0, -s], [0.0, 1.0, 0.0], [s, 0.0, c]])


# ---- absorption and decay ------------------------------------------------------------------------


@lru_cache(1)
def _octant_quadrature() -> tuple[Array, Array]:
    """Quadrature over the directions with positive coordinates: (unit vectors [n x 3], weights [n])."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    nodes, weights = (nodes + 1) / 2, weights / 2
    y, phi = np.meshgrid(nodes, nodes * np.pi / 2, indexing="ij")
    across = np.sqrt(1 - y**2)
    vectors = np.stack([across * np.cos(phi), y, across * np.sin(phi)], -1).reshape(-1, 3)
    return vectors, np.outer(weights, weights).ravel()


def _rt60(size: Vector, absorption: Array, at: float) -> Array:
    """RT60 in seconds per band, from the energy left to the image sources after `at` seconds.

    A ray in direction u meets the walls across axis i |u_i| c t / L_i times; the energy is the mean
    over all directions. (Eyring's formula takes one mean free path for all: a shoebox, where rays keep
    their direction, rings 20–40 % longer.)
    """
    vectors, weights = _octant_quadrature()
    pairs = absorption.reshape(3, 2, -1).mean(1)  # a ray meets opposite walls in turn
    path = SPEED_OF_SOUND * at
    left = weights @ np.exp(-path * (vectors @ (pairs / np.array(size)[:, None]) + AIR))
    return -6 * at / np.log10(np.maximum(left, 1e-300))


def room_with_rt60(size: Vector, materials: Array, rt60: float) -> Room:
    """The room with `rt60` seconds whose absorption is in proportion to `materials` [6 x 7].

    Raises InputError for an RT60 outside `rt60_limits`.
    """
    low, high = rt60_limits(size)
    if not low <= rt60 <= high:
        raise InputError(
            f"a room of {_shape(size)} m cannot have an RT60 of {rt60:g} s", hint=f"from {low:.2f} to {high:.2f} s"
        )

    def excess(log_scale: float) -> float:
        return Room(size, materials * math.exp(log_scale)).rt60 - rt60

    return Room(size, materials * math.exp(optimize.brentq(excess, -12.0, 12.0, xtol=1e-4)))


def rt60_limits(size: Vector, most: float = 0.9, least: float = 0.01) -> tuple[float, float]:
    """(lowest, highest) RT60 in seconds: with walls that absorb the share `most`, or `least`, of the energy."""
    low, high = (Room(size, np.full((6, 7), -math.log(1 - share))).rt60 for share in (most, least))
    return low, high


# ---- image sources -------------------------------------------------------------------------------


def image_sources(room: Room, source: Vector, reach: float, listener: Vector) -> tuple[Array, Array]:
    """The image sources of a source that are nearer to the listener than `reach` m (Allen and Berkley 1979).

    All positions are in the room's axes. Returns (image − listener [n x 3], number of reflections at each
    wall [n x 6]).
    """
    offsets, hits = [], []
    for side, s, ear in zip(room.size, source, listener, strict=True):
        count = math.ceil(reach / (2 * side)) + 1
        n, mirrored = np.meshgrid(np.arange(-count, count + 1), [0, 1], indexing="ij")
        offsets.append((2 * n * side + np.where(mirrored, -s, s) - ear).ravel())
        hits.append(np.stack([np.abs(n - mirrored), np.abs(n)], -1).reshape(-1, 2))
    x, y, z = (offset**2 for offset in offsets)
    i, j, k = np.nonzero(x[:, None, None] + y[:, None] + z < reach**2)
    return (
        np.stack([offsets[0][i], offsets[1][j], offsets[2][k]], -1),
        np.concatenate([hits[0][i], hits[1][j], hits[2][k]], -1),
    )


@lru_cache(8)
def _band_basis(size: int) -> tuple[Array, NDArray[np.complexfloating]]:
    """Matrices from levels in bands to a spectrum of size/2+1 bins, linear over log frequency between bands.

    Returns ([7 x bins] for levels, complex [7 x bins] for log levels: the exponential of the second product
    is the minimum-phase response, whose logarithm is linear in the log levels).
    """
    frequencies = np.maximum(fft.rfftfreq(size, 1 / SAMPLE_RATE), 1.0)
    basis = np.stack([np.interp(np.log(frequencies), np.log(BANDS), row) for row in np.eye(len(BANDS))])
    cepstrum = fft.irfft(basis, size)
    cepstrum[:, 1 : (size + 1) // 2] *= 2
    cepstrum[:, size // 2 + 1 :] = 0
    return basis.astype(np.float32), fft.rfft(cepstrum).astype(np.complex64)


def _reflections(room: Room, listener: ListenerPose, source: Array, hrtf: Hrtf, centre: float) -> Array:
    """The early reflections, as each ear receives them: [ears x samples].

    `centre`: the sample at which the direct sound passes the head's centre.
    """
    distance = float(np.linalg.norm(source))
    mixing = room.mixing_time
    offsets, hits = image_sources(
        room, tuple(to_room(source, listener)), distance + SPEED_OF_SOUND * mixing, listener.position
    )
    paths = np.sqrt((offsets**2).sum(-1))
    orders = hits.sum(-1)
    keep = orders > 0
    offsets, hits, paths, orders = offsets[keep], hits[keep], paths[keep], orders[keep] - 1

    times = (paths - distance) / SPEED_OF_SOUND
    energies = np.exp(-(hits @ room.absorption + paths[:, None] * AIR))
    gains = np.sqrt(_specular(room, orders + 1, times)) / paths
    # One filter per order, from the mean energies in it; an image's own walls set its level.
    weights = gains**2
    count = int(orders.max()) + 1
    totals = np.stack([np.bincount(orders, weights * energies[:, b], count) for b in range(len(BANDS))], -1)
    means = totals / np.maximum(np.bincount(orders, weights, count), 1e-30)[:, None]
    gains *= np.sqrt((energies / means[orders]).mean(-1))

    ears = _rotated(offsets, -listener.yaw)
    azimuth = np.degrees(np.arctan2(-ears[:, 2], ears[:, 0])) % 360
    elevation = np.degrees(np.arcsin(np.clip(ears[:, 1] / paths, -1, 1)))
    quarters = np.rint((centre - BANK_LEAD + times * SAMPLE_RATE) * PHASES).astype(np.intp)
    starts, phases = quarters // PHASES, quarters % PHASES
    size = fft.next_fast_len(int(centre + mixing * SAMPLE_RATE) + 2 * BANK_TAPS + 512, real=True)
    size += size % 2
    taps = hrtf.bank[hrtf.nearest(azimuth, elevation, phases)]
    taps *= gains[:, None, None].astype(np.float32)
    places = ((orders * hrtf.ears)[:, None] + np.arange(hrtf.ears)) * size + starts[:, None]
    impulses = np.bincount((places[..., None] + np.arange(BANK_TAPS)).ravel(), taps.ravel(), count * hrtf.ears * size)
    spectra = fft.rfft(impulses.reshape(count, hrtf.ears, size).astype(np.float32))
    levels = np.log(np.maximum(means, 1e-12)).astype(np.float32) / 2
    # Not `@`: what BLAS adds up in which order may change with the number of threads.
    filters = np.exp(np.einsum("kb,bf->kf", levels, _band_basis(size)[1]))
    return fft.irfft((spectra * filters[:, None]).sum(0), size)


def _specular(room: Room, reflections: Array, times: Array) -> Array:
    """Share of energy that the image sources carry after `reflections`, `times` s after the direct sound."""
    fade = np.clip((room.mixing_time - times) / CROSSFADE, 0, 1)
    return (1 - room.scattering) ** reflections * np.sin(np.pi / 2 * fade) ** 2


# ---- the tail ------------------------------------------------------------------------------------

_FRAME = 512
_HOP = _FRAME // 2
_WINDOW = np.sin(np.pi * (np.arange(_FRAME) + 0.5) / _FRAME).astype(np.float32)  # squares add up to 1


def _tail(room: Room, hrtf: Hrtf, start: float, samples: int, rng: np.random.Generator) -> Array:
    """The diffuse tail [ears x samples]: noise with the decay of each band and a diffuse field's coherence.

    It begins with the direct sound, which arrives `start` seconds after it left the source, and carries
    the energy that image sources do not. Together they have that of 4 π c³ t² dt / V images between t and
    t + dt, each with 1 / (c t)².
    """
    frames = samples // _HOP + 2
    power, coherence = hrtf.diffuse_field
    basis = _band_basis(_FRAME)[0]
    density = 4 * np.pi * SPEED_OF_SOUND / (room.volume * SAMPLE_RATE)
    rates = (3 * math.log(10) / room.rt60_by_band) @ basis  # of amplitude, per second
    times = start + (np.arange(frames) * _HOP - _HOP + _FRAME / 2) / SAMPLE_RATE
    level = np.log(density * power * _FRAME / 2) / 2
    gains = np.exp((level - times[:, None] * rates).astype(np.float32))
    noise = rng.standard_normal((hrtf.ears, frames, _FRAME // 2 + 1, 2), dtype=np.float32)
    spectra = noise.view(np.complex64)[..., 0] * gains
    if hrtf.ears == 2:
        alike = coherence.astype(np.float32)
        spectra[1] = alike * spectra[0] + np.sqrt(1 - alike**2) * spectra[1]
    parts = fft.irfft(spectra, _FRAME) * _WINDOW
    # Every sample lies in two frames: the first half of one, the second half of the one before.
    tail = parts[:, 1:, :_HOP] + parts[:, :-1, _HOP:]
    tail = tail.reshape(hrtf.ears, -1)[:, :samples]
    since = np.arange(min(math.ceil(room.mixing_time * SAMPLE_RATE), samples)) / SAMPLE_RATE
    lost = 1 - _specular(room, SPEED_OF_SOUND * (start + since) / room.mean_free_path, since)
    tail[:, : len(since)] *= np.sqrt(lost)
    return tail


# ---- BRIRs --------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Brir:
    """A simulated response."""

    samples: NDArray[np.float32]  # [ears x T] at 32 kHz
    drr: float  # energy of the direct sound over that of all else, dB, both ears together


def simulate(
    room: Room,
    listener: ListenerPose,
    sources: Sequence[Vector],
    hrtf: Hrtf,
    rng: np.random.Generator,
    seconds: float | None = None,
) -> list[Brir]:
    """The BRIR of each source (metres from the listener, in the listener's axes).

    Without the propagation delay: the direct sound reaches the nearer ear at sample 32, with a peak of
    0.46 / distance from the front. seconds: length [default: the RT60 of the slowest band]. Raises
    InputError for a listener or a source outside the room.
    """
    for what, offset in (("the listener", (0.0, 0.0, 0.0)), *(("a source", source) for source in sources)):
        place = to_room(np.array(offset), listener)
        if not all(0 < p < side for p, side in zip(place, room.size, strict=True)):
            raise InputError(f"{what} stands outside the room, at {np.round(place, 2).tolist()}")
    if any(math.hypot(*source) <= HEAD_RADIUS for source in sources):
        raise InputError(f"a source is in the listener's head, nearer than {HEAD_RADIUS} m")
    if seconds is None:
        seconds = float(room.rt60_by_band.max()) + DIRECT_SAMPLE / SAMPLE_RATE
    length = round(seconds * SAMPLE_RATE)
    return [_response(room, listener, np.array(source), hrtf, rng, length) for source in sources]


_SECTIONS = signal.butter(2, HIGH_PASS, "highpass", fs=SAMPLE_RATE, output="sos")


def _response(
    room: Room, listener: ListenerPose, source: Array, hrtf: Hrtf, rng: np.random.Generator, length: int
) -> Brir:
    """The BRIR of one source: the high-passed sum of direct sound, reflections and tail, cut to `length` samples."""
    distance = float(np.linalg.norm(source))
    azimuth = math.degrees(math.atan2(-source[2], source[0])) % 360
    elevation = math.degrees(math.asin(source[1] / distance))
    direct, centre = hrtf.direct(azimuth, elevation, distance)
    centre += DIRECT_SAMPLE - BANK_LEAD
    early = _reflections(room, listener, source, hrtf, centre)
    begin, size = round(centre), max(length, early.shape[-1])
    rest = np.zeros((hrtf.ears, size))
    rest[:, : early.shape[-1]] = early
    rest[:, begin:] += _tail(room, hrtf, distance / SPEED_OF_SOUND, size - begin, rng)
    rest = signal.sosfilt(_SECTIONS, rest)
    straight = np.zeros((hrtf.ears, 4096))  # the filter has died away by then
    straight[:, DIRECT_SAMPLE - BANK_LEAD :][:, : direct.shape[-1]] = direct
    straight = signal.sosfilt(_SECTIONS, straight)[:, :size]
    drr = 10 * math.log10((straight**2).sum() / (rest**2).sum())
    rest[:, : straight.shape[-1]] += straight
    samples = rest[:, :length].astype(np.float32)
    end = min(320, length)
    samples[:, length - end :] *= np.cos(np.pi / 2 * np.arange(end) / end)  # no click where it is cut
    return Brir(samples, drr)


# ---- drawing rooms -------------------------------------------------------------------------------

# Shares of energy absorbed per octave band, 125 Hz … 8 kHz: typical values, as textbooks of room
# acoustics tabulate them (Kuttruff; Vorländer). All are scaled together until a room has its RT60.
_WALLS = {
    "brick": (0.03, 0.03, 0.03, 0.04, 0.05, 0.07, 0.08),
    "plaster on brick": (0.02, 0.02, 0.03, 0.04, 0.05, 0.05, 0.05),
    "plasterboard": (0.20, 0.12, 0.07, 0.05, 0.06, 0.08, 0.09),
    "wooden panels": (0.20, 0.16, 0.12, 0.09, 0.09, 0.10, 0.10),
    "windows": (0.15, 0.08, 0.05, 0.04, 0.04, 0.04, 0.04),
    "bookshelves": (0.25, 0.30, 0.32, 0.32, 0.34, 0.35, 0.36),
    "curtains": (0.10, 0.22, 0.38, 0.48, 0.50, 0.50, 0.50),
}
_FURNITURE = 0.06  # absorbed by furniture and people, spread over all surfaces and bands
_FLOORS = {
    "linoleum": (0.03, 0.03, 0.04, 0.04, 0.05, 0.05, 0.05),
    "parquet": (0.12, 0.09, 0.07, 0.06, 0.06, 0.07, 0.07),
    "thin carpet": (0.04, 0.06, 0.10, 0.20, 0.30, 0.38, 0.42),
    "thick carpet": (0.06, 0.10, 0.18, 0.32, 0.45, 0.52, 0.55),
}
_CEILINGS = {
    "plaster": (0.03, 0.03, 0.04, 0.04, 0.05, 0.06, 0.06),
    "plasterboard": (0.20, 0.12, 0.07, 0.05, 0.06, 0.08, 0.09),
    "wooden panels": (0.20, 0.16, 0.12, 0.09, 0.09, 0.10, 0.10),
    "acoustic tiles": (0.35, 0.45, 0.60, 0.70, 0.70, 0.65, 0.60),
}

NEAREST = 0.5  # m, from the listener to a source
SMALLEST_REACH = 1.5  # metres to the farthest source of a room, at least
_FROM_WALL = 0.6  # m, the listener
_SOURCE_FROM_WALL = 0.2  # m, and from floor and ceiling
_EARS = (1.0, 1.8)  # m above the floor: sitting to standing
SMALLEST = 2.0  # m, of any side of a room: a listener and a source must fit


def draw_room(rng: np.random.Generator, size: Vector, rt60: tuple[float, float] = (0.15, 0.9)) -> Room:
    """A room of `size` with random materials and an RT60 (s) log-uniform in the range `rt60`.

    The range is first clipped to the RT60 of walls that absorb 50 to 1 %. Raises InputError when no walls
    reach it.
    """
    low, high = rt60_limits(size, most=0.5)
    low, high = (min(max(limit, rt60[0]), rt60[1]) for limit in (low, high))
    wanted = math.exp(rng.uniform(math.log(low), math.log(high)))

    def pick(table: Mapping[str, Sequence[float]]) -> Array:
        return -np.log(1 - np.array(list(table.values())[rng.integers(len(table))]) - _FURNITURE)

    left, right, floor, ceiling, front, back = map(pick, (_WALLS, _WALLS, _FLOORS, _CEILINGS, _WALLS, _WALLS))
    return room_with_rt60(size, np.stack([left, right, floor, ceiling, front, back]), wanted)


def draw_scene(
    rng: np.random.Generator,
    octants: Sequence[Direction],
    rt60: tuple[float, float] = (0.15, 0.9),
    size: Vector | None = None,
    max_distance: float = 10.0,
    spread: Literal["near", "even"] = "near",
) -> tuple[Room, ListenerPose, list[Vector]]:
    """Draw a room, a listener in it, and a source in each of `octants` (listener's axes, metres).

    Distances. `near`: a room has a reach, log-uniform from 1.5 m to max_distance, and its sources
    are spread log-uniformly from 0.5 m to there, one in each of as many equal steps. Each dB of
    the level cue is then about as common as any other, and most sources are heard directly.
    `even`: the reach is max_distance with probability 1/2, else uniform below it, and sources are
    spread as over a floor of that reach (density in proportion to distance − 0.5 m). Over many
    rooms this makes the distance uniform from 0.5 m to max_distance; most rooms are then halls.
    Directions. Azimuth uniform in the octant's quadrant, whatever the room; height uniform between
    the ear and floor or ceiling, which is uniform over the sphere where the room allows it. The
    listener's yaw is uniform, and the farther sources are where the room has space in its heading.
    Rooms. Length 1.05 to 1.6 times the farthest distance plus 1 m, at least 2.6 m; width 0.55 to
    1 of it; height 2.3 to 3 m, more in large rooms. Where the sources do not fit after several
    places of the listener, the room grows; if `size` is given, the sources come nearer instead.
    Ear height 1 to 1.8 m. RT60 and materials as in `draw_room`.
    """
    if size is not None:
        if min(size) < SMALLEST:
            raise InputError(f"a room of {_shape(size)} m is too small", hint=f"at least {SMALLEST:g} m each way")
        max_distance = min(max_distance, math.hypot(*size))
    count = len(octants)
    distances = _draw_distances(rng, count, max_distance, spread)
    azimuth = rng.random(count) * np.pi / 2  # from the right towards the front: mirrored where needed
    signs = np.array([(o.side == "right", o.height == "above", o.depth == "behind") for o in octants]) * 2.0 - 1
    directions = np.stack([np.cos(azimuth), rng.random(count), np.sin(azimuth)], -1) * signs
    while True:
        for room_size in [size] * 8 if size else _draw_sizes(rng, float(distances[-1]), rt60):
            for _ in range(16):
                listener = _draw_listener(rng, room_size)
                sources = _place_sources(room_size, listener, directions, distances)
                if sources is not None:
                    return draw_room(rng, room_size, rt60), listener, sources
        distances = NEAREST + (distances - NEAREST) * 0.85


def _draw_distances(rng: np.random.Generator, count: int, farthest: float, spread: Literal["near", "even"]) -> Array:
    """Distances of sources in metres [count], ascending: see `draw_scene`."""
    farthest = max(farthest, NEAREST)
    parts = (np.arange(count) + rng.random(count)) / count
    if spread == "even":
        reach = (farthest - NEAREST) * (1.0 if rng.random() < 0.5 else rng.random())
        return NEAREST + reach * np.sqrt(parts)
    reach = farthest * (min(SMALLEST_REACH, farthest) / farthest) ** rng.random()
    return NEAREST * (reach / NEAREST) ** parts


def _place_sources(size: Vector, listener: ListenerPose, directions: Array, distances: Array) -> list[Vector] | None:
    """Sources at `distances` (ascending) in `directions`, or None if they do not fit into the room.

    directions [n x 3]: x and z of unit length, y the share of the height from the ears to floor or
    ceiling. The farther the wall in a direction, the farther the source.
    """
    flat = directions * (1, 0, 1)
    margin = np.array(size) / 2 - _SOURCE_FROM_WALL
    centred = np.array(listener.position) - np.array(size) / 2
    ahead = _rotated(flat, listener.yaw)
    with np.errstate(divide="ignore", invalid="ignore"):
        space = np.nanmin((margin - centred * np.sign(ahead)) / np.abs(ahead), -1, initial=np.inf, where=ahead != 0)
    far = np.empty(len(distances))
    far[np.argsort(space)] = distances
    headroom = margin[1] - centred[1] * np.sign(directions[:, 1])
    height = directions[:, 1] * np.minimum(far, headroom)
    across = np.sqrt(far**2 - height**2)
    if (across > space).any():
        return None
    offsets = flat * across[:, None] + height[:, None] * (0, 1, 0)
    return [(float(x), float(y), float(z)) for x, y, z in offsets.round(4)]


def _draw_sizes(rng: np.random.Generator, farthest: float, rt60: tuple[float, float]) -> Iterator[Vector]:
    """Sizes in growing order, beginning with a random one, whose RT60 can lie in the range."""
    length = max(1 + farthest * rng.uniform(1.05, 1.6), 2.6)
    width = max(length * rng.uniform(0.55, 1.0), 2.6)
    height = rng.uniform(2.3, 3.0) + 0.12 * rng.random() * max(length - 4, 0)
    for step in range(24):
        size = (round(width * 1.1**step, 2), round(height, 2), round(length * 1.1**step, 2))
        low, high = rt60_limits(size)
        if low > rt60[1] and length > 2.6:
            return  # too large for so low an RT60: the caller brings the sources nearer
        if high >= rt60[0]:
            yield size
    yield size


def _draw_listener(rng: np.random.Generator, size: Vector) -> ListenerPose:
    margins = [min(_FROM_WALL, side / 2) for side in size]
    x, z = (rng.uniform(margins[i], size[i] - margins[i]) for i in (0, 2))
    ear = rng.uniform(min(_EARS[0], size[1] / 2), min(_EARS[1], size[1] - margins[1]))
    return ListenerPose((round(x, 3), round(ear, 3), round(z, 3)), round(rng.uniform(0, 360), 1))
