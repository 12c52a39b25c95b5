"""Synthesise people and animals.

Each public function draws its parameters from `synth.rng` and returns a mono sound (synth.n,) at any level, which
`synthesise` in this package brings to the level and colour of a recording.
"""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import Array, Synthesizer, band, envelope

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


def speech(synth: Synthesizer) -> Array:
    """Syllables, 3.5 to 6.5 a second, in phrases: moving formants, falling intonation, consonants."""
    times = synth.control_times
    woman = synth.chance(0.5)
    pitch = synth.log_uniform(160, 260) if woman else synth.log_uniform(85, 150)
    tract = synth.uniform(1.08, 1.25) if woman else synth.uniform(0.92, 1.08)
    per_second, liveliness = synth.uniform(3.5, 6.5), synth.uniform(0.04, 0.16)
    knots, targets, blows = [0.0], [VOWELS[synth.rng.integers(10)]], []
    loudness, melody = np.zeros_like(times), np.zeros_like(times)
    starts = synth.onsets(1 / per_second, 0.3, group=(5, 12), rest=synth.uniform(0.12, 0.35))
    level = 0.0
    for i, start in enumerate(starts):
        following = starts[i + 1] if i + 1 < len(starts) else start + 1 / per_second
        length = min(following - start, 1.4 / per_second)
        consonant = 0.0
        if synth.chance(0.75):
            low, high, loud, consonant = CONSONANTS[synth.rng.integers(len(CONSONANTS))] * synth.rng.uniform(
                0.8, 1.2, 4
            )
            hiss = synth.noise(band(low, high, 3.0), consonant) * loud
            blows.append((start, hiss * synth.percussive(consonant, 0.15 * consonant, 3 * consonant)))
        vowel = max(length - consonant, 0.05)
        where, u = synth.event_span(start + consonant, vowel)
        held = 0.35 if length == following - start else 0.0  # within a phrase the voice does not stop
        shape = envelope(u, synth.uniform(0.15, 0.4), synth.uniform(0.3, 0.6))
        loudness[where] = synth.uniform(0.5, 1.0) * np.maximum(shape, held * (u > 0.5))
        # The line falls within a phrase and starts anew after a pause.
        level = synth.uniform(0.05, 0.25) if i and length < following - start else level - synth.uniform(0.0, 0.05)
        melody[where] = level + synth.uniform(-1, 1) * liveliness * u
        a, b = VOWELS[synth.rng.integers(10, size=2)]
        knots += [start + consonant + 0.3 * vowel, start + consonant + 0.8 * vowel]
        targets += [a, b if synth.chance(0.35) else a]  # some vowels are diphthongs
    curves = [np.interp(times, knots, tract * np.array(targets)[:, i]) for i in range(3)]
    centres: list[Array | float] = [*curves, 3500 * tract, 4700 * tract]
    resonances = synth.formants(centres, (130, 170, 240, 450, 800), (1, 0.7, 0.45, 0.3, 0.2))
    f0 = pitch * np.exp(melody + 0.02 * synth.slow_noise(15))
    voiced = synth.voice(f0, loudness, synth.log_uniform(0.04, 0.2), synth.uniform(0.7, 1.1), resonances)
    return voiced + synth.mix(blows) * synth.uniform(0.15, 0.35)


def laughter(synth: Synthesizer) -> Array:
    """Ha-ha-ha: short breathy bursts of one vowel, bouts of falling pitch, a breath drawn in between."""
    times = synth.control_times
    pitch, tract = synth.log_uniform(180, 420), synth.uniform(0.95, 1.3)
    loudness, breath, f0 = np.zeros_like(times), np.full(len(times), 0.1), np.full(len(times), pitch)
    drop, rest = synth.uniform(0.15, 0.5), synth.uniform(0.25, 0.45)
    starts = synth.onsets(1 / synth.uniform(4.2, 6.2), 0.08, group=(4, 9), rest=rest)
    voiced_share, bout_start, previous = synth.uniform(0.45, 0.65), 0.0, -1.0
    breaths = []
    for i, start in enumerate(starts):
        if start - previous > 0.3:
            bout_start = start
            if i:
                low = synth.uniform(900, 1600)
                gasp = synth.noise(band(low, 3 * low, 2.0), 0.8 * rest)
                breaths.append((start - 0.9 * rest, gasp * synth.percussive(0.8 * rest, 0.5 * rest, 2.0)))
        previous = start
        length = synth.uniform(0.13, 0.19)
        where, u = synth.event_span(start, length)
        loudness[where] = synth.uniform(0.6, 1.0) * envelope(u, 0.25, 0.5) * np.exp(-0.4 * (start - bout_start))
        breath[where] = np.where(u < 1 - voiced_share, 1.6, 0.15)  # the h before each a
        f0[where] = pitch * np.exp(
            -drop * (start - bout_start) + 0.25 * envelope(u, 0.5, 0.5) + synth.uniform(-0.04, 0.04)
        )
    vowel = VOWELS[synth.rng.choice([2, 3, 4, 8])] * tract
    resonances = synth.formants([*vowel, 3600 * tract, 6500], (220, 260, 350, 600, 4000), (1, 0.7, 0.4, 0.25, 0.12))
    laugh = synth.voice(f0 * np.exp(0.02 * synth.slow_noise(20)), loudness, breath, synth.uniform(0.6, 1.0), resonances)
    return laugh + synth.mix(breaths) * synth.uniform(0.03, 0.1)


def baby_cry(synth: Synthesizer) -> Array:
    """Wails of 0.5 to 1.1 s on an arch of pitch near 450 Hz, rough at their height, a gasp after each."""
    times = synth.control_times
    pitch, tract = synth.log_uniform(340, 560), synth.uniform(1.45, 1.8)
    loudness, f0 = np.zeros_like(times), np.full(len(times), pitch)
    rise, roughness, opening = synth.uniform(0.15, 0.4), synth.uniform(0.03, 0.12), np.zeros_like(times)
    gap, gasps = synth.uniform(0.12, 0.3), []
    for start, length in synth.repeat_to_fill(lambda: (synth.uniform(0.5, 1.1), gap * synth.uniform(0.8, 1.2))):
        where, u = synth.event_span(start, length)
        loudness[where] = envelope(u, synth.uniform(0.1, 0.25), synth.uniform(0.2, 0.5))
        f0[where] = pitch * np.exp(rise * np.sin(np.pi * u ** synth.uniform(0.5, 0.9)) - synth.uniform(0.05, 0.3) * u)
        opening[where] = np.sin(np.pi * u)
        low = synth.uniform(1000, 2000)
        gasp = synth.noise(band(low, 2.5 * low, 2.0), 0.8 * gap) * synth.percussive(0.8 * gap, 0.6 * gap, 0.6)
        gasps.append((start + length, gasp))
    f0 = f0 * np.exp(0.012 * np.sin(2 * np.pi * synth.uniform(4, 8) * times) + roughness * 0.3 * synth.slow_noise(60))
    resonances = synth.formants(
        [tract * (450 + 350 * opening), tract * 1250, tract * 2300, 5200],
        (400, 450, 600, 1400),
        (1, 0.8, 0.5, 0.2),
    )
    cry = synth.voice(f0, loudness, synth.uniform(0.08, 0.3), synth.uniform(0.2, 0.6), resonances)
    return cry + synth.mix(gasps) * synth.uniform(0.02, 0.08)


def whistling(synth: Synthesizer) -> Array:
    """A tune whistled with the lips: nearly one partial that glides and trembles, and blown air."""
    times = synth.control_times
    key = synth.log_uniform(800, 1700)
    scale = np.array([0, 2, 4, 5, 7, 9, 11, 12])
    step, loudness, knots, notes = int(synth.rng.integers(8)), np.zeros_like(times), [], []
    tempo = synth.uniform(0.16, 0.45)
    for start, length in synth.repeat_to_fill(lambda: (tempo * synth.rng.choice([1, 1, 2]), synth.uniform(0.01, 0.06))):
        step = int(np.clip(step + synth.rng.integers(-3, 4), 0, 7))
        glide = min(0.08, 0.4 * length)
        knots += [start + glide, start + length]
        notes += 2 * [scale[step] / 12 * np.log(2)]
        where, u = synth.event_span(start, length)
        loudness[where] = synth.uniform(0.6, 1.0) * envelope(u, 0.25, 0.3)
    vibrato = synth.uniform(0, 0.02) * np.sin(2 * np.pi * synth.uniform(4.5, 7) * times)
    f0 = synth.upsample(key * np.exp(np.interp(times, knots, notes) + vibrato + 0.006 * synth.slow_noise(30)))
    tone = synth.harmonics(f0, [1, synth.uniform(0.02, 0.12), synth.uniform(0.01, 0.06), 0.01])
    air = synth.noise(band(0.8 * key, 7000, 1.5)) * synth.log_uniform(0.04, 0.15)
    return (tone + air) * synth.upsample(loudness)


def clapping(synth: Synthesizer) -> Array:
    """One to three people: hollow hands resonate near 1 kHz, flat ones higher; no two claps alike."""
    claps = []
    for _ in range(synth.rng.integers(1, 4)):
        hollow, width = synth.log_uniform(700, 2200), synth.uniform(0.25, 0.6)
        loud, decay = synth.uniform(0.4, 1.0), synth.uniform(0.03, 0.09)
        for time in synth.onsets(1 / synth.uniform(2.5, 5.0), 0.07):
            centre = hollow * synth.uniform(0.85, 1.18)
            body = synth.noise(band(centre * (1 - width), centre * (1 + width), 2.5), 0.15)
            air = synth.noise(band(2000, 9000, 1.0), 0.15) * synth.uniform(0.2, 0.5)
            shape = synth.percussive(0.15, 0.001, decay * synth.uniform(0.8, 1.25))
            claps.append((time, loud * synth.uniform(0.6, 1.0) * (body + air * shape) * shape))
    return synth.mix(claps)


def footsteps(synth: Synthesizer) -> Array:
    """A heel that thuds and a sole that follows, on wood, stone or gravel."""
    pace = synth.uniform(1.6, 2.6)
    boards = synth.log_uniform(70, 160) * np.array([1, 1.7, 2.6, 4.1])
    hardness, grit = synth.uniform(0.1, 0.9), synth.uniform(0.2, 1.2)
    heel_edge, sole_edge = synth.log_uniform(500, 2500), synth.log_uniform(900, 3000)
    roll, sole, gravel = synth.uniform(0.07, 0.14), synth.uniform(0.05, 0.13), synth.uniform(0, 8)
    steps = []
    for i, time in enumerate(synth.onsets(1 / pace, 0.05)):
        foot = 1.0 + 0.12 * (-1) ** i * hardness  # left and right shoes differ a little
        thud = synth.modes(
            0.2, boards * foot * synth.uniform(0.95, 1.05), synth.uniform(0.08, 0.18), [1, 0.7, 0.5, 0.3]
        )
        click = synth.noise(band(heel_edge, 3 * heel_edge, 2.0), 0.06) * synth.percussive(0.06, 0.001, 0.05) * hardness
        scrape = synth.noise(band(sole_edge, 3 * sole_edge, 1.5), sole) * grit
        # Gravel crunches grain by grain, a smooth floor hisses.
        grains = np.repeat(synth.rng.random(len(scrape) // 40 + 1), 40)[: len(scrape)] ** gravel
        crumbs = grains * envelope(np.linspace(0, 1, len(scrape)), 0.3, 0.6)
        loud = synth.uniform(0.7, 1.0)
        steps += [(time, loud * thud), (time, loud * click), (time + roll, loud * scrape * crumbs)]
    return synth.mix(steps)


def bark(synth: Synthesizer) -> Array:
    """Bursts of 0.1 to 0.25 s: a rough voice whose pitch jumps up and falls, in ones to fours."""
    times = synth.control_times
    pitch = synth.log_uniform(260, 750)  # a mastiff to a terrier
    size = (pitch / 450) ** 0.4
    loudness, f0, opening = np.zeros_like(times), np.full(len(times), pitch), np.zeros_like(times)
    fall, period = synth.uniform(0.5, 1.1), synth.uniform(0.26, 0.45)
    for start in synth.onsets(period, 0.12, group=(1, 4), rest=synth.uniform(0.1, 0.35)):
        length = synth.uniform(0.11, 0.16) * synth.uniform(0.9, 1.4)
        where, u = synth.event_span(start, length)
        loudness[where] = synth.uniform(0.7, 1.0) * np.minimum(u / 0.08, 1) * (1 - u) ** 1.3
        f0[where] = pitch * synth.uniform(0.92, 1.08) * np.exp(0.25 * np.minimum(u / 0.15, 1) - fall * u)
        opening[where] = np.sin(np.pi * u**0.7)
    growl = 1 + 0.5 * synth.uniform(0, 1) * synth.slow_noise(120)
    resonances = synth.formants(
        [size * (500 + 500 * opening), size * (1250 + 400 * opening), size * 2700, size * 4300, 7500],
        (400, 600, 900, 1500, 5000),
        (1, 0.8, 0.4, 0.2, synth.uniform(0.06, 0.2)),
    )
    return synth.voice(f0, loudness * growl, synth.uniform(0.25, 0.7), synth.uniform(0.4, 0.8), resonances)


def meow(synth: Synthesizer) -> Array:
    """One vowel after the other, i-a-u: the mouth opens and closes while the pitch rises and sinks."""
    times = synth.control_times
    pitch = synth.log_uniform(420, 800)
    loudness, f0, mouth = np.zeros_like(times), np.full(len(times), pitch), np.zeros_like(times)
    gap = synth.uniform(0.05, 0.3)
    peak, rise = synth.uniform(0.25, 0.5), synth.uniform(0.1, 0.35)
    for start, length in synth.repeat_to_fill(lambda: (synth.uniform(0.35, 0.85), gap * synth.uniform(0.7, 1.3))):
        where, u = synth.event_span(start, length)
        loudness[where] = synth.uniform(0.7, 1.0) * envelope(u, 0.3, 0.6)
        hill = np.where(u < peak, 1 - 1.6 * (1 - u / peak) ** 2, 1 - 2.2 * ((u - peak) / (1 - peak)) ** 2)
        f0[where] = pitch * np.exp(rise * hill + synth.uniform(-0.05, 0.05))
        mouth[where] = u
    curves = [
        np.interp(mouth, [0, 0.2, 0.5, 1], np.array(f) * synth.uniform(0.9, 1.1))
        for f in ([450, 800, 1250, 600], [3000, 2700, 1900, 1000], [4200, 3900, 3500, 3200])
    ]
    resonances = synth.formants([*curves, 6000], (280, 350, 700, 3000), (1, 0.9, 0.3, 0.06))
    f0 = f0 * np.exp(0.008 * np.sin(2 * np.pi * synth.uniform(6, 12) * times) + 0.006 * synth.slow_noise(30))
    return synth.voice(f0, loudness, synth.uniform(0.03, 0.15), synth.uniform(0.5, 0.9), resonances)


def chirp(synth: Synthesizer) -> Array:
    """A songbird: a motif of short sweeps between 2 and 7 kHz, sung again and again, and answered."""
    singers = []
    for _ in range(synth.rng.integers(1, 3)):
        times = synth.control_times
        centre = synth.log_uniform(2600, 5200)
        motif = [
            (
                synth.uniform(0.03, 0.13),
                synth.uniform(-0.35, 0.35),
                synth.uniform(-0.3, 0.3),
                synth.uniform(-0.12, 0.12),
            )
            for _ in range(synth.rng.integers(1, 4))
        ]
        trill_rate, trill = synth.uniform(20, 45), synth.uniform(0, 0.08) * synth.chance(0.5)
        loudness, f0 = np.zeros_like(times), np.full(len(times), centre)
        now = synth.uniform(0, 0.1)
        while now < synth.seconds:
            for length, sweep, offset, bend in motif:
                where, u = synth.event_span(now, length * synth.uniform(0.95, 1.05))
                loudness[where] = synth.uniform(0.6, 1.0) * envelope(u, 0.3, 0.4)
                line = offset + sweep * (u - 0.5) + bend * np.sin(np.pi * u)
                f0[where] = centre * np.exp(line + trill * np.sin(2 * np.pi * trill_rate * u * length))
                now += length + synth.uniform(0.015, 0.05)
            now += synth.uniform(0.03, 0.22)
        f0 = synth.upsample(f0 * np.exp(0.004 * synth.slow_noise(100)))
        tone = synth.harmonics(f0, [1, synth.uniform(0.05, 0.3), synth.uniform(0.01, 0.1)])
        # The breath behind the note is what makes it a bird and no synthesiser.
        tone += synth.noise(band(1000, 9000, 1.0)) * synth.log_uniform(0.06, 0.2)
        singers.append(synth.uniform(0.4, 1.0) * tone * synth.upsample(loudness))
    return np.sum(singers, axis=0)


def cricket(synth: Synthesizer) -> Array:
    """Wings rubbed 25 to 60 times a second near 4.5 kHz, in chirps of a few strokes or in one long trill."""
    strokes, chirps = synth.uniform(25, 60), synth.uniform(2.0, 5.5)
    duty = synth.uniform(0.4, 0.65) if synth.chance(0.75) else 1.0
    times = np.arange(synth.n) / synth.rate
    drift = synth.upsample(0.03 * synth.slow_noise(3))
    in_chirp = (times * chirps * (1 + drift) + synth.rng.random()) % 1.0 / duty
    stroke = (times * strokes + synth.rng.random()) % 1.0
    chirp_shape = np.where(in_chirp < 1, 0.4 + 0.6 * np.sin(np.pi * np.minimum(in_chirp, 1)), 0.0)
    if duty == 1.0:
        chirp_shape = np.ones_like(times)
    closing = np.sin(np.pi * np.minimum(stroke / synth.uniform(0.5, 0.8), 1))  # only the closing stroke sounds
    centre = synth.log_uniform(3300, 6200)
    pitch = centre * (1 + 0.02 * closing + synth.upsample(0.004 * synth.slow_noise(40)))
    tone = synth.harmonics(pitch, [1, synth.uniform(0.03, 0.2), synth.uniform(0.01, 0.08)])
    rasp = synth.noise(band(0.6 * centre, 1.6 * centre, 2.0)) * synth.uniform(0.15, 0.5)
    return (tone + rasp) * closing**1.5 * chirp_shape


def frog(synth: Synthesizer) -> Array:
    """Croaks of 0.12 to 0.4 s: 25 to 90 pulses a second through two resonances of the vocal sac."""
    times = synth.control_times
    low = synth.log_uniform(450, 1100)
    high = low * synth.uniform(1.8, 2.6)
    loudness, rate = np.zeros_like(times), synth.log_uniform(28, 85)
    f0, bend = np.full(len(times), rate), synth.uniform(-0.3, 0.5)
    croak, gap = synth.uniform(0.14, 0.42), synth.uniform(0.08, 0.3)
    for start, length in synth.repeat_to_fill(
        lambda: (croak * synth.uniform(0.85, 1.15), gap * synth.uniform(0.7, 1.3))
    ):
        where, u = synth.event_span(start, length)
        loudness[where] = synth.uniform(0.7, 1.0) * envelope(u, synth.uniform(0.2, 0.6), 0.25)
        f0[where] = rate * np.exp(bend * u)
    glide = 1 + 0.12 * bend * loudness
    resonances = synth.formants([low * glide, high * glide, 5000], (150, 260, 5000), (1, 0.7, 0.1))
    f0 = f0 * np.exp(0.03 * synth.slow_noise(30))
    return synth.voice(f0, loudness, synth.uniform(0.03, 0.15), 0.15, resonances)
