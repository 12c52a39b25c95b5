"""`bat decode`: answer all questions of a split, as JSONL, or one question about one recording, as text; or write
what the encoders hear of every clip of a split, as JSONL.

Each distinct scene is rendered and encoded once, whatever the number of its questions; questions
are answered in batches of like length and written in their own order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from batcli.audio.io import onset, read_binaural, silent_ear
from batcli.audio.render import RenderSettings
from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import sha256
from batcli.core.progress import SILENT, Reporter
from batcli.core.shards import content_key
from batcli.core.streams import Record, require_output, write_stream
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.fixed_scenes import fixed_scenes
from batcli.model import checkpoint
from batcli.model.answering import LoadedModel, answer, encode_audio
from batcli.model.device import own_device, set_arithmetic
from batcli.options import DecodeOptions, refuse_given, require
from batcli.training.hearing import Listener, hear_scenes
from batcli.training.split_answers import answer_split

DECIDING = ["split", "limit", "num_beams", "max_new_tokens", "zero_audio", "precision", "quantize", "attention"]
"""Options that change the answers, beside the run and the questions."""
DECIDING_HEARD = ["split", "limit", "seed", "sources", "true_names"]
"""The same, with --encoder."""
OF_ANSWERS = ["question", "num_beams", "max_new_tokens", "batch_size", "zero_audio"]
OF_LANGUAGE_MODEL = ["precision", "llm", "quantize", "attention"]
OF_HEARING = ["sources", "true_names"]
OF_SPLIT = ["split", "output", "overwrite", "batch_size", "limit", "workers", "max_bad"]


def decode(options: DecodeOptions, reporter: Reporter = SILENT) -> str | None:
    """Answer one question about one recording (returned), or all questions of a split (written).

    Raises InputError before any work when an input or the output cannot be used, Stopped after a
    signal (what is answered is kept), TooManyBad when more questions failed than `max_bad`.
    """
    if options.encoder:
        if options.data is None or options.audio is not None:
            raise InputError("measures the encoder on the clips of DATA", "--encoder", "give DATA, and no --audio")
        refuse_given(options, [*OF_ANSWERS, *OF_LANGUAGE_MODEL], "has no effect with --encoder")
        _hear_split(options, open_dataset(options.data, options.follow_links), reporter)
        return None
    refuse_given(options, OF_HEARING, "has no effect without --encoder")
    if options.audio is not None and options.data is None:
        refuse_given(options, [*OF_SPLIT, "follow_links"], "has no effect without DATA")
        return _answer_recording(options, options.audio, reporter)
    if options.data is not None and options.audio is None:
        refuse_given(options, ["question"], "has no effect without --audio")
        _answer_split(options, open_dataset(options.data, options.follow_links), reporter)
        return None
    raise InputError("give either DATA or --audio and --question", hint="see `bat decode --help`")


def load_model(options: DecodeOptions, reporter: Reporter = SILENT) -> LoadedModel:
    """The model of a finished run, answering as the options say. Raises InputError for any other directory."""
    device = _device(options, options.precision, reporter)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    model, tokenizer, _ = checkpoint.load_run(
        options.run, device, dtype, options.quantize, options.attention, options.llm
    )
    if tokenizer is None:
        raise InputError("holds no tokenizer", options.run, "the language model's directory had none")
    return LoadedModel(
        model, tokenizer, device, options.num_beams, options.max_new_tokens, options.zero_audio, rendering_of(options)
    )


def _device(options: DecodeOptions, precision: str, reporter: Reporter) -> torch.device:
    device = own_device(options.device)
    reporter.info(set_arithmetic(device, precision))
    return device


def rendering_of(options: DecodeOptions) -> str:
    """How the scenes are rendered: as asked for, else as those that the run was trained on."""
    return options.rendering or checkpoint.read_rendering(options.run)


def _answer_recording(options: DecodeOptions, file: Path, reporter: Reporter) -> str | None:
    """The answer to one question about one recording; None of a dry run."""
    question: str = require(options, "question")
    checkpoint.require_finished(options.run)
    audio = read_binaural(file, SAMPLE_RATE, RenderSettings(rendering=rendering_of(options)).resampler)
    if ear := silent_ear(audio):
        reporter.warn(f"{file}: the {ear} channel is silent, which no ear is; do not trust any place in the answer")
    if options.dry_run:
        reporter.info(f"{file}: {audio.shape[1] / SAMPLE_RATE:.1f} s")
        return None
    loaded = load_model(options, reporter)
    if audio.shape[1] > loaded.samples:
        reporter.warn(f"{file}: the model hears the first {loaded.seconds:g} s")
        if onset(audio) >= loaded.samples:
            what = f"is silent in its first {loaded.seconds:g} s"
            raise InputError(what, file, "cut off the silence before its sound")
    return answer(loaded, [question], encode_audio(loaded, audio))[0]


def _answer_split(options: DecodeOptions, dataset: Dataset, reporter: Reporter) -> None:
    """Answer the questions of a split, to standard output or to a file."""
    output: Path = require(options, "output")
    file = dataset.questions_file(options.split)
    questions = list(islice(dataset.questions(options.split), options.limit))
    scenes = {question.scene for question in questions}
    if not questions:
        raise InputError("no questions", file)
    dataset.require_inside(scenes)
    checkpoint.require_finished(options.run)
    require_output(output)
    reporter.info(f"{len(questions):,} questions about {len(scenes):,} scenes, {rendering_of(options)} rendering")
    if options.dry_run:
        return

    def make(places: Sequence[int]) -> Iterator[tuple[int, Record]]:
        asked = [(place, questions[place]) for place in places]
        return answer_split(
            load_model(options, reporter), dataset, asked, options.batch_size, options.workers, reporter
        )

    weights = [checkpoint.ENCODER, checkpoint.PROJECTOR, checkpoint.LLM, checkpoint.ADAPTER]
    facts = _facts(options, DECIDING, weights, questions_sha256=sha256(file))
    about = {"seed": options.seed, "questions": len(questions)}
    bad = write_stream(output, len(questions), make, facts, about, reporter, options.overwrite)
    _require_few(bad, options, f"{len(questions):,} questions could not be answered")


def _hear_split(options: DecodeOptions, dataset: Dataset, reporter: Reporter) -> None:
    """Write what the run's encoders hear in every clip of a split, to standard output or to a file."""
    output: Path = require(options, "output")
    config = checkpoint.read_config(checkpoint.require_finished(options.run))
    if len(dataset.labels) != config.n_classes:
        what = f"knows {config.n_classes:,} events, {dataset.path(dataset.labels_file)} has {len(dataset.labels):,}"
        raise InputError(what, options.run, "measure it on the labels that it was trained on")
    if options.true_names and config.sources is None:
        raise InputError("the run has no source tokens, and only these have names", "--true-names", "leave it out")
    counts = {None: [1], "1": [1], "2": [2], "both": [1, 2]}[options.sources]
    scenes = fixed_scenes(dataset, options.split, counts, options.seed, options.limit)
    dataset.require_inside(one.scene for one in scenes)
    require_output(output)
    names = "true" if options.true_names else "heard"
    of = f", places of the {names} events" if config.sources else ""
    reporter.info(f"{len(scenes):,} scenes, {rendering_of(options)} rendering{of}: {', '.join(config.encoders)}")
    if options.dry_run:
        return

    def make(places: Sequence[int]) -> Iterator[tuple[int, Record]]:
        device = _device(options, "fp32", reporter)
        settings = RenderSettings(config.seconds, rendering=rendering_of(options))
        encoders, _ = checkpoint.load_encoders(options.run, device)
        listener = Listener(encoders, device, settings, options.true_names)
        return hear_scenes(listener, dataset, scenes, places, options.workers, reporter)

    facts = _facts(options, DECIDING_HEARD, [checkpoint.ENCODER], scenes_key=content_key(scenes=scenes))
    about = {"scenes": len(scenes)}
    bad = write_stream(output, len(scenes), make, facts, about, reporter, options.overwrite)
    _require_few(bad, options, f"{len(scenes):,} scenes could not be heard")


def _require_few(bad: int, options: DecodeOptions, of_all: str) -> None:
    if bad > options.max_bad:
        raise TooManyBad(f"{bad:,} of {of_all}; see 'error' in {options.output}")


def _facts(options: DecodeOptions, deciding: Sequence[str], weights: Sequence[str], **inputs: str) -> dict[str, Any]:
    """Everything that decides the records: for the manifest, and to tell whether a stopped run can go on.

    `weights`: files and folders of the run; those that it does not have are left out.
    """
    files = [options.run / name for name in weights]
    return {
        "run": str(options.run),
        "weights_sha256": [sha256(path) for path in files if path.exists()],
        **inputs,
        "rendering": rendering_of(options),
        **{name: getattr(options, name) for name in deciding},
    }
