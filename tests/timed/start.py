"""What a command costs before it does anything."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from timed.data import make_predictions
from timed.timing import Line, compare, run_python


def lines(quick: bool) -> Iterator[Line]:
    """Here `plain` is what must at least be loaded, so a ratio of 0.5 is twice its time."""
    rounds = 5 if quick else 21
    bat = ("-m", "batcli")
    yield compare("bat --help", lambda: run_python(*bat, "--help"), lambda: run_python("-c", "import typer"), rounds)
    with tempfile.TemporaryDirectory() as name:
        file = str(make_predictions(Path(name) / "small.jsonl", 100))
        yield compare("bat score, 100 predictions", lambda: run_python(*bat, "score", "-q", file), None, rounds)


def growth(quick: bool) -> Iterator[Line]:
    """Nothing to grow."""
    yield from ()
