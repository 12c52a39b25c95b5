"""Training recipes: the values of a training, those of the presets, and named ones that replace a part of them."""

from __future__ import annotations

import math
import typing
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any, Literal

from batcli.core.errors import InputError
from batcli.core.toml import refuse_unknown

ENCODER, DSPAST, SOURCES, ALL = "encoder", "dspast", "sources", "all"
STAGES = {"1": "AB", "2": "ABCD", "3": "ABCDE", ALL: "ABCDE"}
"""Stage → families of its questions, cumulative as in the published training files.

`all` is the paper's control without a curriculum: one stage of as many answers as the three have together.
"""
CURRICULUM = ("1", "2", "3")
SUCH_STAGES = "such as encoder,1,2,3, sources,1,2,3 or encoder,all"
LR_SCENES = 256  # scenes of an update at which the encoder's learning rate is `encoder_lr`
PUBLISHED_VALUES = (
    *("encoder_epochs", "encoder_scenes", "encoder_update", "encoder_batch"),
    *("encoder_lr", "encoder_lowest_lr", "encoder_warmup"),
    *("encoder_betas", "encoder_weight_decay", "encoder_clip", "layer_decay", "loss_weights"),
    *("two_sources", "mixup", "roll", "gain", "balanced", "brir_seconds"),
)
VALUES_OF = {
    ENCODER: PUBLISHED_VALUES,
    DSPAST: PUBLISHED_VALUES,
    SOURCES: (
        *("source_scenes", "source_epochs", "source_update", "source_batch", "source_lr"),
        *("source_warmup", "source_betas", "source_weight_decay", "source_clip"),
    ),
}
"""Encoder → the values of a recipe that matter to its training alone."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training: amounts of data, batch sizes, learning rates and augmentation.

    Amounts are epochs, scenes and questions, which do not depend on the number of processes. Without a preset's
    or a named recipe's values, those of the stages 1 to 3 are this project's own.
    """

    # Spatial-AST and DSpAST.
    encoder_epochs: int = 100
    encoder_scenes: int | None = 10_000  # of an epoch, each of another clip; None, or more than there are: all clips
    encoder_update: int = 256  # scenes of an update, in all processes together
    encoder_batch: int = 64  # scenes of a forward pass in one process
    encoder_lr: float = 1e-3  # for updates of LR_SCENES scenes; in proportion for others
    encoder_lowest_lr: float = 1e-6  # at the end
    encoder_warmup: float = 10.0  # epochs
    encoder_betas: tuple[float, float] = (0.9, 0.999)
    encoder_weight_decay: float = 5e-4  # not of biases, norms and class tokens
    encoder_clip: float | None = None  # largest norm of a gradient; None: any
    layer_decay: float = 0.75  # factor on the learning rate from each block to the one below
    loss_weights: tuple[float, float, float] = (1250.0, 1.0, 2.0)  # of events, distance, azimuth and elevation
    two_sources: float = 0.0  # share of scenes with two places
    mixup: float = 0.5  # share of places with a mixture of two clips
    roll: bool = True  # shift each clip circularly by a random time
    gain: bool = True  # change each clip's amplitude by up to a half
    balanced: bool = True  # draw clips with rare labels more often
    brir_seconds: float | None = 2.0  # length that BRIRs are cut to; None: as long as a scene
    # Source tokens, if the model has them.
    source_scenes: int = 30_000
    source_epochs: int = 6
    source_update: int | None = None  # scenes of an update, in all processes together; None: as of `update`
    source_batch: int = 64  # scenes of a forward pass in one process
    source_lr: float = 8e-3
    source_warmup: float = 0.05  # share of the updates; then half a cosine to 1 %
    source_betas: tuple[float, float] = (0.9, 0.95)
    source_weight_decay: float = 0.05
    source_clip: float | None = 1.0  # largest norm of a gradient; None: any
    # Stages 1 to 3.
    epochs: tuple[float, float, float] = (2, 2, 3)  # of stages 1, 2 and 3
    soft_distance: float = 0.0  # share of a distance's weight in the loss that goes to its neighbours
    one_way: float = 0.0  # share of stage 3 whose questions use one word of each pair of opposites
    update: int | None = None  # questions of an update, in all processes together; None: batch, --accumulate, processes
    batch: int | None = 8  # questions of a forward pass in one process; None: as many as fit, not yet resolved
    bucket: int = 16  # updates within which questions of similar length are put together; 1: none
    lr: float = 1e-3
    muon: bool = False  # for matrices within layers; AdamW for the rest
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip: float | None = 1.0  # largest norm of a gradient; None: any
    warmup: float = 2 / 7  # in `warmup_unit`
    warmup_unit: Literal["share", "epochs", "updates"] = "share"  # of a stage's updates; the last two start from 0
    decay: Literal["cosine", "linear"] = "cosine"  # from the peak to `lowest`
    lowest: float = 0.01  # last learning rate, as a share of `lr`
    lr_updates: int | None = None  # end of the schedule and of a stage that would last longer; None: the stage's end

    def used_by(self, encoders: Container[str]) -> dict[str, Any]:
        """The values that have an effect on a model with these encoders, by name."""
        used = {key for name, keys in VALUES_OF.items() if name in encoders for key in keys}
        unused = {key for keys in VALUES_OF.values() for key in keys} - used
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
        changed = replace(self, **changes)
        if changed.warmup_unit == "share" and changed.warmup > 1:
            raise InputError(f"{changed.warmup:g} is more than the whole stage", f"{where} warmup", "a share up to 1")
        return changed

    def epoch_scenes(self, clips: int) -> int:
        """Scenes of an epoch of the encoder, from the number of clips."""
        return clips if self.encoder_scenes is None else min(self.encoder_scenes, clips)

    def epoch_updates(self, clips: int) -> int:
        """Updates of an epoch of the encoder; what is left of its scenes is dropped.

        Raises InputError if there are fewer scenes than in one update.
        """
        scenes = self.epoch_scenes(clips)
        if scenes < self.encoder_update:
            smaller = 1 << max(1, scenes // 2).bit_length() - 1
            hint = f"--set encoder_update={smaller} --set encoder_batch={min(smaller, self.encoder_batch)}"
            raise InputError(f"an epoch has {scenes:,} scenes, an update {self.encoder_update:,}", "encoder", hint)
        return scenes // self.encoder_update


SPATIAL_AST: dict[str, Any] = {
    "encoder_update": 256, "encoder_batch": 64, "encoder_lr": 1e-3, "encoder_lowest_lr": 1e-6,
    "encoder_betas": (0.9, 0.999), "encoder_weight_decay": 5e-4, "encoder_clip": None, "layer_decay": 0.75,
    "loss_weights": (1250.0, 1.0, 2.0), "two_sources": 0.0, "mixup": 0.5, "roll": True, "gain": True,
    "brir_seconds": 2.0,
}  # fmt: skip
DSPAST_VALUES: dict[str, Any] = {**SPATIAL_AST, "encoder_update": 128, "encoder_batch": 32, "encoder_warmup": 10.0}
PLACES_TOO = {"encoder_epochs": 50, "loss_weights": (100.0, 2.0, 1.0)}
OWN: dict[str, Any] = {"muon": False, "soft_distance": 0.0, "one_way": 0.0}  # which no published recipe has
NAMED: dict[str, dict[str, Any]] = {
    "as-2m": {
        **SPATIAL_AST, "encoder_epochs": 100, "encoder_warmup": 10.0, "encoder_scenes": 10_000, "balanced": True
    },
    "as-20k": {
        **SPATIAL_AST, "encoder_epochs": 50, "encoder_warmup": 5.0, "encoder_scenes": None, "balanced": False
    },
    "events": {"loss_weights": (1250.0, 0.0, 0.0)},
    "dspast-1": {
        **DSPAST_VALUES, "encoder_epochs": 100, "encoder_scenes": 186_175, "balanced": True,
        "loss_weights": (1.0, 0.0, 0.0),
    },
    "dspast-2": {**DSPAST_VALUES, **PLACES_TOO, "encoder_scenes": 18_617, "balanced": True},
    "dspast-3": {**DSPAST_VALUES, **PLACES_TOO, "encoder_scenes": None, "balanced": False},
    "paper": {
        **OWN, "epochs": (2, 2, 3), "update": 16, "batch": 2, "lr": 1e-3, "betas": (0.9, 0.95), "weight_decay": 0.05,
        "clip": 1.0, "warmup": 2.0, "warmup_unit": "epochs", "decay": "cosine", "lowest": 0.0, "lr_updates": None,
    },
    "slam-llm": {
        **OWN, "epochs": (5, 5, 5), "update": 64, "batch": 8, "lr": 1e-4, "betas": (0.9, 0.999), "weight_decay": 0.0,
        "clip": None, "warmup": 20_000.0, "warmup_unit": "updates", "decay": "linear", "lowest": 0.0,
        "lr_updates": 200_000,
    },
}  # fmt: skip
"""Named recipes (`--recipe`): values that replace those of the preset or of the run that a training starts from.

as-2m, as-20k: the two released scripts of Spatial-AST. events: events alone, which the paper trains first. dspast-1,
dspast-2, dspast-3: the stages of DSpAST, each from the one before; the first two on AudioSet's unbalanced clips, the
last on its balanced ones. paper, slam-llm: stages 1 to 3 as in the paper and as in the released script.
`examples/recipes/PUBLISHED.md` has the sources.
"""
MADE_FOR = {"as-2m": ENCODER, "as-20k": ENCODER, "events": ENCODER} | dict.fromkeys(
    ("dspast-1", "dspast-2", "dspast-3"), DSPAST
)
"""Named recipe of an encoder → which."""
SOURCES_BESIDE: dict[str, Any] = {
    "source_scenes": 2_400_000, "source_epochs": 1, "source_update": 256, "source_batch": 32
}  # fmt: skip
"""Amounts for source tokens beside a published encoder, which no publication has: each scene is used once."""
RECIPES = {
    "llama2-7b": Recipe(**NAMED["as-2m"], **NAMED["paper"], **SOURCES_BESIDE),
    "llama2-7b-dspast": Recipe(**NAMED["dspast-1"], **NAMED["paper"], **SOURCES_BESIDE),
    "tiny": Recipe(
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

SHARES = (
    "two_sources",
    "layer_decay",
    "mixup",
    "soft_distance",
    "one_way",
    "lowest",
    "source_warmup",
    "betas",
    "source_betas",
    "encoder_betas",
)  # ≤ 1
HINTS = typing.get_type_hints(Recipe)


def _parsed(key: str, text: str, where: str) -> Any:
    """Parse the value of a key by its type: `8`, `1e-3`, `true`, `none`, `linear`, `1,1,2` or `[1, 1, 2]`."""
    options = typing.get_args(HINTS[key])
    text = text.strip('"')  # as in TOML
    try:
        if NoneType in options and text.lower() == "none":
            return None
        if typing.get_origin(HINTS[key]) is Literal:
            return {option: option for option in options}[text]
        hint = options[0] if NoneType in options else HINTS[key]
        if hint is bool:
            return {"true": True, "false": False}[text]
        if hint is int:
            if (number := int(text)) > 0:
                return number
            raise ValueError
        length = len(typing.get_args(hint)) or 1
        parts = text.removeprefix("[").removesuffix("]").split(",") if length > 1 else [text]
        numbers = tuple(float(part) for part in parts)
        limit = 1.0 if key in SHARES else math.inf
        if len(numbers) != length or not all(math.isfinite(each) and 0 <= each <= limit for each in numbers):
            raise ValueError
        return numbers if length > 1 else numbers[0]
    except (ValueError, KeyError):
        default = getattr(RECIPES["llama2-7b"], key)
        such = ",".join(f"{part:g}" for part in default) if isinstance(default, tuple) else str(default).lower()
        raise InputError(f"{text!r:.60} is no value for this", f"{where} {key}", f"such as {key}={such}") from None


def with_named(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """Copy with the values of named recipes, one after another. Raises InputError for an unknown name."""
    for name in names:
        refuse_unknown([name], list(NAMED), "--recipe")
        recipe = replace(recipe, **NAMED[name])
    return recipe


def stage_names(stages: Sequence[str], encoders: Sequence[str]) -> tuple[str, ...]:
    """Each stage's name in the log, for a model with these `ENCODERS`: `encoder` is the stage of the first of them."""
    return tuple(encoders[0] if stage == ENCODER else stage for stage in stages)


def answers_seen(stage: str, family_counts: Mapping[str, int], recipe: Recipe) -> float:
    """Number of answers that a stage is trained on, from the number of questions of each family."""
    epochs = dict(zip(CURRICULUM, recipe.epochs, strict=True))
    parts = CURRICULUM if stage == ALL else (stage,)
    return sum(epochs[part] * sum(family_counts.get(family, 0) for family in STAGES[part]) for part in parts)


def stage_updates(stage: str, family_counts: Mapping[str, int], recipe: Recipe, per_update: int) -> int:
    """Number of updates of a stage, of `per_update` questions each."""
    updates = max(1, round(answers_seen(stage, family_counts, recipe) / per_update))
    return updates if recipe.lr_updates is None else min(updates, recipe.lr_updates)
