"""`bat train`: from a dataset to a run directory, stage by stage.

`encoder` trains the encoder on scenes drawn afresh; stages 1, 2 and 3 train the projector and the
language model on the questions of ever more families, from encodings that are computed once.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import set_seed

from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import require_writable
from batcli.core.parallel import default_jobs, main_rank_lock
from batcli.core.progress import SILENT, Reporter
from batcli.core.signals import defer_signals
from batcli.data.dataset import Dataset, open_dataset
from batcli.model import checkpoint
from batcli.model.config import SourcesConfig
from batcli.model.tokens import near_distances
from batcli.options import TrainOptions, require
from batcli.training import state
from batcli.training.build import build_model
from batcli.training.cache import BAD_SCENES, CACHE
from batcli.training.log import Log, require_tensorboard
from batcli.training.loop import train_stage
from batcli.training.losses import AnswerObjective
from batcli.training.needs import report_needs
from batcli.training.plan import (
    ModelPlan,
    TrainPlan,
    ValidationPlan,
    parse_batch_size,
    parse_stages,
    report_plan,
    require_shardable,
    require_validation,
)
from batcli.training.recipe import ENCODER, SOURCES, STAGES
from batcli.training.run_dir import LOG, open_run_dir, recorded, require_unchanged
from batcli.training.stages import EncoderStage, QuestionStage, SourceStage, encode_questions, find_batch_size
from batcli.training.start import Start, find_start
from batcli.training.trainer import Trainer

CURVES = "curves.png"


def train(options: TrainOptions, reporter: Reporter = SILENT) -> None:
    """Train `options.stages` and write the run directory, `DONE` last.

    Raises InputError before any work when an input or the output cannot be used, Stopped after a
    signal (the state is saved), TooManyBad when more scenes failed than `max_bad`.
    """
    require(options, "output")
    plan = resolve(options, open_dataset(options.data))
    report_plan(plan, reporter)
    if options.dry_run:
        report_needs(plan, reporter)
    if plan.tensorboard:
        require_tensorboard()
    if options.dry_run:
        return
    accelerator = Accelerator(
        mixed_precision="bf16" if plan.model.precision == "bf16" else "no", cpu=options.device == "cpu"
    )
    with main_rank_lock(require_writable(plan.output)):
        trainer = prepare(plan, accelerator, reporter)
        bad = train_stages(trainer)
    if bad > plan.max_bad:
        raise TooManyBad(f"{bad:,} scenes could not be rendered; see {plan.output / BAD_SCENES}")


def resolve(options: TrainOptions, dataset: Dataset) -> TrainPlan:
    """The plan of a training. Raises InputError for whatever cannot be done."""
    stages = parse_stages(options.stages)
    start = find_start(options.preset, options.init)
    recipe = start.recipe.with_values(options.set)
    if options.batch_size is not None:
        recipe = replace(recipe, batch=parse_batch_size(options.batch_size))
    if recipe.batch is None and options.resume and not options.overwrite:
        recipe = replace(recipe, batch=recorded(options.output).get("recipe", {}).get("batch"))
    config = start.config
    if options.init is None:
        encoder = replace(config.encoder, seconds=dataset.seconds, n_classes=len(dataset.labels))
        config = replace(config, encoder=encoder)
        if options.source_tokens and config.sources is None:
            config = replace(config, sources=SourcesConfig())
    require_used(options, start)
    validation = None
    if options.validate:
        require_validation(dataset, options.validate, stages)
        validation = ValidationPlan(
            options.validate, options.validate_every, options.validate_questions, options.validate_scenes
        )
    return TrainPlan(
        data=options.data,
        dataset=dataset,
        split=options.split,
        output=options.output,
        stages=stages,
        recipe=recipe,
        model=ModelPlan(
            preset=start.preset,
            config=config,
            init=options.init,
            encoder_init=options.encoder_init,
            llm=options.llm,
            precision=options.precision,
            quantize=options.quantize,
            attention=options.attention,
            gradient_checkpointing=options.gradient_checkpointing,
        ),
        validation=validation,
        seed=options.seed,
        accumulate=options.accumulate,
        workers=options.workers or default_jobs(),
        cache_gb=options.cache_gb,
        save_every=options.save_every,
        keep=options.keep,
        log_every=options.log_every,
        tensorboard=options.tensorboard,
        max_bad=options.max_bad,
        resume=options.resume,
        overwrite=options.overwrite,
        options={**asdict(options), "preset": start.preset},
    )


def require_used(options: TrainOptions, start: Start) -> None:
    """Raises InputError for an option of the model that this start would leave without effect, or that it lacks."""
    for name in ("llm", "quantize"):
        if getattr(options, name) and start.config.llm is not None:
            raise InputError("has no effect", f"--{name}", f"{start.preset} trains a language model of its own")
    if options.init is not None and options.init.resolve() == options.output.resolve():
        raise InputError(f"is {options.init} itself", "--init", "choose another -o: a run is not trained into itself")
    if options.init is not None and options.source_tokens and start.config.sources is None:
        raise InputError(f"{options.init} has none", "--source-tokens", "a run is trained with the parts that it has")
    if options.init is None and options.llm is None and start.config.llm is None and not options.dry_run:
        require(options, "llm")


def prepare(plan: TrainPlan, accelerator: Accelerator, reporter: Reporter) -> Trainer:
    """Open the run directory, build the model, write `config.toml`."""
    main, root = accelerator.is_main_process, plan.output
    if state.sharded(accelerator):
        require_shardable(plan, accelerator)
    if main:
        open_run_dir(root, plan.tables(accelerator.num_processes), plan.resume, plan.overwrite)
    accelerator.wait_for_everyone()
    resumed = state.newest(root)
    if resumed:
        reporter.info(f"going on after update {resumed[1].update:,} of stage {resumed[1].stage}")
    set_seed(plan.seed)
    model, tokenizer, llm = build_model(plan)
    if resumed and (root / checkpoint.ENCODER).exists():
        checkpoint.load_encoder(root, model)
    # The log comes first: it marks the directory as a run's.
    log = Log(root / LOG, resumed[1].log_bytes if resumed else 0, plan.tensorboard) if main else None
    if main:
        require_unchanged(root, checkpoint.model_tables(model.config, llm))
    trainer = Trainer(
        plan, accelerator, model.to(accelerator.device), tokenizer, llm, reporter if main else SILENT, log, resumed
    )
    trainer.write_config()
    return trainer


def train_stages(trainer: Trainer) -> int:
    """All stages, then the run's files; returns how many scenes could not be rendered."""
    plan, model, step, bad = trainer.plan, trainer.model, 0, 0
    if ENCODER in trainer.stages:
        step = train_stage(trainer, EncoderStage(trainer), step)
        if not trainer.is_past(ENCODER):
            trainer.save_encoder()
    if SOURCES in trainer.stages and model.sources is not None:
        step = train_stage(trainer, SourceStage(trainer, model.sources), step)
        if not trainer.is_past(SOURCES):
            trainer.save_encoder()
    objective = AnswerObjective(model, near_distances(trainer.tokenizer), plan.recipe.soft_distance)
    names = [stage for stage in trainer.stages if stage in STAGES]
    if names:
        if trainer.resumed is None or trainer.resumed[1].stage not in STAGES:
            trainer.save_encoder()
        encoded = encode_questions(trainer)
        batch, bad = plan.recipe.batch, encoded.bad
        if batch is None:
            batch = find_batch_size(trainer, encoded, objective)
            trainer = replace(trainer, plan=replace(plan, recipe=replace(plan.recipe, batch=batch)))
            trainer.write_config()
        for name in names:
            step = train_stage(trainer, QuestionStage(trainer, name, encoded, objective, batch), step)
    finish(trainer, objective, bad)
    return bad


def finish(trainer: Trainer, objective: AnswerObjective, bad: int) -> None:
    """Write the weights, the curves and the manifest; delete the encodings."""
    plan, root = trainer.plan, trainer.plan.output
    weights = state.weights(trainer.accelerator, objective)
    if trainer.accelerator.is_main_process:
        checkpoint.save_run(root, trainer.model, trainer.tokenizer, trainer.llm, weights)
        shutil.rmtree(root / CACHE, ignore_errors=True)
        draw_curves(root, trainer.reporter)
        checkpoint.finish(root, seed=plan.seed, dataset=plan.dataset_facts(), bad_scenes=bad)
    trainer.accelerator.wait_for_everyone()


def draw_curves(root: Path, reporter: Reporter) -> None:
    """`curves.png`, where matplotlib is installed."""
    try:
        from batcli.training.curves import plot_curves
    except ModuleNotFoundError:
        reporter.detail(f"no {CURVES}: pip install 'batcli[plot]'")
        return
    with defer_signals() as stop:  # within a drawing, a signal comes out as some error of the drawing's
        plot_curves(root / CURVES, root / LOG)
    stop.check()
