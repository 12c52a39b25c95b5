"""How much each part of a trained model carries: the part works on another scene, and the scores are compared.

    python examples/ablate.py RUN DATA [--split dev] [--limit 0] [--output FOLDER]

One line a part, one column a score: the score of the whole model, then the change in percentage points without
the part, with 95 % intervals of a bootstrap over scenes that is paired with the whole model's answers.

- `tokens of X`: the projector is given the tokens that encoder X made of another scene.
- `Q-Former's queries`: the queries' output is that of another question about another scene.
- `mention`: the words of the question carry the places of another scene's events.
- `everything heard`: all of these, the question alone remains: another scene in the encoders' place.
- `silence`: no audio at all, which leaves the language model's prior (`bat decode --zero-audio`).

FOLDER keeps the answers, a JSONL file a part, for `bat score`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from batcli.core.jsonl import write_records
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question, Scene
from batcli.decode import LoadedModel, answer, load_model
from batcli.evaluation.stats import Score
from batcli.model.bat import BAT, Encoding, encode_fixed_batch, stack
from batcli.model.tokens import Tokens
from batcli.options import DecodeOptions, ScoreOptions
from batcli.score import score
from batcli.training.scenes import ENCODE_BATCH, GivenScenes, RenderError, threads_for

WHOLE, QUERIES, MENTION, HEARD, SILENCE = "whole", "Q-Former's queries", "mention", "everything heard", "silence"
TOKENS = "tokens of "
COLUMNS = {
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


@dataclass
class Asked:
    """A question with the encodings (batches of one) of its scene and of another."""

    question: Question
    encoding: Encoding
    other: Encoding


class Ablated:
    """The methods of a BAT with which one part works on another scene's tokens: `other`, set for each batch."""

    def __init__(self, model: BAT, part: str) -> None:
        self.model, self.part = model, part
        self.other = Encoding()
        self._embed, self._mention = model.audio_embeddings, model.projector.mention

    def audio_embeddings(self, encoding: Encoding, prompts: Tokens | None = None) -> Tensor:
        if self.part.startswith(TOKENS):
            name = self.part.removeprefix(TOKENS)
            return self._embed(Encoding({**encoding, name: self.other[name]}), prompts)
        audio = self._embed(encoding, prompts)
        if self.part == QUERIES:
            queries = self.model.config.qformer.queries
            audio = torch.cat([audio[:, :queries].roll(1, 0), audio[:, queries:]], 1)
        return audio

    def mention(self, ids: Tensor, embedded: Tensor, tokens: Tensor, kind: str = "sources") -> Tensor:
        if self.part == MENTION:  # the names of this scene, the places of the other
            tokens = torch.cat([tokens[..., :1], self.other[kind][..., 1:]], -1)
        return self._mention(ids, embedded, tokens, kind)

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as patches:
            patches.enter_context(patch.object(self.model, "audio_embeddings", self.audio_embeddings))
            patches.enter_context(patch.object(self.model.projector, "mention", self.mention))
            yield


def parts_of(model: BAT) -> list[str]:
    named = any(encoder.named for encoder in model.encoders.values())
    tokens = [f"{TOKENS}{name}" for name in model.encoders]
    return [*tokens, QUERIES, *([MENTION] if named else []), HEARD, SILENCE]


@torch.inference_mode()
def encode(listener: LoadedModel, dataset: Dataset, scenes: Sequence[Scene]) -> dict[Scene, Encoding]:
    """Each scene that can be rendered, as a batch of one."""
    items, found = GivenScenes(dataset, scenes, listener.settings), {}
    with threads_for(listener.model):
        for start in range(0, len(scenes), ENCODE_BATCH):
            rendered = {scenes[n]: items[n][1] for n in range(start, min(start + ENCODE_BATCH, len(scenes)))}
            good = {scene: sound for scene, sound in rendered.items() if not isinstance(sound, RenderError)}
            if good:
                encoding = encode_fixed_batch(listener.model, list(good.values()), ENCODE_BATCH, listener.device)
                found.update({scene: encoding.rows([row]) for row, scene in enumerate(good)})
    return found


def ask(listener: LoadedModel, questions: Sequence[Question], heard: dict[Scene, Encoding]) -> list[Asked]:
    """The questions about scenes that are heard, each with another scene, drawn once; short questions first."""
    scenes = list(heard)
    order = np.random.default_rng(0).permutation(len(scenes))
    others = {scenes[here]: scenes[there] for here, there in zip(order, np.roll(order, 1), strict=True)}
    asked = [Asked(q, heard[q.scene], heard[others[q.scene]]) for q in questions if q.scene in heard]
    return sorted(asked, key=lambda one: len(one.question.question))


@torch.inference_mode()
def predict(listener: LoadedModel, asked: Sequence[Asked], part: str) -> Iterator[dict]:
    """Prediction records without the part."""
    listener = replace(listener, options=replace(listener.options, zero_audio=part == SILENCE))
    ablated = Ablated(listener.model, part)
    size = listener.options.batch_size
    with ablated.installed(), threads_for(listener.model):
        for start in range(0, len(asked), size):
            batch = asked[start : start + size]
            ablated.other = stack([one.other for one in batch])
            heard = ablated.other if part == HEARD else stack([one.encoding for one in batch])
            texts = answer(listener, [one.question.question for one in batch], heard)
            yield from ({**one.question.to_dict(), "prediction": text} for one, text in zip(batch, texts, strict=True))


def lost(whole: Path, without: Path) -> dict[str, Score]:
    """Column → the change from `whole` to `without`."""
    comparison = score(ScoreOptions(predictions=[without], against=whole)).comparison
    assert comparison is not None
    found = {name: comparison.by_type.get(kind, {}).get(metric) for name, (kind, metric) in COLUMNS.items()}
    return {name: difference.score for name, difference in found.items() if difference is not None}


def table(whole: Path, without: dict[str, Path]) -> str:
    """Markdown: the whole model's scores, then what changes without each part."""
    system = score(ScoreOptions(predictions=[whole])).systems[0]
    scores = {name: system.find(".".join(column)) for name, column in COLUMNS.items()}
    shown = {name: value for name, value in scores.items() if value is not None}
    rows = [["", *shown], ["---"] * (1 + len(shown)), [WHOLE, *(f"{100 * each.value:.1f}" for each in shown.values())]]
    rows.append(["n", *(str(system.by_type[COLUMNS[name][0]].n) for name in shown)])
    for part, path in without.items():
        changes = lost(whole, path)
        cells = [
            f"{100 * c.value:+.1f} [{100 * c.low:+.1f}, {100 * c.high:+.1f}]" for c in (changes[name] for name in shown)
        ]
        rows.append([part, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def ablate(run: Path, data: Path, split: str, output: Path, limit: int = 0) -> str:
    """The table; the answers go to `output`, a JSONL file a part."""
    listener = load_model(DecodeOptions(run=run, data=data, split=split, device="cpu"))
    dataset = open_dataset(data)
    questions = list(islice(dataset.questions(split), limit or None))
    heard = encode(listener, dataset, list(dict.fromkeys(question.scene for question in questions)))
    asked = ask(listener, questions, heard)
    output.mkdir(parents=True, exist_ok=True)
    files = {part: output / f"{part.replace(' ', '-')}.jsonl" for part in (WHOLE, *parts_of(listener.model))}
    for part, file in files.items():
        write_records(file, predict(listener, asked, part))
    whole = files.pop(WHOLE)
    return table(whole, files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--limit", type=int, default=0, help="only the first questions; 0: all")
    parser.add_argument("--output", type=Path, help="folder for the answers [default: none are kept]")
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        print(ablate(given.run, given.data, given.split, given.output or Path(folder), given.limit))


if __name__ == "__main__":
    main()
