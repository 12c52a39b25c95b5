"""Scenes to ask about: which clips sound where, so that answers are even and sources can be told apart.

- Octants come evenly, and distances in 0.5 m steps within each octant, as far as the BRIRs allow:
  none is drawn more than `MAX_REUSE` times as often as on average. The second source of a scene is
  the rarest of some in the room: by its octant, its distance, and its distance from the first.
- Clips are dealt like cards: each is heard once before any is heard again.
- Two sources of a scene are in one room, at least `MIN_ANGLE` apart, and share no label; nor do two
  labels meet of which one tends to bring the other along (`IMPLIES`), such as "guitar" and "music",
  because a clip may hold what its labels leave out.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from batcli.core.errors import InputError
from batcli.data.geometry import Vector, octant, offset, round_distance
from batcli.data.metadata import Clip, Label, Reverb
from batcli.data.schema import Source
from batcli.questions.answers import write_doa

MARGINS = (10.0, 10.0, 5.0)
"""Degrees between a source and the median, the frontal and the horizontal plane from which on a word
about it is beyond doubt. The last is smaller, or far sources could not be asked about: a ceiling
1.5 m above the ears is no more than 9° up at 10 m."""
MIN_ANGLE = 30.0  # degrees between two sources of a scene
COS_MIN_ANGLE = math.cos(math.radians(MIN_ANGLE))
MIN_OFFSET = 0.5  # metres along an axis between two sources that are compared along it
MIN_TURN = 15.0  # degrees towards that axis, likewise
MIN_STEP = 1.0  # metres between two distances that are compared
MIN_RATIO = 1.25  # likewise, because nobody hears 9 m from 10 m
MAX_REUSE = 4.0
IMPLIES = 0.5  # share of the clips with one label that have the other too, above which the two never meet
MIN_CLIPS = 4  # clips with a label before this share means anything
CANDIDATES = 6  # sources of a room among which the second of a scene is chosen
LOOK_AHEAD = 64  # clips among which the second of a scene is looked for

AXES = (("right", "left"), ("front", "behind"), ("above", "below"), ("far", "near"))
"""Words for more and for less: along the listener's three axes, and in distance."""
SIDES = AXES[:3]
AXIS = {word: axis for axis, words in enumerate(AXES) for word in words}

T = TypeVar("T")


class Spot(NamedTuple):
    """A BRIR as questions see it."""

    reverb_id: str
    place: Vector  # relative to the listener, metres
    direction: Vector  # the same as a unit vector
    distance: float  # metres
    step: float  # the same to the nearest 0.5 m
    words: tuple[str, str, str]
    clear: tuple[bool, bool, bool]  # whether each word is beyond doubt
    along: tuple[float, float, float]  # metres to the right, to the front, up
    angles: tuple[float, float, float]  # degrees from the plane of each axis, −90…90
    doa: str  # as an answer


class SourcePosition(NamedTuple):
    """One source of a scene."""

    source: Source
    names: tuple[str, ...]  # its labels, lower case, in alphabetical order
    spot: Spot


Placement = tuple[SourcePosition, ...]
"""Sources that sound together: one or two here; a third needs only more partners in `Stage.two`."""


class Deck(Generic[T]):
    """Deals items like cards: in random order, all before any comes again."""

    def __init__(self, items: Sequence[T], rng: random.Random) -> None:
        self.items, self.rng, self.dealt = list(items), rng, len(items)

    def deal(self) -> T:
        if self.dealt >= len(self.items):
            self.rng.shuffle(self.items)
            self.dealt = 0
        self.dealt += 1
        return self.items[self.dealt - 1]

    def deal_wanted(self, wanted: Callable[[T], bool]) -> T | None:
        """The next item that is wanted, before those that it jumps over; None if there is none nearby."""
        if self.dealt >= len(self.items):
            self.rng.shuffle(self.items)
            self.dealt = 0
        for at in range(self.dealt, min(self.dealt + LOOK_AHEAD, len(self.items))):
            if wanted(self.items[at]):
                self.items[self.dealt], self.items[at] = self.items[at], self.items[self.dealt]
                return self.deal()
        return None


def even_shares(counts: Mapping[T, int], total: float, cap: float) -> dict[T, float]:
    """Split `total` over the keys as evenly as possible, with no more than `cap` for each item of a key.

    >>> even_shares({"many": 90, "few": 10}, total=1.0, cap=0.02)
    {'few': 0.2, 'many': 0.8}
    """
    shares: dict[T, float] = {}
    for rank, key in enumerate(sorted(counts, key=lambda k: counts[k])):
        shares[key] = min(total / (len(counts) - rank), cap * counts[key])
        total -= shares[key]
    return shares


class SpotDealer:
    """Deals BRIRs so that octants, and distances within each, come as evenly as the BRIRs allow."""

    def __init__(self, spots: Sequence[Spot], rng: random.Random) -> None:
        cells: dict[tuple[str, ...], dict[float, list[Spot]]] = defaultdict(lambda: defaultdict(list))
        for spot in spots:
            cells[spot.words][spot.step].append(spot)
        cap = MAX_REUSE / len(spots)
        octants = even_shares({words: sum(map(len, steps.values())) for words, steps in cells.items()}, 1.0, cap)
        self.rng = rng
        self.octants = Quota(octants, rng)
        self.steps = {
            words: Quota(even_shares({step: len(cell) for step, cell in cells[words].items()}, share, cap), rng)
            for words, share in octants.items()
        }
        self.decks = {(w, step): Deck(cell, rng) for w, steps in cells.items() for step, cell in steps.items()}

    def deal(self) -> Spot:
        words = self.octants.deal()
        return self.decks[words, self.steps[words].deal()].deal()


class Quota(Generic[T]):
    """Deals keys in the proportion of their shares, not only on average but at every moment.

    The n-th turn of a key with the share s comes at a random time between n/s and (n + 1)/s.
    """

    def __init__(self, shares: Mapping[T, float], rng: random.Random) -> None:
        self.keys, self.shares, self.rng = list(shares), list(shares.values()), rng
        self.turns = [(rng.random() / share, key, 0) for key, share in enumerate(self.shares)]
        heapq.heapify(self.turns)

    def deal(self) -> T:
        _, key, turn = self.turns[0]
        heapq.heapreplace(self.turns, ((turn + 1 + self.rng.random()) / self.shares[key], key, turn + 1))
        return self.keys[key]


def to_spot(reverb: Reverb) -> Spot:
    distance, (x, y, z) = reverb.position.distance, offset(reverb.position)
    along = (x, -z, y)
    angles = tuple(math.degrees(math.asin(max(-1.0, min(1.0, a / distance)))) for a in along)
    return Spot(
        reverb.reverb_id,
        (x, y, z),
        (x / distance, y / distance, z / distance),
        distance,
        round_distance(distance),
        tuple(octant(reverb.position)),  # type: ignore[arg-type]
        tuple(abs(angle) >= margin for angle, margin in zip(angles, MARGINS, strict=True)),  # type: ignore[arg-type]
        along,
        angles,  # type: ignore[arg-type]
        write_doa(reverb.position),
    )


def excess(first: Spot, second: Spot, axis: int) -> int:
    """+1 if `first` is clearly further along the axis of `AXES`, −1 if clearly less far, 0 if it is doubtful.

    Along the three axes both readings of "further to the left" must agree: metres and degrees.
    """
    if axis == 3:
        a, b = first.distance, second.distance
        if abs(a - b) < MIN_STEP or max(a, b) < MIN_RATIO * min(a, b):
            return 0
        return 1 if a > b else -1
    metres, degrees = first.along[axis] - second.along[axis], first.angles[axis] - second.angles[axis]
    if abs(metres) < MIN_OFFSET or abs(degrees) < MIN_TURN or (metres > 0) != (degrees > 0):
        return 0
    return 1 if metres > 0 else -1


def fits_only(target: Spot, other: Spot) -> bool:
    """Whether "from the right, front, above, about 2 m away" fits `target` and cannot mean `other`."""
    elsewhere = any(other.clear[axis] and target.words[axis] != other.words[axis] for axis in range(3))
    return all(target.clear) and (elsewhere or excess(target, other, 3) != 0)


def keep_apart(clips: Sequence[Clip]) -> dict[str, frozenset[str]]:
    """mid → the mids that must not be in the other source of its scene: itself and its usual company."""
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


class Stage:
    """Puts clips into places.

    Labels that the CSV does not have are not spoken of, but they keep clips apart. Clips that have no
    other are not heard. Raises InputError where nothing is left.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        labels: Sequence[Label],
        reverbs: Mapping[str, Reverb],
        rng: random.Random,
    ) -> None:
        self.rng = rng
        name_of = {label.mid: label.name.lower() for label in labels}
        heard = [
            (clip.audio_id, frozenset(clip.mids), tuple(sorted(name_of[mid] for mid in set(clip.mids) & set(name_of))))
            for clip in clips
        ]
        known = [entry for entry in heard if entry[2]]
        if not known:
            raise InputError("no clip has a label of the CSV", hint="are --clips and --labels about the same classes?")
        self.clips = Deck(known, rng)
        self.apart = keep_apart(clips)
        self.spots = [to_spot(reverb) for reverb in reverbs.values()]
        rooms: dict[str, list[Spot]] = defaultdict(list)
        for spot in self.spots:
            rooms[reverbs[spot.reverb_id].scene].append(spot)
        self.room_of = {spot.reverb_id: room for room in rooms.values() for spot in room}
        self.dealers: dict[Hashable, SpotDealer] = {}
        self.used: tuple[Counter[Hashable], ...] = (Counter(), Counter(), Counter())

    def _dealer(self, sources: int, clear: bool) -> SpotDealer:
        if (sources, clear) not in self.dealers:
            spots = [spot for spot in self.spots if len(self.room_of[spot.reverb_id]) >= sources]
            if not spots:
                raise InputError("no room has two BRIRs", hint="make rooms with `bat prepare rooms --sources 4`")
            spots = [spot for spot in spots if all(spot.clear)] if clear else spots
            if not spots:
                raise InputError("every source is too near to a plane between two words", hint="give more BRIRs")
            self.dealers[sources, clear] = SpotDealer(spots, self.rng)
        return self.dealers[sources, clear]

    def one(self, clear: bool) -> Placement:
        """A scene with one source. `clear`: its three words are beyond doubt."""
        audio_id, _, names = self.clips.deal()
        spot = self._dealer(1, clear).deal()
        return (SourcePosition(Source(audio_id, spot.reverb_id), names, spot),)

    def two(self, clear: bool) -> Placement:
        """A scene with two sources, or () where this draw gives none. `clear`: one has clear words at least."""
        first = self._dealer(2, clear).deal()
        second = self._partner(first)
        if second is None:
            return ()
        one = self.clips.deal()
        avoid = frozenset().union(*(self.apart[mid] for mid in one[1]))
        other = self.clips.deal_wanted(lambda entry: avoid.isdisjoint(entry[1]))
        if other is None:
            return ()
        placed = [
            SourcePosition(Source(audio_id, spot.reverb_id), names, spot)
            for (audio_id, _, names), spot in ((one, first), (other, second))
        ]
        self.rng.shuffle(placed)
        return tuple(placed)

    def _partner(self, first: Spot) -> Spot | None:
        """Of some sources in the room of `first`, the rarest so far: by octant, distance, and distance from `first`."""
        room = self.room_of[first.reverb_id]
        some = room if len(room) <= CANDIDATES else self.rng.sample(room, CANDIDATES)
        x, y, z = first.direction
        octants, steps, gaps = self.used
        found: list[tuple[float, Spot, float]] = []
        for spot in some:
            u, v, w = spot.direction
            if x * u + y * v + z * w > COS_MIN_ANGLE:
                continue
            gap = round_distance(math.dist(first.place, spot.place))
            # Each count relative to the average over its values, so that the three weigh alike.
            rarity = octants[spot.words] * len(octants) + steps[spot.step] * len(steps) + gaps[gap] * len(gaps)
            found.append((rarity + self.rng.random(), spot, gap))
        if not found:
            return None
        _, spot, gap = min(found, key=itemgetter(0))
        octants[spot.words] += 1
        steps[spot.step] += 1
        gaps[gap] += 1
        return spot
