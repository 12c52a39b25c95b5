"""Measuring while training goes on: the encoder on fixed scenes, answers to a fixed sample of questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Subset, default_collate

from batcli.data.schema import Scene
from batcli.model import checkpoint
from batcli.model.bat import Encoding
from batcli.questions.answers import Vocabulary
from batcli.training import answers as quiz
from batcli.training import localization as hearing
from batcli.training.log import VALIDATION, read_log, summary
from batcli.training.recipe import ENCODER, SOURCES, STAGES
from batcli.training.run import Run
from batcli.training.run_dir import LOG
from batcli.training.scenes import ENCODE_BATCH, DrawnScenes, EncoderBatch, GivenScenes, RenderError, no_collate

BEST = "best"


def validator(run: Run, stage: str, objective: nn.Module, first: int) -> Callable[[int], None]:
    """What is measured on `options.validate` while `objective` is trained: logged, and the best encoder kept.

    Training goes on as if nothing had been.
    """
    encoding = {ENCODER: ("encoder.",), SOURCES: ("sources.",)}.get(stage)
    measure = _encoder_validation(run, stage) if encoding else _answer_validation(run, stage)
    records = read_log(run.options.output / LOG) if run.log else ()
    merits = [record.get("merit") for record in records if (record["kind"], record["stage"]) == (VALIDATION, stage)]

    def validate(update: int) -> None:
        objective.eval()
        with torch.no_grad():
            found = measure()
        objective.train()
        if run.log:
            run.log.write(kind=VALIDATION, stage=stage, update=update, step=first + update, **found)
            run.reporter.info(f"stage {stage}, update {update:,}: {summary(found)}")
        if encoding and run.accelerator.is_main_process:
            if found["merit"] >= max((merit for merit in merits if merit is not None), default=-math.inf):
                best = checkpoint.select(run.model.state_dict(), encoding)
                checkpoint.write_tensors(run.options.output / BEST / f"{stage}.safetensors", best)
            merits.append(found["merit"])

    return validate


def _encoder_validation(run: Run, stage: str) -> Callable[[], dict[str, Any]]:
    """The encoder, or its source tokens, on scenes that are always the same."""
    options, accelerator = run.options, run.accelerator
    sources = run.model.sources
    read = (
        hearing.head_predictions(run.model.encoder)
        if stage == ENCODER or sources is None
        else hearing.source_predictions(sources)
    )
    count = options.validate_scenes
    drawn = DrawnScenes(run.dataset, options.validate, run.settings, hearing.SEED, count, hearing.TWO)
    mine = range(accelerator.process_index, count, accelerator.num_processes)

    def measure() -> dict[str, Any]:
        loader = run.load(Subset(drawn, mine), batch_size=ENCODE_BATCH, collate_fn=default_collate)
        heard = (EncoderBatch(*batch) for batch in loader)
        return hearing.scores(gather_object([hearing.collect_predictions(read, heard, accelerator.device)]))

    return measure


def _answer_validation(run: Run, stage: str) -> Callable[[], dict[str, Any]]:
    """Loss and decoded answers of a sample of questions that is always the same."""
    options, accelerator = run.options, run.accelerator
    questions = quiz.sample(run.dataset.questions(options.validate), STAGES[stage], options.validate_questions)
    mine = questions[accelerator.process_index :: accelerator.num_processes]
    vocabulary = Vocabulary.of(label.name for label in run.dataset.labels)
    heard: dict[Scene, Encoding] = {}

    def measure() -> dict[str, Any]:
        if not heard:
            heard.update(_encoded_scenes(run, list(dict.fromkeys(question.scene for question in mine))))
        asked = [(question, heard[question.scene]) for question in mine if question.scene in heard]
        replies = quiz.answer(run.model, run.tokenizer, asked, accelerator.device)
        return quiz.scores(gather_object(replies), vocabulary)

    return measure


def _encoded_scenes(run: Run, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Encoding]]:
    """Scenes of the measurement through the frozen encoder; one that cannot be rendered is left out."""
    items = GivenScenes(run.dataset, scenes, run.settings)
    for batch in run.load(items, batch_size=ENCODE_BATCH, collate_fn=no_collate):
        for place, waveform in batch:
            if isinstance(waveform, RenderError):
                run.reporter.warn(f"not measured: {waveform.error['message']}")
            else:
                yield scenes[place], run.model.encode(waveform[None].to(run.accelerator.device)).to("cpu")
