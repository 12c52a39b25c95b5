"""The questions of stages 1 to 3 with the encodings of their scenes: from a cache on disk, or made batch by batch.

Both give the same numbers: floating point is rounded to 16 bits, and the encoders always hear ENCODE_BATCH scenes at
once. So neither the place, nor the size of a batch, nor the number of processes changes a bit of an encoding.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from batcli.core.files import sha256
from batcli.data.schema import Question, Scene
from batcli.model import checkpoint
from batcli.model.bat import Encoding, encode_fixed_batch, encode_waveforms
from batcli.training.bad_scenes import BadScenes
from batcli.training.cache import EncodingCache, as_stored, fill_cache, open_cache
from batcli.training.loader import no_collate
from batcli.training.recipe import STAGES
from batcli.training.scenes import ENCODE_BATCH, GivenScenes, RenderError
from batcli.training.trainer import Trainer

Row = dict[str, Tensor]  # the tokens (T, D) of one scene by encoder name


class EncodedBatch(NamedTuple):
    """The encodings of a batch of scenes, without those that could not be rendered."""

    encoding: Encoding | None  # in the order of the scenes; None: no scene could be rendered
    good: list[bool]  # for each scene, whether it is there


class EncodedScenes(Protocol):
    """Where the encodings of scenes come from."""

    def stream(self, batches: Iterable[Sequence[Scene]]) -> Iterator[EncodedBatch]:
        """For each batch of scenes, their encodings."""

    def bad(self) -> int:
        """Scenes that could not be rendered, as far as is known."""


@dataclass(frozen=True)
class CachedScenes:
    """Encodings on disk."""

    cache: EncodingCache
    rows: Mapping[Scene, int]  # of the scenes that could be rendered

    def stream(self, batches: Iterable[Sequence[Scene]]) -> Iterator[EncodedBatch]:
        for scenes in batches:
            encoding = Encoding(self.cache.get([self.rows[scene] for scene in scenes]))
            yield EncodedBatch(encoding, [True] * len(scenes))

    def bad(self) -> int:
        return len(self.cache.bad())


class FreshScenes:
    """Encodings made when they are needed, ENCODE_BATCH at a time, while workers render the next scenes."""

    def __init__(
        self,
        items: GivenScenes,
        load: Callable[..., Iterable[Any]],
        encode: Callable[[Tensor], Encoding],
        device: str | torch.device,
        bad_scenes: BadScenes,
    ) -> None:
        self.items, self.load, self.encode, self.device, self.bad_scenes = items, load, encode, device, bad_scenes
        self.numbers = {scene: number for number, scene in enumerate(items.scenes)}

    def stream(self, batches: Iterable[Sequence[Scene]]) -> Iterator[EncodedBatch]:
        ahead, now = itertools.tee(batches)
        numbers = (self.numbers[scene] for scenes in ahead for scene in dict.fromkeys(scenes))
        chunks = iter(lambda: list(itertools.islice(numbers, ENCODE_BATCH)), [])
        loaded = iter(self.load(self.items, batch_sampler=chunks, collate_fn=no_collate))
        ready: deque[Row | None] = deque()
        for scenes in now:
            found: dict[Scene, Row | None] = {}
            for scene in dict.fromkeys(scenes):
                if not ready:
                    ready.extend(self._encode(next(loaded)))
                found[scene] = ready.popleft()
            rows = [row for row in (found[scene] for scene in scenes) if row is not None]
            yield EncodedBatch(_stack(rows) if rows else None, [found[scene] is not None for scene in scenes])

    @torch.no_grad()
    def _encode(self, rendered: Sequence[tuple[int, Tensor | RenderError]]) -> list[Row | None]:
        """Encodings of scenes in their order; None for those that could not be rendered."""
        good = [waveform for _, waveform in rendered if not isinstance(waveform, RenderError)]
        rows: Iterator[Row] = iter(())
        if good:
            tokens = as_stored(encode_fixed_batch(self.encode, good, ENCODE_BATCH, self.device))
            rows = iter([{name: part[row] for name, part in tokens.items()} for row in range(len(good))])
        for _, item in rendered:
            if isinstance(item, RenderError):
                self.bad_scenes.add(item)
        return [None if isinstance(item, RenderError) else next(rows) for _, item in rendered]

    def bad(self) -> int:
        return self.bad_scenes.count()


def _stack(rows: Sequence[Row]) -> Encoding:
    return Encoding({name: torch.stack([row[name] for row in rows]) for name in rows[0]})


@dataclass(frozen=True)
class EncodedQuestions:
    """Questions, the encodings of their scenes, and the encoding of silence."""

    questions: list[Question]  # from a cache: those whose scenes could be rendered
    scenes: EncodedScenes
    silence: Row

    def of_silence(self, count: int) -> Encoding:
        """`count` times the encoding of silence."""
        return Encoding({name: row.expand(count, *row.shape) for name, row in self.silence.items()})


def encode_questions(trainer: Trainer) -> EncodedQuestions:
    """The questions of all stages; what is kept on disk is encoded now, each scene once, by the frozen encoders."""
    plan, device = trainer.plan, trainer.device
    families = "".join(STAGES[stage] for stage in trainer.stages if stage in STAGES)
    questions = [q for q in plan.dataset.questions(plan.split) if q.family in families]
    scenes = list(dict.fromkeys(q.scene for q in questions))
    items = GivenScenes(plan.dataset, scenes, trainer.settings)
    encode = partial(encode_waveforms, trainer.bat.eval().encoders)

    @torch.no_grad()
    def encode_some(waveforms: Sequence[Tensor]) -> dict[str, Tensor]:
        return encode_fixed_batch(encode, waveforms, ENCODE_BATCH, device)

    silence = {name: tokens[0] for name, tokens in encode_some([torch.zeros(2, trainer.settings.length)]).items()}
    assert plan.cache.encodings is not None
    if not plan.cache.encodings.on_disk:
        bad_scenes = BadScenes(plan.output, trainer.reporter)
        return EncodedQuestions(questions, FreshScenes(items, trainer.load, encode, device, bad_scenes), silence)
    facts: dict[str, Any] = {"stage": "questions", "encoder": sha256(plan.output / checkpoint.ENCODER)}
    cache = open_cache(trainer, facts, len(scenes), silence)
    fill_cache(trainer, cache, items, "encoding", encode_some)
    bad = set(cache.bad().tolist())
    rows = {scene: row for row, scene in enumerate(scenes) if row not in bad}
    return EncodedQuestions([q for q in questions if q.scene in rows], CachedScenes(cache, rows), silence)
