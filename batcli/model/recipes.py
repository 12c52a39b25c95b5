"""How each preset is trained: steps, epochs, learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

STAGES = {"1": "AB", "2": "ABCD", "3": "ABCDE"}
"""Stage → families it learns from; the published training files are cumulative in the same way."""


@dataclass(frozen=True)
class Recipe:
    """The defaults are the published ones (Zheng et al. 2024, appendix)."""

    encoder_steps: int = 780_000  # 100 epochs of AudioSet-2M at 256 scenes per step
    encoder_batch: int = 64
    encoder_lr: float = 1e-3
    encoder_decay: float = 0.75  # learning rate of a block relative to the one above it
    patch_share: float = 1.0  # of a batch's scenes, those that the patch encoder learns from
    two_sources: tuple[float, float] = (0.5, 0.5)  # share of two-source scenes, at the start and from the middle on
    epochs: tuple[float, float, float] = (2, 2, 3)  # of stages 1, 2 and 3
    batch: int = 8
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    warmup: float = 2 / 7  # share of a stage's updates
    clip: float = 1.0  # largest norm of a gradient


RECIPES = {
    "llama2-7b": Recipe(),
    "tiny": Recipe(
        encoder_steps=1_200,
        encoder_batch=16,
        encoder_lr=2e-3,
        encoder_decay=1.0,
        patch_share=0.25,  # the source tokens learn more in the same time
        two_sources=(0.3, 0.65),
        epochs=(0.5, 0.5, 1.5),
        batch=32,
        lr=2e-3,
        weight_decay=0.01,
        warmup=0.05,
    ),
}


def learning_rate(update: int, total: int, warmup: float) -> float:
    """Factor on the peak rate: linear warm-up, then half a cosine down to 1 % of the peak."""
    warm = max(1, round(warmup * total))
    if update < warm:
        return (update + 1) / warm
    done = (update - warm) / max(1, total - warm)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
