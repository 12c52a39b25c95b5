"""How each preset is trained: steps, epochs, learning rates."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from batcli.core.errors import InputError
from batcli.core.toml import refuse_unknown

ENCODER, SOURCES, ALL = "encoder", "sources", "all"
STAGES = {"1": "AB", "2": "ABCD", "3": "ABCDE", ALL: "ABCDE"}
"""Stage → families it learns from; the published training files are cumulative in the same way.

`all` is the paper's control, one stage. How long theirs took it does not say; here it sees as many
questions as the three stages would, which on the released files are 4.8 epochs (SLAM-LLM's script: 5).
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
    """The defaults are the published ones (Zheng et al. 2024, appendix), but for what helps on AudioSet alone:
    that is off here, and on in `llama2-7b`."""

    encoder_steps: int = 780_000  # 100 epochs of AudioSet-2M at 256 scenes per step
    encoder_batch: int = 64
    encoder_lr: float = 1e-3
    source_scenes: int = 30_000  # scenes drawn for the source tokens, if the model has them
    source_epochs: int = 6
    source_batch: int = 64
    source_lr: float = 8e-3
    two_sources: float = 0.5  # share of two-source scenes
    layer_decay: float = 1.0  # of the encoder's learning rate, from each block to the one below
    mixup: float = 0.0  # share of the encoder's scenes in which two clips sound in one place
    roll_and_gain: bool = False  # turn each clip around in time and change its level by up to a half
    balanced: bool = False  # draw clips with rare labels more often
    epochs: tuple[float, float, float] = (2, 2, 3)  # of stages 1, 2 and 3
    soft_distance: float = 0.0  # share of a distance's weight in the answers' loss that goes to those half a metre off
    one_way: float = 0.0  # share of stage 3 in which relations are asked by one word of each pair: right, not left
    batch: int | None = 8  # questions per process and step; None: as many as fit, not found yet
    lr: float = 1e-3
    muon: bool = False  # in stages 1 to 3, for the matrices within layers; AdamW for the rest
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup: float = 2 / 7  # share of a stage's updates
    clip: float = 1.0  # largest norm of a gradient

    def used_by(self, encoders: Container[str]) -> dict[str, Any]:
        """The values that have an effect on a model with these encoders, by name."""
        unused = {key for name, keys in VALUES_OF.items() if name not in encoders for key in keys}
        return {key: value for key, value in vars(self).items() if key not in unused}

    def with_values(self, pairs: Sequence[str], where: str = "--set") -> Recipe:
        """With `KEY=VALUE` of each pair, the last of a key. Raises InputError, naming `where`, for an unknown key or a
        wrong value."""
        changes: dict[str, Any] = {}
        for pair in pairs:
            key, equals, text = pair.partition("=")
            if not equals:
                raise InputError(f"{pair!r:.60} is not KEY=VALUE", where, "such as lr=1e-3")
            refuse_unknown([key.strip()], list(vars(Recipe())), where)
            changes[key.strip()] = _parsed(key.strip(), text.strip(), where)
        return replace(self, **changes)


RECIPES = {
    # As in Spatial-AST's released training code, whose scenes have one place, where two clips sound in half of them.
    "llama2-7b": Recipe(two_sources=0.0, layer_decay=0.75, mixup=0.5, roll_and_gain=True, balanced=True),
    "tiny": Recipe(
        encoder_batch=16,
        encoder_lr=2e-3,
        source_scenes=52_000,
        epochs=(0.35, 0.2, 0.9),
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
    """The value of one key from its text, in the type of its default: `8`, `1e-3`, `true`, `1,1,2` or `[1, 1, 2]`."""
    default = getattr(Recipe(), key)
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text]
        if isinstance(default, int):
            if (whole := int(text)) > 0:
                return whole
            raise ValueError
        parts = text.removeprefix("[").removesuffix("]").split(",") if isinstance(default, tuple) else [text]
        numbers = tuple(float(part) for part in parts)
        limit = 1.0 if key in SHARES else math.inf
        if len(numbers) != (len(default) if isinstance(default, tuple) else 1):
            raise ValueError
        if not all(math.isfinite(number) and 0 <= number <= limit for number in numbers):
            raise ValueError
        return numbers if isinstance(default, tuple) else numbers[0]
    except (ValueError, KeyError):
        such = ",".join(f"{part:g}" for part in default) if isinstance(default, tuple) else str(default).lower()
        raise InputError(f"{text!r:.60} is no value for this", f"{where} {key}", f"such as {key}={such}") from None


def answers_seen(stage: str, family_counts: Mapping[str, int], recipe: Recipe) -> float:
    """How many answers a stage learns from: its epochs over its families' questions; `all`: as many as the three."""
    epochs = dict(zip(CURRICULUM, recipe.epochs, strict=True))
    parts = CURRICULUM if stage == ALL else (stage,)
    return sum(epochs[part] * sum(family_counts.get(family, 0) for family in STAGES[part]) for part in parts)


def learning_rate(update: int, total: int, warmup: float) -> float:
    """Factor on the peak rate: linear warm-up, then half a cosine down to 1 % of the peak."""
    warm = max(1, round(warmup * total))
    if update < warm:
        return (update + 1) / warm
    done = (update - warm) / max(1, total - warm)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
