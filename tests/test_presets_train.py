"""Every preset trains every stage by its own recipe, small: one process and two, fp32 and bf16."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from accelerate.utils import set_seed
from safetensors.torch import load_file

import batcli.training.resolve
from batcli.data.dataset import open_dataset
from batcli.model import checkpoint
from batcli.model.config import PRESETS, SOURCES_BESIDE, LlmConfig, ModelConfig, SourcesConfig
from batcli.options import DemoOptions, TrainOptions
from batcli.prepare.demo import demo
from batcli.train import train
from batcli.training.build import build_model
from batcli.training.recipe import CURRICULUM, RECIPES, Recipe
from batcli.training.resolve import resolve

ROOT = Path(__file__).resolve().parents[1]
PRECISIONS = ("fp32", "bf16")
PROCESSES = (1, 2)


CASES = [
    *((name, "encoder,1,2,3") for name in PRESETS),
    *((name, "encoder,sources,1,2,3") for name, config in PRESETS.items() if config.sources is None),
]
"""Preset and stages; source tokens are added to every preset that has none."""


def small(config: ModelConfig) -> ModelConfig:
    """The same parts, two layers of each, narrow."""
    return replace(
        config,
        encoder=config.encoder and replace(config.encoder, dim=16, depth=2, heads=2),
        dspast=config.dspast and replace(config.dspast, dim=16, depth=2, heads=2, branch_dim=8),
        qformer=replace(config.qformer, layers=2, queries=3, dim=16, heads=2),
        llm=config.llm and LlmConfig(dim=24, mlp_dim=32, layers=2, heads=4),
        sources=config.sources and small_sources(config.sources),
    )


def small_sources(config: SourcesConfig) -> SourcesConfig:
    return replace(config, bands=16, hidden=8, event_dim=4)


def short(recipe: Recipe) -> Recipe:
    """The same recipe with two or three updates per stage."""
    questions = 240
    epochs = 3 * (recipe.update or 2 * recipe.batch) / questions
    sources = {"source_scenes": 128, "source_epochs": 2}
    if recipe.source_update is not None:
        sources |= {"source_update": 128, "source_batch": 16}
    encoder = {"encoder_epochs": 2, "encoder_warmup": 1.0, "encoder_update": 32, "encoder_batch": 8}
    return replace(recipe, **encoder, **sources, epochs=(6 * epochs, 3 * epochs, epochs))


def shrink() -> None:
    for name in PRESETS:
        PRESETS[name], RECIPES[name] = small(PRESETS[name]), short(RECIPES[name])
    batcli.training.resolve.SOURCES_BESIDE = small_sources(SOURCES_BESIDE)


def options_of(case: tuple[str, str], precision: str, data: Path, llm: Path, folder: Path) -> TrainOptions:
    preset, stages = case
    return TrainOptions(
        data=data,
        output=folder / f"{preset}-{stages}-{precision}",
        preset=preset,
        stages=stages,
        precision=precision,
        llm=None if PRESETS[preset].llm else llm,
        log_every=1,
        workers=1,
        device="cpu",
    )


def train_all(data: Path, llm: Path, folder: Path) -> None:
    """Train each case in each precision below `folder`; an error goes to a file in its place."""
    shrink()
    for case in CASES:
        for precision in PRECISIONS:
            options = options_of(case, precision, data, llm, folder)
            try:
                train(options)
            except Exception as error:
                if os.environ.get("RANK", "0") == "0":
                    options.output.with_suffix(".error").write_text(repr(error))
            AcceleratorState._reset_state()  # its precision is the process's, not a training's


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with scenes of half a second."""
    folder = tmp_path_factory.mktemp("presets") / "data"
    demo(DemoOptions(data=folder, clips=3, rooms=12, sources=4, count=240, eval_count=60, seconds=0.5, jobs=1))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`trained(processes)`: the folder of all runs that this number of processes trained together."""
    done: dict[int, Path] = {}

    def runs(processes: int) -> Path:
        if processes not in done:
            done[processes] = folder = tmp_path_factory.mktemp(f"by-{processes}")
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
            command = [sys.executable, *(launcher if processes > 1 else ()), __file__]
            where = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            words = [str(path) for path in (data, llm_folder, folder)]
            result = subprocess.run([*command, *words], env=where, timeout=900, capture_output=True, text=True)
            assert result.returncode == 0, result.stderr
        return done[processes]

    return runs


@pytest.mark.parametrize("processes", PROCESSES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_every_stage_learns(
    case: tuple[str, str],
    precision: str,
    processes: int,
    data: Path,
    llm_folder: Path,
    trained: Callable[[int], Path],
    monkeypatch,
):
    folder = trained(processes)
    options, preset = options_of(case, precision, data, llm_folder, folder), case[0]
    error = options.output.with_suffix(".error")
    assert not error.exists(), error.read_text()
    assert (options.output / checkpoint.DONE).exists()
    log = [json.loads(line) for line in (options.output / "log.jsonl").read_text().splitlines()]
    config = checkpoint.read_config(options.output)
    parts = {*config.encoders, *CURRICULUM}
    assert {entry["stage"] for entry in log} == parts
    for stage in parts:
        assert sum(entry["stage"] == stage for entry in log) >= 2, stage
    # A value that is not finite is null in the log.
    assert all(entry["loss"] is not None and entry["grad_norm"] is not None for entry in log)
    monkeypatch.setitem(PRESETS, preset, small(PRESETS[preset]))
    monkeypatch.setitem(RECIPES, preset, short(RECIPES[preset]))
    monkeypatch.setattr(batcli.training.resolve, "SOURCES_BESIDE", small_sources(SOURCES_BESIDE))
    set_seed(options.seed)
    start = dict(build_model(resolve(options, open_dataset(data)))[0].projector.named_parameters(prefix="projector"))
    projector = load_file(options.output / checkpoint.PROJECTOR)
    assert not [name for name, tensor in start.items() if torch.equal(tensor, projector[name])]
    if config.lora is not None:
        lora = load_file(options.output / checkpoint.ADAPTER / checkpoint.ADAPTER_WEIGHTS)
        ups = [tensor for name, tensor in lora.items() if "lora_B" in name]
        assert len(ups) == 2 * len(config.lora.targets)
        assert all(tensor.any() for tensor in ups)


if __name__ == "__main__":
    train_all(*map(Path, sys.argv[1:]))
