"""Validation of answers: loss and scores of a fixed sample of questions."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from transformers import PreTrainedTokenizerBase

from batcli.data.answers import Vocabulary
from batcli.data.schema import Question
from batcli.evaluation.scores import score_answers
from batcli.model.bat import BAT, Encoding
from batcli.model.tokens import IGNORED, collate, collate_prompts, padding_id, to_ids, to_text

BATCH = 32
MAX_NEW_TOKENS = 64
NOT_LOGGED = ("fb_acc", "ud_acc", "distance_mae", "answered")


class SampledAnswer(NamedTuple):
    """The model's answer to one question."""

    question_type: str
    target: str
    predicted: str
    loss: float  # summed over the tokens of the target and its end
    tokens: int  # over which it is summed


def sample(questions: Iterable[Question], families: str, count: int, seed: int = 0) -> list[Question]:
    """Draw at most `count` questions of these families, equally many of each type; deterministic for a seed."""
    by_type: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        if question.family in families:
            by_type[question.question_type].append(question)
    rng = random.Random(seed)
    for kind in sorted(by_type):
        rng.shuffle(by_type[kind])
    chosen: list[Question] = []
    while len(chosen) < count and any(by_type.values()):
        chosen += [by_type[kind].pop() for kind in sorted(by_type) if by_type[kind]]
    return chosen[:count]


def answer_questions(
    model: BAT, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[Question, Encoding]], device: torch.device
) -> list[SampledAnswer]:
    """Answer questions greedily, each paired with the encoding of its scene (a batch of one, on any device).

    `model` must be in evaluation mode.
    """
    pad, end = padding_id(tokenizer), tokenizer.eos_token_id
    answers: list[SampledAnswer] = []
    for start in range(0, len(pairs), BATCH):
        questions, encodings = zip(*pairs[start : start + BATCH], strict=True)
        encoding = Encoding.concat(encodings).to(device)
        types, targets = [q.question_type for q in questions], [q.answer for q in questions]
        prompt_ids, target_ids = to_ids(tokenizer, [q.question for q in questions], targets)
        batch = collate(prompt_ids, target_ids, pad, end).to(device)
        nats = F.cross_entropy(model(encoding, batch).float().mT, batch.labels, ignore_index=IGNORED, reduction="none")
        losses, counts = nats.sum(1), (batch.labels != IGNORED).sum(1)
        prompts = collate_prompts(prompt_ids, pad).to(device)
        predicted = to_text(tokenizer, model.generate(encoding, prompts, pad, end, max_new_tokens=MAX_NEW_TOKENS))
        answers += map(SampledAnswer, types, targets, predicted, losses.tolist(), counts.tolist())
    return answers


def scores(answers: Sequence[SampledAnswer], vocabulary: Vocabulary) -> dict[str, Any]:
    """Score answers by type of question.

    Returns `loss`, the mean per token; `types`, for each type its `n`, `loss` and metrics as in
    `bat score`; and `mean`, for each metric the mean over the types that have it.
    """
    by_type: dict[str, list[SampledAnswer]] = defaultdict(list)
    for answer in answers:
        by_type[answer.question_type].append(answer)
    metrics = {kind: _metrics(kind, group, vocabulary) for kind, group in sorted(by_type.items())}
    types = {kind: {"n": len(by_type[kind]), "loss": _mean_loss(by_type[kind]), **metrics[kind]} for kind in metrics}
    names = sorted({name for values in metrics.values() for name in values})
    mean = {name: float(np.mean([values[name] for values in metrics.values() if name in values])) for name in names}
    return {"loss": _mean_loss(answers), "mean": mean, "types": types}


def _mean_loss(answers: Sequence[SampledAnswer]) -> float:
    return sum(answer.loss for answer in answers) / max(1, sum(answer.tokens for answer in answers))


def _metrics(kind: str, answers: Sequence[SampledAnswer], vocabulary: Vocabulary) -> dict[str, float]:
    """Metrics of one type, as `bat score` computes them, without those that are `NOT_LOGGED`."""
    predicted, targets = [answer.predicted for answer in answers], [answer.target for answer in answers]
    return {
        metric: float(numerators.sum() / max(1.0, denominators.sum()))
        for metric, (numerators, denominators) in score_answers(kind, predicted, targets, vocabulary).ratios.items()
        if metric not in NOT_LOGGED
    }
