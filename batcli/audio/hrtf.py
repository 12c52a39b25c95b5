"""Head-related impulse responses: how sound from each direction reaches two ears.

An `Hrtf` holds, on a regular grid of directions, a minimum-phase response per ear and the delay of
each ear. That form can be interpolated (responses with their delays inside cannot), and a near
source is a factor on it. Directions are the data's own: azimuth 0 right, 90 front, 180 left, 270
behind; elevation −90 below, +90 above; degrees. Ear 0 is the left one. Sampling rate 32 kHz.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.spatial import ConvexHull, QhullError

from batcli.core.errors import InputError

Array = NDArray[np.floating]

SAMPLE_RATE = 32_000
SPEED_OF_SOUND = 343.0  # m/s, at 20 °C
HEAD_RADIUS = 0.0875  # m: the classic average (Hartley and Fry 1921, Duda and Martens 1998)
LEVEL_AT_1M = 0.46  # peak of the direct sound from the front at 1 m, as in the published BRIRs
FAR = 1.4  # m: beyond it a head hears no more of the distance than 1/r

STEP = 5  # degrees between grid directions
AZIMUTHS = np.arange(0, 360, STEP)  # 72
ELEVATIONS = np.arange(-90, 91, STEP)  # 37
TAPS = 96  # of a minimum-phase response
BANK_TAPS = 128  # of a response with its delays: ±16 samples around 96 taps
BANK_LEAD = 16  # sample of a bank response at which sound reaches the head's centre
PHASES = 4  # bank responses per direction, each a quarter of a sample later


@dataclass(frozen=True, eq=False)
class Hrtf:
    """One head.

    responses [37 x 72 x ears x TAPS]: minimum phase, elevation −90…90 by azimuth 0…355 in steps of
    5°, scaled so that the frontal peak is LEVEL_AT_1M at 1 m.
    delays [37 x 72 x ears]: arrival after the head's centre, in samples; negative is earlier.
    """

    name: str
    responses: Array
    delays: Array

    @property
    def ears(self) -> int:
        return self.responses.shape[2]

    @cached_property
    def bank(self) -> Array:
        """[37*72*PHASES x ears x BANK_TAPS] float32: delays applied, for sums of many reflections."""
        frequencies = np.fft.rfftfreq(BANK_TAPS)
        shifts = BANK_LEAD + self.delays[..., None, :] + np.arange(PHASES)[:, None] / PHASES
        spectra = np.fft.rfft(self.responses, BANK_TAPS)[:, :, None]
        shifted = np.fft.irfft(spectra * _delay(shifts[..., None], frequencies), BANK_TAPS)
        return shifted.reshape(-1, self.ears, BANK_TAPS).astype(np.float32)

    def nearest(self, azimuth: Array, elevation: Array, phase: NDArray[np.integer]) -> NDArray[np.integer]:
        """Rows of `bank` for directions in degrees and a quarter of a sample, `phase` of 0…3."""
        row = np.rint((elevation + 90) / STEP).astype(np.intp)
        column = np.rint(azimuth / STEP).astype(np.intp) % len(AZIMUTHS)
        return (row * len(AZIMUTHS) + column) * PHASES + phase

    def at(self, azimuth: float, elevation: float) -> tuple[Array, Array]:
        """(responses [ears x TAPS], delays [ears]) of any direction, between the grid's four around it."""
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
        """Sound that comes straight from a source, `distance` in metres.

        Returns ([ears x 256], the sample at which sound passes the head's centre); the nearer ear
        hears it at sample BANK_LEAD. Near sources are corrected as by a rigid sphere.
        """
        size = 256
        responses, delays = self.at(azimuth, elevation)
        first = delays.min()
        frequencies = np.fft.rfftfreq(size)
        spectra = np.fft.rfft(responses, size) * _delay((BANK_LEAD + delays - first)[:, None], frequencies)
        if distance < FAR and self.ears == 2:
            lateral = np.degrees(np.arcsin(np.cos(np.radians(elevation)) * np.cos(np.radians(azimuth))))
            spectra = spectra * near_field(np.array([90.0 + lateral, 90.0 - lateral]), distance, size)
        return np.fft.irfft(spectra, size) / distance, BANK_LEAD - first

    @cached_property
    def diffuse_field(self) -> tuple[Array, Array]:
        """What sound from everywhere at once gives: (power, inter-aural coherence), both [257].

        Frequencies are those of a 512-point spectrum; power is the mean of both ears, for sources
        at 1 m; coherence lies in −1…1 and is 1 for a single ear.
        """
        size = 512
        weights = np.cos(np.radians(ELEVATIONS))[:, None] * np.ones(len(AZIMUTHS))
        weights = (weights / weights.sum()).reshape(-1, 1)
        spectra = np.fft.rfft(self.bank[::PHASES], size)
        powers = (weights[..., None] * np.abs(spectra) ** 2).sum(0)
        if self.ears == 1:
            return powers[0], np.ones(size // 2 + 1)
        cross = (weights * (spectra[:, 0] * spectra[:, 1].conj()).real).sum(0)
        return powers.mean(0), cross / np.sqrt(powers[0] * powers[1])


def _delay(samples: Array, frequencies: Array) -> NDArray[np.complexfloating]:
    """Spectrum of a delay; `frequencies` in cycles per sample."""
    return np.exp(-2j * np.pi * frequencies * samples)


def load_hrtf(name: str) -> Hrtf:
    """`kemar`, `sphere`, `omni` (one ear without a head) or the path of a SOFA file."""
    if name in _KNOWN:
        return _KNOWN[name]()
    return sofa(Path(name))


# ---- heads ---------------------------------------------------------------------------------------


@cache
def kemar() -> Hrtf:
    """The KEMAR dummy head of Gardner and Martin (1995), shipped in `data/`.

    Nothing was measured below −40°. There the responses go over, in proportion to the direction's
    own place between −40° and straight below, to the mean of all responses at −40°, the same for
    both ears and without a delay.
    """
    with np.load(Path(__file__).with_name("data") / "kemar_32k.npz", allow_pickle=False) as data:
        irs, itd, azimuth, elevation = (data[key].astype(float) for key in ("q", "itd", "az", "el"))
    delays = np.stack([itd, -itd], -1) / 2
    # The other half-space: mirrored, ears exchanged; the median plane is there already.
    side = (azimuth > 0) & (azimuth < 180)
    return _interpolated(
        "kemar",
        90.0 + np.concatenate([azimuth, -azimuth[side]]),
        np.concatenate([elevation, elevation[side]]),
        np.concatenate([irs, irs[side, ::-1]]),
        np.concatenate([delays, delays[side, ::-1]]),
    )


@cache
def omni() -> Hrtf:
    """One point without a head, for `mono`."""
    responses = np.zeros((len(ELEVATIONS), len(AZIMUTHS), 1, TAPS))
    responses[..., 0] = LEVEL_AT_1M
    return Hrtf("omni", responses, np.zeros(responses.shape[:3]))


_KNOWN = {"kemar": kemar, "omni": omni}


def sofa(path: Path) -> Hrtf:
    raise InputError("not yet", path)


# ---- from measured directions to the grid --------------------------------------------------------


def unit_vectors(azimuth: Array, elevation: Array) -> Array:
    """[… x 3] in the listener's axes (x right, y up, −z front)."""
    a, e = np.radians(azimuth), np.radians(elevation)
    return np.stack([np.cos(e) * np.cos(a), np.sin(e), -np.cos(e) * np.sin(a)], -1)


def _interpolated(name: str, azimuth: Array, elevation: Array, irs: Array, delays: Array) -> Hrtf:
    """Minimum-phase responses [n x 2 x taps] at any n directions around the head, put on the grid.

    Each grid direction lies in a triangle of the measured directions' convex hull, and its
    response and delay are those of the corners, weighted by where it lies in it.
    """
    for sign in (-1, 1):
        lowest = (sign * elevation).max()
        if lowest < 90 - 15:  # nothing near this pole: see `kemar`
            ring = sign * elevation > lowest - STEP
            irs = np.concatenate([irs, np.broadcast_to(irs[ring].mean((0, 1)), (1, *irs.shape[1:]))])
            delays = np.concatenate([delays, np.zeros((1, 2))])
            azimuth, elevation = np.append(azimuth, 0.0), np.append(elevation, sign * 90.0)
    measured = unit_vectors(azimuth, elevation)
    try:
        triangles = ConvexHull(measured).simplices
        corners = np.linalg.inv(measured[triangles].transpose(0, 2, 1))
    except (QhullError, np.linalg.LinAlgError):
        raise InputError("the measured directions do not surround the head", name) from None
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
    return _scaled(name, responses, grid_delays)


def _scaled(name: str, responses: Array, delays: Array) -> Hrtf:
    front = responses[np.searchsorted(ELEVATIONS, 0), np.searchsorted(AZIMUTHS, 90)]
    return Hrtf(name, responses * (LEVEL_AT_1M / np.abs(front).max()), delays)


# ---- the rigid sphere ----------------------------------------------------------------------------

_ORDERS = 60  # enough for ka = 26 (16 kHz) at any distance from two radii


def near_field(angles: Array, distance: float, size: int) -> NDArray[np.complexfloating]:
    """What a near source adds to a far one's 1/r: spectra [angles x size/2+1] to multiply with.

    The ratio of a rigid sphere's surface pressure at `distance` and at FAR, each against the free
    field at the sphere's centre, `angles` (degrees) away from the source: Duda and Martens,
    "Range dependence of the response of a spherical head model", J. Acoust. Soc. Am. 104 (1998).
    """
    distance = max(distance, 2 * HEAD_RADIUS)
    return _sphere_pressure(angles, distance, size) / _sphere_pressure(angles, FAR, size)


def _sphere_pressure(angles: Array, distance: float, size: int) -> NDArray[np.complexfloating]:
    """Duda and Martens (1998), equation 1, in the sign convention of the FFT. [angles x size/2+1]"""
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
