"""The benchmark runs, and both sides of each comparison compute the same thing. No test looks at a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import benchmark
import numpy as np
import pytest

from batcli.audio.render import Settings, render_files


@pytest.mark.parametrize("sources", [1, 2])
def test_both_renderings_are_the_same(tmp_path: Path, sources: int):
    files = benchmark.make_files(tmp_path, seconds=2.0, brir_seconds=0.5)[:sources]
    plain = benchmark.plain_render(files, 2.0)
    exact = render_files(files, Settings(2.0, resampler="poly"))
    np.testing.assert_allclose(exact, plain, atol=1e-6 * np.abs(plain).max())
    ours = render_files(files, Settings(2.0))  # trimmed at −80 dB
    assert np.sqrt(np.mean((ours - plain) ** 2)) < 1e-3 * np.sqrt(np.mean(plain**2))


def test_the_ratio_is_of_the_same_round():
    line = benchmark.compare("sum", lambda: sum(range(100)), lambda: sum(range(100_000)), rounds=3, items=2)
    assert line.n == 3
    assert line.ratio is not None
    assert line.ratio[0] <= line.ratio[1] <= line.ratio[2]
    assert line.ratio[1] > 1


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--quick", "--json", str(tmp_path / "out.json")])
    benchmark.main()
    names = [line["name"] for line in json.loads((tmp_path / "out.json").read_text())]
    shown = capsys.readouterr().out
    assert names
    assert all(name in shown for name in names)
