"""What reads files that come from strangers, each with a good example of what it reads."""

from __future__ import annotations

import contextlib
import csv
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hostile.mutate import spoil_bytes, spoil_json, spoil_lines, spoil_text
from sounds import CONTAINERS, odd_brir, odd_clip, odd_sizes

Spoil = Callable[..., bytes]


@dataclass(frozen=True)
class Reader:
    """`make(folder)` writes good files; `read(folder)` returns or raises InputError, whatever is in them."""

    name: str
    share: float  # of all inputs
    files: dict[str, Spoil]  # which file is spoilt, and how
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    names_places: bool = False  # a good one, too, may name files anywhere, to be read


# ---- records, lists and tables -------------------------------------------------------------------

NAMES = ("Dog", "Male speech, man speaking", "Rain")
QUESTIONS = [
    ("a/1", "r/0.npy", None, None, 0, "CLASSIFICATION", "What is it?", "dog; rain"),
    ("a/2", "r/1.npy", None, None, 1, "DOA", "Where is the rain?", "right, behind, above; 3.5m"),
    ("a/1", "r/0.npy", "a/2", "r/1.npy", 2, "MIXUP_SINGLE_CLASSIFICATION", "What is left?", "rain"),
    ("a/1", "r/0.npy", "a/2", "r/1.npy", "3", "MIXUP_SINGLE_DOA", "Where is the dog?", "left, front, below; 1m"),
    ("a/1", "r/0.npy", "a/2", "r/1.npy", 4, "MIXUP_DIRECTION", "Is the dog left of the rain?", "Yes"),
    ("a/1", "r/0.npy", "a/2", "r/1.npy", 5, "MIXUP_NONBINARY_DISTANCE", "How far apart are they?", "2.5m"),
]


def questions() -> list[dict[str, Any]]:
    from batcli.data.schema import FIELDS

    return [dict(zip(FIELDS, row, strict=True)) for row in QUESTIONS]


def answered() -> list[dict[str, Any]]:
    wrong = {"kind": "InputError", "message": "is silent"}
    return [
        {**q, "prediction": None, "error": wrong} if place == 1 else {**q, "prediction": q["answer"]}
        for place, q in enumerate(questions())
    ]


def lines(records: Iterable[Any]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_labels(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = [("index", "mid", "display_name"), *((i, f"/m/{i}", name) for i, name in enumerate(NAMES))]
        csv.writer(file).writerows(rows)


def write_reverbs(path: Path) -> None:
    places = [("1,1.5,0", "2.5,1.2,-1"), ("0,1,0", "-1,2,3")]
    data = [
        {"fname": f"r/{i}.npy", "sensor_position": a, "source_position": b, "rt60": 0.4, "room_size": [4, 3, 5]}
        for i, (a, b) in enumerate(places)
    ]
    write(path, json.dumps({"data": data}))


def write_clips(path: Path) -> None:
    data = [{"folder": "a", "id": str(i), "label": ["/m/0", "/m/2"][:i]} for i in (1, 2)]
    write(path, json.dumps({"data": data}))


def make_questions(folder: Path) -> None:
    write(folder / "q.jsonl", lines(questions()))


def read_questions(folder: Path) -> Any:
    from batcli.core.jsonl import dump
    from batcli.data.schema import read_questions

    return [dump(question.to_dict()).encode() for question in read_questions(folder / "q.jsonl")]


def make_predictions(folder: Path) -> None:
    write(folder / "p.jsonl", lines(answered()))


def make_heard(folder: Path) -> None:
    """What an encoder with names hears of scenes with one source and with two."""
    place = {"azimuth": 90, "elevation": -10, "distance": 2.5}
    records = []
    for number in range(6):
        truth = [{"events": [source, 2], **place} for source in range(1 + number % 2)]
        ids = {"audio_id": f"eval/Y{number}", "reverb_id": "room/1.npy", "audio_id2": None, "reverb_id2": None}
        if len(truth) == 2:
            ids |= {"audio_id2": "eval/é", "reverb_id2": "room/2.npy"}
        heard = {"scores": [0.5, -1e-3, 2.0], "places": [{"event": 1, **place}, {"event": None, **place}]}
        found = {"heard": {"sources": heard}} if number != 3 else {"heard": None, "error": {"kind": "E", "message": ""}}
        records.append({**ids, "truth": truth, "names": "heard", **found})
    write(folder / "h.jsonl", lines(records))


def score_heard(folder: Path) -> Any:
    from batcli.evaluation.formats import FORMATS
    from batcli.options import ScoreOptions
    from batcli.score import score

    scores = score(ScoreOptions(predictions=[folder / "h.jsonl"], replicates=2, published=True))
    return [FORMATS[name](scores).encode() for name in ("json", "table")]


def score(folder: Path, **how: Any) -> Any:
    from batcli.evaluation.formats import FORMATS
    from batcli.options import ScoreOptions
    from batcli.score import score

    files = {"unparsed": folder / "out.jsonl", "output": folder / "scores.json"}
    options = ScoreOptions(predictions=[folder / "p.jsonl"], replicates=2, **files, **how)
    scores = score(options)
    return [FORMATS[name](scores).encode() for name in ("json", "table")]


def read_foreign(folder: Path) -> Any:
    return score(folder, field=["prediction=prediction"])


def make_released(folder: Path) -> None:
    write(folder / "train.json", json.dumps({"data": questions()}, indent=1))
    write(folder / "eval.jsonl", lines(questions()))


def read_released(folder: Path) -> Any:
    from batcli.core.errors import InputError
    from batcli.core.records import read_items
    from batcli.data.schema import parse_question

    found: list[Any] = []
    for name in ("train.json", "eval.jsonl"):
        for where, item in read_items(folder / name):
            try:
                if not isinstance(item, InputError):
                    found.append(json.dumps(parse_question(item, where).to_dict(), ensure_ascii=False).encode())
            except InputError as error:
                found.append(error)
    return found


RECORD_FORMS = ("lines.jsonl", "list.json", "line.json", "data.json", "marked.json")


def make_forms(folder: Path) -> None:
    """The same records in five forms of JSON."""
    records = answered()
    write(folder / "lines.jsonl", lines(records))
    write(folder / "list.json", json.dumps(records, indent=1))
    write(folder / "line.json", json.dumps({"version": [{"data": 1}], "data": records, "n": 1}))
    write(folder / "data.json", json.dumps({"data": records}, indent="\t").replace("\n", "\r\n"))
    write(folder / "marked.json", "\ufeff" + json.dumps(records, ensure_ascii=False))


def read_forms(folder: Path) -> Any:
    """As every command reads records: to be written again, each bad one in one line."""
    from batcli.core.errors import InputError
    from batcli.core.jsonl import dump
    from batcli.core.records import read_items

    found: list[Any] = []
    for name in RECORD_FORMS:
        try:
            for where, item in read_items(folder / name):
                assert str(folder / name) in where
                if isinstance(item, InputError):
                    assert len(str(item)) < 3000
                    assert str(item).isprintable()
                else:
                    with contextlib.suppress(ValueError):  # a bare NaN is no JSON when it is written
                        found.append(dump(item).encode())
        except InputError as error:
            found.append(error)
    return found


def make_dataset(folder: Path) -> None:
    from batcli.data.dataset import Dataset
    from batcli.data.schema import Question

    write_labels(folder / "labels.csv")
    write_clips(folder / "metadata/eval.json")
    write_reverbs(folder / "reverb/eval_reverberation.json")
    for name in ("audio/a/1.wav", "audio/a/2.wav", "reverb/binaural/r/0.npy", "reverb/binaural/r/1.npy"):
        write(folder / name, b"")
    dataset = Dataset(folder, recipe={"rooms": 2})
    files = folder / "metadata/eval.json", folder / "reverb/eval_reverberation.json"
    dataset.add_split("eval", (Question(**record) for record in questions()), *files)
    dataset.save()


def read_dataset(folder: Path) -> Any:
    from batcli.audio.render import RenderSettings
    from batcli.data.dataset import open_dataset

    dataset = open_dataset(folder)
    assert RenderSettings(dataset.seconds).length < 1e8
    found: list[Any] = [dataset.labels]
    for name in dataset.splits:
        found += [dataset.clips(name), dataset.reverbs(name)]
        for question in dataset.questions(name):
            found += [dataset.files_of(source) for source in question.scene]
    dataset.root = folder / "copy"
    dataset.save()
    return found


def make_questions_for(folder: Path) -> None:
    write_labels(folder / "labels.csv")
    write_clips(folder / "clips.json")
    write_reverbs(folder / "reverb/train_reverberation.json")
    for name in ("audio/a/1.wav", "audio/a/2.wav", "reverb/binaural/r/0.npy", "reverb/binaural/r/1.npy"):
        write(folder / name, b"")


def ask(folder: Path) -> Any:
    """What `prepare questions` makes of labels, clips and BRIRs."""
    from batcli.options import QuestionsOptions
    from batcli.prepare.questions import questions

    data = Path(tempfile.mkdtemp(dir=folder)) / "data"  # a new one: what removes files opens folders by bare names
    roots = {"audio_root": folder / "audio", "reverb_root": folder / "reverb"}
    files = {"clips": folder / "clips.json", "labels": folder / "labels.csv"}
    return questions(QuestionsOptions(data=data, **files, **roots, count=12, types="A,B"))


def make_labels(folder: Path) -> None:
    write_labels(folder / "labels.csv")


def read_labels(folder: Path) -> Any:
    from batcli.data.metadata import read_labels

    return read_labels(folder / "labels.csv")


def make_reverbs(folder: Path) -> None:
    write_reverbs(folder / "r.json")
    write_clips(folder / "c.json")


def read_reverbs(folder: Path) -> Any:
    from batcli.data.geometry import octant, round_distance
    from batcli.data.metadata import read_clips, read_reverbs

    reverbs = read_reverbs(folder / "r.json").values()
    places = [(r.scene, octant(r.position), round_distance(r.position.distance)) for r in reverbs]
    assert all(0 < r.position.distance < 1e6 for r in reverbs)
    return places, read_clips(folder / "c.json")


def make_toml(folder: Path) -> None:
    from dataclasses import asdict

    from batcli.core.toml import to_toml
    from batcli.model.checkpoint import model_tables
    from batcli.model.config import PRESETS
    from batcli.options import TrainOptions

    tables = {"train": asdict(TrainOptions(data=Path("demo"), output=Path("run")))}
    write(folder / "config.toml", to_toml({**tables, **model_tables(PRESETS["tiny"], None)}))


def read_toml(folder: Path) -> Any:
    from batcli.config import table, to_flag
    from batcli.core.errors import InputError
    from batcli.core.toml import read_toml
    from batcli.model.checkpoint import read_config

    content = read_toml(folder / "config.toml")
    found = []
    for name, value in table(content, ["train"], folder / "config.toml").items():
        for kind in ("switch", "list", "value"):
            try:
                found.append(to_flag(value, kind, name))
            except InputError as error:
                found.append(error)
    return found, read_config(folder)


def make_left_behind(folder: Path) -> None:
    """What commands leave for the next one: rooms, scenes, the state of a training, the parts of a decode."""
    from batcli.core.shards import content_key
    from batcli.options import RoomsOptions
    from batcli.prepare.rooms import rooms

    rooms(RoomsOptions(reverb=folder / "reverb", rooms=1, sources=1, jobs=1, size="3x3x2.5", rt60="0.1"))
    record = {"scene_id": "0", "file": "0.wav", "sources": [], "seconds": 1.0, "peak": 0.5, "clipped": 0}
    write(
        folder / "scenes/scenes.jsonl", lines([record, {**record, "file": None, "error": {"kind": "", "message": ""}}])
    )
    write(folder / "scenes/manifest.json", json.dumps({"split": "eval", "bad": 1}))
    write(folder / "scenes/0.wav", b"")
    state = {"stage": "1", "update": 3, "step": 7, "log_bytes": 0}
    write(folder / "run/state/step-7/state.json", json.dumps(state))
    parts = [{"position": i, "record": {"prediction": "Yes"}} for i in (1, 0)]
    write(folder / "scenes/part.jsonl", lines(parts))
    write(folder / "demo/.tmp-demo.json", json.dumps({"seed": 0, "clips": 2}))
    assert content_key(x=1)


def read_left_behind(folder: Path) -> Any:
    import shutil

    from batcli.core.errors import InputError
    from batcli.core.shards import ResumableShards
    from batcli.options import RoomsOptions
    from batcli.prepare.demo import _is_complete
    from batcli.prepare.rooms import rooms
    from batcli.spatialize import _earlier
    from batcli.training import state

    found: list[Any] = []

    def decode_parts() -> Any:
        shutil.copy(folder / "scenes/part.jsonl", folder / "scenes/.tmp-x-k-part-0.jsonl")
        with ResumableShards(folder / "scenes/x", "k") as parts:
            return parts.finished()

    reads = (
        lambda: rooms(RoomsOptions(reverb=folder / "reverb", rooms=1, sources=1, jobs=1, size="3x3x2.5", rt60="0.1")),
        lambda: _earlier(folder / "scenes", {"split": "eval"}),
        lambda: state.newest(folder / "run"),
        lambda: _is_complete(folder / "demo", {"seed": 0, "clips": 2}),
        decode_parts,
    )
    for read in reads:
        try:
            found.append(read())
        except InputError as error:
            found.append(error)
    return found


# ---- sound ---------------------------------------------------------------------------------------

SOUNDS = {
    "pcm16.wav": ("WAV", "PCM_16", 1, 32_000),
    "pcm24.wav": ("WAV", "PCM_24", 2, 44_100),
    "float.wav": ("WAV", "FLOAT", 2, 8_000),
    "wavex.wav": ("WAVEX", "PCM_16", 2, 48_000),
    "rf64.wav": ("RF64", "FLOAT", 1, 16_000),
    "adpcm.wav": ("WAV", "IMA_ADPCM", 1, 16_000),
    "clip.flac": ("FLAC", "PCM_16", 2, 44_100),
    "clip.ogg": ("OGG", "VORBIS", 1, 32_000),
    "clip.aiff": ("AIFF", "PCM_16", 1, 32_000),
    "clip.w64": ("W64", "PCM_16", 1, 32_000),
    "clip.caf": ("CAF", "PCM_16", 1, 32_000),
    "clip.au": ("AU", "PCM_16", 1, 32_000),
    "clip.mp3": ("MP3", "MPEG_LAYER_III", 1, 32_000),
}


def make_sound(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        import numpy as np
        import soundfile

        form, subtype, channels, rate = SOUNDS[name]
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, (400, channels))
        soundfile.write(folder / name, noise, rate, subtype=subtype, format=form)

    return make


def read_sound(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        import numpy as np

        from batcli.audio.io import read_audio, resample
        from batcli.core.errors import InputError

        audio, rate = read_audio(folder / name, 1)
        assert audio.dtype == np.float32
        assert np.isfinite(audio).all()
        with contextlib.suppress(InputError):
            read_audio(folder / name, 2)
        return resample(audio[0], rate, 32_000)

    return read


def make_odd_sizes(folder: Path) -> None:
    from sounds import CONTAINERS, CONTENTS, encode

    for name in CONTAINERS:
        (folder / name).write_bytes(encode(name, CONTENTS["noise"](1_000)))


def read_odd_sizes(folder: Path) -> None:
    """Nothing is read half: each container is refused, or has all samples that were put into it."""
    from sounds import CONTAINERS

    from batcli.audio.io import read_audio
    from batcli.core.errors import InputError

    bad = []
    for name in CONTAINERS:
        try:
            count = read_audio(folder / name, 1)[0].shape[1]
        except InputError as error:
            bad.append(error)
        else:
            assert count >= 1_000, f"{name}: {count} of 1,000 samples"
    if bad:
        raise bad[0]


def make_odd_sound(folder: Path) -> None:
    from sounds import CONTENTS, encode, save

    for number in range(2):
        (folder / f"{number}.wav").write_bytes(encode("WAV, float", CONTENTS["noise"](2_000)))
        save(folder / f"{number}.npy", np.stack([CONTENTS["noise"](50)] * 2))


def read_odd_sound(folder: Path) -> None:
    """Scenes are finite and sound, or one of their files is to blame."""
    from batcli.audio.cues import interaural
    from batcli.audio.io import peak_and_clipped, read_binaural
    from batcli.audio.render import RenderSettings, render_files
    from batcli.core.errors import InputError
    from batcli.data.constants import PUBLISHED

    pairs = [(folder / f"{number}.wav", folder / f"{number}.npy") for number in range(2)]
    bad = []
    for settings in (
        RenderSettings(0.5),
        RenderSettings(0.05, 8_000, rendering=PUBLISHED),
        RenderSettings(2.0, 48_000),
    ):
        for files in (pairs, pairs[:1], pairs[1:]):
            try:
                scene = render_files(files, settings)
            except InputError as error:
                bad.append(error)
                continue
            assert np.isfinite(scene).all()
            assert peak_and_clipped(scene, "pcm16")[0] > 0
            assert np.isfinite(interaural(scene, settings.sample_rate)).all()
    with contextlib.suppress(InputError):
        assert np.isfinite(interaural(read_binaural(folder / "0.wav"))).all()
    if unforeseen := [error for error in bad if error.__cause__]:
        raise AssertionError(str(unforeseen[0]))
    if bad:
        raise bad[0]


def make_npy(folder: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    np.save(folder / "a.npy", rng.normal(size=(2, 64)).astype(np.float32))
    np.save(folder / "f.npy", np.asfortranarray(rng.normal(size=(2, 16))))


def read_npy(folder: Path) -> Any:
    from batcli.audio.convolve import prepare, render
    from batcli.audio.io import read_brir
    from batcli.core.errors import InputError
    from batcli.evaluation.embed import label_vectors

    found: list[Any] = []
    for name in ("a.npy", "f.npy"):
        try:
            brir = read_brir(folder / name)
            found.append(render([(brir[0], prepare(brir, 100))], 100))
        except InputError as error:
            found.append(error)
        try:
            vectors = label_vectors(folder / name, ["dog", "rain"], lambda text: frozenset({0}))
            found.append(list(vectors.columns(["dog"], ["dog", "rain"])))
        except InputError as error:
            found.append(error)
    return found


def make_sofa(folder: Path) -> None:
    import numpy as np
    import sofar

    head = sofar.Sofa("SimpleFreeFieldHRIR", verify=False)
    azimuth, elevation = np.meshgrid(np.arange(0, 360, 20.0), np.arange(-90, 91, 20.0))
    places = np.stack([azimuth.ravel(), elevation.ravel(), np.full(azimuth.size, 1.5)], -1)
    rng = np.random.default_rng(0)
    head.Data_IR = rng.normal(size=(len(places), 2, 32)) * np.exp(-np.arange(32) / 4)
    across = np.cos(np.radians(places[:, 1])) * np.sin(np.radians(places[:, 0]))
    head.Data_IR *= 10 ** (np.stack([across, -across], -1) / 2)[..., None]  # louder at the nearer ear
    head.Data_SamplingRate = 32_000.0
    head.Data_Delay = np.zeros((1, 2))
    head.SourcePosition = places
    head.ReceiverPosition = np.array([[0, 0.09, 0], [0, -0.09, 0]])[..., None]
    sofar.write_sofa(str(folder / "head.sofa"), head, compression=0)


def spoil_sofa(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Other numbers in a file that is sound, or (one in three) other bytes."""
    import netCDF4

    if rng.random() < 0.33:
        return spoil_bytes(data, rng, other)
    with tempfile.NamedTemporaryFile(suffix=".sofa") as file:
        Path(file.name).write_bytes(data)
        with netCDF4.Dataset(file.name, "r+") as content:
            for _ in range(rng.choice((1, 1, 3))):
                variable = content.variables[rng.choice(list(content.variables))]
                place = tuple(rng.choice((slice(None), rng.randrange(size), size - 1)) for size in variable.shape)
                if variable.dtype != str and variable.dtype.kind == "f":
                    variable[place] = rng.choice(
                        (0.0, -0.0, 1e308, -1.0, 1e-300, float("nan"), float("inf"), 90.0, 1e5)
                    )
                kind = rng.choice(("cartesian", "spherical", "", "x" * 300))
                if "Type" in variable.ncattrs() and rng.random() < 0.2:
                    variable.setncattr("Type", kind)
            if rng.random() < 0.1:
                content.setncattr(rng.choice(content.ncattrs()), rng.choice(("", "x" * 300, "FreeFieldHRIR", "2")))
        return Path(file.name).read_bytes()


def read_sofa(folder: Path) -> Any:
    from batcli.audio.hrtf import sofa

    return sofa(folder / "head.sofa").at(10.0, 20.0)


# ---- models --------------------------------------------------------------------------------------


def small_config() -> Any:
    from batcli.model.config import EncoderConfig, LlmConfig, ModelConfig, QFormerConfig

    encoder = EncoderConfig(seconds=0.3, n_classes=5, n_mels=64, dim=16, depth=1, heads=2)
    return ModelConfig(encoder, QFormerConfig(layers=1, queries=2, dim=16, heads=2), None, LlmConfig(16, 16, 1, 2))


def small_tokenizer() -> Any:
    from batcli.model.tokens import train_tokenizer

    return train_tokenizer(["Where is the dog?", "left, front, below; 10m", "Yes", "No"] * 3, 300)


def small_model() -> Any:
    import torch

    from batcli.model.bat import BAT
    from batcli.model.llm import new_llm

    torch.manual_seed(0)
    config = small_config()
    return BAT(config, new_llm(config.llm, small_tokenizer()))


def make_tensors(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a.weight": torch.ones(3, 4), "b": torch.arange(4)}, folder / "t.safetensors")


def read_tensors(folder: Path) -> Any:
    import torch

    from batcli.model.checkpoint import read_tensors

    expected = {"a.weight": torch.zeros(3, 4), "b": torch.zeros(4, dtype=torch.long)}
    return read_tensors(folder / "t.safetensors", expected)


def make_run(folder: Path) -> None:
    from batcli.model import checkpoint

    model = small_model()
    checkpoint.write_config(folder, model.config, {}, None)
    checkpoint.save_run(folder, model, small_tokenizer(), None)
    checkpoint.finish(folder)


def read_run(folder: Path) -> Any:
    from batcli.model.checkpoint import load_run

    return load_run(folder)


def make_tokenizer(folder: Path) -> None:
    small_tokenizer().save_pretrained(folder / "tokenizer")


def read_tokenizer(folder: Path) -> Any:
    from batcli.core.errors import InputError
    from batcli.model.llm import load_tokenizer
    from batcli.model.tokens import padding_id, to_ids, to_text

    tokenizer = load_tokenizer(folder / "tokenizer")
    try:
        ids = to_ids(tokenizer, ["Where is the dog?"], ["Yes"])
        return ids, padding_id(tokenizer), to_text(tokenizer, ids[0])
    except InputError as error:
        return error


def make_published(folder: Path) -> None:
    import argparse

    import torch

    from batcli.model import published
    from batcli.model.config import LoraConfig, ModelConfig

    config = small_config()
    make_llm(folder / "llm")
    empty = published.empty_model(ModelConfig(config.encoder, config.qformer, LoraConfig()), folder / "llm")
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in empty.state_dict().items()}
    encoder = {name.removeprefix("encoder."): part for name, part in state.items() if name.startswith("encoder.")}
    torch.save({"model": encoder, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, folder / "finetuned.pth")
    torch.save(published.to_published(state), folder / "model.pt")


def make_llm(folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"vocab_size": 300, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2)).save_pretrained(folder)


_EMPTY: dict[Path, Any] = {}


def read_published(folder: Path) -> Any:
    from batcli.core.errors import InputError
    from batcli.model import published
    from batcli.model.config import LoraConfig, ModelConfig

    if folder not in _EMPTY:
        config = small_config()
        _EMPTY[folder] = published.empty_model(
            ModelConfig(config.encoder, config.qformer, LoraConfig()), folder / "llm"
        )
    found: list[Any] = []
    for name, read in (("finetuned.pth", published.read_encoder), ("model.pt", published.read_bat)):
        try:
            found.append(read(folder / name, _EMPTY[folder]))
        except InputError as error:
            found.append(error)
    return found


def read_llm(folder: Path) -> Any:
    from batcli.core.errors import InputError
    from batcli.model.llm import empty_llm, load_llm, lora_targets

    try:
        empty = empty_llm(folder)
        return load_llm(folder), lora_targets(empty.config.model_type)
    except InputError as error:
        return error


def make_shards(folder: Path) -> None:
    """A language model in several files, with their list."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"vocab_size": 60, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    llm = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2))
    llm.save_pretrained(folder, max_shard_size="2KB")
    shutil.copy(sorted(folder.glob("model-*.safetensors"))[0], folder / "first.safetensors")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    first = sorted(set(index["weight_map"].values()))[0]
    index["weight_map"] = {k: "first.safetensors" if v == first else v for k, v in index["weight_map"].items()}
    write(folder / "model.safetensors.index.json", json.dumps(index))
    (folder / first).unlink()


def read_shards(folder: Path) -> Any:
    from batcli.core.errors import InputError
    from batcli.model.llm import _require_finite_files, load_llm

    found: list[Any] = []
    for read in (load_llm, _require_finite_files):
        try:
            found.append(read(folder))
        except InputError as error:
            found.append(error)
    return found


READERS = [
    Reader("records in any form of JSON", 6, dict.fromkeys(RECORD_FORMS, spoil_bytes), make_forms, read_forms),
    Reader(
        "lists of shards",
        0.3,
        {"model.safetensors.index.json": spoil_json, "first.safetensors": spoil_bytes},
        make_shards,
        read_shards,
    ),
    Reader("questions", 12, {"q.jsonl": spoil_lines}, make_questions, read_questions),
    Reader("predictions", 3, {"p.jsonl": spoil_lines}, make_predictions, score),
    Reader("what encoders hear", 3, {"h.jsonl": spoil_lines}, make_heard, score_heard),
    Reader("other systems' answers", 2, {"p.jsonl": spoil_lines}, make_predictions, read_foreign),
    Reader(
        "released questions", 10, {"train.json": spoil_json, "eval.jsonl": spoil_lines}, make_released, read_released
    ),
    Reader(
        "datasets",
        8,
        {
            "dataset.json": spoil_json,
            "labels.csv": spoil_text,
            "metadata/eval.json": spoil_json,
            "reverb/eval_reverberation.json": spoil_json,
            "questions/eval.jsonl": spoil_lines,
        },
        make_dataset,
        read_dataset,
        names_places=True,
    ),
    Reader("reverberation and clips", 12, {"r.json": spoil_json, "c.json": spoil_json}, make_reverbs, read_reverbs),
    Reader(
        "questions from strangers' metadata",
        2,
        {"labels.csv": spoil_text, "clips.json": spoil_json, "reverb/train_reverberation.json": spoil_json},
        make_questions_for,
        ask,
    ),
    Reader("labels", 10, {"labels.csv": spoil_text}, make_labels, read_labels),
    *(Reader(name, 2, {name: spoil_bytes}, make_sound(name), read_sound(name)) for name in SOUNDS),
    Reader("sound of odd length", 8, {name: odd_sizes(name) for name in CONTAINERS}, make_odd_sizes, read_odd_sizes),
    Reader(
        "sound of odd samples",
        6,
        {f"{number}.{kind}": spoil for number in range(2) for kind, spoil in (("wav", odd_clip), ("npy", odd_brir))},
        make_odd_sound,
        read_odd_sound,
    ),
    Reader("BRIRs and label vectors", 10, {"a.npy": spoil_bytes, "f.npy": spoil_bytes}, make_npy, read_npy),
    Reader("SOFA", 0.4, {"head.sofa": spoil_sofa}, make_sofa, read_sofa),
    Reader("TOML", 3, {"config.toml": spoil_text}, make_toml, read_toml),
    Reader(
        "what was left behind",
        2,
        {
            "reverb/binaural/train-00000/room.json": spoil_json,
            "reverb/train_reverberation.json": spoil_json,
            "scenes/scenes.jsonl": spoil_lines,
            "scenes/manifest.json": spoil_json,
            "run/state/step-7/state.json": spoil_json,
            "scenes/part.jsonl": spoil_lines,
            "demo/.tmp-demo.json": spoil_json,
        },
        make_left_behind,
        read_left_behind,
    ),
    Reader("safetensors", 10, {"t.safetensors": spoil_bytes}, make_tensors, read_tensors),
    Reader(
        "run directories",
        0.5,
        {
            "config.toml": spoil_text,
            "encoder.safetensors": spoil_bytes,
            "projector.safetensors": spoil_bytes,
            "llm/config.json": spoil_json,
            "llm/generation_config.json": spoil_json,
            "llm/model.safetensors": spoil_bytes,
            "llm/tokenizer.json": spoil_json,
            "llm/tokenizer_config.json": spoil_json,
        },
        make_run,
        read_run,
    ),
    Reader(
        "tokenizers",
        1,
        {"tokenizer/tokenizer.json": spoil_json, "tokenizer/tokenizer_config.json": spoil_json},
        make_tokenizer,
        read_tokenizer,
    ),
    Reader(
        "foreign checkpoints",
        2,
        {"finetuned.pth": spoil_bytes, "model.pt": spoil_bytes},
        make_published,
        read_published,
    ),
    Reader("language models", 0.5, {"config.json": spoil_json, "model.safetensors": spoil_bytes}, make_llm, read_llm),
]
