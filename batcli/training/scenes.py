"""Datasets of rendered scenes: drawn at random to train encoders, or given to be encoded.

All are map-style datasets for a `DataLoader`. Item i depends on i and the seed alone, so neither the
number of workers nor a resumed run changes what a model is trained on.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset as TorchDataset

from batcli.audio.convolve import Filter, gain, render
from batcli.audio.render import RenderSettings, load_source, render_files
from batcli.core.errors import BatError, InputError
from batcli.data.dataset import Dataset
from batcli.data.metadata import Reverb
from batcli.data.schema import Scene, Source
from batcli.model.encoders.sources import Cues
from batcli.model.features import spectrum

MAX_EVENTS = 8  # located in each scene
ENCODE_BATCH = 8  # scenes; intermediate results of more do not fit into a processor's cache
SMALL_MODEL = 10_000_000  # parameters; up to here, operations are too short to be split among threads
GROUP = 6  # sources per room in `CuedRooms`
ATTEMPTS = 8  # draws of one item before its error is raised


class EncoderBatch(NamedTuple):
    """Scenes and their targets; directions are unit vectors (right, front, above).

    A place is a position that sound comes from, that of a BRIR's source; an event is a class of sound heard there,
    so several events may share a place. A scene has MAX_EVENTS slots, one per event, of which `present` marks the
    used ones. If there are more events, each place has slots for as many of its events as another, or for all.
    """

    audio: Tensor  # waveforms (B, 2, samples) or cues (B, CUES, blocks, bands)
    events: Tensor  # (B, n_classes), 1 for each event that sounds, or its weight where two clips are mixed
    event_ids: Tensor  # (B, MAX_EVENTS)
    direction: Tensor  # (B, MAX_EVENTS, 3)
    distance: Tensor  # (B, MAX_EVENTS), metres
    place: Tensor  # (B, MAX_EVENTS), number of the event's place: 0 or 1
    present: Tensor  # (B, MAX_EVENTS), 0 or 1
    n_places: Tensor  # (B,), places that sound comes from, 1 or 2

    @staticmethod
    def concat(batches: Sequence[EncoderBatch]) -> EncoderBatch:
        """Join batches along the batch dimension."""
        return EncoderBatch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))

    @staticmethod
    def stack(scenes: Sequence[EncoderBatch]) -> EncoderBatch:
        """Join single scenes, without a batch dimension; in a worker, torch's collation would take shared memory."""
        return EncoderBatch(*(torch.stack(parts) for parts in zip(*scenes, strict=True)))

    def to(self, device: torch.device) -> EncoderBatch:
        return EncoderBatch(*(part.to(device) for part in self))

    def without_padding(self) -> EncoderBatch:
        """Drop the slots that no scene uses. On a GPU, this would wait for it."""
        used = int(self.present.sum(1).max())
        slots = ("event_ids", "direction", "distance", "place", "present")
        return self._replace(**{name: getattr(self, name)[:, :used] for name in slots})


@dataclass(frozen=True)
class SceneDistribution:
    """How scenes are drawn. Mixup, roll, gain and `any_brir` are those of Spatial-AST's released training code."""

    two_sources: float = 0.0  # share of scenes with two places
    mixup: float = 0.0  # share of places with two clips, as λ a + (1 − λ) b, λ ~ Beta(10, 10)
    roll: bool = False  # shift each clip circularly by a random time
    gain: bool = False  # multiply each clip by 0.5 + Beta(10, 10)
    any_brir: bool = False  # each BRIR is as likely as any other; else each room, and in it each BRIR

    @property
    def augmented(self) -> bool:
        return bool(self.mixup or self.roll or self.gain)


EventWeights = Sequence[tuple[int, float]]
"""(event, its weight in the target) of the events at one place."""


class LabelledClip(NamedTuple):
    """A clip and the numbers of its events."""

    audio_id: str
    event_ids: tuple[int, ...]

    @property
    def weights(self) -> EventWeights:
        return [(event, 1.0) for event in self.event_ids]


class DrawnScenes(TorchDataset):
    """`length` random scenes with their targets: clips and BRIRs of a split, all BRIRs of a scene from one room.

    `first_clips` (length,): number of the first clip of each scene, by the order in the split; None: any clip.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        settings: RenderSettings,
        seed: int,
        length: int,
        distribution: SceneDistribution,
        first_clips: np.ndarray | None = None,
    ) -> None:
        self.dataset, self.settings, self.seed, self.length = dataset, settings, seed, length
        self.distribution, self.first_clips = distribution, first_clips
        self.n_classes = len(dataset.labels)
        self.clips = labelled_clips(dataset, split)
        rooms: dict[str, list[Reverb]] = defaultdict(list)
        for reverb in dataset.reverbs(split).values():
            rooms[reverb.scene].append(reverb)
        self.rooms = [rooms[name] for name in sorted(rooms)]
        self.brirs = [(room, number) for room in self.rooms for number in range(len(room))]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncoderBatch:
        return retry(self._draw, index)

    def _draw(self, index: int, attempt: int) -> EncoderBatch:
        rng = np.random.default_rng([self.seed, index, attempt])
        reverbs = self._draw_reverbs(rng)
        # Where the scene's own clip is a bad file, any other takes its place.
        chosen = [] if self.first_clips is None or attempt else [self.clips[self.first_clips[index]]]
        clips = self.draw_clips(rng, len(reverbs), chosen)
        if self.distribution.augmented:
            sources, weights = zip(
                *(self._augmented(rng, c, r) for c, r in zip(clips, reverbs, strict=True)), strict=True
            )
            waveform = render(sources, self.settings.length, None)
        else:
            weights = tuple(clip.weights for clip in clips)
            scene = [Source(c.audio_id, r.reverb_id) for c, r in zip(clips, reverbs, strict=True)]
            waveform = render_files([self.dataset.files_of(source) for source in scene], self.settings)
        return self.with_targets(torch.from_numpy(waveform), weights, reverbs)

    def _draw_reverbs(self, rng: np.random.Generator) -> list[Reverb]:
        """One or two BRIRs of one room."""
        share = self.distribution.two_sources
        if not self.distribution.any_brir:
            room = self.rooms[rng.integers(len(self.rooms))]
            count = 2 if len(room) > 1 and rng.random() < share else 1
            return [room[i] for i in rng.choice(len(room), count, replace=False)]
        room, first = self.brirs[rng.integers(len(self.brirs))]
        others = [reverb for number, reverb in enumerate(room) if number != first]
        second = [others[rng.integers(len(others))]] if others and rng.random() < share else []
        return [room[first], *second]

    def draw_clips(
        self, rng: np.random.Generator, count: int, chosen: Sequence[LabelledClip] = ()
    ) -> list[LabelledClip]:
        """`count` clips without a label in common, or fewer if the split has too few labels.

        `chosen`: the first ones.
        """
        clips = list(chosen)
        for _ in range(100 * count):
            if len(clips) == count:
                break
            clip = self._draw_clip(rng)
            if not any(set(clip.event_ids) & set(other.event_ids) for other in clips):
                clips.append(clip)
        return clips

    def _draw_clip(self, rng: np.random.Generator) -> LabelledClip:
        return self.clips[rng.integers(len(self.clips))]

    def _augmented(
        self, rng: np.random.Generator, clip: LabelledClip, reverb: Reverb
    ) -> tuple[tuple[np.ndarray, Filter], EventWeights]:
        """Apply roll, gain and mixup at one place → (samples and filter for `render`, weights of its events)."""

        def load(clip: LabelledClip) -> tuple[np.ndarray, Filter]:
            source = load_source(*self.dataset.files_of(Source(clip.audio_id, reverb.reverb_id)), self.settings)
            samples = source[0] * gain(source[0], self.settings.rms_dbfs)
            if self.distribution.roll:
                samples = np.roll(samples, rng.integers(len(samples)))
            if self.distribution.gain:
                samples = samples * np.float32(0.5 + rng.beta(10, 10))
            return samples, source[1]

        samples, filter = load(clip)
        if rng.random() >= self.distribution.mixup:
            return (samples, filter), clip.weights
        other = self._draw_clip(rng)
        share = rng.beta(10, 10)
        mixed = np.zeros(self.settings.length, np.float32)
        for part, weight in ((samples, share), (load(other)[0], 1 - share)):
            mixed[: len(part)] += np.float32(weight) * part[: len(mixed)]
        events: dict[int, float] = defaultdict(float)
        for event_ids, weight in ((clip.event_ids, share), (other.event_ids, 1 - share)):
            for event in event_ids:
                events[event] += weight
        return (mixed, filter), list(events.items())

    def with_targets(self, audio: Tensor, weights: Sequence[EventWeights], reverbs: Sequence[Reverb]) -> EncoderBatch:
        """One scene (fields without a batch dimension) from its audio and, for each place, its events and BRIR."""
        events = torch.zeros(self.n_classes)
        event_ids = torch.zeros(MAX_EVENTS, dtype=torch.long)
        place, present = torch.zeros(MAX_EVENTS, dtype=torch.long), torch.zeros(MAX_EVENTS)
        direction, distance = torch.zeros(MAX_EVENTS, 3), torch.ones(MAX_EVENTS)
        for event, weight in itertools.chain(*weights):
            events[event] = weight
        # The first event of each place, then the second of each, and so on.
        turns = itertools.zip_longest(*([(event, number) for event, _ in at] for number, at in enumerate(weights)))
        located = [pair for turn in turns for pair in turn if pair is not None]
        for slot, (event, number) in enumerate(located[:MAX_EVENTS]):
            metres, (x, y, z) = reverbs[number].position.distance, reverbs[number].source
            event_ids[slot], place[slot], present[slot] = event, number, 1.0
            direction[slot] = torch.tensor([x / metres, -z / metres, y / metres])
            distance[slot] = metres
        return EncoderBatch(audio, events, event_ids, direction, distance, place, present, torch.tensor(len(reverbs)))


def retry(draw: Callable[[int, int], EncoderBatch], index: int) -> EncoderBatch:
    """`draw(index, attempt)` of the first attempt that finds no bad file. Raises InputError after ATTEMPTS."""
    for attempt in range(ATTEMPTS):
        try:
            return draw(index, attempt)
        except InputError as error:
            last = error
    raise last


def labelled_clips(dataset: Dataset, split: str) -> list[LabelledClip]:
    """The clips of a split with the numbers of their labels. Raises InputError if one has none."""
    numbers = {label.mid: label.number for label in dataset.labels}
    clips = [
        LabelledClip(clip.audio_id, tuple(numbers[mid] for mid in clip.mids if mid in numbers))
        for clip in dataset.clips(split)
    ]
    if not all(clip.event_ids for clip in clips):
        raise InputError("a clip has none of the labels", dataset.path(dataset.labels_file))
    return clips


class CuedRooms(TorchDataset):
    """Cues of `GROUP` sources in one room: of each alone, then of each together with another.

    Rendering is linear, so 2 × `GROUP` scenes cost the rendering of `GROUP`. An item is (index, a batch of
    2 × `GROUP` scenes). `cues` must lie on the CPU, where workers compute.
    """

    def __init__(self, drawn: DrawnScenes, cues: Cues) -> None:
        self.drawn, self.cues = drawn, cues

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> tuple[int, EncoderBatch]:
        return index, retry(lambda index, attempt: self._render(index, attempt, range(2 * GROUP)), index)

    def scene(self, number: int) -> EncoderBatch:
        """Scene `number` of all items' scenes, as a batch of one; the others of its item are not rendered."""
        index, place = divmod(number, 2 * GROUP)
        return retry(lambda index, attempt: self._render(index, attempt, [place]), index)

    def _render(self, index: int, attempt: int, numbers: Sequence[int]) -> EncoderBatch:
        """The scenes of these numbers of an item. Raises InputError if any file of the item is bad."""
        drawn = self.drawn
        rng = np.random.default_rng([drawn.seed, index, attempt])
        room = drawn.rooms[rng.integers(len(drawn.rooms))]
        clips = drawn.draw_clips(rng, GROUP)
        clips = [clips[i % len(clips)] for i in range(GROUP)]  # repeated if there are too few
        places = np.concatenate([rng.permutation(len(room)) for _ in range(-(-GROUP // len(room)))])[:GROUP].tolist()
        reverbs = [room[place] for place in places]
        together = [(i,) for i in range(GROUP)] + [(i, _partner(i, clips, places)) for i in range(GROUP)]
        files = [drawn.dataset.files_of(Source(c.audio_id, r.reverb_id)) for c, r in zip(clips, reverbs, strict=True)]
        heard = sorted({i for number in numbers for i in together[number]})
        for i in set(range(GROUP)).difference(heard):
            load_source(*files[i], drawn.settings)
        waveforms = np.stack([render_files([files[i]], drawn.settings) for i in heard])
        with torch.inference_mode():
            stft = dict(zip(heard, spectrum(torch.from_numpy(waveforms)), strict=True))
            # One by one, to stay in the processor's cache.
            cues = torch.cat([self.cues(_mean([stft[i] for i in together[number]])[None]) for number in numbers])
        members = [tuple(sorted(set(together[number]))) for number in numbers]
        return EncoderBatch.stack(
            [
                drawn.with_targets(row, [clips[i].weights for i in member], [reverbs[i] for i in member])
                for row, member in zip(cues.clone(), members, strict=True)
            ]
        )


class CuedScenes(TorchDataset):
    """The scenes of `CuedRooms` one by one."""

    def __init__(self, rooms: CuedRooms) -> None:
        self.rooms = rooms

    def __len__(self) -> int:
        return 2 * GROUP * len(self.rooms)

    def __getitem__(self, number: int) -> EncoderBatch:
        return EncoderBatch(*(part[0] for part in self.rooms.scene(number)))


def _mean(stft: Sequence[Tensor]) -> Tensor:
    """The STFT of one source, or of two together."""
    if len(stft) == 1:
        return stft[0]
    parts = [torch.view_as_real(part) for part in stft]  # complex arithmetic of torch is ten times slower
    return torch.view_as_complex(parts[0].lerp(parts[1], 0.5))


def _partner(number: int, clips: Sequence[LabelledClip], places: Sequence[int]) -> int:
    """The next source without a label or the place in common; the source itself if there is none."""
    for other in ((number + step) % len(clips) for step in range(1, len(clips))):
        if set(clips[number].event_ids).isdisjoint(clips[other].event_ids) and places[number] != places[other]:
            return other
    return number


class RenderError(NamedTuple):
    """A scene that could not be rendered, and the reason."""

    scene: Scene
    error: dict[str, str]  # kind and message


class GivenScenes(TorchDataset):
    """The given scenes; an item is (index, waveform (2, samples)), or (index, `RenderError`) for a bad one."""

    def __init__(self, dataset: Dataset, scenes: Sequence[Scene], settings: RenderSettings) -> None:
        self.dataset, self.scenes, self.settings = dataset, scenes, settings

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> tuple[int, Tensor | RenderError]:
        scene = self.scenes[index]
        try:
            files = [self.dataset.files_of(source) for source in scene]
            return index, torch.from_numpy(render_files(files, self.settings))
        except BatError as error:
            return index, RenderError(scene, {"kind": type(error).__name__, "message": str(error)})


@contextmanager
def threads_for(model: nn.Module) -> Iterator[None]:
    """Limit torch to one thread inside the context if `model` is small.

    Its operations are too short to gain from more threads, which would wait in busy loops on the
    processors that the rendering workers need.
    """
    threads = torch.get_num_threads()
    if sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
