"""How well the model answers: loss and decoded answers of a fixed sample of questions."""

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
from batcli.model.bat import BAT, Encoding, stack
from batcli.model.tokens import IGNORED, Tokens, collate, collate_prompts, decode, encode, padding_id

BATCH = 32
LONGEST = 64  # tokens of an answer; a longer one is cut, and rarely right
NOT_LOGGED = ("fb_acc", "ud_acc", "distance_mae", "answered")


class SampledAnswer(NamedTuple):
    """One question, answered."""

    kind: str
    truth: str
    said: str
    loss: float  # summed over the true answer's tokens and its end
    tokens: int


def sample(questions: Iterable[Question], families: str, count: int, seed: int = 0) -> list[Question]:
    """At most `count` questions of these families: alike many of each type, the same for the same seed."""
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


def answer(
    model: BAT, tokenizer: PreTrainedTokenizerBase, asked: Sequence[tuple[Question, Encoding]], device: torch.device
) -> list[SampledAnswer]:
    """Loss and greedy answer of each question about its scene (a batch of one, anywhere). The model is in eval mode."""
    pad, end = padding_id(tokenizer), tokenizer.eos_token_id
    replies: list[SampledAnswer] = []
    for start in range(0, len(asked), BATCH):
        questions, heard = zip(*asked[start : start + BATCH], strict=True)
        encoding = stack(heard).to(device)
        prompts, answers = encode(tokenizer, [q.question for q in questions], [q.answer for q in questions])
        batch = Tokens(*(part.to(device) for part in collate(prompts, answers, pad, end)))
        nats = F.cross_entropy(model(encoding, batch).float().mT, batch.labels, ignore_index=IGNORED, reduction="none")
        losses, counts = nats.sum(1), (batch.labels != IGNORED).sum(1)
        start_of = Tokens(*(part.to(device) for part in collate_prompts(prompts, pad)))
        texts = decode(tokenizer, model.generate(encoding, start_of, pad, end, max_new_tokens=LONGEST))
        kinds, truths = [q.question_type for q in questions], [q.answer for q in questions]
        replies += map(SampledAnswer, kinds, truths, texts, losses.tolist(), counts.tolist())
    return replies


def scores(replies: Sequence[SampledAnswer], vocabulary: Vocabulary) -> dict[str, Any]:
    """`loss` per token over all; for each of the `types` its `loss`, `n` and what `bat score` calls the same; and
    of each of these the `mean` over the types that have it."""
    by_type: dict[str, list[SampledAnswer]] = defaultdict(list)
    for reply in replies:
        by_type[reply.kind].append(reply)
    types = {
        kind: {"n": len(group), "loss": _loss(group), **_right(kind, group, vocabulary)}
        for kind, group in sorted(by_type.items())
    }
    values: dict[str, list[float]] = defaultdict(list)
    for found in types.values():
        for name in found.keys() - {"n", "loss"}:
            values[name].append(found[name])
    mean = {name: float(np.mean(values[name])) for name in sorted(values)}
    return {"loss": _loss(replies), "mean": mean, "types": types}


def _loss(replies: Sequence[SampledAnswer]) -> float:
    return sum(reply.loss for reply in replies) / max(1, sum(reply.tokens for reply in replies))


def _right(kind: str, replies: Sequence[SampledAnswer], vocabulary: Vocabulary) -> dict[str, float]:
    """Metrics of one type, as `bat score` computes them, without those that are `NOT_LOGGED`."""
    predicted, targets = [reply.said for reply in replies], [reply.truth for reply in replies]
    return {
        metric: float(numerators.sum() / max(1.0, denominators.sum()))
        for metric, (numerators, denominators) in score_answers(kind, predicted, targets, vocabulary).ratios.items()
        if metric not in NOT_LOGGED
    }
