"""`tests/gpu.py` on a processor, with small models: the part with the published preset; what it calls still exists."""

from __future__ import annotations

from pathlib import Path

import gpu
import torch


def test_every_check_of_the_published_preset_passes(tmp_path: Path, capsys):
    bench = gpu.Bench(torch.device("cpu"), True, tmp_path)
    gpu.published(bench)
    lines = capsys.readouterr().out.splitlines()
    assert not bench.failed, lines
    for words in ("scenes/s", "questions/s", "--batch-size auto", "decode, beams 4", "relative difference"):
        assert any(words in line for line in lines), words


def test_a_check_that_fails_is_reported_and_the_next_begins(tmp_path: Path, capsys):
    bench = gpu.Bench(torch.device("cpu"), True, tmp_path)
    with bench.check("broken"):
        raise RuntimeError("no such kernel")
    assert bench.failed == ["broken"]
    assert "broken: FAILED: RuntimeError: no such kernel" in capsys.readouterr().out


def test_the_readme_s_table_is_found():
    assert gpu.computed()[gpu.ROWS["answers"]][8] > 13.5
