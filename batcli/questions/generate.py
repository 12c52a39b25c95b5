"""Questions and their answers, balanced by design and never ambiguous.

Yes and No are even overall, for every relation that is asked ("to the left of", "both above", …)
and for every wording of it; so are "left" and "right", and whether the event that answers "which
one" is named first or second. That is possible because a comparison can be asked either way round:
which source is called X follows from the answer that is due. For octants, distances, clips and what
two sources must differ in, see `questions/scenes`; every word that an answer or a question relies
on, and every comparison, is clear by the margins given there.

Rendering and encoding cost time per scene, so questions share scenes: one A and one B, or
`PER_SCENE` of C, D and E, where C and D are asked about both sources if both can be, and no relation
is asked twice along the same axis by the same type. Where more are wanted, for training, a scene is
asked about in several such rounds, in other words each time.

The memory in use does not grow with the number of questions.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from batcli.core.errors import InputError
from batcli.data.answers import write_distance, write_labels, write_yes_no
from batcli.data.metadata import Clip, Label, Reverb
from batcli.data.question_types import PLANE, PUBLISHED_TYPES, QUESTION_TYPES
from batcli.data.schema import Question
from batcli.questions import templates
from batcli.questions.balance import BalanceCounter
from batcli.questions.scenes import (
    AXES,
    AXIS_OF,
    DISTANCE,
    Clear,
    Location,
    Placement,
    SceneSampler,
    ShuffledCycle,
    SourcePosition,
    compare,
    is_askable,
    is_unambiguous,
)

PER_SCENE = 4  # questions about two sources: few, so that scores rest on many scenes
MIN_APART = 0.5  # metres between two sources whose distance from one another is asked for
MAX_FAILURES = 5_000  # scenes in a row that allow no question, after which generation gives up

T = TypeVar("T", bound=Hashable)


class GeneratedQuestion(NamedTuple):
    """A question about a scene, with its answer."""

    topic: Hashable  # key of what is asked about, such as (form, axis); no scene is asked about one topic twice
    question: str
    answer: str
    wording: str  # the question with the names left out
    parts: Mapping[str, str]  # of the answer, for the report on balance


class Balancer:
    """Counts of what was asked, to choose what was asked least."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.used: Counter[Hashable] = Counter()
        self.wordings: dict[Hashable, ShuffledCycle[str]] = {}
        self.once_more: dict[Hashable, str] = {}  # wordings of `wording_twice` that were used once

    def rarest(self, keys: Sequence[T]) -> T:
        """The key that was counted least, ties broken at random."""
        return min(keys, key=lambda key: self.used[key] + self.rng.random())

    def count(self, *keys: Hashable) -> None:
        for key in keys:
            self.used[key] += 1

    def wording(self, key: Hashable, wordings: Sequence[str]) -> str:
        """The next wording. Under each key all come equally often."""
        if key not in self.wordings:
            self.wordings[key] = ShuffledCycle(wordings, self.rng)
        return self.wordings[key].draw()

    def wording_twice(self, key: Hashable, wordings: Sequence[str]) -> str:
        """Each wording twice running, for a key whose two answers alternate, so that no wording predicts one."""
        if key not in self.once_more:
            self.once_more[key] = self.wording(key, wordings)
            return self.once_more[key]
        return self.once_more.pop(key)

    def name(self, placed: SourcePosition) -> str:
        """One of the source's labels, which is enough: two sources share none."""
        return placed.names[0] if len(placed.names) == 1 else self.rng.choice(placed.names)


# ---- how many of each type -----------------------------------------------------------------------


def question_types(text: str, on_planes: bool = False) -> tuple[str, ...]:
    """Parse `"A,MIXUP_DIRECTION"` into question types, in their order; a letter stands for its family's types.

    on_planes: no source can be asked about on all axes; letters stand for the types that ask on the others. Raises
    InputError for unknown names.
    """
    wanted: set[str] = set()
    for name in filter(None, (part.strip().upper() for part in text.split(","))):
        family = [known for known, kind in QUESTION_TYPES.items() if kind.family == name and kind.in_family]
        if on_planes:
            family = [known + PLANE if known + PLANE in QUESTION_TYPES else known for known in family]
        if not family and name not in QUESTION_TYPES:
            families = dict.fromkeys(question_type.family for question_type in QUESTION_TYPES.values())
            known = ", ".join([*families, *QUESTION_TYPES])
            raise InputError(f"unknown question type {name!r:.80}", "--types", f"known: {known}")
        wanted.update(family or [name])
    if not wanted:
        raise InputError("no question types", "--types", "such as A,B,C,D,E")
    return tuple(name for name in QUESTION_TYPES if name in wanted)


def counts_by_type(count: int, types: Sequence[str], shares: Mapping[str, float] | None = None) -> dict[str, int]:
    """Divide `count` questions among types in proportion to their shares (largest remainders).

    The shares are those of the released training set where none are given; a type that is not among them has none.
    """
    weights = {name: shares.get(name, 0.0) if shares else QUESTION_TYPES[name].released for name in types}
    exact = {name: count * weight / sum(weights.values()) for name, weight in weights.items()}
    counts = {name: math.floor(value) for name, value in exact.items()}
    for name in sorted(types, key=lambda name: counts[name] - exact[name])[: count - sum(counts.values())]:
        counts[name] += 1
    return counts


# ---- generation ----------------------------------------------------------------------------------


def generate(
    clips: Sequence[Clip],
    labels: Sequence[Label],
    reverbs: Mapping[str, Reverb],
    count: int,
    types: Sequence[str] | None = None,
    seed: int = 0,
    balance: BalanceCounter | None = None,
    per_scene: int = PER_SCENE,
    shares: Mapping[str, float] | None = None,
) -> Iterator[Question]:
    """Generate `count` questions of the given types (default: all).

    The `per_scene` questions about a scene with two sources follow one another. The same arguments give the
    same questions. `balance` counts them; `shares` as in `counts_by_type`. Raises InputError when the clips
    or the BRIRs do not allow such questions.
    """
    rng = random.Random(seed)
    scenes = SceneSampler(clips, labels, reverbs, rng)
    counts = counts_by_type(count, list(PUBLISHED_TYPES) if types is None else types, shares)
    return _generate(scenes, Balancer(rng), counts, balance or BalanceCounter(), per_scene)


def _generate(
    scenes: SceneSampler, balancer: Balancer, counts: Mapping[str, int], balance: BalanceCounter, per_scene: int
) -> Iterator[Question]:
    remaining = {name: n for name, n in counts.items() if n}
    groups = [tuple(name for name in remaining if QUESTION_TYPES[name].sources == sources) for sources in (1, 2)]
    totals = [sum(counts[name] for name in group) for group in groups]
    number = failures = 0
    while remaining:
        # Scenes with one source and with two come in proportion, so that any stretch of the file is alike.
        left = [sum(remaining.get(name, 0) for name in group) for group in groups]
        one = left[0] / max(1, totals[0]) > left[1] / max(1, totals[1])
        types = [name for name in groups[0 if one else 1] if name in remaining]
        needs: set[Clear] = {MAKERS[name].clear for name in types} - {"any"}
        clear: Clear = balancer.rng.choice(sorted(needs)) if len(needs) > 1 else next(iter(needs), "any")
        scene = scenes.one(clear) if one else scenes.two(clear)
        sources, before = tuple(placed.source for placed in scene), number
        rounds = (min(PER_SCENE, per_scene - done) for done in range(0, per_scene, PER_SCENE))
        for name, made in (m for most in rounds for m in _about(scene, types, remaining, counts, balancer, most)):
            yield Question.of(sources, number, name, made.question, made.answer)
            balance.add(name, made.wording, made.parts)
            number += 1
        if number > before:
            balance.scenes[len(scene)] += 1
            failures = 0
            continue
        failures += 1
        if failures == MAX_FAILURES:
            hint = "give more BRIRs, clips that differ more, or other --types"
            raise InputError(f"no scene allows another question of type {', '.join(types)}", hint=hint)


def _about(
    scene: Placement,
    types: Sequence[str],
    remaining: dict[str, int],
    counts: Mapping[str, int],
    balancer: Balancer,
    most: int,
) -> Iterator[tuple[str, GeneratedQuestion]]:
    """Generate up to `most` questions about one scene and subtract them from `remaining`."""
    topics: set[Hashable] = set()
    types = [name for name in types if name in remaining]
    while scene and types and len(topics) < most:
        # The type with most still to make goes first, so that all types run out together.
        name = max(types, key=lambda name: remaining[name] / counts[name])
        for _ in range(MAKERS[name].per_scene):
            made = MAKERS[name].make(scene, topics, balancer)
            if made is not None:
                topics.add(made.topic)
                remaining[name] -= 1
                yield name, made
            if made is None or not remaining[name] or len(topics) == most:
                break
        if made is None or not remaining[name]:
            types.remove(name)
        if not remaining[name]:
            del remaining[name]


# ---- one source ----------------------------------------------------------------------------------


def _classification(scene: Placement, topics: set[Hashable], balancer: Balancer) -> GeneratedQuestion | None:
    if "A" in topics:
        return None
    wording = balancer.wording("A", templates.CLASSIFICATION)
    answer = write_labels(scene[0].names)
    return GeneratedQuestion("A", wording, answer, wording, {"labels": answer})


def _doa(scene: Placement, topics: set[Hashable], balancer: Balancer, plane: bool = False) -> GeneratedQuestion | None:
    location = scene[0].location
    if "B" in topics or not is_askable(location, plane):
        return None
    # By octant, so that no wording predicts one.
    wording = balancer.wording(("B", location.clear_words), templates.DOA_PLANE if plane else templates.DOA)
    question = _ask_axes(wording, location)
    return GeneratedQuestion("B", question, location.doa, wording, _doa_parts(location))


def _ask_axes(wording: str, location: Location, x: str = "") -> str:
    """Fill a wording with the axes of the clear words and the name `x`."""
    question = wording.format(axes=templates.axes(location.clear), x=x)
    return question[0].upper() + question[1:]


def _doa_parts(location: Location) -> dict[str, str]:
    return {"octant": ", ".join(location.clear_words), "distance": write_distance(location.distance)}


# ---- one of two sources --------------------------------------------------------------------------


def _single_classification(
    scene: Placement, topics: set[Hashable], balancer: Balancer, plane: bool = False
) -> GeneratedQuestion | None:
    locations = [placed.location for placed in scene]
    fit = [i for i in (0, 1) if ("C", i) not in topics and is_unambiguous(locations[i], locations[1 - i], plane)]
    if not fit:
        return None
    target = _rarer_octant("C", scene, fit, balancer)
    wording = balancer.wording("C", templates.SINGLE_CLASSIFICATION)
    question = templates.fill_place(wording, locations[target].clear_words, locations[target].rounded)
    answer = write_labels(scene[target].names)
    return GeneratedQuestion(("C", target), question, answer, wording, {"labels": answer})


def _single_doa(
    scene: Placement, topics: set[Hashable], balancer: Balancer, plane: bool = False
) -> GeneratedQuestion | None:
    fit = [i for i, placed in enumerate(scene) if ("D", i) not in topics and is_askable(placed.location, plane)]
    if not fit:
        return None
    target = _rarer_octant("D", scene, fit, balancer)
    location = scene[target].location
    wordings = templates.SINGLE_DOA_PLANE if plane else templates.SINGLE_DOA
    wording = balancer.wording(("D", location.clear_words), wordings)
    question = _ask_axes(wording, location, balancer.name(scene[target]))
    return GeneratedQuestion(("D", target), question, location.doa, wording, _doa_parts(location))


def _rarer_octant(family: str, scene: Placement, fit: Sequence[int], balancer: Balancer) -> int:
    target = min(fit, key=lambda i: balancer.used[family, scene[i].location.words])
    balancer.count((family, scene[target].location.words))
    return target


# ---- relations of two sources --------------------------------------------------------------------


def _direction(scene: Placement, topics: set[Hashable], balancer: Balancer) -> GeneratedQuestion | None:
    first, second = (placed.location for placed in scene)
    answer = balancer.rarest([("direction", True), ("direction", False)])[1]
    ways: dict[tuple[str, str], bool] = {}  # (form, word) → whether the first source must be X
    for axis, (more, less) in enumerate(AXES[:DISTANCE]):
        further = compare(first, second, axis)
        if further and ("beside", axis) not in topics:
            ways["beside", more], ways["beside", less] = (further > 0) == answer, (further < 0) == answer
        if first.clear[axis] and second.clear[axis] and ("both", axis) not in topics:
            for word in (more, less):
                there = (first.words[axis], second.words[axis]).count(word)
                # Of the answers No about "both", one in three has neither source there, two in three have one.
                few_have_none = 2 * balancer.used["neither", word] < balancer.used["one", word]
                if (there == 2) == answer and (there or few_have_none):
                    ways["both", word] = balancer.rng.random() < 0.5
    relation = _due(list(ways), answer, balancer)
    if relation is None:
        return None
    form, word = relation
    axis = AXIS_OF[word]
    balancer.count(("direction", answer), (relation, answer))
    if form == "both" and not answer:
        balancer.count(("neither" if first.words[axis] == second.words[axis] else "one", word))
    both = (templates.DIRECTION_BOTH, templates.PLACES)
    wordings, phrases = both if form == "both" else (templates.DIRECTION_BESIDE, templates.BESIDE)
    wording = balancer.wording_twice(relation, wordings)
    pair = scene if ways[relation] else scene[::-1]
    return _compared((form, axis), pair, wording, phrases[word], write_yes_no(answer), "answer", balancer)


def _distance_both(scene: Placement, topics: set[Hashable], balancer: Balancer) -> GeneratedQuestion | None:
    further = compare(scene[0].location, scene[1].location, DISTANCE)
    if not further or "distance" in topics:
        return None
    answer = balancer.rarest([("distance", True), ("distance", False)])[1]
    word = _due(AXES[DISTANCE], answer, balancer)
    if word is None:
        return None
    balancer.count(("distance", answer), (word, answer))
    pair = scene if (further == (1 if word == "far" else -1)) == answer else scene[::-1]
    wording = balancer.wording_twice(word, templates.DISTANCE_BOTH)
    return _compared("distance", pair, wording, templates.BESIDE[word], write_yes_no(answer), "answer", balancer)


def _due(relations: Sequence[T], answer: bool, balancer: Balancer) -> T | None:
    """Choose the relation ("left", "far", …) to ask about, so that Yes and No stay even for each.

    The one that had this answer least often, of those that did not have it more often than the other answer;
    None if there is none.
    """
    used = balancer.used
    fit = [relation for relation in relations if used[relation, answer] <= used[relation, not answer]]
    return min(fit, key=lambda relation: used[relation, answer] + balancer.rng.random()) if fit else None


def _compared(
    topic: Hashable, pair: Placement, wording: str, phrase: str, answer: str, part: str, balancer: Balancer
) -> GeneratedQuestion:
    """Make a question from a wording: X and Y are the sources of `pair`, in this order, and `phrase` the relation.

    `part`: name of the answer in `GeneratedQuestion.parts`.
    """
    x, y = (balancer.name(placed) for placed in pair)
    question = wording.format(x=x, y=y, relation=phrase)
    return GeneratedQuestion(topic, question, answer, wording.replace("{relation}", phrase), {part: answer})


def _nonbinary_direction(scene: Placement, topics: set[Hashable], balancer: Balancer) -> GeneratedQuestion | None:
    further = compare(scene[0].location, scene[1].location, 0)
    if not further or "side" in topics:
        return None
    word = balancer.rarest(AXES[0])
    balancer.count(word)
    wording = balancer.wording_twice("side", templates.NONBINARY_DIRECTION)
    pair = scene if (further > 0) == (word == "right") else scene[::-1]
    return _compared("side", pair, wording, "", word, "answer", balancer)


def _nonbinary_distance(scene: Placement, topics: set[Hashable], balancer: Balancer) -> GeneratedQuestion | None:
    metres = math.dist(scene[0].location.offset, scene[1].location.offset)
    if metres < MIN_APART or "apart" in topics:
        return None
    wording = balancer.wording("apart", templates.NONBINARY_DISTANCE)
    answer = write_distance(metres)
    return _compared("apart", scene, wording, "", answer, "distance", balancer)


def _nonbinary_source(scene: Placement, topics: set[Hashable], balancer: Balancer) -> GeneratedQuestion | None:
    first, second = (placed.location for placed in scene)
    answers: dict[str, int] = {}  # word → which source it is
    for axis, (more, less) in enumerate(AXES):
        further = compare(first, second, axis)
        if further and ("which", axis) not in topics:
            answers[more], answers[less] = (0, 1) if further > 0 else (1, 0)
    if not answers:
        return None
    word = balancer.rarest([("which", word) for word in answers])[1]
    named = balancer.rarest([(word, "first"), (word, "second")])
    balancer.count(("which", word), named)
    wording = balancer.wording_twice(("which", word), templates.NONBINARY_SOURCE)
    right, wrong = (balancer.name(scene[i]) for i in (answers[word], 1 - answers[word]))
    x, y = (right, wrong) if named[1] == "first" else (wrong, right)
    phrase = templates.EXTREMES[word]
    return GeneratedQuestion(
        ("which", AXIS_OF[word]),
        wording.format(x=x, y=y, relation=phrase),
        write_labels([right]),
        wording.replace("{relation}", phrase),
        {"named": named[1]},
    )


class Maker(NamedTuple):
    """The way to make questions of one type."""

    make: Callable[[Placement, set[Hashable], Balancer], GeneratedQuestion | None]
    """A question about a scene, of none of the topics asked already; None where the scene does not allow one."""
    wordings: Sequence[str]
    clear: Clear = "any"  # which words of a source must be clear
    per_scene: int = 1  # questions to try: 2 are about both sources


MAKERS: dict[str, Maker] = {
    "CLASSIFICATION": Maker(_classification, templates.CLASSIFICATION),
    "DOA": Maker(_doa, templates.DOA, "all"),
    # The same audio with two answers makes a model heed the question.
    "MIXUP_SINGLE_CLASSIFICATION": Maker(_single_classification, templates.SINGLE_CLASSIFICATION, "all", per_scene=2),
    "MIXUP_SINGLE_DOA": Maker(_single_doa, templates.SINGLE_DOA, "all", per_scene=2),
    "MIXUP_DIRECTION": Maker(_direction, templates.DIRECTION_BOTH + templates.DIRECTION_BESIDE),
    "MIXUP_DISTANCE_BOTH": Maker(_distance_both, templates.DISTANCE_BOTH),
    "MIXUP_NONBINARY_DIRECTION": Maker(_nonbinary_direction, templates.NONBINARY_DIRECTION),
    "MIXUP_NONBINARY_DISTANCE": Maker(_nonbinary_distance, templates.NONBINARY_DISTANCE),
    "MIXUP_NONBINARY_SOURCE": Maker(_nonbinary_source, templates.NONBINARY_SOURCE),
    "DOA_PLANE": Maker(partial(_doa, plane=True), templates.DOA_PLANE, "plane"),
    "MIXUP_SINGLE_CLASSIFICATION_PLANE": Maker(
        partial(_single_classification, plane=True), templates.SINGLE_CLASSIFICATION, "plane", per_scene=2
    ),
    "MIXUP_SINGLE_DOA_PLANE": Maker(partial(_single_doa, plane=True), templates.SINGLE_DOA_PLANE, "plane", per_scene=2),
}
"""`question_type` → how its questions are made."""

LESS = [
    *(templates.PLACES[word] for word in ("left", "behind", "below")),
    *(templates.EXTREMES[word] for word in ("left", "behind", "below", "near")),
]
"""Phrases of `{relation}` that ask by the second word of a pair of opposites: by left, not by right."""


def is_turned(question: Question) -> bool:
    """Whether a question asks for a relation by left, behind, below or near, and not by their opposites.

    False for question types that have no `{relation}` in their wordings.
    """
    asks_relation = any("{relation}" in wording for wording in MAKERS[question.question_type].wordings)
    return asks_relation and any(phrase in question.question for phrase in LESS)
