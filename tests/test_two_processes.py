"""Two processes learn, bit by bit, what one learns with twice the accumulation: LoRA in bf16, cached and not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from test_presets_train import small

from batcli.data.dataset import open_dataset
from batcli.model.config import PRESETS
from batcli.options import TrainOptions
from batcli.train import train

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
CACHES = ("disk", "none")


def train_both(data: Path, llm: Path, folder: Path) -> None:
    """With each place of the encodings: three updates of two batches of 3 questions in stage 1, and four in stage 2."""
    PRESETS["llama2-7b"] = small(PRESETS["llama2-7b"])
    counts = open_dataset(data).split("train").counts
    first = counts["CLASSIFICATION"] + counts["DOA"]
    second = first + counts["MIXUP_SINGLE_CLASSIFICATION"] + counts["MIXUP_SINGLE_DOA"]
    options = TrainOptions(
        data=data,
        output=folder,
        preset="llama2-7b",
        llm=llm,
        precision="bf16",
        stages="1,2",
        batch_size="3",
        set=[f"epochs={18 / first},{24 / second},1", "update=6"],
        log_every=1,
        workers=1,
        device="cpu",
    )
    for cache in CACHES:
        train(replace(options, output=folder / cache, cache=cache))
        AcceleratorState._reset_state()


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = [run / "projector.safetensors", run / "adapter/adapter_model.safetensors"]
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def test_two_processes_and_both_places_give_the_same_bits(demo: Path, llm_folder: Path, tmp_path: Path):
    for processes in (1, 2):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        words = [__file__, *map(str, (demo, llm_folder, tmp_path / str(processes)))]
        where = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, *(launcher if processes > 1 else ()), *words]
        result = subprocess.run(command, env=where, timeout=400, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    runs = [tmp_path / str(processes) / cache for processes in (1, 2) for cache in CACHES]
    expected = weights(runs[0])
    assert any("lora_B" in name and tensor.any() for name, tensor in expected.items())
    for run in runs:
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [entry["stage"] for entry in log] == ["1"] * 3 + ["2"] * 4
        found = weights(run)
        assert found.keys() == expected.keys()
        assert not [name for name in found if not torch.equal(found[name], expected[name])], run


if __name__ == "__main__":
    train_both(*map(Path, sys.argv[1:]))
