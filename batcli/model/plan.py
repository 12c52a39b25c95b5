"""What a training will do, from its options; what cannot be done is refused before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from accelerate import Accelerator

from batcli.core.dataset import Dataset
from batcli.core.errors import InputError
from batcli.core.options import TrainOptions
from batcli.core.progress import Reporter
from batcli.model.presets import PRESETS
from batcli.model.recipes import ALL, ENCODER, RECIPES, STAGES, Recipe

AUTO = "auto"


def stages_of(text: str) -> list[str]:
    stages = [stage.strip() for stage in text.split(",") if stage.strip()]
    known = [ENCODER, *STAGES]
    for stage in stages:
        if stage not in known:
            raise InputError(f"unknown stage {stage!r}", "--stages", f"known: {', '.join(known)}")
    mixed = ALL in stages and len(set(stages) & set(STAGES)) > 1
    if not stages or mixed or stages != [stage for stage in known if stage in stages]:
        raise InputError(f"{text!r} is no order of stages", "--stages", f"such as {','.join(known)}")
    return stages


def recipe_of(options: TrainOptions) -> Recipe:
    """The preset's, with what the options say otherwise."""
    recipe = RECIPES[options.preset]
    if options.epochs:
        try:
            one, two, three = (float(part) for part in options.epochs.split(","))
        except ValueError:
            raise InputError(f"{options.epochs!r} is not three numbers", "--epochs", "such as 2,2,3") from None
        recipe = replace(recipe, epochs=(one, two, three))
    return replace(
        recipe,
        encoder_steps=options.encoder_steps or recipe.encoder_steps,
        source_scenes=options.encoder_scenes or recipe.source_scenes,
        batch=_batch_size(options.batch_size) if options.batch_size else recipe.batch,
        lr=options.lr or recipe.lr,
    )


def _batch_size(text: str) -> int:
    """A number; 0 for `auto`, which is found when the longest sample is at hand."""
    if text == AUTO:
        return 0
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(f"{text!r:.40} is neither a number above 0 nor {AUTO}", "--batch-size")
    return int(text)


def require_validation(dataset: Dataset, split: str, stages: Sequence[str]) -> None:
    dataset.split(split)
    if ENCODER in stages:
        dataset.clips(split), dataset.reverbs(split)


def require_shardable(options: TrainOptions, stages: Sequence[str], recipe: Recipe, accelerator: Accelerator) -> None:
    """FSDP is for large language models: what runs the model's parts by themselves finds only pieces of them."""
    plugin = accelerator.state.fsdp_plugin
    if plugin is not None and plugin.fsdp_version != 2:
        raise InputError("version 1", "FSDP", "set fsdp_version: 2 in accelerate's configuration")
    if ENCODER in stages:
        raise InputError("is not sharded", "stage encoder", "train it without FSDP, then --init RUN --stages 1,2,3")
    if options.validate:
        raise InputError("cannot decode with a sharded model", "--validate", "leave it out, or train without FSDP")
    if recipe.batch == 0:
        raise InputError("cannot be found for a sharded model", "--batch-size auto", "give a number")


def say_plan(
    options: TrainOptions, dataset: Dataset, stages: Sequence[str], recipe: Recipe, reporter: Reporter
) -> None:
    counts = dataset.split(options.split).counts
    total = sum(counts.values())
    reporter.info(f"{options.preset} on {total:,} questions of {options.data}, stages {', '.join(stages)}")
    for kind, count in counts.items():
        reporter.detail(f"  {kind}: {count:,}")
    if ENCODER in stages:
        clips, reverbs = len(dataset.clips(options.split)), len(dataset.reverbs(options.split))
        trained = [f"{recipe.encoder_steps:,} updates"] if PRESETS[options.preset].encoder is not None else []
        if PRESETS[options.preset].sources is not None or options.source_tokens:
            trained.append(f"{recipe.source_scenes:,} scenes for source tokens")
        reporter.info(f"encoder: {', '.join(trained)} from {clips:,} clips and {reverbs:,} BRIRs")
