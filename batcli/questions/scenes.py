"""Scenes to ask about: clips and locations, drawn so that answers are balanced and sources can be told apart.

- Octants are drawn evenly, and distances in 0.5 m steps within each octant, as far as the BRIRs allow:
  none is drawn more than `MAX_REUSE` times as often as on average. The second source of a scene is
  the rarest of some in the room: by its octant, its distance, and its distance from the first.
- Clips are drawn in random order, each once before any again.
- Two sources of a scene are in one room, at least `MIN_ANGLE` apart, and share no label. Nor do they have
  two labels of which one usually implies the other (`IMPLIES`), such as "guitar" and "music", because a
  clip's labels may be incomplete.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Generic, Literal, NamedTuple, TypeVar

from batcli.core.errors import InputError
from batcli.data.answers import write_distance
from batcli.data.geometry import Vector, octant, offset, round_distance
from batcli.data.metadata import Clip, Label, Reverb
from batcli.data.schema import Source

MARGINS = (10.0, 10.0, 5.0)
"""Degrees between a source and the median, the frontal and the horizontal plane from which on its
direction word is clear. The last is smaller, or far sources could not be asked about: a ceiling 1.5 m
above the ears is no more than 9° up at 10 m."""
MIN_ANGLE = 30.0  # degrees between two sources of a scene
COS_MIN_ANGLE = math.cos(math.radians(MIN_ANGLE))
MIN_OFFSET = 0.5  # metres along an axis between two sources that are compared along it
MIN_TURN = 15.0  # degrees towards that axis between the same two
MIN_STEP = 1.0  # metres between two distances that are compared
MIN_RATIO = 1.25  # between the same two, because nobody can tell 9 m from 10 m
MAX_REUSE = 4.0  # draws of a BRIR, relative to the mean of all
IMPLIES = 0.5  # share of the clips with one label that have the other too, above which a scene never has both
MIN_CLIPS = 4  # clips with a label before this share means anything
CANDIDATES = 6  # locations of a room among which the second of a scene is chosen
LOOK_AHEAD = 64  # clips among which the second of a scene is chosen

AXES = (("right", "left"), ("front", "behind"), ("above", "below"), ("far", "near"))
"""Words for more and for less: along the listener's three axes, and in distance."""
DISTANCE = 3  # its place in `AXES`
AXIS_OF = {word: axis for axis, words in enumerate(AXES) for word in words}

T = TypeVar("T")


class Location(NamedTuple):
    """The position of a BRIR's source relative to the listener."""

    reverb_id: str
    offset: Vector  # metres
    direction: Vector  # the same as a unit vector
    distance: float  # metres
    rounded: float  # distance to the nearest 0.5 m
    words: tuple[str, str, str]  # of its octant: `right, behind, above`
    clear: tuple[bool, bool, bool]  # whether each word holds beyond doubt: |angle| is at least its `MARGINS`
    along: tuple[float, float, float]  # metres to the right, to the front, up
    angles: tuple[float, float, float]  # degrees from the plane of each axis, −90…90
    doa: str  # as an answer, with the clear words alone where `plane`

    @property
    def plane(self) -> bool:
        """Whether the source is too near to one or two of the planes to be asked about on all axes."""
        return any(self.clear) and not all(self.clear)

    @property
    def clear_words(self) -> tuple[str, ...]:
        """The words that hold beyond doubt."""
        return tuple(word for word, clear in zip(self.words, self.clear, strict=True) if clear)


class SourcePosition(NamedTuple):
    """One source of a scene."""

    source: Source
    names: tuple[str, ...]  # its labels, lower case, in alphabetical order
    location: Location


Placement = tuple[SourcePosition, ...]
"""The sources of a scene, one or two."""

Clear = Literal["all", "plane", "any"]
"""Which direction words of a source must hold beyond doubt: all three, one or two of them, or no matter which."""


class ShuffledCycle(Generic[T]):
    """Draws items in random order, each once before any again."""

    def __init__(self, items: Sequence[T], rng: random.Random) -> None:
        self.items, self.rng, self.drawn = list(items), rng, len(items)

    def draw(self) -> T:
        self._shuffle_if_done()
        self.drawn += 1
        return self.items[self.drawn - 1]

    def draw_where(self, condition: Callable[[T], bool]) -> T | None:
        """Draw the next item that meets the condition, without passing over others; None if the next few do not."""
        self._shuffle_if_done()
        for at in range(self.drawn, min(self.drawn + LOOK_AHEAD, len(self.items))):
            if condition(self.items[at]):
                self.items[self.drawn], self.items[at] = self.items[at], self.items[self.drawn]
                return self.draw()
        return None

    def _shuffle_if_done(self) -> None:
        if self.drawn >= len(self.items):
            self.rng.shuffle(self.items)
            self.drawn = 0


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


class ProportionalSampler(Generic[T]):
    """Draws keys in proportion to their shares, which holds at every moment and not only on average.

    The n-th draw of a key with the share s comes at a random time between n/s and (n + 1)/s.
    """

    def __init__(self, shares: Mapping[T, float], rng: random.Random) -> None:
        self.keys, self.shares, self.rng = list(shares), list(shares.values()), rng
        self.times = [(rng.random() / share, key, 0) for key, share in enumerate(self.shares)]
        heapq.heapify(self.times)

    def draw(self) -> T:
        _, key, count = self.times[0]
        heapq.heapreplace(self.times, ((count + 1 + self.rng.random()) / self.shares[key], key, count + 1))
        return self.keys[key]


class LocationSampler:
    """Draws locations so that octants, and distances within each, are as even as the BRIRs allow."""

    def __init__(self, locations: Sequence[Location], rng: random.Random) -> None:
        cells: dict[tuple[str, ...], dict[float, list[Location]]] = defaultdict(lambda: defaultdict(list))
        for location in locations:
            cells[location.words][location.rounded].append(location)
        cap = MAX_REUSE / len(locations)
        octants = even_shares({words: sum(map(len, found.values())) for words, found in cells.items()}, 1.0, cap)
        self.octants = ProportionalSampler(octants, rng)
        self.distances = {
            words: ProportionalSampler(even_shares({d: len(cell) for d, cell in cells[words].items()}, share, cap), rng)
            for words, share in octants.items()
        }
        self.cells = {(w, d): ShuffledCycle(cell, rng) for w, found in cells.items() for d, cell in found.items()}

    def draw(self) -> Location:
        words = self.octants.draw()
        return self.cells[words, self.distances[words].draw()].draw()


def location_of(reverb: Reverb) -> Location:
    """The location of a BRIR, from its metadata."""
    distance, (x, y, z) = reverb.position.distance, offset(reverb.position)
    along = (x, -z, y)
    angles = tuple(math.degrees(math.asin(max(-1.0, min(1.0, a / distance)))) for a in along)
    words = tuple(octant(reverb.position))
    clear = tuple(abs(angle) >= margin for angle, margin in zip(angles, MARGINS, strict=True))
    asked = [word for word, known in zip(words, clear, strict=True) if known]
    return Location(
        reverb.reverb_id,
        (x, y, z),
        (x / distance, y / distance, z / distance),
        distance,
        round_distance(distance),
        words,  # type: ignore[arg-type]
        clear,  # type: ignore[arg-type]
        along,
        angles,  # type: ignore[arg-type]
        f"{', '.join(asked or words)}; {write_distance(distance)}",
    )


def compare(first: Location, second: Location, axis: int) -> int:
    """Compare along an axis of `AXES`: +1 if `first` is clearly further, −1 if clearly less far, 0 if neither.

    Along the three axes both readings of "further to the left" must agree: metres and degrees.
    """
    if axis == DISTANCE:
        a, b = first.distance, second.distance
        if abs(a - b) < MIN_STEP or max(a, b) < MIN_RATIO * min(a, b):
            return 0
        return 1 if a > b else -1
    metres, degrees = first.along[axis] - second.along[axis], first.angles[axis] - second.angles[axis]
    if abs(metres) < MIN_OFFSET or abs(degrees) < MIN_TURN or (metres > 0) != (degrees > 0):
        return 0
    return 1 if metres > 0 else -1


def all_on_planes(reverbs: Iterable[Reverb]) -> bool:
    """Whether no source can be asked about on all axes, as in sets that were measured without heights."""
    return not any(all(location_of(reverb).clear) for reverb in reverbs)


def is_askable(location: Location, plane: bool) -> bool:
    """Whether a place can be asked about on all axes; for `plane`: on some of them."""
    return location.plane if plane else all(location.clear)


def is_unambiguous(target: Location, other: Location, plane: bool = False) -> bool:
    """Whether a description such as "right, front, above, about 2 m away" fits `target` and cannot mean `other`.

    `plane`: the description names the clear words alone.
    """
    elsewhere = any(
        target.clear[axis] and other.clear[axis] and target.words[axis] != other.words[axis] for axis in range(3)
    )
    return is_askable(target, plane) and (elsewhere or compare(target, other, DISTANCE) != 0)


def incompatible_labels(clips: Sequence[Clip]) -> dict[str, frozenset[str]]:
    """For each mid, those that the other source of a scene must not have: itself and what usually comes with it."""
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


class SceneSampler:
    """Draws clips and their locations.

    Labels that are not in the CSV appear in no question, but they count as labels that two sources must not
    share. Clips without any label of the CSV are left out. Raises InputError where nothing is left.
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
        entries = [
            (clip.audio_id, frozenset(clip.mids), tuple(sorted(name_of[mid] for mid in set(clip.mids) & set(name_of))))
            for clip in clips
        ]
        known = [entry for entry in entries if entry[2]]
        if not known:
            raise InputError("no clip has a label of the CSV", hint="are --clips and --labels about the same classes?")
        self.clips = ShuffledCycle(known, rng)
        self.incompatible = incompatible_labels(clips)
        self.locations = [location_of(reverb) for reverb in reverbs.values()]
        rooms: dict[str, list[Location]] = defaultdict(list)
        for location in self.locations:
            rooms[reverbs[location.reverb_id].scene].append(location)
        self.room_of = {location.reverb_id: room for room in rooms.values() for location in room}
        self.samplers: dict[Hashable, LocationSampler] = {}
        self.used: tuple[Counter[Hashable], ...] = (Counter(), Counter(), Counter())

    def _sampler(self, sources: int, clear: Clear) -> LocationSampler:
        if (sources, clear) not in self.samplers:
            found = [location for location in self.locations if len(self.room_of[location.reverb_id]) >= sources]
            if not found:
                raise InputError("no room has two BRIRs", hint="make rooms with `bat prepare rooms --sources 4`")
            if clear != "any":
                found = [location for location in found if is_askable(location, clear == "plane")]
            if not found and clear == "plane":
                raise InputError("no source is near to one or two planes between two words", hint="ask other --types")
            if not found:
                hint = "give more BRIRs, or ask DOA_PLANE and the like"
                raise InputError("every source is too near to a plane between two words", hint=hint)
            self.samplers[sources, clear] = LocationSampler(found, self.rng)
        return self.samplers[sources, clear]

    def one(self, clear: Clear) -> Placement:
        """Draw a scene with one source, whose words are `clear`."""
        audio_id, _, names = self.clips.draw()
        location = self._sampler(1, clear).draw()
        return (SourcePosition(Source(audio_id, location.reverb_id), names, location),)

    def two(self, clear: Clear) -> Placement:
        """Draw a scene with two sources, the words of one of which are `clear`; or () where the draw fails."""
        first = self._sampler(2, clear).draw()
        second = self._second(first)
        if second is None:
            return ()
        one = self.clips.draw()
        avoid = frozenset().union(*(self.incompatible[mid] for mid in one[1]))
        other = self.clips.draw_where(lambda entry: avoid.isdisjoint(entry[1]))
        if other is None:
            return ()
        placed = [
            SourcePosition(Source(audio_id, location.reverb_id), names, location)
            for (audio_id, _, names), location in ((one, first), (other, second))
        ]
        self.rng.shuffle(placed)
        return tuple(placed)

    def _second(self, first: Location) -> Location | None:
        """The location in the room of `first` that is rarest so far, by octant, distance, and distance from `first`."""
        room = self.room_of[first.reverb_id]
        some = room if len(room) <= CANDIDATES else self.rng.sample(room, CANDIDATES)
        x, y, z = first.direction
        octants, distances, gaps = self.used
        found: list[tuple[float, Location, float]] = []
        for location in some:
            u, v, w = location.direction
            if x * u + y * v + z * w > COS_MIN_ANGLE:
                continue
            gap = round_distance(math.dist(first.offset, location.offset))
            # Each count relative to the average over its values, so that the three weigh alike.
            rarity = (
                octants[location.words] * len(octants)
                + distances[location.rounded] * len(distances)
                + gaps[gap] * len(gaps)
            )
            found.append((rarity + self.rng.random(), location, gap))
        if not found:
            return None
        _, location, gap = min(found, key=itemgetter(0))
        octants[location.words] += 1
        distances[location.rounded] += 1
        gaps[gap] += 1
        return location
