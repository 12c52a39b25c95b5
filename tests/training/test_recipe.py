"""Values of a recipe from `KEY=VALUE`."""

from __future__ import annotations

import re

import pytest

from batcli.core.errors import InputError
from batcli.training.recipe import MADE_FOR, NAMED, RECIPES, with_named
from batcli.training.schedule import encoder_schedule

TINY = RECIPES["tiny"]


def test_values_have_the_type_of_their_default():
    changed = TINY.with_values(["lr=1e-3", "batch=8", "muon=false", "epochs=1, 2,3", "betas=[0.8, 0.9]", "lr=2"])
    assert (changed.lr, changed.batch, changed.muon) == (2.0, 8, False)
    assert (changed.epochs, changed.betas) == ((1.0, 2.0, 3.0), (0.8, 0.9))
    assert TINY.with_values([]) == TINY
    changed = TINY.with_values(["clip=none", "decay=linear", "warmup=2", "warmup_unit=epochs", "encoder_scenes=5"])
    assert (changed.clip, changed.decay, changed.warmup, changed.encoder_scenes) == (None, "linear", 2.0, 5)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("lr", "--set: 'lr' is not KEY=VALUE"),
        ("encoder_epoch=3", "--set: unknown key 'encoder_epoch'; did you mean 'encoder_epochs'?"),
        ("lr=nan", "--set lr: 'nan' is no value for this"),
        ("lr=-1", "--set lr"),
        ("encoder_epochs=1.5", "--set encoder_epochs"),
        ("encoder_epochs=none", "--set encoder_epochs"),
        ("loss_weights=1,2", "--set loss_weights: '1,2' is no value for this; such as loss_weights=1250,1,2"),
        ("decay=steps", "--set decay: 'steps' is no value for this; such as decay=cosine"),
        ("warmup=2", "--set warmup: 2 is more than the whole stage; a share up to 1"),
        ("batch=0", "--set batch"),
        ("mixup=1.5", "--set mixup"),
        ("muon=yes", "--set muon: 'yes' is no value for this; such as muon=false"),
        ("betas=0.9", "--set betas"),
    ],
)
def test_wrong_ones_are_refused(pair: str, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        TINY.with_values([pair])


@pytest.mark.parametrize(
    ("stage", "clips", "epochs", "scenes", "balanced", "weights"),
    [
        (1, 1_861_750, 100, 186_175, True, (1, 0, 0)),
        (2, 1_861_750, 50, 18_617, True, (100, 2, 1)),
        (3, 18_685, 50, 18_685, False, (100, 2, 1)),
    ],
)
def test_the_stages_of_dspast_are_the_published_ones(stage, clips, epochs, scenes, balanced, weights):
    """Four GPUs with 32 scenes each; learning rate 5e-4 after 10 epochs, then half a cosine to 1e-6."""
    recipe = with_named(RECIPES["llama2-7b-dspast"], [f"dspast-{stage}"])
    assert (recipe.encoder_epochs, recipe.epoch_scenes(clips)) == (epochs, scenes)
    assert (recipe.balanced, recipe.loss_weights) == (balanced, weights)
    assert (recipe.encoder_update, recipe.encoder_batch) == (128, 32)
    assert (recipe.encoder_betas, recipe.encoder_weight_decay, recipe.encoder_clip) == ((0.9, 0.999), 5e-4, None)
    assert (recipe.layer_decay, recipe.mixup, recipe.roll, recipe.gain) == (0.75, 0.5, True, True)
    assert (recipe.two_sources, recipe.brir_seconds) == (0, 2)
    each = recipe.epoch_updates(clips)
    assert each == scenes // 128
    rate = encoder_schedule(recipe, each)
    assert (rate(0), rate(5 * each)) == (0, pytest.approx(2.5e-4))
    assert (rate(10 * each), rate(epochs * each)) == (pytest.approx(5e-4), pytest.approx(1e-6))


def test_a_stage_of_dspast_replaces_every_value_of_the_one_before():
    first, second, third = (NAMED[f"dspast-{stage}"].keys() for stage in (1, 2, 3))
    assert first == second == third
    assert MADE_FOR.keys() == NAMED.keys() - {"paper", "slam-llm"}
