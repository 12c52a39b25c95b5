"""The `Synthesizer` of all classes: oscillators, noise, filters, envelopes and control curves.

A control curve has a value every `CONTROL` samples; `upsample` interpolates it.
"""

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
class Synthesizer:
    """Makes the sounds of one clip, whose length, sample rate and random generator it holds."""

    n: int  # samples
    rate: int  # samples per second
    rng: np.random.Generator

    @property
    def seconds(self) -> float:
        return self.n / self.rate

    @property
    def control_times(self) -> Array:
        """The times (s) of the points of a control curve."""
        return np.arange(self.n // CONTROL + 2) * (CONTROL / self.rate)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def log_uniform(self, low: float, high: float) -> float:
        """A log-uniform draw, as frequencies and durations take it."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    # ---- onsets and events -----------------------------------------------------------------------

    def onsets(
        self, period: float, jitter: float = 0.1, group: tuple[int, int] | None = None, rest: float = 0.0
    ) -> list[float]:
        """Times (s) from near 0 to the end, `period` apart, times 1 ± up to `jitter`.

        `group`: (least, most) onsets in a row; about `rest` more seconds then pass.
        """
        times, now = [], self.uniform(0.0, min(0.08, 0.5 * period))
        left = self._group_size(group)
        while now < self.seconds - 0.02:
            times.append(now)
            now += period * (1 + self.uniform(-jitter, jitter))
            left -= 1
            if left == 0:
                now += rest * self.uniform(0.7, 1.3)
                left = self._group_size(group)
        return times

    def _group_size(self, group: tuple[int, int] | None) -> int:
        return int(self.rng.integers(group[0], group[1] + 1)) if group else -1

    def mix(self, events: Iterable[tuple[float, Array]]) -> Array:
        """The sum of (time in s, sound) events, cut at the end of the clip."""
        out = np.zeros(self.n)
        for time, sound in events:
            start = int(time * self.rate)
            part = sound[: max(self.n - start, 0)]
            out[start : start + len(part)] += part
        return out

    def repeat_to_fill(self, durations: Callable[[], tuple[float, float]]) -> Iterable[tuple[float, float]]:
        """(start, length) in seconds of events in a row; `durations` draws (length, gap after it)."""
        now = self.uniform(0.0, 0.06)
        while now < self.seconds - 0.03:
            length, gap = durations()
            yield now, length
            now += length + gap

    # ---- control curves and envelopes ------------------------------------------------------------

    def event_span(self, start: float, length: float) -> tuple[slice, Array]:
        """The control points of an event: (slice of a control curve, their places in the event from 0 to 1)."""
        times = self.control_times
        first, last = np.searchsorted(times, (start, start + length))
        return slice(first, last), (times[first:last] - start) / length

    def upsample(self, curve: Array) -> Array:
        """A control curve, interpolated to every sample."""
        return np.interp(np.arange(self.n) / self.rate, self.control_times, curve)

    def slow_noise(self, per_second: float) -> Array:
        """A random control curve: Gaussian values, `per_second` of them a second, linearly interpolated."""
        times = self.control_times
        knots = np.arange(0, times[-1] + 2 / per_second, 1 / per_second)
        offset = self.rng.uniform(0, 1 / per_second)
        return np.interp(times + offset, knots, self.rng.standard_normal(len(knots)))

    def percussive(self, length: float, attack: float, decay: float) -> Array:
        """The envelope of a blow, at every sample: `attack` s to rise, `decay` s to fall by 60 dB."""
        t = np.arange(int(length * self.rate)) / self.rate
        return np.minimum(t / attack, 1.0) * 10 ** (-3 * np.maximum(t - attack, 0) / decay)

    # ---- oscillators, noise and filters ----------------------------------------------------------

    def harmonics(self, f0: Array, weights: ArrayLike) -> Array:
        """A periodic wave of pitch `f0` (Hz, at every sample); `weights[k]` is the amplitude of harmonic k + 1.

        Complex weights carry phases; real ones add up to one pulse per period. Harmonics that would reach
        0.45 of the sample rate are left out.
        """
        weights = np.asarray(weights)[: max(int(0.45 * self.rate / f0.max()), 1)]
        spectrum = np.zeros(_TABLE // 2 + 1, complex)
        spectrum[1 : len(weights) + 1] = weights[: _TABLE // 2]
        table = np.fft.irfft(spectrum, _TABLE) * (_TABLE / 2)
        step = np.append(table[1:], table[0]) - table
        position = (np.cumsum(f0) / self.rate + self.rng.random()) * _TABLE
        index = position.astype(np.int64)
        position -= index
        index &= _TABLE - 1
        return table[index] + position * step[index]

    def modes(self, length: float, pitches: ArrayLike, decays: ArrayLike, amplitudes: ArrayLike) -> Array:
        """Modal synthesis of a struck object: a sum of damped sinusoids, each with a pitch (Hz), decay and level.

        `decays`: seconds in which each falls by 60 dB. Sample i·B + j of a mode s is exp(s·i·B) · exp(s·j), so that
        two short tables take the place of an exponential per sample.
        """
        pitches, falls, levels = np.broadcast_arrays(*map(np.atleast_1d, (pitches, decays, amplitudes)))
        audible = pitches < 0.45 * self.rate
        poles = (-np.log(1000.0) / falls[audible] + 2j * np.pi * pitches[audible]) / self.rate
        n = int(length * self.rate)
        block = max(int(np.sqrt(n)), 1)
        rows = np.exp(np.outer(np.arange(-(-n // block)) * block, poles)) * levels[audible]
        columns = np.exp(np.outer(poles, np.arange(block)))
        # Not `@`: a BLAS may add in another order with another number of threads.
        parts = np.concatenate([rows.imag, rows.real], axis=1), np.concatenate([columns.real, columns.imag])
        return np.einsum("ik,kj->ij", *(part.astype(np.float32) for part in parts)).ravel()[:n] * _release(n)

    def noise(self, gain: Callable[[Array], Array], length: float | None = None) -> Array:
        """Gaussian noise of RMS 1 with the amplitude spectrum `gain(frequency in Hz)`; `length` in s or the clip's."""
        n = self.n if length is None else max(int(length * self.rate), 2)
        size = fft.next_fast_len(n, real=True)
        spectrum = self.random_spectrum(size) * gain(self.frequencies(size))
        out = fft.irfft(spectrum, size)[:n]
        return out / np.sqrt(np.mean(out**2) + 1e-30)

    def random_spectrum(self, size: int) -> NDArray[np.complex128]:
        """The spectrum (real FFT) of `size` samples of white noise, up to a factor, without DC."""
        spectrum = self.rng.standard_normal(2 * (size // 2 + 1)).view(np.complex128)
        spectrum[0] = 0.0
        return spectrum

    def frequencies(self, size: int) -> Array:
        """Frequencies (Hz) of a real FFT; half a bin instead of 0, so that all have a logarithm."""
        return np.maximum(np.arange(size // 2 + 1), 0.5) * (self.rate / size)

    def filtered(self, signal: Array, gain: Callable[[Array], Array]) -> Array:
        """A signal through a zero-phase filter with `gain(frequency in Hz)`."""
        size = fft.next_fast_len(len(signal) + FRAME, real=True)
        return fft.irfft(fft.rfft(signal, size) * gain(self.frequencies(size)), size)[: len(signal)]

    def at_frames(self, curve: Array) -> Array:
        """A control curve at the middles of the frames of `filtered_over_time`: (frames, 1)."""
        middles = np.arange(self.n // (FRAME // 2) + 2) * (FRAME // 2 / self.rate)
        return np.interp(middles, self.control_times, curve)[:, None]

    def filtered_over_time(self, signal: Array, gains: Array) -> Array:
        """A signal (n,) through a time-varying filter: `gains` (frames, FRAME/2 + 1), by overlap-add."""
        hop = FRAME // 2
        frames = len(gains)
        padded = np.zeros((frames + 1) * hop)
        padded[hop : hop + self.n] = signal
        window = np.sin(np.pi * (np.arange(FRAME) + 0.5) / FRAME)  # its square adds up to 1 at half overlap
        halves = padded.reshape(-1, hop)
        blocks = np.concatenate([halves[:-1], halves[1:]], axis=1) * window
        blocks = fft.irfft(fft.rfft(blocks, axis=1) * gains, FRAME, axis=1) * window
        out = np.zeros_like(halves)
        out[:-1] += blocks[:, :hop]
        out[1:] += blocks[:, hop:]
        return out.ravel()[hop : hop + self.n]

    def formants(self, centres: Iterable[Array | float], widths: Iterable[float], levels: Iterable[float]) -> Array:
        """Gains for `filtered_over_time`: a sum of resonances.

        `centres`: Hz, numbers or control curves; `widths`: Hz at half amplitude; `levels`: amplitudes at the peaks.
        """
        bins = self.frequencies(FRAME)
        still = np.ones(len(self.control_times))
        gains = np.zeros((self.n // (FRAME // 2) + 2, len(bins)))
        for centre, width, level in zip(centres, widths, levels, strict=True):
            offset = (bins - self.at_frames(still * centre)) / (0.5 * width)
            gains += level / (1 + offset**2)
        return gains * np.minimum(1, bins / 100)

    def voice(self, f0: Array, loudness: Array, breath: float | Array, tilt: float, resonances: Array) -> Array:
        """A voice, as source and filter: pulses of pitch `f0` and breath noise through formants.

        `f0`: control curve, Hz; `breath`: share of noise, a number or a control curve, 1 = as strong as the
        pulses; `tilt`: harmonic k has the amplitude k^−tilt; `resonances`: from `formants`.
        """
        weights = np.arange(1, 200.0) ** -tilt
        pulses = self.harmonics(self.upsample(f0), weights) / np.sqrt(0.5 * np.sum(weights**2))
        air = self.noise(band(800, 9000, 1.0)) * self.upsample(breath * np.ones(len(f0)))
        return self.filtered_over_time((pulses + air) * self.upsample(loudness), resonances)


def envelope(place_in_event: Array, attack: float, decay: float) -> Array:
    """A raised-sine envelope over places from 0 to 1: rises over the share `attack`, falls over the share `decay`."""
    rise = np.clip(place_in_event / attack, 0, 1)
    fall = np.clip((1 - place_in_event) / decay, 0, 1)
    return np.sin(0.5 * np.pi * rise) * np.sin(0.5 * np.pi * fall)


def _release(n: int) -> Array:
    # What still rings at the end of a sound is damped in 128 samples, not cut.
    return np.minimum(np.arange(n, 0, -1) / min(n, 128), 1.0)


def band(low: float, high: float, slope: float = 2.0) -> Callable[[Array], Array]:
    """A band-pass gain: flat from `low` to `high` Hz, beyond them falling by 6 dB per octave × `slope`."""
    return lambda f: 1 / np.sqrt((1 + (low / f) ** (2 * slope)) * (1 + (f / high) ** (2 * slope)))
