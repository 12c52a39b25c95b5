"""Measuring while training goes on: the encoder on fixed scenes, answers to a fixed sample of questions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.utils.data import Subset, default_collate

from batcli.core.schema import Scene
from batcli.model import checkpoint, hearing, quiz
from batcli.model.bat import Encoding
from batcli.model.claim import LOG
from batcli.model.data import ENCODE_BATCH, DrawnScenes, GivenScenes, Heard, Unheard, as_list
from batcli.model.log import VALIDATION, read_log, summary
from batcli.model.recipes import ENCODER, SOURCES, STAGES
from batcli.model.run import Run
from batcli.questions.answers import Vocabulary

BEST = "best"


def measuring(run: Run, stage: str, objective: nn.Module, first: int) -> Callable[[int], None]:
    """What is measured on `options.validate` while `objective` is trained: logged, and the best encoder kept.

    Training goes on as if nothing had been.
    """
    encoding = {ENCODER: ("encoder.",), SOURCES: ("sources.",)}.get(stage)
    measure = _hearing(run, stage) if encoding else _quiz(run, stage)
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


def _hearing(run: Run, stage: str) -> Callable[[], dict[str, Any]]:
    """The encoder, or its source tokens, on scenes that are always the same."""
    options, accelerator = run.options, run.accelerator
    sources = run.model.sources
    if stage == SOURCES and sources is not None:
        read = hearing.tokens(sources)
    else:
        assert run.model.encoder is not None
        read = hearing.heads(run.model.encoder)
    count = options.validate_scenes
    drawn = DrawnScenes(run.dataset, options.validate, run.settings, hearing.SEED, count, hearing.TWO)
    mine = range(accelerator.process_index, count, accelerator.num_processes)

    def measure() -> dict[str, Any]:
        loader = run.load(Subset(drawn, mine), batch_size=ENCODE_BATCH, collate_fn=default_collate)
        heard = (Heard(*batch) for batch in loader)
        return hearing.scores(gather_object([hearing.listen(read, heard, accelerator.device)]))

    return measure


def _quiz(run: Run, stage: str) -> Callable[[], dict[str, Any]]:
    """Loss and decoded answers of a sample of questions that is always the same."""
    options, accelerator = run.options, run.accelerator
    questions = quiz.sample(run.dataset.questions(options.validate), STAGES[stage], options.validate_questions)
    mine = questions[accelerator.process_index :: accelerator.num_processes]
    vocabulary = Vocabulary.of(label.name for label in run.dataset.labels)
    heard: dict[Scene, Encoding] = {}

    def measure() -> dict[str, Any]:
        if not heard:
            heard.update(_heard(run, list(dict.fromkeys(question.scene for question in mine))))
        asked = [(question, heard[question.scene]) for question in mine if question.scene in heard]
        replies = quiz.answer(run.model, run.tokenizer, asked, accelerator.device)
        return quiz.scores(gather_object(replies), vocabulary)

    return measure


def _heard(run: Run, scenes: Sequence[Scene]) -> Iterator[tuple[Scene, Encoding]]:
    """Scenes of the measurement through the frozen encoder; one that cannot be rendered is left out."""
    items = GivenScenes(run.dataset, scenes, run.settings)
    for batch in run.load(items, batch_size=ENCODE_BATCH, collate_fn=as_list):
        for place, waveform in batch:
            if isinstance(waveform, Unheard):
                run.reporter.warn(f"not measured: {waveform.error['message']}")
            else:
                yield scenes[place], run.model.encode(waveform[None].to(run.accelerator.device)).to("cpu")
