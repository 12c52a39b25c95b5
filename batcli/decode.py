"""`bat decode`: questions in, answers out: for a split as JSONL, for one recording as text.

Each distinct scene is rendered and encoded once, whatever the number of its questions; questions
are answered in batches of like length and written in their own order. While they are answered,
workers render what comes next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from batcli.audio.io import read_binaural
from batcli.audio.render import RenderSettings
from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import STDIO, require_writable_file, sha256, write_json, writing
from batcli.core.jsonl import dump
from batcli.core.manifest import describe
from batcli.core.parallel import default_jobs, main_rank_lock, rank_and_world, share
from batcli.core.progress import SILENT, Reporter
from batcli.core.shards import ResumableShards, content_key
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question, Scene
from batcli.data.windows import Window, plan_windows
from batcli.model import checkpoint
from batcli.model.bat import BAT, Encoding, encode_fixed_batch, stack
from batcli.model.tokens import collate_prompts, encode, padding_id
from batcli.model.tokens import decode as to_text
from batcli.options import DecodeOptions, require
from batcli.training.scenes import ENCODE_BATCH, GivenScenes, Loader, RenderError, no_collate, threads_for

WINDOW = 1_024  # questions that are looked at together: sorted by length, their scenes encoded first
KEPT = 1 << 25  # bytes of encodings in memory beside those of the window: 1,300 scenes of `tiny`, 20 of the published
AHEAD = 1 << 25  # bytes of scenes that wait to be encoded, in shared memory, of which containers have 64 MB

Heard = dict[Scene, Encoding | dict[str, str]]
"""Encoding of each scene, or the reason why there is none."""


@dataclass
class LoadedModel:
    """A model that answers."""

    options: DecodeOptions
    model: BAT
    tokenizer: PreTrainedTokenizerBase
    device: torch.device

    @property
    def settings(self) -> RenderSettings:
        return RenderSettings(self.model.config.encoder.seconds)


def decode(options: DecodeOptions, reporter: Reporter = SILENT) -> str | None:
    """Answer one question about one recording (returned), or all questions of a split (written).

    Raises InputError before any work when an input or the output cannot be used, Stopped after a
    signal (what is answered is kept), TooManyBad when more questions failed than `max_bad`.
    """
    if (options.data is None) == (options.audio is None):
        raise InputError("give either DATA or --audio and --question", hint="see `bat decode --help`")
    if options.data is None:
        return _one(options, reporter)
    _split(options, open_dataset(options.data), reporter)
    return None


def load_model(options: DecodeOptions) -> LoadedModel:
    """The model of a finished run, ready to hear and to answer. Raises InputError for what is no such run."""
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
    return LoadedModel(options, model, tokenizer, device)


def _one(options: DecodeOptions, reporter: Reporter) -> str | None:
    require(options, "question")
    assert options.audio is not None
    assert options.question is not None
    audio = read_binaural(options.audio, SAMPLE_RATE)
    checkpoint.require_finished(options.run)
    if options.dry_run:
        reporter.info(f"{options.audio}: {audio.shape[1] / SAMPLE_RATE:.1f} s")
        return None
    listener = load_model(options)
    if audio.shape[1] > listener.settings.length:
        reporter.warn(f"{options.audio}: the model hears the first {listener.settings.seconds:g} s")
    return answer(listener, [options.question], encode_audio(listener, audio))[0]


@torch.inference_mode()
def encode_audio(listener: LoadedModel, audio: np.ndarray) -> Encoding:
    """Binaural (2, n) at 32 kHz, cut or padded to what the model hears → its encoding."""
    length = listener.settings.length
    waveform = torch.zeros(2, length)
    waveform[:, : audio.shape[1]] = torch.from_numpy(audio[:, :length])
    return listener.model.encode(waveform[None].to(listener.device))


@torch.inference_mode()
def answer(listener: LoadedModel, questions: Sequence[str], encoding: Encoding) -> list[str]:
    """The answers to questions about as many scenes, or about one: `encoding` has that many rows, or one."""
    if len(questions) > len(encoding.tokens) == 1:
        encoding = stack([encoding] * len(questions))
    options, tokenizer = listener.options, listener.tokenizer
    pad, end = padding_id(tokenizer), tokenizer.eos_token_id
    prompts = collate_prompts(encode(tokenizer, questions)[0], pad)
    moved = type(prompts)(*(part.to(listener.device) for part in prompts))
    ids = listener.model.generate(
        encoding, moved, pad, end, options.num_beams, options.max_new_tokens, options.zero_audio
    )
    return to_text(tokenizer, ids)


# ---- a split --------------------------------------------------------------------------------------


def _split(options: DecodeOptions, dataset: Dataset, reporter: Reporter) -> None:
    require(options, "output")
    assert options.output is not None
    file = dataset.questions_file(options.split)
    questions = list(islice(dataset.questions(options.split), options.limit or None))
    scenes = {question.scene for question in questions}
    if not questions:
        raise InputError("no questions", file)
    checkpoint.require_finished(options.run)
    if options.output != STDIO:
        require_writable_file(options.output)
    reporter.info(f"{len(questions):,} questions about {len(scenes):,} scenes")
    if options.dry_run:
        return
    if options.output == STDIO:
        bad = _to_stdout(options, dataset, questions, reporter)
    else:
        with main_rank_lock(options.output):
            bad = _to_file(options, dataset, questions, _facts(options, file), reporter)
    if bad > options.max_bad:
        raise TooManyBad(
            f"{bad:,} of {len(questions):,} questions could not be answered; see 'error' in the predictions"
        )


def _facts(options: DecodeOptions, file: Path) -> dict[str, Any]:
    """Everything that decides the answers."""
    weights = [options.run / name for name in (checkpoint.ENCODER, checkpoint.PROJECTOR)]
    folders = [options.run / name for name in (checkpoint.LLM, checkpoint.ADAPTER) if (options.run / name).is_dir()]
    return {
        "run": str(options.run),
        "weights_sha256": [sha256(path) for path in (*weights, *folders)],
        "questions_sha256": sha256(file),
        "split": options.split,
        "limit": options.limit,
        "num_beams": options.num_beams,
        "max_new_tokens": options.max_new_tokens,
        "zero_audio": options.zero_audio,
        "precision": options.precision,
        "quantize": options.quantize,
        "attention": options.attention,
    }


def _to_stdout(options: DecodeOptions, dataset: Dataset, questions: Sequence[Question], reporter: Reporter) -> int:
    bad = 0
    with writing(STDIO) as out:
        numbered = list(enumerate(questions))
        for _, record in _answers(load_model(options), dataset, numbered, reporter):
            bad += record["prediction"] is None
            out.write(dump(record))
            out.flush()
    return bad


def _to_file(
    options: DecodeOptions,
    dataset: Dataset,
    questions: Sequence[Question],
    facts: dict[str, Any],
    reporter: Reporter,
) -> int:
    assert options.output is not None
    manifest = options.output.with_name(options.output.name + ".manifest.json")
    with ResumableShards(options.output, content_key(**facts)) as parts:
        done = parts.finished()
        todo = [item for item in share(list(enumerate(questions))) if item[0] not in done]
        if done:
            reporter.info(f"{len(done):,} are answered already")
        if todo:
            for position, record in _answers(load_model(options), dataset, todo, reporter):
                parts.append(position, record)
        if rank_and_world()[0] != 0:
            return 0
        records = parts.gather(len(questions))
    bad = sum(record["prediction"] is None for record in records)
    manifest.unlink(missing_ok=True)
    with writing(options.output) as out:
        out.writelines(dump(record) for record in records)
    write_json(manifest, describe(**facts, seed=options.seed, questions=len(questions), bad=bad))
    parts.remove()
    return bad


def _answers(
    listener: LoadedModel, dataset: Dataset, questions: Sequence[tuple[int, Question]], reporter: Reporter
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position, prediction record) in the order given."""
    room = max(1, KEPT // listener.model.encoding_bytes)
    windows = plan_windows([question.scene for _, question in questions], WINDOW, room)
    heard: Heard = {}
    if listener.options.zero_audio:  # the same zeros for all, so nothing need be rendered
        heard = dict.fromkeys((q.scene for _, q in questions), encode_audio(listener, np.zeros((2, 0), np.float32)))
        windows = [Window(window.questions, [], []) for window in windows]
    rendered = _render(listener, dataset, windows)
    for window in reporter.track(windows, "windows"):
        with torch.inference_mode():
            _hear(listener, window, rendered, heard, reporter)
            yield from _answer_window(listener, questions[window.questions], heard, reporter)


Rendered = Iterator[list[tuple[int, torch.Tensor | RenderError]]]


def _render(listener: LoadedModel, dataset: Dataset, windows: Sequence[Window]) -> Rendered:
    """What is new in each window, in batches of its own; workers are ahead of whoever asks for them."""
    scenes: list[Scene] = []
    batches: list[range] = []
    for window in windows:
        stop = len(scenes) + len(window.scenes_to_encode)
        batches += [range(n, min(n + ENCODE_BATCH, stop)) for n in range(len(scenes), stop, ENCODE_BATCH)]
        scenes += window.scenes_to_encode
    workers = min(listener.options.workers or default_jobs(), len(batches))
    each = max(1, workers) * ENCODE_BATCH * 2 * 4 * listener.settings.length  # bytes: two ears, 32 bits
    loader = Loader(
        GivenScenes(dataset, scenes, listener.settings),
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=max(2, AHEAD // each) if workers else None,
        collate_fn=no_collate,
    )
    return iter(loader)


def _hear(listener: LoadedModel, window: Window, rendered: Rendered, heard: Heard, reporter: Reporter) -> None:
    """Encode the scenes that are new in the window; forget those that it says."""
    with threads_for(listener.model.encoder):
        for start in reporter.track(range(0, len(window.scenes_to_encode), ENCODE_BATCH), "listening"):
            scenes = window.scenes_to_encode[start : start + ENCODE_BATCH]
            found = dict(zip(scenes, (audio for _, audio in next(rendered)), strict=True))
            heard.update((scene, bad.error) for scene, bad in found.items() if isinstance(bad, RenderError))
            good = {scene: audio for scene, audio in found.items() if not isinstance(audio, RenderError)}
            if good:
                encoding = encode_fixed_batch(listener.model, list(good.values()), ENCODE_BATCH, listener.device)
                heard.update((scene, encoding.row(row)) for row, scene in enumerate(good))
    for scene in window.scenes_to_drop:
        del heard[scene]


def _answer_window(
    listener: LoadedModel, window: Sequence[tuple[int, Question]], heard: Heard, reporter: Reporter
) -> Iterator[tuple[int, dict[str, Any]]]:
    found: dict[int, dict[str, Any]] = {}
    audible = []
    for position, question in window:
        encoding = heard[question.scene]
        if isinstance(encoding, Encoding):
            audible.append((position, question, encoding))
        else:
            found[position] = {**question.to_dict(), "prediction": None, "error": encoding}
    audible.sort(key=lambda item: len(item[1].question))
    size = listener.options.batch_size
    with threads_for(listener.model):
        for start in reporter.track(range(0, len(audible), size), "answering"):
            batch = audible[start : start + size]
            texts = answer(listener, [q.question for _, q, _ in batch], stack([encoding for _, _, encoding in batch]))
            for (position, question, _), text in zip(batch, texts, strict=True):
                found[position] = {**question.to_dict(), "prediction": text}
    for position, _ in window:
        yield position, found[position]
