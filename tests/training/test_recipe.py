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


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("lr", "--set: 'lr' is not KEY=VALUE"),
        ("encoder_step=3", "--set: unknown key 'encoder_step'; did you mean 'encoder_steps'?"),
        ("lr=nan", "--set lr: 'nan' is no value for this"),
        ("lr=-1", "--set lr"),
        ("encoder_steps=1.5", "--set encoder_steps"),
        ("batch=0", "--set batch"),
        ("mixup=1.5", "--set mixup"),
        ("muon=yes", "--set muon: 'yes' is no value for this; such as muon=false"),
        ("betas=0.9", "--set betas"),
    ],
)
def test_wrong_ones_are_refused(pair: str, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        TINY.with_values([pair])
