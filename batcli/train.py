"""`bat train`: train a model on a dataset, stage by stage, into a run directory.

The stage `encoder` trains each encoder on random scenes. Stages 1, 2 and 3 train the projector and the
language model on questions of more and more families, with encodings that are kept
on disk or made at each use (`training/cache_plan.py`).
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, set_seed

from batcli.core.errors import TooManyBad
from batcli.core.files import require_writable
from batcli.core.parallel import main_rank_lock
from batcli.core.progress import SILENT, Reporter
from batcli.core.signals import defer_signals
from batcli.data.dataset import open_dataset
from batcli.model import checkpoint
from batcli.model.bat import BAT, Encoders
from batcli.model.llm import require_usable
from batcli.model.tokens import near_distances
from batcli.options import TrainOptions, require
from batcli.training import state
from batcli.training.bad_scenes import BAD_SCENES
from batcli.training.build import build_encoders, build_model, llm_of
from batcli.training.cache import CACHE
from batcli.training.encoded_questions import encode_questions
from batcli.training.launch import describe_processes, join_processes
from batcli.training.log import Log, require_tensorboard
from batcli.training.loop import train_stage
from batcli.training.losses import AnswerObjective
from batcli.training.needs import report_needs
from batcli.training.plan import TrainPlan, report_plan, require_classes, require_inside, require_shardable
from batcli.training.recipe import STAGES
from batcli.training.resolve import resolve
from batcli.training.run_dir import LOG, open_run_dir, require_unchanged
from batcli.training.sharding import place, reads_weights, sharded
from batcli.training.stages import ENCODER_STAGES, QuestionStage, find_batch_size
from batcli.training.trainer import Trainer
from batcli.training.work import report_work

CURVES = "curves.png"


def train(options: TrainOptions, reporter: Reporter = SILENT) -> None:
    """Train `options.stages` and write the run directory, `DONE` last.

    Raises InputError before any work if an input or the output cannot be used, Stopped after a
    signal (the state is saved), TooManyBad if more than `max_bad` scenes could not be rendered.
    """
    require(options, "output")
    plan = resolve(options, open_dataset(options.data, options.follow_links))
    require_classes(plan)
    require_inside(plan)
    report_plan(plan, reporter)
    if options.dry_run:
        report_needs(plan, reporter)
    if plan.tensorboard:
        require_tensorboard()
    if options.dry_run:
        return
    accelerator = join_processes(plan.model.precision, cpu=options.device == "cpu")
    reporter.info(describe_processes(accelerator, plan.model.precision))
    (cache,) = broadcast_object_list([plan.cache])  # the free disk space may not be the same everywhere
    plan = replace(plan, cache=cache)
    with main_rank_lock(require_writable(plan.output)):
        trainer = prepare(plan, accelerator, reporter)
        try:
            bad = train_stages(trainer)
        finally:
            if trainer.log:
                trainer.log.close()
    if bad > plan.max_bad:
        raise TooManyBad(f"{bad:,} scenes could not be rendered; see {plan.output / BAD_SCENES}")


def prepare(plan: TrainPlan, accelerator: Accelerator, reporter: Reporter) -> Trainer:
    """Open the run directory, build the model, and write `config.toml`."""
    main, root = accelerator.is_main_process, plan.output
    if sharded(accelerator):
        require_shardable(plan, accelerator)
    if main:
        open_run_dir(root, plan.tables(), plan.resume, plan.overwrite)
    accelerator.wait_for_everyone()
    resumed = state.newest(root)
    if resumed:
        reporter.info(f"going on after update {resumed.position.update:,} of stage {resumed.position.stage}")
    set_seed(plan.seed)
    llm = llm_of(plan)
    model: BAT | Encoders
    model, tokenizer = (
        (build_encoders(plan), None) if plan.encoders_first else build_model(plan, reads_weights(accelerator))
    )
    if llm is not None:
        require_usable(llm, plan.model.attention)
    if resumed and (root / checkpoint.ENCODER).exists():
        model.load_state_dict(checkpoint.read_encoder(root, model), strict=False)
    # Before `config.toml`: the log marks the directory as a run's.
    log = Log(root / LOG, resumed.position.log_bytes if resumed else 0, plan.tensorboard) if main else None
    if main:
        require_unchanged(root, checkpoint.model_tables(model.config, llm))
    trainer = Trainer(
        plan, accelerator, place(model, accelerator), tokenizer, llm, reporter if main else SILENT, log, resumed
    )
    trainer.write_config()
    return trainer


def train_stages(trainer: Trainer) -> int:
    """Train all stages and write the run's files; returns the number of scenes that could not be rendered."""
    plan, encoders, step, bad = trainer.plan, trainer.model.encoders, 0, 0
    report_work(trainer)
    for name in (name for name in trainer.stages if name in encoders):
        step = train_stage(trainer, ENCODER_STAGES[name](trainer, encoders[name]), step)
        if not trainer.is_past(name):
            trainer.save_encoder()
    if plan.encoders_alone:
        finish(trainer, None, bad)
        return bad
    if plan.encoders_first:
        trainer = with_language_model(trainer)
    near = near_distances(trainer.words).to(trainer.device)
    objective = AnswerObjective(trainer.bat, near, plan.recipe.soft_distance)
    names = [stage for stage in trainer.stages if stage in STAGES]
    if names:
        if trainer.resumed is None or trainer.resumed.position.stage not in STAGES:
            trainer.save_encoder()
        encoded = encode_questions(trainer)
        batch = plan.recipe.batch
        if batch is None:
            batch = find_batch_size(trainer, encoded, objective)
            trainer = replace(trainer, plan=replace(plan, recipe=replace(plan.recipe, batch=batch)))
            trainer.write_config()
            report_work(trainer)
        for name in names:
            step = train_stage(trainer, QuestionStage(trainer, name, encoded, objective, batch), step)
        bad = encoded.scenes.bad()
    finish(trainer, objective, bad)
    return bad


def with_language_model(trainer: Trainer) -> Trainer:
    """Build the rest of the model around trained encoders. The result does not depend on whether training resumed."""
    set_seed(trainer.plan.seed)
    model, tokenizer = build_model(trainer.plan)
    model.load_state_dict(trainer.model.state_dict(), strict=False)
    return replace(trainer, model=place(model, trainer.accelerator), tokenizer=tokenizer)


def finish(trainer: Trainer, objective: AnswerObjective | None, bad: int) -> None:
    """Write weights (without an `objective`, those of encoders are written), curves and manifest; delete the cache."""
    plan, root = trainer.plan, trainer.plan.output
    weights = None if objective is None else state.weights(trainer.accelerator, objective)
    if trainer.accelerator.is_main_process:
        if weights is not None:
            checkpoint.save_run(root, trainer.bat, trainer.tokenizer, trainer.llm, weights)
        shutil.rmtree(root / CACHE, ignore_errors=True)
        draw_curves(root, trainer.reporter)
        checkpoint.finish(root, seed=plan.seed, dataset=plan.dataset_facts(), bad_scenes=bad)
    trainer.accelerator.wait_for_everyone()


def draw_curves(root: Path, reporter: Reporter) -> None:
    """Plot `curves.png` if matplotlib is installed."""
    try:
        from batcli.training.curves import plot_curves
    except ModuleNotFoundError:
        reporter.detail(f"no {CURVES}: pip install 'batcli[plot]'")
        return
    with defer_signals() as stop:  # matplotlib turns an exception from a signal into errors of its own
        plot_curves(root / CURVES, root / LOG)
    stop.check()
