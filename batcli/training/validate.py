"""Measuring while training goes on: the encoder on fixed scenes, answers to a fixed sample of questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import Subset, default_collate

from batcli.data.answers import Vocabulary
from batcli.data.schema import Scene
from batcli.model import checkpoint
from batcli.model.bat import Encoding
from batcli.training import answers, localization
from batcli.training.log import VALIDATION, read_log, summary
from batcli.training.plan import ValidationPlan
from batcli.training.recipe import ENCODER, SOURCES, STAGES
from batcli.training.run_dir import LOG
from batcli.training.scenes import ENCODE_BATCH, DrawnScenes, EncoderBatch, GivenScenes, RenderError, no_collate
from batcli.training.stages import Stage
from batcli.training.trainer import Trainer

BEST = "best"


def validator(trainer: Trainer, trained: Stage, plan: ValidationPlan, first: int) -> Callable[[int], None]:
    """A function that measures the model after an update of a stage, logs it and keeps the best encoder.

    Training goes on as if nothing had been. `first`: updates of the stages before.
    """
    stage, objective, root = trained.name, trained.objective, trainer.plan.output
    encoding = {ENCODER: ("encoder.",), SOURCES: ("sources.",)}.get(stage)
    measure = _encoder_validation(trainer, plan, stage) if encoding else _answer_validation(trainer, plan, stage)
    records = read_log(root / LOG) if trainer.log else ()
    merits = [record.get("merit") for record in records if (record["kind"], record["stage"]) == (VALIDATION, stage)]

    def validate(update: int) -> None:
        objective.eval()
        with torch.no_grad():
            found = measure()
        objective.train()
        if trainer.log:
            trainer.log.write(kind=VALIDATION, stage=stage, update=update, step=first + update, **found)
            trainer.reporter.info(f"stage {stage}, update {update:,}: {summary(found)}")
        if encoding and trainer.accelerator.is_main_process:
            if found["merit"] >= max((merit for merit in merits if merit is not None), default=-math.inf):
                best = checkpoint.select(trainer.model.state_dict(), encoding)
                checkpoint.write_tensors(root / BEST / f"{stage}.safetensors", best)
            merits.append(found["merit"])

    return validate


def _encoder_validation(trainer: Trainer, plan: ValidationPlan, stage: str) -> Callable[[], dict[str, Any]]:
    """The encoder, or its source tokens, on scenes that are always the same."""
    dataset, accelerator = trainer.plan.dataset, trainer.accelerator
    sources = trainer.model.sources
    read = (
        localization.head_predictions(trainer.model.encoder)
        if stage == ENCODER or sources is None
        else localization.source_predictions(sources)
    )
    count = plan.scenes
    drawn = DrawnScenes(dataset, plan.split, trainer.settings, localization.SEED, count, localization.TWO)
    mine = range(accelerator.process_index, count, accelerator.num_processes)

    def measure() -> dict[str, Any]:
        loader = trainer.load(Subset(drawn, mine), batch_size=ENCODE_BATCH, collate_fn=default_collate)
        heard = (EncoderBatch(*batch) for batch in loader)
        return localization.scores(gather_object([localization.collect_predictions(read, heard, accelerator.device)]))

    return measure


def _answer_validation(trainer: Trainer, plan: ValidationPlan, stage: str) -> Callable[[], dict[str, Any]]:
    """Loss and decoded answers of a sample of questions that is always the same."""
    dataset, accelerator = trainer.plan.dataset, trainer.accelerator
    questions = answers.sample(dataset.questions(plan.split), STAGES[stage], plan.questions)
    mine = questions[accelerator.process_index :: accelerator.num_processes]
    vocabulary = Vocabulary.of(label.name for label in dataset.labels)
    heard: dict[Scene, Encoding] = {}

    def measure() -> dict[str, Any]:
        if not heard:
            heard.update(_encoded_scenes(trainer, list(dict.fromkeys(question.scene for question in mine))))
        asked = [(question, heard[question.scene]) for question in mine if question.scene in heard]
        replies = answers.answer(trainer.model, trainer.tokenizer, asked, accelerator.device)
        return answers.scores(gather_object(replies), vocabulary)

    return measure


def _encoded_scenes(trainer: Trainer, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Encoding]]:
    """Scenes of the measurement through the frozen encoder; one that cannot be rendered is left out."""
    items = GivenScenes(trainer.plan.dataset, scenes, trainer.settings)
    for batch in trainer.load(items, batch_size=ENCODE_BATCH, collate_fn=no_collate):
        for place, waveform in batch:
            if isinstance(waveform, RenderError):
                trainer.reporter.warn(f"not measured: {waveform.error['message']}")
            else:
                yield scenes[place], trainer.model.encode(waveform[None].to(trainer.accelerator.device)).to("cpu")
