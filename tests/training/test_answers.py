"""Answers in validation: the sample of questions and the scores."""

from __future__ import annotations

from collections import Counter

import pytest

from batcli.data.answers import Vocabulary
from batcli.data.question_types import PUBLISHED_TYPES
from batcli.data.schema import Question, Source
from batcli.training.answers import SampledAnswer, sample, scores

NAMES = Vocabulary.of(["dog", "bell", "accelerating, revving, vroom"])


def questions(count: int) -> list[Question]:
    rows = []
    for kind, question_type in PUBLISHED_TYPES.items():
        scene = tuple(Source(f"clip{i}", f"room/{i}.npy") for i in range(question_type.sources))
        rows += [Question.of(scene, number, kind, "Where?", "left") for number in range(count)]
    return rows


def test_a_sample_has_as_many_of_each_type_and_is_always_the_same():
    chosen = sample(questions(40), "ABCDE", 45)
    assert Counter(q.question_type for q in chosen) == dict.fromkeys(PUBLISHED_TYPES, 5)
    assert chosen == sample(questions(40), "ABCDE", 45)
    assert chosen != sample(questions(40), "ABCDE", 45, seed=1)


def test_a_sample_is_of_the_given_families():
    assert {q.family for q in sample(questions(5), "AB", 100)} == {"A", "B"}
    assert len(sample(questions(5), "AB", 100)) == 10, "no more than there are"


def sampled(kind: str, target: str, predicted: str, loss: float = 1.0, tokens: int = 1) -> SampledAnswer:
    return SampledAnswer(kind, target, predicted, loss, tokens)


def test_answers_are_scored_as_bat_score_does():
    found = scores(
        [
            sampled("CLASSIFICATION", "dog; bell", "bell"),
            sampled("DOA", "left, front, above; 2m", "left, front, above; 2.5m"),
            sampled("DOA", "left, front, above; 2m", "left, behind, above; 3m"),
            sampled("MIXUP_DIRECTION", "Yes", "yes"),
            sampled("MIXUP_DIRECTION", "No", "perhaps"),
            sampled("MIXUP_NONBINARY_DIRECTION", "left", "left"),
            sampled("MIXUP_NONBINARY_DISTANCE", "2m", "nothing"),
            sampled("MIXUP_NONBINARY_SOURCE", "accelerating, revving, vroom", "accelerating, revving, vroom"),
        ],
        NAMES,
    )["types"]
    assert found["CLASSIFICATION"]["label_f1"] == pytest.approx(2 / 3)
    assert found["DOA"] == {"n": 2, "loss": 1.0, "doa_acc": 0.5, "lr_acc": 1.0, "der": 0.5}
    assert found["MIXUP_DIRECTION"]["binary_acc"] == 0.5
    assert found["MIXUP_NONBINARY_DIRECTION"]["choice_acc"] == 1.0
    assert found["MIXUP_NONBINARY_DISTANCE"]["der"] == 1.0
    assert found["MIXUP_NONBINARY_SOURCE"]["source_acc"] == 1.0


def test_the_loss_is_a_mean_over_tokens():
    found = scores([sampled("DOA", "a", "a", 9.0, 3), sampled("MIXUP_DIRECTION", "Yes", "Yes", 1.0, 1)], NAMES)
    assert found["loss"] == 2.5
    assert found["types"]["DOA"]["loss"] == 3.0
    assert found["mean"]["binary_acc"] == 1.0
