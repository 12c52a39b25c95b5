"""An encoder is trained without a language model; stages 1 to 3 start from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import batcli.training.build
from batcli.core.errors import InputError, Stopped
from batcli.core.files import readable
from batcli.core.progress import Silent
from batcli.data.dataset import open_dataset
from batcli.model import checkpoint
from batcli.model.bat import BAT, Encoders
from batcli.model.config import PRESETS, EncoderConfig, QFormerConfig
from batcli.options import ModelOptions, TrainOptions
from batcli.prepare.model import model as prepare_model
from batcli.train import train
from batcli.training.resolve import resolve

SMALL = EncoderConfig(n_mels=32, dim=16, depth=2, heads=2)
RECIPE = ["encoder_epochs=2", "encoder_warmup=1", "encoder_update=56", "encoder_batch=28", "epochs=0.8,1,1"]


@pytest.fixture(scope="module", autouse=True)
def narrow():
    """The published preset with two narrow layers."""
    before = PRESETS["llama2-7b"]
    PRESETS["llama2-7b"] = replace(before, encoder=SMALL, qformer=QFormerConfig(2, 3, 16, 2))
    yield
    PRESETS["llama2-7b"] = before


@pytest.fixture(scope="module")
def options(demo: Path) -> Callable[..., TrainOptions]:
    def make(output: Path, **changes: Any) -> TrainOptions:
        given = {"preset": None if "init" in changes else "llama2-7b", "stages": "encoder", "set": RECIPE}
        small = {"log_every": 1, "workers": 1, "device": "cpu", "save_every": 1}
        return TrainOptions(data=demo, output=output, **{**given, **small, **changes})

    return make


@pytest.fixture(scope="module")
def encoder_run(options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the stage `encoder` alone. Read only."""
    output = tmp_path_factory.mktemp("encoder") / "run"
    train(options(output))
    return output


@pytest.fixture(scope="module")
def next_run(options, encoder_run: Path, llm_folder: Path) -> Path:
    """Stage 1, started from `encoder_run`. Read only."""
    output = encoder_run.parent / "next"
    train(options(output, init=encoder_run, stages="1", llm=llm_folder, set=[]))
    return output


def same(a: Path, b: Path) -> bool:
    first, second = load_file(a), load_file(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_an_encoder_is_trained_without_a_language_model(encoder_run: Path):
    encoders, _ = checkpoint.load_encoders(encoder_run)
    assert list(encoders.encoders) == ["encoder"]
    assert checkpoint.holds_encoders_alone(encoder_run)
    files = {path.name for path in encoder_run.iterdir()}
    assert {checkpoint.ENCODER, checkpoint.CONFIG, checkpoint.DONE} <= files
    assert files.isdisjoint({checkpoint.PROJECTOR, checkpoint.ADAPTER, checkpoint.LLM, checkpoint.TOKENIZER})
    log = [json.loads(line) for line in (encoder_run / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in log] == ["encoder"] * 4
    assert [entry["lr"] for entry in log] == pytest.approx(
        [0.0, 1e-3 * 56 / 256 / 2, 1e-3 * 56 / 256, 1e-6 + (1e-3 * 56 / 256 - 1e-6) / 2], rel=1e-5
    )


def test_it_answers_nothing_yet(encoder_run: Path):
    with pytest.raises(InputError, match="holds an encoder without a language model; train the rest: bat train"):
        checkpoint.load_run(encoder_run)


def test_resumed_it_has_the_same_weights(options, encoder_run: Path, tmp_path: Path, stops_after):
    with pytest.raises(Stopped):
        train(options(tmp_path / "run"), stops_after("stage encoder", 2))
    train(options(tmp_path / "run", resume=True))
    assert same(encoder_run / checkpoint.ENCODER, tmp_path / "run" / checkpoint.ENCODER)


def test_stages_1_to_3_start_from_it(encoder_run: Path, next_run: Path):
    assert same(encoder_run / checkpoint.ENCODER, next_run / checkpoint.ENCODER)
    model, tokenizer, _ = checkpoint.load_run(next_run)
    assert isinstance(model, BAT)
    assert tokenizer is not None
    ups = [tensor for name, tensor in load_file(next_run / "adapter/adapter_model.safetensors").items() if "_B" in name]
    assert all(tensor.any() for tensor in ups)
    recorded = checkpoint.read_toml(next_run / checkpoint.CONFIG)
    assert recorded["recipe"]["encoder_update"] == 56, "the recipe is that of the run"


def test_all_in_one_run_is_the_same_and_loads_the_language_model_last(
    options, encoder_run: Path, next_run: Path, llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained: list[bool] = []
    load = batcli.training.build.load_llm

    def record(*args: Any, **how: Any) -> Any:
        trained.append(same(tmp_path / "run" / checkpoint.ENCODER, encoder_run / checkpoint.ENCODER))
        return load(*args, **how)

    monkeypatch.setattr(batcli.training.build, "load_llm", record)
    train(options(tmp_path / "run", stages="encoder,1", llm=llm_folder))
    assert trained == [True]
    for name in (checkpoint.ENCODER, checkpoint.PROJECTOR, "adapter/adapter_model.safetensors"):
        assert same(tmp_path / "run" / name, next_run / name), name


@pytest.mark.parametrize(("bar", "count"), [("stage encoder", 3), ("stage 1", 1)])
def test_all_in_one_run_is_resumed(
    options, next_run: Path, llm_folder: Path, tmp_path: Path, stops_after, bar: str, count: int
):
    given = {"stages": "encoder,1", "llm": llm_folder}
    with pytest.raises(Stopped):
        train(options(tmp_path / "run", **given), stops_after(bar, count))
    train(options(tmp_path / "run", resume=True, **given))
    for name in (checkpoint.ENCODER, checkpoint.PROJECTOR, "adapter/adapter_model.safetensors"):
        assert same(tmp_path / "run" / name, next_run / name), name


def test_an_encoder_goes_on_from_a_run_with_or_without_a_language_model(
    options, encoder_run: Path, next_run: Path, tmp_path: Path
):
    """Events first, then all heads, as the paper has it: each in a run of its own."""
    for init in (encoder_run, next_run):
        output = tmp_path / init.name
        train(options(output, init=init, set=["encoder_epochs=1"], recipe="events"))
        assert checkpoint.holds_encoders_alone(output)
        before, after = load_file(init / checkpoint.ENCODER), load_file(output / checkpoint.ENCODER)
        assert not torch.equal(before["encoder.head.weight"], after["encoder.head.weight"])
        moved = (after["encoder.azimuth_head.weight"] - before["encoder.azimuth_head.weight"]).abs().max()
        assert moved <= 1e-3 * before["encoder.azimuth_head.weight"].abs().max(), "weight decay alone"
    assert same(tmp_path / "run" / checkpoint.ENCODER, tmp_path / "next" / checkpoint.ENCODER)


def test_it_is_exported_as_a_published_checkpoint(encoder_run: Path, tmp_path: Path):
    prepare_model(ModelOptions(run=encoder_run, export_encoder=tmp_path / "finetuned.pth"))
    state = torch.load(tmp_path / "finetuned.pth", weights_only=True)["model"]
    encoders, _ = checkpoint.load_encoders(encoder_run)
    assert all(torch.equal(state[name], tensor) for name, tensor in encoders.encoders["encoder"].state_dict().items())
    with pytest.raises(InputError, match="holds an encoder alone; export it with --export-encoder"):
        prepare_model(ModelOptions(run=encoder_run, export=tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llm": Path("somewhere")}, "--llm: has no effect; an encoder is trained without a language model"),
        ({"quantize": True}, "--quantize: has no effect; an encoder is trained without"),
        ({"accumulate": 2}, "--accumulate: has no effect; the recipe says how many"),
        ({"stages": "encoder,1"}, "--llm: missing"),
        ({"stages": "encoder,1", "llm": Path("nowhere")}, "nowhere: no such"),
    ],
)
def test_what_an_encoder_s_training_refuses(options, tmp_path: Path, demo: Path, changes: dict, words: str):
    with pytest.raises(InputError, match=words):
        resolve(options(tmp_path / "run", **changes), open_dataset(demo))


def test_a_missing_language_model_is_named_before_anything_is_trained(
    options, encoder_run: Path, llm_folder: Path, tmp_path: Path
):
    with pytest.raises(InputError, match="--llm: missing"):
        train(options(tmp_path / "run", init=encoder_run, stages="1", set=[]))
    bare = tmp_path / "llm"
    bare.mkdir()
    (bare / "config.json").write_text((llm_folder / "config.json").read_text())
    with pytest.raises(InputError, match="the weights hold 0 bytes"):
        train(options(tmp_path / "run", stages="encoder,1", llm=bare))
    assert not (tmp_path / "run" / checkpoint.ENCODER).exists()


class Lines(Silent):
    """Keeps the lines of information."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def test_a_dry_run_tells_what_an_encoder_takes(options, tmp_path: Path, encoder_run: Path):
    lines = Lines()
    train(options(tmp_path / "run", dry_run=True), lines)
    text = "\n".join(lines.lines)
    parameters = sum(p.numel() for p in Encoders(checkpoint.read_config(encoder_run)).parameters())
    for words in (
        "no language model",
        "encoder: 2 epochs of 112 scenes, 4 updates of 56",
        "starts from AudioMAE's (--encoder-init)",
        f"memory: about {readable(16 * parameters)} in stage encoder, for",
    ):
        assert words in text, words
    for absent in ("Q-Former", "LoRA", "stages 1 to 3", "cues", "encodings", "lr_updates"):
        assert absent not in text, absent
    lines = Lines()
    train(options(tmp_path / "run", init=encoder_run, stages="1", set=[], dry_run=True), lines)
    assert any("language model of --llm" in line for line in lines.lines)
