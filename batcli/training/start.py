"""Find recipe, rendering and sizes that a training starts with: a preset's, or a run's."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from batcli.core.errors import InputError
from batcli.core.toml import read_toml, refuse_unknown
from batcli.model import checkpoint
from batcli.model.config import PRESETS, ModelConfig
from batcli.training.recipe import RECIPES, Recipe

DEFAULT_PRESET = "tiny"
PUBLISHED_PRESETS = {"encoder": "llama2-7b", "dspast": "llama2-7b-dspast"}  # by published encoder


class Start(NamedTuple):
    """Recipe, rendering and sizes that a training starts with."""

    preset: str
    recipe: Recipe
    rendering: str  # of the scenes
    config: ModelConfig  # of a preset: with the preset's number of classes and scene length, not yet the dataset's
    has_all: bool = False  # whether it is a run with a projector and a language model


def find_start(preset: str | None, init: Path | None) -> Start:
    """Find the recipe, rendering and sizes of a preset (`tiny` by default), or those recorded by the run `init`.

    Raises InputError if `init` is no finished run, is of another preset than `preset`, or records no preset
    and has no LoRA, which would make it the published one.
    """
    if init is None:
        name = preset or DEFAULT_PRESET
        return Start(name, RECIPES[name], PRESETS[name].usual_rendering, PRESETS[name])
    file = checkpoint.require_finished(init) / checkpoint.CONFIG
    config, content = checkpoint.read_config(init), read_toml(file)
    published = PUBLISHED_PRESETS.get(config.published_encoder or "") if config.lora is not None else None
    recorded = _table(content, "train", file).get("preset") or published
    if not isinstance(recorded, str) or recorded not in PRESETS:
        raise InputError(f"names no preset that is known: {recorded!r:.40}", file, f"known: {', '.join(PRESETS)}")
    if preset not in (None, recorded):
        raise InputError(f"{init} is of the preset {recorded}, not {preset}", "--preset", "leave it out beside --init")
    values = _table(content, "recipe", file)
    recipe = recipe_from(RECIPES[recorded], values, file)
    return Start(recorded, recipe, checkpoint.read_rendering(init), config, not checkpoint.holds_encoders_alone(init))


def recipe_from(preset: Recipe, values: dict[str, object], file: Path) -> Recipe:
    """Read the recipe of a `[recipe]` table of `config.toml`: a preset's with these values.

    A run records no values of encoders that it has not.
    """
    refuse_unknown(list(values), sorted(field.name for field in fields(Recipe)), f"{file} [recipe]")
    texts = [f"{key}={_text(value)}" for key, value in values.items()]
    return preset.with_values(texts, f"{file} [recipe]")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _table(content: dict[str, object], name: str, file: Path) -> dict[str, object]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise InputError(f"{name!r} is not a table", file)
    return table
