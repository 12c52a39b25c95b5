"""DSpAST's three stages, one from another, in small; saved and loaded in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from batcli.core.toml import read_toml
from batcli.model import checkpoint
from batcli.model.config import PRESETS
from batcli.model.encoders.dspast import DSpAST
from batcli.options import TrainOptions
from batcli.train import train

PRESET = "llama2-7b-dspast"
SHORT = ["encoder_epochs=1", "encoder_update=16", "encoder_batch=8", "encoder_warmup=0"]
SCALES = [f"dspast.{name}_head.s" for name in ("distance", "azimuth", "elevation")]
PLACES = ["dspast.pre_head1.bias", "dspast.pre_head2.bias", *(name.removesuffix("s") + "W" for name in SCALES)]


@pytest.fixture
def audiomae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The preset made small, and a file as AudioMAE's training leaves it, of its size."""
    config = PRESETS[PRESET]
    small = replace(config.dspast, dim=16, depth=2, heads=2, branch_dim=8)
    qformer = replace(config.qformer, layers=2, queries=3, dim=16, heads=2)
    monkeypatch.setitem(PRESETS, PRESET, replace(config, dspast=small, qformer=qformer))
    state = DSpAST(small).state_dict()
    blocks = {name: torch.randn_like(t) for name, t in state.items() if name.startswith(("patch_embed.", "blocks."))}
    torch.save({"model": {**blocks, "cls_token": torch.zeros(3)}}, tmp_path / "mae.pth")
    return tmp_path / "mae.pth"


def test_each_stage_goes_on_from_the_one_before(demo: Path, audiomae: Path, tmp_path: Path):
    def stage(number: int, **options: object) -> tuple[dict, dict, list[dict]]:
        """Train a stage → its tensors, the recipe that it recorded, its log."""
        run = tmp_path / str(number)
        small = {"set": SHORT, "log_every": 1, "workers": 1, "device": "cpu"}
        train(TrainOptions(data=demo, output=run, stages="encoder", recipe=f"dspast-{number}", **small, **options))
        log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        return load_file(run / checkpoint.ENCODER), read_toml(run / checkpoint.CONFIG)["recipe"], log

    first, recipe, log = stage(1, preset=PRESET, encoder_init=audiomae)
    assert recipe["loss_weights"] == [1, 0, 0]
    assert {entry["stage"] for entry in log} == {"dspast"}
    assert all(entry["losses"]["distance"] == entry["losses"]["direction"] == 0 for entry in log)
    mae = torch.load(audiomae, weights_only=True)["model"]["blocks.0.mlp.fc1.weight"]
    assert (first["dspast.blocks.0.mlp.fc1.weight"] - mae).abs().max() < 1e-3  # moved, from there
    before = first
    for number in (2, 3):
        after, recipe, log = stage(number, init=tmp_path / str(number - 1))
        assert recipe["loss_weights"] == [100, 2, 1]
        assert all(min(entry["losses"].values()) > 0 for entry in log)
        assert not [name for name in (*SCALES, *PLACES) if torch.equal(before[name], after[name])]
        assert all((before[name] - after[name]).abs().max() < 0.01 for name in before if name.endswith("weight"))
        before = after
    loaded = checkpoint.load_encoders(tmp_path / "3")[0].state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in before.items())
