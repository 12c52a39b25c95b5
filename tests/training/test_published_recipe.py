"""The published training recipes, number by number, in a recorded dry run of the code that trains."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from scipy.signal import fftconvolve

import batcli.training.loop
import batcli.training.resolve
import batcli.training.scenes
from batcli.audio.convolve import Filter, gain
from batcli.audio.io import read_brir, read_clip
from batcli.audio.render import RenderSettings
from batcli.core.errors import InputError
from batcli.core.progress import SILENT
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.metadata import Clip
from batcli.model.bat import Encoders
from batcli.model.config import PRESETS, EncoderConfig, LoraConfig
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.options import TrainOptions
from batcli.training.losses import EncoderObjective
from batcli.training.optim import make_optimizers, parameter_groups
from batcli.training.order import rarity_weights
from batcli.training.recipe import NAMED, RECIPES, Recipe, stage_updates, with_named
from batcli.training.resolve import resolve
from batcli.training.scenes import EncoderBatch
from batcli.training.schedule import stage_schedule
from batcli.training.stages import EncoderStage
from batcli.training.trainer import Trainer

SMALL = EncoderConfig(n_mels=32, dim=24, depth=12, heads=2)
BALANCED_CLIPS = 18_617  # about as many as AudioSet-20K has
FAMILIES = {"A": 139_392, "B": 139_392, "C": 118_000, "D": 118_000, "E": 357_528}


@pytest.fixture
def stage_of(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`stage_of(clips, processes, **options)`: the stage that trains a narrow encoder on a list of so many clips."""
    monkeypatch.setitem(PRESETS, "llama2-7b", replace(PRESETS["llama2-7b"], encoder=SMALL))

    def stage(clips: int | None = None, processes: int = 1, **options: Any) -> EncoderStage:
        if clips is not None:
            mids = [label.mid for label in open_dataset(demo).labels]
            made = [Clip(f"clip{n}", (mids[int(len(mids) * (n / clips) ** 3)],)) for n in range(clips)]
            monkeypatch.setattr(Dataset, "clips", lambda self, split: made)
        monkeypatch.setattr(batcli.training.resolve, "rank_and_world", lambda: (0, processes))
        given = {"preset": "llama2-7b", "stages": "encoder", **options}
        plan = resolve(TrainOptions(data=demo, output=tmp_path / "run", **given), open_dataset(demo))
        accelerator: Any = SimpleNamespace(num_processes=processes, process_index=0, device=torch.device("cpu"))
        encoders = Encoders(plan.model.config)
        trainer = Trainer(plan, accelerator, encoders, None, None, SILENT, None, None)
        return EncoderStage(trainer, encoders.encoders["encoder"])

    return stage


@pytest.mark.parametrize(
    ("recipe", "clips", "per_epoch", "epochs", "warm"),
    [("as-2m", 25_000, 39, 100, 10), ("as-20k", BALANCED_CLIPS, BALANCED_CLIPS // 256, 50, 5)],
)
def test_updates_and_learning_rates(stage_of, recipe: str, clips: int, per_epoch: int, epochs: int, warm: int):
    """Of the script: at each update, from the fraction of an epoch."""
    stage = stage_of(clips, recipe=recipe)
    assert stage.total == epochs * per_epoch
    rates = []
    for update in range(stage.total):
        epoch = update / per_epoch
        fall = 1e-6 + (1e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (epoch - warm) / (epochs - warm)))
        rates.append(1e-3 * epoch / warm if epoch < warm else fall)
    assert [stage.schedule(update) for update in range(stage.total)] == pytest.approx(rates, rel=1e-9, abs=1e-15)
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1e-3)


def test_as_2m_is_the_preset_s_recipe(stage_of):
    assert stage_of(25_000).total == 3_900
    assert stage_of(25_000).trainer.plan.recipe == stage_of(25_000, recipe="as-2m").trainer.plan.recipe


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_change_neither_updates_nor_scenes_nor_rates(stage_of, processes: int):
    stage = stage_of(12_000, processes)
    assert stage.total == 3_900
    assert stage.schedule(390) == 1e-3
    batches = next(stage.trainer.batch_ranges(0, 1, 64, stage.accumulate))
    assert [len(batch) for batch in batches] == [64] * (4 // processes)


def test_the_rate_follows_the_scenes_of_an_update(stage_of):
    stage = stage_of(12_000, 8, set=["encoder_update=512"])
    assert (stage.total, stage.accumulate) == (100 * 19, 1)
    assert stage.schedule(190) == pytest.approx(2e-3)
    assert stage.schedule(stage.total) == pytest.approx(1e-6)
    with pytest.raises(InputError, match=r"256 are not a multiple of 64 .* 8 \(processes\); another --set encoder_ba"):
        stage_of(12_000, 8)
    with pytest.raises(InputError, match="an epoch has 200 scenes, an update 256; --set encoder_update=64"):
        stage_of(200)


def test_parameters_of_the_optimizer(stage_of):
    """Layer decay and weight decay of each parameter, betas and epsilon of AdamW, by the rules of the script."""
    stage = stage_of(12_000)
    named = dict(stage.encoder.named_parameters())
    groups = parameter_groups(named, "0", stage.optimizer.weight_decay, stage.lr_scale, stage.decays)
    (adamw,) = make_optimizers(groups, stage.schedule.peak, stage.optimizer.betas, fused=False)
    found = {id(p): (g["lr_scale"], g["weight_decay"]) for g in adamw.param_groups for p in g["params"]}
    for name, parameter in named.items():
        layer = 0 if name.startswith("patch_embed") else 13
        if name.startswith("blocks."):
            layer = 1 + int(name.split(".")[1])
        decay = 0.0 if parameter.ndim == 1 or name == "cls_tokens" else 5e-4
        assert found[id(parameter)] == (pytest.approx(0.75 ** (13 - layer)), decay), name
    assert "pos_embed" not in named
    assert {(g["betas"], g["eps"], g["amsgrad"]) for g in adamw.param_groups} == {((0.9, 0.999), 1e-8, False)}
    assert stage.optimizer.clip is None
    assert not stage.optimizer.muon


def test_no_gradient_is_clipped():
    class Parameters(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3))

    for clip, expected in ((None, 500.0), (1.0, 1.0)):
        module = Parameters()
        module.weight.grad = torch.tensor([300.0, 0.0, 400.0])
        trainer: Any = SimpleNamespace(accelerator=Accelerator(cpu=True))
        stage: Any = SimpleNamespace(optimizer=SimpleNamespace(clip=clip))
        optimizer: Any = SimpleNamespace(param_groups=[{"params": [module.weight], "clip_with": "0"}])
        norm = batcli.training.loop.StageLoop(trainer, stage, module, [optimizer], 0)._clip()
        assert norm == pytest.approx(500.0)
        assert module.weight.grad.norm().item() == pytest.approx(expected)


def test_masks_and_drop_path():
    """A quarter of 64 times and of 8 bands of patches; up to 192 frames and 48 bands; drop path up to 0.1."""
    config = EncoderConfig(dim=24, heads=2)
    assert config.grid == (64, 8)
    assert (config.frame_mask, config.band_mask, config.depth) == (192, 48, 12)
    encoder = SpatialAST(config).train()
    assert [block.drop for block in encoder.blocks] == pytest.approx(np.linspace(0, 0.1, 12))
    assert encoder(torch.randn(1, 2, 320_000)).shape == (1, 3 + 48 * 6, 24)


# ---- draws -------------------------------------------------------------------------------------------


class Recorder:
    """Stands in for reading and rendering: a clip is an impulse of a known height at its first sample."""

    LENGTH, HEIGHT = 400, 2.0

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clips: list[str] = []
        self.rendered: list[np.ndarray] = []
        self.settings: list[RenderSettings] = []
        monkeypatch.setattr(batcli.training.scenes, "load_source", self.load)
        monkeypatch.setattr(batcli.training.scenes, "render", self.render)
        self.level = float(gain(self.impulse()))

    def impulse(self) -> np.ndarray:
        clip = np.zeros(self.LENGTH, np.float32)
        clip[0] = self.HEIGHT
        return clip

    def load(self, clip: Path, brir: Path, settings: RenderSettings) -> tuple[np.ndarray, Filter]:
        self.clips.append(clip.stem)
        self.settings.append(settings)
        return self.impulse(), Filter(np.ones((2, 1), np.float32))

    def render(self, sources, length: int, rms_dbfs: float | None) -> np.ndarray:
        assert rms_dbfs is None, "the level is set before roll and gain"
        (samples, _), *others = sources
        assert not others
        self.rendered.append(samples[: self.LENGTH] / (self.HEIGHT * self.level))
        return np.zeros((2, length), np.float32)


def test_draws_of_scenes(stage_of, demo: Path, monkeypatch: pytest.MonkeyPatch):
    """10,000 different clips an epoch; mixtures, their partners and shares, roll, gain and BRIRs as drawn."""
    stage = stage_of(12_000)
    monkeypatch.setattr(Dataset, "files_of", lambda self, source: (Path(source.audio_id), Path(source.reverb_id)))
    recorder = Recorder(monkeypatch)
    scenes = stage.scenes()
    order = scenes.first_clips.reshape(100, 39 * 256)
    assert all(len(set(epoch)) == 39 * 256 for epoch in order[:5])
    assert (order[0] != order[1]).mean() > 0.99
    rare = rarity_weights(stage.labels) > np.quantile(rarity_weights(stage.labels), 0.9)
    assert np.isin(order[0], np.flatnonzero(rare)).mean() > rare.mean() * 1.15, "rare labels are drawn first"

    shares, partners, rolls, gains, singles, places = [], [], [], [], 0, Counter()
    for index in range(3_000):
        before = len(recorder.clips)
        scene = scenes[index]
        loaded, sound = recorder.clips[before:], recorder.rendered[-1]
        assert loaded[0] == f"clip{scenes.first_clips[index]}"
        assert int(scene.n_places) == 1
        places[tuple(scene.direction[0].tolist()), float(scene.distance[0])] += 1
        if len(loaded) == 1:
            singles += 1
            assert scene.events.max() == 1
            rolls.append(int(sound.argmax()))
            gains.append(float(sound.max()))
        else:
            partners.append(int(loaded[1].removeprefix("clip")))
            if scene.events.max() < 1:
                shares.append(float(scene.events[stage.labels[scenes.first_clips[index]][0]]))
            assert scene.events.sum() == pytest.approx(1.0)
    assert singles / 3_000 == pytest.approx(0.5, abs=0.04)
    assert np.mean(partners) / 12_000 == pytest.approx(0.5, abs=0.03), "partners are uniform, not weighted"
    spread = math.sqrt(0.25 / 21)  # of Beta(10, 10)
    assert (np.mean(shares), np.std(shares)) == (pytest.approx(0.5, abs=0.02), pytest.approx(spread, abs=0.01))
    assert (np.mean(gains), np.std(gains)) == (pytest.approx(1.0, abs=0.02), pytest.approx(spread, abs=0.01))
    assert (min(rolls) < 10, np.mean(rolls)) == (True, pytest.approx(200, abs=20))
    assert max(rolls) > 390
    brirs = list(open_dataset(demo).reverbs("train").values())
    assert len(places) == len(brirs)
    assert max(places.values()) / 3_000 < 2 / len(brirs), "each BRIR of the whole list alike"
    assert {setting.brir_seconds for setting in recorder.settings} == {2.0}
    assert {(setting.rendering, setting.rms_dbfs) for setting in recorder.settings} == {("published", -14.0)}


def test_each_brir_is_drawn_alike_even_where_rooms_differ(stage_of, monkeypatch: pytest.MonkeyPatch):
    """One room with one BRIR, the others with four: room by room, that one would be drawn four times as often."""
    stage = stage_of(12_000)
    reverbs = stage.trainer.plan.dataset.reverbs("train")
    alone = next(iter(reverbs.values()))
    kept = {name: r for name, r in reverbs.items() if r.scene != alone.scene or r is alone}
    monkeypatch.setattr(Dataset, "reverbs", lambda self, split: kept)
    scenes = stage.scenes()
    drawn = [scenes._draw_reverbs(np.random.default_rng(n))[0].reverb_id for n in range(4_000)]
    assert drawn.count(alone.reverb_id) / 4_000 == pytest.approx(1 / len(kept), rel=0.3)


def test_a_scene_is_rendered_as_published(stage_of, demo: Path):
    """Two clips, each at −14 dBFS, mixed; then one BRIR, cut; in 64 bits by another convolution."""
    dataset = open_dataset(demo)
    small = ["encoder_update=8", "encoder_batch=4", "mixup=1", "roll=false", "gain=false", "brir_seconds=0.1"]
    stage = stage_of(set=small)
    scenes = stage.scenes()
    rng_of = np.random.default_rng
    for index in range(4):
        scene = scenes[index]
        rng = rng_of([scenes.seed, index, 0])
        room, number = scenes.brirs[rng.integers(len(scenes.brirs))]
        rng.random()  # whether there is a second source: never
        rng.random()  # whether there is a mixture: always
        other = scenes.clips[rng.integers(len(scenes.clips))]
        share = rng.beta(10, 10)
        first = scenes.clips[scenes.first_clips[index]]
        mixed = np.zeros(scenes.settings.length)
        for clip, weight in ((first, share), (other, 1 - share)):
            samples = read_clip(dataset.audio_path(clip.audio_id), resampler="poly").astype(np.float64)
            samples *= 10 ** (-14 / 20) / np.sqrt(np.mean(samples**2))
            mixed[: len(samples)] += weight * samples[: len(mixed)]
        brir = read_brir(dataset.brir_path(room[number].reverb_id)).astype(np.float64)[:, :3_200]
        expected = fftconvolve(np.stack([mixed, mixed]), brir, axes=1)[:, : len(mixed)]
        np.testing.assert_allclose(scene.audio.numpy(), expected, atol=1e-5 * np.abs(expected).max())
        assert scene.events[list(first.event_ids)].max() == pytest.approx(share if first != other else 1.0)


def test_the_loss():
    """1250 BCE + CE(distance) + 2 (CE(azimuth) + CE(elevation)); events alone by the recipe of that name."""
    torch.manual_seed(0)
    encoder = SpatialAST(replace(SMALL, seconds=1.0, n_classes=7, depth=1)).eval()
    tokens = encoder.heads(encoder(audio := torch.randn(3, 2, 32_000)))
    degrees, heights = torch.tensor([10.0, 200.0, 359.6]), torch.tensor([0.0, 30.0, -45.0])
    across = torch.cos(torch.deg2rad(heights))
    right, front = across * torch.cos(torch.deg2rad(degrees)), across * torch.sin(torch.deg2rad(degrees))
    direction = torch.stack([right, front, torch.sin(torch.deg2rad(heights))], -1)[:, None]
    events = torch.rand(3, 7)
    ones, ids = torch.ones(3, 1), torch.zeros(3, 1, dtype=torch.long)
    metres = torch.tensor([[0.3], [2.2], [9.8]])
    batch = EncoderBatch(audio, events, ids, direction, metres, torch.zeros(3, 1), ones, torch.ones(3))
    found = EncoderObjective(encoder, RECIPES["llama2-7b"].loss_weights)(batch)
    places = F.cross_entropy(tokens.azimuth, torch.tensor([10, 200, 0]))
    places = places + F.cross_entropy(tokens.elevation, torch.tensor([90, 120, 45]))
    torch.testing.assert_close(found["events"], 1250 * F.binary_cross_entropy_with_logits(tokens.events, events))
    torch.testing.assert_close(found["distance"], F.cross_entropy(tokens.distance, torch.tensor([1, 4, 20])))
    torch.testing.assert_close(found["direction"], 2 * places)
    first = EncoderObjective(encoder, with_named(Recipe(), ["events"]).loss_weights)(batch)
    sum(first.values()).backward()
    assert encoder.head.weight.grad.any()
    assert not encoder.azimuth_head.weight.grad.any()
    assert not encoder.distance_head.weight.grad.any()


# ---- stages 1 to 3 -----------------------------------------------------------------------------------


def rates(stage: str, recipe: Recipe, count: int | None = None) -> list[float]:
    per_update = recipe.update or 1
    total = stage_updates(stage, FAMILIES, recipe, per_update)
    families = {"1": "AB", "2": "ABCD", "3": "ABCDE"}[stage]
    schedule = stage_schedule(recipe, total, sum(FAMILIES[f] for f in families) / per_update)
    return [schedule(update) for update in range(total if count is None else count)]


def test_stages_as_in_the_paper():
    """2, 2 and 3 epochs of 2 × 8 questions an update; warm-up of 2 epochs to 1e-3, then half a cosine to 0."""
    recipe = with_named(RECIPES["tiny"], ["paper"])
    counts = {"1": 278_784 * 2, "2": 514_784 * 2, "3": 872_312 * 3}
    assert {stage: stage_updates(stage, FAMILIES, recipe, 16) for stage in counts} == {
        stage: round(count / 16) for stage, count in counts.items()
    }
    third = rates("3", recipe)
    warm = 872_312 * 2 / 16
    for update in (0, 1, 50_000, 109_038, 109_039, 130_000, len(third) - 1):
        fall = 0.5 * (1 + math.cos(math.pi * (update - warm) / (len(third) - warm)))
        assert third[update] == pytest.approx(1e-3 * (update / warm if update < warm else fall), rel=1e-9, abs=1e-15)
    assert max(rates("1", recipe)) == pytest.approx(1e-3, rel=1e-4), "its two epochs are all warm-up"
    assert (recipe.betas, recipe.weight_decay, recipe.muon) == ((0.9, 0.95), 0.05, False)
    assert (recipe.batch, recipe.soft_distance, recipe.one_way) == (2, 0.0, 0.0)


def test_stages_as_in_slam_llm():
    """5 epochs of 8 × 8 questions an update; 1e-4 after 20,000 updates, in a line to 0 at 200,000, where it ends."""
    recipe = with_named(RECIPES["tiny"], ["slam-llm"])
    assert stage_updates("3", FAMILIES, recipe, 64) == round(872_312 * 5 / 64) == 68_149
    assert stage_updates("3", {"E": 100_000_000}, recipe, 64) == 200_000
    third = rates("3", recipe, 200_001)
    for update in (0, 1, 7_000, 19_999, 20_000, 68_148, 199_999, 200_000):
        share = update / 20_000 if update < 20_000 else 1 - (update - 20_000) / 180_000
        assert third[update] == pytest.approx(1e-4 * share, rel=1e-9, abs=1e-18)
    assert (recipe.betas, recipe.weight_decay, recipe.clip) == ((0.9, 0.999), 0.0, None)
    assert recipe.batch == 8
    with_decay = parameter_groups({"w": torch.nn.Parameter(torch.ones(2, 2))}, "0", recipe.weight_decay)
    assert with_decay[0]["weight_decay"] == 0


@pytest.mark.parametrize(("name", "processes", "accumulate"), [("paper", 8, 1), ("paper", 1, 8), ("slam-llm", 8, 1)])
def test_questions_of_an_update_do_not_depend_on_processes(
    demo: Path, tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch, name, processes, accumulate
):
    monkeypatch.setattr(batcli.training.resolve, "rank_and_world", lambda: (0, processes))
    given = {"preset": "llama2-7b", "stages": "1", "llm": llm_folder, "recipe": name}
    plan = resolve(TrainOptions(data=demo, output=tmp_path / "run", **given), open_dataset(demo))
    assert plan.question_batches_each(plan.recipe.batch) == accumulate
    monkeypatch.setattr(batcli.training.resolve, "rank_and_world", lambda: (0, 3))
    with pytest.raises(InputError, match=r"are not a multiple of .* 3 \(processes\); another --batch-size, or --set"):
        resolve(TrainOptions(data=demo, output=tmp_path / "run", **given), open_dataset(demo))


def test_what_is_trained_in_stages_1_to_3():
    lora = PRESETS["llama2-7b"].lora
    assert lora == LoraConfig(r=8, alpha=32, dropout=0.05, targets=("q_proj", "v_proj"))
    assert PRESETS["llama2-7b"].qformer.layers == 8
    assert PRESETS["llama2-7b"].qformer.queries == 64


def test_named_recipes_hold_all_of_their_part():
    """So that nothing of the recipe before shines through."""
    encoder = {"as-2m", "as-20k"}
    assert {frozenset(NAMED[name]) for name in encoder} == {frozenset(NAMED["as-2m"])}
    assert set(NAMED["paper"]) == set(NAMED["slam-llm"])
    both = {**NAMED["as-2m"], **NAMED["paper"]}
    own = {name for name in vars(Recipe()) if name.startswith("source_")} | {"bucket"}
    assert set(both) == set(vars(Recipe())) - own
