"""Scenes to measure an encoder on: every clip of a split at a fixed place, alone or together with another clip.

The published evaluation draws new BRIRs at each run. Here the draw follows from seed and clip alone, so that
neither another run nor another number of clips changes it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from batcli.core.errors import InputError
from batcli.data.dataset import FILE, Dataset
from batcli.data.geometry import Position
from batcli.data.metadata import Reverb
from batcli.data.schema import Scene, Source

ATTEMPTS = 100  # draws of a second clip before all clips are looked through


class TrueSource(NamedTuple):
    """What sounds at one place of a scene, and where, rounded to the published classes."""

    events: tuple[int, ...]  # numbers of the labels, ascending
    azimuth: int  # degrees, 0 … 359
    elevation: int  # degrees, −90 … 90
    distance: float  # metres, in steps of 0.5 m

    @classmethod
    def of(cls, events: Sequence[int], position: Position) -> TrueSource:
        return cls(
            tuple(sorted(events)),
            round(position.azimuth) % 360,
            round(position.elevation),
            round(2 * position.distance) / 2,
        )


class FixedScene(NamedTuple):
    """A scene and its truth, source by source."""

    scene: Scene
    truth: tuple[TrueSource, ...]


class _LabelledClip(NamedTuple):
    audio_id: str
    events: frozenset[int]


def fixed_scenes(
    dataset: Dataset, split: str, sources: Sequence[int], seed: int, limit: int | None = None
) -> list[FixedScene]:
    """For each number of `sources` (1 or 2), a scene of every clip of a split, or of the first `limit`.

    One source: a BRIR drawn from all of the split. Two: a clip without a label in common is drawn, and two BRIRs of
    one room. Raises InputError where the split has no metadata, a clip has none of the labels, or two sources
    cannot be drawn.
    """
    numbers = {label.mid: label.number for label in dataset.labels}
    clips = [
        _LabelledClip(clip.audio_id, frozenset(numbers[mid] for mid in clip.mids if mid in numbers))
        for clip in dataset.clips(split)
    ]
    for clip in clips:
        if not clip.events:
            raise InputError(f"clip {clip.audio_id!r:.80} has none of the labels", dataset.path(dataset.labels_file))
    reverbs = [reverb for _, reverb in sorted(dataset.reverbs(split).items())]
    rooms: dict[str, list[Reverb]] = defaultdict(list)
    for reverb in reverbs:
        rooms[reverb.scene].append(reverb)
    shared = [reverb for reverb in reverbs if len(rooms[reverb.scene]) > 1]
    if 2 in sources and not shared:
        raise InputError(f"no room of split {split!r} has two BRIRs", dataset.root / FILE, "ask for --sources 1")
    scenes = []
    for count in sources:
        for clip in clips[:limit]:
            rng = _generator(seed, count, clip.audio_id)
            if count == 1:
                drawn = [(clip, reverbs[rng.integers(len(reverbs))])]
            else:
                first = shared[rng.integers(len(shared))]
                others = [reverb for reverb in rooms[first.scene] if reverb is not first]
                drawn = [(clip, first), (_other_clip(clip, clips, rng), others[rng.integers(len(others))])]
            scenes.append(
                FixedScene(
                    tuple(Source(one.audio_id, reverb.reverb_id) for one, reverb in drawn),
                    tuple(TrueSource.of(list(one.events), reverb.position) for one, reverb in drawn),
                )
            )
    return scenes


def _generator(seed: int, count: int, audio_id: str) -> np.random.Generator:
    digest = hashlib.blake2b(audio_id.encode(), digest_size=8).digest()
    return np.random.default_rng([seed, count, int.from_bytes(digest, "little")])


def _other_clip(clip: _LabelledClip, clips: Sequence[_LabelledClip], rng: np.random.Generator) -> _LabelledClip:
    """A clip without a label in common with `clip`."""
    for _ in range(ATTEMPTS):
        other = clips[int(rng.integers(len(clips)))]
        if clip.events.isdisjoint(other.events):
            return other
    fitting = [other for other in clips if clip.events.isdisjoint(other.events)]
    if not fitting:
        raise InputError(f"every clip shares a label with {clip.audio_id!r:.80}", hint="ask for --sources 1")
    return fitting[int(rng.integers(len(fitting)))]
