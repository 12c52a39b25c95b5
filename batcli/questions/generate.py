"""Questions and their answers, from clips with labels and BRIRs with positions.

Balanced by design:

- Yes and No are even overall, for every relation that is asked ("to the left of", "both above", …)
  and for every wording of it; likewise "left" and "right", and whether the answer is the event
  named first or second. Which event is called X, and which Y, is chosen so that it comes out.
- Directions are even over the eight octants, and distances within an octant over the 0.5 m steps,
  as far as the BRIRs allow: none is drawn more than `MAX_REUSE` times as often as on average.
- Clips are dealt like cards: each is heard once before any is heard again.

Never ambiguous:

- A word of an answer, or one that a question relies on, needs a source at least `MARGINS` away from
  the plane that decides it.
- Two sources of a scene are in one room, `MIN_ANGLE` apart, and share no label; nor do labels meet
  of which one tends to come with the other (more than half of the clips with it have the other too, such as
  "guitar" and "music"), because a clip may hold what its labels leave out.
- "Left of", "above", … compare two sources: their coordinates and their angles must both differ, by
  `MIN_OFFSET` and `MIN_TURN`, in the same sense. Distances must differ by `MIN_STEP` and `MIN_RATIO`.

Sparing: rendering and encoding are paid for once per scene, so questions share scenes. A scene
with one source gets one A and one B, one with two sources `QUESTIONS_PER_SCENE` of types C, D and E,
none of which repeats another (C and D at most once for each of the two sources, a relation along the
same axis at most once per type).

The memory in use does not grow with the number of questions.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from batcli.core.catalogue import Clip, Label, Reverb
from batcli.core.errors import InputError
from batcli.core.geometry import Position, distance_between, great_circle, octant, offset, round_distance
from batcli.core.schema import FAMILIES, QUESTION_TYPES, Question, Source
from batcli.questions import templates
from batcli.questions.answers import write_distance, write_doa, write_labels, write_yes_no

QUESTIONS_PER_SCENE = 4  # with two sources
MAX_REUSE = 4.0  # no BRIR is drawn more often than this, relative to the average
MARGINS = (10.0, 10.0, 5.0)
"""Degrees between a source and the median, the frontal and the horizontal plane, for a word about it.
The last is smaller because a ceiling at 1.5 m above the ears is no higher than 9° at 10 m."""
MIN_ANGLE = 30.0  # degrees between two sources of a scene
MIN_OFFSET = 0.5  # metres along an axis, for "further to the left", …
MIN_TURN = 15.0  # degrees, likewise
MIN_STEP = 1.0  # metres between two distances that are compared
MIN_RATIO = 1.25  # likewise: nobody hears 9 m from 10 m
MIN_APART = 0.5  # metres between two sources whose distance is asked for
IMPLIES = 0.5  # share of the clips with one label that have another, above which the two never meet
MIN_CLIPS = 4  # clips with a label before its company counts
PATIENCE = 5_000  # scenes without a question before giving up

WORDS = (("right", "left"), ("front", "behind"), ("above", "below"))
"""Per axis: the words on its positive and on its negative side."""
RELEASED_SHARES = {"A": 139_392, "B": 139_392, "C": 118_000, "D": 118_000, "E": 357_528}
"""Questions per family in the released training set; those of E are split evenly over its five types."""

T = TypeVar("T")


class Spot(NamedTuple):
    """A BRIR as the questions see it."""

    reverb_id: str
    position: Position
    words: tuple[str, str, str]
    along: tuple[float, float, float]  # metres to the right, to the front, up
    angles: tuple[float, float, float]  # degrees from the plane of each axis, −90…90
    clear: tuple[bool, bool, bool]  # whether each word is beyond its margin


class Placed(NamedTuple):
    """One source of a scene."""

    clip: Clip
    names: tuple[str, ...]  # labels in lower case, in alphabetical order
    spot: Spot


class Asked(NamedTuple):
    """One question without its ids. `wording` and `summary` are for the statistics."""

    topic: str  # never twice in one scene
    question: str
    answer: str
    wording: str  # the question with the names left out
    summary: Mapping[str, str]  # aspect of the answer → its value, names left out


class Deck(Generic[T]):
    """Deals items like cards: in random order, all before any comes again."""

    def __init__(self, items: Sequence[T], rng: random.Random) -> None:
        self.items, self.rng, self.dealt = list(items), rng, len(items)

    def deal(self, wanted: Callable[[T], bool] | None = None, look_ahead: int = 64) -> T | None:
        """The next item, or the next that is wanted, which changes places with it; None if none is near."""
        if self.dealt >= len(self.items):
            self.rng.shuffle(self.items)
            self.dealt = 0
        items, first = self.items, self.dealt
        for at in range(first, min(first + look_ahead, len(items))) if wanted else (first,):
            if wanted is None or wanted(items[at]):
                items[first], items[at] = items[at], items[first]
                self.dealt += 1
                return items[first]
        return None

    def skip(self) -> None:
        self.dealt += 1


def shares_of(counts: Mapping[Any, int], total: float, cap: float) -> dict[Any, float]:
    """Split `total` as evenly as possible over the keys, none above `cap` per item that it has.

    >>> shares_of({"many": 90, "few": 10}, total=1.0, cap=0.02)
    {'few': 0.2, 'many': 0.8}
    """
    shares, left = {}, total
    for rank, key in enumerate(sorted(counts, key=lambda k: counts[k])):
        shares[key] = min(left / (len(counts) - rank), cap * counts[key])
        left -= shares[key]
    return shares


class Spots:
    """Deals BRIRs so that octants, and distances within each, come as evenly as the rooms allow."""

    def __init__(self, spots: Sequence[Spot], rng: random.Random) -> None:
        cells: dict[tuple[str, ...], dict[float, list[Spot]]] = defaultdict(lambda: defaultdict(list))
        for spot in spots:
            cells[spot.words][round_distance(spot.position.distance)].append(spot)
        cap = MAX_REUSE / len(spots)
        counts = {words: sum(map(len, steps.values())) for words, steps in cells.items()}
        self.rng = rng
        self.octants = shares_of(counts, 1.0, cap)
        self.steps = {
            words: shares_of({d: len(s) for d, s in cells[words].items()}, share, cap)
            for words, share in self.octants.items()
        }
        self.decks = {(w, d): Deck(spots, rng) for w, steps in cells.items() for d, spots in steps.items()}
        self.used: Counter[Any] = Counter()

    def deal(self) -> Spot:
        words = self._behind(self.octants, ())
        step = self._behind(self.steps[words], words)
        spot = self.decks[words, step].deal()
        assert spot is not None  # without a condition a deck always deals
        return spot

    def _behind(self, shares: Mapping[Any, float], prefix: tuple[str, ...]) -> Any:
        """The key that is furthest behind its share, ties broken at random."""
        used, rand = self.used, self.rng.random
        key = min(shares, key=lambda k: (used[prefix, k] + rand()) / shares[k])
        used[prefix, key] += 1
        return key


class Tally:
    """Counts what was asked and answered, for the report: how even it is, and what a wording gives away."""

    def __init__(self) -> None:
        self.types: Counter[str] = Counter()
        self.scenes: Counter[int] = Counter()  # by number of sources
        self.answers: dict[tuple[str, str], dict[str, Counter[str]]] = {}  # (type, aspect) → wording → answers

    def add(self, question_type: str, wording: str, summary: Mapping[str, str]) -> None:
        self.types[question_type] += 1
        for aspect, answer in summary.items():
            wordings = self.answers.setdefault((question_type, aspect), {})
            if wording not in wordings:
                wordings[wording] = Counter()
            wordings[wording][answer] += 1


def question_types(text: str) -> tuple[str, ...]:
    """`"A,MIXUP_DIRECTION"` → question types, in the published order. Raises InputError for unknown names."""
    wanted = set()
    for name in filter(None, (part.strip() for part in text.split(","))):
        found = [kind for kind, family in FAMILIES.items() if name.upper() in (family, kind)]
        if not found:
            known = "A, B, C, D, E or " + ", ".join(QUESTION_TYPES)
            raise InputError(f"unknown question type {name!r:.80}", "--types", f"known: {known}")
        wanted.update(found)
    if not wanted:
        raise InputError("no question types", "--types", "such as A,B,C,D,E")
    return tuple(kind for kind in QUESTION_TYPES if kind in wanted)


def counts_by_type(count: int, types: Sequence[str]) -> dict[str, int]:
    """Exactly `count` questions in the proportions of the released set (largest remainders)."""
    size = Counter(FAMILIES.values())
    weights = {kind: RELEASED_SHARES[FAMILIES[kind]] / size[FAMILIES[kind]] for kind in types}
    whole = sum(weights.values())
    exact = {kind: count * weight / whole for kind, weight in weights.items()}
    counts = {kind: math.floor(value) for kind, value in exact.items()}
    for kind in sorted(types, key=lambda k: counts[k] - exact[k])[: count - sum(counts.values())]:
        counts[kind] += 1
    return counts


def to_spot(reverb: Reverb) -> Spot:
    position = reverb.position
    x, y, z = offset(position)
    along = (x, -z, y)
    angles = tuple(math.degrees(math.asin(max(-1.0, min(1.0, a / position.distance)))) for a in along)
    clear = tuple(abs(angle) >= margin for angle, margin in zip(angles, MARGINS, strict=True))
    return Spot(reverb.reverb_id, position, tuple(octant(position)), along, angles, clear)  # type: ignore[arg-type]


def excess(first: Spot, second: Spot, axis: int) -> int:
    """+1 if `first` is clearly further along the axis than `second`, −1 if clearly less far, 0 if neither."""
    metres, degrees = first.along[axis] - second.along[axis], first.angles[axis] - second.angles[axis]
    if abs(metres) < MIN_OFFSET or abs(degrees) < MIN_TURN or (metres > 0) != (degrees > 0):
        return 0
    return 1 if metres > 0 else -1


def excess_distance(first: Spot, second: Spot) -> int:
    """+1 if `first` is clearly farther from the listener than `second`, −1 if clearly nearer, 0 if neither."""
    a, b = first.position.distance, second.position.distance
    if abs(a - b) < MIN_STEP or max(a, b) < MIN_RATIO * min(a, b):
        return 0
    return 1 if a > b else -1


def told_apart(target: Spot, other: Spot) -> bool:
    """Whether "from the right, front, above, about 2 m away" fits `target` and cannot mean `other`."""
    if not all(target.clear):
        return False
    differ = any(other.clear[axis] and target.words[axis] != other.words[axis] for axis in range(3))
    return differ or excess_distance(target, other) != 0


def companions(clips: Sequence[Clip]) -> dict[str, frozenset[str]]:
    """mid → mids that must not be in the other source of its scene: itself, and what it tends to come with."""
    alone: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for clip in clips:
        mids = set(clip.mids)
        alone.update(mids)
        together.update((a, b) for a in mids for b in mids if a != b)
    apart = {mid: {mid} for mid in alone}
    for (a, b), n in together.items():
        if alone[a] >= MIN_CLIPS and n > IMPLIES * alone[a]:
            apart[a].add(b)
            apart[b].add(a)
    return {mid: frozenset(others) for mid, others in apart.items()}


def generate(
    clips: Sequence[Clip],
    labels: Sequence[Label],
    reverbs: Mapping[str, Reverb],
    count: int,
    types: Sequence[str] = QUESTION_TYPES,
    seed: int = 0,
    tally: Tally | None = None,
) -> Iterator[Question]:
    """`count` questions of the given types; those about one scene follow one another.

    Labels that are not in `labels` are not spoken of, and clips that have no other are not heard.
    The same arguments give the same questions. `tally` counts them. Raises InputError when the
    clips or the BRIRs do not allow such questions.
    """
    return _Engine(clips, labels, reverbs, counts_by_type(count, types), seed).run(Tally() if tally is None else tally)


class _Engine:
    """The state of one run: what is still to be asked, and what was asked how often."""

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[Label],
        reverbs: Mapping[str, Reverb],
        counts: Mapping[str, int],
        seed: int,
    ) -> None:
        self.rng = random.Random(seed)
        self.total = {kind: n for kind, n in counts.items() if n}
        self.left = dict(self.total)
        self.used: Counter[Any] = Counter()  # how often each relation, answer, … was asked
        self.decks: dict[Any, Deck[str]] = {}  # wordings

        names = {label.mid: label.name.lower() for label in labels}
        self.names = {clip: tuple(sorted(names[mid] for mid in set(clip.mids) if mid in names)) for clip in clips}
        known = [clip for clip in clips if self.names[clip]]
        if not known:
            raise InputError("no clip has a label of the CSV", hint="are both about the same set of classes?")
        self.clips = Deck(known, self.rng)
        self.apart = companions(known)

        spots = [to_spot(reverb) for reverb in reverbs.values()]
        rooms: dict[str, list[Spot]] = defaultdict(list)
        for spot in spots:
            rooms[reverbs[spot.reverb_id].scene].append(spot)
        self.room_of = {spot.reverb_id: room for room in rooms.values() for spot in room}
        two = [spot for spot in spots if len(self.room_of[spot.reverb_id]) > 1]
        self.singles = self._spots(spots, "DOA" in self.total, "one-source questions")
        if any(FAMILIES[kind] in "CDE" for kind in self.total):
            words = any(FAMILIES[kind] in "CD" for kind in self.total)
            self.pairs = self._spots(two, words, "two-source questions")

        self.makers: dict[str, Callable[[tuple[Placed, ...], set[str]], Asked | None]] = {
            "CLASSIFICATION": self._classification,
            "DOA": self._doa,
            "MIXUP_SINGLE_CLASSIFICATION": self._single_classification,
            "MIXUP_SINGLE_DOA": self._single_doa,
            "MIXUP_DIRECTION": self._direction,
            "MIXUP_DISTANCE_BOTH": self._distance_both,
            "MIXUP_NONBINARY_DIRECTION": self._nonbinary_direction,
            "MIXUP_NONBINARY_DISTANCE": self._nonbinary_distance,
            "MIXUP_NONBINARY_SOURCE": self._nonbinary_source,
        }

    def _spots(self, spots: Sequence[Spot], words: bool, purpose: str) -> Spots:
        """`words`: only those whose three words are all clear."""
        fit = [spot for spot in spots if all(spot.clear)] if words else list(spots)
        if not fit:
            reason = "every source is too near to a plane between two words" if spots else "no room has two BRIRs"
            raise InputError(f"no BRIR serves {purpose}: {reason}", hint="make more with `bat prepare rooms`")
        return Spots(fit, self.rng)

    # ---- scenes ----------------------------------------------------------------------------------

    def run(self, tally: Tally) -> Iterator[Question]:
        number = idle = 0
        while self.left:
            kinds = [kind for kind in self.left if (FAMILIES[kind] in "AB") == self._one_source_next()]
            one = FAMILIES[kinds[0]] in "AB"
            scene = self._one_source() if one else self._two_sources()
            asked = 0
            topics: set[str] = set()
            while scene and kinds and asked < QUESTIONS_PER_SCENE:
                # The type that is furthest behind goes first, so that all run out together.
                kind = max(kinds, key=lambda k: self.left[k] / self.total[k])
                made = self.makers[kind](scene, topics)
                if made is None or one:
                    kinds.remove(kind)
                if made is None:
                    continue
                topics.add(made.topic)
                sources = tuple(Source(placed.clip.audio_id, placed.spot.reverb_id) for placed in scene)
                yield Question.of(sources, number, kind, made.question, made.answer)
                number, asked = number + 1, asked + 1
                tally.add(kind, made.wording, made.summary)
                self.left[kind] -= 1
                if not self.left[kind]:
                    del self.left[kind]
                    if kind in kinds:
                        kinds.remove(kind)
            if asked:
                tally.scenes[1 if one else 2] += 1
            idle = 0 if asked else idle + 1
            if idle > PATIENCE:
                raise InputError(
                    f"no scene allows another question of type {', '.join(self.left)}",
                    hint="give more BRIRs, or clips that differ more, or other --types",
                )

    def _one_source_next(self) -> bool:
        """Whether questions about one source are further behind than those about two."""

        def rest(families: str) -> float:
            kinds = [kind for kind in self.total if FAMILIES[kind] in families]
            total = sum(self.total[kind] for kind in kinds)
            return sum(self.left.get(kind, 0) for kind in kinds) / total if total else 0.0

        return rest("AB") > rest("CDE")

    def _place(self, clip: Clip, spot: Spot) -> Placed:
        return Placed(clip, self.names[clip], spot)

    def _one_source(self) -> tuple[Placed, ...]:
        clip = self.clips.deal()
        assert clip is not None
        return (self._place(clip, self.singles.deal()),)

    def _two_sources(self) -> tuple[Placed, ...]:
        """Two sources that can be told apart, or () where this room and these clips give none."""
        first = self.pairs.deal()
        second = self._partner(first)
        if second is None:
            return ()
        clip = self.clips.deal()
        assert clip is not None
        avoid = frozenset().union(*(self.apart[mid] for mid in clip.mids))
        other = self.clips.deal(lambda c: avoid.isdisjoint(c.mids))
        if other is None:
            self.clips.skip()
            return ()
        scene = [self._place(clip, first), self._place(other, second)]
        self.rng.shuffle(scene)
        return tuple(scene)

    def _partner(self, first: Spot) -> Spot | None:
        """Of a few sources in the room of `first`, the one whose distance from it was asked for least."""
        room = self.room_of[first.reverb_id]
        some = room if len(room) <= 6 else self.rng.sample(room, 6)
        best, least = None, math.inf
        for spot in some:
            if spot is first or great_circle(first.position, spot.position) < MIN_ANGLE:
                continue
            apart = round_distance(distance_between(first.position, spot.position))
            used = self.used["apart", apart] + self.rng.random()
            if used < least:
                best, least = spot, used
        return best

    # ---- wordings and evenness -------------------------------------------------------------------

    def _wording(self, key: Any, wordings: Sequence[str]) -> str:
        """The next wording of the deck `key`: its wordings come equally often."""
        if key not in self.decks:
            self.decks[key] = Deck(wordings, self.rng)
        wording = self.decks[key].deal()
        assert wording is not None
        return wording

    def _least(self, keys: Sequence[Any]) -> Any:
        """The key that was used least often, ties broken at random; it counts as used with `_use`."""
        return min(keys, key=lambda k: self.used[k] + self.rng.random())

    def _name(self, placed: Placed) -> str:
        """One of the source's labels: as the two sources share none, it means this one."""
        return self.rng.choice(placed.names)

    # ---- one source ------------------------------------------------------------------------------

    def _classification(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked:
        wording = self._wording("A", templates.CLASSIFICATION)
        answer = write_labels(scene[0].names)
        return Asked("A", wording, answer, wording, {"labels": answer})

    def _doa(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        spot = scene[0].spot
        if not all(spot.clear):
            return None
        wording = self._wording("B", templates.DOA)
        return Asked("B", wording, write_doa(spot.position), wording, _doa_summary(spot))

    # ---- two sources: facts about one ------------------------------------------------------------

    def _single_classification(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        fit = [i for i in (0, 1) if f"C{i}" not in topics and told_apart(scene[i].spot, scene[1 - i].spot)]
        if not fit:
            return None
        target = min(fit, key=lambda i: self.used["C", scene[i].spot.words])
        spot = scene[target].spot
        self.used["C", spot.words] += 1
        wording = self._wording("C", templates.SINGLE_CLASSIFICATION)
        question = wording.format(
            direction=", ".join(spot.words),
            place=templates.place(spot.words),
            distance=templates.meters(round_distance(spot.position.distance)),
        )
        answer = write_labels(scene[target].names)
        return Asked(f"C{target}", question, answer, wording, {"labels": answer})

    def _single_doa(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        fit = [i for i in (0, 1) if f"D{i}" not in topics and all(scene[i].spot.clear)]
        if not fit:
            return None
        target = min(fit, key=lambda i: self.used["D", scene[i].spot.words])
        spot = scene[target].spot
        self.used["D", spot.words] += 1
        wording = self._wording("D", templates.SINGLE_DOA)
        question = wording.format(x=self._name(scene[target]))
        return Asked(f"D{target}", question, write_doa(spot.position), wording, _doa_summary(spot))

    # ---- two sources: relations ------------------------------------------------------------------

    def _about(self, x: Placed, y: Placed, key: Any, wordings: Sequence[str], relation: str = "") -> tuple[str, str]:
        """(question, the same with the names left out) about X and Y."""
        wording = self._wording(key, wordings)
        asked = wording.format(x=self._name(x), y=self._name(y), relation=relation)
        return asked, wording.format(x="X", y="Y", relation=relation)

    def _yes_or_no(self, kind: str) -> bool:
        """The answer that `kind` had less often."""
        return self._least([(kind, True), (kind, False)])[1]

    def _even(self, relations: Sequence[Any], answer: bool) -> Any | None:
        """The relation least often asked with this answer, among those that do not have it too often already."""
        used = self.used
        fit = [r for r in relations if used[r, answer] <= used[r, not answer]]
        return min(fit, key=lambda r: used[r, answer] + self.rng.random()) if fit else None

    def _direction(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        kind = "MIXUP_DIRECTION"
        answer = self._yes_or_no(kind)
        first, second = scene[0].spot, scene[1].spot
        orders: dict[tuple[str, str], tuple[Placed, ...]] = {}
        for axis, words in enumerate(WORDS):
            further = excess(first, second, axis)
            if further and f"relative {axis}" not in topics:
                for word, sign in zip(words, (1, -1), strict=True):
                    orders["relative", word] = scene if (further == sign) == answer else scene[::-1]
            if first.clear[axis] and second.clear[axis] and f"both {axis}" not in topics:
                for word in words:
                    there = (first.words[axis] == word) + (second.words[axis] == word)
                    # Of the answers No, one in three is about two sources that are both elsewhere.
                    rare = there == 0 and 2 * self.used["neither", word] >= self.used["one", word]
                    if (there == 2) == answer and not rare:
                        orders["both", word] = scene if self.rng.random() < 0.5 else scene[::-1]
        relation = self._even(list(orders), answer)
        if relation is None:
            return None
        self.used[kind, answer] += 1
        self.used[relation, answer] += 1
        form, word = relation
        axis = next(i for i, words in enumerate(WORDS) if word in words)
        if form == "both" and not answer:
            self.used["one" if first.words[axis] != second.words[axis] else "neither", word] += 1
        x, y = orders[relation]
        both = form == "both"
        wordings = templates.DIRECTION_BOTH if both else templates.DIRECTION_RELATIVE
        phrase = (templates.PLACES if both else templates.BESIDE)[word]
        question, wording = self._about(x, y, (relation, answer), wordings, phrase)
        text = write_yes_no(answer)
        return Asked(f"{form} {axis}", question, text, wording, {"answer": text})

    def _distance_both(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        kind = "MIXUP_DISTANCE_BOTH"
        further = excess_distance(scene[0].spot, scene[1].spot)
        if not further or kind in topics:
            return None
        answer = self._yes_or_no(kind)
        relation = self._even(["far", "near"], answer)
        if relation is None:
            return None
        self.used[kind, answer] += 1
        self.used[relation, answer] += 1
        x, y = scene if (further == (1 if relation == "far" else -1)) == answer else scene[::-1]
        phrase = templates.BESIDE[relation]
        question, wording = self._about(x, y, (relation, answer), templates.DISTANCE_BOTH, phrase)
        text = write_yes_no(answer)
        return Asked(kind, question, text, wording, {"answer": text})

    def _nonbinary_direction(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        kind = "MIXUP_NONBINARY_DIRECTION"
        further = excess(scene[0].spot, scene[1].spot, 0)
        if not further or kind in topics:
            return None
        word = self._least([(kind, "right"), (kind, "left")])[1]
        self.used[kind, word] += 1
        x, y = scene if (further == 1) == (word == "right") else scene[::-1]
        question, wording = self._about(x, y, (kind, word), templates.NONBINARY_DIRECTION)
        return Asked(kind, question, word, wording, {"answer": word})

    def _nonbinary_distance(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        kind = "MIXUP_NONBINARY_DISTANCE"
        metres = distance_between(scene[0].spot.position, scene[1].spot.position)
        if metres < MIN_APART or kind in topics:
            return None
        self.used["apart", round_distance(metres)] += 1
        question, wording = self._about(scene[0], scene[1], kind, templates.NONBINARY_DISTANCE)
        answer = write_distance(metres)
        return Asked(kind, question, answer, wording, {"distance": answer})

    def _nonbinary_source(self, scene: tuple[Placed, ...], topics: set[str]) -> Asked | None:
        kind = "MIXUP_NONBINARY_SOURCE"
        first, second = scene[0].spot, scene[1].spot
        winners: dict[str, int] = {}
        for axis, words in enumerate((*WORDS, ("far", "near"))):
            further = excess(first, second, axis) if axis < 3 else excess_distance(first, second)
            if further and f"{kind} {axis}" not in topics:
                winners[words[0]], winners[words[1]] = (0, 1) if further == 1 else (1, 0)
        if not winners:
            return None
        word = self._least([(kind, word) for word in winners])[1]
        self.used[kind, word] += 1
        place = self._least([(kind, word, "first"), (kind, word, "second")])[2]
        self.used[kind, word, place] += 1
        winner = scene[winners[word]]
        loser = scene[1 - winners[word]]
        name, other = self._name(winner), self._name(loser)
        wording = self._wording((kind, word, place), templates.NONBINARY_SOURCE)
        x, y = (name, other) if place == "first" else (other, name)
        relation = templates.EXTREMES[word]
        axis = next((i for i, words in enumerate(WORDS) if word in words), 3)
        return Asked(
            f"{kind} {axis}",
            wording.format(x=x, y=y, relation=relation),
            write_labels([name]),
            wording.format(x="X", y="Y", relation=relation),
            {"named": place},
        )


def _doa_summary(spot: Spot) -> dict[str, str]:
    return {"direction": ", ".join(spot.words), "distance": write_distance(spot.position.distance)}
