"""Weather, water, vehicles and things that are hit."""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import (
    FRAME,
    Array,
    Mixdown,
    at_frames,
    band,
    burst,
    filtered,
    filtered_over_time,
    formants,
    frequencies,
    harmonics,
    modes,
    noise,
    onsets,
    place,
    samples,
    span,
    wander,
)


def wind(tape: Mixdown) -> Array:
    """Low noise in gusts; where the air whistles round an edge, a broad resonance follows their strength."""
    gusts = 0.6 * wander(tape, tape.between(1.0, 3.0)) + 0.3 * wander(tape, 6)
    base, whistle = tape.log_between(120, 350), tape.log_between(350, 900)
    edge = at_frames(tape, base * np.exp(0.7 * gusts))
    bins = frequencies(tape, FRAME)
    roar = 1 / (1 + (bins / edge) ** 2) ** tape.between(0.4, 0.7)
    howl = formants(tape, [whistle * np.exp(0.3 * gusts)], [tape.between(100, 450)], [tape.between(0.2, 1.2)])
    gains = (roar + howl) * np.exp(at_frames(tape, gusts)) * np.minimum(1, bins / 60)
    return filtered_over_time(tape, tape.rng.standard_normal(tape.n), gains)


def rain(tape: Mixdown) -> Array:
    """A hiss of far drops and thousands of near ones, each a click with a spectrum of its own size."""
    hiss = noise(tape, band(tape.log_between(800, 2500), tape.log_between(6000, 13000), 1.0))
    out = hiss * tape.between(0.15, 0.8)
    for low, high in ((600, 2500), (1800, 6000), (4500, 12000)):
        drops = np.zeros(tape.n)
        count = 1 + tape.rng.poisson(tape.log_between(80, 1200) * tape.seconds)
        np.add.at(drops, tape.rng.integers(tape.n, size=count), tape.rng.laplace(size=count))
        pattering = filtered(tape, drops, band(low, high * tape.between(0.8, 1.1), 2.0))
        out += pattering / pattering.std() * tape.between(0.2, 1.0)
    return out * samples(tape, np.exp(0.08 * wander(tape, 4)))


def water_tap(tape: Mixdown) -> Array:
    """A jet into a basin: steady hiss, and bubbles that ring between 400 and 3,500 Hz with rising pitch."""
    out = noise(tape, band(tape.log_between(700, 2000), tape.log_between(3500, 8000), 1.2)) * tape.between(0.3, 0.9)
    basin = tape.log_between(350, 1200)
    out += (
        noise(tape, band(basin, 1.5 * basin, 3.0)) * tape.between(0.3, 0.9) * samples(tape, 1 + 0.35 * wander(tape, 25))
    )
    # Minnaert (1933): a bubble of radius r mm rings at about 3,260/r Hz, higher as it nears the surface.
    t = np.arange(int(0.03 * tape.rate)) / tape.rate
    pitch = np.exp(tape.rng.uniform(np.log(450), np.log(3600), (48, 1)))
    phase = 2 * np.pi * pitch * (t + tape.rng.uniform(0, 12, (48, 1)) * t**2)
    kinds = np.sin(phase) * np.exp(-tape.rng.uniform(80, 300, (48, 1)) * t)
    rate = tape.between(60, 160)
    bubbles = [(time, tape.log_between(0.2, 1.0) * tape.rng.choice(kinds)) for time in onsets(tape, 1 / rate, 0.95)]
    return out + place(tape, bubbles) * tape.between(1.0, 3.0)


def helicopter(tape: Mixdown) -> Array:
    """Blades that beat 10 to 22 times a second, a whine of the turbine, and wash."""
    beat = tape.between(10, 22)
    phase = np.cumsum(beat * np.exp(samples(tape, 0.02 * wander(tape, 2)))) / tape.rate + tape.rng.random()
    slap = np.exp(-((phase % 1.0) / tape.between(0.12, 0.35)))
    blades = 1 + tape.between(0.05, 0.3) * np.sin(2 * np.pi * phase / tape.rng.integers(2, 5))  # no rotor is even
    chop = noise(tape, band(60, tape.log_between(350, 1200), 1.0)) * slap**1.5 * blades
    wash = noise(tape, band(300, tape.log_between(2500, 6000), 1.0)) * (0.25 + slap) * tape.between(0.15, 0.4)
    whine = np.exp(samples(tape, 0.003 * wander(tape, 5))) * tape.log_between(500, 1800)
    turbine = harmonics(tape, whine, [1, 0.5, 0.3, 0.2]) * tape.log_between(0.02, 0.12)
    return chop + wash + turbine


def revving(tape: Mixdown) -> Array:
    """An engine off load: revolutions shoot up and sink again, uneven cylinders, roaring exhaust."""
    times = tape.control_times
    idle, top = tape.log_between(28, 55), tape.log_between(110, 260)
    throttle, now = np.zeros_like(times), -tape.between(0, 0.3)
    while now < tape.seconds:
        length = tape.between(0.6, 1.5)
        where, u = span(tape, now, length)
        throttle[where] = np.clip(u / tape.between(0.3, 0.6), 0, 1) ** 0.7 * np.clip((1 - u) / 0.45, 0, 1) ** 1.3
        now += length * tape.between(0.75, 1.0)
    firing = idle * (top / idle) ** np.clip(throttle, 0, 1) * np.exp(0.01 * wander(tape, 40))
    cylinders = 4
    k = np.arange(1, 60 * cylinders)
    # Between the firing orders lie those of the single cylinders, which never fire quite alike.
    order = np.where(k % cylinders == 0, 1.0, tape.between(0.1, 0.4) * tape.rng.random(len(k)))
    weights = order * (k / cylinders) ** -tape.between(0.4, 0.9) * np.exp(2j * np.pi * tape.rng.random(len(k)))
    f0 = samples(tape, firing / cylinders)
    tone = harmonics(tape, f0, weights)
    tone /= tone.std() + 1e-9
    pulse = 0.4 + np.abs(np.sin(np.pi * np.cumsum(f0) * cylinders / tape.rate))
    roar = noise(tape, band(200, tape.log_between(1500, 5000), 1.0)) * pulse * tape.between(0.3, 0.8)
    pipe = formants(
        tape,
        [tape.between(120, 250), tape.between(400, 900), tape.between(1500, 3000), 6000],
        (300, 600, 3000, 6000),
        (1, 0.6, 0.4, tape.between(0.1, 0.3)),
    )
    return filtered_over_time(tape, (tone + roar) * samples(tape, 0.3 + 0.7 * np.clip(throttle, 0, 1)), pipe)


def knock(tape: Mixdown) -> Array:
    """Knuckles on a door: three to six dull blows, a pause, again."""
    panel = tape.log_between(110, 320) * np.array([1, 1.6, 2.4, 3.7, 5.2]) * tape.rng.uniform(0.92, 1.08, 5)
    decays, levels = tape.between(0.07, 0.2) / np.array([1, 1.2, 1.5, 2, 2.5]), tape.rng.uniform(0.3, 1.0, 5)
    tap, hardness = tape.log_between(700, 1800), tape.between(0.15, 0.5)
    blows = []
    for time in onsets(tape, 1 / tape.between(3.2, 6.5), 0.08, group=(3, 6), rest=tape.between(0.15, 0.5)):
        loud = tape.between(0.6, 1.0)
        door = modes(tape, 0.25, panel * tape.between(0.98, 1.02), decays, levels * tape.rng.uniform(0.6, 1.0, 5))
        knuckle = noise(tape, band(0.5 * tap, 2.5 * tap, 1.2), 0.03) * burst(tape, 0.03, 0.001, 0.03) * hardness
        blows += [(time, loud * door), (time, loud * knuckle)]
    return place(tape, blows)


def typing(tape: Mixdown) -> Array:
    """Keys at 5 to 11 a second and never in time: each clicks going down and, softer, coming up."""
    case = tape.log_between(300, 700)
    click = tape.log_between(1800, 3800)
    thock, crisp = tape.between(0.1, 0.5), tape.between(0.5, 1.0)
    events = []
    for time in onsets(tape, 1 / tape.between(5, 11), 0.6, group=(4, 11), rest=tape.between(0.05, 0.25)):
        key = tape.rng.uniform(0.8, 1.25)
        loud, hold = tape.between(0.4, 1.0), tape.between(0.05, 0.1)
        partials = click * key * np.array([1, 1.45, 2.1, 2.9]) * tape.rng.uniform(0.95, 1.05, 4)
        plastic = modes(tape, 0.04, partials, tape.between(0.012, 0.03), tape.rng.uniform(0.3, 1.0, 4))
        down = modes(tape, 0.06, case * key * np.array([1, 1.8]), 0.04, thock) + 0.0
        down[: len(plastic)] += plastic
        snap = noise(tape, band(click, 11000, 1.0), 0.01) * burst(tape, 0.01, 0.0003, 0.008) * crisp
        events += [(time, loud * down), (time, loud * snap), (time + hold, 0.4 * loud * plastic)]
        events.append((time + hold, 0.5 * loud * snap))
    return place(tape, events)


def tick_tock(tape: Mixdown) -> Array:
    """A clock, in time as nothing else is: two different clicks in turn, a wooden case behind them."""
    period = 1 / tape.between(2.0, 5.0)
    wheel = tape.log_between(2200, 4800)
    case = tape.log_between(500, 1100) * np.array([1, 1.7, 2.6])
    wooden, lower = tape.between(0.15, 0.6), tape.between(0.68, 0.88)
    uneven = tape.between(-0.06, 0.06) * period  # the pendulum hangs a little askew
    events = []
    for i, time in enumerate(onsets(tape, period, 0.002)):
        pitch = lower if i % 2 else 1.0
        metal = modes(
            tape, 0.06, wheel * pitch * np.array([1, 1.34, 1.83, 2.4]), tape.between(0.03, 0.05), [1, 0.8, 0.6, 0.4]
        )
        echo = modes(tape, 0.1, case * pitch, 0.07, wooden)
        pawl = noise(tape, band(2000, 9000, 1.0), 0.006) * burst(tape, 0.006, 0.0003, 0.006) * 0.5
        at = time + (uneven if i % 2 else 0.0)
        loud = tape.between(0.85, 1.0)
        events += [(at, loud * metal), (at, loud * echo), (at, loud * pawl)]
        events.append((at + tape.between(0.018, 0.024), 0.35 * loud * metal))  # the second fall of the anchor
    return place(tape, [(max(time, 0.0), sound) for time, sound in events])


def whack(tape: Mixdown) -> Array:
    """A stick swung and landing: a swish that grows and rises, then a slap that fills the spectrum."""
    swing, flesh = tape.between(0.1, 0.22), tape.log_between(250, 700)
    strength = tape.between(0.06, 0.22)
    low = tape.log_between(500, 1100)
    events = []
    for time in onsets(tape, 1 / tape.between(1.3, 2.6), 0.15):
        length = swing * tape.between(0.8, 1.2)
        u = np.arange(int(length * tape.rate)) / (length * tape.rate)
        slow, fast = (noise(tape, band(low * up, 2.5 * low * up, 2.0), length) for up in (1.0, 2.5))
        swish = strength * (slow * (1 - u) + fast * u) * u**2
        body = noise(tape, band(flesh, 4 * flesh, 1.0), 0.2) * burst(tape, 0.2, 0.001, tape.between(0.06, 0.14))
        slap = noise(tape, band(1500, 10000, 0.7), 0.06) * burst(tape, 0.06, 0.0005, tape.between(0.02, 0.05))
        loud = tape.between(0.7, 1.0)
        events += [(time, swish), (time + length, loud * body), (time + length, loud * slap)]
    return place(tape, events)


def siren(tape: Mixdown) -> Array:
    """Wail (slow), yelp (fast) or two tones, from a horn that passes 500 to 5,000 Hz."""
    times = tape.control_times
    low, high = tape.log_between(480, 750), tape.log_between(950, 1700)
    kind = tape.rng.integers(3)
    swings = (tape.between(0.25, 0.7), tape.between(2.5, 4.5), tape.between(0.6, 1.2))[kind]
    phase = (times * swings + tape.rng.random()) % 1.0
    up = tape.between(0.35, 0.65)
    if kind == 2:
        height = np.clip(20 * np.where(phase < 0.5, phase, 1 - phase) - 4, 0, 1)  # a short glide at each change
        high = low * tape.between(1.25, 1.45)
    else:
        height = np.where(phase < up, phase / up, (1 - phase) / (1 - up))
    f0 = samples(tape, low * (high / low) ** height * np.exp(0.003 * wander(tape, 20)))
    weights = np.arange(1, 20.0) ** -tape.between(0.6, 1.3)
    weights[1::2] *= tape.between(0.2, 1.0)
    tone = harmonics(tape, f0, weights)
    blown = tone + noise(tape, band(600, 5000, 1.0)) * tape.log_between(0.03, 0.12)
    horn = tape.log_between(1200, 2600)
    return filtered(tape, blown, band(500, tape.between(3500, 7000), 2.0)) + 0.5 * filtered(
        tape, blown, band(0.8 * horn, 1.25 * horn, 4.0)
    )
