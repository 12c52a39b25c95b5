"""Training: one epoch of questions, with the frozen encoder's tokens from the cache or made at each step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from timed.decoding import ASKED, make_dataset, make_model, plain_hear
from timed.timing import Line, compare

from batcli.audio.render import RenderSettings, clear_cache
from batcli.core.progress import SILENT
from batcli.data.dataset import Dataset
from batcli.data.schema import Scene
from batcli.model.bat import BAT, Encoding
from batcli.model.config import PRESETS, EncoderConfig, ModelConfig
from batcli.model.tokens import TextBatch, collate, padding_id, to_ids
from batcli.training.bad_scenes import BadScenes
from batcli.training.cache import EncodingCache
from batcli.training.encoded_questions import FreshScenes
from batcli.training.loader import Loader
from batcli.training.losses import AnswerObjective
from batcli.training.scenes import GivenScenes


@dataclass
class Course:
    """Questions to learn from; an epoch meets each scene as often as there are questions about it."""

    dataset: Dataset
    scenes: list[Scene]
    model: BAT
    tokens: list[TextBatch]  # of each batch
    batches: list[list[int]]  # numbers of scenes
    cache: EncodingCache


def make_course(folder: Path, config: ModelConfig, scenes: int, batch: int, each: int = 4) -> Course:
    """`each`: questions about a scene."""
    dataset, found = make_dataset(folder / "data", scenes)
    model, tokenizer = make_model(config, dataset)
    model.requires_grad_(False)
    order = np.random.default_rng(0).permutation(each * len(found)).tolist()
    batches = [order[start : start + batch] for start in range(0, len(order), batch)]
    tokens = []
    for chosen in batches:
        prompts, answers = to_ids(
            tokenizer, [ASKED[n % 4] for n in chosen], ["right, behind, above; 3.5m"] * len(chosen)
        )
        tokens.append(collate(prompts, answers, padding_id(tokenizer), tokenizer.eos_token_id))
    sample = encode_scenes(model, dataset, found[:1])
    cache = EncodingCache(folder / "cache", len(found), {name: part[0] for name, part in sample.items()}, create=True)
    for number, scene in enumerate(found):
        cache.put([number], encode_scenes(model, dataset, [scene]))
    return Course(dataset, found, model, tokens, [[n // each for n in chosen] for chosen in batches], cache)


@torch.inference_mode()
def encode_scenes(model: BAT, dataset: Dataset, scenes: list[Scene]) -> dict[str, torch.Tensor]:
    """Encode scenes as `bat train` does once for each."""
    settings = RenderSettings(model.config.seconds)
    sounds = [waveform for _, waveform in (GivenScenes(dataset, [scene], settings)[0] for scene in scenes)]
    return model.encode(torch.stack(sounds))


def epoch(course: Course, hear: Callable[[list[int]], Encoding]) -> list[float]:
    """One epoch from the same start; the loss of each step."""
    model = course.model
    parts = [model.projector, model.llm]
    before = [{name: value.clone() for name, value in part.state_dict().items()} for part in parts]
    for part in parts:
        part.requires_grad_(True)
    objective = AnswerObjective(model).train()
    if model.sources is not None:
        model.sources.eval()  # frozen, like the encoder
    optimizer = torch.optim.AdamW([p for part in parts for p in part.parameters()], lr=1e-3, fused=True)
    losses = []
    for tokens, scenes in zip(course.tokens, course.batches, strict=True):
        loss = sum(objective(hear(scenes), tokens).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    for part, state in zip(parts, before, strict=True):
        part.load_state_dict(state)
    return losses


def ours(course: Course) -> list[float]:
    return epoch(course, lambda scenes: Encoding(course.cache.get(scenes)))


def fresh(course: Course) -> list[float]:
    """Without a cache: each step renders and encodes its scenes; here, in the same process."""
    clear_cache()
    items = GivenScenes(course.dataset, course.scenes, RenderSettings(course.model.config.seconds))
    made = FreshScenes(items, Loader, course.model.encode, "cpu", BadScenes(course.dataset.root, SILENT))
    stream = made.stream([course.scenes[number] for number in scenes] for scenes in course.batches)
    return epoch(course, lambda _: next(stream).encoding)


def plain(course: Course) -> list[float]:
    """The reference's protocol: each step renders its scenes and encodes them with the frozen encoder."""

    def hear(scenes: list[int]) -> Encoding:
        with torch.no_grad():
            return plain_hear(course.model, course.dataset, [course.scenes[number] for number in scenes])

    return epoch(course, hear)


def lines(quick: bool) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        tiny = PRESETS["tiny"]
        course = make_course(Path(name) / "tiny", tiny, 8 if quick else 64, 32)
        yield _line("train, tiny, an epoch", course, 3)
        yield _fresh_line("train, tiny, no cache", course, 3)
        # The published encoder hears 10 s, and is the larger part of a step whatever the language model.
        large = replace(tiny, encoder=EncoderConfig(), sources=None)
        course = make_course(Path(name) / "large", large, 1 if quick else 4, 4)
        yield _line("train, published encoder", course, 1 if quick else 3)
        course = make_course(Path(name) / "alone", large, 8, 8, each=1)  # as in the released data
        yield _fresh_line("train, published encoder, no cache", course, 1 if quick else 3)


def _line(name: str, course: Course, rounds: int) -> Line:
    def fill() -> None:
        clear_cache()
        encode_scenes(course.model, course.dataset, course.scenes)

    once = compare("", fill, None, 1).ours
    questions = sum(map(len, course.batches))
    line = compare(name, lambda: ours(course), lambda: plain(course), rounds, questions)
    note = f"per question; once for all epochs, to fill the cache: {once:.2f} s, an epoch {line.ours * questions:.2f} s"
    return line._replace(note=note)


def _fresh_line(name: str, course: Course, rounds: int) -> Line:
    questions = sum(map(len, course.batches))
    note = "per question, rendering included, which workers do beside the step where there are processors for them"
    return compare(name, lambda: fresh(course), lambda: plain(course), rounds, questions, note)


def growth(quick: bool) -> Iterator[Line]:
    """Against the number of questions."""
    with tempfile.TemporaryDirectory() as name:
        for scenes in (1, 3, 10) if quick else (1, 3, 10, 30, 100):
            course = make_course(Path(name) / str(scenes), PRESETS["tiny"], scenes, 32)
            yield compare(f"train, per question of {4 * scenes}", lambda c=course: ours(c), None, 3, 4 * scenes)
