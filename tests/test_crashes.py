"""Killed at random moments, a command leaves nothing half under a final name. `tests/crashes.py` does it at length."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WHERE = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
def test_killed_and_run_again():
    """A kill or so of each command that needs no torch (THOROUGH=1: all of theirs), in a process without threads."""
    words = ["--kills-only", "--no-torch", "--share", os.environ.get("THOROUGH") or "0.03"]
    done = subprocess.run(
        [sys.executable, ROOT / "tests/crashes.py", *words], env=WHERE, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
