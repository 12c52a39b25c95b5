"""The stages of a training: what each minimises, which parameters it trains, for how many updates, on which batches."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate

from batcli.core.errors import InputError
from batcli.core.files import sha256
from batcli.data.schema import Question
from batcli.model import checkpoint
from batcli.model.bat import Encoding, encode_fixed_batch
from batcli.model.encoders.sources import SourceTokens
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.model.tokens import IGNORED, Tokens, collate, encode, padding_id
from batcli.training.batch_size import largest_batch
from batcli.training.cache import EncodingCache, fill_cache, open_cache
from batcli.training.losses import AnswerObjective, EncoderObjective, SourceObjective
from batcli.training.optim import unfreeze
from batcli.training.order import bucket_by_length, epoch_order, one_way
from batcli.training.recipe import CURRICULUM, ENCODER, SOURCES, STAGES, answers_seen
from batcli.training.scenes import (
    ENCODE_BATCH,
    GROUP,
    Augmentation,
    CuedRooms,
    DrawnScenes,
    EncoderBatch,
    GivenScenes,
)
from batcli.training.trainer import Trainer


@dataclass(frozen=True)
class Batch:
    """What one process computes at a time: the arguments of the objective, and how much they count."""

    inputs: tuple[Any, ...]
    weight: float  # answer tokens, or scenes
    names: tuple[str, ...] = ()  # shown when the loss is not finite


class Stage:
    """A stage of training, as the loop sees it."""

    name: str
    objective: nn.Module  # `objective(*batch.inputs)` → losses by name
    trained: Sequence[nn.Module]
    total: int  # updates
    lr: float  # at its peak
    muon: bool = False  # for the matrices within layers

    def rate_of(self, name: str) -> float:
        """A parameter's share of the learning rate."""
        return 1.0

    def prepare(self) -> None:
        """Compute what must be there before the first update."""

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        """For each update from `start` on: this process's batches."""
        raise NotImplementedError


class EncoderStage(Stage):
    """The patch encoder on scenes drawn as it goes, none seen twice: the published recipe."""

    name = ENCODER

    def __init__(self, trainer: Trainer, encoder: SpatialAST) -> None:
        recipe, self.trainer, self.encoder = trainer.plan.recipe, trainer, encoder
        self.objective, self.trained = EncoderObjective(self.encoder), [self.encoder]
        self.total, self.lr, self.layer_decay = recipe.encoder_steps, recipe.encoder_lr, recipe.layer_decay

    def rate_of(self, name: str) -> float:
        return self.layer_decay ** self.encoder.layers_below_top(name)

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        trainer, plan, recipe = self.trainer, self.trainer.plan, self.trainer.plan.recipe
        size = recipe.encoder_batch
        scenes = self.total * size * trainer.batches_per_update
        augmentation = Augmentation(recipe.mixup, recipe.roll_and_gain, recipe.balanced)
        drawn = DrawnScenes(
            plan.dataset, plan.split, trainer.settings, plan.seed, scenes, recipe.two_sources, augmentation
        )
        order = [share for update in trainer.shares(start, self.total, size) for share in update]
        loaded = iter(trainer.load(drawn, batch_sampler=order, collate_fn=default_collate))
        while update := list(itertools.islice(loaded, plan.accumulate)):
            yield [Batch((EncoderBatch(*batch).to(trainer.device),), size) for batch in update]


class SourceStage(Stage):
    """The source tokens on the cues of drawn scenes, each rendered once and then used `source_epochs` times."""

    name = SOURCES

    def __init__(self, trainer: Trainer, sources: SourceTokens) -> None:
        recipe, self.trainer, self.sources = trainer.plan.recipe, trainer, sources
        self.objective, self.trained, self.lr = SourceObjective(sources), [sources], recipe.source_lr
        self.draws = -(-recipe.source_scenes // (2 * GROUP))
        self.count = self.draws * 2 * GROUP
        self.batch = recipe.source_batch
        self.per_update = self.batch * trainer.batches_per_update
        self.total = max(1, round(self.count * recipe.source_epochs / self.per_update))

    def rate_of(self, name: str) -> float:
        return self.sources.rate_of(name)

    def prepare(self) -> None:
        trainer, plan = self.trainer, self.trainer.plan
        drawn = DrawnScenes(plan.dataset, plan.split, trainer.settings, plan.seed + 1, self.draws, 0.0)
        rooms = CuedRooms(drawn, self.sources)
        sample = {name: part[0] for name, part in rooms[0][1]._asdict().items()}
        self.cache = open_cache(trainer, {"stage": SOURCES, "seed": plan.seed}, self.count, sample)
        fill_cache(trainer, self.cache, rooms, "cues", _joined, 2 * GROUP)

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        order = epoch_order(self.count, self.total * self.per_update, self.trainer.plan.seed, stage=0)
        for shares in self.trainer.shares(start, self.total, self.batch):
            rows = [EncoderBatch(**self.cache.get(order[s.start : s.stop])).without_padding() for s in shares]
            yield [Batch((row.to(self.trainer.device),), self.batch) for row in rows]


def _joined(groups: Sequence[EncoderBatch]) -> dict[str, torch.Tensor]:
    return {name: torch.cat(part) for name, part in zip(EncoderBatch._fields, zip(*groups, strict=True), strict=True)}


ENCODER_STAGES = {ENCODER: EncoderStage, SOURCES: SourceStage}
"""Encoder → the stage that trains it."""


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions whose scenes could be rendered, and the encodings of these."""

    questions: list[Question]
    rows: list[int]  # of each question's scene in the cache
    cache: EncodingCache
    bad: int  # scenes that could not be rendered

    def of_stage(self, stage: str) -> tuple[list[Question], list[int]]:
        pairs = [(q, row) for q, row in zip(self.questions, self.rows, strict=True) if q.family in STAGES[stage]]
        return [q for q, _ in pairs], [row for _, row in pairs]


def encode_questions(trainer: Trainer) -> EncodedQuestions:
    """Every scene through the frozen encoder, once for all epochs and stages."""
    plan, model = trainer.plan, trainer.model.eval()
    families = "".join(STAGES[stage] for stage in trainer.stages if stage in STAGES)
    questions = [q for q in plan.dataset.questions(plan.split) if q.family in families]
    scenes = list(dict.fromkeys(q.scene for q in questions))

    def encoded(waveforms: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        return encode_fixed_batch(model, waveforms, ENCODE_BATCH, trainer.device)

    with torch.inference_mode():
        sample = {name: part[0] for name, part in encoded([torch.zeros(2, trainer.settings.length)]).items()}
    facts = {"stage": "questions", "encoder": sha256(plan.output / checkpoint.ENCODER)}
    cache = open_cache(trainer, facts, len(scenes), sample)
    fill_cache(trainer, cache, GivenScenes(plan.dataset, scenes, trainer.settings), "encoding", encoded)
    bad = set(cache.bad().tolist())
    row_of = {scene: row for row, scene in enumerate(scenes) if row not in bad}
    good = [q for q in questions if q.scene in row_of]
    return EncodedQuestions(good, [row_of[q.scene] for q in good], cache, len(bad))


def find_batch_size(trainer: Trainer, encoded: EncodedQuestions, objective: AnswerObjective) -> int:
    """`--batch-size auto`: how many of the longest question with its answer fit on every process."""
    tokenizer, device = trainer.tokenizer, trainer.device
    ids = encode(tokenizer, [q.question for q in encoded.questions], [q.answer for q in encoded.questions])
    prompt, answer = (max(part, key=len) for part in ids)
    pad, end = padding_id(tokenizer), tokenizer.eos_token_id

    def inputs(count: int) -> tuple[Encoding, Tokens]:
        tokens = Tokens(*(part.to(device) for part in collate([prompt] * count, [answer] * count, pad, end)))
        return Encoding(encoded.cache.get([0] * count)).to(device), tokens

    unfreeze(trainer.model, [trainer.model.projector, trainer.model.llm])
    objective.train()
    with trainer.accelerator.autocast():
        fits = largest_batch(objective, inputs, device)
    batch = int(trainer.accelerator.gather(torch.tensor([fits], device=device)).min())
    trainer.reporter.info(f"batch size {batch}: as many of the longest sample fit")
    return batch


class QuestionStage(Stage):
    """Projector and language model on the questions of some families."""

    def __init__(
        self, trainer: Trainer, name: str, encoded: EncodedQuestions, objective: AnswerObjective, batch: int
    ) -> None:
        plan, recipe = trainer.plan, trainer.plan.recipe
        self.name, self.trainer, self.objective, self.batch = name, trainer, objective, batch
        self.trained, self.lr, self.muon = [trainer.model.projector, trainer.model.llm], recipe.lr, recipe.muon
        self.cache = encoded.cache
        self.questions, self.rows = encoded.of_stage(name)
        if not self.questions:
            raise InputError(f"no questions for stage {name}", plan.dataset.questions_file(plan.split))
        self.per_update = batch * trainer.batches_per_update
        families = Counter(question.family for question in self.questions)
        self.total = max(1, round(answers_seen(name, families, recipe) / self.per_update))

    def batches(self, start: int) -> Iterator[Sequence[Batch]]:
        order = self._order()
        for shares in self.trainer.shares(start, self.total, self.batch):
            yield [self._batch(order[share.start : share.stop]) for share in shares]

    def _order(self) -> np.ndarray:
        recipe, seed = self.trainer.plan.recipe, self.trainer.plan.seed
        number = 1 + list(STAGES).index(self.name)
        sizes = np.array([q.question.count(" ") + q.answer.count(" ") for q in self.questions])
        order = epoch_order(len(self.questions), self.total * self.per_update, seed, number)
        if self.name == CURRICULUM[-1]:
            head = round(recipe.one_way * self.total) * self.per_update
            order = np.concatenate([one_way(self.questions, head, seed), order[: len(order) - head]])
        return bucket_by_length(order, sizes, self.per_update, seed, number)

    def _batch(self, chosen: np.ndarray) -> Batch:
        tokenizer, device = self.trainer.tokenizer, self.trainer.device
        questions = [self.questions[i] for i in chosen]
        prompts, answers = encode(tokenizer, [q.question for q in questions], [q.answer for q in questions])
        tokens = collate(prompts, answers, padding_id(tokenizer), tokenizer.eos_token_id)
        encoding = Encoding(self.cache.get([self.rows[i] for i in chosen])).to(device)
        weight = int((tokens.labels != IGNORED).sum())
        names = tuple(f"{q.audio_id} in {q.reverb_id}" for q in questions)
        return Batch((encoding, Tokens(*(part.to(device) for part in tokens))), weight, names)
