"""Conversion of checkpoints that are not what they should be; `tests/test_parity.py` converts good ones.

The stand-ins have the published names and shapes, but each tensor is one number, repeated without
memory, so that a whole checkpoint is a file of some kilobytes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from batcli.cli import app
from batcli.core.errors import InputError
from batcli.model import checkpoint, published
from batcli.model.checkpoint import load_encoders, load_run
from batcli.model.config import DspastConfig, ModelConfig
from batcli.model.encoders.dspast import DSpAST
from batcli.options import ModelOptions
from batcli.prepare.model import model as prepare_model
from batcli.training.recipe import RECIPES
from batcli.training.start import find_start

HERE = Path(__file__).parents[1] / "parity"
spec = importlib.util.spec_from_file_location("parity_weights", HERE / "weights.py")
weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(weights)

with torch.device("meta"):  # its names and shapes; `tests/test_parity_dspast.py` compares them with the published
    DSPAST = {name: tuple(tensor.shape) for name, tensor in DSpAST(DspastConfig()).state_dict().items()}
SOME_DSPAST = "pre_head2.weight"
ENCODER, BAT = (weights.shapes(what)["tensors"] for what in ("spatial_ast", "bat"))
SOME_ENCODER, SOME_BAT = "blocks.3.mlp.fc1.weight", "encoder_projector.linear.weight"


def repeated(shapes):
    return {name: torch.tensor(1 if name.endswith("tracked") else 0.5).expand(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A folder with finetuned.pth, model.pt and llama/ that convert."""
    folder = tmp_path_factory.mktemp("good")
    torch.save({"model": {**repeated(ENCODER), **weights.front_end()}}, folder / "finetuned.pth")
    torch.save(repeated(BAT), folder / "model.pt")
    LlamaForCausalLM(LlamaConfig(**weights.shapes("llm")["config"])).save_pretrained(folder / "llama")
    return folder


@pytest.fixture
def options(good, tmp_path):
    return ModelOptions(
        run=tmp_path / "run",
        encoder=good / "finetuned.pth",
        checkpoint=good / "model.pt",
        llm=good / "llama",
        dry_run=True,  # reads and checks everything
    )


def assert_refused(options, *words):
    """One line that holds `words`, and nothing written."""
    options.dry_run = False
    with pytest.raises(InputError) as error:
        prepare_model(options)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 1500
    for word in words:
        assert word in line
    assert not options.run.exists()
    return line


def test_good_checkpoints_pass(options):
    prepare_model(options)
    assert not options.run.exists()


# ---- files that are no checkpoints -------------------------------------------------------------------


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("which", ["encoder", "checkpoint"])
@pytest.mark.parametrize("form", ["whole", "value", "name", "beside", "plain pickle", "old torch"])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(options, tmp_path, which, form):
    marker, path = tmp_path / "ran", tmp_path / "evil.pt"
    evil = Evil(marker)
    state = {**repeated(ENCODER if which == "encoder" else BAT)}
    if form == "value":
        state[next(iter(state))] = evil
    if form == "name":
        state[evil] = torch.zeros(1)
    content = {"model": state} if which == "encoder" else state
    if form == "beside":
        content = {**content, "args": evil}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(evil))
    else:
        torch.save(evil if form == "whole" else content, path, _use_new_zipfile_serialization=form != "old torch")
        if form == "old torch":
            path.write_bytes(pickle.dumps(evil) + path.read_bytes())
    setattr(options, which, path)
    assert_refused(options, "evil.pt")
    assert not marker.exists()


def test_the_marker_works(tmp_path):
    """The pickle of the test above does run where nothing refuses it."""
    torch.save(Evil(tmp_path / "ran"), tmp_path / "evil.pt")
    torch.load(tmp_path / "evil.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("which", ["encoder", "checkpoint"])
@pytest.mark.parametrize("damage", ["empty", "text", "cut at the end", "cut in half", "flipped", "a list", "a tensor"])
def test_what_is_damaged_or_no_checkpoint_is_refused(options, tmp_path, which, damage):
    path = tmp_path / "bad.pt"
    content = getattr(options, which).read_bytes()
    if damage == "flipped":
        with zipfile.ZipFile(getattr(options, which)) as archive:
            record = next(entry for entry in archive.infolist() if "/data/" in entry.filename)
        place = content.index(np.float32(0.5).tobytes(), record.header_offset)  # a tensor, which stays finite
        content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    path.write_bytes(
        {
            "empty": b"",
            "text": b"not a checkpoint\n" * 100,
            "cut at the end": content[:-50],
            "cut in half": content[: len(content) // 2],
            "flipped": content,
        }.get(damage, b"")
    )
    if damage == "a list":
        torch.save([torch.zeros(3)], path)
    if damage == "a tensor":
        torch.save(torch.zeros(3), path)
    setattr(options, which, path)
    assert_refused(options, "bad.pt")


def test_compressed_records_are_refused_before_they_are_unpacked(options, tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))
    options.encoder = path
    assert_refused(options, "compressed")


@pytest.mark.parametrize("which", ["encoder", "checkpoint", "llm"])
def test_what_is_not_there_is_refused(options, tmp_path, which):
    setattr(options, which, tmp_path / "nowhere")
    assert_refused(options, "nowhere", "no such")


def test_checkpoints_in_each_others_place_are_refused(options):
    options.encoder, options.checkpoint = options.checkpoint, options.encoder
    assert_refused(options, "no 'model' in it")


# ---- tensors -----------------------------------------------------------------------------------------


def change(options, which, tmp_path, function):
    """Give `options` a checkpoint whose state dict `function` has changed."""
    content = torch.load(getattr(options, which), weights_only=True)
    function(content["model"] if which == "encoder" else content)
    torch.save(content, tmp_path / "changed.pt")
    setattr(options, which, tmp_path / "changed.pt")


BOTH = pytest.mark.parametrize(("which", "name"), [("encoder", SOME_ENCODER), ("checkpoint", SOME_BAT)])


@BOTH
def test_a_missing_tensor_is_named(options, tmp_path, which, name):
    change(options, which, tmp_path, lambda state: state.pop(name))
    assert_refused(options, f"missing: {name}")


@BOTH
def test_a_surplus_tensor_is_named(options, tmp_path, which, name):
    change(options, which, tmp_path, lambda state: state.update({"extra.weight": torch.zeros(2)}))
    assert_refused(options, "surplus: extra.weight")


@BOTH
def test_a_misnamed_tensor_is_named_twice(options, tmp_path, which, name):
    change(options, which, tmp_path, lambda state: state.update({f"module.{name}": state.pop(name)}))
    assert_refused(options, f"missing: {name}", f"surplus: module.{name}")


@BOTH
@pytest.mark.parametrize("shape", [(1,), (768, 3072, 1), (10**6, 10**6)])
def test_a_tensor_of_another_shape_is_named_and_takes_no_memory(options, tmp_path, which, name, shape):
    change(options, which, tmp_path, lambda state: state.update({name: torch.zeros(1).expand(shape)}))
    assert_refused(options, f"wrong shape: {name} {list(shape)}, not ")


@BOTH
@pytest.mark.parametrize("kind", ["nan", "infinite", "whole numbers", "complex", "sparse", "meta", "number", "list"])
def test_a_tensor_that_is_no_finite_numbers_is_named(options, tmp_path, which, name, kind):
    shape = (ENCODER if which == "encoder" else BAT)[name]
    number = {"nan": torch.nan, "infinite": torch.inf, "whole numbers": 3, "complex": 1j}
    bad = {
        "sparse": lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], shape, check_invariants=True),
        "meta": lambda: torch.empty(shape, device="meta"),
        "number": lambda: 3.0,
        "list": lambda: [1.0, 2.0],
    }.get(kind, lambda: torch.tensor(number[kind]).expand(shape))()
    change(options, which, tmp_path, lambda state: state.update({name: bad}))
    assert_refused(options, "changed.pt")


def test_many_wrong_names_are_counted(options, tmp_path):
    change(options, "encoder", tmp_path, lambda state: state.clear())
    assert_refused(options, f"({len(ENCODER)} in all)")


@pytest.mark.parametrize("name", weights.front_end())
def test_another_front_end_is_refused(options, tmp_path, name):
    change(options, "encoder", tmp_path, lambda state: state.update({name: state[name] * 1.01}))
    assert_refused(options, name, "not the published front end")


def test_the_front_end_may_be_left_out(options, tmp_path):
    def without(state):
        for name in weights.front_end():
            del state[name]

    change(options, "encoder", tmp_path, without)
    prepare_model(options)


def test_our_front_end_is_the_published_one():
    for name, theirs in weights.front_end().items():
        torch.testing.assert_close(published.front_end()[name], theirs, rtol=0, atol=1e-6)


def test_training_state_beside_the_model_is_dropped_and_nothing_else(options, tmp_path):
    content = torch.load(options.encoder, weights_only=True)
    beside = {"optimizer": {"state": {}}, "epoch": 3, "scaler": {}, "args": argparse.Namespace(lr=1e-3)}
    torch.save({**content, **beside}, tmp_path / "reference.pth")
    options.encoder = tmp_path / "reference.pth"
    prepare_model(options)
    torch.save({**content, "ema": {}}, tmp_path / "reference.pth")
    assert_refused(options, "surplus beside 'model': ema")


def test_another_language_models_checkpoint_is_refused(options, tmp_path):
    sizes = {**weights.shapes("llm")["config"], "num_hidden_layers": 3, "hidden_size": 64}
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(tmp_path / "other")
    options.llm = tmp_path / "other"
    assert_refused(
        options, "missing: llm.base_model.model.model.layers.2", "wrong shape: encoder_projector.linear.bias"
    )


# ---- DSpAST ------------------------------------------------------------------------------------------


@pytest.fixture
def dspast(options, tmp_path):
    """The options with DSpAST's checkpoint instead, and no projector."""
    options.encoder, options.checkpoint = tmp_path / "DSpAST-stage3", None
    torch.save({"model": {**repeated(DSPAST), **weights.front_end()}}, options.encoder)
    return options


def test_dspast_has_the_published_numbers_of_tensors_and_parameters():
    with torch.device("meta"):
        parameters = DSpAST(DspastConfig()).parameters()
    assert len(DSPAST) == 226 - len(weights.front_end())
    assert sum(parameter.numel() for parameter in parameters) == 86_085_127


@pytest.mark.parametrize("name", ["finetuned.pth", "encoder", "DSpAST-stage1"])
def test_an_encoder_is_told_by_its_tensors_and_not_by_its_name(options, dspast, good, tmp_path, name):
    for shapes, expected in ((DSPAST, "dspast"), (ENCODER, "encoder")):
        torch.save({"model": repeated(shapes)}, tmp_path / name)
        assert published.recognise_encoder(tmp_path / name) == expected
        options.encoder = tmp_path / name
        prepare_model(options)


@pytest.mark.parametrize(
    ("change_state", "words"),
    [
        (lambda state: state.pop(SOME_DSPAST), [f"missing: {SOME_DSPAST}"]),
        (lambda state: state.pop("cls_tokens1"), ["missing: cls_tokens1"]),
        (lambda state: state.pop("conv_downsample2.0.bn2.running_var"), ["missing: conv_downsample2.0.bn2"]),
        (lambda state: state.update({"cls_tokens": torch.zeros(1, 3, 768)}), ["surplus: cls_tokens"]),
        (lambda state: state.update({"head.weight": torch.zeros(355, 768)}), ["wrong shape: head.weight [355, 768]"]),
        (lambda state: state.update({SOME_DSPAST: torch.full((256, 768), torch.nan)}), [SOME_DSPAST, "not finite"]),
        (lambda state: state.update({"logmel_extractor.melW": torch.ones(513, 128)}), ["not the published front end"]),
    ],
    ids=["missing", "class tokens", "unused", "surplus", "shape", "nan", "front end"],
)
def test_what_is_wrong_in_dspast_is_named(dspast, tmp_path, change_state, words):
    change(dspast, "encoder", tmp_path, change_state)
    assert_refused(dspast, "changed.pt", *words)


def test_a_run_over_dspast_loads_and_is_exported(dspast, tmp_path):
    dspast.dry_run = False
    prepare_model(dspast)
    encoders, config = load_encoders(dspast.run)
    assert list(encoders) == ["dspast"]
    assert (config.encoder, config.dspast) == (None, DspastConfig())
    assert (encoders["dspast"].count, encoders["dspast"].dim) == (515, 768)
    assert all((parameter == 0.5).all() for parameter in encoders.parameters())
    assert find_start(None, dspast.run)[:2] == ("llama2-7b-dspast", RECIPES["llama2-7b-dspast"])
    export = tmp_path / "DSpAST-exported"
    prepare_model(ModelOptions(run=dspast.run, export_encoder=export))
    given, exported = (torch.load(path, weights_only=True)["model"] for path in (dspast.encoder, export))
    assert given.keys() == exported.keys()
    for name, tensor in given.items():
        torch.testing.assert_close(exported[name], tensor, rtol=0, atol=1e-6 if name in weights.front_end() else 0)
    for path in (export, dspast.run / "encoder.safetensors"):
        path.unlink()  # 700 MB that pytest would keep


def test_the_q_former_may_get_the_patch_tokens_alone(dspast, monkeypatch):
    monkeypatch.setattr(checkpoint, "save_weights", lambda *_: None)  # only the configuration is looked at
    dspast.dry_run, dspast.patches_only = False, True
    prepare_model(dspast)
    config = checkpoint.read_config(dspast.run)
    assert config.dspast == DspastConfig(summary_tokens=False)


def test_only_dspast_has_patch_tokens_without_the_summaries(options, tmp_path):
    options.patches_only = True
    assert_refused(options, "--patches-only: has no effect", "is Spatial-AST")
    with pytest.raises(InputError, match="--patches-only: has no meaning with --export"):
        prepare_model(ModelOptions(run=tmp_path, export=tmp_path / "model.pt", patches_only=True))


# ---- inputs and outputs ------------------------------------------------------------------------------


def test_hashes_are_checked(options):
    options.sha256 = [f"finetuned.pth={'0' * 64}"]
    line = assert_refused(options, "finetuned.pth", "its SHA-256 is")
    digest = line.split("SHA-256 is ")[1][:64]
    options.sha256, options.dry_run = [f"finetuned.pth={digest.upper()}"], True
    prepare_model(options)
    for wrong in (f"model.pth={digest}", digest, ""):
        options.sha256 = [wrong]
        assert_refused(options, "names no input")


@pytest.mark.parametrize("missing", ["encoder", "llm"])
def test_an_input_that_is_not_given_is_named(options, missing):
    setattr(options, missing, None)
    assert_refused(options, f"--{missing}")


@pytest.mark.parametrize("left", ["DONE", "log.jsonl", "notes.txt"])
def test_other_work_is_not_overwritten(options, left):
    options.run.mkdir()
    (options.run / left).write_text("work")
    options.dry_run = False
    with pytest.raises(InputError, match="choose another directory"):
        prepare_model(options)
    assert [path.name for path in options.run.iterdir()] == [left]
    assert (options.run / left).read_text() == "work"


def test_a_file_is_no_run(options):
    options.run.write_text("")
    options.dry_run = False
    with pytest.raises(InputError, match="not a directory"):
        prepare_model(options)


def test_without_a_checkpoint_projector_and_lora_are_fresh_and_seeded(options):
    options.checkpoint, options.dry_run, options.lora_targets = None, False, "q_proj, up_proj"
    prepare_model(options)
    bat, tokenizer, config = load_run(options.run)
    assert tokenizer is None
    assert config.lora.targets == ("q_proj", "up_proj")
    assert bat.projector.query.std().item() == pytest.approx(1, abs=0.05)
    assert find_start(None, options.run)[:2] == ("llama2-7b", RECIPES["llama2-7b"])
    lora = {name: tensor for name, tensor in bat.llm.state_dict().items() if "lora_" in name}
    assert {name.split(".")[-4] for name in lora} == {"q_proj", "up_proj"}
    assert {name for name in lora if lora[name].any()} == {name for name in lora if "lora_A" in name}

    def projector(seed):
        return published.fresh_bat(published.empty_model(config, options.llm), seed)["projector.linear.weight"]

    assert torch.equal(projector(0), bat.projector.linear.weight)
    assert not torch.equal(projector(1), bat.projector.linear.weight)


def test_lora_on_modules_that_do_not_exist_is_refused(options):
    options.lora_targets = "nonsense"
    assert_refused(options, "nonsense", "--lora-targets")


def test_an_export_takes_no_inputs_and_only_published_architectures(options, tmp_path):
    options.export = tmp_path / "out.pt"
    assert_refused(options, "no meaning with --export")
    export = ModelOptions(run=tmp_path / "nowhere", export=tmp_path / "out.pt")
    assert_refused(export, "nowhere")
    assert not (tmp_path / "out.pt").exists()


def test_the_command_line_says_one_line_and_exits_with_2(good, tmp_path):
    arguments = ["prepare", "model", str(tmp_path / "run"), "--encoder", str(good / "model.pt"), "--llm"]
    result = CliRunner().invoke(app, [*arguments, str(good / "llama")])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"bat: {good / 'model.pt'}: ")


def test_half_precision_comes_out_as_the_same_numbers(options, tmp_path):
    name = "head.weight"
    change(options, "encoder", tmp_path, lambda state: state.update({name: state[name].bfloat16()}))
    state = published.read_encoder(options.encoder, published.empty_model(ModelConfig(), options.llm))
    assert state[f"encoder.{name}"].dtype == torch.float32
    assert (state[f"encoder.{name}"] == 0.5).all()
    assert state["encoder.bn.num_batches_tracked"].dtype == torch.int64
