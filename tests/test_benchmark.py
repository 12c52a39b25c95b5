"""The benchmark runs, and both sides of each comparison compute the same thing. No test looks at a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import benchmark
import numpy as np
import pytest
import torch
from timed import data, decoding, encoder, rendering, training
from timed.plain import plain_render
from timed.timing import compare, run_python, table, weigh_python

from batcli.audio.render import RenderSettings, render_files
from batcli.model.config import PRESETS, EncoderConfig
from batcli.model.encoders.spatial_ast import SpatialAST

SMALL = EncoderConfig(seconds=0.5, n_classes=5, n_mels=32, dim=32, depth=2, heads=4)


@pytest.mark.parametrize("sources", [1, 2])
def test_both_renderings_are_the_same(tmp_path: Path, sources: int):
    files = rendering.make_files(tmp_path, seconds=2.0, brir_seconds=0.5)[:sources]
    plain = plain_render(files, 2.0)
    exact = render_files(files, RenderSettings(2.0, rendering="published"))
    np.testing.assert_allclose(exact, plain, atol=1e-6 * np.abs(plain).max())
    ours = rendering.render_anew(files, 2.0)  # trimmed at −80 dB
    assert np.sqrt(np.mean((ours - plain) ** 2)) < 1e-3 * np.sqrt(np.mean(plain**2))


def test_both_encoders_are_the_same():
    torch.manual_seed(0)
    model = SpatialAST(SMALL).eval()
    waveform = 0.1 * torch.randn(2, 2, SMALL.samples)
    with torch.inference_mode():
        torch.testing.assert_close(encoder.plain_encode(model, waveform), model(waveform), atol=1e-3, rtol=0)


def test_the_matrix_products_are_those_of_the_encoder():
    model = SpatialAST(SMALL).eval()
    operands = [tuple(a.shape) + tuple(b.shape)[-1:] for a, b in encoder.products(SMALL, 2)]
    seen = []
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda m, inputs, out: seen.append((inputs[0][..., 0].numel(), m.in_features, m.out_features))
            )
    model(torch.zeros(2, 2, SMALL.samples))
    assert len(seen) == 4 * SMALL.depth
    assert all(operands.count(shape) >= seen.count(shape) for shape in seen)


def test_both_decodings_give_the_same_answers(tmp_path: Path):
    exam = decoding.make_exam(tmp_path, scenes=4, beams=4)
    answers = decoding.ours(exam)
    assert len(answers) == 16
    assert len(set(answers)) > 1
    assert answers == decoding.plain(exam)


def test_both_epochs_have_the_same_losses(tmp_path: Path):
    course = training.make_course(tmp_path, PRESETS["tiny"], scenes=4, batch=8)
    losses = training.ours(course)
    assert len(losses) == 2
    assert losses == pytest.approx(training.plain(course), rel=1e-2)  # the shelf holds 16 bits
    assert training.ours(course) == pytest.approx(losses)
    assert training.fresh(course) == pytest.approx(losses, rel=1e-3)


def test_every_record_is_imported(tmp_path: Path):
    line = data.import_line(tmp_path, 50)
    assert line.items == 50
    kept = json.loads((tmp_path / "data/questions/train.jsonl").read_text().splitlines()[7])
    assert kept == list(data.released(50))[7]


def test_the_ratio_is_of_the_same_round():
    line = compare("sum", lambda: sum(range(100)), lambda: sum(range(100_000)), rounds=3, items=2)
    assert line.n == 3
    assert line.ratio is not None
    assert line.ratio[0] <= line.ratio[1] <= line.ratio[2]
    assert line.ratio[1] > 1
    assert "sum" in table([line])


def test_a_process_that_fails_is_not_timed():
    assert run_python("-c", "print(6 * 7)") == "42\n"
    with pytest.raises(RuntimeError, match="no such thing"):
        run_python("-c", "raise ValueError('no such thing')")


def test_the_memory_of_a_process_is_its_own():
    mine = np.ones(30_000_000)  # 240 MB, which a child must not be charged for
    seconds, megabytes = weigh_python("-c", "x = bytearray(80_000_000)")
    assert mine[-1] == 1
    assert seconds > 0
    assert 80 < megabytes < 160


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--growth"]])
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: list):
    out = tmp_path / "out.json"
    monkeypatch.setattr(rendering, "SCENES", 1)
    monkeypatch.setattr(
        sys, "argv", ["benchmark.py", "--quick", "--only", "render,decode,start", *option, "--json", str(out)]
    )
    benchmark.main()
    names = [line["name"] for line in json.loads(out.read_text())]
    shown = capsys.readouterr().out
    assert names
    assert all(name in shown for name in names)


def test_a_stage_that_is_not_there(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--only", "rendering"])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert "unknown stage 'rendering'" in capsys.readouterr().err
