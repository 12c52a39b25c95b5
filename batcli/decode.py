"""`bat decode`: answer all questions of a split, as JSONL, or one question about one recording, as text.

Each distinct scene is rendered and encoded once, whatever the number of its questions; questions
are answered in batches of like length and written in their own order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from batcli.audio.io import read_binaural
from batcli.audio.render import RenderSettings
from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import sha256
from batcli.core.progress import SILENT, Reporter
from batcli.core.streams import Record, require_output, write_stream
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question
from batcli.model import checkpoint
from batcli.model.answering import LoadedModel, answer, encode_audio
from batcli.model.bat import Encoding
from batcli.options import DecodeOptions, require
from batcli.training.encodings import Encodings, encode_windows
from batcli.training.scenes import threads_for

DECIDING = ["split", "limit", "num_beams", "max_new_tokens", "zero_audio", "precision", "quantize", "attention"]
"""Options that change the answers, beside the run and the questions."""
Numbered = tuple[int, Question]  # (place in the split, question)


def decode(options: DecodeOptions, reporter: Reporter = SILENT) -> str | None:
    """Answer one question about one recording (returned), or all questions of a split (written).

    Raises InputError before any work when an input or the output cannot be used, Stopped after a
    signal (what is answered is kept), TooManyBad when more questions failed than `max_bad`.
    """
    if options.audio is not None and options.data is None:
        return _answer_recording(options, options.audio, reporter)
    if options.data is not None and options.audio is None:
        _answer_split(options, open_dataset(options.data), reporter)
        return None
    raise InputError("give either DATA or --audio and --question", hint="see `bat decode --help`")


def load_model(options: DecodeOptions) -> LoadedModel:
    """The model of a finished run, answering as the options say. Raises InputError for any other directory."""
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    model, tokenizer, _ = checkpoint.load_run(
        options.run, device, dtype, options.quantize, options.attention, options.llm
    )
    if tokenizer is None:
        raise InputError("holds no tokenizer", options.run, "the language model's directory had none")
    return LoadedModel(
        model, tokenizer, device, options.num_beams, options.max_new_tokens, options.zero_audio, rendering_of(options)
    )


def rendering_of(options: DecodeOptions) -> str:
    """How the scenes are rendered: as asked for, else as those that the run was trained on."""
    return options.rendering or checkpoint.read_rendering(options.run)


def _answer_recording(options: DecodeOptions, file: Path, reporter: Reporter) -> str | None:
    """The answer to one question about one recording; None of a dry run."""
    question: str = require(options, "question")
    checkpoint.require_finished(options.run)
    audio = read_binaural(file, SAMPLE_RATE, RenderSettings(rendering=rendering_of(options)).resampler)
    if options.dry_run:
        reporter.info(f"{file}: {audio.shape[1] / SAMPLE_RATE:.1f} s")
        return None
    loaded = load_model(options)
    if audio.shape[1] > loaded.samples:
        reporter.warn(f"{file}: the model hears the first {loaded.seconds:g} s")
    return answer(loaded, [question], encode_audio(loaded, audio))[0]


def _answer_split(options: DecodeOptions, dataset: Dataset, reporter: Reporter) -> None:
    """Answer the questions of a split, to standard output or to a file."""
    output: Path = require(options, "output")
    file = dataset.questions_file(options.split)
    questions = list(islice(dataset.questions(options.split), options.limit))
    scenes = {question.scene for question in questions}
    if not questions:
        raise InputError("no questions", file)
    checkpoint.require_finished(options.run)
    require_output(output)
    reporter.info(f"{len(questions):,} questions about {len(scenes):,} scenes, {rendering_of(options)} rendering")
    if options.dry_run:
        return

    def make(places: Sequence[int]) -> Iterator[tuple[int, Record]]:
        numbered = [(place, questions[place]) for place in places]
        return _answers(load_model(options), options, dataset, numbered, reporter)

    about = {"seed": options.seed, "questions": len(questions)}
    bad = write_stream(output, len(questions), make, _facts(options, file), about, reporter)
    if bad > options.max_bad:
        raise TooManyBad(
            f"{bad:,} of {len(questions):,} questions could not be answered; see 'error' in the predictions"
        )


def _facts(options: DecodeOptions, file: Path) -> dict[str, Any]:
    """Everything that decides the answers: for the manifest, and to tell whether a stopped run can go on."""
    weights = [options.run / name for name in (checkpoint.ENCODER, checkpoint.PROJECTOR)]
    folders = [options.run / name for name in (checkpoint.LLM, checkpoint.ADAPTER) if (options.run / name).is_dir()]
    return {
        "run": str(options.run),
        "weights_sha256": [sha256(path) for path in (*weights, *folders)],
        "questions_sha256": sha256(file),
        "rendering": rendering_of(options),
        **{name: getattr(options, name) for name in DECIDING},
    }


def _answers(
    loaded: LoadedModel, options: DecodeOptions, dataset: Dataset, questions: Sequence[Numbered], reporter: Reporter
) -> Iterator[tuple[int, Record]]:
    """(place, prediction record) of each question, in the order given."""
    scenes = [question.scene for _, question in questions]
    for window, encodings in encode_windows(loaded, dataset, scenes, options.workers, reporter):
        yield from _answer_window(loaded, questions[window], encodings, options.batch_size, reporter)


def _answer_window(
    loaded: LoadedModel, window: Sequence[Numbered], encodings: Encodings, size: int, reporter: Reporter
) -> Iterator[tuple[int, Record]]:
    """The same for one window: in batches of `size` questions of like length, then in the order given."""
    found: dict[int, Record] = {}
    audible = []
    for position, question in window:
        encoding = encodings[question.scene]
        if isinstance(encoding, Encoding):
            audible.append((position, question, encoding))
        else:
            found[position] = {**question.to_dict(), "prediction": None, "error": encoding}
    audible.sort(key=lambda item: len(item[1].question))
    with threads_for(loaded.model):
        for start in reporter.track(range(0, len(audible), size), "answering"):
            batch = audible[start : start + size]
            texts = answer(loaded, [q.question for _, q, _ in batch], Encoding.concat([e for _, _, e in batch]))
            for (position, question, _), text in zip(batch, texts, strict=True):
                found[position] = {**question.to_dict(), "prediction": text}
    for position, _ in window:
        yield position, found[position]
