"""The stages of a training: objective, trained parameters, number of updates and batches of each."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from batcli.core.errors import InputError
from batcli.data.schema import Question
from batcli.model.bat import Encoding
from batcli.model.encoders.sources import Cues, SourceTokens
from batcli.model.encoders.transformer import PatchTransformer
from batcli.model.tokens import IGNORED, TextBatch, collate, padding_id, to_ids
from batcli.training.batch_size import largest_batch
from batcli.training.cache import EncodingCache, as_stored, fill_cache, open_cache
from batcli.training.encoded_questions import EncodedBatch, EncodedQuestions
from batcli.training.losses import AnswerObjective, EncoderObjective, SourceObjective
from batcli.training.optim import OptimizerValues, unfreeze
from batcli.training.order import bucket_by_length, clip_order, epoch_order, one_way
from batcli.training.recipe import CURRICULUM, DSPAST, ENCODER, SOURCES, STAGES, stage_updates
from batcli.training.scenes import (
    GROUP,
    CuedRooms,
    CuedScenes,
    DrawnScenes,
    EncoderBatch,
    SceneDistribution,
    labelled_clips,
)
from batcli.training.schedule import Schedule, encoder_schedule, source_schedule, stage_schedule
from batcli.training.trainer import Trainer


@dataclass(frozen=True)
class Batch:
    """Input of one forward pass in one process, and its weight in the loss of the update that it is part of."""

    inputs: tuple[Any, ...]  # arguments of the objective
    weight: float  # number of answer tokens, or of scenes: an update's loss is the weighted mean of its batches'
    names: tuple[str, ...] = ()  # one per sample, for the message about a loss that is not finite


class Stage:
    """Interface of a stage to the training loop."""

    name: str
    objective: nn.Module  # `objective(*batch.inputs)` → losses by name
    trained: Sequence[nn.Module]
    total: int  # updates
    schedule: Schedule  # learning rate of each update
    optimizer: OptimizerValues

    def lr_scale(self, name: str) -> float:
        """Factor on the learning rate of the parameter `name`."""
        return 1.0

    def decays(self, name: str) -> bool:
        """Whether the parameter `name`, if it is a matrix, has weight decay."""
        return True

    def prepare(self) -> None:
        """Compute what the stage needs before its first update."""

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        """For each update from `start` on: the batches of this process."""
        raise NotImplementedError


class EncoderStage(Stage):
    """Trains Spatial-AST or DSpAST on random scenes, each used once.

    With the published recipes, as in its released training code. In an epoch, each clip is the first of at most one
    scene.
    """

    def __init__(self, trainer: Trainer, encoder: PatchTransformer) -> None:
        plan, recipe = trainer.plan, trainer.plan.recipe
        self.trainer, self.encoder, self.name = trainer, encoder, plan.model.config.published_encoder or ENCODER
        self.objective, self.trained = EncoderObjective(encoder, recipe.loss_weights), [encoder]
        self.labels = [clip.event_ids for clip in labelled_clips(plan.dataset, plan.split)]
        per_epoch = recipe.epoch_updates(len(self.labels))
        self.total = recipe.encoder_epochs * per_epoch
        self.accumulate = plan.batches_each(recipe.encoder_update, recipe.encoder_batch, "encoder_update")
        self.schedule = encoder_schedule(recipe, per_epoch)
        self.optimizer = OptimizerValues(recipe.encoder_betas, recipe.encoder_weight_decay, recipe.encoder_clip)

    def lr_scale(self, name: str) -> float:
        return self.trainer.plan.recipe.layer_decay ** self.encoder.layers_below_top(name)

    def decays(self, name: str) -> bool:
        return not name.startswith("cls_tokens")

    def scenes(self) -> DrawnScenes:
        """The scenes of all updates, in the order in which they are used."""
        plan, recipe, settings = self.trainer.plan, self.trainer.plan.recipe, self.trainer.settings
        each = self.total // recipe.encoder_epochs * recipe.encoder_update
        clips = clip_order(self.labels, recipe.encoder_epochs, each, recipe.balanced, plan.seed)
        distribution = SceneDistribution(recipe.two_sources, recipe.mixup, recipe.roll, recipe.gain, any_brir=True)
        settings = replace(settings, brir_seconds=recipe.brir_seconds)
        return DrawnScenes(plan.dataset, plan.split, settings, plan.seed, len(clips), distribution, clips)

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        trainer, size = self.trainer, self.trainer.plan.recipe.encoder_batch
        ranges = trainer.batch_ranges(start, self.total, size, self.accumulate)
        loaded = iter(trainer.load(self.scenes(), batch_sampler=[batch for update in ranges for batch in update]))
        while update := list(itertools.islice(loaded, self.accumulate)):
            yield [Batch((batch.to(trainer.device),), size) for batch in update]


class SourceAmount(NamedTuple):
    """How much the stage of the source tokens takes."""

    scenes: int
    updates: int
    per_update: int  # scenes

    @staticmethod
    def of(trainer: Trainer) -> SourceAmount:
        recipe = trainer.plan.recipe
        scenes = -(-recipe.source_scenes // (2 * GROUP)) * 2 * GROUP
        per_update = trainer.per_update(recipe.source_batch, trainer.plan.source_batches_each())
        return SourceAmount(scenes, max(1, round(scenes * recipe.source_epochs / per_update)), per_update)


class SourceStage(Stage):
    """Trains the source tokens on the cues of random scenes, each used `source_epochs` times."""

    name = SOURCES

    def __init__(self, trainer: Trainer, sources: SourceTokens) -> None:
        recipe, self.trainer, self.sources = trainer.plan.recipe, trainer, sources
        self.objective, self.trained = SourceObjective(sources), [sources]
        self.cache: EncodingCache | None = None
        amount = SourceAmount.of(trainer)
        self.count, self.draws = amount.scenes, amount.scenes // (2 * GROUP)
        self.batch, self.accumulate = recipe.source_batch, trainer.plan.source_batches_each()
        self.per_update, self.total = amount.per_update, amount.updates
        self.schedule = source_schedule(recipe, self.total)
        self.optimizer = OptimizerValues(recipe.source_betas, recipe.source_weight_decay, recipe.source_clip)

    def lr_scale(self, name: str) -> float:
        return self.sources.lr_scale(name)

    def prepare(self) -> None:
        trainer, plan = self.trainer, self.trainer.plan
        distribution = SceneDistribution()
        drawn = DrawnScenes(plan.dataset, plan.split, trainer.settings, plan.seed + 1, self.draws, distribution)
        self.rooms = rooms = CuedRooms(drawn, Cues(self.sources.config))
        assert plan.cache.cues is not None
        if not plan.cache.cues.on_disk:
            return
        sample = {name: part[0] for name, part in rooms[0][1]._asdict().items()}
        self.cache = open_cache(trainer, {"stage": SOURCES, "seed": plan.seed}, self.count, sample)
        fill_cache(trainer, self.cache, rooms, "cues", lambda items: EncoderBatch.concat(items)._asdict(), 2 * GROUP)

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        order = epoch_order(self.count, self.total * self.per_update, self.trainer.plan.seed, stage=0)
        updates = list(self.trainer.batch_ranges(start, self.total, self.batch, self.accumulate))
        batches = self._scenes([order[r.start : r.stop] for ranges in updates for r in ranges])
        for ranges in updates:
            scenes = [next(batches).without_padding() for _ in ranges]
            yield [Batch((batch.to(self.trainer.device),), self.batch) for batch in scenes]

    def _scenes(self, batches: Sequence[np.ndarray]) -> Iterator[EncoderBatch]:
        """The scenes of these numbers: from the cache, or rendered again and rounded alike."""
        if self.cache is not None:
            cache = self.cache
            return (EncoderBatch(**cache.get(numbers)) for numbers in batches)
        loaded = self.trainer.load(CuedScenes(self.rooms), batch_sampler=[numbers.tolist() for numbers in batches])
        return (EncoderBatch(**as_stored(batch._asdict())) for batch in loaded)


ENCODER_STAGES = {ENCODER: EncoderStage, DSPAST: EncoderStage, SOURCES: SourceStage}
"""Name of an encoder and its stage → the stage's class."""


def find_batch_size(trainer: Trainer, encoded: EncodedQuestions, objective: AnswerObjective) -> int:
    """Resolve `--batch-size auto`: the number of longest questions with longest answers that fits in every process."""
    tokenizer, device = trainer.words, trainer.device
    ids = to_ids(tokenizer, [q.question for q in encoded.questions], [q.answer for q in encoded.questions])
    prompt, answer = (max(part, key=len) for part in ids)
    pad, end = padding_id(tokenizer), tokenizer.eos_token_id

    def inputs(count: int) -> tuple[Encoding, TextBatch]:
        batch = collate([prompt] * count, [answer] * count, pad, end)
        return encoded.of_silence(count).to(device), batch.to(device)

    unfreeze(trainer.bat, [trainer.bat.projector, trainer.bat.llm])
    objective.train()
    with trainer.accelerator.autocast():
        largest = largest_batch(objective, inputs, device)
    batch = int(trainer.accelerator.gather(torch.tensor([largest], device=device)).min())
    if (update := trainer.plan.recipe.update) is not None:
        each = update // trainer.plan.processes
        batch = max(size for size in range(1, min(batch, each) + 1) if each % size == 0)
    trainer.reporter.info(f"batch size {batch}: as many of the longest sample fit")
    return batch


class QuestionStage(Stage):
    """Trains projector and language model on questions of the stage's families."""

    def __init__(
        self, trainer: Trainer, name: str, encoded: EncodedQuestions, objective: AnswerObjective, batch: int
    ) -> None:
        plan, recipe = trainer.plan, trainer.plan.recipe
        self.name, self.trainer, self.objective, self.batch = name, trainer, objective, batch
        self.trained = [trainer.bat.projector, trainer.bat.llm]
        self.encoded = encoded
        self.questions = [question for question in encoded.questions if question.family in STAGES[name]]
        if not self.questions:
            raise InputError(f"no questions for stage {name}", plan.dataset.questions_file(plan.split))
        self.accumulate = plan.question_batches_each(batch)
        self.per_update = trainer.per_update(batch, self.accumulate)
        families = Counter(question.family for question in self.questions)
        self.total = stage_updates(name, families, recipe, self.per_update)
        self.schedule = stage_schedule(recipe, self.total, len(self.questions) / self.per_update)
        self.optimizer = OptimizerValues(recipe.betas, recipe.weight_decay, recipe.clip, recipe.muon)

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        order = self._order()
        updates = list(self.trainer.batch_ranges(start, self.total, self.batch, self.accumulate))
        questions = ([self.questions[i] for i in order[r.start : r.stop]] for ranges in updates for r in ranges)
        asked, batches = itertools.tee(questions)
        encoded = self.encoded.scenes.stream([question.scene for question in batch] for batch in asked)
        for ranges in updates:
            yield [self._batch(next(batches), next(encoded)) for _ in ranges]

    def _order(self) -> np.ndarray:
        """Indices of the questions of all updates, in the order in which they are used."""
        recipe, seed = self.trainer.plan.recipe, self.trainer.plan.seed
        number = 1 + list(STAGES).index(self.name)
        sizes = np.array([q.question.count(" ") + q.answer.count(" ") for q in self.questions])
        order = epoch_order(len(self.questions), self.total * self.per_update, seed, number)
        if self.name == CURRICULUM[-1]:
            head = round(recipe.one_way * self.total) * self.per_update
            order = np.concatenate([one_way(self.questions, head, seed), order[: len(order) - head]])
        return bucket_by_length(order, sizes, self.per_update, recipe.bucket, seed, number)

    def _batch(self, questions: Sequence[Question], scenes: EncodedBatch) -> Batch:
        """The questions whose scenes could be rendered. If none could, one about silence, of no weight."""
        tokenizer, device, encoding = self.trainer.words, self.trainer.device, scenes.encoding
        questions = [q for q, good in zip(questions, scenes.good, strict=True) if good] or questions[:1]
        prompts, answers = to_ids(tokenizer, [q.question for q in questions], [q.answer for q in questions])
        text = collate(prompts, answers, padding_id(tokenizer), tokenizer.eos_token_id)
        weight = int((text.labels != IGNORED).sum())
        if encoding is None:
            encoding, weight = self.encoded.of_silence(1), 0
        names = tuple(f"{q.audio_id} in {q.reverb_id}" for q in questions)
        return Batch((encoding.to(device), text.to(device)), weight, names)
