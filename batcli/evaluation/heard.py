"""Files of `bat decode --encoder`: what encoders hear of scenes, as columns that can be scored.

Which place answers for which source: a scene of one source has the likeliest place, whatever its name. Of two
sources each has the likeliest place with one of its labels, else the likeliest that no other source has by name;
an encoder that gives one place answers with that for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from batcli.core.errors import InputError
from batcli.core.progress import Reporter
from batcli.core.records import read_records
from batcli.evaluation.metrics import CLASSES_PER_METRE, great_circle
from batcli.evaluation.predictions import File, hash_of, looks_published

SCENE_FIELDS = ("audio_id", "reverb_id", "audio_id2", "reverb_id2")


class Place(NamedTuple):
    """A place heard, or the true place of a source."""

    events: frozenset[int]  # of a place heard, none or one
    azimuth: float  # degrees
    elevation: float
    distance: float  # metres


NOWHERE = Place(frozenset(), math.nan, math.nan, math.nan)


class SceneRecord(NamedTuple):
    """A line of the file, checked."""

    scene: tuple[str, ...]  # ids of clips and BRIRs
    truth: list[Place]  # source by source
    true_names: bool
    heard: dict[str, tuple[np.ndarray, list[Place]]] | None  # encoder → scores and places; None: no result


@dataclass(frozen=True)
class HeardScenes:
    """What one encoder heard of n scenes, as columns; m sources in all."""

    name: str
    keys: np.ndarray  # (n,) uint64: hash of the scene
    clusters: np.ndarray  # (n,) uint64: hash of what a bootstrap draws together
    counts: np.ndarray  # (n,) sources
    scores: np.ndarray  # (n, classes) float32, NaN where there is no result
    targets: list[frozenset[int]]  # (n,) true events
    scene_of: np.ndarray  # (m,) row of each source's scene
    angle: np.ndarray  # (m,) error of the direction, degrees; NaN where there is no result
    classes_off: np.ndarray  # (m,) error of the distance, in classes; NaN likewise
    named: np.ndarray | None  # (m,) whether a place has the source's name; None: places have no names, or true ones
    looks_published: int  # scenes of AudioSet evaluation clips in Matterport3D rooms

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, rows: np.ndarray) -> HeardScenes:
        """The scenes of some rows, in that order."""
        at = [np.flatnonzero(self.scene_of == row) for row in rows.tolist()]
        sources = np.concatenate([np.empty(0, dtype=int), *at])
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ("keys", "clusters", "counts", "scores")},
            targets=[self.targets[row] for row in rows.tolist()],
            scene_of=np.repeat(np.arange(len(rows)), [len(each) for each in at]),
            angle=self.angle[sources],
            classes_off=self.classes_off[sources],
            named=None if self.named is None else self.named[sources],
        )


# ---- reading -------------------------------------------------------------------------------------


def is_heard(file: File) -> bool:
    """Whether the first record of a file is one of `bat decode --encoder`."""
    try:
        _, record = next(read_records(file.path, file.shown), ("", {}))
    except InputError:
        return False  # whoever reads the file says what is wrong
    return "heard" in record and "prediction" not in record


def read_heard(file: File, cluster: str, reporter: Reporter) -> list[HeardScenes]:
    """What each encoder of a file heard. Raises InputError at the first bad line, and when there is no line."""
    records: list[SceneRecord] = []
    first: SceneRecord | None = None
    for where, content in reporter.track(read_records(file.path, file.shown), f"reading {file.shown}"):
        record = parse_scene(content, where)
        first = first or (record if record.heard is not None else None)
        if record.heard is not None and first is not None and first.heard is not None:
            _require_same(first.heard, record.heard, where)
        if records and record.true_names != records[0].true_names:
            raise InputError("some places are of true names, others of heard ones", where, "score them apart")
        records.append(record)
    if first is None or first.heard is None:
        raise InputError("no scene with a result", file.shown, "is this the output of `bat decode --encoder`?")
    if bad := sum(record.heard is None for record in records):
        reporter.warn(f"{file.name}: {bad:,} of {len(records):,} scenes have no result (null); they count as wrong")
    columns = [_columns(file.name, encoder, records, cluster) for encoder in first.heard]
    keys = columns[0].keys
    if repeated := len(keys) - len(np.unique(keys)):
        reporter.warn(f"{file.name}: {repeated:,} scenes stand more than once; each counts")
    if len(columns) > 1:
        columns = [
            replace(column, name=f"{column.name}: {encoder}")
            for column, encoder in zip(columns, first.heard, strict=True)
        ]
    if records[0].true_names:  # said wherever the scores are shown
        columns = [
            replace(column, name=f"{column.name} (true names)", named=None) if column.named is not None else column
            for column in columns
        ]
    return columns


def parse_scene(content: Mapping[str, Any], where: str) -> SceneRecord:
    """The scene of a record, checked. Raises InputError that starts with `where` (file:line)."""
    missing = [name for name in (*SCENE_FIELDS, "truth", "names", "heard") if name not in content]
    if missing:
        hint = "score answers and what encoders hear apart" if "prediction" in content else None
        raise InputError(f"no field {', '.join(map(repr, missing))}", where, hint)
    ids = [content[name] for name in SCENE_FIELDS]
    if not all(isinstance(each, str) for each in ids[:2]) or not all(isinstance(i, str | None) for i in ids[2:]):
        raise InputError("ids of clips and BRIRs are text", where)
    sources = [_place(each, where) for each in _list(content["truth"], "truth", where)]
    if len(sources) != (1 if ids[2] is None else 2) or (ids[2] is None) != (ids[3] is None):
        raise InputError(f"'truth' has {len(sources)} sources, the scene another number", where)
    if not all(source.events for source in sources):
        raise InputError("a source without events", where)
    if content["names"] not in ("heard", "true"):
        raise InputError(f"'names' is neither heard nor true: {content['names']!r:.40}", where)
    heard = content["heard"]
    if heard is not None:
        if not isinstance(heard, dict) or not heard:
            raise InputError(f"'heard' is neither null nor an object: {heard!r:.60}", where)
        heard = {name: _result(each, f"{where}, {name}") for name, each in heard.items()}
        most = max(number for place in sources for number in place.events)
        if any(most >= len(scores) for scores, _ in heard.values()):
            raise InputError(f"event {most} has no score", where)
    return SceneRecord(tuple(i for i in ids if i is not None), sources, content["names"] == "true", heard)


def _result(content: Any, where: str) -> tuple[np.ndarray, list[Place]]:
    if not isinstance(content, dict):
        raise InputError(f"not an object: {content!r:.60}", where)
    scores = [_number(each, "a score", where) for each in _list(content.get("scores"), "scores", where)]
    places = [_place(each, where) for each in _list(content.get("places"), "places", where)]
    return np.array(scores, dtype=np.float64), places


def _place(content: Any, where: str) -> Place:
    """A place heard (with `event`, a number or null), or a source (with the list `events`)."""
    if not isinstance(content, dict):
        raise InputError(f"not a place: {content!r:.60}", where)
    given = _list(content["events"], "events", where) if "events" in content else [content.get("event")]
    numbers: list[Any] = [number for number in given if number is not None]
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers):
        raise InputError(f"events are not numbers from 0: {numbers!r:.60}", where)
    return Place(
        frozenset(numbers), *(_number(content.get(name), name, where) for name in ("azimuth", "elevation", "distance"))
    )


def _list(content: Any, name: str, where: str) -> list[Any]:
    if not isinstance(content, list) or not content:
        raise InputError(f"{name!r} is no list, or empty: {content!r:.60}", where)
    return content


def _number(content: Any, name: str, where: str) -> float:
    if isinstance(content, bool) or not isinstance(content, (int, float)) or not abs(content) <= 1e30:
        raise InputError(f"{name} is not a finite number: {content!r:.40}", where)
    return float(content)


def _require_same(first: Mapping[str, Any], other: Mapping[str, Any], where: str) -> None:
    """Raises InputError unless two scenes have the same encoders, with scores of as many events."""
    if list(first) != list(other):
        raise InputError(f"encoders {', '.join(other)}, before {', '.join(first)}", where, "score them apart")
    for name, (scores, _) in other.items():
        if len(scores) != len(first[name][0]):
            raise InputError(f"{len(scores):,} scores of {name}, before {len(first[name][0]):,}", where)


def places_of(truth: Sequence[Place], places: Sequence[Place]) -> list[Place]:
    """The place that answers for each source (see the top of this file). `places`: the likeliest first."""
    if len(truth) == 1:
        return [places[0]]
    named = [next((n for n, p in enumerate(places) if p.events & source.events), None) for source in truth]
    free = [number for number in range(len(places)) if number not in named]
    return [places[number if number is not None else free.pop(0) if free else 0] for number in named]


def _columns(name: str, encoder: str, records: Sequence[SceneRecord], cluster: str) -> HeardScenes:
    classes = next(len(record.heard[encoder][0]) for record in records if record.heard is not None)
    scores = np.full((len(records), classes), math.nan, dtype=np.float32)
    true: list[Place] = []
    answered: list[Place] = []
    scene_of: list[int] = []
    named: list[bool] = []
    any_named = False
    for row, record in enumerate(records):
        truth = record.truth
        places: list[Place] = []
        if record.heard is not None:
            scores[row], places = record.heard[encoder]
        heard_events = frozenset[int]().union(*(place.events for place in places))
        any_named |= bool(heard_events)
        true += truth
        answered += places_of(truth, places) if places else [NOWHERE] * len(truth)
        scene_of += [row] * len(truth)
        named += [bool(source.events & heard_events) for source in truth]
    there, here = (np.array([place[1:] for place in side]) for side in (true, answered))
    drawn = [{"scene": record.scene, "room": _rooms(record.scene), "question": (str(row),)}[cluster]
             for row, record in enumerate(records)]  # fmt: skip
    return HeardScenes(
        name,
        np.array([hash_of(*record.scene) for record in records], dtype=np.uint64),
        np.array([hash_of(*each) for each in drawn], dtype=np.uint64),
        np.array([len(record.truth) for record in records]),
        scores,
        [frozenset[int]().union(*(source.events for source in record.truth)) for record in records],
        np.array(scene_of),
        np.where(np.isnan(here[:, 0]), math.nan, great_circle(_vectors(here), _vectors(there))),
        np.abs(np.rint(CLASSES_PER_METRE * here[:, 2]) - np.rint(CLASSES_PER_METRE * there[:, 2])),
        np.array(named) if any_named else None,
        sum(looks_published(record.scene) for record in records),
    )


def _rooms(scene: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted({reverb_id.rpartition("/")[0] for reverb_id in scene[1::2]}))


def _vectors(places: np.ndarray) -> np.ndarray:
    """Azimuth, elevation (degrees) and distance (n, 3) → unit vectors (n, 3)."""
    azimuth, elevation = np.radians(places[:, 0]), np.radians(places[:, 1])
    across = np.cos(elevation)
    return np.stack([across * np.cos(azimuth), across * np.sin(azimuth), np.sin(elevation)], axis=1)
