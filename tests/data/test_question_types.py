"""Question types: the published table, each metric against scikit-learn or by hand, and a tenth type."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from batcli.core.errors import InputError
from batcli.data.answers import Doa, Vocabulary
from batcli.data.geometry import Position, offset
from batcli.data.metadata import Clip, Label, Reverb
from batcli.data.question_types import (
    PUBLISHED_TYPES,
    QUESTION_TYPES,
    UNREAD_ERROR,
    QuestionType,
    exact_match,
    is_distance_wrong,
    label_f1,
)
from batcli.data.schema import parse_question
from batcli.evaluation.report import to_json
from batcli.options import ScoreOptions
from batcli.questions.balance import BalanceCounter
from batcli.questions.generate import MAKERS, GeneratedQuestion, Maker, generate, question_types
from batcli.score import score
from batcli.training.answers import SampledAnswer, scores

NAMES = Vocabulary.of(["dog", "bell", "accelerating, revving, vroom"])
SETS = st.lists(st.frozensets(st.integers(0, 4), max_size=4), min_size=1, max_size=20)


def test_families_are_those_of_the_published_table():
    families = Counter(question_type.family for question_type in PUBLISHED_TYPES.values())
    assert families == {**dict.fromkeys("ABCD", 1), "E": 5}
    assert all(name == question_type.name for name, question_type in QUESTION_TYPES.items())
    assert sum(question_type.released for question_type in PUBLISHED_TYPES.values()) == pytest.approx(872_312)


# ---- metrics -------------------------------------------------------------------------------------


@given(SETS, st.data())
def test_label_f1_is_scikit_learns_micro_average(targets, data):
    size = len(targets)
    predicted = data.draw(st.lists(st.frozensets(st.integers(0, 4), max_size=4), min_size=size, max_size=size))
    numerator, denominator = map(sum, zip(*map(label_f1, predicted, targets), strict=True))
    dense = [[[n in labels for n in range(5)] for labels in sets] for sets in (targets, predicted)]
    expected = f1_score(*dense, average="micro", zero_division=math.nan)
    if math.isnan(expected):
        assert denominator == 0
    else:
        assert numerator / denominator == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "target", "wrong"),
    [
        (2.0, 2.0, False),
        (2.5, 2.0, False),  # 0.5 m off is not more than 0.5 m
        (1.5, 2.0, False),
        (2.51, 2.0, True),
        (3.0, 2.0, True),
        (0.3 + 0.5, 0.3, False),  # as decimals, whatever their binary sums
        (2.3, 1.8, False),
        (None, 2.0, True),
    ],
)
def test_distance_error_at_half_a_metre(predicted, target, wrong):
    assert is_distance_wrong(predicted, target) is wrong


@given(st.integers(0, 40), st.integers(0, 40))
def test_on_the_grid_the_neighbours_are_right(predicted, target):
    assert is_distance_wrong(predicted / 2, target / 2) == (abs(predicted - target) > 1)


def scored(type_name: str, predicted: str, target: str) -> dict[str, float]:
    """metric → value of one record, of those that have one."""
    question_type = QUESTION_TYPES[type_name]
    found = question_type.score(question_type.parse(predicted, NAMES), question_type.parse_target(target, NAMES))
    return {metric: numerator / denominator for metric, (numerator, denominator) in found.items() if denominator}


@pytest.mark.parametrize(
    ("type_name", "predicted", "target", "expected"),
    [
        ("CLASSIFICATION", "a dog", "dog; bell", {"label_f1": 2 / 3, "answered": 1}),
        ("MIXUP_NONBINARY_SOURCE", "the dog", "dog", {"source_acc": 1, "answered": 1}),
        ("MIXUP_NONBINARY_SOURCE", "the dog and the bell", "dog", {"source_acc": 0, "answered": 1}),
        ("MIXUP_NONBINARY_SOURCE", "who knows", "dog", {"source_acc": 0, "answered": 0}),
        (
            "DOA",
            "left, front; 3m",
            "left, behind, above; 2m",
            {"doa_acc": 0, "lr_acc": 1, "fb_acc": 0, "ud_acc": 0, "der": 1, "distance_mae": 1, "answered": 0},
        ),
        ("MIXUP_NONBINARY_DIRECTION", "left, and above", "left", {"choice_acc": 1, "answered": 1}),
        ("MIXUP_NONBINARY_DIRECTION", "in front", "left", {"choice_acc": 0, "answered": 0}),
        ("MIXUP_NONBINARY_DISTANCE", "2.5m", "2m", {"der": 0, "distance_mae": 0.5, "answered": 1}),
        ("MIXUP_NONBINARY_DISTANCE", "far", "2m", {"der": 1, "answered": 0}),
        ("MIXUP_DIRECTION", "yes", "Yes", {"binary_acc": 1, "answered": 1}),
        ("MIXUP_DISTANCE_BOTH", "perhaps", "No", {"binary_acc": 0, "answered": 0}),
    ],
)
def test_scores_of_one_record(type_name, predicted, target, expected):
    assert scored(type_name, predicted, target) == pytest.approx(expected)


TARGETS = {
    "CLASSIFICATION": "dog; bell",
    "DOA": "left, front, above; 2m",
    "MIXUP_SINGLE_CLASSIFICATION": "accelerating, revving, vroom; dog",
    "MIXUP_SINGLE_DOA": "right, behind, below; 0.5m",
    "MIXUP_DIRECTION": "Yes",
    "MIXUP_DISTANCE_BOTH": "No",
    "MIXUP_NONBINARY_DIRECTION": "right",
    "MIXUP_NONBINARY_DISTANCE": "3.5m",
    "MIXUP_NONBINARY_SOURCE": "bell",
    "DOA_PLANE": "left, front; 2m",
    "MIXUP_SINGLE_CLASSIFICATION_PLANE": "dog",
    "MIXUP_SINGLE_DOA_PLANE": "behind; 0.5m",
}


@pytest.mark.parametrize("type_name", QUESTION_TYPES)
def test_a_target_is_valid_and_right_and_nothing_is_neither(type_name):
    question_type, text = QUESTION_TYPES[type_name], TARGETS[type_name]
    target = question_type.parse_target(text, NAMES)
    assert question_type.is_valid(text)
    assert question_type.parse(text, NAMES) == target
    assert question_type.error(target, target) == 0
    assert not question_type.is_valid("")
    nothing = question_type.parse("", NAMES)
    assert question_type.unread(nothing, target)
    assert question_type.error(nothing, target) == UNREAD_ERROR
    assert question_type.score(nothing, target)["answered"] == (0.0, 1.0)


def test_errors_put_the_worst_first():
    place = QUESTION_TYPES["DOA"]
    target = Doa("left", "front", "above", 2.0)
    answers = [target, target._replace(distance=3.0), target._replace(distance=6.0), target._replace(side="right")]
    errors = [place.error(answer, target) for answer in answers]
    assert errors == sorted(errors)
    assert errors[0] == 0


# ---- a tenth type --------------------------------------------------------------------------------


@dataclass(frozen=True)
class CountType(QuestionType):
    """Answers are a number of events, in digits."""

    expected = "a number"
    metrics: ClassVar = {"count_acc": exact_match}

    def parse(self, text, vocabulary):
        return int(text) if text.isdigit() else None


def make_count(scene, topics, balancer):
    if "count" in topics:
        return None
    answer = str(len({name for placed in scene for name in placed.names}))
    return GeneratedQuestion("count", "How many?", answer, "How many?", {"answer": answer})


def test_a_tenth_type_is_one_class_and_one_maker(monkeypatch, tmp_path):
    monkeypatch.setitem(QUESTION_TYPES, "COUNT", CountType("COUNT", "F", 2, 139_392))
    monkeypatch.setitem(MAKERS, "COUNT", Maker(make_count, ["How many?"]))
    assert question_types("F,B") == ("DOA", "COUNT")

    labels = [Label(number, f"/m/{number}", name) for number, name in enumerate(NAMES.names)]
    clips = [Clip(f"clip{i}", (f"/m/{i % 3}",)) for i in range(6)]
    positions = [Position(azimuth, 30, 2) for azimuth in (30, 120, 210, 300)]
    reverbs = {f"room/{i}.npy": Reverb(f"room/{i}.npy", p, offset(p), {}) for i, p in enumerate(positions)}
    balance = BalanceCounter()
    questions = list(generate(clips, labels, reverbs, 20, ("DOA", "COUNT"), balance=balance))
    assert balance.counts["COUNT"] == sum(q.question_type == "COUNT" for q in questions) > 0
    assert any(line.startswith("COUNT") for line in balance.report().lines())

    path = tmp_path / "predictions.jsonl"
    records = [{**q.to_dict(), "prediction": "2" if n % 2 else "many"} for n, q in enumerate(questions)]
    assert [parse_question(q.to_dict(), "here:1") for q in questions] == questions
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    result = score(ScoreOptions(predictions=[path], replicates=10, baseline=["majority"], fail_under=["F.count_acc=0"]))
    asked = [r for r in records if r["question_type"] == "COUNT"]
    expected = sum(r["prediction"] == r["answer"] for r in asked) / len(asked)
    assert json.loads(to_json(result))["by_type"]["COUNT"]["count_acc"]["value"] == pytest.approx(expected)
    assert result.systems[1].by_type["COUNT"].scores["count_acc"].value == 1.0, "the commonest answer: two events"
    assert result.verdicts[0].passed

    replies = [SampledAnswer("COUNT", "2", predicted, 1.0, 1) for predicted in ("2", "3")]
    assert scores(replies, NAMES)["types"]["COUNT"]["count_acc"] == 0.5

    path.write_text(json.dumps({**asked[0], "answer": "a few"}) + "\n")
    with pytest.raises(InputError, match="the true answer of a COUNT is not a number"):
        score(ScoreOptions(predictions=[path]))
