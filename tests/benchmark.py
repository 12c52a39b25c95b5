"""How fast the data engine is, beside a plain version of the same work in the same run.

    python tests/benchmark.py [--quick] [--json FILE]

Each round times ours and the plain version one after the other; shown are medians over the rounds,
their ratio, and the quartiles of the per-round ratio. One thread. `tests/test_benchmark.py` checks
that both compute the same thing; no test looks at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from scipy.signal import fftconvolve

from batcli.audio.convolve import RMS_DBFS
from batcli.audio.hrtf import kemar
from batcli.audio.io import write_brir, write_wav
from batcli.audio.render import Settings, forget, render_files
from batcli.audio.rooms import draw_scene, simulate
from batcli.audio.synth import synthesise
from batcli.core.catalogue import Clip, Label, Reverb
from batcli.core.geometry import locate, octant
from batcli.questions.generate import generate

RATE = 32_000


class Line(NamedTuple):
    name: str
    ours: float  # seconds, median
    plain: float | None
    ratio: tuple[float, float, float] | None  # quartiles of plain / ours
    n: int  # rounds
    items: int  # per round

    @property
    def rate(self) -> float:
        return self.items / self.ours


def plain_render(files: list[tuple[Path, Path]], seconds: float) -> np.ndarray:
    """The reference's rendering: float64 reading, `fftconvolve` of everything, cut at the end."""
    length, scene = round(seconds * RATE), []
    for clip_path, brir_path in files:
        clip = soundfile.read(clip_path, always_2d=True)[0][:, 0]
        clip = clip * 10 ** (RMS_DBFS / 20) / np.sqrt(np.mean(clip**2))
        brir = np.load(brir_path).astype(np.float64)
        wet = np.stack([fftconvolve(clip, ear) for ear in brir])[:, :length]
        scene.append(np.pad(wet, ((0, 0), (0, length - wet.shape[1]))))
    return np.mean(scene, axis=0)


def compare(name: str, ours: Callable[[], object], plain: Callable[[], object] | None, rounds: int, items: int) -> Line:
    """Interleaved rounds, after one of each that does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for work, kept in zip((ours, plain), times, strict=True):
            if work is None:
                continue
            start = time.perf_counter()
            work()
            if number:
                kept.append(time.perf_counter() - start)
    mine, theirs = times
    if not theirs:
        return Line(name, statistics.median(mine), None, None, rounds, items)
    low, middle, high = np.quantile([b / a for a, b in zip(mine, theirs, strict=True)], [0.25, 0.5, 0.75])
    ratio = (float(low), float(middle), float(high))
    return Line(name, statistics.median(mine), statistics.median(theirs), ratio, rounds, items)


def make_files(folder: Path, seconds: float = 10.0, brir_seconds: float = 1.3) -> list[tuple[Path, Path]]:
    """Two clips and two BRIRs as the published data has them: 10 s at 16 bit, 42,000 taps."""
    rng = np.random.default_rng(0)
    room, listener, sources = draw_scene(rng, [octant(locate((0, 0, 0), (1, 1, -1)))] * 2, rt60=(0.6, 0.6))
    brirs = simulate(room, listener, sources, kemar(), rng, brir_seconds)
    files = []
    for number, brir in enumerate(brirs):
        clip_path, brir_path = folder / f"{number}.wav", folder / f"{number}.npy"
        write_wav(clip_path, synthesise(number, rng, seconds)[None], RATE, "pcm16")
        write_brir(brir_path, brir.samples)
        files.append((clip_path, brir_path))
    return files


def _rooms(count: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(count):
        room, listener, sources = draw_scene(rng, [octant(locate((0, 0, 0), (1, 1, -1)))] * 4)
        simulate(room, listener, sources, kemar(), rng, 1.0)


def _questions(count: int) -> None:
    labels = [Label(n, f"/m/{n}", f"sound {n}") for n in range(40)]
    clips = [Clip(f"a/{n}", (f"/m/{n % 40}",)) for n in range(800)]
    rng = np.random.default_rng(2)
    reverbs = {}
    for number in range(1_200):
        place = rng.normal(0, 2, 3)
        name = f"room{number // 6}/{number % 6}.npy"
        x, y, z = (float(value) for value in place)
        reverbs[name] = Reverb(name, locate((0, 0, 0), (x, y, z)), (x, y, z), {})
    for question in generate(clips, labels, reverbs, count):
        json.dumps(question.to_dict())


def lines(quick: bool) -> list[Line]:
    rounds, scale = (3, 1) if quick else (15, 4)
    with tempfile.TemporaryDirectory() as name:
        files = make_files(Path(name))

        def ours(sources: int) -> None:
            forget()  # nothing kept from the round before
            render_files(files[:sources], Settings())

        found = [
            compare("one source, 10 s", lambda: ours(1), lambda: plain_render(files[:1], 10.0), rounds, 1),
            compare("two sources, 10 s", lambda: ours(2), lambda: plain_render(files, 10.0), rounds, 1),
            compare(
                "one source, BRIR kept",
                lambda: render_files(files[:1], Settings()),
                lambda: plain_render(files[:1], 10.0),
                rounds,
                1,
            ),
        ]
    found.append(compare("BRIRs, 1 s, 7 bands", lambda: _rooms(5 * scale), None, rounds, 20 * scale))
    found.append(compare("questions", lambda: _questions(2_500 * scale), None, rounds, 2_500 * scale))
    return found


def table(found: list[Line]) -> str:
    rows = [f"{'':<24}{'ours':>10}{'per second':>12}{'plain':>10}{'ratio':>8}  quartiles      n"]
    for line in found:
        plain = f"{line.plain * 1e3:8.1f}ms" if line.plain is not None else f"{'–':>10}"
        ratio = f"{line.ratio[1]:7.1f}×  {line.ratio[0]:.1f}–{line.ratio[2]:.1f}" if line.ratio else f"{'–':>8}"
        rows.append(f"{line.name:<24}{line.ours * 1e3:8.1f}ms{line.rate:12,.0f}{plain:>10}{ratio:<20}{line.n:>6}")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    found = lines(given.quick)
    print(table(found))
    if given.json:
        given.json.write_text(json.dumps([line._asdict() for line in found], indent=2))


if __name__ == "__main__":
    main()
