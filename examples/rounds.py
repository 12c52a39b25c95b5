"""The rounds of the QA game, without its page: rooms, scenes, what is asked, and who was right.

A round is a scene with one or two sounds, and what is asked about it. With one sound: what it is,
and where. With two, as in the published types C and D: what sounds at a named place, and where the
other one is, which is named. Person and model answer the same questions, for five points: the name,
left or right, front or behind, above or below, and the distance to within 0.5 m.
"""

from __future__ import annotations

import io
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import soundfile

from batcli.audio.convolve import prepare, render
from batcli.audio.hrtf import Hrtf, load_hrtf
from batcli.audio.io import read_clip
from batcli.audio.rooms import ListenerPose, Room, draw_room, simulate, to_room
from batcli.core.errors import InputError
from batcli.data.answers import Doa, Vocabulary, read_doa, read_labels, write_labels
from batcli.data.dataset import Dataset
from batcli.data.geometry import Position, Vector, locate, offset, round_distance
from batcli.data.metadata import Clip, Reverb
from batcli.data.question_types import PUBLISHED_TYPES, is_distance_wrong
from batcli.data.schema import Source
from batcli.questions import templates
from batcli.questions.generate import MAKERS, Balancer
from batcli.questions.scenes import (
    COS_MIN_ANGLE,
    Placement,
    SourcePosition,
    incompatible_labels,
    is_unambiguous,
    location_of,
)

SAMPLE_RATE = 32_000
PLAY_GAIN = 0.2  # the same for all scenes: loudness tells distance, and no peak of a near sound is clipped
FROM_WALL = 0.2  # m, a source, as in `batcli.audio.rooms`
NEAREST, FARTHEST = 0.5, 4.0  # m, a source: what the quickstart trains on
TRIES = 10_000  # draws after which a room has no place for a scene
POINTS = ("what", "side", "depth", "height", "distance")


@dataclass(frozen=True)
class Hall:
    """A room to play in; the listener faces its −z wall."""

    name: str
    size: Vector  # width, height, length in metres
    listener: Vector  # the head, off the middle: a real one stands nowhere symmetrical
    rt60: float  # seconds

    @cached_property
    def room(self) -> Room:
        return draw_room(np.random.default_rng(0), self.size, (self.rt60, self.rt60))

    def holds(self, place: Vector) -> bool:
        """Whether a source can be at `place`, metres from the head in the listener's axes."""
        spot = to_room(np.array(place), ListenerPose(self.listener))
        inside = all(FROM_WALL <= p <= side - FROM_WALL for p, side in zip(spot, self.size, strict=True))
        return inside and math.hypot(*place) >= NEAREST - 1e-6

    def to_dict(self) -> dict[str, Any]:
        """For the plan: where the walls are, metres from the head: left, right, front, back, floor, ceiling."""
        (width, height, length), (x, y, z) = self.size, self.listener
        walls = {"left": -x, "right": width - x, "front": -z, "back": length - z, "floor": -y, "ceiling": height - y}
        return {"name": self.name, "rt60": self.rt60, "size": self.size, "walls": walls, "margin": FROM_WALL}


HALLS = (
    Hall("Living room", (6.0, 2.7, 5.4), (3.15, 1.35, 2.85), 0.3),
    Hall("Study", (3.8, 2.5, 3.4), (2.0, 1.25, 1.6), 0.2),
    Hall("Studio", (6.6, 3.1, 6.4), (3.2, 1.5, 3.35), 0.24),
)


# ---- what can sound, and where ---------------------------------------------------------------------


@dataclass(frozen=True)
class Stock:
    """Clips to play with, and the names of what they hold."""

    dataset: Dataset
    clips: tuple[Clip, ...]
    names: Mapping[str, str]  # mid → name, lower case
    by_label: Mapping[str, tuple[Clip, ...]]
    apart: Mapping[str, frozenset[str]]  # mid → the mids that must not sound with it

    @property
    def labels(self) -> list[str]:
        return sorted(self.by_label)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.names.values())

    def names_of(self, clip: Clip) -> tuple[str, ...]:
        return tuple(sorted(self.names[mid] for mid in set(clip.mids) if mid in self.names))

    def can_meet(self, one: Clip, other: Clip) -> bool:
        """Whether two clips can be told apart by their labels."""
        avoid = frozenset().union(*(self.apart[mid] for mid in one.mids))
        return avoid.isdisjoint(other.mids)


def open_stock(dataset: Dataset, split: str) -> Stock:
    """The clips of a split. Raises InputError where there are none with a known label."""
    names = {label.mid: label.name.lower() for label in dataset.labels}
    clips = tuple(clip for clip in dataset.clips(split) if set(clip.mids) & set(names))
    if not clips:
        raise InputError("no clip has a label of the CSV", dataset.root)
    by_label: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        for mid in set(clip.mids) & set(names):
            by_label[names[mid]].append(clip)
    grouped = {name: tuple(found) for name, found in by_label.items()}
    return Stock(dataset, clips, names, grouped, incompatible_labels(clips))


def put(stock: Stock, clip: Clip, place: Vector, number: int) -> SourcePosition:
    """A clip at `place`, metres from the head in the listener's axes (x right, y up, −z front)."""
    reverb = Reverb(f"{number}.npy", locate((0.0, 0.0, 0.0), place), place, {})
    return SourcePosition(Source(clip.audio_id, reverb.reverb_id), stock.names_of(clip), location_of(reverb))


def draw_placement(rng: random.Random, stock: Stock, hall: Hall, count: int) -> Placement:
    """`count` sounds (1 or 2) that can be told apart, each clearly left or right, front or behind, above or below.

    Distances come as evenly as the room allows, directions evenly in azimuth.
    """
    for _ in range(TRIES):
        clips = [rng.choice(stock.clips) for _ in range(count)]
        if count == 2 and not stock.can_meet(*clips):
            continue
        placement = tuple(put(stock, clip, _draw_place(rng, hall), number) for number, clip in enumerate(clips))
        if not all(all(placed.location.clear) for placed in placement):
            continue
        if count == 1 or (is_apart(placement) and any(is_unambiguous(*pair) for pair in _both_ways(placement))):
            return placement
    raise InputError(f"no place for {count} sounds", hall.name)


def _draw_place(rng: random.Random, hall: Hall) -> Vector:
    while True:
        distance = rng.uniform(NEAREST, FARTHEST)
        for _ in range(50):
            x, y, z = offset(Position(rng.uniform(0, 360), rng.uniform(-60, 60), distance))
            place = round(x, 2), round(y, 2), round(z, 2)
            if hall.holds(place):
                return place


def is_apart(placement: Placement) -> bool:
    """Whether the two directions differ by 30°, as in the questions that the model has learnt."""
    one, other = (placed.location.direction for placed in placement)
    return sum(a * b for a, b in zip(one, other, strict=True)) <= COS_MIN_ANGLE


def place_by_hand(stock: Stock, hall: Hall, wanted: Sequence[tuple[str, Vector]], rng: random.Random) -> Placement:
    """(label, place) of one or two sounds → a placement. Raises InputError for what cannot sound so."""
    if not 1 <= len(wanted) <= 2:
        raise InputError(f"{len(wanted)} sounds", hint="place one or two")
    clips: list[Clip] = []
    for number, (label, place) in enumerate(wanted):
        if label not in stock.by_label:
            raise InputError(f"no sound named {label!r:.60}", hint="choose one of the list")
        if not all(math.isfinite(part) for part in place) or not hall.holds(place):
            raise InputError(
                f"Sound {number + 1} stands outside the room or within {NEAREST} m of the head", hint="move it"
            )
        fit = [clip for clip in stock.by_label[label] if all(stock.can_meet(clip, other) for other in clips)]
        if not fit:
            raise InputError(f"{label!r:.60} cannot be told apart from the other sound", hint="choose another sound")
        clips.append(rng.choice(fit))
    return tuple(put(stock, clip, place, i) for i, (clip, (_, place)) in enumerate(zip(clips, wanted, strict=True)))


def render_placement(
    stock: Stock, hall: Hall, placement: Placement, seconds: float, hrtf: Hrtf | None = None
) -> np.ndarray:
    """What the two ears hear: float32 (2, seconds · 32,000)."""
    length = round(seconds * SAMPLE_RATE)
    rng = np.random.default_rng(0)
    places = [placed.location.offset for placed in placement]
    brirs = simulate(hall.room, ListenerPose(hall.listener), places, hrtf or load_hrtf("kemar"), rng)
    clips = [read_clip(stock.dataset.audio_path(placed.source.audio_id)) for placed in placement]
    filters = [prepare(brir.samples, length) for brir in brirs]
    return render(list(zip(clips, filters, strict=True)), length)


def to_wav(audio: np.ndarray, gain: float = PLAY_GAIN) -> bytes:
    """(2, n) at 32 kHz → a WAV of 16 bits, which every browser plays."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(gain * audio, -1, 1).T, SAMPLE_RATE, subtype="PCM_16", format="WAV")
    return file.getvalue()


# ---- what is asked ---------------------------------------------------------------------------------


class Asked(NamedTuple):
    kind: str  # question type
    question: str
    answer: str


@dataclass(frozen=True)
class Challenge:
    """Two questions about a placement. `what` is None where no place belongs to one sound alone."""

    what: Asked | None
    where: Asked
    named: SourcePosition  # the sound that `what` asks for
    located: SourcePosition  # the sound that `where` asks for

    @property
    def questions(self) -> list[str]:
        return [asked.question for asked in (self.what, self.where) if asked is not None]


def challenge(placement: Placement, rng: random.Random) -> Challenge:
    if len(placement) == 1:
        placed = placement[0]
        what = Asked("CLASSIFICATION", rng.choice(templates.CLASSIFICATION), write_labels(placed.names))
        return Challenge(what, Asked("DOA", rng.choice(templates.DOA), placed.location.doa), placed, placed)
    pairs = _both_ways(placement)
    fit = [i for i, pair in enumerate(pairs) if is_unambiguous(*pair)]
    number = rng.choice(fit) if fit else 0
    named, located = placement[number], placement[1 - number]
    location = named.location
    wording = rng.choice(templates.SINGLE_CLASSIFICATION)
    question = templates.fill_place(wording, location.words, location.rounded)
    what = Asked("MIXUP_SINGLE_CLASSIFICATION", question, write_labels(named.names)) if fit else None
    where = rng.choice(templates.SINGLE_DOA).format(x=rng.choice(located.names))
    return Challenge(what, Asked("MIXUP_SINGLE_DOA", where, located.location.doa), named, located)


def _both_ways(placement: Placement) -> list[tuple[Any, Any]]:
    first, second = (placed.location for placed in placement)
    return [(first, second), (second, first)]


def more_questions(placement: Placement, rng: random.Random) -> list[Asked]:
    """One question of each published type that this placement allows, with its answer."""
    balancer = Balancer(rng)
    kinds = [kind.name for kind in PUBLISHED_TYPES.values() if kind.sources == len(placement)]
    found = [(kind, MAKERS[kind].make(placement, set(), balancer)) for kind in kinds]
    return [Asked(kind, asked.question, asked.answer) for kind, asked in found if asked is not None]


# ---- who was right ---------------------------------------------------------------------------------


class Said(NamedTuple):
    """An answer to a challenge, a person's or the model's."""

    names: frozenset[str]
    doa: Doa

    def to_dict(self) -> dict[str, Any]:
        return {"what": write_labels(sorted(self.names)) or None, **self.doa._asdict()}


def read_answers(stock: Stock, what: str | None, where: str) -> Said:
    """The model's texts."""
    numbers = read_labels(what, stock.vocabulary) if what is not None else ()
    return Said(frozenset(stock.vocabulary.names[number] for number in numbers), read_doa(where))


def truth(asked: Challenge) -> Said:
    location = asked.located.location
    return Said(frozenset(asked.named.names), Doa(*location.words, location.rounded))


def mark(said: Said, asked: Challenge) -> dict[str, bool | None]:
    """Right or wrong for each of POINTS; None for what was not asked, or what no ear could tell.

    A name is right when it is one of the sound's labels and nothing else is said; a distance when it
    is off by no more than 0.5 m, as in the published DER.
    """
    location = asked.located.location
    metres = None if said.doa.distance is None else round_distance(said.doa.distance)
    marks: dict[str, bool | None] = {
        "what": None if asked.what is None else bool(said.names) and said.names <= set(asked.named.names)
    }
    for name, word, right, clear in zip(POINTS[1:4], said.doa[:3], location.words, location.clear, strict=True):
        marks[name] = word == right if clear else None
    marks["distance"] = not is_distance_wrong(metres, location.rounded)
    return marks


@dataclass(frozen=True)
class Match:
    """The running score, in points."""

    rounds: int = 0
    possible: int = 0
    you: int = 0
    model: int = 0

    def after(self, you: Mapping[str, bool | None], model: Mapping[str, bool | None]) -> Match:
        """With one more round in it."""
        possible = sum(right is not None for right in model.values())
        mine, its = (sum(right is True for right in marks.values()) for marks in (you, model))
        return Match(self.rounds + 1, self.possible + possible, self.you + mine, self.model + its)
