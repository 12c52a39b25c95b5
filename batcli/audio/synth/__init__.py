"""Synthesise clips of 28 classes of AudioSet, each with parameters of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from batcli.audio.synth import living, music, things
from batcli.audio.synth.parts import FRAME, Array, Synthesizer
from batcli.core.errors import InputError
from batcli.data.constants import SAMPLE_RATE

SHORTEST, LONGEST = 0.5, 60.0  # seconds
LOWEST_RATE, HIGHEST_RATE = 16_000, 192_000  # Hz
QUIETEST, LOUDEST = -41.0, -26.0  # dBFS, RMS
CREST = 24.0  # dB between RMS and the peak at which the recorder's limiter holds


@dataclass(frozen=True)
class SynthClass:
    """A class that can be synthesised: AudioSet's mid and display name, and the function that makes a clip."""

    mid: str
    name: str
    recipe: Callable[[Synthesizer], Array]


# In AudioSet's order; the place in the list is the class's index.
LABELS: tuple[SynthClass, ...] = (
    SynthClass("/m/09x0r", "Speech", living.speech),
    SynthClass("/m/01j3sz", "Laughter", living.laughter),
    SynthClass("/t/dd00002", "Baby cry, infant cry", living.baby_cry),
    SynthClass("/m/01w250", "Whistling", living.whistling),
    SynthClass("/m/07pbtc8", "Walk, footsteps", living.footsteps),
    SynthClass("/m/0l15bq", "Clapping", living.clapping),
    SynthClass("/m/05tny_", "Bark", living.bark),
    SynthClass("/m/07qrkrw", "Meow", living.meow),
    SynthClass("/m/07pggtn", "Chirp, tweet", living.chirp),
    SynthClass("/m/09xqv", "Cricket", living.cricket),
    SynthClass("/m/09ld4", "Frog", living.frog),
    SynthClass("/m/042v_gx", "Acoustic guitar", music.acoustic_guitar),
    SynthClass("/m/05r5c", "Piano", music.piano),
    SynthClass("/m/06rvn", "Snare drum", music.snare_drum),
    SynthClass("/m/03w41f", "Church bell", music.church_bell),
    SynthClass("/m/0gy1t2s", "Bicycle bell", music.bicycle_bell),
    SynthClass("/m/03m9d0z", "Wind", things.wind),
    SynthClass("/m/06mb1", "Rain", things.rain),
    SynthClass("/m/0284vy3", "Train horn", music.train_horn),
    SynthClass("/m/09ct_", "Helicopter", things.helicopter),
    SynthClass("/m/07q2z82", "Accelerating, revving, vroom", things.revving),
    SynthClass("/m/07r4wb8", "Knock", things.knock),
    SynthClass("/m/02jz0l", "Water tap, faucet", things.water_tap),
    SynthClass("/m/0316dw", "Typing", things.typing),
    SynthClass("/m/07pp8cl", "Telephone bell ringing", music.telephone_bell),
    SynthClass("/m/03kmc9", "Siren", things.siren),
    SynthClass("/m/07qjznl", "Tick-tock", things.tick_tock),
    SynthClass("/m/07rdhzs", "Whack, thwack", things.whack),
)


def synthesise(
    what: str | int, rng: np.random.Generator, seconds: float, sample_rate: int = SAMPLE_RATE
) -> NDArray[np.float32]:
    """A new clip of a class: (round(seconds × sample_rate),), float32 in [−1, 1], without DC.

    `what`: AudioSet's display name, in any case, or an index into `LABELS`. All parameters are drawn from
    `rng`: the same state gives the same clip. The RMS is −41 to −26 dBFS whatever the class. Raises
    InputError for an unknown class, a length outside 0.5–60 s or a sample rate outside 16–192 kHz.
    """
    if not (math.isfinite(seconds) and SHORTEST <= seconds <= LONGEST):
        raise InputError(f"{seconds} s is no length for a made clip", hint=f"{SHORTEST} to {LONGEST:g} s")
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise InputError(f"a sample rate of {sample_rate} Hz", hint=f"{LOWEST_RATE} to {HIGHEST_RATE} Hz")
    synth = Synthesizer(round(seconds * sample_rate), sample_rate, rng)
    return _as_recording(synth, _find(what).recipe(synth))


def _find(what: str | int) -> SynthClass:
    """The class of a name or an index. Raises InputError when there is none."""
    if isinstance(what, str):
        found = [label for label in LABELS if label.name.lower() == what.lower()]
    else:
        found = list(LABELS[what : what + 1]) if what >= 0 else []
    if not found:
        raise InputError(f"no recipe for class {what!r}", hint=f"0 to {len(LABELS) - 1}, or a name in LABELS")
    return found[0]


def _as_recording(synth: Synthesizer, sound: Array) -> NDArray[np.float32]:
    """Add what recordings of any class have: colour, ambience, limiter, fades, level."""
    size = fft.next_fast_len(synth.n + FRAME, real=True)
    f = synth.frequencies(size)
    slope, corner = synth.uniform(-0.35, 0.35), synth.log_uniform(25, 60)
    heard = fft.rfft(sound, size) * (f**slope / (1 + (corner / f) ** 4))
    ambience = synth.random_spectrum(size) * np.maximum(f, 60.0) ** synth.uniform(-0.9, 0.0)
    distance = 10 ** (-synth.uniform(24, 48) / 20)  # of the ambience, below the sound
    sound = fft.irfft(heard / _norm(heard) + distance * ambience / _norm(ambience), size)[: synth.n]
    sound /= np.sqrt(np.mean(sound**2))
    ceiling = 10 ** (CREST / 20)
    sound = ceiling * np.tanh(sound / ceiling)
    fade = min(int(0.004 * synth.rate), synth.n // 4)
    ramp = np.linspace(0, 1, fade, endpoint=False)
    sound[:fade] *= ramp
    sound[synth.n - fade :] *= ramp[::-1]
    sound -= sound.mean()
    level = 10 ** (synth.uniform(QUIETEST, LOUDEST) / 20) / np.sqrt(np.mean(sound**2))
    return (sound * min(level, 0.999 / np.abs(sound).max())).astype(np.float32)


def _norm(spectrum: NDArray[Any]) -> float:
    # Not `vdot`: a BLAS may add in another order with another number of threads.
    return float(np.sqrt(np.sum(spectrum.real**2 + spectrum.imag**2)) + 1e-12)
