"""Learning rates of the updates of a stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from batcli.training.recipe import LR_SCENES, Recipe

SOURCE_LOWEST = 0.01  # last learning rate of the source tokens, as a share of the peak


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to the peak, then half a cosine or a line down to the lowest learning rate.

    `schedule(update)` → learning rate of an update, counted from 0.
    """

    peak: float
    warmup: float  # updates
    total: float  # updates
    lowest: float  # as a share of the peak, at update `total`
    decay: str = "cosine"  # or linear
    first: int = 0  # steps of the warm-up that the first update is at; 0: its learning rate is 0

    def __call__(self, update: int) -> float:
        if update < self.warmup:
            return self.peak * ((update + self.first) / self.warmup)
        done = min(1.0, (update - self.warmup) / max(1, self.total - self.warmup))
        if self.decay == "linear":
            return self.peak * (self.lowest + (1 - self.lowest) * (1 - done))
        return self.peak * (self.lowest + (1 - self.lowest) * 0.5 * (1 + math.cos(math.pi * done)))


def encoder_schedule(recipe: Recipe, updates_per_epoch: int) -> Schedule:
    """The schedule of Spatial-AST's stage; the peak is in proportion to the scenes of an update."""
    peak = recipe.encoder_lr * recipe.encoder_update / LR_SCENES
    warmup, total = (epochs * updates_per_epoch for epochs in (recipe.encoder_warmup, recipe.encoder_epochs))
    return Schedule(peak, warmup, total, recipe.encoder_lowest_lr / peak)


def source_schedule(recipe: Recipe, total: int) -> Schedule:
    """The schedule of the source tokens' stage of `total` updates."""
    warmup = max(1, round(recipe.source_warmup * total))
    return Schedule(recipe.source_lr, warmup, total, SOURCE_LOWEST, first=1)


def stage_schedule(recipe: Recipe, total: int, updates_per_epoch: float) -> Schedule:
    """The schedule of one of the stages 1 to 3, of `total` updates."""
    units = {"share": total, "epochs": updates_per_epoch, "updates": 1}
    warmup, end = recipe.warmup * units[recipe.warmup_unit], recipe.lr_updates or total
    if recipe.warmup_unit == "share":
        return Schedule(recipe.lr, max(1, round(warmup)), end, recipe.lowest, recipe.decay, first=1)
    return Schedule(recipe.lr, warmup, end, recipe.lowest, recipe.decay)
