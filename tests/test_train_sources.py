"""Source tokens added to a published model in small: trained, resumed, decoded, ablated."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import batcli.training.resolve
from batcli.core.errors import Stopped
from batcli.core.progress import Silent
from batcli.decode import decode
from batcli.model import checkpoint
from batcli.model.config import PRESETS, SOURCES_BESIDE
from batcli.options import DecodeOptions, TrainOptions
from batcli.train import train
from batcli.training.recipe import RECIPES

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from ablate import MENTION, TOKENS, ablate

AMOUNTS = ["source_scenes=48", "source_update=24", "source_batch=24", "update=40", "batch=20"]
STAGES = "sources,1,2,3"


class Lines(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(scope="module")
def start(demo: Path, llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published model in small, trained on `demo` for an update of its encoder and of stage 1."""
    folder = tmp_path_factory.mktemp("start")
    with pytest.MonkeyPatch.context() as patch:
        published = PRESETS["llama2-7b"]
        encoder = replace(published.encoder, n_mels=32, dim=16, depth=1, heads=2)
        qformer = replace(published.qformer, layers=1, queries=3, dim=16, heads=2)
        patch.setitem(PRESETS, "llama2-7b", replace(published, encoder=encoder, qformer=qformer))
        short = {"encoder_epochs": 1, "encoder_update": 64, "encoder_batch": 32, "epochs": (0.5, 0.5, 0.5)}
        patch.setitem(RECIPES, "llama2-7b", replace(RECIPES["llama2-7b"], **short, update=80, batch=40))
        train(
            TrainOptions(
                data=demo, output=folder / "run", preset="llama2-7b", llm=llm_folder, stages="encoder,1",
                workers=1, device="cpu",
            )
        )  # fmt: skip
    return folder / "run"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(SOURCES_BESIDE, bands=16, hidden=8, event_dim=4)
    monkeypatch.setattr(batcli.training.resolve, "SOURCES_BESIDE", small)


def options(demo: Path, start: Path, output: Path, **changes: Any) -> TrainOptions:
    return TrainOptions(
        data=demo, output=output, init=start, set=AMOUNTS, workers=1, device="cpu", log_every=1,
        **{"stages": STAGES, **changes},
    )  # fmt: skip


def tensors(run: Path) -> dict[str, torch.Tensor]:
    files = [
        run / checkpoint.ENCODER,
        run / checkpoint.PROJECTOR,
        run / checkpoint.ADAPTER / checkpoint.ADAPTER_WEIGHTS,
    ]
    return {f"{file.stem}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def trained(demo: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch:
        small = replace(SOURCES_BESIDE, bands=16, hidden=8, event_dim=4)
        patch.setattr(batcli.training.resolve, "SOURCES_BESIDE", small)
        train(options(demo, start, output))
    return output


def test_source_tokens_are_added_and_the_encoder_stays_as_it_was(start: Path, trained: Path):
    before, after = tensors(start), tensors(trained)
    kept = {name for name in before if name.startswith("encoder/encoder.")}
    assert kept
    assert all(torch.equal(before[name], after[name]) for name in kept)
    new = {name for name in after if name not in before}
    assert {name.split(".")[0] for name in new} == {"encoder/sources", "projector/projector"}
    moved = [name for name in before if "projector" in name and "/projector.linear" in name]
    assert not any(torch.equal(before[name], after[name]) for name in moved)
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(entry["stage"] for entry in log)) == STAGES.split(",")
    assert "grouping" in log[0]["losses"]
    added = after["projector/projector.mentions.map.1.weight"]
    assert added.any()
    assert added.abs().max() < 0.1, "from zero, a few updates"


@pytest.mark.parametrize(("bar", "count"), [("stage sources", 1), ("stage 3", 1)])
def test_a_stopped_training_ends_with_the_same_weights(
    demo: Path, start: Path, trained: Path, tmp_path: Path, stops_after, bar: str, count: int
):
    given = options(demo, start, tmp_path / "run", save_every=1)
    with pytest.raises(Stopped):
        train(given, stops_after(bar, count))
    train(replace(given, resume=True))
    whole, resumed = tensors(trained), tensors(tmp_path / "run")
    assert whole.keys() == resumed.keys()
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_the_model_answers_and_each_part_can_be_taken_away(demo: Path, trained: Path, tmp_path: Path):
    output = tmp_path / "preds.jsonl"
    decode(
        DecodeOptions(run=trained, data=demo, split="dev", output=output, limit=6, device="cpu", workers=1, num_beams=2)
    )
    assert len(output.read_text().splitlines()) == 6
    rows = ablate(trained, demo, "dev", tmp_path / "parts", limit=12).splitlines()
    parts = [row.split("|")[1].strip() for row in rows[4:]]
    assert {TOKENS + "encoder", TOKENS + "sources", MENTION} <= set(parts)


def test_a_dry_run_says_what_is_added_and_what_it_needs(demo: Path, start: Path, tmp_path: Path):
    lines = Lines()
    train(options(demo, start, tmp_path / "run", dry_run=True), lines)
    text = "\n".join(lines.lines)
    for words in (
        "Spatial-AST 1 x 16; up to 8 source tokens",
        "sources: from 112 clips and 48 BRIRs",
        "48 scenes, each used once",
        "cues: made at each use: each of 48 scenes is used once",
    ):
        assert words in text, words
    assert not (tmp_path / "run").exists()


def test_a_run_with_source_tokens_starts_another_training(demo: Path, trained: Path, tmp_path: Path):
    train(options(demo, trained, tmp_path / "next", stages="1"))
    before, after = tensors(trained), tensors(tmp_path / "next")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("encoder/"))
