"""Instruments and bells."""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import (
    Array,
    Mixdown,
    band,
    burst,
    harmonics,
    modes,
    noise,
    onsets,
    place,
    samples,
    wander,
)

# Partials of a tuned church bell, prime = 1: hum, prime, tierce, quint, nominal, and those above it.
CHURCH_BELL = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.33, 6.67, 8.0])
# A small bowl struck on its rim: the ratios of its first bending modes, about (m² − 1)·m/√(m² + 1).
BOWL = np.array([1.0, 2.8, 5.2, 8.3])

CHURCH_BELL_LEVELS = np.array([0.6, 0.8, 0.9, 0.4, 1.0, 0.5, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2])
CHORDS = ((0, 4, 7, 12, 16), (0, 3, 7, 12, 15), (0, 5, 9, 12, 17), (0, 4, 7, 10, 12), (0, 7, 12, 16, 19))


def acoustic_guitar(tape: Mixdown) -> Array:
    """Strummed chords or picked strings: a comb from the place of the pluck, the body's two resonances."""
    root, pluck = tape.log_between(82, 165), tape.between(0.1, 0.3)
    ring, brightness = tape.between(0.5, 1.6), tape.between(0.8, 1.5)
    strummed = tape.chance(0.6)
    body = noise(tape, band(90, 260, 2.0), 0.12) * burst(tape, 0.12, 0.001, 0.15)
    k = np.arange(1, 23)
    comb = np.abs(np.sin(np.pi * k * pluck)) / k**brightness
    events, transposed, chord = [], 0, CHORDS[0]
    period = 1 / (tape.between(2.2, 4.5) if strummed else tape.between(3.5, 8))
    length = min(0.7 * ring, 1.4 * period) if strummed else 0.7 * ring  # the next strum stops the strings
    for i, time in enumerate(onsets(tape, period, 0.08)):
        if i % 4 == 0:
            transposed, chord = int(tape.rng.choice([0, 2, 5, 7])), CHORDS[tape.rng.integers(len(CHORDS))]
        strings = chord if strummed else [chord[tape.rng.integers(len(chord))] + 12 * tape.chance(0.3)]
        delay = tape.between(0.006, 0.022)
        for j, step in enumerate(strings if tape.chance(0.6) else strings[::-1]):
            f0 = root * 2 ** ((step + transposed) / 12) * tape.between(0.998, 1.002)
            decays = ring / (1 + 0.06 * k + (f0 * k / 4000) ** 1.5)
            note = modes(tape, min(length, tape.seconds - time), f0 * k * np.sqrt(1 + 4e-5 * k**2), decays, comb)
            pick = noise(tape, band(1500, 7000, 1.5), 0.02) * burst(tape, 0.02, 0.001, 0.02)
            loud = tape.between(0.6, 1.0)
            start = time + j * delay
            events += [(start, loud * note), (start, loud * tape.between(0.2, 0.5) * pick)]
        events.append((time, tape.between(0.1, 0.3) * body))
    return place(tape, events)


def piano(tape: Mixdown) -> Array:
    """Hammered strings: stretched partials in beating pairs, a thump of the hammer, chords or runs."""
    events = []
    k = np.arange(1, 15)
    centre, softness, hold = tape.log_between(180, 700), tape.between(0.08, 0.3), tape.between(0.8, 2.2)
    thump = noise(tape, band(80, tape.log_between(800, 3000), 1.0), 0.08) * burst(tape, 0.08, 0.002, 0.09)
    voices = int(tape.rng.integers(1, 4))
    degrees = np.array([0, 2, 4, 5, 7, 9, 11]) if tape.chance(0.6) else np.array([0, 2, 3, 5, 7, 8, 10])
    place_in_scale = 0
    for time in onsets(tape, 1 / tape.between(2.0, 6.0), 0.06):
        place_in_scale = int(np.clip(place_in_scale + tape.rng.integers(-3, 4), -9, 9))
        for j in range(voices if tape.chance(0.5) else 1):
            octave, degree = divmod(place_in_scale + 2 * j, 7)
            f0 = centre * 2 ** (octave + degrees[degree] / 12)
            partials = f0 * k * np.sqrt(1 + 2.5e-4 * (f0 / 262) * k**2)
            amplitudes = np.exp(-softness * (k - 1)) * np.abs(np.sin(np.pi * k / 8.3)) * np.exp(-partials / 9000)
            decays = hold * (262 / f0) ** 0.5 / (1 + 0.12 * k)
            second = slice(0, 4)  # a second string, hardly out of tune: heard in the lowest partials
            partials = np.append(partials, partials[second] * (1 + tape.between(3e-4, 2e-3)))
            amplitudes, decays = np.append(amplitudes, 0.6 * amplitudes[second]), np.append(decays, decays[second])
            note = modes(tape, min(0.8 * hold, tape.seconds - time), partials, decays, amplitudes)
            loud = tape.between(0.4, 1.0)
            events += [(time, loud * note), (time, 0.25 * loud * thump)]
    return place(tape, events)


def snare_drum(tape: Mixdown) -> Array:
    """Beats, flams and rolls: a head at 160 to 320 Hz and the rattle of the wires under it."""
    head = tape.log_between(160, 320) * np.array([1, 1.59, 2.14, 2.3])
    wires, rattle = tape.log_between(1200, 3000), tape.between(0.12, 0.32)
    beat, balance = tape.between(0.11, 0.3), tape.between(0.6, 1.4)
    roll = tape.chance(0.35)
    hits = []
    for i, time in enumerate(onsets(tape, tape.between(0.035, 0.06) if roll else beat, 0.06)):
        loud = tape.between(0.25, 0.5) if roll else (1.0 if i % 4 == 0 else tape.between(0.2, 0.9))
        drum = modes(tape, 0.25, head * tape.between(0.99, 1.01), tape.between(0.1, 0.22), [1, 0.6, 0.4, 0.3])
        rattling = noise(tape, band(wires, 9500, 1.5), 0.3) * burst(tape, 0.3, 0.001, rattle * tape.between(0.8, 1.2))
        stick = noise(tape, band(2500, 10000, 1.0), 0.01) * burst(tape, 0.01, 0.0005, 0.01)
        hits += [(time, loud * balance * drum), (time, loud * rattling), (time, loud * tape.between(0.3, 0.8) * stick)]
    return place(tape, hits)


def church_bell(tape: Mixdown) -> Array:
    """One or two swinging bells: partials that belong to no harmonic series, each in a beating pair."""
    strikes = []
    for _ in range(tape.rng.integers(1, 3)):
        prime = tape.log_between(160, 520)
        partials = prime * CHURCH_BELL * tape.rng.uniform(0.99, 1.01, len(CHURCH_BELL))
        levels = tape.rng.uniform(0.3, 1.0, len(partials)) * CHURCH_BELL_LEVELS
        decays = tape.between(4, 9) / (1 + CHURCH_BELL)
        pair = np.concatenate([partials, partials * tape.rng.uniform(1.0005, 1.004, len(partials))])
        clapper = noise(tape, band(1500, 8000, 1.0), 0.05) * burst(tape, 0.05, 0.001, 0.05)
        for time in onsets(tape, tape.between(0.45, 1.1), 0.06):
            loud = tape.between(0.7, 1.0)
            hard = CHURCH_BELL ** tape.between(-0.4, 0.2)  # no two blows of the clapper are alike
            bell = modes(tape, min(3.0, tape.seconds - time), pair, np.tile(decays, 2), np.tile(levels * hard, 2))
            strikes += [(time, loud * bell), (time, loud * tape.between(0.3, 0.9) * clapper)]
    return place(tape, strikes)


def bicycle_bell(tape: Mixdown) -> Array:
    """A thumb lever: two or more quick strikes on a small bowl near 2.5 kHz, then it rings on."""
    low = tape.log_between(1700, 3100)
    partials = low * BOWL[:3] * tape.rng.uniform(0.93, 1.07, 3)
    pair = np.concatenate([partials, partials * tape.rng.uniform(1.003, 1.012, 3)])
    decays, levels = tape.between(0.35, 1.3) / np.array([1, 1.8, 3.2]), np.array([1, tape.between(0.3, 0.9), 0.4])
    tick = noise(tape, band(3000, 11000, 1.0), 0.012) * burst(tape, 0.012, 0.0005, 0.012)
    gap, count = tape.between(0.055, 0.16), int(tape.rng.integers(2, 6))
    strikes = []
    for time in onsets(tape, gap, 0.15, group=(count, count + 1), rest=tape.between(0.25, 0.6)):
        ding = modes(tape, 0.7, pair, np.tile(decays, 2), np.tile(levels, 2) * tape.rng.uniform(0.4, 1.0, 6))
        loud = tape.between(0.4, 1.0)
        strikes += [(time, loud * ding), (time, loud * tape.between(0.5, 1.5) * tick)]
    return place(tape, strikes)


def telephone_bell(tape: Mixdown) -> Array:
    """An old telephone: one clapper between two gongs, 18 to 28 strikes a second, on and off."""
    low = tape.log_between(750, 1500)
    gongs = [low, low * tape.between(1.1, 1.35)]
    bowls = [gong * np.array([1, 2.05, 2.9, 4.3, 6.1]) * tape.rng.uniform(0.96, 1.04, 5) for gong in gongs]
    decays = tape.between(0.15, 0.5) / np.array([1, 1.2, 1.6, 2.2, 3])
    levels = np.array([1, 0.7, 0.7, 0.5, 0.3]) * tape.rng.uniform(0.5, 1.0, 5)
    clack = noise(tape, band(1500, 9000, 1.0), 0.008) * burst(tape, 0.008, 0.0005, 0.01) * tape.between(0.2, 0.6)
    period = 1 / tape.between(18, 28)
    ring = int(tape.between(0.4, 1.4) / period)
    events = []
    for i, time in enumerate(onsets(tape, period, 0.03, group=(ring, ring + 1), rest=tape.between(0.15, 0.4))):
        strike = modes(tape, 0.3, bowls[i % 2], decays, levels * tape.rng.uniform(0.6, 1.0, 5))
        events += [(time, strike), (time, clack)]
    return place(tape, events)


def train_horn(tape: Mixdown) -> Array:
    """A chord of three to five air horns between 230 and 700 Hz in long blasts, with a slow start."""
    chord = tape.log_between(230, 330) * np.array([1, 1.19, 1.335, 1.59, 2.0])
    chosen = np.sort(tape.rng.choice(5, size=tape.rng.integers(3, 6), replace=False))
    blast, gap = tape.between(0.5, 1.6), tape.between(0.08, 0.25)
    times = tape.control_times
    loudness, bend, now = np.zeros_like(times), np.zeros_like(times), tape.between(0, 0.06)
    while now < tape.seconds:
        length = blast * tape.between(0.6, 1.3)
        inside = (times >= now) & (times < now + length)
        since = times[inside] - now
        loudness[inside] = np.minimum(since / 0.06, 1) * np.minimum((length - since) / 0.1, 1)
        bend[inside] = -tape.between(0.02, 0.08) * np.exp(-since / 0.05)  # the reeds start flat
        now += length + gap
    k = np.arange(1, 40)
    brightness = tape.between(0.5, 0.95)
    out = noise(tape, band(800, 6000, 1.0)) * tape.log_between(0.05, 0.2)
    for ratio in chord[chosen]:
        f0 = samples(tape, ratio * tape.between(0.99, 1.01) * np.exp(bend + 0.002 * wander(tape, 20)))
        roll_off = np.exp(-k * ratio / tape.between(2200, 4500))
        weights = k**-brightness * roll_off * np.exp(2j * np.pi * tape.rng.random(len(k)))
        out += harmonics(tape, f0, weights)
    return out * samples(tape, loudness)
