"""Building blocks of the synthesis recipes: oscillators, noise, resonances, and curves over time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft

Array = NDArray[np.floating[Any]]

CONTROL = 64  # samples per point of a control curve (2 ms at 32 kHz)
FRAME = 512  # samples per frame of a filter that changes over time (16 ms); frames overlap by half
_TABLE = 8192  # points of one period in `harmonics`: linear interpolation stays 60 dB below the signal


@dataclass(frozen=True)
class Mixdown:
    """An empty length of tape and the dice for what is recorded on it."""

    n: int  # samples
    rate: int  # samples per second
    rng: np.random.Generator

    @property
    def seconds(self) -> float:
        return self.n / self.rate

    @property
    def control_times(self) -> Array:
        """The times, in seconds, at which control curves have their points."""
        return np.arange(self.n // CONTROL + 2) * (CONTROL / self.rate)

    def between(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def log_between(self, low: float, high: float) -> float:
        """As likely in each octave: the right draw for frequencies and durations."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)


# ---- when things happen --------------------------------------------------------------------------


def onsets(
    tape: Mixdown, period: float, jitter: float = 0.1, group: tuple[int, int] | None = None, rest: float = 0.0
) -> list[float]:
    """Times (s) from near 0 to the end, about `period` apart, each gap off by up to ±`jitter` of it.

    With `group` = (least, most), that many come in a row and then `rest` seconds more pass.
    """
    times, now = [], tape.between(0.0, min(0.08, 0.5 * period))
    left = _group_size(tape, group)
    while now < tape.seconds - 0.02:
        times.append(now)
        now += period * (1 + tape.between(-jitter, jitter))
        left -= 1
        if left == 0:
            now += rest * tape.between(0.7, 1.3)
            left = _group_size(tape, group)
    return times


def _group_size(tape: Mixdown, group: tuple[int, int] | None) -> int:
    return int(tape.rng.integers(group[0], group[1] + 1)) if group else -1


def place(tape: Mixdown, events: Iterable[tuple[float, Array]]) -> Array:
    """Sum of sounds, each laid down at its time (s); what runs over the end is cut."""
    out = np.zeros(tape.n)
    for time, sound in events:
        start = int(time * tape.rate)
        part = sound[: max(tape.n - start, 0)]
        out[start : start + len(part)] += part
    return out


def repeat_to_fill(tape: Mixdown, durations: Callable[[], tuple[float, float]]) -> Iterable[tuple[float, float]]:
    """(start, length) in seconds of one thing after the other; `durations` draws (length, gap after it)."""
    now = tape.between(0.0, 0.06)
    while now < tape.seconds - 0.03:
        length, gap = durations()
        yield now, length
        now += length + gap


# ---- curves over time ----------------------------------------------------------------------------


def span(tape: Mixdown, start: float, length: float) -> tuple[slice, Array]:
    """The control points of an event and their place in it, 0 to 1."""
    times = tape.control_times
    first, last = np.searchsorted(times, (start, start + length))
    return slice(first, last), (times[first:last] - start) / length


def samples(tape: Mixdown, curve: Array) -> Array:
    """A control curve at every sample."""
    return np.interp(np.arange(tape.n) / tape.rate, tape.control_times, curve)


def wander(tape: Mixdown, per_second: float) -> Array:
    """A slow random control curve: standard deviation about 1, `per_second` new values a second."""
    times = tape.control_times
    knots = np.arange(0, times[-1] + 2 / per_second, 1 / per_second)
    offset = tape.rng.uniform(0, 1 / per_second)
    return np.interp(times + offset, knots, tape.rng.standard_normal(len(knots)))


def arch(place_in_event: Array, attack: float, decay: float) -> Array:
    """Loudness of an uttered sound: rises over the share `attack`, falls over the share `decay`."""
    rise = np.clip(place_in_event / attack, 0, 1)
    fall = np.clip((1 - place_in_event) / decay, 0, 1)
    return np.sin(0.5 * np.pi * rise) * np.sin(0.5 * np.pi * fall)


def burst(tape: Mixdown, length: float, attack: float, decay: float) -> Array:
    """Envelope (samples) of a blow: `attack` s to rise, `decay` s to fall by 60 dB."""
    t = np.arange(int(length * tape.rate)) / tape.rate
    return np.minimum(t / attack, 1.0) * 10 ** (-3 * np.maximum(t - attack, 0) / decay)


# ---- what sounds ---------------------------------------------------------------------------------


def harmonics(tape: Mixdown, f0: Array, weights: ArrayLike) -> Array:
    """A periodic wave of pitch `f0` (Hz at every sample); `weights[k]` belongs to the (k+1)-th harmonic.

    Complex weights carry phases; real ones line the harmonics up into one pulse per period.
    Harmonics that would reach 0.45 of the sample rate are left out.
    """
    weights = np.asarray(weights)[: max(int(0.45 * tape.rate / f0.max()), 1)]
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[1 : len(weights) + 1] = weights[: _TABLE // 2]
    table = np.fft.irfft(spectrum, _TABLE) * (_TABLE / 2)
    step = np.append(table[1:], table[0]) - table
    position = (np.cumsum(f0) / tape.rate + tape.rng.random()) * _TABLE
    index = position.astype(np.int64)
    position -= index
    index &= _TABLE - 1
    return table[index] + position * step[index]


def modes(tape: Mixdown, length: float, pitches: ArrayLike, decays: ArrayLike, amplitudes: ArrayLike) -> Array:
    """Damped sinusoids of a struck object; `decays` are the seconds in which each falls by 60 dB.

    exp(s·(i·B + j)) is the product of exp(s·i·B) and exp(s·j): two short tables instead of
    one exponential per sample and mode.
    """
    pitches, falls, levels = np.broadcast_arrays(*map(np.atleast_1d, (pitches, decays, amplitudes)))
    heard = pitches < 0.45 * tape.rate
    poles = (-np.log(1000.0) / falls[heard] + 2j * np.pi * pitches[heard]) / tape.rate
    n = int(length * tape.rate)
    block = max(int(np.sqrt(n)), 1)
    rows = np.exp(np.outer(np.arange(-(-n // block)) * block, poles)) * levels[heard]
    columns = np.exp(np.outer(poles, np.arange(block)))
    # Not `@`: a BLAS may add in another order with another number of threads.
    parts = np.concatenate([rows.imag, rows.real], axis=1), np.concatenate([columns.real, columns.imag])
    return np.einsum("ik,kj->ij", *(part.astype(np.float32) for part in parts)).ravel()[:n] * _release(n)


def _release(n: int) -> Array:
    # What still rings at the end of a sound is damped in 128 samples, not cut.
    return np.minimum(np.arange(n, 0, -1) / min(n, 128), 1.0)


def noise(tape: Mixdown, gain: Callable[[Array], Array], length: float | None = None) -> Array:
    """Gaussian noise, RMS 1, whose amplitude spectrum follows `gain(frequency in Hz)`."""
    n = tape.n if length is None else max(int(length * tape.rate), 2)
    size = fft.next_fast_len(n, real=True)
    spectrum = random_spectrum(tape, size) * gain(frequencies(tape, size))
    out = fft.irfft(spectrum, size)[:n]
    return out / np.sqrt(np.mean(out**2) + 1e-30)


def random_spectrum(tape: Mixdown, size: int) -> NDArray[np.complex128]:
    """The real FFT of `size` samples of white noise, up to a factor, without DC."""
    spectrum = tape.rng.standard_normal(2 * (size // 2 + 1)).view(np.complex128)
    spectrum[0] = 0.0
    return spectrum


def frequencies(tape: Mixdown, size: int) -> Array:
    """Frequencies (Hz) of a real FFT; the first, 0, is given as half a bin, so that it has a logarithm."""
    return np.maximum(np.arange(size // 2 + 1), 0.5) * (tape.rate / size)


def band(low: float, high: float, slope: float = 2.0) -> Callable[[Array], Array]:
    """A gain for `noise`: flat from `low` to `high` Hz, then falling by about 6 dB per octave × `slope`."""
    return lambda f: 1 / np.sqrt((1 + (low / f) ** (2 * slope)) * (1 + (f / high) ** (2 * slope)))


def filtered(tape: Mixdown, signal: Array, gain: Callable[[Array], Array]) -> Array:
    """A signal through a filter without phase shift and with `gain(frequency in Hz)`."""
    size = fft.next_fast_len(len(signal) + FRAME, real=True)
    return fft.irfft(fft.rfft(signal, size) * gain(frequencies(tape, size)), size)[: len(signal)]


def at_frames(tape: Mixdown, curve: Array) -> Array:
    """A control curve at the middles of the frames of `filtered_over_time`, as a column."""
    middles = np.arange(tape.n // (FRAME // 2) + 2) * (FRAME // 2 / tape.rate)
    return np.interp(middles, tape.control_times, curve)[:, None]


def filtered_over_time(tape: Mixdown, signal: Array, gains: Array) -> Array:
    """A signal of the tape's length through a filter that changes: `gains` is (frames, FRAME/2 + 1)."""
    hop = FRAME // 2
    frames = len(gains)
    padded = np.zeros((frames + 1) * hop)
    padded[hop : hop + tape.n] = signal
    window = np.sin(np.pi * (np.arange(FRAME) + 0.5) / FRAME)  # its square adds up to 1 at half overlap
    halves = padded.reshape(-1, hop)
    blocks = np.concatenate([halves[:-1], halves[1:]], axis=1) * window
    blocks = fft.irfft(fft.rfft(blocks, axis=1) * gains, FRAME, axis=1) * window
    out = np.zeros_like(halves)
    out[:-1] += blocks[:, :hop]
    out[1:] += blocks[:, hop:]
    return out.ravel()[hop : hop + tape.n]


def formants(
    tape: Mixdown, centres: Iterable[Array | float], widths: Iterable[float], levels: Iterable[float]
) -> Array:
    """Gains for `filtered_over_time`: resonances whose centres (Hz) are numbers or control curves.

    `widths` in Hz at half amplitude, `levels` as linear amplitudes at the peaks.
    """
    bins = frequencies(tape, FRAME)
    still = np.ones(len(tape.control_times))
    gains = np.zeros((tape.n // (FRAME // 2) + 2, len(bins)))
    for centre, width, level in zip(centres, widths, levels, strict=True):
        offset = (bins - at_frames(tape, still * centre)) / (0.5 * width)
        gains += level / (1 + offset**2)
    return gains * np.minimum(1, bins / 100)


def voice(tape: Mixdown, f0: Array, loudness: Array, breath: float | Array, tilt: float, resonances: Array) -> Array:
    """A throat and a mouth: pulses of pitch `f0` (control curve, Hz) and breath through formants.

    `breath` is the share of noise (a number or a control curve, 1 = as strong as the pulses),
    `tilt` the fall of the pulses' harmonics (k^−tilt), `resonances` come from `formants`.
    """
    weights = np.arange(1, 200.0) ** -tilt
    pulses = harmonics(tape, samples(tape, f0), weights) / np.sqrt(0.5 * np.sum(weights**2))
    air = noise(tape, band(800, 9000, 1.0)) * samples(tape, breath * np.ones(len(f0)))
    return filtered_over_time(tape, (pulses + air) * samples(tape, loudness), resonances)
