"""Broken and odd clips and BRIRs among good ones: named with their reason, and no good one differs for them."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from sounds import encode, save, without_sizes

from batcli.audio.io import write_brir
from batcli.core.errors import ExitCode, TooManyBad
from batcli.core.files import write_json
from batcli.core.jsonl import write_records
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question, Source
from batcli.decode import decode
from batcli.options import DecodeOptions, QuestionsOptions, SpatializeOptions, TrainOptions
from batcli.prepare.questions import questions as prepare_questions
from batcli.spatialize import spatialize
from batcli.train import train

THOROUGH = pytest.mark.skipif(not os.environ.get("THOROUGH"), reason="trains: set THOROUGH=1")
RNG = np.random.default_rng(3)
NOISE = RNG.uniform(-0.3, 0.3, 32_000).astype(np.float32)
ROOM = (RNG.normal(size=(2, 4_000)) * np.exp(-np.arange(4_000) / 400)).astype(np.float32)
ROOM /= np.abs(ROOM).max()
ULTRASOUND = 0.5 * np.hanning(96_000) * np.sin(np.arange(96_000))  # 61 kHz


def wav(path: Path, samples: np.ndarray, rate: int = 32_000, subtype: str = "PCM_16") -> None:
    soundfile.write(path, samples, rate, subtype=subtype)


def cut(path: Path, share: float) -> None:
    os.truncate(path, int(path.stat().st_size * share))


def cut_wav(path: Path) -> None:
    wav(path, NOISE)
    cut(path, 0.6)


def cut_brir(path: Path) -> None:
    write_brir(path, ROOM)
    cut(path, 0.6)


def npy(path: Path, samples: np.ndarray) -> None:
    with open(path, "wb") as file:
        np.save(file, samples)


def nan(samples: np.ndarray) -> np.ndarray:
    spoilt = samples.copy()
    spoilt.flat[len(spoilt.flat) // 2] = np.nan
    return spoilt


# kind → (how it is made, why it is refused; None where it is read)
CLIPS = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "is empty"),
    "no samples": (lambda path: wav(path, NOISE[:0]), "holds no samples"),
    "truncated": (cut_wav, "is truncated"),
    "NaN": (lambda path: wav(path, nan(NOISE), subtype="FLOAT"), "NaN or infinite"),
    "text": (lambda path: path.write_text("not found"), "not audio"),
    "a directory": (lambda path: path.mkdir(), "is a directory"),
    "silent": (lambda path: wav(path, 0 * NOISE), "is silent"),
    "silent first": (lambda path: wav(path, np.stack([0 * NOISE, NOISE], 1)), "its first channel is silent"),
    "late": (lambda path: wav(path, np.pad(NOISE, (32_000, 0))), "is silent within the scene of 1 s"),
    "denormals": (lambda path: wav(path, 0 * NOISE + 1e-42, subtype="FLOAT"), "is silent"),
    "too large": (lambda path: wav(path, 1e30 * NOISE, subtype="FLOAT"), "holds samples of 3e+29"),
    "RF64 truncated": (lambda path: save(path, encode("RF64", NOISE)[:30_000]), "is truncated"),
    "ultrasound": (lambda path: wav(path, ULTRASOUND, 384_000), "is silent at 32,000 Hz"),
    "one sample": (lambda path: wav(path, NOISE[:1]), None),
    "DC": (lambda path: wav(path, 0 * NOISE + 0.5), None),
    "stream": (lambda path: save(path, without_sizes("WAV", encode("WAV", NOISE), 0x7FFFF024, 0x7FFFF000)), None),
    "stream of zeros": (lambda path: save(path, without_sizes("WAV", encode("WAV", NOISE), 0, 0)), None),
    "8 kHz": (lambda path: wav(path, NOISE, 8_000), None),
    "192 kHz": (lambda path: wav(path, NOISE, 192_000), None),
    "24 bit": (lambda path: wav(path, NOISE, subtype="PCM_24"), None),
    "float": (lambda path: wav(path, NOISE, subtype="FLOAT"), None),
    "6 channels": (lambda path: wav(path, np.stack([NOISE] * 6, 1)), "6 channels"),
    "2 channels": (lambda path: wav(path, np.stack([NOISE, 0 * NOISE], 1)), None),
    "1 s": (lambda path: wav(path, NOISE), None),
    "10 min": (lambda path: wav(path, np.tile(NOISE[:8_000], 600), 8_000), None),
}
BRIRS = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.touch(), "not a NumPy array"),
    "truncated": (cut_brir, "damaged NumPy array"),
    "NaN": (lambda path: npy(path, nan(ROOM)), "NaN or infinite"),
    "silent": (lambda path: npy(path, 0 * ROOM), "is silent"),
    "one ear silent": (lambda path: npy(path, ROOM * np.float32([[1], [0]])), "is silent at the right ear"),
    "late": (lambda path: npy(path, np.pad(ROOM, ((0, 0), (40_000, 0)))), "is silent in its first 1 s"),
    "denormals": (lambda path: npy(path, 0 * ROOM + np.float32(1e-42)), "is silent"),
    "too large": (lambda path: npy(path, np.float32(1e30) * ROOM), "holds samples of 1e+30"),
    "one sample": (lambda path: npy(path, np.float32([[0.5], [0.4]])), None),
    "one channel": (lambda path: npy(path, ROOM[:1]), r"shape (1, 4000)"),
    "6 channels": (lambda path: npy(path, np.concatenate([ROOM] * 3)), "shape (6, 4000)"),
    "whole numbers": (lambda path: npy(path, (ROOM * 32767).astype(np.int16)), "not floating point"),
    "a pickle": (lambda path: np.save(path, np.array([{}]), allow_pickle=True), "damaged NumPy array"),
    "10 min": (lambda path: npy(path, np.ones((2, 700_000), np.float32)), "samples"),
    "DC": (lambda path: npy(path, 0 * ROOM + 0.01), None),
    "64 bit": (lambda path: npy(path, ROOM.astype(np.float64)), None),
    "1 s": (lambda path: npy(path, np.pad(ROOM, ((0, 0), (0, 28_000)))), None),
}


class Odd(NamedTuple):
    """One question about an odd clip or in an odd room."""

    question: Question
    path: Path
    reason: str | None


class Pair(NamedTuple):
    """A dataset with odd samples, and the same without them."""

    mixed: Path
    good: Path
    odd: list[Odd]

    @property
    def bad(self) -> list[Odd]:
        return [odd for odd in self.odd if odd.reason is not None]


@pytest.fixture(scope="module")
def pair(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("bad")
    mixed, good = folder / "mixed", folder / "good"
    shutil.copytree(demo, mixed)
    odd = []
    for split in ("train", "eval"):
        like = next(q for q in open_dataset(mixed).questions(split) if q.question_type == "DOA")
        for root, kinds, suffix in (("audio", CLIPS, ".wav"), ("reverb/binaural", BRIRS, "")):
            for kind, (make, reason) in kinds.items():
                name = f"odd-{split}/{kind.replace(' ', '-')}" + ("" if suffix else ".npy")
                path = mixed / root / (name + suffix)
                path.parent.mkdir(parents=True, exist_ok=True)
                make(path)
                change = {"audio_id": name} if suffix else {"reverb_id": name}
                odd.append(Odd(replace(like, question_id=f"{split} {root} {kind}", **change), path, reason))
    shutil.copytree(demo, good)
    for split in ("train", "eval"):
        questions = list(open_dataset(demo).questions(split))
        for number, entry in enumerate([o for o in odd if o.question.question_id.startswith(split)]):
            questions.insert(1 + 2 * number, entry.question)  # here and there
        rewrite(open_dataset(mixed), split, questions)
        sound = {o.question.question_id for o in odd if o.reason is None}
        rewrite(
            open_dataset(good),
            split,
            [q for q in questions if isinstance(q.question_id, int) or q.question_id in sound],
        )
    for root in ("audio", "reverb/binaural"):
        for split in ("train", "eval"):
            shutil.copytree(mixed / root / f"odd-{split}", good / root / f"odd-{split}")
    for entry in odd:
        if entry.reason is not None:
            path = good / entry.path.relative_to(mixed)
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return Pair(mixed, good, odd)


def rewrite(dataset: Dataset, split: str, questions: list[Question]) -> None:
    entry = dataset.splits[split]
    files = (dataset.path(path) for path in (entry.clips, entry.reverbs))
    dataset.add_split(split, questions, *files)
    dataset.save()


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def assert_named(bad: list[Odd], records: list[dict], split: str) -> None:
    """Each record with an error is of a bad sample, and says where that is and what is wrong."""
    expected = {(o.question.audio_id, o.question.reverb_id): o for o in bad if o.question.question_id.startswith(split)}
    for record in records:
        entry = expected.pop((record["audio_id"], record["reverb_id"]))
        assert record["error"]["kind"] == "InputError"
        assert str(entry.path) in record["error"]["message"]
        assert entry.reason in record["error"]["message"]
    assert not expected


def test_scenes(pair: Pair, tmp_path: Path):
    spatialize(SpatializeOptions(data=pair.good, split="eval", output=tmp_path / "good", jobs=1))
    options = SpatializeOptions(data=pair.mixed, split="eval", output=tmp_path / "mixed", jobs=1)
    bad = [o for o in pair.bad if o.question.question_id.startswith("eval")]
    with pytest.raises(TooManyBad, match=f"{len(bad)} of ") as caught:
        spatialize(options)
    assert caught.value.exit_code == ExitCode.TOO_MANY_BAD == 4
    lines = lines_of(tmp_path / "mixed/scenes.jsonl")
    failed = [record for record in map(json.loads, lines) if record["file"] is None]
    assert_named(pair.bad, [{**record["sources"][0], "error": record["error"]} for record in failed], "eval")
    assert [line for line in lines if b'"error"' not in line] == lines_of(tmp_path / "good/scenes.jsonl")
    wavs = sorted((tmp_path / "good").glob("*.wav"))
    assert [w.name for w in wavs] == sorted(w.name for w in (tmp_path / "mixed").glob("*.wav"))
    assert all((tmp_path / "mixed" / wav.name).read_bytes() == wav.read_bytes() for wav in wavs)
    spatialize(replace(options, output=tmp_path / "allowed", max_bad=len(bad)))


def test_answers(pair: Pair, run: Path, tmp_path: Path):
    decode(DecodeOptions(run=run, data=pair.good, output=tmp_path / "good.jsonl", workers=1))
    options = DecodeOptions(run=run, data=pair.mixed, output=tmp_path / "mixed.jsonl", workers=1)
    with pytest.raises(TooManyBad) as caught:
        decode(options)
    assert caught.value.exit_code == 4
    lines = lines_of(tmp_path / "mixed.jsonl")
    assert_named(pair.bad, [record for record in map(json.loads, lines) if "error" in record], "eval")
    assert [line for line in lines if b'"error"' not in line] == lines_of(tmp_path / "good.jsonl")


@THOROUGH
def test_weights(pair: Pair, run: Path, tmp_path: Path, train_options):
    """Stages on questions: the same weights, to the bit. (The encoder draws its scenes: it draws others instead.)"""
    how = {"init": run, "stages": "1,2,3"}
    options: TrainOptions = train_options(pair.mixed, tmp_path / "mixed", **how)
    train(train_options(pair.good, tmp_path / "good", **how))
    with pytest.raises(TooManyBad) as caught:
        train(options)
    assert caught.value.exit_code == 4
    assert (tmp_path / "mixed/DONE").exists()
    records = [json.loads(line) for line in lines_of(tmp_path / "mixed/bad.jsonl")]
    assert_named(pair.bad, [{**record["sources"][0], "error": record["error"]} for record in records], "train")
    for name in ("projector.safetensors", "llm/model.safetensors"):
        good, mixed = (load_file(tmp_path / which / name) for which in ("good", "mixed"))
        assert all(torch.equal(good[key], mixed[key]) for key in good), name


def test_questions(pair: Pair, demo: Path, tmp_path: Path):
    """Only what has no file at all is known before it is read: it is left out."""
    clips = json.loads((pair.mixed / "metadata/train.json").read_text())
    broken = [{"folder": "odd-train", "id": kind.replace(" ", "-"), "label": clips[0]["label"]} for kind in CLIPS]
    write_json(tmp_path / "clips.json", [*clips, *broken])
    roots = {"audio_root": pair.mixed / "audio", "reverb_root": pair.mixed / "reverb"}
    said: list[str] = []

    class Listens:
        def __getattr__(self, name):
            return lambda message: said.append(message)

        def track(self, items, description, total=None):
            yield from items

    options = QuestionsOptions(
        data=tmp_path / "data", clips=tmp_path / "clips.json", labels=pair.mixed / "labels.csv", **roots, count=200
    )
    prepare_questions(options, Listens())
    assert any("1 of " in message and "odd-train/missing" in message for message in said)
    asked = {s.audio_id for q in open_dataset(tmp_path / "data").questions("train") for s in q.scene}
    assert "odd-train/missing" not in asked


@THOROUGH
def test_encoder_draws_others(pair: Pair, tmp_path: Path, train_options):
    """One clip in twenty is broken: the encoder stage ends, with scenes of the others."""
    shutil.copytree(pair.good, tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    for clip in dataset.clips("train")[::20]:
        cut(dataset.audio_path(clip.audio_id), 0.5)
    train(train_options(tmp_path / "data", tmp_path / "run", stages="encoder"))
    assert (tmp_path / "run/DONE").exists()


def test_a_scene_of_two_names_the_bad_one(pair: Pair, tmp_path: Path):
    dataset = open_dataset(pair.mixed)
    good = next(q for q in dataset.questions("eval") if q.question_type == "MIXUP_SINGLE_DOA")
    broken = next(o for o in pair.bad if o.path.suffix == ".npy" and "NaN" in str(o.path))
    second = replace(good, reverb_id2=broken.question.reverb_id)
    shutil.copytree(pair.mixed, tmp_path / "data", symlinks=True)
    write_records(tmp_path / "data/questions/eval.jsonl", [second.to_dict()])
    with pytest.raises(TooManyBad):
        spatialize(SpatializeOptions(data=tmp_path / "data", split="eval", output=tmp_path / "scenes", jobs=1))
    (record,) = map(json.loads, lines_of(tmp_path / "scenes/scenes.jsonl"))
    assert broken.question.reverb_id in record["error"]["message"]
    assert Source(**record["sources"][1]).reverb_id == broken.question.reverb_id
