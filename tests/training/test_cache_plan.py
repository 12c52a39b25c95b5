"""What is kept on disk is decided from the data and the options, before anything is loaded."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from batcli.core.errors import InputError
from batcli.core.toml import to_toml
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import open_dataset
from batcli.model import checkpoint
from batcli.model.config import PRESETS, ModelConfig
from batcli.model.encoders.sources import SourceTokens
from batcli.model.features import spectrum
from batcli.options import TrainOptions
from batcli.training import cache_plan
from batcli.training.cache_plan import CachePlan, SceneCounts, cue_bytes, encoding_bytes
from batcli.training.recipe import CURRICULUM, RECIPES
from batcli.training.resolve import resolve

ENCODER_ALONE = {"preset": "llama2-7b", "stages": "encoder", "set": ["encoder_update=32", "encoder_batch=32"]}


def planned(data: Path, output: Path, **changes: Any) -> CachePlan:
    return resolve(TrainOptions(data=data, output=output, **changes), open_dataset(data)).cache


@pytest.fixture(scope="module")
def hardly_shared(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo with one question about each scene."""
    data = tmp_path_factory.mktemp("alone") / "data"
    shutil.copytree(demo, data)
    dataset = open_dataset(data)
    first = {question.scene: question for question in reversed(list(dataset.questions("train")))}
    dataset.add_split("train", first.values(), *(dataset.path(f"metadata/{name}.json") for name in ("train", "train")))
    dataset.splits["train"] = replace(dataset.splits["train"], reverbs="reverb/train_reverberation.json")
    dataset.save()
    return data


def test_scenes_with_many_questions_are_kept(demo: Path, tmp_path: Path, llm_folder: Path):
    for preset, llm in (("tiny", None), ("llama2-7b", llm_folder)):
        kept = planned(demo, tmp_path / "run", preset=preset, llm=llm, stages="1,2,3").encodings
        assert kept is not None
        assert kept.on_disk
        assert kept.gigabytes < 0.1


def test_scenes_of_one_question_are_encoded_at_each_use_beside_a_large_model(
    hardly_shared: Path, tmp_path: Path, llm_folder: Path
):
    large = planned(hardly_shared, tmp_path / "run", preset="llama2-7b", llm=llm_folder, stages="3").encodings
    assert large is not None
    assert not large.on_disk
    assert "1.0 each" in str(large)
    small = planned(hardly_shared, tmp_path / "run", set=["epochs=1,1,2"]).encodings
    assert small is not None
    assert small.on_disk, "used more than twice, and cheaper to read than to make"
    once = planned(hardly_shared, tmp_path / "run", stages="3", set=["epochs=1,1,1"]).encodings
    assert once is not None
    assert not once.on_disk


def test_the_released_stage_three_does_not_fit():
    """690 GB: its 872,312 questions are about 872,193 scenes of 515 × 768 numbers."""
    assert encoding_bytes(ModelConfig()) * 872_193 / 1e9 == pytest.approx(690, rel=1e-3)
    families = Counter(A=139_392, B=139_392, C=118_000, D=118_000, E=357_528)
    pays, reason = SceneCounts(families, 872_193).pays(CURRICULUM, RECIPES["llama2-7b"], small=False)
    assert not pays
    assert "872,312 questions are about 872,193 scenes, 1.0 each" in reason


def test_what_does_not_fit_is_made_at_each_use(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = planned(demo, tmp_path / "run", cache_gb=0.001, set=["source_scenes=100000"])
    assert cache.cues is not None
    assert not cache.cues.on_disk
    assert "2.9 GB are more than the 1.0 MB that --cache-gb allows" in str(cache.cues)
    assert cache.encodings is not None
    assert cache.encodings.on_disk, "it is small"
    assert cache.gigabytes == cache.encodings.gigabytes
    monkeypatch.setattr(cache_plan, "free_gb", lambda path: 1e-6)
    full = planned(demo, tmp_path / "run")
    assert full.gigabytes == 0
    assert "that are free" in str(full.encodings)


def test_cues_and_encodings_share_the_limit(demo: Path, tmp_path: Path):
    cues = planned(demo, tmp_path / "run").cues
    assert cues is not None
    both = planned(demo, tmp_path / "run", cache_gb=cues.gigabytes * (1 + 1e-6))
    assert [kept.on_disk for kept in both.parts.values()] == [True, False]


def test_disk_without_the_room_is_refused_before_anything_is_loaded(demo: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("batcli.training.build.build_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(InputError, match=r"--cache disk: encodings: .*B are more than the .*B that --cache-gb"):
        planned(demo, tmp_path / "run", stages="1", cache="disk", cache_gb=0.0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("cache", ["disk", "none"])
def test_the_option_decides(hardly_shared: Path, tmp_path: Path, llm_folder: Path, cache: str):
    plans = [
        planned(hardly_shared, tmp_path / "run", cache=cache),
        planned(hardly_shared, tmp_path / "run", preset="llama2-7b", llm=llm_folder, stages="1", cache=cache),
    ]
    for plan in plans:
        assert {kept.place for kept in plan.parts.values()} == {cache}
        assert all(kept.reason == f"--cache {cache}" for kept in plan.parts.values())


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"cache": "none", "cache_gb": 3.0}, "--cache-gb"),
        ({**ENCODER_ALONE, "cache": "disk"}, "--cache"),
        ({**ENCODER_ALONE, "cache_gb": 3.0}, "--cache-gb"),
    ],
)
def test_an_option_without_effect_is_refused(demo: Path, tmp_path: Path, changes: dict, option: str):
    with pytest.raises(InputError, match=rf"^{option}: has no effect"):
        planned(demo, tmp_path / "run", **changes)


@pytest.mark.parametrize("begun", ["disk", "none"])
def test_a_resumed_run_keeps_to_what_it_began_with(demo: Path, tmp_path: Path, begun: str):
    (tmp_path / checkpoint.CONFIG).write_text(to_toml({"scenes": {"cues": begun, "encodings": begun}}))
    plan = planned(demo, tmp_path, resume=True)
    assert plan.places() == {"cues": begun, "encodings": begun}
    assert str(plan.encodings).endswith("as the run was begun")
    anew = planned(demo, tmp_path, resume=True, overwrite=True)
    assert anew.places() == {"cues": "disk", "encodings": "disk"}
    if begun == "disk":
        with pytest.raises(InputError, match="--cache-gb allows"):
            planned(demo, tmp_path, resume=True, cache_gb=0.0)


@pytest.mark.parametrize("preset", PRESETS)
def test_an_encoding_takes_what_is_computed(preset: str):
    config = PRESETS[preset].for_scenes(0.5, 28)
    parts = [cache_plan.ENCODER_CLASSES[name](sizes).eval() for name, sizes in config.encoders.items()]
    scene = torch.randn(1, 2, SAMPLE_RATE // 2)
    with torch.inference_mode():
        tokens = [part.tokenize(scene, spectrum(scene)) for part in parts]
    assert encoding_bytes(config) == sum(part.half().nbytes for part in tokens)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_cues_take_as_much_as_they_are_computed_to(seconds: float):
    config = replace(PRESETS["tiny"].sources, seconds=seconds)
    cues = SourceTokens(config).eval().cues(spectrum(torch.randn(1, 2, round(seconds * SAMPLE_RATE))))
    assert cue_bytes(config) == cues.half().nbytes


def test_disk_of_the_quickstart():
    """52,008 scenes took 3.00 GB, their labels aside."""
    assert 52_008 * cue_bytes(PRESETS["tiny"].sources) / 1e9 == pytest.approx(3.0, abs=0.01)
