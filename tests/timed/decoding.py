"""Decoding: a split with four questions about each scene, by a small model with random weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from timed.encoder import plain_encode
from timed.plain import plain_render
from timed.timing import Line, compare
from transformers import GenerationConfig

from batcli.audio.render import clear_cache
from batcli.core.progress import SILENT
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question, Scene
from batcli.model.answering import LoadedModel
from batcli.model.bat import BAT, Encoding
from batcli.model.config import PRESETS, ModelConfig
from batcli.model.features import spectrum
from batcli.model.llm import new_llm
from batcli.model.tokens import collate_prompts, name_ids, padding_id, to_ids, to_text, train_tokenizer
from batcli.options import DecodeOptions, DemoOptions
from batcli.prepare.demo import demo
from batcli.training.split_answers import answer_split

SECONDS = 2.0
ASKED = (
    "Where is the sound?",
    "What are the distinct sounds present in this audio clip?",
    "From which direction and at what distance can the sound of the dog be detected?",
    "Regarding linear distance, is the origin of the sound of music further from you than that of the bell?",
)


@dataclass
class Exam:
    dataset: Dataset
    loaded: LoadedModel
    questions: list[tuple[int, Question]]


def make_dataset(folder: Path, scenes: int) -> tuple[Dataset, list[Scene]]:
    """A made dataset, and that many of its distinct scenes."""
    demo(
        DemoOptions(data=folder, clips=4, rooms=12, sources=4, count=40, eval_count=9 * scenes, seconds=SECONDS, jobs=1)
    )
    dataset = open_dataset(folder)
    found = list(dict.fromkeys(question.scene for question in dataset.questions("eval")))[:scenes]
    return dataset, found


def make_model(config: ModelConfig, dataset: Dataset, seed: int = 0) -> tuple[BAT, object]:
    """A BAT with weights so large that its answers depend on what it hears, and its tokenizer."""
    torch.manual_seed(seed)
    texts = [*ASKED, *(label.name.lower() for label in dataset.labels), "right, behind, above; 3.5m", "Yes", "No"]
    tokenizer = train_tokenizer(texts * 3, 600)
    assert config.llm is not None
    config = config.for_scenes(config.seconds, len(dataset.labels))
    model = BAT(config, new_llm(config.llm, tokenizer))
    if model.sources is not None:
        model.projector.names.set([name_ids(tokenizer, label.name.lower()) for label in dataset.labels])
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.15)
    return model.eval(), tokenizer


def make_exam(folder: Path, scenes: int, beams: int) -> Exam:
    dataset, found = make_dataset(folder, scenes)
    model, tokenizer = make_model(PRESETS["tiny"], dataset)
    kinds = ("DOA", "MIXUP_SINGLE_DOA")
    asked = [Question.of(scene, 0, kinds[len(scene) - 1], text, "") for scene in found for text in ASKED]
    loaded = LoadedModel(model, tokenizer, torch.device("cpu"), beams, max_new_tokens=12)
    return Exam(dataset, loaded, list(enumerate(asked)))


def ours(exam: Exam) -> list[str]:
    """The answers, with nothing kept from before."""
    clear_cache()
    size = DecodeOptions(run=Path()).batch_size
    records = answer_split(exam.loaded, exam.dataset, exam.questions, size, workers=1, reporter=SILENT)
    return [record["prediction"] for _, record in records]


@torch.no_grad()
def plain(exam: Exam) -> list[str]:
    """The reference's protocol: one question at a time, its scene rendered and encoded anew, and read by each beam."""
    model, tokenizer = exam.loaded.model, exam.loaded.tokenizer
    pad, end = padding_id(tokenizer), tokenizer.eos_token_id
    how = GenerationConfig(
        do_sample=False,
        num_beams=exam.loaded.num_beams,
        max_new_tokens=exam.loaded.max_new_tokens,
        pad_token_id=pad,
        eos_token_id=end,
    )
    answers = []
    for _, question in exam.questions:
        heard = plain_hear(model, exam.dataset, [question.scene])
        prompts = collate_prompts(to_ids(tokenizer, [question.question])[0], pad)
        inputs, mask = model._inputs(model.audio_embeddings(heard, prompts), prompts, heard)
        ids = model.llm.generate(inputs_embeds=inputs, attention_mask=mask, generation_config=how)
        answers += to_text(tokenizer, ids)
    return answers


def plain_hear(model: BAT, dataset: Dataset, scenes: Sequence[Scene]) -> Encoding:
    """Scenes rendered and encoded in the plain way."""
    seconds = model.config.seconds
    sounds = [plain_render([dataset.files_of(source) for source in scene], seconds) for scene in scenes]
    waveform = torch.stack([torch.from_numpy(sound).float() for sound in sounds])
    plain = {"encoder": lambda: plain_encode(model.encoder, waveform)}
    plain["sources"] = lambda: model.sources.tokenize(waveform, spectrum(waveform))
    return Encoding({name: plain[name]() for name in model.encoders})


def lines(quick: bool) -> Iterator[Line]:
    scenes, rounds = (16, 2) if quick else (50, 5)
    with tempfile.TemporaryDirectory() as name:
        exam = make_exam(Path(name), scenes, beams=4)
        same = sum(a == b for a, b in zip(ours(exam), plain(exam), strict=True))
        count = len(exam.questions)
        note = f"{scenes} scenes, {count} questions; {same} of {count} answers are the same"
        yield compare("decode, 4 beams", lambda: ours(exam), lambda: plain(exam), rounds, count, note)
        exam.loaded = replace(exam.loaded, num_beams=1)
        yield compare("decode, greedy", lambda: ours(exam), None, rounds, count)


def growth(quick: bool) -> Iterator[Line]:
    """Against the number of questions."""
    with tempfile.TemporaryDirectory() as name:
        exam = make_exam(Path(name), 10 if quick else 100, beams=1)
        every = exam.questions
        for count in (4, 12, 40, 120, 400):
            if count <= len(every):
                exam.questions = every[:count]
                yield compare(f"decode, per question of {count}", lambda: ours(exam), None, 3, count)
