"""Head-related impulse responses (HRIRs): how sound from each direction reaches the two ears.

An `Hrtf` holds a minimum-phase response and a delay of each ear on a regular grid of directions.
Unlike responses with their delays inside, these can be interpolated. Directions are in degrees, as in
the labels: azimuth 0 right, 90 front, 180 left, 270 behind; elevation −90 below, +90 above. Ear 0 is
the left one. The sampling rate is 32 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft, signal, special
from scipy.spatial import ConvexHull, cKDTree

from batcli.audio.sofa import assign_ears, equally_loud, read_sofa, warn_if_front_is_back
from batcli.core.errors import InputError
from batcli.core.files import require_file
from batcli.data.constants import SAMPLE_RATE

Array = NDArray[np.floating]

SPEED_OF_SOUND = 343.0  # m/s, at 20 °C
HEAD_RADIUS = 0.0875  # m: the classic average (Hartley and Fry 1921, Duda and Martens 1998)
LEVEL_AT_1M = 0.6  # gain at 1 m without a head; KEMAR's frontal peak is then 0.46, as in the published BRIRs
FAR = 1.4  # m: beyond it, distance changes the level (1/r) and nothing else

HEADS = ("kemar", "sphere")  # they need no file
STEP = 5  # degrees between grid directions
AZIMUTHS = np.arange(0, 360, STEP)  # 72
ELEVATIONS = np.arange(-90, 91, STEP)  # 37
WIDEST_GAP = 30.0  # degrees from any direction above −45° to the nearest measured one
TAPS = 96  # of a minimum-phase response
BANK_TAPS = 128  # of a response with its delays: ±16 samples around 96 taps
BANK_LEAD = 16  # sample of a bank response at which sound reaches the head's centre
PHASES = 4  # bank responses per direction, each a quarter of a sample later


@dataclass(frozen=True, eq=False)
class Hrtf:
    """The responses of one head.

    responses [37 x 72 x ears x TAPS]: minimum phase, elevation −90…90 by azimuth 0…355 in steps of
    5°, diffuse-field equalised: the mean over directions is LEVEL_AT_1M at all frequencies, so that
    heads differ in their cues and not in their colour.
    delays [37 x 72 x ears]: arrival after the head's centre, in samples; negative is earlier.
    corrections, warnings: of a SOFA file, see `batcli.audio.sofa.MeasuredHrirs`.
    """

    name: str
    responses: Array
    delays: Array
    corrections: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def ears(self) -> int:
        return self.responses.shape[2]

    @cached_property
    def bank(self) -> Array:
        """Responses with their delays, in steps of 1/PHASES sample: float32 [37*72*PHASES x ears x BANK_TAPS]."""
        shifts = BANK_LEAD + self.delays[..., None, :] + np.arange(PHASES)[:, None] / PHASES
        spectra = np.fft.rfft(self.responses, BANK_TAPS)[:, :, None]
        shifted = np.fft.irfft(spectra * _delay(shifts, BANK_TAPS), BANK_TAPS)
        return shifted.reshape(-1, self.ears, BANK_TAPS).astype(np.float32)

    def nearest(self, azimuth: Array, elevation: Array, phase: NDArray[np.integer]) -> NDArray[np.integer]:
        """Rows of `bank` for directions in degrees and a delay of `phase` (0…3) quarters of a sample."""
        row = np.rint((elevation + 90) / STEP).astype(np.intp)
        column = np.rint(azimuth / STEP).astype(np.intp) % len(AZIMUTHS)
        return (row * len(AZIMUTHS) + column) * PHASES + phase

    def at(self, azimuth: float, elevation: float) -> tuple[Array, Array]:
        """(responses [ears x TAPS], delays [ears]) of a direction in degrees, interpolated between four of the grid."""
        row, column = (elevation + 90) / STEP, (azimuth % 360) / STEP
        r, c = min(int(row), len(ELEVATIONS) - 2), int(column)
        up, on = row - r, column - c
        weights = np.array([(1 - up) * (1 - on), (1 - up) * on, up * (1 - on), up * on])
        rows, columns = [r, r, r + 1, r + 1], np.array([c, c + 1, c, c + 1]) % len(AZIMUTHS)
        return (
            np.tensordot(weights, self.responses[rows, columns], 1),
            np.tensordot(weights, self.delays[rows, columns], 1),
        )

    def direct(self, azimuth: float, elevation: float, distance: float) -> tuple[Array, float]:
        """The direct sound of a source at `distance` metres.

        Returns (response [ears x 256], the sample at which sound passes the head's centre); it reaches the
        nearer ear at sample BANK_LEAD. Sources nearer than FAR are corrected by `near_field`.
        """
        size = 256
        responses, delays = self.at(azimuth, elevation)
        first = delays.min()
        spectra = np.fft.rfft(responses, size) * _delay(BANK_LEAD + delays - first, size)
        if distance < FAR and self.ears == 2:
            angles = _angles_to_ears(unit_vectors(azimuth, elevation))
            spectra = spectra * near_field(angles, distance, size)
        return np.fft.irfft(spectra, size) / distance, BANK_LEAD - first

    @cached_property
    def diffuse_field(self) -> tuple[Array, Array]:
        """The response to sound from all directions: (power, inter-aural coherence), both [257].

        Frequencies are those of a 512-point FFT; power is the mean of both ears, for sources at 1 m;
        coherence lies in −1…1 and is 1 for a single ear.
        """
        size = 512
        weights = np.repeat(_solid_angles(), len(AZIMUTHS))[:, None]
        spectra = np.fft.rfft(self.bank[::PHASES], size)
        powers = (weights[..., None] * np.abs(spectra) ** 2).sum(0)
        if self.ears == 1:
            return powers[0], np.ones(size // 2 + 1)
        cross = (weights * (spectra[:, 0] * spectra[:, 1].conj()).real).sum(0)
        return powers.mean(0), cross / np.sqrt(powers[0] * powers[1])


def _delay(samples: Array, size: int) -> NDArray[np.complexfloating]:
    """Spectra of delays in samples, [… x size/2+1].

    The top 2 kHz fade out: with a sharp edge at half the sampling rate, a fractional delay would ring
    through the whole response.
    """
    frequencies = np.fft.rfftfreq(size)
    fade = np.cos(np.pi / 2 * np.clip((frequencies * SAMPLE_RATE - 14_000) / 2000, 0, 1))
    return fade * np.exp(-2j * np.pi * frequencies * np.asarray(samples)[..., None])


@lru_cache(16)
def load_hrtf(name: str) -> Hrtf:
    """The head `kemar` or `sphere`, or that of a SOFA file. Raises InputError as `sofa` does."""
    return {"kemar": kemar, "sphere": sphere}[name]() if name in HEADS else sofa(Path(name))


# ---- heads ---------------------------------------------------------------------------------------


@cache
def kemar() -> Hrtf:
    """The KEMAR dummy head of Gardner and Martin (1995), shipped in `data/`.

    Nothing was measured below −40°. There the responses are interpolated, by elevation, between those at
    −40° and, straight below, their mean over azimuths and ears, without a delay.
    """
    with np.load(Path(__file__).with_name("data") / "kemar_32k.npz", allow_pickle=False) as data:
        irs, itd, azimuth, elevation = (data[key].astype(float) for key in ("q", "itd", "az", "el"))
    delays = np.stack([itd, -itd], -1) / 2
    # The other half-space: mirrored, ears exchanged; the median plane is there already.
    side = (azimuth > 0) & (azimuth < 180)
    return _interpolate(
        "kemar",
        90.0 + np.concatenate([azimuth, -azimuth[side]]),
        np.concatenate([elevation, elevation[side]]),
        np.concatenate([irs, irs[side, ::-1]]),
        np.concatenate([delays, delays[side, ::-1]]),
    )


@cache
def omni() -> Hrtf:
    """One point without a head, for `--channels mono`."""
    responses = np.zeros((len(ELEVATIONS), len(AZIMUTHS), 1, TAPS))
    responses[..., 0] = LEVEL_AT_1M
    return Hrtf("omni", responses, np.zeros(responses.shape[:3]))


@cache
def sphere() -> Hrtf:
    """A head computed without measurements: a rigid sphere with a simple pinna and torso.

    The sphere is that of Duda and Martens (1998), with ears 100° from the front; the pinna adds the echoes of
    Brown and Duda, "A structural model for binaural sound synthesis", IEEE Trans. Speech Audio Process. 6
    (1998), which tell front from back and above from below; the torso adds an echo off the shoulders for
    sources above and a shadow for sources below.
    """
    size = 512
    directions = unit_vectors(*np.meshgrid(AZIMUTHS, ELEVATIONS)).reshape(-1, 3)
    angles = _angles_to_ears(directions)
    # 2.5° between the angles of the table: the pressure is smooth in the angle.
    table = _sphere_pressure(np.linspace(0, 180, 73), 100.0, size)
    place = angles / 2.5
    below = np.minimum(place.astype(int), 71)
    part = (place - below)[..., None]
    spectra = (1 - part) * table[below] + part * table[below + 1]
    spectra = spectra * (_pinna(directions, size) * _torso(directions, size))[:, None]
    irs = np.fft.irfft(spectra * np.exp(-0.5j * np.pi * np.arange(size // 2 + 1)), size)  # a quarter later
    responses, delays = decompose(irs)
    shape = (len(ELEVATIONS), len(AZIMUTHS), 2)
    return _equalise("sphere", responses.reshape(*shape, TAPS), delays.reshape(shape))


def sofa(path: Path) -> Hrtf:
    """A measured head from a SOFA file (see `batcli.audio.sofa`), named after the file. Needs the extra `sofa`.

    Raises InputError for a file that is no SOFA file, has another convention than SimpleFreeFieldHRIR, does
    not tell left from right, or leaves a gap between its directions.
    """
    require_file(path, f"a head is {', '.join(HEADS)} or a SOFA file")
    measured = read_sofa(path)
    factor = Fraction(SAMPLE_RATE / measured.rate).limit_denominator(1000)
    irs = signal.resample_poly(measured.irs, factor.numerator, factor.denominator, axis=-1)
    responses, delays = decompose(irs)
    given = measured.delays * SAMPLE_RATE
    delays = delays + (given - given[:, ::-1]) / 2
    # From here on the set holds minimum phase and delays in samples: its ears are exchanged with it.
    measured = replace(measured, irs=responses, delays=delays)
    levels = 10 * np.log10((responses**2).sum(-1))
    measured = assign_ears(measured, levels, delays / SAMPLE_RATE, path)
    measured = equally_loud(measured, 10 * np.log10((measured.irs**2).sum(-1)))
    size = 512
    bright = slice(3000 * size // SAMPLE_RATE, 8000 * size // SAMPLE_RATE)
    powers = (np.abs(np.fft.rfft(measured.irs, size)[..., bright]) ** 2).mean(-1)
    measured = warn_if_front_is_back(measured, 10 * np.log10(powers).mean(-1))
    forward, left, up = measured.directions.T
    azimuth, elevation = np.degrees(np.arctan2(forward, -left)) % 360, np.degrees(np.arcsin(np.clip(up, -1, 1)))
    head = _interpolate(path.name, azimuth, elevation, measured.irs, measured.delays)
    return replace(head, corrections=measured.corrections, warnings=measured.warnings)


# ---- minimum phase and delay ---------------------------------------------------------------------


def decompose(irs: Array) -> tuple[Array, Array]:
    """Measured responses [n x 2 x any] → (minimum phase [n x 2 x TAPS], delays in samples [n x 2]).

    An ear's delay is the peak of the cross-correlation of its response with the minimum-phase form, below
    3 kHz, where listeners hear it (Nam, Abel and Smith, "A method for estimating interaural time difference
    for binaural synthesis", AES 125, 2008). The two delays have a mean of zero.
    """
    size, finer = fft.next_fast_len(2 * max(irs.shape[-1], 256), real=True), 8
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    low = frequencies < 3000
    lowest = int(np.searchsorted(frequencies, 150.0))  # below, a head is no obstacle and loudspeakers measure badly
    responses, delays = np.empty((*irs.shape[:2], TAPS)), np.empty(irs.shape[:2])
    for start in range(0, len(irs), 256):  # bounded memory: large sets hold 10,000 directions
        part = slice(start, start + 256)
        spectra = np.fft.rfft(irs[part], size)
        magnitudes = np.abs(spectra)
        magnitudes[..., :lowest] = magnitudes[..., lowest, None]
        minimum = _minimum_phase(magnitudes, size)
        responses[part] = minimum[..., :TAPS]
        likeness = np.fft.irfft(spectra * np.fft.rfft(minimum).conj() * low, size * finer)
        delays[part] = likeness[..., : size * finer // 2].argmax(-1) / finer
    return responses, delays - delays.mean(-1, keepdims=True)


def _minimum_phase(magnitude: Array, size: int) -> Array:
    """Magnitudes [… x size/2+1] → minimum-phase responses [… x size] (the cepstrum folded on to its causal half)."""
    floor = magnitude.max(-1, keepdims=True) * 1e-4
    cepstrum = np.fft.irfft(np.log(np.maximum(magnitude, floor)), size)
    cepstrum[..., 1 : (size + 1) // 2] *= 2
    cepstrum[..., size // 2 + 1 :] = 0
    return np.fft.irfft(np.exp(np.fft.rfft(cepstrum)), size)


# ---- from measured directions to the grid --------------------------------------------------------


def unit_vectors(azimuth: ArrayLike, elevation: ArrayLike) -> Array:
    """Azimuths and elevations in degrees [… each] → unit vectors [… x 3] in the listener's axes."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return np.stack([np.cos(e) * np.cos(a), np.sin(e), -np.cos(e) * np.sin(a)], -1)


def _interpolate(name: str, azimuth: Array, elevation: Array, irs: Array, delays: Array) -> Hrtf:
    """The head on the grid, from minimum-phase responses [n x 2 x taps] and delays at any n directions.

    Each grid direction lies in a triangle of the measured directions' convex hull; its response and delay are
    interpolated between the corners (barycentric weights). Raises InputError for a gap of more than
    WIDEST_GAP.
    """
    grid = unit_vectors(*np.meshgrid(AZIMUTHS, ELEVATIONS[ELEVATIONS >= -45])).reshape(-1, 3)
    chords = cKDTree(unit_vectors(azimuth, elevation)).query(grid)[0]
    gap = np.degrees(2 * np.arcsin(chords.max() / 2))
    if gap > WIDEST_GAP:
        raise InputError(f"nothing was measured for {gap:.0f}° around some direction", name, "use a denser set")
    for sign in (-1, 1):
        lowest = (sign * elevation).max()
        if lowest < 90 - 15:  # nothing near this pole: see `kemar`
            ring = sign * elevation > lowest - STEP
            irs = np.concatenate([irs, np.broadcast_to(irs[ring].mean((0, 1)), (1, *irs.shape[1:]))])
            delays = np.concatenate([delays, np.zeros((1, 2))])
            azimuth, elevation = np.append(azimuth, 0.0), np.append(elevation, sign * 90.0)
    # Sets hold a pole many times over, once per azimuth: no triangle may have two such corners.
    _, once = np.unique(unit_vectors(azimuth, elevation).round(5), axis=0, return_index=True)
    measured, irs, delays = unit_vectors(azimuth[once], elevation[once]), irs[once], delays[once]
    triangles = ConvexHull(measured).simplices
    corners = np.linalg.inv(measured[triangles].transpose(0, 2, 1))
    responses = np.empty((len(ELEVATIONS), len(AZIMUTHS), 2, TAPS))
    grid_delays = np.empty((len(ELEVATIONS), len(AZIMUTHS), 2))
    for row, grid_elevation in enumerate(ELEVATIONS):
        wanted = unit_vectors(AZIMUTHS, np.full(len(AZIMUTHS), grid_elevation))
        weights = np.einsum("tij,gj->gti", corners, wanted)
        inside = weights.min(-1).argmax(-1)
        chosen = np.clip(np.take_along_axis(weights, inside[:, None, None], 1)[:, 0], 0, None)
        chosen /= chosen.sum(-1, keepdims=True)
        responses[row] = np.einsum("gc,gcet->get", chosen, irs[triangles[inside]])
        grid_delays[row] = np.einsum("gc,gce->ge", chosen, delays[triangles[inside]])
    return _equalise(name, responses, grid_delays)


def _equalise(name: str, responses: Array, delays: Array) -> Hrtf:
    """The head whose diffuse-field level is LEVEL_AT_1M at all frequencies up to 14 kHz."""
    size = 512
    powers = (np.abs(np.fft.rfft(responses, size)) ** 2).mean(2)
    common = np.sqrt(np.einsum("gaf,g->f", powers, _solid_angles()))
    top = int(14_000 * size / SAMPLE_RATE)
    common[top:] = common[top]
    inverse = _minimum_phase(LEVEL_AT_1M / common, size)[:TAPS]
    return Hrtf(name, signal.oaconvolve(responses, inverse[None, None, None], axes=-1)[..., :TAPS], delays)


def _solid_angles() -> Array:
    """The share of the sphere [37] that a grid direction of each elevation stands for: 72 times their sum is 1."""
    weights = np.cos(np.radians(ELEVATIONS))
    return weights / (weights.sum() * len(AZIMUTHS))


# ---- the rigid sphere ----------------------------------------------------------------------------

_EARS_FROM_FRONT = 100.0  # degrees: ears sit a little behind the middle (Brown and Duda 1998)
_ORDERS = 60  # enough for ka = 26 (16 kHz) at any distance from two radii


def _angles_to_ears(directions: Array) -> Array:
    """Angles in degrees between unit vectors [… x 3] and the left and the right ear [… x 2]."""
    ears = unit_vectors(90.0 + _EARS_FROM_FRONT * np.array([1.0, -1.0]), np.zeros(2))
    return np.degrees(np.arccos(np.clip(directions @ ears.T, -1, 1)))


def near_field(angles: Array, distance: float, size: int) -> NDArray[np.complexfloating]:
    """The near-field correction: spectra [angles x size/2+1] to multiply a distant source's with.

    It is the ratio of a rigid sphere's surface pressure, `angles` (degrees) away from the source, at `distance`
    metres and at FAR, each relative to the free field at the centre: Duda and Martens, "Range dependence of
    the response of a spherical head model", J. Acoust. Soc. Am. 104 (1998).
    """
    distance = max(distance, 2 * HEAD_RADIUS)
    return _sphere_pressure(angles, distance, size) / _sphere_pressure(angles, FAR, size)


def _sphere_pressure(angles: Array, distance: float, size: int) -> NDArray[np.complexfloating]:
    """Surface pressure [angles x size/2+1]: Duda and Martens (1998), equation 1, in the FFT's sign convention."""
    orders = np.arange(_ORDERS)
    ka, derivatives = _sphere_derivatives(size)
    kr = ka * distance / HEAD_RADIUS
    legendre = special.eval_legendre(orders, np.cos(np.radians(angles))[:, None]) * (2 * orders + 1)
    series = legendre @ (_hankel(kr) / derivatives)
    return (-(distance / HEAD_RADIUS) / ka * np.exp(-1j * kr) * series).conj()


@cache
def _sphere_derivatives(size: int) -> tuple[Array, NDArray[np.complexfloating]]:
    """(ka [size/2+1], h'_m(ka) [orders x size/2+1])."""
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    frequencies[0] = frequencies[1] / 2  # the series has no value at 0 Hz; the pressure hardly changes below
    ka = 2 * np.pi * frequencies * HEAD_RADIUS / SPEED_OF_SOUND
    values = _hankel(ka)
    orders = np.arange(1, _ORDERS)[:, None]
    return ka, np.concatenate([-values[1:2], values[:-1] - (orders + 1) / ka * values[1:]])


def _hankel(x: Array) -> NDArray[np.complexfloating]:
    """Spherical Hankel functions of the first kind, [orders x len(x)].

    Upward recurrence: stable for them, and 40 times faster than scipy's Bessel functions.
    """
    values = np.empty((_ORDERS, len(x)), complex)
    values[0] = -1j * np.exp(1j * x) / x
    values[1] = (1 / x - 1j) * values[0]
    for order in range(2, _ORDERS):
        values[order] = (2 * order - 1) / x * values[order - 1] - values[order - 2]
    return values


def _pinna(directions: Array, size: int) -> NDArray[np.complexfloating]:
    """Five echoes off the outer ear, whose delays move with the elevation: [n x size/2+1].

    Brown and Duda (1998), table I, in samples at 44.1 kHz. The elevation runs around the axis
    through the ears, from −90° below over 0° front, 90° above and 180° behind.
    """
    lateral = np.arcsin(np.clip(directions[:, 0], -1, 1))
    around = np.arctan2(directions[:, 1], -directions[:, 2])
    around = np.where(around < -np.pi / 2, around + 2 * np.pi, around)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    total = np.ones((len(directions), len(frequencies)), complex)
    echoes = zip((0.5, -1, 0.5, -0.25, 0.25), (1, 5, 5, 5, 5), (2, 4, 7, 11, 13), (1, 0.5, 0.5, 0.5, 0.5), strict=True)
    for strength, swing, middle, speed in echoes:
        samples = swing * np.cos(lateral / 2) * np.sin(speed * (np.pi / 2 - around)) + middle
        total += strength * np.exp(-2j * np.pi * np.outer(samples / 44_100, frequencies))
    return total


def _torso(directions: Array, size: int) -> NDArray[np.complexfloating]:
    """An echo off shoulders 17 cm below the ears, or the shadow of the body: [n x size/2+1]."""
    above, below = np.clip(directions[:, 1:2], 0, 1), np.clip(-directions[:, 1:2], 0, 1)
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    echo = 1 + 0.4 * above * np.exp(-2j * np.pi * frequencies * 2 * 0.17 * above / SPEED_OF_SOUND)
    corner = 1j * frequencies / 1500.0
    return echo * (1 + corner * (1 - 0.8 * below**2)) / (1 + corner)
