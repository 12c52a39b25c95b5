"""Options of `bat train` → the plan of a training, before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from batcli.core.errors import InputError
from batcli.core.parallel import default_jobs, rank_and_world
from batcli.data.dataset import Dataset
from batcli.model.config import ENCODER_TITLES, SOURCES_BESIDE, ModelConfig
from batcli.model.llm import llm_config, lora_targets, parse_lora_targets
from batcli.options import TrainOptions, refuse_given, require
from batcli.training.cache_plan import plan_cache
from batcli.training.plan import (
    AUTO,
    ModelPlan,
    TrainPlan,
    ValidationPlan,
    accumulates,
    parse_batch_size,
    parse_stages,
    require_validation,
)
from batcli.training.recipe import DSPAST, MADE_FOR, NAMED, SOURCES, STAGES, Recipe, stage_names, with_named
from batcli.training.run_dir import recorded
from batcli.training.start import Start, find_start


def resolve(options: TrainOptions, dataset: Dataset) -> TrainPlan:
    """Resolve the options to a plan. Raises InputError for options that do not fit the dataset or one another."""
    stages = parse_stages(options.stages)
    start = find_start(options.preset, options.init)
    recipe, model = resolve_recipe(options, start), resolve_model(options, start, dataset, stages)
    names = stage_names(stages, list(model.config.encoders))
    require_stages(options, model.config, names)
    require_used(options, start, model.config, recipe, names)
    if options.llm is not None and not start.has_all:
        model = replace(model, config=with_lora(model.config, options.llm, options.lora_targets))
    validation = None
    if options.validate:
        require_validation(dataset, options.validate, stages)
        validation = ValidationPlan(
            options.validate, options.validate_every, options.validate_questions, options.validate_scenes
        )
    plan = TrainPlan(
        data=options.data,
        dataset=dataset,
        split=options.split,
        output=options.output,
        stages=stages,
        recipe=recipe,
        model=model,
        validation=validation,
        seed=options.seed,
        rendering=options.rendering or start.rendering,
        accumulate=options.accumulate or 1,
        processes=rank_and_world()[1],
        workers=options.workers or default_jobs(),
        cache=plan_cache(options, dataset, names, recipe, model.config),
        save_every=options.save_every,
        keep=options.keep,
        log_every=options.log_every,
        tensorboard=options.tensorboard,
        max_bad=options.max_bad,
        resume=options.resume,
        overwrite=options.overwrite,
        options={**asdict(options), "preset": start.preset},
    )
    require_amounts(plan)
    return plan


def require_amounts(plan: TrainPlan) -> None:
    """Raise InputError if an update of a stage cannot be made of the dataset, or be shared out to the processes."""
    recipe = plan.recipe
    if plan.model.config.published_encoder in plan.trained_encoders:
        if DSPAST in plan.trained_encoders and recipe.encoder_batch < 2:
            raise InputError("a batch norm of DSpAST needs 2 scenes", "encoder_batch", "--set encoder_batch=2")
        recipe.epoch_updates(len(plan.dataset.clips(plan.split)))
        plan.batches_each(recipe.encoder_update, recipe.encoder_batch, "encoder_update")
    if SOURCES in plan.trained_encoders:
        plan.source_batches_each()
    if set(plan.stages) & set(STAGES):
        plan.question_batches_each(1 if recipe.batch is None else recipe.batch)


def resolve_recipe(options: TrainOptions, start: Start) -> Recipe:
    """The start's recipe with the values of `--recipe`, `--set` and `--batch-size`, in this order.

    A resumed run keeps the batch size that it found.
    """
    recipe = with_named(start.recipe, named_recipes(options)).with_values(options.set)
    if options.batch_size is not None:
        recipe = replace(recipe, batch=parse_batch_size(options.batch_size))
    if recipe.batch is None and options.resume and not options.overwrite:
        recipe = replace(recipe, batch=recorded(options.output).get("recipe", {}).get("batch"))
    return recipe


def named_recipes(options: TrainOptions) -> list[str]:
    """The names of `--recipe`."""
    return [name.strip() for name in options.recipe.split(",") if name.strip()]


def resolve_model(options: TrainOptions, start: Start, dataset: Dataset, stages: Sequence[str]) -> ModelPlan:
    """The start's model; without `--init`, with the dataset's scene length and classes.

    The stage `sources` adds source tokens if it has none.
    """
    config = start.config
    if options.init is None:
        config = config.for_scenes(dataset.seconds, len(dataset.labels))
        if options.patches_only and config.dspast is not None:
            config = replace(config, dspast=replace(config.dspast, summary_tokens=False))
    if SOURCES in stages and config.sources is None:
        n = config.n_classes
        tokens = min(SOURCES_BESIDE.tokens, n)
        config = replace(config, sources=replace(SOURCES_BESIDE, tokens=tokens, seconds=config.seconds, n_classes=n))
    return ModelPlan(
        preset=start.preset,
        config=config,
        init=options.init,
        init_has_all=start.has_all,
        encoder_init=options.encoder_init,
        llm=options.llm,
        precision=options.precision,
        quantize=options.quantize,
        attention=options.attention,
        gradient_checkpointing=options.gradient_checkpointing,
    )


def require_stages(options: TrainOptions, config: ModelConfig, names: Sequence[str]) -> None:
    """Raise InputError if a stage, by its name in the log, is there twice or lacks what it builds on."""
    if len(set(names)) < len(names):
        raise InputError(
            f"{options.stages}: source tokens are the only encoder", "--stages", "leave out one of the two"
        )
    beside = config.published_encoder
    if SOURCES in names and beside is not None and options.init is None and beside not in names:
        hint = "name its run with --init, or train it first, --stages encoder,sources"
        raise InputError("source tokens need a trained encoder beside them", "stage sources", hint)
    if options.encoder_init is not None and (beside is None or beside not in names):
        raise InputError("has no effect", "--encoder-init", "no stage trains Spatial-AST or DSpAST")


def with_lora(config: ModelConfig, llm: Path, named: str | None) -> ModelConfig:
    """Copy with LoRA on the modules of `--lora-targets`, or on those that are usual for a language model's family."""
    if config.lora is None:
        return config
    targets = parse_lora_targets(named) or lora_targets(llm_config(llm).model_type)
    return replace(config, lora=replace(config.lora, targets=targets))


def require_used(
    options: TrainOptions, start: Start, config: ModelConfig, recipe: Recipe, names: Sequence[str]
) -> None:
    """Raise InputError for an option of the model or recipe that has no effect with this start, or is missing."""
    without = set(names).isdisjoint(STAGES)
    for name in ("llm", "quantize"):
        if getattr(options, name) and start.config.llm is not None:
            raise InputError("has no effect", f"--{name}", f"{start.preset} trains a language model of its own")
        if getattr(options, name) and without:
            raise InputError("has no effect", f"--{name}", "an encoder is trained without a language model")
    if options.lora_targets is not None and (start.has_all or start.config.llm is not None or without):
        owner = options.init if start.has_all else start.preset
        raise InputError("has no effect", "--lora-targets", f"{owner} says where its LoRA is, if it has any")
    used = recipe.used_by(config.encoders)
    for key in (pair.partition("=")[0].strip() for pair in options.set):
        if key not in used:
            raise InputError("has no effect", f"--set {key}", f"{start.preset} has no such encoder")
    names_of_recipes = named_recipes(options)
    for number, name in enumerate(names_of_recipes):
        later = names_of_recipes[number + 1 :]
        if NAMED[name].keys() <= {key for other in later for key in NAMED[other]}:
            raise InputError("has no effect", f"--recipe {name}", f"{', '.join(later)} has another value for all of it")
        encoder = MADE_FOR.get(name)
        if encoder is not None and encoder not in config.encoders:
            hint = f"it is of {ENCODER_TITLES[encoder]}, which {start.preset} does not have"
            raise InputError("has no effect", f"--recipe {name}", hint)
    if options.batch_size is not None and any(pair.partition("=")[0].strip() == "batch" for pair in options.set):
        raise InputError("contradicts --set batch", "--batch-size", "leave out one of the two")
    if options.batch_size == AUTO and without:
        raise InputError("has no effect", "--batch-size auto", "it is about questions, which these stages do not ask")
    if options.attention != "sdpa" and without and start.config.llm is None:
        raise InputError("has no effect", "--attention", "an encoder is trained without a language model")
    if options.encoder_init is not None and options.init is not None:
        raise InputError("has no effect", "--encoder-init", f"the encoder starts from {options.init}'s")
    if options.validate is None:
        refuse_given(
            options, ("validate_every", "validate_questions", "validate_scenes"), "has no effect without --validate"
        )
    if options.accumulate is not None and not accumulates(names, recipe):
        hint = "the recipe says how many samples make an update: --set update=…, encoder_update=…, source_update=…"
        raise InputError("has no effect", "--accumulate", hint)
    if options.init is not None and options.init.resolve() == options.output.resolve():
        raise InputError(f"is {options.init} itself", "--init", "choose another -o: a run is not trained into itself")
    if options.patches_only and config.dspast is None:
        raise InputError("has no effect", "--patches-only", f"{start.preset} has no DSpAST")
    if options.patches_only and config.dspast is not None and config.dspast.summary_tokens:
        raise InputError(f"{options.init} gives all tokens", "--patches-only", "a run is trained with its own sizes")
    if start.config.llm is None and not (start.has_all or without or options.dry_run):
        require(options, "llm")
