"""The plan of a training: all that its options and its dataset decide, resolved before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from batcli.core.errors import InputError
from batcli.core.files import sha256
from batcli.core.progress import Reporter
from batcli.data.dataset import Dataset
from batcli.data.question_types import QUESTION_TYPES
from batcli.model.config import ModelConfig
from batcli.training.cache_plan import CachePlan
from batcli.training.recipe import (
    ALL,
    ENCODER,
    NAMED,
    SOURCES,
    STAGES,
    SUCH_STAGES,
    VALUES_OF,
    Recipe,
    answers_seen,
    stage_names,
    stage_updates,
)

AUTO = "auto"
BATCH_OPTIONS = {
    "update": "--batch-size",
    "encoder_update": "--set encoder_batch=",
    "source_update": "--set source_batch=",
}
"""Value of a recipe that is the samples of an update → the option for the samples of a batch."""


@dataclass(frozen=True)
class ModelPlan:
    """The model to train: its sizes, its initial weights, and how its language model is loaded."""

    preset: str
    config: ModelConfig  # with the dataset's scene length and number of classes
    init: Path | None  # run directory to start from
    init_has_all: bool  # whether it has a projector and a language model, and not encoders alone
    encoder_init: Path | None  # AudioMAE checkpoint for the encoder's blocks
    llm: Path | None  # directory of a language model; None: of random weights, or the one that `init` records
    precision: str  # fp32 or bf16
    quantize: bool
    attention: str
    gradient_checkpointing: bool

    @property
    def dtype(self) -> torch.dtype:
        """Type of a frozen language model's weights; trained parameters are float32."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


@dataclass(frozen=True)
class ValidationPlan:
    """Validation during training: the split, the updates between two validations, and the size of the sample."""

    split: str
    every: int | None  # updates; None: only at the end of a stage
    questions: int  # in stages 1 to 3
    scenes: int  # in the stages of the encoders


@dataclass(frozen=True)
class TrainPlan:
    """All values of a training."""

    data: Path
    dataset: Dataset
    split: str
    output: Path
    stages: tuple[str, ...]
    recipe: Recipe
    model: ModelPlan
    validation: ValidationPlan | None
    seed: int
    rendering: str  # of all scenes, see `data.constants`
    accumulate: int  # batches per update in each process, in stages whose recipe leaves it open
    processes: int
    workers: int  # processes that render scenes
    cache: CachePlan
    save_every: int  # updates
    keep: int  # saved states
    log_every: int  # updates
    tensorboard: bool
    max_bad: int  # scenes that cannot be rendered before the command fails
    resume: bool
    overwrite: bool
    options: Mapping[str, Any]  # as given, for `config.toml`

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Each stage's name in the log."""
        return stage_names(self.stages, list(self.model.config.encoders))

    @property
    def trained_encoders(self) -> tuple[str, ...]:
        """Names of the encoders that are trained, in order."""
        return tuple(name for name in self.stage_names if name not in STAGES)

    @property
    def encoders_alone(self) -> bool:
        """Whether encoders are all that is trained and saved, without a language model from elsewhere."""
        return self.model.config.llm is None and set(self.stages).isdisjoint(STAGES)

    @property
    def encoders_first(self) -> bool:
        """Whether encoders are trained before a language model from elsewhere is loaded."""
        return self.model.config.llm is None and len(self.trained_encoders) > 0

    def batches_each(self, samples: int, batch: int, key: str) -> int:
        """Number of batches in each process that make an update of `samples`, a value `key` of the recipe.

        Raises InputError if they cannot be shared out so.
        """
        if samples % (batch * self.processes):
            name = BATCH_OPTIONS[key]
            raise InputError(
                f"{samples} are not a multiple of {batch} (batch) × {self.processes} (processes)",
                f"{key} of the recipe",
                f"another {name}, or --set {key}={-(-samples // (batch * self.processes)) * batch * self.processes}",
            )
        return samples // (batch * self.processes)

    def question_batches_each(self, batch: int) -> int:
        """The same for the batches of questions of stages 1 to 3."""
        update = self.recipe.update
        return self.accumulate if update is None else self.batches_each(update, batch, "update")

    def source_batches_each(self) -> int:
        """The same for the batches of scenes of the source tokens' stage."""
        update = self.recipe.source_update
        return (
            self.accumulate if update is None else self.batches_each(update, self.recipe.source_batch, "source_update")
        )

    def dataset_facts(self) -> dict[str, str]:
        """Path and name of the split, and the hashes of its files, which identify it."""
        split = self.dataset.split(self.split)
        files = {"clips": split.clips, "reverbs": split.reverbs, "labels": self.dataset.labels_file}
        hashes = {f"{name}_sha256": sha256(self.dataset.path(file)) for name, file in files.items() if file}
        return {"path": str(self.data), "split": self.split, "questions_sha256": split.sha256, **hashes}

    def tables(self) -> dict[str, dict[str, Any]]:
        """Tables of `config.toml` except for the model's."""
        open_ended = accumulates(self.stage_names, self.recipe)
        return {
            "train": dict(self.options),
            "recipe": recorded_values(self.recipe.used_by(self.model.config.encoders)),
            "dataset": self.dataset_facts(),
            "scenes": {"rendering": self.rendering, **self.cache.places()},
            "processes": {
                "count": self.processes,
                "batches_per_update": self.accumulate * self.processes if open_ended else None,
            },
        }


def recorded_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a recipe for `config.toml`, where None is written out; an unresolved batch size is left out."""
    return {name: "none" if value is None and name != "batch" else value for name, value in values.items()}


def accumulates(stage_names: Sequence[str], recipe: Recipe) -> bool:
    """Whether `--accumulate` and the number of processes decide how many samples make an update of any stage."""
    sources = SOURCES in stage_names and recipe.source_update is None
    return sources or (recipe.update is None and not {*stage_names}.isdisjoint(STAGES))


def parse_stages(text: str) -> tuple[str, ...]:
    """Parse stages such as `encoder,1,2`. Raises InputError for unknown stages and for another order."""
    stages = tuple(stage.strip() for stage in text.split(",") if stage.strip())
    known = (ENCODER, SOURCES, *STAGES)
    for stage in stages:
        if stage not in known:
            raise InputError(f"unknown stage {stage!r}", "--stages", f"known: {', '.join(known)}")
    mixed = ALL in stages and len(set(stages) & set(STAGES)) > 1
    if not stages or mixed or stages != tuple(stage for stage in known if stage in stages):
        raise InputError(f"{text!r} is no order of stages", "--stages", SUCH_STAGES)
    return stages


def parse_batch_size(text: str) -> int | None:
    """Parse a number above 0; `auto`, which is resolved after the encoder stages, is None. Else raises InputError."""
    if text == AUTO:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(f"{text!r:.40} is neither a number above 0 nor {AUTO}", "--batch-size")
    return int(text)


def require_validation(dataset: Dataset, split: str, stages: Sequence[str]) -> None:
    """Raise InputError if the split lacks what validation needs."""
    dataset.split(split)
    if not {ENCODER, SOURCES}.isdisjoint(stages):
        dataset.clips(split), dataset.reverbs(split)


def require_inside(plan: TrainPlan) -> None:
    """Raise InputError if a clip or a BRIR of the training leads out of its root."""
    for split in {plan.split, *([plan.validation.split] if plan.validation else [])}:
        dataset = plan.dataset
        dataset.require_inside(question.scene for question in dataset.questions(split))
        if ENCODER in plan.stages:
            for clip in dataset.clips(split):
                dataset.audio_path(clip.audio_id)
            for reverb_id in dataset.reverbs(split):
                dataset.brir_path(reverb_id)


def require_classes(plan: TrainPlan) -> None:
    """Raise InputError if the initial run is of other classes than the dataset."""
    classes, labels = plan.model.config.n_classes, len(plan.dataset.labels)
    if classes != labels:
        raise InputError(f"was made for {classes} classes", plan.model.init, f"not for the {labels} of {plan.data}")


def require_shardable(plan: TrainPlan, accelerator: Accelerator) -> None:
    """Raise InputError for what FSDP does not support: it shards the whole model, so no part can run by itself."""
    plugin = accelerator.state.fsdp_plugin
    if plugin is not None and plugin.fsdp_version != 2:
        raise InputError("version 1", "FSDP", "set fsdp_version: 2 in accelerate's configuration")
    for stage in (ENCODER, SOURCES):
        if stage in plan.stages:
            hint = "train it without FSDP, then --init RUN --stages 1,2,3"
            raise InputError("is not sharded", f"stage {stage}", hint)
    if plan.validation:
        raise InputError("cannot decode with a sharded model", "--validate", "leave it out, or train without FSDP")
    if plan.model.quantize:
        raise InputError("4-bit weights cannot be sharded", "--quantize", "leave it out, or train without FSDP")
    if plan.recipe.batch is None:
        raise InputError("cannot be found for a sharded model", "--batch-size auto", "give a number")


def report_plan(plan: TrainPlan, reporter: Reporter) -> None:
    """Report architecture, recipe, questions, and the updates of each stage."""
    counts, recipe, encoders = plan.dataset.split(plan.split).counts, plan.recipe, plan.model.config.encoders
    reporter.info(
        f"{plan.model.preset} on {sum(counts.values()):,} questions of {plan.data}, stages {', '.join(plan.stages)}"
    )
    reporter.info(describe_architecture(plan))
    reporter.info(f"scenes: {plan.rendering} rendering")
    heard = {key for name in encoders for key in VALUES_OF[name]}
    values = {k: v for k, v in recipe.used_by(encoders).items() if k in heard or not plan.encoders_alone}
    reporter.info("recipe: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    if idle := idle_options(plan):
        reporter.info(f"for other stages, recorded for a training that starts from this run: {', '.join(idle)}")
    for kind, count in counts.items():
        reporter.detail(f"  {kind}: {count:,}")
    if plan.trained_encoders:
        clips, reverbs = len(plan.dataset.clips(plan.split)), len(plan.dataset.reverbs(plan.split))
        reporter.info(f"{' and '.join(plan.trained_encoders)}: from {clips:,} clips and {reverbs:,} BRIRs")
        for name in plan.trained_encoders:
            reporter.info(f"  {name}: {describe_amount(name, recipe, clips)}")
        published = plan.model.config.published_encoder
        if published in plan.trained_encoders and plan.model.init is None and plan.model.encoder_init is None:
            hint = "the published one starts from AudioMAE's (--encoder-init)"
            reporter.info(f"  {published}: from random weights; {hint}")
    for name, kept in plan.cache.parts.items():
        reporter.info(f"{name}: {kept}")
    families = Counter[str]()
    for kind, count in counts.items():
        families[QUESTION_TYPES[kind].family] += count
    for stage in (stage for stage in plan.stages if stage in STAGES):
        per_update = recipe.update or (recipe.batch or 0) * plan.accumulate * plan.processes
        answers = answers_seen(stage, families, recipe)
        amount = "as many updates as fit"
        if per_update:
            updates = stage_updates(stage, families, recipe, per_update)
            answers = answers if recipe.lr_updates is None else min(answers, updates * per_update)
            amount = f"{updates:,} updates of {per_update}"
        reporter.info(f"stage {stage}: {answers:,.0f} answers, {amount}")


def idle_options(plan: TrainPlan) -> list[str]:
    """The options of the recipe whose values are all of stages that this training has not."""
    of_encoders = {key for keys in VALUES_OF.values() for key in keys}
    used = {key for name in plan.trained_encoders for key in VALUES_OF[name]}
    if not set(plan.stages).isdisjoint(STAGES):
        used |= vars(plan.recipe).keys() - of_encoders
    recipes = [name.strip() for name in plan.options["recipe"].split(",") if name.strip()]
    keys = [pair.partition("=")[0].strip() for pair in plan.options["set"]]
    given = {f"--recipe {name}": NAMED[name].keys() for name in recipes} | {f"--set {key}": {key} for key in keys}
    if plan.options["batch_size"] is not None:
        given["--batch-size"] = {"batch"}
    return [option for option, values in given.items() if used.isdisjoint(values)]


def describe_amount(encoder: str, recipe: Recipe, clips: int) -> str:
    """Describe the scenes and updates of an encoder's stage, from the number of clips."""
    if encoder == SOURCES:
        times = "once" if recipe.source_epochs == 1 else f"{recipe.source_epochs} times"
        return f"{recipe.source_scenes:,} scenes, each used {times}"
    updates = recipe.epoch_updates(clips)
    scenes = f"{recipe.encoder_epochs:,} epochs of {updates * recipe.encoder_update:,} scenes"
    return f"{scenes}, {recipe.encoder_epochs * updates:,} updates of {recipe.encoder_update}"


def describe_architecture(plan: TrainPlan) -> str:
    """Describe scenes, encoders and, unless encoders are trained alone, Q-Former and language model in one line."""
    model, config = plan.model, plan.model.config
    qformer = config.qformer
    parts = [f"scenes of {config.seconds:g} s, {config.n_classes} classes"]
    if config.encoder is not None:
        parts.append(f"Spatial-AST {config.encoder.depth} x {config.encoder.dim}")
    if config.dspast is not None:
        summaries = "" if config.dspast.summary_tokens else ", patch tokens only"
        parts.append(f"DSpAST {config.dspast.depth} x {config.dspast.dim}{summaries}")
    if config.sources is not None:
        parts.append(f"{'up to ' if config.sources.grouped else ''}{config.sources.tokens} source tokens")
    if plan.encoders_alone:
        return "model: " + "; ".join([*parts, "no language model: the run will hold the encoder alone"])
    reads = ", reads the question" if qformer.reads_question else ""
    parts.append(f"Q-Former {qformer.layers} x {qformer.dim}, {qformer.queries} queries{reads}")
    if config.llm is not None:
        parts.append(f"Llama {config.llm.layers} x {config.llm.dim} from nothing")
    else:
        lora = f" with LoRA r {config.lora.r} on {', '.join(config.lora.targets)}" if config.lora else ""
        parts.append(f"language model {model.llm or (model.init if model.init_has_all else None) or 'of --llm'}{lora}")
    return "model: " + "; ".join(parts)
