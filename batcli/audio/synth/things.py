"""Synthesise weather, water, vehicles and things that are hit."""

from __future__ import annotations

import numpy as np

from batcli.audio.synth.parts import (
    FRAME,
    Array,
    SynthContext,
    at_frames,
    band,
    event_span,
    filtered,
    filtered_over_time,
    formants,
    frequencies,
    harmonics,
    mix,
    modes,
    noise,
    onsets,
    percussive,
    slow_noise,
    upsample,
)


def wind(ctx: SynthContext) -> Array:
    """Low noise in gusts; where the air whistles round an edge, a broad resonance follows their strength."""
    gusts = 0.6 * slow_noise(ctx, ctx.uniform(1.0, 3.0)) + 0.3 * slow_noise(ctx, 6)
    base, whistle = ctx.log_uniform(120, 350), ctx.log_uniform(350, 900)
    edge = at_frames(ctx, base * np.exp(0.7 * gusts))
    bins = frequencies(ctx, FRAME)
    roar = 1 / (1 + (bins / edge) ** 2) ** ctx.uniform(0.4, 0.7)
    howl = formants(ctx, [whistle * np.exp(0.3 * gusts)], [ctx.uniform(100, 450)], [ctx.uniform(0.2, 1.2)])
    gains = (roar + howl) * np.exp(at_frames(ctx, gusts)) * np.minimum(1, bins / 60)
    return filtered_over_time(ctx, ctx.rng.standard_normal(ctx.n), gains)


def rain(ctx: SynthContext) -> Array:
    """A hiss of far drops and thousands of near ones, each a click with a spectrum of its own size."""
    hiss = noise(ctx, band(ctx.log_uniform(800, 2500), ctx.log_uniform(6000, 13000), 1.0))
    out = hiss * ctx.uniform(0.15, 0.8)
    for low, high in ((600, 2500), (1800, 6000), (4500, 12000)):
        drops = np.zeros(ctx.n)
        count = 1 + ctx.rng.poisson(ctx.log_uniform(80, 1200) * ctx.seconds)
        np.add.at(drops, ctx.rng.integers(ctx.n, size=count), ctx.rng.laplace(size=count))
        pattering = filtered(ctx, drops, band(low, high * ctx.uniform(0.8, 1.1), 2.0))
        out += pattering / pattering.std() * ctx.uniform(0.2, 1.0)
    return out * upsample(ctx, np.exp(0.08 * slow_noise(ctx, 4)))


def water_tap(ctx: SynthContext) -> Array:
    """A jet into a basin: steady hiss, and bubbles that ring between 400 and 3,500 Hz with rising pitch."""
    out = noise(ctx, band(ctx.log_uniform(700, 2000), ctx.log_uniform(3500, 8000), 1.2)) * ctx.uniform(0.3, 0.9)
    basin = ctx.log_uniform(350, 1200)
    out += (
        noise(ctx, band(basin, 1.5 * basin, 3.0))
        * ctx.uniform(0.3, 0.9)
        * upsample(ctx, 1 + 0.35 * slow_noise(ctx, 25))
    )
    # Minnaert (1933): a bubble of radius r mm rings at about 3,260/r Hz, higher as it nears the surface.
    t = np.arange(int(0.03 * ctx.rate)) / ctx.rate
    pitch = np.exp(ctx.rng.uniform(np.log(450), np.log(3600), (48, 1)))
    phase = 2 * np.pi * pitch * (t + ctx.rng.uniform(0, 12, (48, 1)) * t**2)
    kinds = np.sin(phase) * np.exp(-ctx.rng.uniform(80, 300, (48, 1)) * t)
    rate = ctx.uniform(60, 160)
    bubbles = [(time, ctx.log_uniform(0.2, 1.0) * ctx.rng.choice(kinds)) for time in onsets(ctx, 1 / rate, 0.95)]
    return out + mix(ctx, bubbles) * ctx.uniform(1.0, 3.0)


def helicopter(ctx: SynthContext) -> Array:
    """Blades that beat 10 to 22 times a second, a whine of the turbine, and wash."""
    beat = ctx.uniform(10, 22)
    phase = np.cumsum(beat * np.exp(upsample(ctx, 0.02 * slow_noise(ctx, 2)))) / ctx.rate + ctx.rng.random()
    slap = np.exp(-((phase % 1.0) / ctx.uniform(0.12, 0.35)))
    blades = 1 + ctx.uniform(0.05, 0.3) * np.sin(2 * np.pi * phase / ctx.rng.integers(2, 5))  # no rotor is even
    chop = noise(ctx, band(60, ctx.log_uniform(350, 1200), 1.0)) * slap**1.5 * blades
    wash = noise(ctx, band(300, ctx.log_uniform(2500, 6000), 1.0)) * (0.25 + slap) * ctx.uniform(0.15, 0.4)
    whine = np.exp(upsample(ctx, 0.003 * slow_noise(ctx, 5))) * ctx.log_uniform(500, 1800)
    turbine = harmonics(ctx, whine, [1, 0.5, 0.3, 0.2]) * ctx.log_uniform(0.02, 0.12)
    return chop + wash + turbine


def revving(ctx: SynthContext) -> Array:
    """An engine off load: revolutions shoot up and sink again, uneven cylinders, roaring exhaust."""
    times = ctx.control_times
    idle, top = ctx.log_uniform(28, 55), ctx.log_uniform(110, 260)
    throttle, now = np.zeros_like(times), -ctx.uniform(0, 0.3)
    while now < ctx.seconds:
        length = ctx.uniform(0.6, 1.5)
        where, u = event_span(ctx, now, length)
        throttle[where] = np.clip(u / ctx.uniform(0.3, 0.6), 0, 1) ** 0.7 * np.clip((1 - u) / 0.45, 0, 1) ** 1.3
        now += length * ctx.uniform(0.75, 1.0)
    firing = idle * (top / idle) ** np.clip(throttle, 0, 1) * np.exp(0.01 * slow_noise(ctx, 40))
    cylinders = 4
    k = np.arange(1, 60 * cylinders)
    # Between the firing orders lie those of the single cylinders, which never fire quite alike.
    order = np.where(k % cylinders == 0, 1.0, ctx.uniform(0.1, 0.4) * ctx.rng.random(len(k)))
    weights = order * (k / cylinders) ** -ctx.uniform(0.4, 0.9) * np.exp(2j * np.pi * ctx.rng.random(len(k)))
    f0 = upsample(ctx, firing / cylinders)
    tone = harmonics(ctx, f0, weights)
    tone /= tone.std() + 1e-9
    pulse = 0.4 + np.abs(np.sin(np.pi * np.cumsum(f0) * cylinders / ctx.rate))
    roar = noise(ctx, band(200, ctx.log_uniform(1500, 5000), 1.0)) * pulse * ctx.uniform(0.3, 0.8)
    pipe = formants(
        ctx,
        [ctx.uniform(120, 250), ctx.uniform(400, 900), ctx.uniform(1500, 3000), 6000],
        (300, 600, 3000, 6000),
        (1, 0.6, 0.4, ctx.uniform(0.1, 0.3)),
    )
    return filtered_over_time(ctx, (tone + roar) * upsample(ctx, 0.3 + 0.7 * np.clip(throttle, 0, 1)), pipe)


def knock(ctx: SynthContext) -> Array:
    """Knuckles on a door: three to six dull blows, a pause, again."""
    panel = ctx.log_uniform(110, 320) * np.array([1, 1.6, 2.4, 3.7, 5.2]) * ctx.rng.uniform(0.92, 1.08, 5)
    decays, levels = ctx.uniform(0.07, 0.2) / np.array([1, 1.2, 1.5, 2, 2.5]), ctx.rng.uniform(0.3, 1.0, 5)
    tap, hardness = ctx.log_uniform(700, 1800), ctx.uniform(0.15, 0.5)
    blows = []
    for time in onsets(ctx, 1 / ctx.uniform(3.2, 6.5), 0.08, group=(3, 6), rest=ctx.uniform(0.15, 0.5)):
        loud = ctx.uniform(0.6, 1.0)
        door = modes(ctx, 0.25, panel * ctx.uniform(0.98, 1.02), decays, levels * ctx.rng.uniform(0.6, 1.0, 5))
        knuckle = noise(ctx, band(0.5 * tap, 2.5 * tap, 1.2), 0.03) * percussive(ctx, 0.03, 0.001, 0.03) * hardness
        blows += [(time, loud * door), (time, loud * knuckle)]
    return mix(ctx, blows)


def typing(ctx: SynthContext) -> Array:
    """Keys at 5 to 11 a second and never in time: each clicks going down and, softer, coming up."""
    case = ctx.log_uniform(300, 700)
    click = ctx.log_uniform(1800, 3800)
    thock, crisp = ctx.uniform(0.1, 0.5), ctx.uniform(0.5, 1.0)
    events = []
    for time in onsets(ctx, 1 / ctx.uniform(5, 11), 0.6, group=(4, 11), rest=ctx.uniform(0.05, 0.25)):
        key = ctx.rng.uniform(0.8, 1.25)
        loud, hold = ctx.uniform(0.4, 1.0), ctx.uniform(0.05, 0.1)
        partials = click * key * np.array([1, 1.45, 2.1, 2.9]) * ctx.rng.uniform(0.95, 1.05, 4)
        plastic = modes(ctx, 0.04, partials, ctx.uniform(0.012, 0.03), ctx.rng.uniform(0.3, 1.0, 4))
        down = modes(ctx, 0.06, case * key * np.array([1, 1.8]), 0.04, thock) + 0.0
        down[: len(plastic)] += plastic
        snap = noise(ctx, band(click, 11000, 1.0), 0.01) * percussive(ctx, 0.01, 0.0003, 0.008) * crisp
        events += [(time, loud * down), (time, loud * snap), (time + hold, 0.4 * loud * plastic)]
        events.append((time + hold, 0.5 * loud * snap))
    return mix(ctx, events)


def tick_tock(ctx: SynthContext) -> Array:
    """A clock, in time as nothing else is: two different clicks in turn, a wooden case behind them."""
    period = 1 / ctx.uniform(2.0, 5.0)
    wheel = ctx.log_uniform(2200, 4800)
    case = ctx.log_uniform(500, 1100) * np.array([1, 1.7, 2.6])
    wooden, lower = ctx.uniform(0.15, 0.6), ctx.uniform(0.68, 0.88)
    uneven = ctx.uniform(-0.06, 0.06) * period  # the pendulum hangs a little askew
    events = []
    for i, time in enumerate(onsets(ctx, period, 0.002)):
        pitch = lower if i % 2 else 1.0
        metal = modes(
            ctx, 0.06, wheel * pitch * np.array([1, 1.34, 1.83, 2.4]), ctx.uniform(0.03, 0.05), [1, 0.8, 0.6, 0.4]
        )
        echo = modes(ctx, 0.1, case * pitch, 0.07, wooden)
        pawl = noise(ctx, band(2000, 9000, 1.0), 0.006) * percussive(ctx, 0.006, 0.0003, 0.006) * 0.5
        at = time + (uneven if i % 2 else 0.0)
        loud = ctx.uniform(0.85, 1.0)
        events += [(at, loud * metal), (at, loud * echo), (at, loud * pawl)]
        events.append((at + ctx.uniform(0.018, 0.024), 0.35 * loud * metal))  # the second fall of the anchor
    return mix(ctx, [(max(time, 0.0), sound) for time, sound in events])


def whack(ctx: SynthContext) -> Array:
    """A stick swung and landing: a swish that grows and rises, then a slap that fills the spectrum."""
    swing, flesh = ctx.uniform(0.1, 0.22), ctx.log_uniform(250, 700)
    strength = ctx.uniform(0.06, 0.22)
    low = ctx.log_uniform(500, 1100)
    events = []
    for time in onsets(ctx, 1 / ctx.uniform(1.3, 2.6), 0.15):
        length = swing * ctx.uniform(0.8, 1.2)
        u = np.arange(int(length * ctx.rate)) / (length * ctx.rate)
        slow, fast = (noise(ctx, band(low * up, 2.5 * low * up, 2.0), length) for up in (1.0, 2.5))
        swish = strength * (slow * (1 - u) + fast * u) * u**2
        body = noise(ctx, band(flesh, 4 * flesh, 1.0), 0.2) * percussive(ctx, 0.2, 0.001, ctx.uniform(0.06, 0.14))
        slap = noise(ctx, band(1500, 10000, 0.7), 0.06) * percussive(ctx, 0.06, 0.0005, ctx.uniform(0.02, 0.05))
        loud = ctx.uniform(0.7, 1.0)
        events += [(time, swish), (time + length, loud * body), (time + length, loud * slap)]
    return mix(ctx, events)


def siren(ctx: SynthContext) -> Array:
    """Wail (slow), yelp (fast) or two tones, from a horn that passes 500 to 5,000 Hz."""
    times = ctx.control_times
    low, high = ctx.log_uniform(480, 750), ctx.log_uniform(950, 1700)
    kind = ctx.rng.integers(3)
    swings = (ctx.uniform(0.25, 0.7), ctx.uniform(2.5, 4.5), ctx.uniform(0.6, 1.2))[kind]
    phase = (times * swings + ctx.rng.random()) % 1.0
    up = ctx.uniform(0.35, 0.65)
    if kind == 2:
        height = np.clip(20 * np.where(phase < 0.5, phase, 1 - phase) - 4, 0, 1)  # a short glide at each change
        high = low * ctx.uniform(1.25, 1.45)
    else:
        height = np.where(phase < up, phase / up, (1 - phase) / (1 - up))
    f0 = upsample(ctx, low * (high / low) ** height * np.exp(0.003 * slow_noise(ctx, 20)))
    weights = np.arange(1, 20.0) ** -ctx.uniform(0.6, 1.3)
    weights[1::2] *= ctx.uniform(0.2, 1.0)
    tone = harmonics(ctx, f0, weights)
    blown = tone + noise(ctx, band(600, 5000, 1.0)) * ctx.log_uniform(0.03, 0.12)
    horn = ctx.log_uniform(1200, 2600)
    return filtered(ctx, blown, band(500, ctx.uniform(3500, 7000), 2.0)) + 0.5 * filtered(
        ctx, blown, band(0.8 * horn, 1.25 * horn, 4.0)
    )
