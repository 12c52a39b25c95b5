"""A training's plan: everything that its options and its dataset decide, settled before any work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from batcli.core.errors import InputError
from batcli.core.files import sha256
from batcli.core.parallel import rank_and_world
from batcli.core.progress import Reporter
from batcli.data.dataset import Dataset
from batcli.data.question_types import QUESTION_TYPES
from batcli.model.config import ModelConfig
from batcli.training.recipe import ALL, ENCODER, SOURCES, STAGES, Recipe, answers_seen

AUTO = "auto"


@dataclass(frozen=True)
class ModelPlan:
    """Where the model comes from and how its language model is loaded."""

    preset: str
    config: ModelConfig  # sizes, with the dataset's scene length and classes
    init: Path | None  # a run directory to start from
    encoder_init: Path | None  # an AudioMAE checkpoint for the encoder's blocks
    llm: Path | None  # a language model's directory; None: the preset's own, or where the initial run says
    precision: str  # fp32 or bf16
    quantize: bool
    attention: str
    gradient_checkpointing: bool

    @property
    def dtype(self) -> torch.dtype:
        """Of a frozen language model; trained parameters stay in float32."""
        return torch.bfloat16 if self.precision == "bf16" else torch.float32


@dataclass(frozen=True)
class ValidationPlan:
    """How the model is measured while it is trained."""

    split: str
    every: int | None  # updates; None: only at the end of a stage
    questions: int
    scenes: int


@dataclass(frozen=True)
class TrainPlan:
    """A training, resolved."""

    data: Path
    dataset: Dataset
    split: str
    output: Path
    stages: tuple[str, ...]
    recipe: Recipe
    model: ModelPlan
    validation: ValidationPlan | None
    seed: int
    accumulate: int  # batches of each process per update
    workers: int  # processes that render ahead
    cache_gb: float  # most disk space for the encodings
    save_every: int  # updates
    keep: int  # states on disk
    log_every: int  # updates
    tensorboard: bool
    max_bad: int
    resume: bool
    overwrite: bool
    options: Mapping[str, Any]  # as given, for `config.toml`

    def dataset_facts(self) -> dict[str, str]:
        """What identifies the split, wherever it lies."""
        split = self.dataset.split(self.split)
        files = {"clips": split.clips, "reverbs": split.reverbs, "labels": self.dataset.labels_file}
        hashes = {f"{name}_sha256": sha256(self.dataset.path(file)) for name, file in files.items() if file}
        return {"path": str(self.data), "split": self.split, "questions_sha256": split.sha256, **hashes}

    def tables(self, processes: int) -> dict[str, dict[str, Any]]:
        """The tables of `config.toml` beside the model's sizes."""
        return {
            "train": dict(self.options),
            "recipe": asdict(self.recipe),
            "dataset": self.dataset_facts(),
            "processes": {"count": processes},
        }


def parse_stages(text: str) -> tuple[str, ...]:
    """`encoder,1,2` → its stages; raises InputError for an unknown one and for any other order."""
    stages = tuple(stage.strip() for stage in text.split(",") if stage.strip())
    known = (ENCODER, *STAGES)
    for stage in stages:
        if stage not in known:
            raise InputError(f"unknown stage {stage!r}", "--stages", f"known: {', '.join(known)}")
    mixed = ALL in stages and len(set(stages) & set(STAGES)) > 1
    if not stages or mixed or stages != tuple(stage for stage in known if stage in stages):
        raise InputError(f"{text!r} is no order of stages", "--stages", f"such as {','.join(known)}")
    return stages


def parse_batch_size(text: str) -> int | None:
    """A number; None for `auto`, which is found when the longest sample is at hand."""
    if text == AUTO:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(f"{text!r:.40} is neither a number above 0 nor {AUTO}", "--batch-size")
    return int(text)


def require_validation(dataset: Dataset, split: str, stages: Sequence[str]) -> None:
    """Raises InputError when the split cannot be measured on."""
    dataset.split(split)
    if ENCODER in stages:
        dataset.clips(split), dataset.reverbs(split)


def require_shardable(plan: TrainPlan, accelerator: Accelerator) -> None:
    """FSDP is for large language models: what runs the model's parts by themselves finds only pieces of them."""
    plugin = accelerator.state.fsdp_plugin
    if plugin is not None and plugin.fsdp_version != 2:
        raise InputError("version 1", "FSDP", "set fsdp_version: 2 in accelerate's configuration")
    if ENCODER in plan.stages:
        raise InputError("is not sharded", "stage encoder", "train it without FSDP, then --init RUN --stages 1,2,3")
    if plan.validation:
        raise InputError("cannot decode with a sharded model", "--validate", "leave it out, or train without FSDP")
    if plan.recipe.batch is None:
        raise InputError("cannot be found for a sharded model", "--batch-size auto", "give a number")


def report_plan(plan: TrainPlan, reporter: Reporter) -> None:
    """Say what will be trained: architecture, recipe, questions, and the updates of each stage."""
    counts, recipe = plan.dataset.split(plan.split).counts, plan.recipe
    reporter.info(
        f"{plan.model.preset} on {sum(counts.values()):,} questions of {plan.data}, stages {', '.join(plan.stages)}"
    )
    reporter.info(describe_architecture(plan.model))
    reporter.info("recipe: " + ", ".join(f"{name} {value}" for name, value in asdict(recipe).items()))
    for kind, count in counts.items():
        reporter.detail(f"  {kind}: {count:,}")
    if ENCODER in plan.stages:
        clips, reverbs = len(plan.dataset.clips(plan.split)), len(plan.dataset.reverbs(plan.split))
        reporter.info(f"encoder: {recipe.encoder_steps:,} updates from {clips:,} clips and {reverbs:,} BRIRs")
        if plan.model.config.sources is not None:
            reporter.info(f"{SOURCES}: {recipe.source_scenes:,} scenes, {recipe.source_epochs} times")
    families = Counter[str]()
    for kind, count in counts.items():
        families[QUESTION_TYPES[kind].family] += count
    for stage in (stage for stage in plan.stages if stage in STAGES):
        answers = answers_seen(stage, families, recipe)
        per_update = (recipe.batch or 0) * plan.accumulate * rank_and_world()[1]
        updates = f"{max(1, round(answers / per_update)):,} updates" if per_update else "as many updates as fit"
        reporter.info(f"stage {stage}: {answers:,.0f} answers, {updates}")


def describe_architecture(model: ModelPlan) -> str:
    """One line: encoder, source tokens, Q-Former, language model."""
    encoder, qformer, config = model.config.encoder, model.config.qformer, model.config
    parts = [f"Spatial-AST {encoder.depth} x {encoder.dim}, {encoder.seconds:g} s, {encoder.n_classes} classes"]
    if config.sources is not None:
        parts.append(f"{config.sources.tokens} source tokens")
    parts.append(f"Q-Former {qformer.layers} x {qformer.dim}, {qformer.queries} queries")
    if config.llm is not None:
        parts.append(f"Llama {config.llm.layers} x {config.llm.dim} from nothing")
    else:
        lora = f" with LoRA r {config.lora.r} on {', '.join(config.lora.targets)}" if config.lora else ""
        parts.append(f"language model {model.llm or model.init or 'of --llm'}{lora}")
    return "model: " + "; ".join(parts)
