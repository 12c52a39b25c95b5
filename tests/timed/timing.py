"""Timing two ways of doing the same work, one after the other, round by round."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Work = Callable[[], object]


class Line(NamedTuple):
    """What one row of the table says: medians over the rounds, of seconds per item or of what `unit` says."""

    name: str
    ours: float
    plain: float | None
    ratio: tuple[float, float, float] | None  # quartiles of plain / ours, both of the same round
    n: int  # rounds
    items: int  # in each round
    note: str = ""
    unit: str = "s"


def times(works: Sequence[Work], rounds: int) -> list[list[float]]:
    """Seconds of each work in each round; before them, one round that does not count."""
    found: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for work, kept in zip(works, found, strict=True):
            start = time.perf_counter()
            work()
            if number:
                kept.append(time.perf_counter() - start)
    return found


def compare(name: str, ours: Work, plain: Work | None, rounds: int, items: int = 1, note: str = "") -> Line:
    """Interleaved rounds of both; each does `items` items of work."""
    mine, *others = times([ours] if plain is None else [ours, plain], rounds)
    each = statistics.median(mine) / items
    if not others:
        return Line(name, each, None, None, rounds, items, note)
    theirs = statistics.median(others[0]) / items
    return Line(name, each, theirs, quartiles(mine, others[0]), rounds, items, note)


def quartiles(ours: Sequence[float], plain: Sequence[float]) -> tuple[float, float, float]:
    """Of plain / ours, round by round."""
    low, middle, high = np.quantile([b / a for a, b in zip(ours, plain, strict=True)], [0.25, 0.5, 0.75])
    return float(low), float(middle), float(high)


def run_python(*arguments: str) -> str:
    """What a Python process prints. Raises RuntimeError when it fails."""
    process = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    if process.returncode:
        raise RuntimeError(f"{arguments}: {process.stderr[-500:]}")
    return process.stdout


def weigh_python(*arguments: str) -> tuple[float, float]:
    """(seconds, MB of memory at its peak) of a Python process."""
    # By way of a small one: a process is born with the peak of its parent.
    program = (
        "import resource, subprocess, sys, time; start = time.perf_counter();"
        "subprocess.run([sys.executable, *sys.argv[1:]], check=True, stdout=subprocess.DEVNULL);"
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)"
    )
    seconds, megabytes = run_python("-c", program, *arguments).split()
    return float(seconds), float(megabytes)


def table(lines: Sequence[Line], head: bool = True) -> str:
    rows = [f"{'':<34}{'ours':>10}{'per second':>12}{'plain':>10}{'ratio':>8}  quartiles      n"] if head else []
    for line in lines:
        plain = "–" if line.plain is None else amount(line.plain, line.unit)
        rate = f"{1 / line.ours:,.4g}" if line.unit == "s" else "–"
        ratio = f"{line.ratio[1]:7.1f}×  {line.ratio[0]:.1f}–{line.ratio[2]:.1f}" if line.ratio else f"{'–':>7}"
        ours = amount(line.ours, line.unit)
        rows.append(f"{line.name:<34}{ours:>10}{rate:>12}{plain:>10}{ratio:<21}{line.n:>4}")
        if line.note:
            rows.append(f"  {line.note}")
    return "\n".join(rows)


def amount(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:,.0f} {unit}"
    for scale, name in ((1.0, "s"), (1e-3, "ms")):
        if value >= scale:
            return f"{value / scale:.2f} {name}"
    return f"{value * 1e6:.1f} µs"
