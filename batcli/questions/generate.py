"""Questions and their answers, balanced by design and never ambiguous.

Yes and No are even overall, for every relation that is asked ("to the left of", "both above", …)
and for every wording of it; so are "left" and "right", and whether the event that answers "which
one" is named first or second. This comes out because a comparison can be asked either way round:
which source is called X follows from the answer that is due. For octants, distances, clips and what
two sources must differ in, see `questions/scenes`; every word that an answer or a question relies
on, and every comparison, is clear by the margins given there.

Rendering and encoding are paid for once per scene, so questions share scenes: one A and one B, or
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
from typing import NamedTuple, TypeVar

from batcli.core.errors import InputError
from batcli.data.metadata import Clip, Label, Reverb
from batcli.data.schema import FAMILIES, QUESTION_TYPES, Question
from batcli.questions import templates
from batcli.questions.answers import write_distance, write_labels, write_yes_no
from batcli.questions.balance import Tally
from batcli.questions.scenes import AXES, AXIS, SIDES, Deck, Placement, SourcePosition, Spot, Stage, excess, fits_only

PER_SCENE = 4  # questions about two sources: few, so that scores rest on many scenes
MIN_APART = 0.5  # metres between two sources whose distance from one another is asked for
PATIENCE = 5_000  # scenes in a row that allow no question, after which there is no hope
PUBLISHED = {
    "CLASSIFICATION": 139_392,
    "DOA": 139_392,
    "MIXUP_SINGLE_CLASSIFICATION": 118_000,
    "MIXUP_SINGLE_DOA": 118_000,
    "MIXUP_DIRECTION": 357_528 / 5,
    "MIXUP_DISTANCE_BOTH": 357_528 / 5,
    "MIXUP_NONBINARY_DIRECTION": 357_528 / 5,
    "MIXUP_NONBINARY_DISTANCE": 357_528 / 5,
    "MIXUP_NONBINARY_SOURCE": 357_528 / 5,
}
"""Shares of the types: questions per family in the released training set. E's five types share evenly."""

T = TypeVar("T", bound=Hashable)


class Asked(NamedTuple):
    """A question about a scene."""

    topic: Hashable  # never twice in one scene
    question: str
    answer: str
    wording: str  # the question with the names left out
    aspects: Mapping[str, str]  # for the tally


class Balance:
    """What was asked how often, so that what is due comes next."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.used: Counter[Hashable] = Counter()
        self.decks: dict[Hashable, Deck[str]] = {}
        self.owed: dict[Hashable, str] = {}  # wordings that come once more

    def rarest(self, keys: Sequence[T]) -> T:
        """The key that was counted least, ties broken at random."""
        return min(keys, key=lambda key: self.used[key] + self.rng.random())

    def count(self, *keys: Hashable) -> None:
        for key in keys:
            self.used[key] += 1

    def wording(self, key: Hashable, wordings: Sequence[str]) -> str:
        """Under each key all wordings come equally often."""
        if key not in self.decks:
            self.decks[key] = Deck(wordings, self.rng)
        return self.decks[key].deal()

    def wording_twice(self, key: Hashable, wordings: Sequence[str]) -> str:
        """The same wording twice running, for a key whose answers come in pairs: one each, so none leans to either."""
        if key not in self.owed:
            self.owed[key] = self.wording(key, wordings)
            return self.owed[key]
        return self.owed.pop(key)

    def name(self, placed: SourcePosition) -> str:
        """One of the source's labels, which is enough: two sources share none."""
        return placed.names[0] if len(placed.names) == 1 else self.rng.choice(placed.names)


# ---- how many of what ----------------------------------------------------------------------------


def question_types(text: str) -> tuple[str, ...]:
    """`"A,MIXUP_DIRECTION"` → question types in the published order. Raises InputError for unknown names."""
    wanted: set[str] = set()
    for name in filter(None, (part.strip().upper() for part in text.split(","))):
        found = [kind for kind, family in FAMILIES.items() if name in (family, kind)]
        if not found:
            known = "A, B, C, D, E, " + ", ".join(QUESTION_TYPES)
            raise InputError(f"unknown question type {name!r:.80}", "--types", f"known: {known}")
        wanted.update(found)
    if not wanted:
        raise InputError("no question types", "--types", "such as A,B,C,D,E")
    return tuple(kind for kind in QUESTION_TYPES if kind in wanted)


def counts_by_type(count: int, types: Sequence[str], shares: Mapping[str, float] = PUBLISHED) -> dict[str, int]:
    """Exactly `count` questions in proportion to the types' shares (largest remainders)."""
    weights = {kind: shares[kind] for kind in types}
    exact = {kind: count * weight / sum(weights.values()) for kind, weight in weights.items()}
    counts = {kind: math.floor(value) for kind, value in exact.items()}
    for kind in sorted(types, key=lambda k: counts[k] - exact[k])[: count - sum(counts.values())]:
        counts[kind] += 1
    return counts


# ---- the course of a run -------------------------------------------------------------------------


def generate(
    clips: Sequence[Clip],
    labels: Sequence[Label],
    reverbs: Mapping[str, Reverb],
    count: int,
    types: Sequence[str] = QUESTION_TYPES,
    seed: int = 0,
    tally: Tally | None = None,
    per_scene: int = PER_SCENE,
    shares: Mapping[str, float] = PUBLISHED,
) -> Iterator[Question]:
    """`count` questions of the given types, `per_scene` about two sources, which follow one another.

    The same arguments give the same questions. `tally` counts them. Raises InputError when the clips
    or the BRIRs do not allow such questions.
    """
    rng = random.Random(seed)
    stage = Stage(clips, labels, reverbs, rng)
    counts = counts_by_type(count, types, shares)
    return _run(stage, Balance(rng), counts, Tally() if tally is None else tally, per_scene)


def _run(stage: Stage, balance: Balance, counts: Mapping[str, int], tally: Tally, per_scene: int) -> Iterator[Question]:
    left = {kind: n for kind, n in counts.items() if n}
    groups = [tuple(kind for kind in left if FAMILIES[kind] in families) for families in ("AB", "CDE")]
    totals = [sum(counts[kind] for kind in group) for group in groups]
    number = idle = 0
    while left:
        # Scenes with one source and with two come in proportion, so that any stretch of the file is alike.
        rest = [sum(left.get(kind, 0) for kind in group) / max(1, n) for group, n in zip(groups, totals, strict=True)]
        one = rest[0] > rest[1]
        kinds = [kind for kind in groups[0 if one else 1] if kind in left]
        scene = stage.one("DOA" in kinds) if one else stage.two(any(FAMILIES[kind] in "CD" for kind in kinds))
        sources, before = tuple(placed.source for placed in scene), number
        rounds = (min(PER_SCENE, per_scene - done) for done in range(0, per_scene, PER_SCENE))
        for kind, asked in (a for most in rounds for a in _ask(scene, kinds, left, counts, balance, most)):
            yield Question.of(sources, number, kind, asked.question, asked.answer)
            tally.add(kind, asked.wording, asked.aspects)
            number += 1
        if number > before:
            tally.scenes[len(scene)] += 1
            idle = 0
            continue
        idle += 1
        if idle == PATIENCE:
            hint = "give more BRIRs, clips that differ more, or other --types"
            raise InputError(f"no scene allows another question of type {', '.join(kinds)}", hint=hint)


def _ask(
    scene: Placement, kinds: Sequence[str], left: dict[str, int], counts: Mapping[str, int], balance: Balance, most: int
) -> Iterator[tuple[str, Asked]]:
    """Up to `most` questions about one scene; takes them off `left`."""
    topics: set[Hashable] = set()
    kinds = [kind for kind in kinds if kind in left]
    while scene and kinds and len(topics) < most:
        # What is furthest behind goes first, so that all types run out together.
        kind = max(kinds, key=lambda k: left[k] / counts[k])
        twice = FAMILIES[kind] in "CD"  # the same audio with two answers makes a model heed the question
        for _ in range(2 if twice else 1):
            asked = MAKERS[kind](scene, topics, balance)
            if asked is not None:
                topics.add(asked.topic)
                left[kind] -= 1
                yield kind, asked
            if asked is None or not left[kind] or len(topics) == most:
                break
        if asked is None or not left[kind]:
            kinds.remove(kind)
        if not left[kind]:
            del left[kind]


# ---- one source ----------------------------------------------------------------------------------


def _classification(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    if "A" in topics:
        return None
    wording = balance.wording("A", templates.CLASSIFICATION)
    answer = write_labels(scene[0].names)
    return Asked("A", wording, answer, wording, {"labels": answer})


def _doa(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    spot = scene[0].spot
    if "B" in topics or not all(spot.clear):
        return None
    wording = balance.wording(("B", spot.words), templates.DOA)  # under each octant, so that no wording leans to one
    return Asked("B", wording, spot.doa, wording, _doa_aspects(spot))


def _doa_aspects(spot: Spot) -> dict[str, str]:
    return {"octant": ", ".join(spot.words), "distance": write_distance(spot.distance)}


# ---- one of two sources --------------------------------------------------------------------------


def _single_classification(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    first, second = (placed.spot for placed in scene)
    fit = [
        i for i, pair in enumerate(((first, second), (second, first))) if ("C", i) not in topics and fits_only(*pair)
    ]
    if not fit:
        return None
    target = _rarer_octant("C", scene, fit, balance)
    spot = scene[target].spot
    wording = balance.wording("C", templates.SINGLE_CLASSIFICATION)
    question = wording.format(
        direction=", ".join(spot.words),
        place=templates.place(spot.words),
        distance=templates.meters(spot.step),
    )
    answer = write_labels(scene[target].names)
    return Asked(("C", target), question, answer, wording, {"labels": answer})


def _single_doa(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    fit = [i for i, placed in enumerate(scene) if ("D", i) not in topics and all(placed.spot.clear)]
    if not fit:
        return None
    target = _rarer_octant("D", scene, fit, balance)
    spot = scene[target].spot
    wording = balance.wording(("D", spot.words), templates.SINGLE_DOA)
    question = wording.format(x=balance.name(scene[target]))
    return Asked(("D", target), question, spot.doa, wording, _doa_aspects(spot))


def _rarer_octant(family: str, scene: Placement, fit: Sequence[int], balance: Balance) -> int:
    target = min(fit, key=lambda i: balance.used[family, scene[i].spot.words])
    balance.count((family, scene[target].spot.words))
    return target


# ---- relations of two sources --------------------------------------------------------------------


def _direction(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    first, second = (placed.spot for placed in scene)
    answer = balance.rarest([("direction", True), ("direction", False)])[1]
    ways: dict[tuple[str, str], bool] = {}  # (form, word) → whether the first source must be X
    for axis, (more, less) in enumerate(SIDES):
        further = excess(first, second, axis)
        if further and ("beside", axis) not in topics:
            ways["beside", more], ways["beside", less] = (further > 0) == answer, (further < 0) == answer
        if first.clear[axis] and second.clear[axis] and ("both", axis) not in topics:
            for word in (more, less):
                there = (first.words[axis], second.words[axis]).count(word)
                # Of the answers No about "both", one in three has neither source there: two in three need both heard.
                if (there == 2) == answer and (there or 2 * balance.used["neither", word] < balance.used["one", word]):
                    ways["both", word] = balance.rng.random() < 0.5
    relation = _due(list(ways), answer, balance)
    if relation is None:
        return None
    form, word = relation
    axis = AXIS[word]
    balance.count(("direction", answer), (relation, answer))
    if form == "both" and not answer:
        balance.count(("neither" if first.words[axis] == second.words[axis] else "one", word))
    wordings, phrase = (
        (templates.DIRECTION_BOTH, templates.PLACES[word])
        if form == "both"
        else (templates.DIRECTION_BESIDE, templates.BESIDE[word])
    )
    return _yes_or_no(
        (form, axis), scene if ways[relation] else scene[::-1], relation, phrase, answer, wordings, balance
    )


def _distance_both(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    further = excess(scene[0].spot, scene[1].spot, 3)
    if not further or "distance" in topics:
        return None
    answer = balance.rarest([("distance", True), ("distance", False)])[1]
    word = _due(AXES[3], answer, balance)
    if word is None:
        return None
    balance.count(("distance", answer), (word, answer))
    pair = scene if (further == (1 if word == "far" else -1)) == answer else scene[::-1]
    return _yes_or_no("distance", pair, word, templates.BESIDE[word], answer, templates.DISTANCE_BOTH, balance)


def _due(relations: Sequence[T], answer: bool, balance: Balance) -> T | None:
    """Of the relations that do not have this answer more often than the other, the one that has it least."""
    used = balance.used
    fit = [relation for relation in relations if used[relation, answer] <= used[relation, not answer]]
    return min(fit, key=lambda relation: used[relation, answer] + balance.rng.random()) if fit else None


def _yes_or_no(
    topic: Hashable,
    pair: Placement,
    relation: Hashable,
    phrase: str,
    answer: bool,
    wordings: Sequence[str],
    balance: Balance,
) -> Asked:
    wording = balance.wording_twice(relation, wordings)
    text = write_yes_no(answer)
    return _about(topic, pair, wording, phrase, text, {"answer": text}, balance)


def _about(
    topic: Hashable,
    pair: Placement,
    wording: str,
    phrase: str,
    answer: str,
    aspects: Mapping[str, str],
    balance: Balance,
) -> Asked:
    x, y = (balance.name(placed) for placed in pair)
    question = wording.format(x=x, y=y, relation=phrase)
    return Asked(topic, question, answer, wording.replace("{relation}", phrase), aspects)


def _nonbinary_direction(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    further = excess(scene[0].spot, scene[1].spot, 0)
    if not further or "side" in topics:
        return None
    word = balance.rarest(AXES[0])
    balance.count(word)
    wording = balance.wording_twice("side", templates.NONBINARY_DIRECTION)
    pair = scene if (further > 0) == (word == "right") else scene[::-1]
    return _about("side", pair, wording, "", word, {"answer": word}, balance)


def _nonbinary_distance(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    metres = math.dist(scene[0].spot.place, scene[1].spot.place)
    if metres < MIN_APART or "apart" in topics:
        return None
    wording = balance.wording("apart", templates.NONBINARY_DISTANCE)
    answer = write_distance(metres)
    return _about("apart", scene, wording, "", answer, {"distance": answer}, balance)


def _nonbinary_source(scene: Placement, topics: set[Hashable], balance: Balance) -> Asked | None:
    first, second = (placed.spot for placed in scene)
    answers: dict[str, int] = {}  # word → which source it is
    for axis, (more, less) in enumerate(AXES):
        further = excess(first, second, axis)
        if further and ("which", axis) not in topics:
            answers[more], answers[less] = (0, 1) if further > 0 else (1, 0)
    if not answers:
        return None
    word = balance.rarest([("which", word) for word in answers])[1]
    named = balance.rarest([(word, "first"), (word, "second")])
    balance.count(("which", word), named)
    wording = balance.wording_twice(("which", word), templates.NONBINARY_SOURCE)
    right, wrong = (balance.name(scene[i]) for i in (answers[word], 1 - answers[word]))
    x, y = (right, wrong) if named[1] == "first" else (wrong, right)
    phrase = templates.EXTREMES[word]
    return Asked(
        ("which", AXIS[word]),
        wording.format(x=x, y=y, relation=phrase),
        write_labels([right]),
        wording.replace("{relation}", phrase),
        {"named": named[1]},
    )


MAKERS: dict[str, Callable[[Placement, set[Hashable], Balance], Asked | None]] = {
    "CLASSIFICATION": _classification,
    "DOA": _doa,
    "MIXUP_SINGLE_CLASSIFICATION": _single_classification,
    "MIXUP_SINGLE_DOA": _single_doa,
    "MIXUP_DIRECTION": _direction,
    "MIXUP_DISTANCE_BOTH": _distance_both,
    "MIXUP_NONBINARY_DIRECTION": _nonbinary_direction,
    "MIXUP_NONBINARY_DISTANCE": _nonbinary_distance,
    "MIXUP_NONBINARY_SOURCE": _nonbinary_source,
}
"""`question_type` → what makes a question of it, or None where the scene does not allow one."""
