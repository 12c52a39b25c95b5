"""Measure the contribution of each part of a trained model: give the part another scene, and compare the scores.

    python examples/ablate.py RUN DATA [--split dev] [--limit N] [--output FOLDER]

Prints a table with a row per part and a column per score: the score of the whole model, then the change in
percentage points by ablating the part, with 95 % intervals of a bootstrap over scenes, paired with the whole
model's answers.

- `tokens of X`: the projector gets the tokens of encoder X for another scene.
- `Q-Former's queries`: the output of the queries is that of another question about another scene.
- `mention`: the words of the question carry the places of another scene's events.
- `all audio`: all of these; every encoder's tokens are of another scene.
- `silence`: all audio tokens are zero (`bat decode --zero-audio`), which leaves the language model's prior.
- `mirrored`: nothing is ablated; the ears are exchanged, and left and right in the question and in what is answered.

FOLDER keeps the answers as JSONL, a file per part, for `bat score`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from batcli.audio.render import RenderSettings
from batcli.core.errors import BatError, InputError
from batcli.core.jsonl import write_records
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question, Scene
from batcli.decode import load_model
from batcli.evaluation.stats import Score
from batcli.model.answering import LoadedModel, answer
from batcli.model.bat import BAT, Encoding, encode_fixed_batch
from batcli.model.tokens import TextBatch
from batcli.options import DecodeOptions, ScoreOptions
from batcli.score import score
from batcli.training.scenes import ENCODE_BATCH, GivenScenes, RenderError, threads_for

WHOLE, QUERIES, MENTION, ALL_AUDIO, SILENCE = "whole", "Q-Former's queries", "mention", "all audio", "silence"
MIRRORED = "mirrored"
BATCH = 32  # questions
OPPOSITE = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
TOKENS = "tokens of "
COLUMNS = {  # heading → (question type, metric)
    "A label F1": ("CLASSIFICATION", "label_f1"),
    "B DoA": ("DOA", "doa_acc"),
    "B DER": ("DOA", "der"),
    "C label F1": ("MIXUP_SINGLE_CLASSIFICATION", "label_f1"),
    "D DoA": ("MIXUP_SINGLE_DOA", "doa_acc"),
    "D DER": ("MIXUP_SINGLE_DOA", "der"),
    "E direction": ("MIXUP_DIRECTION", "binary_acc"),
    "E distance": ("MIXUP_DISTANCE_BOTH", "binary_acc"),
    "E which": ("MIXUP_NONBINARY_SOURCE", "source_acc"),
    "E where": ("MIXUP_NONBINARY_DIRECTION", "choice_acc"),
    "E DER between": ("MIXUP_NONBINARY_DISTANCE", "der"),
}


class Sample(NamedTuple):
    """A question with the encodings (batches of one) of its scene and of another scene."""

    question: Question
    encoding: Encoding
    other: Encoding


class Ablation:
    """Replaces methods of a BAT so that one part gets another scene: `other`, to be set before each batch."""

    def __init__(self, model: BAT, part: str) -> None:
        self.model, self.part = model, part
        self.other = Encoding()
        self._embed, self._mention = model.audio_embeddings, model.projector.mention

    def audio_embeddings(self, encoding: Encoding, prompts: TextBatch | None = None) -> Tensor:
        if self.part.startswith(TOKENS):
            name = self.part.removeprefix(TOKENS)
            return self._embed(Encoding({**encoding, name: self.other[name]}), prompts)
        audio = self._embed(encoding, prompts)
        if self.part == QUERIES:
            queries = self.model.config.qformer.queries
            audio = torch.cat([audio[:, :queries].roll(1, 0), audio[:, queries:]], 1)
        return audio

    def mention(self, ids: Tensor, embedded: Tensor, tokens: Tensor, kind: str = "sources") -> Tensor:
        if self.part == MENTION:  # the events of this scene with the places of the other
            format = self.model.token_kinds[kind]
            other = format.split(self.other[kind])
            # A token that names no event has no place; the first always does.
            values = other.values.where((other.shares > 0).any(-1, keepdim=True), other.values[:, :1])
            tokens = torch.cat([tokens[..., : -format.dim], values], -1)
        return self._mention(ids, embedded, tokens, kind)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Context in which the methods are replaced."""
        with (
            patch.object(self.model, "audio_embeddings", self.audio_embeddings),
            patch.object(self.model.projector, "mention", self.mention),
        ):
            yield


def parts_of(model: BAT) -> list[str]:
    """Names of the parts that can be ablated."""
    named = any(kind.names for kind in model.token_kinds.values())
    tokens = [f"{TOKENS}{name}" for name in model.encoders]
    return [*tokens, QUERIES, *([MENTION] if named else []), ALL_AUDIO, SILENCE]


@torch.inference_mode()
def encode(
    loaded: LoadedModel, dataset: Dataset, scenes: Sequence[Scene], mirrored: bool = False
) -> dict[Scene, Encoding]:
    """Encode each scene that can be rendered as a batch of one; `mirrored`: with the ears exchanged.

    Raises InputError, with the reason for the first, where none can be rendered.
    """
    items, encodings = GivenScenes(dataset, scenes, RenderSettings(loaded.seconds, rendering=loaded.rendering)), {}
    bad: list[RenderError] = []
    with threads_for(loaded.model):
        for start in range(0, len(scenes), ENCODE_BATCH):
            rendered = {scenes[n]: items[n][1] for n in range(start, min(start + ENCODE_BATCH, len(scenes)))}
            good = {scene: audio for scene, audio in rendered.items() if not isinstance(audio, RenderError)}
            bad += [audio for audio in rendered.values() if isinstance(audio, RenderError)]
            if good:
                waveforms = [audio.flip(0) if mirrored else audio for audio in good.values()]
                encoding = encode_fixed_batch(loaded.model.encode, waveforms, ENCODE_BATCH, loaded.device)
                encodings.update({scene: encoding.select([row]) for row, scene in enumerate(good)})
    if bad and not encodings:
        raise InputError(f"no scene can be rendered; the first: {bad[0].error['message']}")
    if bad and not mirrored:
        print(f"{len(bad)} scenes cannot be rendered; the first: {bad[0].error['message']}", file=sys.stderr)
    return encodings


def make_samples(questions: Sequence[Question], encodings: dict[Scene, Encoding]) -> list[Sample]:
    """Pair each question about an encoded scene with another scene, drawn once; sorted by length."""
    scenes = list(encodings)
    order = np.random.default_rng(0).permutation(len(scenes))
    others = {scenes[here]: scenes[there] for here, there in zip(order, np.roll(order, 1), strict=True)}
    samples = [Sample(q, encodings[q.scene], encodings[others[q.scene]]) for q in questions if q.scene in encodings]
    return sorted(samples, key=lambda sample: len(sample.question.question))


def exchange_sides(text: str) -> str:
    """The text with left and right exchanged."""
    return re.sub(rf"\b({'|'.join(OPPOSITE)})\b", lambda word: OPPOSITE[word[0]], text)


@torch.inference_mode()
def predict(loaded: LoadedModel, samples: Sequence[Sample], part: str) -> Iterator[dict]:
    """Yield the prediction records of the model with one part ablated."""
    loaded = replace(loaded, zero_audio=part == SILENCE)
    ablation = Ablation(loaded.model, part)
    with ablation.installed(), threads_for(loaded.model):
        for start in range(0, len(samples), BATCH):
            questions, encodings, others = zip(*samples[start : start + BATCH], strict=True)
            ablation.other = Encoding.concat(others)
            encoding = ablation.other if part == ALL_AUDIO else Encoding.concat(encodings)
            texts = [question.question for question in questions]
            if part == MIRRORED:
                texts = [exchange_sides(text) for text in answer(loaded, list(map(exchange_sides, texts)), encoding)]
            else:
                texts = answer(loaded, texts, encoding)
            yield from ({**q.to_dict(), "prediction": text} for q, text in zip(questions, texts, strict=True))


def changes(whole: Path, ablated: Path) -> dict[str, Score]:
    """Column → change of the score from the predictions `whole` to `ablated`."""
    comparison = score(ScoreOptions(predictions=[ablated], against=whole)).comparison
    assert comparison is not None
    differences = {name: comparison.by_type.get(kind, {}).get(metric) for name, (kind, metric) in COLUMNS.items()}
    return {name: difference.score for name, difference in differences.items() if difference is not None}


def table(whole: Path, ablated: dict[str, Path]) -> str:
    """Write a Markdown table: the whole model's scores, then the changes of each part's predictions."""
    system = score(ScoreOptions(predictions=[whole])).systems[0]
    scores = {name: system.find(".".join(column)) for name, column in COLUMNS.items()}
    shown = {name: value for name, value in scores.items() if value is not None}
    rows = [["", *shown], ["---"] * (1 + len(shown)), [WHOLE, *(f"{100 * each.value:.1f}" for each in shown.values())]]
    rows.append(["n", *(str(system.by_type[COLUMNS[name][0]].n) for name in shown)])
    for part, path in ablated.items():
        by_column = changes(whole, path)
        cells = [
            f"{100 * c.value:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]"
            for c in (by_column[name] for name in shown)
        ]
        rows.append([part, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ablate(
    run: Path, data: Path, split: str, output: Path, limit: int | None = None, follow_links: bool = False
) -> str:
    """Ablate every part and return the table; the predictions go to `output`, a JSONL file per part."""
    loaded = load_model(DecodeOptions(run=run, data=data, split=split))
    dataset = open_dataset(data, follow_links)
    questions = list(islice(dataset.questions(split), limit))
    scenes = list(dict.fromkeys(q.scene for q in questions))
    samples = make_samples(questions, encode(loaded, dataset, scenes))
    mirrored = make_samples(questions, encode(loaded, dataset, scenes, mirrored=True))
    output.mkdir(parents=True, exist_ok=True)
    parts = (WHOLE, *parts_of(loaded.model), MIRRORED)
    files = {part: output / f"{part.replace(' ', '-')}.jsonl" for part in parts}
    for part, file in files.items():
        write_records(file, predict(loaded, mirrored if part == MIRRORED else samples, part))
    return table(files.pop(WHOLE), files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, help="only the first N questions [default: all]")
    parser.add_argument("--output", type=Path, help="folder for the answers [default: none are kept]")
    parser.add_argument("--follow-links", action="store_true", help="read clips and BRIRs through links")
    given = parser.parse_args()
    try:
        with TemporaryDirectory() as folder:
            output = given.output or Path(folder)
            print(ablate(given.run, given.data, given.split, output, given.limit, given.follow_links))
    except BatError as error:
        parser.exit(error.exit_code, f"ablate.py: {error}\n")


if __name__ == "__main__":
    main()
