"""Values of a recipe from `KEY=VALUE`."""

from __future__ import annotations

import re

import pytest

from batcli.core.errors import InputError
from batcli.training.recipe import RECIPES

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
