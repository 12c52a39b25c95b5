"""A training starts with the recipe and sizes of a preset or of a run."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from batcli.core.errors import InputError
from batcli.core.progress import Silent
from batcli.core.toml import to_toml
from batcli.data.constants import RENDERINGS
from batcli.data.dataset import open_dataset
from batcli.model import checkpoint
from batcli.model.config import PRESETS, SOURCES_BESIDE, EncoderConfig, LoraConfig, ModelConfig, QFormerConfig
from batcli.options import TrainOptions
from batcli.train import train
from batcli.training.build import build_model
from batcli.training.recipe import RECIPES
from batcli.training.resolve import resolve
from batcli.training.start import DEFAULT_PRESET, PUBLISHED_PRESETS, find_start

FEW = ["encoder_update=16", "encoder_batch=16"]  # scenes, of which there are few


class Recorder(Silent):
    """Keeps the lines of information."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def write_run(folder: Path, preset: str, tables: dict) -> Path:
    """A finished run's directory as far as `find_start` reads it."""
    folder.mkdir()
    config = replace(PRESETS[preset], lora=LoraConfig() if PRESETS[preset].llm is None else None)
    checkpoint.write_config(folder, config, tables, None)
    (folder / checkpoint.DONE).touch()
    return folder


def recorded(preset: str, **changes: object) -> dict:
    return {"train": {"preset": preset}, "recipe": asdict(replace(RECIPES[preset], **changes))}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_own_recipe_and_sizes(preset: str):
    rendering = "fast" if preset == "tiny" else "published"
    assert find_start(preset, None) == (preset, RECIPES[preset], rendering, PRESETS[preset], False)


def test_the_default_is_tiny():
    assert find_start(None, None).preset == DEFAULT_PRESET == "tiny"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_is_trained_by_the_recipe_that_it_records(tmp_path: Path, preset: str):
    run = write_run(tmp_path / "run", preset, recorded(preset, lr=3e-4, epochs=(1, 2, 5), muon=True))
    start = find_start(None, run)
    assert start.preset == preset
    assert start.recipe == replace(RECIPES[preset], lr=3e-4, epochs=(1, 2, 5), muon=True)
    assert start == find_start(preset, run)


@pytest.mark.parametrize("preset", PUBLISHED_PRESETS.values())
def test_the_preset_of_a_run_without_a_record_follows_from_its_architecture(preset: str, tmp_path: Path):
    start = find_start(None, write_run(tmp_path / "run", preset, {}))
    assert (start.preset, start.recipe) == (preset, RECIPES[preset])
    with pytest.raises(InputError, match=r"config\.toml: names no preset that is known"):
        find_start(None, write_run(tmp_path / "tiny", "tiny", {}))


def test_another_preset_than_the_runs_is_refused(tmp_path: Path):
    run = write_run(tmp_path / "run", "llama2-7b", recorded("llama2-7b"))
    with pytest.raises(InputError, match=r"--preset: .*is of the preset llama2-7b, not tiny"):
        find_start("tiny", run)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_is_rendered_as_it_records(tmp_path: Path, preset: str):
    for rendering in RENDERINGS:
        run = write_run(tmp_path / rendering, preset, {**recorded(preset), "scenes": {"rendering": rendering}})
        assert find_start(None, run).rendering == checkpoint.read_rendering(run) == rendering
    before = write_run(tmp_path / "before", preset, recorded(preset))  # runs of earlier versions do not say
    assert find_start(None, before).rendering == PRESETS[preset].usual_rendering


@pytest.mark.parametrize("scenes", ['[scenes]\nrendering = "best"', "[scenes]\nrendering = 3", "scenes = 1"])
def test_a_rendering_that_is_not_known_is_refused(tmp_path: Path, scenes: str):
    run = write_run(tmp_path / "run", "tiny", recorded("tiny"))
    text = (run / checkpoint.CONFIG).read_text()
    (run / checkpoint.CONFIG).write_text(f"{scenes}\n{text}")
    with pytest.raises(InputError, match=r"config\.toml \[scenes\]: names no rendering that is known"):
        checkpoint.read_rendering(run)


@pytest.mark.parametrize("rendering", [None, *RENDERINGS])
def test_the_option_decides_the_rendering_of_all_scenes(demo: Path, run: Path, rendering: str | None):
    options = TrainOptions(data=demo, output=run.parent / "next", init=run, stages="1", rendering=rendering)
    plan = resolve(options, open_dataset(demo))
    assert plan.rendering == (rendering or "fast")
    assert plan.tables()["scenes"]["rendering"] == plan.rendering


@pytest.mark.parametrize(("key", "value"), [("speed", 1), ("lr", "fast"), ("epochs", [1.0])])
def test_a_damaged_recipe_is_refused(tmp_path: Path, key: str, value: object):
    tables = recorded("tiny")
    tables["recipe"][key] = value
    with pytest.raises(InputError, match=rf"\[recipe\].*{key}|{key}.*\[recipe\]"):
        find_start(None, write_run(tmp_path / "run", "tiny", tables))


def test_a_training_from_a_run_has_its_recipe(demo: Path, run: Path):
    options = TrainOptions(data=demo, output=run.parent / "next", init=run, stages="1")
    plan = resolve(options, open_dataset(demo))
    assert (plan.model.preset, plan.recipe.epochs, plan.recipe.batch) == ("tiny", (1, 1, 1), 16)
    assert resolve(replace(options, set=["lr=0.5"]), open_dataset(demo)).recipe.lr == 0.5
    assert plan.tables()["train"]["preset"] == "tiny"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"llm": Path("llm")}, "--llm: has no effect"),
        ({"quantize": True}, "--quantize: has no effect"),
        ({"lora_targets": "q_proj"}, "--lora-targets: has no effect; tiny says where its LoRA is"),
        ({"encoder_init": Path("mae.pth")}, "--encoder-init: has no effect"),
        ({"set": ["encoder_epochs=9"]}, "--set encoder_epochs: has no effect"),
        ({"recipe": "paper,as-20k"}, "--recipe as-20k: has no effect"),
        ({"recipe": "dspast-2", "preset": "llama2-7b"}, "--recipe dspast-2: has no effect.*it is of DSpAST"),
        ({"recipe": "as-2m", "preset": "llama2-7b-dspast"}, "--recipe as-2m: has no effect.*it is of Spatial-AST"),
        ({"patches_only": True, "preset": "llama2-7b"}, "--patches-only: has no effect"),
        (
            {"set": ["encoder_batch=1", "encoder_update=4"], "preset": "llama2-7b-dspast", "dry_run": True},
            "needs 2 scenes",
        ),
        ({"recipe": "slam"}, "--recipe: unknown key 'slam'; did you mean 'slam-llm'"),
        ({"recipe": "paper", "accumulate": 2, "stages": "1"}, "--accumulate: has no effect"),
        ({"recipe": "paper,slam-llm", "stages": "1"}, "--recipe paper: has no effect; slam-llm has another value"),
        ({"recipe": "events,as-2m", "preset": "llama2-7b"}, "--recipe events: has no effect; as-2m has another value"),
        ({"set": ["batch=4"], "batch_size": "4"}, "--batch-size: contradicts --set batch"),
        ({"stages": "encoder", "batch_size": "auto"}, "--batch-size auto: has no effect"),
        (
            {"stages": "encoder", "preset": "llama2-7b", "attention": "eager", "set": ["encoder_update=16"]},
            "--attention: has no effect",
        ),
        ({"validate_every": 9}, "--validate-every: has no effect without --validate"),
        ({"validate_questions": 9}, "--validate-questions: has no effect without --validate"),
        ({"validate_scenes": 9}, "--validate-scenes: has no effect without --validate"),
        ({"preset": "llama2-7b"}, "--llm"),
    ],
)
def test_an_option_without_effect_is_refused(demo: Path, tmp_path: Path, changes: dict, words: str):
    with pytest.raises(InputError, match=words):
        resolve(TrainOptions(data=demo, output=tmp_path / "run", **changes), open_dataset(demo))


def test_the_model_has_the_attention_of_the_option(demo: Path, tmp_path: Path):
    options = TrainOptions(data=demo, output=tmp_path / "run", attention="eager")
    model = build_model(resolve(options, open_dataset(demo)))[0]
    assert model.llm.config._attn_implementation == "eager"


@pytest.mark.parametrize("named", [None, "k_proj, up_proj"])
def test_lora_goes_to_the_modules_that_are_named(demo: Path, tmp_path: Path, llm_folder: Path, monkeypatch, named):
    small = ModelConfig(EncoderConfig(dim=16, depth=1, heads=2), QFormerConfig(1, 3, 16, 2), LoraConfig(r=2))
    monkeypatch.setitem(PRESETS, "llama2-7b", small)
    options = TrainOptions(
        data=demo, output=tmp_path / "run", preset="llama2-7b", llm=llm_folder, lora_targets=named, stages="1"
    )
    plan = resolve(options, open_dataset(demo))
    targets = ("k_proj", "up_proj") if named else ("q_proj", "v_proj")
    model = build_model(plan)[0]
    adapted = {
        name.rpartition(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name
    }
    assert adapted == set(targets)
    assert model.config.lora.targets == targets
    with pytest.raises(InputError, match="name modules of this language model with --lora-targets"):
        build_model(resolve(replace(options, lora_targets="qkv_proj"), open_dataset(demo)))


def test_training_texts_longer_than_the_window_are_refused_before_any_work(demo, tmp_path, llm_folder, monkeypatch):
    small = ModelConfig(EncoderConfig(dim=16, depth=1, heads=2), QFormerConfig(1, 3, 16, 2), LoraConfig(r=2))
    monkeypatch.setitem(PRESETS, "llama2-7b", small)
    folder = shutil.copytree(llm_folder, tmp_path / "llm")
    config = json.loads((folder / "config.json").read_text())
    options = TrainOptions(data=demo, output=tmp_path / "run", preset="llama2-7b", llm=folder, stages="1")
    for window, fits in ((40, False), (4096, True)):
        config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": window}
        (folder / "config.json").write_text(json.dumps(config))
        if fits:
            assert build_model(resolve(options, open_dataset(demo)))
        else:
            with pytest.raises(InputError, match=r"train\.jsonl: .* tokens, but the language model attends to 40 only"):
                build_model(resolve(options, open_dataset(demo)))


@pytest.mark.parametrize("preset", PUBLISHED_PRESETS.values())
def test_the_stage_adds_source_tokens_to_a_run_that_has_none(demo: Path, tmp_path: Path, preset: str):
    run = write_run(tmp_path / "start", preset, recorded(preset))
    options = TrainOptions(data=demo, output=tmp_path / "run", init=run, stages="sources,1,2,3", dry_run=True)
    plan = resolve(options, open_dataset(demo))
    config = plan.model.config
    assert (plan.stage_names, plan.trained_encoders) == (("sources", "1", "2", "3"), ("sources",))
    assert config.sources == replace(SOURCES_BESIDE, seconds=config.seconds, n_classes=config.n_classes)
    assert replace(config, sources=None) == checkpoint.read_config(run)
    assert str(plan.cache.cues) == "made at each use: each of 2,400,000 scenes is used once"
    assert resolve(replace(options, stages="1"), open_dataset(demo)).model.config.sources is None


def test_the_stage_sources_of_tiny_is_that_of_its_encoder(demo: Path, tmp_path: Path):
    plans = [
        resolve(TrainOptions(data=demo, output=tmp_path / "run", stages=f"{stage},1"), open_dataset(demo))
        for stage in ("encoder", "sources")
    ]
    assert plans[0].stage_names == plans[1].stage_names == ("sources", "1")
    assert plans[0].model == plans[1].model


@pytest.mark.parametrize("preset", PUBLISHED_PRESETS.values())
def test_a_run_has_its_preset_s_values_for_encoders_that_are_added_to_it(demo: Path, tmp_path: Path, preset: str):
    """It records no values of source tokens that it has not."""
    tables = recorded(preset, lr=3e-4)
    tables["recipe"] = {key: value for key, value in tables["recipe"].items() if not key.startswith("source_")}
    start = find_start(None, write_run(tmp_path / "start", preset, tables))
    assert start.recipe == replace(RECIPES[preset], lr=3e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": "encoder,sources,1"}, "--stages: encoder,sources,1: source tokens are the only encoder"),
        ({"stages": "sources,encoder"}, "--stages: 'sources,encoder' is no order of stages"),
        ({"stages": "1,sources"}, "--stages: .*is no order of stages"),
        ({"stages": "sources", "preset": "llama2-7b", "llm": Path("llm")}, "stage sources: .*need a trained encoder"),
        ({"stages": "sources,1", "init": "start", "encoder_init": Path("mae.pth")}, "--encoder-init: has no effect"),
        ({"stages": "1", "init": "start", "set": ["source_lr=1"]}, "--set source_lr: has no effect"),
        ({"stages": "sources", "init": "start", "accumulate": 2}, "--accumulate: has no effect"),
        ({"stages": "sources", "init": "start", "set": ["source_batch=48"]}, "source_update of the recipe"),
        ({"stages": "sources", "init": "start", "set": ["source_warmup=2"]}, "--set source_warmup"),
    ],
)
def test_contradictions_about_source_tokens_are_refused(demo: Path, tmp_path: Path, changes: dict, words: str):
    if "init" in changes:
        run = write_run(tmp_path / "start", "llama2-7b", recorded("llama2-7b"))
        changes = {**changes, "init": run}
    with pytest.raises(InputError, match=words):
        resolve(TrainOptions(data=demo, output=tmp_path / "run", **changes), open_dataset(demo))


def test_an_encoder_starts_from_one_place(demo: Path, tmp_path: Path):
    run = write_run(tmp_path / "start", "llama2-7b", recorded("llama2-7b"))
    options = TrainOptions(
        data=demo, output=tmp_path / "run", init=run, stages="encoder", encoder_init=Path("mae.pth"), dry_run=True
    )
    with pytest.raises(InputError, match=r"--encoder-init: has no effect; the encoder starts from .*start's"):
        resolve(options, open_dataset(demo))


def test_a_run_of_other_classes_is_refused_by_a_dry_run(demo: Path, tmp_path: Path):
    run = write_run(tmp_path / "start", "llama2-7b", recorded("llama2-7b"))  # of the preset's 355 classes
    options = TrainOptions(data=demo, output=tmp_path / "run", init=run, stages="sources", dry_run=True)
    with pytest.raises(InputError, match=r"start: was made for 355 classes; not for the 28 of "):
        train(options)


@pytest.mark.parametrize(
    ("changes", "idle"),
    [
        ({"stages": "encoder", "set": [*FEW, "lr=0.1"]}, "--set lr"),
        ({"stages": "encoder", "set": FEW, "recipe": "as-20k,slam-llm"}, "--recipe slam-llm"),
        ({"stages": "encoder", "set": FEW, "batch_size": "4"}, "--batch-size"),
        ({"stages": "1", "set": ["encoder_lr=0.1"], "recipe": "as-20k,slam-llm"}, "--recipe as-20k, --set encoder_lr"),
        ({"stages": "1", "set": ["lr=0.1"], "recipe": "slam-llm"}, None),
    ],
)
def test_values_of_other_stages_are_said(demo: Path, tmp_path: Path, changes: dict, idle: str | None):
    recorder = Recorder()
    train(TrainOptions(data=demo, output=tmp_path / "run", preset="llama2-7b", dry_run=True, **changes), recorder)
    lines = [line.partition(": ")[2] for line in recorder.lines if line.startswith("for other stages")]
    assert lines == ([] if idle is None else [idle])


def test_values_of_none_are_recorded_and_taken_over(demo: Path, tmp_path: Path):
    """slam-llm clips no gradient and ends at 200,000 updates; the paper's recipe clips and ends with its epochs."""
    for recipe, clip, end in (("slam-llm", None, 200_000), ("paper", 1.0, None)):
        options = TrainOptions(
            data=demo, output=tmp_path / "run", preset="llama2-7b", stages="1", recipe=recipe, dry_run=True
        )
        tables = resolve(options, open_dataset(demo)).tables()
        assert (tables["recipe"]["clip"], tables["recipe"]["lr_updates"]) == (clip or "none", end or "none")
        run = write_run(tmp_path / recipe, "llama2-7b", dict(tables))
        next_one = replace(options, init=run, preset=None, recipe="", stages="2")
        taken = resolve(next_one, open_dataset(demo)).recipe
        assert (taken.clip, taken.lr_updates) == (clip, end)
        assert taken == resolve(options, open_dataset(demo)).recipe
        assert resolve(replace(next_one, set=["clip=3"]), open_dataset(demo)).recipe.clip == 3


def test_a_run_is_not_overwritten_by_what_starts_from_it(demo: Path, run: Path):
    options = TrainOptions(data=demo, output=run.parent / "." / run.name, init=run, overwrite=True)
    with pytest.raises(InputError, match=r"--init: .*is not trained into itself"):
        train(options)
    assert (run / checkpoint.DONE).exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_dry_run_reports_the_plan_and_the_needs(demo: Path, tmp_path: Path, llm_folder: Path, preset: str):
    llm = None if PRESETS[preset].llm else llm_folder
    recorder = Recorder()
    few = [] if PRESETS[preset].published_encoder is None else ["encoder_update=56", "encoder_batch=28"]
    train(TrainOptions(data=demo, output=tmp_path / "run", preset=preset, llm=llm, set=few, dry_run=True), recorder)
    text = "\n".join(recorder.lines)
    for words in (
        "Q-Former",
        f"lr {RECIPES[preset].lr}",
        "stage 3: ",
        " updates",
        "memory: about",
        "B in stages 1 to 3",
        "disk: about",
    ):
        assert words in text, words
    assert not (tmp_path / "run").exists()


def test_the_record_is_a_configuration_file(tmp_path: Path):
    assert "[recipe]" in to_toml(recorded("llama2-7b"))
