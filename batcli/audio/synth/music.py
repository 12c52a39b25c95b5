"""Synthesise instruments, bells and horns."""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import (
    Array,
    SynthContext,
    band,
    harmonics,
    mix,
    modes,
    noise,
    onsets,
    percussive,
    slow_noise,
    upsample,
)

# Partials of a tuned church bell, prime = 1: hum, prime, tierce, quint, nominal, and those above it.
CHURCH_BELL = np.array([0.5, 1.0, 1.2, 1.5, 2.0, 2.5, 2.67, 3.0, 4.0, 5.33, 6.67, 8.0])
# A small bowl struck on its rim: the ratios of its first bending modes, about (m² − 1)·m/√(m² + 1).
BOWL = np.array([1.0, 2.8, 5.2, 8.3])

CHURCH_BELL_LEVELS = np.array([0.6, 0.8, 0.9, 0.4, 1.0, 0.5, 0.5, 0.6, 0.5, 0.4, 0.3, 0.2])
CHORDS = ((0, 4, 7, 12, 16), (0, 3, 7, 12, 15), (0, 5, 9, 12, 17), (0, 4, 7, 10, 12), (0, 7, 12, 16, 19))


def acoustic_guitar(ctx: SynthContext) -> Array:
    """Strummed chords or picked strings: a comb from the place of the pluck, the body's two resonances."""
    root, pluck = ctx.log_uniform(82, 165), ctx.uniform(0.1, 0.3)
    ring, brightness = ctx.uniform(0.5, 1.6), ctx.uniform(0.8, 1.5)
    strummed = ctx.chance(0.6)
    body = noise(ctx, band(90, 260, 2.0), 0.12) * percussive(ctx, 0.12, 0.001, 0.15)
    k = np.arange(1, 23)
    comb = np.abs(np.sin(np.pi * k * pluck)) / k**brightness
    events, transposed, chord = [], 0, CHORDS[0]
    period = 1 / (ctx.uniform(2.2, 4.5) if strummed else ctx.uniform(3.5, 8))
    length = min(0.7 * ring, 1.4 * period) if strummed else 0.7 * ring  # the next strum stops the strings
    for i, time in enumerate(onsets(ctx, period, 0.08)):
        if i % 4 == 0:
            transposed, chord = int(ctx.rng.choice([0, 2, 5, 7])), CHORDS[ctx.rng.integers(len(CHORDS))]
        strings = chord if strummed else [chord[ctx.rng.integers(len(chord))] + 12 * ctx.chance(0.3)]
        delay = ctx.uniform(0.006, 0.022)
        for j, step in enumerate(strings if ctx.chance(0.6) else strings[::-1]):
            f0 = root * 2 ** ((step + transposed) / 12) * ctx.uniform(0.998, 1.002)
            decays = ring / (1 + 0.06 * k + (f0 * k / 4000) ** 1.5)
            note = modes(ctx, min(length, ctx.seconds - time), f0 * k * np.sqrt(1 + 4e-5 * k**2), decays, comb)
            pick = noise(ctx, band(1500, 7000, 1.5), 0.02) * percussive(ctx, 0.02, 0.001, 0.02)
            loud = ctx.uniform(0.6, 1.0)
            start = time + j * delay
            events += [(start, loud * note), (start, loud * ctx.uniform(0.2, 0.5) * pick)]
        events.append((time, ctx.uniform(0.1, 0.3) * body))
    return mix(ctx, events)


def piano(ctx: SynthContext) -> Array:
    """Hammered strings: stretched partials in beating pairs, a thump of the hammer, chords or runs."""
    events = []
    k = np.arange(1, 15)
    centre, softness, hold = ctx.log_uniform(180, 700), ctx.uniform(0.08, 0.3), ctx.uniform(0.8, 2.2)
    thump = noise(ctx, band(80, ctx.log_uniform(800, 3000), 1.0), 0.08) * percussive(ctx, 0.08, 0.002, 0.09)
    voices = int(ctx.rng.integers(1, 4))
    degrees = np.array([0, 2, 4, 5, 7, 9, 11]) if ctx.chance(0.6) else np.array([0, 2, 3, 5, 7, 8, 10])
    place_in_scale = 0
    for time in onsets(ctx, 1 / ctx.uniform(2.0, 6.0), 0.06):
        place_in_scale = int(np.clip(place_in_scale + ctx.rng.integers(-3, 4), -9, 9))
        for j in range(voices if ctx.chance(0.5) else 1):
            octave, degree = divmod(place_in_scale + 2 * j, 7)
            f0 = centre * 2 ** (octave + degrees[degree] / 12)
            partials = f0 * k * np.sqrt(1 + 2.5e-4 * (f0 / 262) * k**2)
            amplitudes = np.exp(-softness * (k - 1)) * np.abs(np.sin(np.pi * k / 8.3)) * np.exp(-partials / 9000)
            decays = hold * (262 / f0) ** 0.5 / (1 + 0.12 * k)
            second = slice(0, 4)  # a second string, hardly out of tune: heard in the lowest partials
            partials = np.append(partials, partials[second] * (1 + ctx.uniform(3e-4, 2e-3)))
            amplitudes, decays = np.append(amplitudes, 0.6 * amplitudes[second]), np.append(decays, decays[second])
            note = modes(ctx, min(0.8 * hold, ctx.seconds - time), partials, decays, amplitudes)
            loud = ctx.uniform(0.4, 1.0)
            events += [(time, loud * note), (time, 0.25 * loud * thump)]
    return mix(ctx, events)


def snare_drum(ctx: SynthContext) -> Array:
    """Beats, flams and rolls: a head at 160 to 320 Hz and the rattle of the wires under it."""
    head = ctx.log_uniform(160, 320) * np.array([1, 1.59, 2.14, 2.3])
    wires, rattle = ctx.log_uniform(1200, 3000), ctx.uniform(0.12, 0.32)
    beat, balance = ctx.uniform(0.11, 0.3), ctx.uniform(0.6, 1.4)
    roll = ctx.chance(0.35)
    hits = []
    for i, time in enumerate(onsets(ctx, ctx.uniform(0.035, 0.06) if roll else beat, 0.06)):
        loud = ctx.uniform(0.25, 0.5) if roll else (1.0 if i % 4 == 0 else ctx.uniform(0.2, 0.9))
        drum = modes(ctx, 0.25, head * ctx.uniform(0.99, 1.01), ctx.uniform(0.1, 0.22), [1, 0.6, 0.4, 0.3])
        rattling = noise(ctx, band(wires, 9500, 1.5), 0.3) * percussive(ctx, 0.3, 0.001, rattle * ctx.uniform(0.8, 1.2))
        stick = noise(ctx, band(2500, 10000, 1.0), 0.01) * percussive(ctx, 0.01, 0.0005, 0.01)
        hits += [(time, loud * balance * drum), (time, loud * rattling), (time, loud * ctx.uniform(0.3, 0.8) * stick)]
    return mix(ctx, hits)


def church_bell(ctx: SynthContext) -> Array:
    """One or two swinging bells: partials that belong to no harmonic series, each in a beating pair."""
    strikes = []
    for _ in range(ctx.rng.integers(1, 3)):
        prime = ctx.log_uniform(160, 520)
        partials = prime * CHURCH_BELL * ctx.rng.uniform(0.99, 1.01, len(CHURCH_BELL))
        levels = ctx.rng.uniform(0.3, 1.0, len(partials)) * CHURCH_BELL_LEVELS
        decays = ctx.uniform(4, 9) / (1 + CHURCH_BELL)
        pair = np.concatenate([partials, partials * ctx.rng.uniform(1.0005, 1.004, len(partials))])
        clapper = noise(ctx, band(1500, 8000, 1.0), 0.05) * percussive(ctx, 0.05, 0.001, 0.05)
        for time in onsets(ctx, ctx.uniform(0.45, 1.1), 0.06):
            loud = ctx.uniform(0.7, 1.0)
            hard = CHURCH_BELL ** ctx.uniform(-0.4, 0.2)  # no two blows of the clapper are alike
            bell = modes(ctx, min(3.0, ctx.seconds - time), pair, np.tile(decays, 2), np.tile(levels * hard, 2))
            strikes += [(time, loud * bell), (time, loud * ctx.uniform(0.3, 0.9) * clapper)]
    return mix(ctx, strikes)


def bicycle_bell(ctx: SynthContext) -> Array:
    """A thumb lever: two or more quick strikes on a small bowl near 2.5 kHz, then it rings on."""
    low = ctx.log_uniform(1700, 3100)
    partials = low * BOWL[:3] * ctx.rng.uniform(0.93, 1.07, 3)
    pair = np.concatenate([partials, partials * ctx.rng.uniform(1.003, 1.012, 3)])
    decays, levels = ctx.uniform(0.35, 1.3) / np.array([1, 1.8, 3.2]), np.array([1, ctx.uniform(0.3, 0.9), 0.4])
    tick = noise(ctx, band(3000, 11000, 1.0), 0.012) * percussive(ctx, 0.012, 0.0005, 0.012)
    gap, count = ctx.uniform(0.055, 0.16), int(ctx.rng.integers(2, 6))
    strikes = []
    for time in onsets(ctx, gap, 0.15, group=(count, count + 1), rest=ctx.uniform(0.25, 0.6)):
        ding = modes(ctx, 0.7, pair, np.tile(decays, 2), np.tile(levels, 2) * ctx.rng.uniform(0.4, 1.0, 6))
        loud = ctx.uniform(0.4, 1.0)
        strikes += [(time, loud * ding), (time, loud * ctx.uniform(0.5, 1.5) * tick)]
    return mix(ctx, strikes)


def telephone_bell(ctx: SynthContext) -> Array:
    """An old telephone: one clapper between two gongs, 18 to 28 strikes a second, on and off."""
    low = ctx.log_uniform(750, 1500)
    gongs = [low, low * ctx.uniform(1.1, 1.35)]
    bowls = [gong * np.array([1, 2.05, 2.9, 4.3, 6.1]) * ctx.rng.uniform(0.96, 1.04, 5) for gong in gongs]
    decays = ctx.uniform(0.15, 0.5) / np.array([1, 1.2, 1.6, 2.2, 3])
    levels = np.array([1, 0.7, 0.7, 0.5, 0.3]) * ctx.rng.uniform(0.5, 1.0, 5)
    clack = noise(ctx, band(1500, 9000, 1.0), 0.008) * percussive(ctx, 0.008, 0.0005, 0.01) * ctx.uniform(0.2, 0.6)
    period = 1 / ctx.uniform(18, 28)
    ring = int(ctx.uniform(0.4, 1.4) / period)
    events = []
    for i, time in enumerate(onsets(ctx, period, 0.03, group=(ring, ring + 1), rest=ctx.uniform(0.15, 0.4))):
        strike = modes(ctx, 0.3, bowls[i % 2], decays, levels * ctx.rng.uniform(0.6, 1.0, 5))
        events += [(time, strike), (time, clack)]
    return mix(ctx, events)


def train_horn(ctx: SynthContext) -> Array:
    """A chord of three to five air horns between 230 and 700 Hz in long blasts, with a slow start."""
    chord = ctx.log_uniform(230, 330) * np.array([1, 1.19, 1.335, 1.59, 2.0])
    chosen = np.sort(ctx.rng.choice(5, size=ctx.rng.integers(3, 6), replace=False))
    blast, gap = ctx.uniform(0.5, 1.6), ctx.uniform(0.08, 0.25)
    times = ctx.control_times
    loudness, bend, now = np.zeros_like(times), np.zeros_like(times), ctx.uniform(0, 0.06)
    while now < ctx.seconds:
        length = blast * ctx.uniform(0.6, 1.3)
        inside = (times >= now) & (times < now + length)
        since = times[inside] - now
        loudness[inside] = np.minimum(since / 0.06, 1) * np.minimum((length - since) / 0.1, 1)
        bend[inside] = -ctx.uniform(0.02, 0.08) * np.exp(-since / 0.05)  # the reeds start flat
        now += length + gap
    k = np.arange(1, 40)
    brightness = ctx.uniform(0.5, 0.95)
    out = noise(ctx, band(800, 6000, 1.0)) * ctx.log_uniform(0.05, 0.2)
    for ratio in chord[chosen]:
        f0 = upsample(ctx, ratio * ctx.uniform(0.99, 1.01) * np.exp(bend + 0.002 * slow_noise(ctx, 20)))
        roll_off = np.exp(-k * ratio / ctx.uniform(2200, 4500))
        weights = k**-brightness * roll_off * np.exp(2j * np.pi * ctx.rng.random(len(k)))
        out += harmonics(ctx, f0, weights)
    return out * upsample(ctx, loudness)
