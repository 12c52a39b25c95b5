"""Training recipes of the presets: updates, epochs, learning rates."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batcli.core.errors import InputError
from batcli.core.toml import refuse_unknown

ENCODER, SOURCES, ALL = "encoder", "sources", "all"
STAGES = {"1": "AB", "2": "ABCD", "3": "ABCDE", ALL: "ABCDE"}
"""Stage → families of its questions, cumulative as in the published training files.

`all` is the paper's control without a curriculum: one stage of as many answers as the three have together.
"""
CURRICULUM = ("1", "2", "3")
VALUES_OF = {
    ENCODER: (
        *("encoder_steps", "encoder_batch", "encoder_lr", "two_sources"),
        *("layer_decay", "mixup", "roll_and_gain", "balanced"),
    ),
    SOURCES: ("source_scenes", "source_epochs", "source_batch", "source_lr"),
}
"""Encoder → the values of a recipe that matter to its training alone."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training: amounts of data, batch sizes, learning rates and augmentation.

    The defaults are the published ones (Zheng et al. 2024, appendix), except that the augmentation and layer
    decay of the encoder, which help on AudioSet, are set in `llama2-7b` only.
    """

    encoder_steps: int = 780_000  # 100 epochs of AudioSet-2M at 256 scenes per step
    encoder_batch: int = 64
    encoder_lr: float = 1e-3
    source_scenes: int = 30_000  # drawn for the source tokens, if the model has them
    source_epochs: int = 6
    source_batch: int = 64
    source_lr: float = 8e-3
    two_sources: float = 0.5  # share of two-source scenes
    layer_decay: float = 1.0  # factor on the encoder's learning rate from each block to the one below
    mixup: float = 0.0  # share of the encoder's places with a mixture of two clips
    roll_and_gain: bool = False  # shift each clip circularly in time and change its amplitude by up to a half
    balanced: bool = False  # draw clips with rare labels more often
    epochs: tuple[float, float, float] = (2, 2, 3)  # of stages 1, 2 and 3
    soft_distance: float = 0.0  # share of a distance's weight in the loss that goes to its neighbours
    one_way: float = 0.0  # share of stage 3 whose questions use one word of each pair of opposites
    batch: int | None = 8  # questions per process and forward pass; None: as many as fit, not yet resolved
    lr: float = 1e-3
    muon: bool = False  # in stages 1 to 3, for matrices within layers; AdamW for the rest
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup: float = 2 / 7  # share of a stage's updates
    clip: float = 1.0  # largest norm of a gradient

    def used_by(self, encoders: Container[str]) -> dict[str, Any]:
        """The values that have an effect on a model with these encoders, by name."""
        unused = {key for name, keys in VALUES_OF.items() if name not in encoders for key in keys}
        return {key: value for key, value in vars(self).items() if key not in unused}

    def with_values(self, pairs: Sequence[str], where: str = "--set") -> Recipe:
        """Copy with the values of `KEY=VALUE` pairs; the last of a key counts.

        Raises InputError, naming `where`, for an unknown key or a wrong value.
        """
        changes: dict[str, Any] = {}
        for pair in pairs:
            key, equals, text = pair.partition("=")
            if not equals:
                raise InputError(f"{pair!r:.60} is not KEY=VALUE", where, "such as lr=1e-3")
            refuse_unknown([key.strip()], list(vars(Recipe())), where)
            changes[key.strip()] = _parsed(key.strip(), text.strip(), where)
        return replace(self, **changes)


RECIPES = {
    # As Spatial-AST's released training code: one place per scene, in half of them with a mixture of two clips.
    "llama2-7b": Recipe(two_sources=0.0, layer_decay=0.75, mixup=0.5, roll_and_gain=True, balanced=True),
    "tiny": Recipe(
        encoder_batch=16,
        encoder_lr=2e-3,
        source_scenes=52_000,
        epochs=(0.35, 0.2, 1.5),
        soft_distance=0.5,
        one_way=0.4,
        batch=16,
        lr=1.5e-3,
        muon=True,
        warmup=0.05,
    ),
}

SHARES = ("two_sources", "layer_decay", "mixup", "soft_distance", "one_way", "warmup", "betas")  # at most 1


def _parsed(key: str, text: str, where: str) -> Any:
    """Parse the value of a key in the type of its default: `8`, `1e-3`, `true`, `1,1,2` or `[1, 1, 2]`."""
    default = getattr(Recipe(), key)
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text]
        if isinstance(default, int):
            if (number := int(text)) > 0:
                return number
            raise ValueError
        parts = text.removeprefix("[").removesuffix("]").split(",") if isinstance(default, tuple) else [text]
        numbers = tuple(float(part) for part in parts)
        limit = 1.0 if key in SHARES else math.inf
        if len(numbers) != (len(default) if isinstance(default, tuple) else 1):
            raise ValueError
        if not all(math.isfinite(each) and 0 <= each <= limit for each in numbers):
            raise ValueError
        return numbers if isinstance(default, tuple) else numbers[0]
    except (ValueError, KeyError):
        such = ",".join(f"{part:g}" for part in default) if isinstance(default, tuple) else str(default).lower()
        raise InputError(f"{text!r:.60} is no value for this", f"{where} {key}", f"such as {key}={such}") from None


def answers_seen(stage: str, family_counts: Mapping[str, int], recipe: Recipe) -> float:
    """Number of answers that a stage is trained on, from the number of questions of each family."""
    epochs = dict(zip(CURRICULUM, recipe.epochs, strict=True))
    parts = CURRICULUM if stage == ALL else (stage,)
    return sum(epochs[part] * sum(family_counts.get(family, 0) for family in STAGES[part]) for part in parts)


def learning_rate(update: int, total: int, warmup: float) -> float:
    """Factor on the peak learning rate: linear warm-up, then half a cosine down to 1 %."""
    warm = max(1, round(warmup * total))
    if update < warm:
        return (update + 1) / warm
    done = (update - warm) / max(1, total - warm)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
