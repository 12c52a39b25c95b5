"""Validation during training: an encoder on fixed scenes, or answers to a fixed sample of questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.utils.data import Subset

from batcli.data.answers import Vocabulary
from batcli.data.schema import Scene
from batcli.model import checkpoint
from batcli.model.bat import Encoding
from batcli.training import answers, localization
from batcli.training.loader import no_collate
from batcli.training.log import VALIDATION, read_log, summary
from batcli.training.plan import ValidationPlan
from batcli.training.recipe import STAGES
from batcli.training.run_dir import LOG
from batcli.training.scenes import ENCODE_BATCH, DrawnScenes, GivenScenes, RenderError, SceneDistribution
from batcli.training.stages import Stage
from batcli.training.trainer import Trainer

BEST = "best"


def validator(trainer: Trainer, trained: Stage, plan: ValidationPlan, first: int) -> Callable[[int], None]:
    """Make a function of an update that validates the model, logs the scores and saves the best encoder.

    Training continues as without it. `first`: updates of the stages before.
    """
    stage, objective, root = trained.name, trained.objective, trainer.plan.output
    is_encoder = stage in localization.PREDICTIONS
    measure = (_encoder_validation if is_encoder else _answer_validation)(trainer, plan, stage)
    records = read_log(root / LOG) if trainer.log else ()
    merits = [record.get("merit") for record in records if (record["kind"], record["stage"]) == (VALIDATION, stage)]

    def validate(update: int) -> None:
        objective.eval()
        with torch.no_grad():
            scores = measure()
        objective.train()
        if trainer.log:
            trainer.log.write(kind=VALIDATION, stage=stage, update=update, step=first + update, **scores)
            trainer.reporter.info(f"stage {stage}, update {update:,}: {summary(scores)}")
        if is_encoder and trainer.accelerator.is_main_process:
            if scores["merit"] >= max((merit for merit in merits if merit is not None), default=-math.inf):
                best = checkpoint.select(trainer.model.state_dict(), (f"{stage}.",))
                checkpoint.write_tensors(root / BEST / f"{stage}.safetensors", best)
            merits.append(scores["merit"])

    return validate


def _encoder_validation(trainer: Trainer, plan: ValidationPlan, stage: str) -> Callable[[], dict[str, Any]]:
    """Make a function that scores one encoder on the same scenes at every call."""
    accelerator = trainer.accelerator
    distribution = SceneDistribution(localization.TWO_SOURCES)
    scenes = DrawnScenes(
        trainer.plan.dataset, plan.split, trainer.settings, localization.SEED, plan.scenes, distribution
    )
    mine = range(accelerator.process_index, plan.scenes, accelerator.num_processes)

    def measure() -> dict[str, Any]:
        batches = (
            batch.to(accelerator.device) for batch in trainer.load(Subset(scenes, mine), batch_size=ENCODE_BATCH)
        )
        predictions = localization.collect_predictions(stage, trainer.model.encoders[stage], batches)
        return localization.scores(gather_object([predictions]))

    return measure


def _answer_validation(trainer: Trainer, plan: ValidationPlan, stage: str) -> Callable[[], dict[str, Any]]:
    """Make a function that scores answers to the same questions at every call."""
    dataset, accelerator = trainer.plan.dataset, trainer.accelerator
    questions = answers.sample(dataset.questions(plan.split), STAGES[stage], plan.questions)
    mine = questions[accelerator.process_index :: accelerator.num_processes]
    vocabulary = Vocabulary.of(label.name for label in dataset.labels)
    encodings: dict[Scene, Encoding] = {}

    def measure() -> dict[str, Any]:
        if not encodings:
            encodings.update(_encode_scenes(trainer, list(dict.fromkeys(question.scene for question in mine))))
        pairs = [(question, encodings[question.scene]) for question in mine if question.scene in encodings]
        answered = answers.answer_questions(trainer.bat, trainer.words, pairs, accelerator.device)
        return answers.scores(gather_object(answered), vocabulary)

    return measure


def _encode_scenes(trainer: Trainer, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Encoding]]:
    """Encode scenes as batches of one; those that cannot be rendered are left out with a warning."""
    items = GivenScenes(trainer.plan.dataset, scenes, trainer.settings)
    for batch in trainer.load(items, batch_size=ENCODE_BATCH, collate_fn=no_collate):
        for index, waveform in batch:
            if isinstance(waveform, RenderError):
                trainer.reporter.warn(f"not measured: {waveform.error['message']}")
            else:
                yield scenes[index], trainer.bat.encode(waveform[None].to(trainer.accelerator.device)).to("cpu")
