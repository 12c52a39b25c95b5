"""Question types, the nine published ones and ours beside them: how answers are read, checked and scored.

`QUESTION_TYPES` is the one table: reading records, generation, training, scoring and reports all go by it. Another
type is one more instance there, of a class of its own if its answers are of a new kind, and a maker of its questions
in `questions/generate.MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from batcli.data.answers import Doa, Vocabulary, read_doa, read_labels, read_yes_no, split_labels

DISTANCE_TOLERANCE = 0.5
"""Metres. The published distance error rate counts an answer that is off by more than this."""
EPSILON = 1e-9  # distances are sums of decimals: 0.3 + 0.5 m is not off by more than 0.5 m
UNREAD_ERROR = 1e-3  # sorts an answer that could not be read after all that were read and are wrong
NO_LABELS = Vocabulary.of(())

# ---- metrics -------------------------------------------------------------------------------------

Ratio = tuple[float, float]
"""Numerator and denominator of a metric for one record: over many records the metric is Σ / Σ."""

Metric = Callable[[Any, Any], Ratio]
"""(predicted value, target value) → the record's `Ratio`."""


def exact_match(predicted: Any, target: Any) -> Ratio:
    """1 where the values are equal; None, which could not be read, equals nothing."""
    return float(predicted is not None and predicted == target), 1.0


def label_f1(predicted: frozenset[int], target: frozenset[int]) -> Ratio:
    """F1, micro-averaged over labels: 2·TP / (2·TP + FP + FN) = 2·TP / (|predicted| + |target|)."""
    return 2.0 * len(predicted & target), float(len(predicted) + len(target))


def axis_accuracy(axis: int) -> Metric:
    """The metric of one direction word: 0 left or right, 1 front or behind, 2 above or below."""
    return lambda predicted, target: exact_match(predicted[axis], target[axis])


def direction_accuracy(predicted: Doa, target: Doa) -> Ratio:
    """1 where all three words are right."""
    return exact_match(predicted.octant, target.octant)


def named_axis_accuracy(axis: int) -> Metric:
    """`axis_accuracy` over the records whose target names the axis."""

    def metric(predicted: Doa, target: Doa) -> Ratio:
        return (0.0, 0.0) if target[axis] is None else exact_match(predicted[axis], target[axis])

    return metric


def choice_accuracy(predicted: Doa, target: Doa) -> Ratio:
    """1 where the words are right on every axis that the target names; other axes do not matter."""
    return float(all(t is None or p == t for p, t in zip(predicted[:3], target[:3], strict=True))), 1.0


def is_distance_wrong(predicted: float | None, target: float | None) -> bool:
    """Whether a distance, in metres, is missing or off by more than `DISTANCE_TOLERANCE`."""
    return predicted is None or target is None or not abs(predicted - target) <= DISTANCE_TOLERANCE + EPSILON


def distance_error_rate(predicted: Doa, target: Doa) -> Ratio:
    """1 where `is_distance_wrong`: the published DER."""
    return float(is_distance_wrong(predicted.distance, target.distance)), 1.0


def distance_error(predicted: Doa, target: Doa) -> Ratio:
    """Absolute error in metres, over the answers that give a distance."""
    if predicted.distance is None or target.distance is None:
        return 0.0, 0.0
    return abs(predicted.distance - target.distance), 1.0


# ---- types ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuestionType:
    """A type of question: its place in the published tables, and how its answers are read and scored.

    Each subclass is one kind of answer. `parse` turns a text into a value (a set of labels, a `Doa`, a bool),
    and `score` compares a predicted with a true value.
    """

    name: str  # `question_type` of a record
    family: str  # letter in the published table
    sources: int  # in each scene: 1 or 2
    released: float  # number of questions in the released training set, or of the published type it stands for
    column: str | None = None  # of the published table of scores; None: it has none for this type
    in_family: bool = True  # whether the family's letter stands for it, and the family's mean scores count it

    expected: ClassVar[str]  # what a target is, for messages
    metrics: ClassVar[Mapping[str, Metric]]  # name → its definition, the most important first
    parts: ClassVar[tuple[str, ...]] = ("answer",)  # of an answer: labels; direction, distance (of a `Doa`); or other
    has_map: ClassVar[bool] = False  # whether mean average precision is computed as well
    names_choices: ClassVar[bool] = False  # whether questions name the events to choose from

    @property
    def title(self) -> str:
        """`A CLASSIFICATION`."""
        return f"{self.family} {self.name}"

    def has(self, metric: str) -> bool:
        """Whether answers of this type have a metric."""
        return metric in self.metrics or (metric == "map" and self.has_map)

    def parse(self, text: str, vocabulary: Vocabulary) -> Any:
        """The value of a predicted answer; a part that it does not give, or contradicts, is None or empty."""
        raise NotImplementedError

    def parse_target(self, text: str, vocabulary: Vocabulary) -> Any:
        """The value of a true answer, which is written exactly."""
        return self.parse(text, vocabulary)

    def is_valid(self, text: str) -> bool:
        """Whether `text` can be a true answer: it can be read in full."""
        value = self.parse(text, NO_LABELS)
        return not self.unread(value, value)

    def unread(self, predicted: Any, target: Any) -> tuple[str, ...]:
        """The parts of a predicted answer that are needed and could not be read."""
        return () if predicted is not None else self.parts

    def score(self, predicted: Any, target: Any) -> dict[str, Ratio]:
        """All metrics of one record that compare its two values, and `answered`: whether it could be read in full."""
        scores = {name: metric(predicted, target) for name, metric in self.metrics.items()}
        return {**scores, "answered": (float(not self.unread(predicted, target)), 1.0)}

    def error(self, predicted: Any, target: Any) -> float:
        """A sort key, to list the worst answers first: 0 is right, larger is worse.

        An answer that could not be read has `UNREAD_ERROR`, less than any wrong answer that could.
        """
        return UNREAD_ERROR if self.unread(predicted, target) else self._error(self.score(predicted, target))

    def _error(self, scores: Mapping[str, Ratio]) -> float:
        numerator, denominator = next(iter(scores.values()))
        return 1.0 - numerator / denominator


class LabelType(QuestionType):
    """Answers are names of events; values are sets of their numbers in the vocabulary."""

    expected = "labels"
    metrics: ClassVar[Mapping[str, Metric]] = {"label_f1": label_f1}
    parts = ("labels",)
    has_map = True

    def parse(self, text: str, vocabulary: Vocabulary) -> frozenset[int]:
        return read_labels(text, vocabulary)

    def parse_target(self, text: str, vocabulary: Vocabulary) -> frozenset[int]:
        """Exactly the names between the semicolons."""
        return frozenset().union(*(read_labels(name, vocabulary) for name in split_labels(text)))

    def is_valid(self, text: str) -> bool:
        return bool(split_labels(text))

    def unread(self, predicted: frozenset[int], target: frozenset[int]) -> tuple[str, ...]:
        return () if predicted else self.parts


class SourceType(LabelType):
    """Answers are one of the events that the question names, and right if they have exactly its label."""

    metrics: ClassVar[Mapping[str, Metric]] = {"source_acc": exact_match}
    has_map = False
    names_choices = True


class SpatialType(QuestionType):
    """Answers are a direction, a distance, or both; values are `Doa`."""

    def parse(self, text: str, vocabulary: Vocabulary) -> Doa:
        return read_doa(text)


class PlaceType(SpatialType):
    """Answers are a direction and a distance."""

    expected = "a direction and a distance"
    axes: ClassVar[tuple[str, ...]] = ("lr_acc", "fb_acc", "ud_acc")  # the metrics of single words
    metrics: ClassVar[Mapping[str, Metric]] = {
        "doa_acc": direction_accuracy,
        "lr_acc": axis_accuracy(0),
        "fb_acc": axis_accuracy(1),
        "ud_acc": axis_accuracy(2),
        "der": distance_error_rate,
        "distance_mae": distance_error,
    }
    parts = ("direction", "distance")

    def unread(self, predicted: Doa, target: Doa) -> tuple[str, ...]:
        names = ("left/right", "front/behind", "above/below", "distance")
        return tuple(name for name, value in zip(names, predicted, strict=True) if value is None)

    def _error(self, scores: Mapping[str, Ratio]) -> float:
        wrong_words = sum(scores[name][1] - scores[name][0] for name in self.axes)
        return wrong_words + scores["der"][0] * min(scores["distance_mae"][0], 9.0) / 10.0


class PlaneType(PlaceType):
    """Answers are a distance and the words of the axes that the question asks for, one or two.

    For a source so near to a plane between two words that neither could be called right.
    """

    expected = "one or two words of direction and a distance"
    metrics: ClassVar[Mapping[str, Metric]] = {
        **PlaceType.metrics,
        "doa_acc": choice_accuracy,
        **{name: named_axis_accuracy(axis) for axis, name in enumerate(PlaceType.axes)},
    }

    def is_valid(self, text: str) -> bool:
        place = read_doa(text)
        return place.distance is not None and 1 <= sum(word is not None for word in place[:3]) <= 2

    def unread(self, predicted: Doa, target: Doa) -> tuple[str, ...]:
        missing = super().unread(predicted, target)
        needed = super().unread(target, target)  # parts that the target does not have
        return tuple(part for part in missing if part not in needed)


class SideType(SpatialType):
    """Answers are left or right, or the words of other axes; axes that the target does not name do not matter."""

    expected = "a direction"
    metrics: ClassVar[Mapping[str, Metric]] = {"choice_acc": choice_accuracy}

    def is_valid(self, text: str) -> bool:
        return read_doa(text)[:3] != (None, None, None)

    def unread(self, predicted: Doa, target: Doa) -> tuple[str, ...]:
        missing = any(p is None and t is not None for p, t in zip(predicted[:3], target[:3], strict=True))
        return ("direction",) if missing else ()


class DistanceType(SpatialType):
    """Answers are a distance."""

    expected = "a distance"
    metrics: ClassVar[Mapping[str, Metric]] = {"der": distance_error_rate, "distance_mae": distance_error}
    parts = ("distance",)

    def unread(self, predicted: Doa, target: Doa) -> tuple[str, ...]:
        return self.parts if predicted.distance is None else ()

    def _error(self, scores: Mapping[str, Ratio]) -> float:
        return scores["der"][0] * scores["distance_mae"][0]


class YesNoType(QuestionType):
    """Answers are Yes or No; values are bool."""

    expected = "Yes or No"
    metrics: ClassVar[Mapping[str, Metric]] = {"binary_acc": exact_match}
    parts = ("yes/no",)

    def parse(self, text: str, vocabulary: Vocabulary) -> bool | None:
        return read_yes_no(text)


_E = 357_528 / 5  # the released training set tells only the number of the whole family

PUBLISHED_TYPES: dict[str, QuestionType] = {
    question_type.name: question_type
    for question_type in (
        LabelType("CLASSIFICATION", "A", 1, 139_392, "A"),
        PlaceType("DOA", "B", 1, 139_392, "B"),
        LabelType("MIXUP_SINGLE_CLASSIFICATION", "C", 2, 118_000, "C"),
        PlaceType("MIXUP_SINGLE_DOA", "D", 2, 118_000, "D"),
        YesNoType("MIXUP_DIRECTION", "E", 2, _E, "direction"),
        YesNoType("MIXUP_DISTANCE_BOTH", "E", 2, _E, "distance"),
        SideType("MIXUP_NONBINARY_DIRECTION", "E", 2, _E),
        DistanceType("MIXUP_NONBINARY_DISTANCE", "E", 2, _E),
        SourceType("MIXUP_NONBINARY_SOURCE", "E", 2, _E),
    )
}
"""The nine types of SpatialSoundQA, in the published order."""

PLANE = "_PLANE"
"""Ends the name of a type that asks of a source near a plane as a published type asks of others."""

QUESTION_TYPES: dict[str, QuestionType] = {
    **PUBLISHED_TYPES,
    **{
        question_type.name: question_type
        for question_type in (
            PlaneType("DOA_PLANE", "B", 1, 139_392, in_family=False),
            LabelType("MIXUP_SINGLE_CLASSIFICATION_PLANE", "C", 2, 118_000, in_family=False),
            PlaneType("MIXUP_SINGLE_DOA_PLANE", "D", 2, 118_000, in_family=False),
        )
    },
}
"""`question_type` of a record → the type. The shares of our own are those of the types that they stand for."""
