"""Scenes for the encoder: drawn afresh without end for its training, or given for encoding.

All are map-style datasets for a `DataLoader`: item i depends on i and the seed alone, so the order
and the number of workers never change what is seen, and a resumed run sees what it would have seen.
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from batcli.audio.convolve import Filter, gain, render
from batcli.audio.render import RenderSettings, load_source, render_files
from batcli.core.errors import BatError, InputError
from batcli.core.parallel import block_signals, start_worker
from batcli.data.dataset import Dataset
from batcli.data.metadata import Reverb
from batcli.data.schema import Scene, Source
from batcli.model.encoders.sources import SourceTokens
from batcli.model.features import spectrum

MAX_ASKED = 4  # events of a scene that are placed in one training step
ENCODE_BATCH = 8  # scenes: with more, what lies between two operations falls out of a processor's cache
SMALL = 10_000_000  # parameters of a model whose operations are too short to be divided
GROUP = 6  # sources that are rendered together in one room for the source tokens


class EncoderBatch(NamedTuple):
    """A batch for the encoder. Directions are unit vectors (right, front, above)."""

    waveform: Tensor  # (B, 2, samples), or the cues made from it (B, CUES, blocks, bands)
    events: Tensor  # (B, n_classes), 1 for each event that sounds; its share where two clips are mixed
    asked: Tensor  # (B, MAX_ASKED) numbers of events
    direction: Tensor  # (B, MAX_ASKED, 3)
    distance: Tensor  # (B, MAX_ASKED) metres
    present: Tensor  # (B, MAX_ASKED), 0 where `asked` is only padding
    places: Tensor  # (B,) how many places sound comes from: 1 or 2

    def to(self, device: torch.device) -> EncoderBatch:
        return EncoderBatch(*(part.to(device) for part in self))

    def without_padding(self) -> EncoderBatch:
        """Without the columns in which no scene has an event. On a GPU, this would wait for it."""
        most = int(self.present.sum(1).max())
        asked, direction, distance, present = (
            part[:, :most] for part in (self.asked, self.direction, self.distance, self.present)
        )
        return self._replace(asked=asked, direction=direction, distance=distance, present=present)


@dataclass(frozen=True)
class Augmentation:
    """What Spatial-AST's released training code does to clips before they come into a room."""

    mixup: float = 0.0  # share of scenes with two clips in one place, as λ a + (1 − λ) b, λ ~ Beta(10, 10)
    roll_and_gain: bool = False  # start each clip anywhere and go round; times 0.5 + Beta(10, 10)
    balanced: bool = False  # draw a clip with weight Σ 1000 / (count of label + 0.01)


class LabelledClip(NamedTuple):
    audio_id: str
    numbers: tuple[int, ...]  # of its labels


Shares = Sequence[tuple[int, float]]
"""(event, its share) of what sounds in one place."""


class DrawnScenes(TorchDataset):
    """`length` scenes of one place or, with probability `two`, of two; clips and BRIRs drawn at random."""

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        settings: RenderSettings,
        seed: int,
        length: int,
        two: float,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.dataset, self.settings, self.seed, self.length, self.two = dataset, settings, seed, length, two
        self.augmentation = augmentation or Augmentation()
        numbers = {label.mid: label.number for label in dataset.labels}
        self.n_classes = len(numbers)
        self.clips = [
            LabelledClip(clip.audio_id, tuple(numbers[mid] for mid in clip.mids if mid in numbers))
            for clip in dataset.clips(split)
        ]
        if not all(clip.numbers for clip in self.clips):
            raise InputError("a clip has none of the labels", dataset.path(dataset.labels_file))
        self.shares = clip_shares([clip.numbers for clip in self.clips]) if self.augmentation.balanced else None
        rooms: dict[str, list[Reverb]] = defaultdict(list)
        for reverb in dataset.reverbs(split).values():
            rooms[reverb.scene].append(reverb)
        self.rooms = [rooms[name] for name in sorted(rooms)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> EncoderBatch:
        return self.retried(self._draw, index)

    @staticmethod
    def retried(draw: Callable[[int, int], EncoderBatch], index: int) -> EncoderBatch:
        """A bad file costs this draw, not the run: the next draw of the same item replaces it."""
        for attempt in range(8):
            try:
                return draw(index, attempt)
            except InputError as error:
                last = error
        raise last

    def _draw(self, index: int, attempt: int) -> EncoderBatch:
        rng = np.random.default_rng([self.seed, index, attempt])
        room = self.rooms[rng.integers(len(self.rooms))]
        count = 2 if len(room) > 1 and rng.random() < self.two else 1
        reverbs = [room[i] for i in rng.choice(len(room), count, replace=False)]
        clips = self.draw_clips(rng, count)
        if self.augmentation == Augmentation():
            scene = tuple(Source(c.audio_id, r.reverb_id) for c, r in zip(clips, reverbs, strict=True))
            waveform = render_files([self.dataset.files_of(source) for source in scene], self.settings)
            return self.labelled(torch.from_numpy(waveform), [full_shares(clip) for clip in clips], reverbs)
        sounds, labels = zip(*(self._altered(rng, c, r) for c, r in zip(clips, reverbs, strict=True)), strict=True)
        waveform = render(sounds, self.settings.length, None)
        return self.labelled(torch.from_numpy(waveform), labels, reverbs)

    def draw_clips(self, rng: np.random.Generator, count: int) -> list[LabelledClip]:
        """`count` clips without a label in common, or fewer where there are no more such."""
        clips: list[LabelledClip] = []
        for _ in range(100 * count):
            clip = self._clip(rng)
            if not any(set(clip.numbers) & set(other.numbers) for other in clips):
                clips.append(clip)
            if len(clips) == count:
                break
        return clips

    def _clip(self, rng: np.random.Generator) -> LabelledClip:
        if self.shares is None:
            return self.clips[rng.integers(len(self.clips))]
        return self.clips[np.searchsorted(self.shares, rng.random(), side="right")]

    def _altered(
        self, rng: np.random.Generator, clip: LabelledClip, reverb: Reverb
    ) -> tuple[tuple[np.ndarray, Filter], Shares]:
        """(sound and room, share of each label) of one place."""

        def sound(clip: LabelledClip) -> tuple[np.ndarray, Filter]:
            source = load_source(*self.dataset.files_of(Source(clip.audio_id, reverb.reverb_id)), self.settings)
            samples = source[0] * gain(source[0], self.settings.rms_dbfs)
            if self.augmentation.roll_and_gain:
                samples = np.roll(samples, rng.integers(len(samples))) * np.float32(0.5 + rng.beta(10, 10))
            return samples, source[1]

        samples, filter = sound(clip)
        if rng.random() >= self.augmentation.mixup:
            return (samples, filter), full_shares(clip)
        other = self._clip(rng)
        share = rng.beta(10, 10)
        mixed = np.zeros(self.settings.length, np.float32)
        for part, weight in ((samples, share), (sound(other)[0], 1 - share)):
            mixed[: len(part)] += np.float32(weight) * part[: len(mixed)]
        events: dict[int, float] = defaultdict(float)
        for labels, weight in ((clip.numbers, share), (other.numbers, 1 - share)):
            for event in labels:
                events[event] += weight
        return (mixed, filter), list(events.items())

    def labelled(self, waveform: Tensor, labels: Sequence[Shares], reverbs: Sequence[Reverb]) -> EncoderBatch:
        """A scene (or what was made from it) with what there is to learn of it."""
        events = torch.zeros(self.n_classes)
        asked = torch.zeros(MAX_ASKED, dtype=torch.long)
        direction, distance, present = torch.zeros(MAX_ASKED, 3), torch.ones(MAX_ASKED), torch.zeros(MAX_ASKED)
        pairs = [(event, share, r) for here, r in zip(labels, reverbs, strict=True) for event, share in here]
        for place, (event, share, reverb) in enumerate(pairs):
            events[event] = share
            if place < MAX_ASKED:
                x, y, z = (value / reverb.position.distance for value in reverb.source)
                asked[place], present[place] = event, 1.0
                direction[place] = torch.tensor([x, -z, y])
                distance[place] = reverb.position.distance
        return EncoderBatch(waveform, events, asked, direction, distance, present, torch.tensor(len(reverbs)))


def full_shares(clip: LabelledClip) -> Shares:
    return [(event, 1.0) for event in clip.numbers]


def clip_shares(labels: Sequence[Sequence[int]]) -> np.ndarray:
    """Labels of each clip → running totals of the clips' chances, up to 1: rare labels come more often."""
    counts = Counter(event for events in labels for event in events)
    weights = np.array([sum(1000 / (counts[event] + 0.01) for event in events) for events in labels])
    totals = np.cumsum(weights / weights.sum())
    return totals / totals[-1]


class CuedRooms(TorchDataset):
    """Draws of `GROUP` sources in one room: the cues of each alone, then of each with another.

    Sound adds up, so 2 × `GROUP` scenes take the rendering of `GROUP`. An item is a batch of that many.
    """

    def __init__(self, drawn: DrawnScenes, sources: SourceTokens) -> None:
        self.drawn, self.sources = drawn, sources

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> tuple[int, EncoderBatch]:
        return index, self.drawn.retried(self._draw, index)

    def _draw(self, index: int, attempt: int) -> EncoderBatch:
        drawn = self.drawn
        rng = np.random.default_rng([drawn.seed, index, attempt])
        room = drawn.rooms[rng.integers(len(drawn.rooms))]
        clips = drawn.draw_clips(rng, GROUP)
        clips = [clips[i % len(clips)] for i in range(GROUP)]  # where there are few labels, or few places,
        places = np.concatenate([rng.permutation(len(room)) for _ in range(-(-GROUP // len(room)))])[:GROUP].tolist()
        reverbs = [room[place] for place in places]  # they come again
        partners = [_partner(i, clips, places) for i in range(GROUP)]
        alone = np.stack(
            [
                render_files([drawn.dataset.files_of(Source(clip.audio_id, reverb.reverb_id))], drawn.settings)
                for clip, reverb in zip(clips, reverbs, strict=True)
            ]
        )
        with torch.inference_mode():
            stft = spectrum(torch.from_numpy(alone))
            parts = torch.view_as_real(stft)  # torch halves complex numbers at a tenth of the speed
            pairs = (torch.view_as_complex(parts[i].lerp(parts[partner], 0.5)) for i, partner in enumerate(partners))
            scenes = [*stft, *pairs]
            # One by one: together they fall out of the cache, and stacked they must be laid out anew.
            cues = torch.cat([self.sources.cues(scene[None]) for scene in scenes])
        members = [(i,) for i in range(GROUP)] + [tuple({i, partner}) for i, partner in enumerate(partners)]
        rows = [
            drawn.labelled(row, [full_shares(clips[i]) for i in member], [reverbs[i] for i in member])
            for row, member in zip(cues.clone(), members, strict=True)
        ]
        return EncoderBatch(*(torch.stack(part) for part in zip(*rows, strict=True)))


def _partner(number: int, clips: Sequence[LabelledClip], places: Sequence[int]) -> int:
    """The next source with other labels in another place; the source itself where there is none."""
    for other in ((number + step) % len(clips) for step in range(1, len(clips))):
        if set(clips[number].numbers).isdisjoint(clips[other].numbers) and places[number] != places[other]:
            return other
    return number


class RenderError(NamedTuple):
    """A scene that could not be rendered, and why."""

    scene: Scene
    error: dict[str, str]  # kind and message


class GivenScenes(TorchDataset):
    """Scenes to be encoded: (position, waveform (2, samples), or `RenderError` for a bad one)."""

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


def no_collate(batch: list[Any]) -> list[Any]:
    """Collate nothing: bad scenes have no tensor to stack."""
    return batch


class Loader(DataLoader):
    """A DataLoader whose workers leave signals to their parent."""

    def __init__(self, items: TorchDataset, **how: Any) -> None:
        super().__init__(items, worker_init_fn=_start_loading, **how)

    def __iter__(self) -> Any:
        with block_signals():  # here the processes are started
            return super().__iter__()


def _start_loading(_: int) -> None:
    """A worker's share of the processor is one thread; the model has the others."""
    gc.freeze()  # Python's collector would go through all that the parent holds, and so copy it
    start_worker()
    torch.set_num_threads(1)


@contextmanager
def threads_for(model: nn.Module) -> Iterator[None]:
    """Inside, a small model gets one of torch's threads, on whatever processor it runs beside.

    Its operations are so short that dividing them gains nothing, and threads that have nothing to do wait
    for it in a loop, on processors that the workers which render need, or anybody else. On two processors,
    encoding a scene for `tiny` took 17.5 ms with two threads and takes 11.1 ms with one; an update of its
    language model took 113 ms beside other work and takes 66. That they sleep while they wait
    (OMP_WAIT_POLICY) is no way out: two threads then take longer than one.
    """
    threads = torch.get_num_threads()
    if sum(parameter.numel() for parameter in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
