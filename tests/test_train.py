"""Training: the files of a run, resuming, and errors."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import batcli.training.stages
from batcli.core.errors import InputError, Stopped, TooManyBad
from batcli.data.dataset import open_dataset
from batcli.model import checkpoint
from batcli.model.config import PRESETS, EncoderConfig
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.options import TrainOptions
from batcli.questions.generate import is_turned
from batcli.train import train
from batcli.training.order import bucket_by_length, epoch_order, one_way


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = [run / checkpoint.ENCODER, run / checkpoint.PROJECTOR, run / checkpoint.LLM / "model.safetensors"]
    return {f"{file.name}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_has_all_its_files(run: Path, demo: Path):
    model, tokenizer, config = checkpoint.load_run(run)
    assert config.n_classes == len(open_dataset(demo).labels)
    assert tokenizer is not None
    assert not model.training
    assert not (run / "cache").exists()
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert {entry["stage"] for entry in log} == {"sources", "1", "2", "3"}
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["bad_scenes"] == 0
    assert manifest["dataset"]["questions_sha256"] == open_dataset(demo).split("train").sha256


def test_the_loss_falls(run: Path):
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    answers = [entry["loss"] for entry in log if entry["stage"] in "123"]
    assert sum(answers[-3:]) / 3 < 0.7 * answers[0]


@pytest.mark.parametrize(("bar", "count"), [("stage sources", 5), ("stage 2", 2), ("encoding", 1)])
def test_a_stopped_run_ends_with_the_same_weights(
    run: Path, demo: Path, tmp_path: Path, train_options, stops_after, bar: str, count: int
):
    output = tmp_path / "run"
    with pytest.raises(Stopped):
        train(train_options(demo, output, save_every=1), stops_after(bar, count))
    assert not (output / checkpoint.DONE).exists()
    train(train_options(demo, output, save_every=1, resume=True))
    assert same(weights(output), weights(run))
    lines = (output / "log.jsonl").read_text().splitlines()
    places = [(entry["stage"], entry["update"]) for entry in map(json.loads, lines)]
    assert len(places) == len(set(places)), "a resumed run must not log an update twice"


@pytest.mark.parametrize("size", ["16", "6"])
def test_encodings_made_at_each_use_give_the_same_weights(
    run: Path, demo: Path, tmp_path: Path, train_options, stops_after, size: str
):
    """As those from a cache, also after a stop; the size of a batch is not that of what is encoded together."""
    options = {"init": run, "stages": "1,2", "save_every": 1, "batch_size": size}
    train(train_options(demo, tmp_path / "disk", cache="disk", **options))
    with pytest.raises(Stopped):
        train(train_options(demo, tmp_path / "none", cache="none", **options), stops_after("stage 2", 2))
    assert not (tmp_path / "none" / "cache").exists()
    with pytest.raises(InputError, match="--cache: the run was begun with 'none', not 'disk'"):
        train(train_options(demo, tmp_path / "none", cache="disk", resume=True, **options))
    train(train_options(demo, tmp_path / "none", resume=True, **options))
    assert same(weights(tmp_path / "none"), weights(tmp_path / "disk"))


def test_a_bad_clip_costs_only_its_questions_without_a_cache(run: Path, demo: Path, tmp_path: Path, train_options):
    data = tmp_path / "data"
    shutil.copytree(demo, data)
    dataset = open_dataset(data)
    question = next(question for question in dataset.questions("train") if question.family == "A")
    dataset.audio_path(question.audio_id).write_bytes(b"")
    bad = {q.scene for q in dataset.questions("train") if q.family in "AB" and q.audio_id == question.audio_id}
    options = {"init": run, "stages": "1", "cache": "none", "batch_size": "1"}  # so that batches have no sound at all
    with pytest.raises(TooManyBad, match=f"^{len(bad)} scenes could not be rendered"):
        train(train_options(data, tmp_path / "run", **options))
    assert (tmp_path / "run" / checkpoint.DONE).exists()
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad.jsonl").read_text().splitlines()]
    assert len(listed) == len(bad)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(entry["loss"] is not None for entry in log)
    train(train_options(data, tmp_path / "allowed", max_bad=len(bad), **{**options, "batch_size": "16"}))


def test_accumulation_does_not_change_the_gradient(demo: Path, tmp_path: Path, train_options):
    for name, changes in (("whole", {"batch_size": "16"}), ("halves", {"batch_size": "8", "accumulate": 2})):
        train(train_options(demo, tmp_path / name, stages="1", **changes))
    whole, halves = ((tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("whole", "halves"))
    for a, b in zip(map(json.loads, whole), map(json.loads, halves), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_a_finished_run_is_not_overwritten(run: Path, demo: Path, train_options):
    before = weights(run)
    with pytest.raises(InputError, match="finished run"):
        train(train_options(demo, run))
    assert same(weights(run), before)


@pytest.fixture(scope="module")
def stopped(demo: Path, tmp_path_factory: pytest.TempPathFactory, train_options, stops_after) -> Path:
    """A run that was stopped in stage 1. Read only: copy it to go on."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(Stopped):
        train(train_options(demo, output, save_every=1), stops_after("stage 1", 1))
    return output


def test_an_unfinished_run_is_not_overwritten(demo: Path, tmp_path: Path, train_options, stops_after):
    with pytest.raises(Stopped):
        train(train_options(demo, tmp_path / "run"), stops_after("stage 1", 1))
    with pytest.raises(InputError, match="--resume"):
        train(train_options(demo, tmp_path / "run"))


def test_a_bad_clip_costs_only_its_questions(demo: Path, tmp_path: Path, train_options):
    data = tmp_path / "data"
    shutil.copytree(demo, data)
    question = next(open_dataset(data).questions("train"))
    open_dataset(data).audio_path(question.audio_id).write_bytes(b"")
    with pytest.raises(TooManyBad, match="scenes could not be rendered"):
        train(train_options(data, tmp_path / "run"))
    assert (tmp_path / "run" / checkpoint.DONE).exists()
    bad = [json.loads(line) for line in (tmp_path / "run" / "bad.jsonl").read_text().splitlines()]
    assert all("is empty" in entry["error"]["message"] for entry in bad)
    train(train_options(data, tmp_path / "allowed", max_bad=len(bad)))


def test_questions_with_one_word_of_each_pair_come_first(demo: Path):
    questions = list(open_dataset(demo).questions("train"))
    order = one_way(questions, 1_000, seed=0)
    turned = np.array([is_turned(question) for question in questions])
    assert len(order) == 1_000
    assert set(order) == set(np.flatnonzero(~turned))
    assert turned.sum() > 10
    np.testing.assert_array_equal(order, one_way(questions, 1_000, seed=0))
    assert list(order) != list(one_way(questions, 1_000, seed=1))
    assert len(one_way(questions, 0, seed=0)) == 0, "a recipe without"


def test_an_order_may_be_empty(demo: Path):
    """With one_way = 0."""
    questions = list(open_dataset(demo).questions("train"))
    assert one_way(questions, 0, seed=0).dtype == epoch_order(5, 5, seed=0, stage=1).dtype
    assert len(epoch_order(5, 0, seed=0, stage=1)) == 0


def test_if_all_questions_use_the_other_word_all_are_taken(demo: Path):
    turned = [question for question in open_dataset(demo).questions("train") if is_turned(question)]
    assert set(one_way(turned, 2 * len(turned), seed=0)) == set(range(len(turned)))


@pytest.mark.parametrize("stages", ["", "4", "2,1", "1,1", "encoder;1", "1,all", "all,3"])
def test_stages_out_of_order_are_refused(demo: Path, tmp_path: Path, train_options, stages: str):
    with pytest.raises(InputError, match="--stages"):
        train(train_options(demo, tmp_path / "run", stages=stages))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epochs", ["1", "1,2", "a,b,c", "1,2,3,4"])
def test_epochs_are_three_numbers(demo: Path, tmp_path: Path, train_options, epochs: str):
    with pytest.raises(InputError, match="--set epochs"):
        train(train_options(demo, tmp_path / "run", set=[f"epochs={epochs}"]))


def test_every_epoch_holds_every_question_once():
    order = epoch_order(count=7, length=20, seed=0, stage=1)
    assert sorted(order[:7]) == sorted(order[7:14]) == list(range(7))
    assert list(order[:7]) != list(order[7:14])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "--seed: the run was begun with 0, not 1"),
        ({"set": ["lr=0.1"]}, "--set lr: the run was begun with 0.0015, not 0.1"),
        ({"set": ["epochs=1,1,2"]}, "--set epochs"),
        ({"batch_size": "8"}, "--batch-size: the run was begun with 16, not 8"),
        ({"accumulate": 2}, "--accumulate × processes: the run was begun with 1, not 2"),
        ({"stages": "encoder,1,2"}, "--stages"),
        ({"rendering": "published"}, "--rendering: the run was begun with 'fast', not 'published'"),
        ({"attention": "eager"}, "--attention: the run was begun with 'sdpa', not 'eager'"),
    ],
)
def test_options_of_the_weights_cannot_change(stopped: Path, demo: Path, train_options, changes: dict, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        train(train_options(demo, stopped, resume=True, **changes))


def test_a_resumed_run_cannot_have_another_start(run: Path, stopped: Path, demo: Path, train_options):
    with pytest.raises(InputError, match="--init: the run was begun with nothing, not "):
        train(train_options(demo, stopped, resume=True, init=run))


def test_a_resumed_run_cannot_have_other_data(stopped: Path, demo: Path, tmp_path: Path, train_options):
    shutil.copytree(demo, tmp_path / "data")
    with open(tmp_path / "data" / "labels.csv", "a") as file:
        file.write("28,/m/new,Something new\n")
    with pytest.raises(InputError, match="DATA: the run was begun with"):
        train(train_options(tmp_path / "data", stopped, resume=True))


def test_other_options_may_change(run: Path, stopped: Path, demo: Path, tmp_path: Path, train_options):
    """The same data under another path, other intervals, the same batch as another option."""
    shutil.copytree(stopped, tmp_path / "run")
    shutil.copytree(demo, tmp_path / "moved")
    options = train_options(
        tmp_path / "moved", tmp_path / "run", resume=True, log_every=2, save_every=7, keep=1, cache_gb=1.0, workers=2
    )
    train(options)
    assert same(weights(tmp_path / "run"), weights(run))
    assert len(list((tmp_path / "run" / "state").iterdir())) == 1, "--keep 1"


def test_all_families_at_once(demo: Path, tmp_path: Path, train_options):
    """The stage `all` has as many answers as the three stages together."""
    train(train_options(demo, tmp_path / "run", stages="all", set=["epochs=2,1,1"]))
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    families = [question.family for question in open_dataset(demo).questions("train")]
    seen = 2 * sum(f in "AB" for f in families) + sum(f in "ABCD" for f in families) + len(families)
    assert {entry["stage"] for entry in log} == {"all"}
    assert log[-1]["update"] == round(seen / 16)


def test_validation_changes_nothing_but_the_log(run: Path, demo: Path, tmp_path: Path, train_options):
    validation = {"validate": "eval", "validate_every": 3, "validate_questions": 30, "validate_scenes": 12}
    train(train_options(demo, tmp_path / "run", **validation, tensorboard=has_tensorboard()))
    assert same(weights(tmp_path / "run"), weights(run))
    log, plain = (
        [json.loads(line) for line in (r / "log.jsonl").read_text().splitlines()] for r in (tmp_path / "run", run)
    )
    assert [(e["stage"], e["loss"]) for e in log if e["kind"] == "training"] == [(e["stage"], e["loss"]) for e in plain]
    found = [entry for entry in log if entry["kind"] == "validation"]
    assert {entry["stage"] for entry in found} == {"sources", "1", "2", "3"}
    for entry in found:
        last = max(e["update"] for e in plain if e["stage"] == entry["stage"])
        assert entry["update"] % 3 == 0 or entry["update"] == last
    assert set(found[0]["one"]) == {"er20", "mae", "der", "n"}
    assert sum(kind["n"] for kind in found[-1]["types"].values()) == 30
    best = max((e for e in found if e["stage"] == "sources"), key=lambda e: (e["merit"], e["update"]))
    kept = load_file(tmp_path / "run" / "best" / "sources.safetensors")
    final = load_file(tmp_path / "run" / checkpoint.ENCODER)
    assert kept.keys() == {name for name in final if name.startswith("sources.")}
    if best["update"] == max(e["update"] for e in plain if e["stage"] == "sources"):
        assert all(torch.equal(kept[name], final[name]) for name in kept)
    if has_tensorboard():
        assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def has_tensorboard() -> bool:
    return importlib.util.find_spec("tensorboard") is not None


def test_a_resumed_training_of_spatial_ast_ends_with_the_same_weights(
    demo: Path, tmp_path: Path, train_options, stops_after, monkeypatch
):
    """Layer-wise rates, mixup, roll and gain, balanced clips, and blocks from a file."""
    small = EncoderConfig(n_mels=64, dim=96, depth=2, heads=4, drop_path=0.0)
    monkeypatch.setitem(PRESETS, "tiny", replace(PRESETS["tiny"], encoder=small, sources=None))
    encoder = SpatialAST(replace(small, seconds=1.0, n_classes=28))
    state = {
        k: torch.randn_like(v) / 50
        for k, v in encoder.state_dict().items()
        if k.startswith(("patch_embed.", "blocks."))
    }
    torch.save({"model": state}, tmp_path / "mae.pth")
    changes = {"encoder_init": tmp_path / "mae.pth", "stages": "encoder", "save_every": 1}

    def options(name: str, **more: Any) -> TrainOptions:
        recipe = ["encoder_epochs=2", "encoder_update=56", "encoder_batch=14", "encoder_scenes=112"]
        return replace(train_options(demo, tmp_path / name, **changes, **more), set=recipe)

    train(options("calm"))
    with pytest.raises(Stopped):
        train(options("stopped"), stops_after("stage encoder", 2))
    train(options("stopped", resume=True))
    calm, stopped = (load_file(tmp_path / name / checkpoint.ENCODER) for name in ("calm", "stopped"))
    assert same(calm, stopped)
    moved = {name: (calm[f"encoder.{name}"] - tensor).abs().max() for name, tensor in state.items()}
    assert 0 < moved["patch_embed.proj.weight"] < moved["blocks.1.attn.qkv.weight"], "lower layers learn slower"


@pytest.mark.parametrize("size", ["0", "-1", "many", "1.5"])
def test_a_batch_size_is_a_number_or_auto(demo: Path, tmp_path: Path, train_options, size: str):
    with pytest.raises(InputError, match=re.escape("--batch-size: ")):
        train(train_options(demo, tmp_path / "run", batch_size=size))


def test_the_batch_size_found_is_recorded(demo: Path, tmp_path: Path, train_options, stops_after, monkeypatch):
    """A resumed run uses the recorded one, since the order of questions depends on it."""
    monkeypatch.setattr(batcli.training.stages, "largest_batch", lambda *_: 16)
    options = {"batch_size": "auto", "stages": "1", "save_every": 1}
    with pytest.raises(Stopped):
        train(train_options(demo, tmp_path / "run", **options), stops_after("stage 1", 1))
    assert "batch = 16" in (tmp_path / "run" / "config.toml").read_text()
    monkeypatch.setattr(batcli.training.stages, "largest_batch", lambda *_: 8)
    train(train_options(demo, tmp_path / "run", **options, resume=True))
    train(train_options(demo, tmp_path / "given", **{**options, "batch_size": "16"}))
    assert same(weights(tmp_path / "run"), weights(tmp_path / "given"))


def test_questions_of_similar_length_share_an_update_within_their_window():
    sizes = np.random.default_rng(0).integers(10, 200, 400)
    order = epoch_order(count=400, length=800, seed=0, stage=1)
    bucketed = bucket_by_length(order, sizes, per_update=8, bucket=16, seed=0, stage=1)
    for start in range(0, 800, 16 * 8):
        assert sorted(bucketed[start : start + 128]) == sorted(order[start : start + 128])

    def padding(order: np.ndarray) -> float:
        batches = sizes[order].reshape(-1, 8)
        return 1 - batches.sum() / (8 * batches.max(1)).sum()

    assert padding(bucketed) < 0.3 * padding(order)
    longest = sizes[bucketed].reshape(-1, 8).max(1)
    assert np.corrcoef(longest[:-1], longest[1:])[0, 1] < 0.5  # updates of short and long ones are mixed
