"""Synthesise instruments, bells and horns.

Each public function draws its parameters from `synth.rng` and returns a mono sound (synth.n,) at any level, which
`synthesise` in this package brings to the level and colour of a recording.
"""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import Array, Synthesizer, band

# Partials of a tuned church bell, prime = 1: hum, prime, tierce, quint, nominal, and those above it.
CHURCH_BELL = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.33, 6.67, 8.0])
# A small bowl struck on its rim: the ratios of its first bending modes, about (m² − 1)·m/√(m² + 1).
BOWL = np.array([1.0, 2.8, 5.2, 8.3])

CHURCH_BELL_LEVELS = np.array([0.6, 0.8, 0.9, 0.4, 1.0, 0.5, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2])
CHORDS = ((0, 4, 7, 12, 16), (0, 3, 7, 12, 15), (0, 5, 9, 12, 17), (0, 4, 7, 10, 12), (0, 7, 12, 16, 19))


def acoustic_guitar(synth: Synthesizer) -> Array:
    """Strummed chords or picked strings: a comb from the place of the pluck, the body's two resonances."""
    root, pluck = synth.log_uniform(82, 165), synth.uniform(0.1, 0.3)
    ring, brightness = synth.uniform(0.5, 1.6), synth.uniform(0.8, 1.5)
    strummed = synth.chance(0.6)
    body = synth.noise(band(90, 260, 2.0), 0.12) * synth.percussive(0.12, 0.001, 0.15)
    k = np.arange(1, 23)
    comb = np.abs(np.sin(np.pi * k * pluck)) / k**brightness
    events, transposed, chord = [], 0, CHORDS[0]
    period = 1 / (synth.uniform(2.2, 4.5) if strummed else synth.uniform(3.5, 8))
    length = min(0.7 * ring, 1.4 * period) if strummed else 0.7 * ring  # the next strum stops the strings
    for i, time in enumerate(synth.onsets(period, 0.08)):
        if i % 4 == 0:
            transposed, chord = int(synth.rng.choice([0, 2, 5, 7])), CHORDS[synth.rng.integers(len(CHORDS))]
        strings = chord if strummed else [chord[synth.rng.integers(len(chord))] + 12 * synth.chance(0.3)]
        delay = synth.uniform(0.006, 0.022)
        for j, step in enumerate(strings if synth.chance(0.6) else strings[::-1]):
            f0 = root * 2 ** ((step + transposed) / 12) * synth.uniform(0.998, 1.002)
            decays = ring / (1 + 0.06 * k + (f0 * k / 4000) ** 1.5)
            note = synth.modes(min(length, synth.seconds - time), f0 * k * np.sqrt(1 + 4e-5 * k**2), decays, comb)
            pick = synth.noise(band(1500, 7000, 1.5), 0.02) * synth.percussive(0.02, 0.001, 0.02)
            loud = synth.uniform(0.6, 1.0)
            start = time + j * delay
            events += [(start, loud * note), (start, loud * synth.uniform(0.2, 0.5) * pick)]
        events.append((time, synth.uniform(0.1, 0.3) * body))
    return synth.mix(events)


def piano(synth: Synthesizer) -> Array:
    """Hammered strings: stretched partials in beating pairs, a thump of the hammer, chords or runs."""
    events = []
    k = np.arange(1, 15)
    centre, softness, hold = synth.log_uniform(180, 700), synth.uniform(0.08, 0.3), synth.uniform(0.8, 2.2)
    thump = synth.noise(band(80, synth.log_uniform(800, 3000), 1.0), 0.08) * synth.percussive(0.08, 0.002, 0.09)
    voices = int(synth.rng.integers(1, 4))
    degrees = np.array([0, 2, 4, 5, 7, 9, 11]) if synth.chance(0.6) else np.array([0, 2, 3, 5, 7, 8, 10])
    place_in_scale = 0
    for time in synth.onsets(1 / synth.uniform(2.0, 6.0), 0.06):
        place_in_scale = int(np.clip(place_in_scale + synth.rng.integers(-3, 4), -9, 9))
        for j in range(voices if synth.chance(0.5) else 1):
            octave, degree = divmod(place_in_scale + 2 * j, 7)
            f0 = centre * 2 ** (octave + degrees[degree] / 12)
            partials = f0 * k * np.sqrt(1 + 2.5e-4 * (f0 / 262) * k**2)
            amplitudes = np.exp(-softness * (k - 1)) * np.abs(np.sin(np.pi * k / 8.3)) * np.exp(-partials / 9000)
            decays = hold * (262 / f0) ** 0.5 / (1 + 0.12 * k)
            second = slice(0, 4)  # a second string, hardly out of tune: heard in the lowest partials
            partials = np.append(partials, partials[second] * (1 + synth.uniform(3e-4, 2e-3)))
            amplitudes, decays = np.append(amplitudes, 0.6 * amplitudes[second]), np.append(decays, decays[second])
            note = synth.modes(min(0.8 * hold, synth.seconds - time), partials, decays, amplitudes)
            loud = synth.uniform(0.4, 1.0)
            events += [(time, loud * note), (time, 0.25 * loud * thump)]
    return synth.mix(events)


def snare_drum(synth: Synthesizer) -> Array:
    """Beats, flams and rolls: a head at 160 to 320 Hz and the rattle of the wires under it."""
    head = synth.log_uniform(160, 320) * np.array([1, 1.59, 2.14, 2.3])
    wires, rattle = synth.log_uniform(1200, 3000), synth.uniform(0.12, 0.32)
    beat, balance = synth.uniform(0.11, 0.3), synth.uniform(0.6, 1.4)
    roll = synth.chance(0.35)
    hits = []
    for i, time in enumerate(synth.onsets(synth.uniform(0.035, 0.06) if roll else beat, 0.06)):
        loud = synth.uniform(0.25, 0.5) if roll else (1.0 if i % 4 == 0 else synth.uniform(0.2, 0.9))
        drum = synth.modes(0.25, head * synth.uniform(0.99, 1.01), synth.uniform(0.1, 0.22), [1, 0.6, 0.4, 0.3])
        rattling = synth.noise(band(wires, 9500, 1.5), 0.3) * synth.percussive(
            0.3, 0.001, rattle * synth.uniform(0.8, 1.2)
        )
        stick = synth.noise(band(2500, 10000, 1.0), 0.01) * synth.percussive(0.01, 0.0005, 0.01)
        hits += [(time, loud * balance * drum), (time, loud * rattling), (time, loud * synth.uniform(0.3, 0.8) * stick)]
    return synth.mix(hits)


def church_bell(synth: Synthesizer) -> Array:
    """One or two swinging bells: partials that belong to no harmonic series, each in a beating pair."""
    strikes = []
    for _ in range(synth.rng.integers(1, 3)):
        prime = synth.log_uniform(160, 520)
        partials = prime * CHURCH_BELL * synth.rng.uniform(0.99, 1.01, len(CHURCH_BELL))
        levels = synth.rng.uniform(0.3, 1.0, len(partials)) * CHURCH_BELL_LEVELS
        decays = synth.uniform(4, 9) / (1 + CHURCH_BELL)
        pair = np.concatenate([partials, partials * synth.rng.uniform(1.0005, 1.004, len(partials))])
        clapper = synth.noise(band(1500, 8000, 1.0), 0.05) * synth.percussive(0.05, 0.001, 0.05)
        for time in synth.onsets(synth.uniform(0.45, 1.1), 0.06):
            loud = synth.uniform(0.7, 1.0)
            hard = CHURCH_BELL ** synth.uniform(-0.4, 0.2)  # no two blows of the clapper are alike
            bell = synth.modes(min(3.0, synth.seconds - time), pair, np.tile(decays, 2), np.tile(levels * hard, 2))
            strikes += [(time, loud * bell), (time, loud * synth.uniform(0.3, 0.9) * clapper)]
    return synth.mix(strikes)


def bicycle_bell(synth: Synthesizer) -> Array:
    """A thumb lever: two or more quick strikes on a small bowl near 2.5 kHz, then it rings on."""
    low = synth.log_uniform(1700, 3100)
    partials = low * BOWL[:3] * synth.rng.uniform(0.93, 1.07, 3)
    pair = np.concatenate([partials, partials * synth.rng.uniform(1.003, 1.012, 3)])
    decays, levels = synth.uniform(0.35, 1.3) / np.array([1, 1.8, 3.2]), np.array([1, synth.uniform(0.3, 0.9), 0.4])
    tick = synth.noise(band(3000, 11000, 1.0), 0.012) * synth.percussive(0.012, 0.0005, 0.012)
    gap, count = synth.uniform(0.055, 0.16), int(synth.rng.integers(2, 6))
    strikes = []
    for time in synth.onsets(gap, 0.15, group=(count, count + 1), rest=synth.uniform(0.25, 0.6)):
        ding = synth.modes(0.7, pair, np.tile(decays, 2), np.tile(levels, 2) * synth.rng.uniform(0.4, 1.0, 6))
        loud = synth.uniform(0.4, 1.0)
        strikes += [(time, loud * ding), (time, loud * synth.uniform(0.5, 1.5) * tick)]
    return synth.mix(strikes)


def telephone_bell(synth: Synthesizer) -> Array:
    """An old telephone: one clapper between two gongs, 18 to 28 strikes a second, on and off."""
    low = synth.log_uniform(750, 1500)
    gongs = [low, low * synth.uniform(1.1, 1.35)]
    bowls = [gong * np.array([1, 2.05, 2.9, 4.3, 6.1]) * synth.rng.uniform(0.96, 1.04, 5) for gong in gongs]
    decays = synth.uniform(0.15, 0.5) / np.array([1, 1.2, 1.6, 2.2, 3])
    levels = np.array([1, 0.7, 0.7, 0.5, 0.3]) * synth.rng.uniform(0.5, 1.0, 5)
    clack = synth.noise(band(1500, 9000, 1.0), 0.008) * synth.percussive(0.008, 0.0005, 0.01) * synth.uniform(0.2, 0.6)
    period = 1 / synth.uniform(18, 28)
    ring = int(synth.uniform(0.4, 1.4) / period)
    events = []
    for i, time in enumerate(synth.onsets(period, 0.03, group=(ring, ring + 1), rest=synth.uniform(0.15, 0.4))):
        strike = synth.modes(0.3, bowls[i % 2], decays, levels * synth.rng.uniform(0.6, 1.0, 5))
        events += [(time, strike), (time, clack)]
    return synth.mix(events)


def train_horn(synth: Synthesizer) -> Array:
    """A chord of three to five air horns between 230 and 700 Hz in long blasts, with a slow start."""
    chord = synth.log_uniform(230, 330) * np.array([1, 1.19, 1.335, 1.59, 2.0])
    chosen = np.sort(synth.rng.choice(5, size=synth.rng.integers(3, 6), replace=False))
    blast, gap = synth.uniform(0.5, 1.6), synth.uniform(0.08, 0.25)
    times = synth.control_times
    loudness, bend, now = np.zeros_like(times), np.zeros_like(times), synth.uniform(0, 0.06)
    while now < synth.seconds:
        length = blast * synth.uniform(0.6, 1.3)
        inside = (times >= now) & (times < now + length)
        since = times[inside] - now
        loudness[inside] = np.minimum(since / 0.06, 1) * np.minimum((length - since) / 0.1, 1)
        bend[inside] = -synth.uniform(0.02, 0.08) * np.exp(-since / 0.05)  # the reeds start flat
        now += length + gap
    k = np.arange(1, 40)
    brightness = synth.uniform(0.5, 0.95)
    out = synth.noise(band(800, 6000, 1.0)) * synth.log_uniform(0.05, 0.2)
    for ratio in chord[chosen]:
        f0 = synth.upsample(ratio * synth.uniform(0.99, 1.01) * np.exp(bend + 0.002 * synth.slow_noise(20)))
        roll_off = np.exp(-k * ratio / synth.uniform(2200, 4500))
        weights = k**-brightness * roll_off * np.exp(2j * np.pi * synth.rng.random(len(k)))
        out += synth.harmonics(f0, weights)
    return out * synth.upsample(loudness)
