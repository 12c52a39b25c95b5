"""Rendering: two ears' sound from clips and BRIRs on disk."""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scipy.fft import fft, ifft, next_fast_len
from timed.plain import RATE, Files, plain_many
from timed.timing import Line, compare, quartiles, times

from batcli.audio.convolve import BLOCK, ROWS, trim
from batcli.audio.hrtf import kemar
from batcli.audio.io import write_wav
from batcli.audio.render import RenderSettings, clear_cache, render_files
from batcli.audio.rooms import draw_scene, simulate
from batcli.audio.synth import synthesise
from batcli.data.geometry import locate, octant

SCENES = 10  # of a round


def make_files(folder: Path, seconds: float = 10.0, brir_seconds: float = 1.3, rt60: float = 0.2) -> Files:
    """Two clips and two BRIRs as the published data has them: 10 s at 16 bit; 42,000 taps in float64.

    The BRIRs decay as fast as the two published ones that the project has.
    """
    rng = np.random.default_rng(0)
    room, listener, sources = draw_scene(rng, [octant(locate((0, 0, 0), (1, 1, -1)))] * 2, rt60=(rt60, rt60))
    brirs = simulate(room, listener, sources, kemar(), rng, brir_seconds)
    files = []
    for number, brir in enumerate(brirs):
        clip_path, brir_path = folder / f"{number}.wav", folder / f"{number}.npy"
        write_wav(clip_path, synthesise(number, rng, seconds)[None], RATE, "pcm16")
        np.save(brir_path, brir.samples.astype(np.float64))
        files.append((clip_path, brir_path))
    return files


def render_anew(files: Files, seconds: float) -> np.ndarray:
    """Ours, with nothing kept from the scene before."""
    clear_cache()
    return render_files(files, RenderSettings(seconds))


def render_many(files: Files, seconds: float, count: int, anew: bool = True) -> None:
    for _ in range(count):
        render_anew(files, seconds) if anew else render_files(files, RenderSettings(seconds))


def transforms(files: Files, seconds: float) -> list[np.ndarray]:
    """The FFTs of a scene and nothing else: those of each clip's blocks, and back for each ear."""
    length = round(seconds * RATE)
    taps = max(trim(np.load(brir)).shape[1] for _, brir in files)
    groups = max(1, round(length / (2 * ROWS * BLOCK)))
    size = next_fast_len(-(-length // (2 * ROWS * groups)) + taps - 1)
    blocks = np.zeros((ROWS, size), np.complex64)
    there = [fft(blocks, overwrite_x=True) for _ in range(groups) for _ in files]
    return there + [ifft(blocks, overwrite_x=True) for _ in range(groups) for _ in range(2)]


def many_transforms(files: Files, seconds: float, count: int) -> None:
    for _ in range(count):
        transforms(files, seconds)


def lines(quick: bool) -> Iterator[Line]:
    rounds = 5 if quick else 25
    # A process for each way: what one leaves in the memory allocator is not the other's.
    with tempfile.TemporaryDirectory() as name, _processes(1) as ours, _processes(1) as plain:

        def line(what: str, files: Files, seconds: float, anew: bool = True) -> Line:
            floor = statistics.median(times([partial(transforms, files, seconds)], rounds)[0])
            return compare(
                f"render {what}",
                lambda: ours.submit(render_many, files, seconds, SCENES, anew).result(),
                lambda: plain.submit(plain_many, files, seconds, SCENES).result(),
                rounds,
                SCENES,
                f"its FFTs alone: {floor * 1e3:.2f} ms",
            )

        published, lively, short = (Path(name) / part for part in ("published", "lively", "short"))
        for path in (published, lively, short):
            path.mkdir()
        files, reverberant = make_files(published), make_files(lively, rt60=0.6)
        yield line("10 s, 1 source", files[:1], 10.0)
        yield line("10 s, 2 sources", files, 10.0)
        yield line("10 s, 1 source, files kept", files[:1], 10.0, anew=False)
        yield line("10 s, 1 source, RT60 0.6 s", reverberant[:1], 10.0)
        yield line("10 s, 2 sources, RT60 0.6 s", reverberant, 10.0)
        yield line("2 s, 2 sources, RT60 0.3 s", make_files(short, 2.0, 0.3, 0.3), 2.0)
        yield _two_processes(files[:1], ours, rounds)


def _processes(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, get_context("spawn"))


def _two_processes(files: Files, one: ProcessPoolExecutor, rounds: int) -> Line:
    """Here `plain` is one process of ours with as many scenes. What the processors themselves allow, which may
    share more than memory, says the same comparison of nothing but the FFTs."""
    with _processes(2) as two:

        def both(work: Callable[..., None]) -> None:
            for future in [two.submit(work, files, 10.0, 5 * SCENES) for _ in range(2)]:
                future.result()

        def alone(work: Callable[..., None]) -> None:
            one.submit(work, files, 10.0, 10 * SCENES).result()

        ffts = quartiles(*times([partial(both, many_transforms), partial(alone, many_transforms)], rounds))[1]
        note = f"of its FFTs alone {ffts:.2f} ×; {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
        name = "render 10 s, 2 processes to 1"
        return compare(name, partial(both, render_many), partial(alone, render_many), rounds, 10 * SCENES, note)


def growth(quick: bool) -> Iterator[Line]:
    """Against the scene's length, and the number of sources."""
    rounds = 3 if quick else 9
    with tempfile.TemporaryDirectory() as name:
        for seconds in (1.0, 3.0, 10.0, 30.0, 60.0):
            folder = Path(name) / f"{seconds:g}"
            folder.mkdir()
            files = make_files(folder, seconds)[:1]
            ours = partial(render_anew, files, seconds)
            yield compare(f"render, per second of {seconds:g} s", ours, None, rounds, round(seconds))
        files = make_files(Path(name))
        for count in (1, 2, 4, 8, 16, 32):
            ours = partial(render_anew, (files * count)[:count], 10.0)
            yield compare(f"render 10 s, per source of {count}", ours, None, rounds, count)
