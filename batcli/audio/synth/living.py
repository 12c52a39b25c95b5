"""Synthesise people and animals."""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import (
    Array,
    SynthContext,
    band,
    envelope,
    event_span,
    formants,
    harmonics,
    mix,
    modes,
    noise,
    onsets,
    percussive,
    repeat_to_fill,
    slow_noise,
    upsample,
    voice,
)

# First three formants (Hz) of a man's vowels, after Peterson and Barney (1952).
VOWELS = np.array(
    [
        (270, 2290, 3010),  # heed
        (390, 1990, 2550),  # hid
        (530, 1840, 2480),  # head
        (660, 1720, 2410),  # had
        (730, 1090, 2440),  # hod
        (570, 840, 2410),  # hawed
        (440, 1020, 2240),  # hood
        (300, 870, 2240),  # who'd
        (640, 1190, 2390),  # hud
        (490, 1350, 1690),  # heard
    ]
)
# Noise of consonants: low and high edge in Hz, relative level, seconds.
CONSONANTS = np.array(
    [
        (4500, 9500, 0.50, 0.10),  # s
        (2200, 6500, 0.50, 0.10),  # sh
        (1500, 9000, 0.14, 0.08),  # f, th
        (900, 3500, 0.40, 0.022),  # k
        (2800, 8000, 0.45, 0.018),  # t
        (300, 1500, 0.40, 0.012),  # p, b
    ]
)


def speech(ctx: SynthContext) -> Array:
    """Syllables, 3.5 to 6.5 a second, in phrases: moving formants, falling intonation, consonants."""
    times = ctx.control_times
    woman = ctx.chance(0.5)
    pitch = ctx.log_uniform(160, 260) if woman else ctx.log_uniform(85, 150)
    tract = ctx.uniform(1.08, 1.25) if woman else ctx.uniform(0.92, 1.08)
    per_second, liveliness = ctx.uniform(3.5, 6.5), ctx.uniform(0.04, 0.16)
    knots, targets, blows = [0.0], [VOWELS[ctx.rng.integers(10)]], []
    loudness, melody = np.zeros_like(times), np.zeros_like(times)
    starts = onsets(ctx, 1 / per_second, 0.3, group=(5, 12), rest=ctx.uniform(0.12, 0.35))
    level = 0.0
    for i, start in enumerate(starts):
        following = starts[i + 1] if i + 1 < len(starts) else start + 1 / per_second
        length = min(following - start, 1.4 / per_second)
        consonant = 0.0
        if ctx.chance(0.75):
            low, high, loud, consonant = CONSONANTS[ctx.rng.integers(len(CONSONANTS))] * ctx.rng.uniform(0.8, 1.2, 4)
            hiss = noise(ctx, band(low, high, 3.0), consonant) * loud
            blows.append((start, hiss * percussive(ctx, consonant, 0.15 * consonant, 3 * consonant)))
        vowel = max(length - consonant, 0.05)
        where, u = event_span(ctx, start + consonant, vowel)
        held = 0.35 if length == following - start else 0.0  # within a phrase the voice does not stop
        shape = envelope(u, ctx.uniform(0.15, 0.4), ctx.uniform(0.3, 0.6))
        loudness[where] = ctx.uniform(0.5, 1.0) * np.maximum(shape, held * (u > 0.5))
        # The line falls within a phrase and starts anew after a pause.
        level = ctx.uniform(0.05, 0.25) if i and length < following - start else level - ctx.uniform(0.0, 0.05)
        melody[where] = level + ctx.uniform(-1, 1) * liveliness * u
        a, b = VOWELS[ctx.rng.integers(10, size=2)]
        knots += [start + consonant + 0.3 * vowel, start + consonant + 0.8 * vowel]
        targets += [a, b if ctx.chance(0.35) else a]  # some vowels are diphthongs
    curves = [np.interp(times, knots, tract * np.array(targets)[:, i]) for i in range(3)]
    centres: list[Array | float] = [*curves, 3500 * tract, 4700 * tract]
    resonances = formants(ctx, centres, (130, 170, 240, 450, 800), (1, 0.7, 0.45, 0.3, 0.2))
    f0 = pitch * np.exp(melody + 0.02 * slow_noise(ctx, 15))
    voiced = voice(ctx, f0, loudness, ctx.log_uniform(0.04, 0.2), ctx.uniform(0.7, 1.1), resonances)
    return voiced + mix(ctx, blows) * ctx.uniform(0.15, 0.35)


def laughter(ctx: SynthContext) -> Array:
    """Ha-ha-ha: short breathy bursts of one vowel, bouts of falling pitch, a breath drawn in between."""
    times = ctx.control_times
    pitch, tract = ctx.log_uniform(180, 420), ctx.uniform(0.95, 1.3)
    loudness, breath, f0 = np.zeros_like(times), np.full(len(times), 0.1), np.full(len(times), pitch)
    drop, rest = ctx.uniform(0.15, 0.5), ctx.uniform(0.25, 0.45)
    starts = onsets(ctx, 1 / ctx.uniform(4.2, 6.2), 0.08, group=(4, 9), rest=rest)
    voiced_share, bout_start, previous = ctx.uniform(0.45, 0.65), 0.0, -1.0
    breaths = []
    for i, start in enumerate(starts):
        if start - previous > 0.3:
            bout_start = start
            if i:
                low = ctx.uniform(900, 1600)
                gasp = noise(ctx, band(low, 3 * low, 2.0), 0.8 * rest)
                breaths.append((start - 0.9 * rest, gasp * percussive(ctx, 0.8 * rest, 0.5 * rest, 2.0)))
        previous = start
        length = ctx.uniform(0.13, 0.19)
        where, u = event_span(ctx, start, length)
        loudness[where] = ctx.uniform(0.6, 1.0) * envelope(u, 0.25, 0.5) * np.exp(-0.4 * (start - bout_start))
        breath[where] = np.where(u < 1 - voiced_share, 1.6, 0.15)  # the h before each a
        f0[where] = pitch * np.exp(
            -drop * (start - bout_start) + 0.25 * envelope(u, 0.5, 0.5) + ctx.uniform(-0.04, 0.04)
        )
    vowel = VOWELS[ctx.rng.choice([2, 3, 4, 8])] * tract
    resonances = formants(ctx, [*vowel, 3600 * tract, 6500], (220, 260, 350, 600, 4000), (1, 0.7, 0.4, 0.25, 0.12))
    laugh = voice(ctx, f0 * np.exp(0.02 * slow_noise(ctx, 20)), loudness, breath, ctx.uniform(0.6, 1.0), resonances)
    return laugh + mix(ctx, breaths) * ctx.uniform(0.03, 0.1)


def baby_cry(ctx: SynthContext) -> Array:
    """Wails of 0.5 to 1.1 s on an arch of pitch near 450 Hz, rough at their height, a gasp after each."""
    times = ctx.control_times
    pitch, tract = ctx.log_uniform(340, 560), ctx.uniform(1.45, 1.8)
    loudness, f0 = np.zeros_like(times), np.full(len(times), pitch)
    rise, roughness, opening = ctx.uniform(0.15, 0.4), ctx.uniform(0.03, 0.12), np.zeros_like(times)
    gap, gasps = ctx.uniform(0.12, 0.3), []
    for start, length in repeat_to_fill(ctx, lambda: (ctx.uniform(0.5, 1.1), gap * ctx.uniform(0.8, 1.2))):
        where, u = event_span(ctx, start, length)
        loudness[where] = envelope(u, ctx.uniform(0.1, 0.25), ctx.uniform(0.2, 0.5))
        f0[where] = pitch * np.exp(rise * np.sin(np.pi * u ** ctx.uniform(0.5, 0.9)) - ctx.uniform(0.05, 0.3) * u)
        opening[where] = np.sin(np.pi * u)
        low = ctx.uniform(1000, 2000)
        gasp = noise(ctx, band(low, 2.5 * low, 2.0), 0.8 * gap) * percussive(ctx, 0.8 * gap, 0.6 * gap, 0.6)
        gasps.append((start + length, gasp))
    f0 = f0 * np.exp(0.012 * np.sin(2 * np.pi * ctx.uniform(4, 8) * times) + roughness * 0.3 * slow_noise(ctx, 60))
    resonances = formants(
        ctx,
        [tract * (450 + 350 * opening), tract * 1250, tract * 2300, 5200],
        (400, 450, 600, 1400),
        (1, 0.8, 0.5, 0.2),
    )
    cry = voice(ctx, f0, loudness, ctx.uniform(0.08, 0.3), ctx.uniform(0.2, 0.6), resonances)
    return cry + mix(ctx, gasps) * ctx.uniform(0.02, 0.08)


def whistling(ctx: SynthContext) -> Array:
    """A tune whistled with the lips: nearly one partial that glides and trembles, and blown air."""
    times = ctx.control_times
    key = ctx.log_uniform(800, 1700)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    step, loudness, knots, notes = int(ctx.rng.integers(8)), np.zeros_like(times), [], []
    tempo = ctx.uniform(0.16, 0.45)
    for start, length in repeat_to_fill(ctx, lambda: (tempo * ctx.rng.choice([1, 1, 2]), ctx.uniform(0.01, 0.06))):
        step = int(np.clip(step + ctx.rng.integers(-3, 4), 0, 7))
        glide = min(0.08, 0.4 * length)
        knots += [start + glide, start + length]
        notes += 2 * [scale[step] / 12 * np.log(2)]
        where, u = event_span(ctx, start, length)
        loudness[where] = ctx.uniform(0.6, 1.0) * envelope(u, 0.25, 0.3)
    vibrato = ctx.uniform(0, 0.02) * np.sin(2 * np.pi * ctx.uniform(4.5, 7) * times)
    f0 = upsample(ctx, key * np.exp(np.interp(times, knots, notes) + vibrato + 0.006 * slow_noise(ctx, 30)))
    tone = harmonics(ctx, f0, [1, ctx.uniform(0.02, 0.12), ctx.uniform(0.01, 0.06), 0.01])
    air = noise(ctx, band(0.8 * key, 7000, 1.5)) * ctx.log_uniform(0.04, 0.15)
    return (tone + air) * upsample(ctx, loudness)


def clapping(ctx: SynthContext) -> Array:
    """One to three people: hollow hands resonate near 1 kHz, flat ones higher; no two claps alike."""
    claps = []
    for _ in range(ctx.rng.integers(1, 4)):
        hollow, width = ctx.log_uniform(700, 2200), ctx.uniform(0.25, 0.6)
        loud, decay = ctx.uniform(0.4, 1.0), ctx.uniform(0.03, 0.09)
        for time in onsets(ctx, 1 / ctx.uniform(2.5, 5.0), 0.07):
            centre = hollow * ctx.uniform(0.85, 1.18)
            body = noise(ctx, band(centre * (1 - width), centre * (1 + width), 2.5), 0.15)
            air = noise(ctx, band(2000, 9000, 1.0), 0.15) * ctx.uniform(0.2, 0.5)
            shape = percussive(ctx, 0.15, 0.001, decay * ctx.uniform(0.8, 1.25))
            claps.append((time, loud * ctx.uniform(0.6, 1.0) * (body + air * shape) * shape))
    return mix(ctx, claps)


def footsteps(ctx: SynthContext) -> Array:
    """A heel that thuds and a sole that follows, on wood, stone or gravel."""
    pace = ctx.uniform(1.6, 2.6)
    boards = ctx.log_uniform(70, 160) * np.array([1, 1.7, 2.6, 4.1])
    hardness, grit = ctx.uniform(0.1, 0.9), ctx.uniform(0.2, 1.2)
    heel_edge, sole_edge = ctx.log_uniform(500, 2500), ctx.log_uniform(900, 3000)
    roll, sole, gravel = ctx.uniform(0.07, 0.14), ctx.uniform(0.05, 0.13), ctx.uniform(0, 8)
    steps = []
    for i, time in enumerate(onsets(ctx, 1 / pace, 0.05)):
        foot = 1.0 + 0.12 * (-1) ** i * hardness  # left and right shoes differ a little
        thud = modes(ctx, 0.2, boards * foot * ctx.uniform(0.95, 1.05), ctx.uniform(0.08, 0.18), [1, 0.7, 0.5, 0.3])
        click = noise(ctx, band(heel_edge, 3 * heel_edge, 2.0), 0.06) * percussive(ctx, 0.06, 0.001, 0.05) * hardness
        scrape = noise(ctx, band(sole_edge, 3 * sole_edge, 1.5), sole) * grit
        # Gravel crunches grain by grain, a smooth floor hisses.
        grains = np.repeat(ctx.rng.random(len(scrape) // 40 + 1), 40)[: len(scrape)] ** gravel
        crumbs = grains * envelope(np.linspace(0, 1, len(scrape)), 0.3, 0.6)
        loud = ctx.uniform(0.7, 1.0)
        steps += [(time, loud * thud), (time, loud * click), (time + roll, loud * scrape * crumbs)]
    return mix(ctx, steps)


def bark(ctx: SynthContext) -> Array:
    """Bursts of 0.1 to 0.25 s: a rough voice whose pitch jumps up and falls, in ones to fours."""
    times = ctx.control_times
    pitch = ctx.log_uniform(260, 750)  # a mastiff to a terrier
    size = (pitch / 450) ** 0.4
    loudness, f0, opening = np.zeros_like(times), np.full(len(times), pitch), np.zeros_like(times)
    fall, period = ctx.uniform(0.5, 1.1), ctx.uniform(0.26, 0.45)
    for start in onsets(ctx, period, 0.12, group=(1, 4), rest=ctx.uniform(0.1, 0.35)):
        length = ctx.uniform(0.11, 0.16) * ctx.uniform(0.9, 1.4)
        where, u = event_span(ctx, start, length)
        loudness[where] = ctx.uniform(0.7, 1.0) * np.minimum(u / 0.08, 1) * (1 - u) ** 1.3
        f0[where] = pitch * ctx.uniform(0.92, 1.08) * np.exp(0.25 * np.minimum(u / 0.15, 1) - fall * u)
        opening[where] = np.sin(np.pi * u**0.7)
    growl = 1 + 0.5 * ctx.uniform(0, 1) * slow_noise(ctx, 120)
    resonances = formants(
        ctx,
        [size * (500 + 500 * opening), size * (1250 + 400 * opening), size * 2700, size * 4300, 7500],
        (400, 600, 900, 1500, 5000),
        (1, 0.8, 0.4, 0.2, ctx.uniform(0.06, 0.2)),
    )
    return voice(ctx, f0, loudness * growl, ctx.uniform(0.25, 0.7), ctx.uniform(0.4, 0.8), resonances)


def meow(ctx: SynthContext) -> Array:
    """One vowel after the other, i-a-u: the mouth opens and closes while the pitch rises and sinks."""
    times = ctx.control_times
    pitch = ctx.log_uniform(420, 800)
    loudness, f0, mouth = np.zeros_like(times), np.full(len(times), pitch), np.zeros_like(times)
    gap = ctx.uniform(0.05, 0.3)
    peak, rise = ctx.uniform(0.25, 0.5), ctx.uniform(0.1, 0.35)
    for start, length in repeat_to_fill(ctx, lambda: (ctx.uniform(0.35, 0.85), gap * ctx.uniform(0.7, 1.3))):
        where, u = event_span(ctx, start, length)
        loudness[where] = ctx.uniform(0.7, 1.0) * envelope(u, 0.3, 0.6)
        hill = np.where(u < peak, 1 - 1.6 * (1 - u / peak) ** 2, 1 - 2.2 * ((u - peak) / (1 - peak)) ** 2)
        f0[where] = pitch * np.exp(rise * hill + ctx.uniform(-0.05, 0.05))
        mouth[where] = u
    curves = [
        np.interp(mouth, [0, 0.2, 0.5, 1], np.array(f) * ctx.uniform(0.9, 1.1))
        for f in ([450, 800, 1250, 600], [3000, 2700, 1900, 1000], [4200, 3900, 3500, 3200])
    ]
    resonances = formants(ctx, [*curves, 6000], (280, 350, 700, 3000), (1, 0.9, 0.3, 0.06))
    f0 = f0 * np.exp(0.008 * np.sin(2 * np.pi * ctx.uniform(6, 12) * times) + 0.006 * slow_noise(ctx, 30))
    return voice(ctx, f0, loudness, ctx.uniform(0.03, 0.15), ctx.uniform(0.5, 0.9), resonances)


def chirp(ctx: SynthContext) -> Array:
    """A songbird: a motif of short sweeps between 2 and 7 kHz, sung again and again, and answered."""
    singers = []
    for _ in range(ctx.rng.integers(1, 3)):
        times = ctx.control_times
        centre = ctx.log_uniform(2600, 5200)
        motif = [
            (ctx.uniform(0.03, 0.13), ctx.uniform(-0.35, 0.35), ctx.uniform(-0.3, 0.3), ctx.uniform(-0.12, 0.12))
            for _ in range(ctx.rng.integers(1, 4))
        ]
        trill_rate, trill = ctx.uniform(20, 45), ctx.uniform(0, 0.08) * ctx.chance(0.5)
        loudness, f0 = np.zeros_like(times), np.full(len(times), centre)
        now = ctx.uniform(0, 0.1)
        while now < ctx.seconds:
            for length, sweep, offset, bend in motif:
                where, u = event_span(ctx, now, length * ctx.uniform(0.95, 1.05))
                loudness[where] = ctx.uniform(0.6, 1.0) * envelope(u, 0.3, 0.4)
                line = offset + sweep * (u - 0.5) + bend * np.sin(np.pi * u)
                f0[where] = centre * np.exp(line + trill * np.sin(2 * np.pi * trill_rate * u * length))
                now += length + ctx.uniform(0.015, 0.05)
            now += ctx.uniform(0.03, 0.22)
        f0 = upsample(ctx, f0 * np.exp(0.004 * slow_noise(ctx, 100)))
        tone = harmonics(ctx, f0, [1, ctx.uniform(0.05, 0.3), ctx.uniform(0.01, 0.1)])
        # The breath behind the note is what makes it a bird and no synthesiser.
        tone += noise(ctx, band(1000, 9000, 1.0)) * ctx.log_uniform(0.06, 0.2)
        singers.append(ctx.uniform(0.4, 1.0) * tone * upsample(ctx, loudness))
    return np.sum(singers, axis=0)


def cricket(ctx: SynthContext) -> Array:
    """Wings rubbed 25 to 60 times a second near 4.5 kHz, in chirps of a few strokes or in one long trill."""
    strokes, chirps = ctx.uniform(25, 60), ctx.uniform(2.0, 5.5)
    duty = ctx.uniform(0.4, 0.65) if ctx.chance(0.75) else 1.0
    times = np.arange(ctx.n) / ctx.rate
    drift = upsample(ctx, 0.03 * slow_noise(ctx, 3))
    in_chirp = (times * chirps * (1 + drift) + ctx.rng.random()) % 1.0 / duty
    stroke = (times * strokes + ctx.rng.random()) % 1.0
    chirp_shape = np.where(in_chirp < 1, 0.4 + 0.6 * np.sin(np.pi * np.minimum(in_chirp, 1)), 0.0)
    if duty == 1.0:
        chirp_shape = np.ones_like(times)
    closing = np.sin(np.pi * np.minimum(stroke / ctx.uniform(0.5, 0.8), 1))  # only the closing stroke sounds
    centre = ctx.log_uniform(3300, 6200)
    pitch = centre * (1 + 0.02 * closing + upsample(ctx, 0.004 * slow_noise(ctx, 40)))
    tone = harmonics(ctx, pitch, [1, ctx.uniform(0.03, 0.2), ctx.uniform(0.01, 0.08)])
    rasp = noise(ctx, band(0.6 * centre, 1.6 * centre, 2.0)) * ctx.uniform(0.15, 0.5)
    return (tone + rasp) * closing**1.5 * chirp_shape


def frog(ctx: SynthContext) -> Array:
    """Croaks of 0.12 to 0.4 s: 25 to 90 pulses a second through two resonances of the vocal sac."""
    times = ctx.control_times
    low = ctx.log_uniform(450, 1100)
    high = low * ctx.uniform(1.8, 2.6)
    loudness, rate = np.zeros_like(times), ctx.log_uniform(28, 85)
    f0, bend = np.full(len(times), rate), ctx.uniform(-0.3, 0.5)
    croak, gap = ctx.uniform(0.14, 0.42), ctx.uniform(0.08, 0.3)
    for start, length in repeat_to_fill(ctx, lambda: (croak * ctx.uniform(0.85, 1.15), gap * ctx.uniform(0.7, 1.3))):
        where, u = event_span(ctx, start, length)
        loudness[where] = ctx.uniform(0.7, 1.0) * envelope(u, ctx.uniform(0.2, 0.6), 0.25)
        f0[where] = rate * np.exp(bend * u)
    glide = 1 + 0.12 * bend * loudness
    resonances = formants(ctx, [low * glide, high * glide, 5000], (150, 260, 5000), (1, 0.7, 0.1))
    f0 = f0 * np.exp(0.03 * slow_noise(ctx, 30))
    return voice(ctx, f0, loudness, ctx.uniform(0.03, 0.15), 0.15, resonances)
