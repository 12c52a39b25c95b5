"""Synthesise weather, water, vehicles and things that are hit.

Each public function draws its parameters from `synth.rng` and returns a mono sound (synth.n,) at any level, which
`synthesise` in this package brings to the level and colour of a recording.
"""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import FRAME, Array, Synthesizer, band


def wind(synth: Synthesizer) -> Array:
    """Low noise in gusts; where the air whistles round an edge, a broad resonance follows their strength."""
    gusts = 0.6 * synth.slow_noise(synth.uniform(1.0, 3.0)) + 0.3 * synth.slow_noise(6)
    base, whistle = synth.log_uniform(120, 350), synth.log_uniform(350, 900)
    edge = synth.at_frames(base * np.exp(0.7 * gusts))
    bins = synth.frequencies(FRAME)
    roar = 1 / (1 + (bins / edge) ** 2) ** synth.uniform(0.4, 0.7)
    howl = synth.formants([whistle * np.exp(0.3 * gusts)], [synth.uniform(100, 450)], [synth.uniform(0.2, 1.2)])
    gains = (roar + howl) * np.exp(synth.at_frames(gusts)) * np.minimum(1, bins / 60)
    return synth.filtered_over_time(synth.rng.standard_normal(synth.n), gains)


def rain(synth: Synthesizer) -> Array:
    """A hiss of far drops and thousands of near ones, each a click with a spectrum of its own size."""
    hiss = synth.noise(band(synth.log_uniform(800, 2500), synth.log_uniform(6000, 13000), 1.0))
    out = hiss * synth.uniform(0.15, 0.8)
    for low, high in ((600, 2500), (1800, 6000), (4500, 12000)):
        drops = np.zeros(synth.n)
        count = 1 + synth.rng.poisson(synth.log_uniform(80, 1200) * synth.seconds)
        np.add.at(drops, synth.rng.integers(synth.n, size=count), synth.rng.laplace(size=count))
        pattering = synth.filtered(drops, band(low, high * synth.uniform(0.8, 1.1), 2.0))
        out += pattering / pattering.std() * synth.uniform(0.2, 1.0)
    return out * synth.upsample(np.exp(0.08 * synth.slow_noise(4)))


def water_tap(synth: Synthesizer) -> Array:
    """A jet into a basin: steady hiss, and bubbles that ring between 400 and 3,500 Hz with rising pitch."""
    out = synth.noise(band(synth.log_uniform(700, 2000), synth.log_uniform(3500, 8000), 1.2)) * synth.uniform(0.3, 0.9)
    basin = synth.log_uniform(350, 1200)
    out += (
        synth.noise(band(basin, 1.5 * basin, 3.0))
        * synth.uniform(0.3, 0.9)
        * synth.upsample(1 + 0.35 * synth.slow_noise(25))
    )
    # Minnaert (1933): a bubble of radius r mm rings at about 3,260/r Hz, higher as it nears the surface.
    t = np.arange(int(0.03 * synth.rate)) / synth.rate
    pitch = np.exp(synth.rng.uniform(np.log(450), np.log(3600), (48, 1)))
    phase = 2 * np.pi * pitch * (t + synth.rng.uniform(0, 12, (48, 1)) * t**2)
    kinds = np.sin(phase) * np.exp(-synth.rng.uniform(80, 300, (48, 1)) * t)
    rate = synth.uniform(60, 160)
    bubbles = [(time, synth.log_uniform(0.2, 1.0) * synth.rng.choice(kinds)) for time in synth.onsets(1 / rate, 0.95)]
    return out + synth.mix(bubbles) * synth.uniform(1.0, 3.0)


def helicopter(synth: Synthesizer) -> Array:
    """Blades that beat 10 to 22 times a second, a whine of the turbine, and wash."""
    beat = synth.uniform(10, 22)
    phase = np.cumsum(beat * np.exp(synth.upsample(0.02 * synth.slow_noise(2)))) / synth.rate + synth.rng.random()
    slap = np.exp(-((phase % 1.0) / synth.uniform(0.12, 0.35)))
    blades = 1 + synth.uniform(0.05, 0.3) * np.sin(2 * np.pi * phase / synth.rng.integers(2, 5))  # no rotor is even
    chop = synth.noise(band(60, synth.log_uniform(350, 1200), 1.0)) * slap**1.5 * blades
    wash = synth.noise(band(300, synth.log_uniform(2500, 6000), 1.0)) * (0.25 + slap) * synth.uniform(0.15, 0.4)
    whine = np.exp(synth.upsample(0.003 * synth.slow_noise(5))) * synth.log_uniform(500, 1800)
    turbine = synth.harmonics(whine, [1, 0.5, 0.3, 0.2]) * synth.log_uniform(0.02, 0.12)
    return chop + wash + turbine


def revving(synth: Synthesizer) -> Array:
    """An engine off load: revolutions shoot up and sink again, uneven cylinders, roaring exhaust."""
    times = synth.control_times
    idle, top = synth.log_uniform(28, 55), synth.log_uniform(110, 260)
    throttle, now = np.zeros_like(times), -synth.uniform(0, 0.3)
    while now < synth.seconds:
        length = synth.uniform(0.6, 1.5)
        where, u = synth.event_span(now, length)
        throttle[where] = np.clip(u / synth.uniform(0.3, 0.6), 0, 1) ** 0.7 * np.clip((1 - u) / 0.45, 0, 1) ** 1.3
        now += length * synth.uniform(0.75, 1.0)
    firing = idle * (top / idle) ** np.clip(throttle, 0, 1) * np.exp(0.01 * synth.slow_noise(40))
    cylinders = 4
    k = np.arange(1, 60 * cylinders)
    # Between the firing orders lie those of the single cylinders, which never fire quite alike.
    order = np.where(k % cylinders == 0, 1.0, synth.uniform(0.1, 0.4) * synth.rng.random(len(k)))
    weights = order * (k / cylinders) ** -synth.uniform(0.4, 0.9) * np.exp(2j * np.pi * synth.rng.random(len(k)))
    f0 = synth.upsample(firing / cylinders)
    tone = synth.harmonics(f0, weights)
    tone /= tone.std() + 1e-9
    pulse = 0.4 + np.abs(np.sin(np.pi * np.cumsum(f0) * cylinders / synth.rate))
    roar = synth.noise(band(200, synth.log_uniform(1500, 5000), 1.0)) * pulse * synth.uniform(0.3, 0.8)
    pipe = synth.formants(
        [synth.uniform(120, 250), synth.uniform(400, 900), synth.uniform(1500, 3000), 6000],
        (300, 600, 3000, 6000),
        (1, 0.6, 0.4, synth.uniform(0.1, 0.3)),
    )
    return synth.filtered_over_time((tone + roar) * synth.upsample(0.3 + 0.7 * np.clip(throttle, 0, 1)), pipe)


def knock(synth: Synthesizer) -> Array:
    """Knuckles on a door: three to six dull blows, a pause, again."""
    panel = synth.log_uniform(110, 320) * np.array([1, 1.6, 2.4, 3.7, 5.2]) * synth.rng.uniform(0.92, 1.08, 5)
    decays, levels = synth.uniform(0.07, 0.2) / np.array([1, 1.2, 1.5, 2, 2.5]), synth.rng.uniform(0.3, 1.0, 5)
    tap, hardness = synth.log_uniform(700, 1800), synth.uniform(0.15, 0.5)
    blows = []
    for time in synth.onsets(1 / synth.uniform(3.2, 6.5), 0.08, group=(3, 6), rest=synth.uniform(0.15, 0.5)):
        loud = synth.uniform(0.6, 1.0)
        door = synth.modes(0.25, panel * synth.uniform(0.98, 1.02), decays, levels * synth.rng.uniform(0.6, 1.0, 5))
        knuckle = synth.noise(band(0.5 * tap, 2.5 * tap, 1.2), 0.03) * synth.percussive(0.03, 0.001, 0.03) * hardness
        blows += [(time, loud * door), (time, loud * knuckle)]
    return synth.mix(blows)


def typing(synth: Synthesizer) -> Array:
    """Keys at 5 to 11 a second and never in time: each clicks going down and, softer, coming up."""
    case = synth.log_uniform(300, 700)
    click = synth.log_uniform(1800, 3800)
    thock, crisp = synth.uniform(0.1, 0.5), synth.uniform(0.5, 1.0)
    events = []
    for time in synth.onsets(1 / synth.uniform(5, 11), 0.6, group=(4, 11), rest=synth.uniform(0.05, 0.25)):
        key = synth.rng.uniform(0.8, 1.25)
        loud, hold = synth.uniform(0.4, 1.0), synth.uniform(0.05, 0.1)
        partials = click * key * np.array([1, 1.45, 2.1, 2.9]) * synth.rng.uniform(0.95, 1.05, 4)
        plastic = synth.modes(0.04, partials, synth.uniform(0.012, 0.03), synth.rng.uniform(0.3, 1.0, 4))
        down = synth.modes(0.06, case * key * np.array([1, 1.8]), 0.04, thock) + 0.0
        down[: len(plastic)] += plastic
        snap = synth.noise(band(click, 11000, 1.0), 0.01) * synth.percussive(0.01, 0.0003, 0.008) * crisp
        events += [(time, loud * down), (time, loud * snap), (time + hold, 0.4 * loud * plastic)]
        events.append((time + hold, 0.5 * loud * snap))
    return synth.mix(events)


def tick_tock(synth: Synthesizer) -> Array:
    """A clock, in time as nothing else is: two different clicks in turn, a wooden case behind them."""
    period = 1 / synth.uniform(2.0, 5.0)
    wheel = synth.log_uniform(2200, 4800)
    case = synth.log_uniform(500, 1100) * np.array([1, 1.7, 2.6])
    wooden, lower = synth.uniform(0.15, 0.6), synth.uniform(0.68, 0.88)
    uneven = synth.uniform(-0.06, 0.06) * period  # the pendulum hangs a little askew
    events = []
    for i, time in enumerate(synth.onsets(period, 0.002)):
        pitch = lower if i % 2 else 1.0
        metal = synth.modes(
            0.06, wheel * pitch * np.array([1, 1.34, 1.83, 2.4]), synth.uniform(0.03, 0.05), [1, 0.8, 0.6, 0.4]
        )
        echo = synth.modes(0.1, case * pitch, 0.07, wooden)
        pawl = synth.noise(band(2000, 9000, 1.0), 0.006) * synth.percussive(0.006, 0.0003, 0.006) * 0.5
        at = time + (uneven if i % 2 else 0.0)
        loud = synth.uniform(0.85, 1.0)
        events += [(at, loud * metal), (at, loud * echo), (at, loud * pawl)]
        events.append((at + synth.uniform(0.018, 0.024), 0.35 * loud * metal))  # the second fall of the anchor
    return synth.mix([(max(time, 0.0), sound) for time, sound in events])


def whack(synth: Synthesizer) -> Array:
    """A stick swung and landing: a swish that grows and rises, then a slap that fills the spectrum."""
    swing, flesh = synth.uniform(0.1, 0.22), synth.log_uniform(250, 700)
    strength = synth.uniform(0.06, 0.22)
    low = synth.log_uniform(500, 1100)
    events = []
    for time in synth.onsets(1 / synth.uniform(1.3, 2.6), 0.15):
        length = swing * synth.uniform(0.8, 1.2)
        u = np.arange(int(length * synth.rate)) / (length * synth.rate)
        slow, fast = (synth.noise(band(low * up, 2.5 * low * up, 2.0), length) for up in (1.0, 2.5))
        swish = strength * (slow * (1 - u) + fast * u) * u**2
        body = synth.noise(band(flesh, 4 * flesh, 1.0), 0.2) * synth.percussive(0.2, 0.001, synth.uniform(0.06, 0.14))
        slap = synth.noise(band(1500, 10000, 0.7), 0.06) * synth.percussive(0.06, 0.0005, synth.uniform(0.02, 0.05))
        loud = synth.uniform(0.7, 1.0)
        events += [(time, swish), (time + length, loud * body), (time + length, loud * slap)]
    return synth.mix(events)


def siren(synth: Synthesizer) -> Array:
    """Wail (slow), yelp (fast) or two tones, from a horn that passes 500 to 5,000 Hz."""
    times = synth.control_times
    low, high = synth.log_uniform(480, 750), synth.log_uniform(950, 1700)
    kind = synth.rng.integers(3)
    swings = (synth.uniform(0.25, 0.7), synth.uniform(2.5, 4.5), synth.uniform(0.6, 1.2))[kind]
    phase = (times * swings + synth.rng.random()) % 1.0
    up = synth.uniform(0.35, 0.65)
    if kind == 2:
        height = np.clip(20 * np.where(phase < 0.5, phase, 1 - phase) - 4, 0, 1)  # a short glide at each change
        high = low * synth.uniform(1.25, 1.45)
    else:
        height = np.where(phase < up, phase / up, (1 - phase) / (1 - up))
    f0 = synth.upsample(low * (high / low) ** height * np.exp(0.003 * synth.slow_noise(20)))
    weights = np.arange(1, 20.0) ** -synth.uniform(0.6, 1.3)
    weights[1::2] *= synth.uniform(0.2, 1.0)
    tone = synth.harmonics(f0, weights)
    blown = tone + synth.noise(band(600, 5000, 1.0)) * synth.log_uniform(0.03, 0.12)
    horn = synth.log_uniform(1200, 2600)
    return synth.filtered(blown, band(500, synth.uniform(3500, 7000), 2.0)) + 0.5 * synth.filtered(
        blown, band(0.8 * horn, 1.25 * horn, 4.0)
    )
