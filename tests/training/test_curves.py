"""Plots of a training from its log."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

image = pytest.importorskip("matplotlib.image")
from batcli.training.curves import plot_curves  # noqa: E402


def drawn(tmp_path: Path, *records: dict) -> np.ndarray:
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    plot_curves(tmp_path / "curves.png", tmp_path / "log.jsonl")
    return image.imread(tmp_path / "curves.png")


def training(stage: str, update: int, loss: float | None) -> dict:
    return {"kind": "training", "stage": stage, "update": update, "losses": {"answers": loss}, "lr": 1e-3 / update}


def has(picture: np.ndarray, colour: str) -> bool:
    wanted = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return bool((np.abs(picture[..., :3] - wanted).max(-1) < 0.02).any())


def test_validation_has_a_row_of_its_own_and_losses_may_be_missing(tmp_path: Path):
    records = [training(stage, update, 3.0 / update) for stage in "12" for update in (1, 2, 3)]
    records.append(training("2", 4, None))  # a loss that was not finite
    validation = {"kind": "validation", "stage": "1", "update": 3, "loss": 1.2, "mean": {"doa_acc": 0.4, "der": None}}
    plain = drawn(tmp_path, *records)
    validated = drawn(tmp_path, *records[:3], validation, *records[3:])
    assert validated.shape[0] > 1.3 * plain.shape[0]
    assert validated.shape[1] == plain.shape[1]
    assert has(validated, "#b8860b")
    assert not has(plain, "#b8860b")
