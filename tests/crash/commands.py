"""Every command that writes, on little work, so that it can be killed a hundred times in a minute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Command:
    """`words(inputs, out)`: its arguments; `out` is a folder of its own, which holds all that it writes."""

    name: str
    words: Callable[[Path, Path], list[str]]
    kills: int  # in a full run
    growing: tuple[str, ...] = ()  # what may be unfinished under its own name: appended to, or the run's own business
    done: str | None = None  # the file that says that a directory is finished
    torch: bool = False


def make_inputs(folder: Path, with_models: bool = True) -> None:
    """A dataset, released questions and predictions; a trained run and published checkpoints; all tiny."""
    from batcli.options import DemoOptions
    from batcli.prepare.demo import demo

    data = folder / "data"
    sizes = {"clips": 3, "rooms": 12, "sources": 4, "count": 240, "eval_count": 60, "seconds": 0.5}
    demo(DemoOptions(data=data, **sizes, jobs=1))
    make_odd(data, folder / "odd")
    records = [json.loads(line) for line in (data / "questions/train.jsonl").read_text().splitlines()] * 20
    (folder / "released.json").write_text(json.dumps({"data": records}))
    answered = [{**record, "prediction": record["answer"]} for record in records[:600]]
    (folder / "preds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in answered))
    for name in ("data", "odd"):
        make_collection(folder / name / "audio/train", folder / "recordings" / name)
    make_measured(folder / "measured")
    if with_models:
        make_models(folder, data)


def make_collection(clips: Path, folder: Path) -> None:
    """The clips in a folder for each class."""
    for path in sorted(clips.iterdir()):
        of_class = folder / path.stem.rpartition("-")[0]
        of_class.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, of_class)


def make_measured(folder: Path) -> None:
    """Measured rooms: sound files with a table of their places, and the same as a split and as SOFA files."""
    import csv

    import soundfile
    from measured_room import AZIMUTHS, DISTANCES, ELEVATIONS, simulated

    from batcli.options import BrirsOptions
    from batcli.prepare.brirs import brirs

    folder.mkdir()
    rows: list[list[object]] = [["file", "where", "azimuth", "elevation", "distance"]]
    for number, samples in enumerate(simulated()):
        soundfile.write(folder / f"{number}.flac", 0.3 * samples.T, 32_000, subtype="PCM_24")
        rows += [
            [f"{number}", f"Lab {room}", AZIMUTHS[number], ELEVATIONS[number], DISTANCES[number]] for room in range(3)
        ]
    with open(folder / "places.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    table = {"source": [folder], "table": folder / "places.csv", "azimuths": "left", "room": "where"}
    brirs(BrirsOptions(reverb=folder / "reverb", **table))


def make_odd(data: Path, odd: Path) -> None:
    """The same dataset with every sixth clip and BRIR spoilt in turn: silent, late, cut, endless, too large, …"""
    from sounds import CONTENTS, encode, save, without_sizes

    shutil.copytree(data, odd)
    noise, late = CONTENTS["noise"](8_000), np.pad(CONTENTS["noise"](400), (40_000, 0))
    whole = encode("WAV", noise)
    clips = (
        encode("WAV", 0 * noise),
        encode("WAV", late),
        whole[: len(whole) // 2],
        without_sizes("WAV", whole, 0, 0),
        encode("WAV", np.stack([noise] * 4, 1)),
        encode("WAV, float", CONTENTS["1e30"](8_000)),
        encode("WAV, float", CONTENTS["denormals"](8_000)),
    )
    brirs = (np.stack([late, late]), np.stack([noise, 0 * noise]), np.zeros((2, 9), "f4"), np.full((2, 9), 1e30, "f4"))
    for pattern, contents in (("audio/**/*.wav", clips), ("reverb/**/*.npy", brirs)):
        for path, content in zip(sorted(odd.glob(pattern))[::6], cycle(contents), strict=False):
            save(path, content)


def make_models(folder: Path, data: Path) -> None:
    from hostile.readers import make_published

    from batcli.options import TrainOptions
    from batcli.train import train

    small = {"set": ["source_scenes=24", "epochs=1,1,1"], "batch_size": "16"}
    train(TrainOptions(data=data, output=folder / "run", **small, workers=1, device="cpu"))
    (folder / "published").mkdir()
    make_published(folder / "published")


def use_small_presets() -> None:
    """The published architecture in the size of `make_inputs`'s checkpoints."""
    from hostile.readers import small_config

    from batcli.model.config import PRESETS, LoraConfig, ModelConfig

    config = small_config()
    PRESETS["llama2-7b"] = ModelConfig(config.encoder, config.qformer, LoraConfig(r=8))


def _roots(inputs: Path) -> list[str]:
    data = inputs / "data"
    return [f"--audio-root={data / 'audio'}", f"--reverb-root={data / 'reverb'}", f"--labels={data / 'labels.csv'}"]


def _published(inputs: Path) -> list[str]:
    folder = inputs / "published"
    return ["--encoder", f"{folder}/finetuned.pth", "--checkpoint", f"{folder}/model.pt", "--llm", f"{folder}/llm"]


_DEMO = ["--clips=2", "--rooms=8", "--sources=4", "--count=80", "--eval-count=20", "--seconds=0.5", "--jobs=1"]
_RECIPE = ["--set=source_scenes=24", "--set=epochs=1,1,1"]
_TRAIN = [*_RECIPE, "--batch-size=16", "--log-every=1"]

COMMANDS = [
    Command(
        "prepare rooms",
        lambda i, o: ["prepare", "rooms", f"{o}/reverb", "--rooms=12", "--sources=2", "--rt60=0.15:0.3", "--jobs=1"],
        40,
    ),
    Command(
        "prepare rooms with workers",
        lambda i, o: ["prepare", "rooms", f"{o}/reverb", "--rooms=60", "--sources=2", "--rt60=0.15:0.3", "--jobs=2"],
        20,
    ),
    Command("prepare demo", lambda i, o: ["prepare", "demo", f"{o}/data", *_DEMO], 40, done="data/dataset.json"),
    Command(
        "prepare questions",
        lambda i, o: [
            *("prepare", "questions", f"{o}/data", f"--clips={i / 'data/metadata/train.json'}", "--count=4000"),
            *_roots(i),
        ],
        30,
        done="data/dataset.json",
    ),
    Command(
        "prepare import",
        lambda i, o: ["prepare", "import", f"{o}/data", f"{i}/released.json", *_roots(i)],
        30,
        done="data/dataset.json",
    ),
    Command(
        "prepare clips",
        lambda i, o: ["prepare", "clips", f"{o}/data", f"{i}/recordings/data", "--seconds=0.5", "--jobs=1"],
        20,
        done="data/dataset.json",
    ),
    Command(
        "prepare clips with bad ones",
        lambda i, o: ["prepare", "clips", f"{o}/data", f"{i}/recordings/odd", "--jobs=2", "--max-bad=999"],
        10,
        done="data/dataset.json",
    ),
    Command(
        "prepare brirs",
        lambda i, o: [
            *("prepare", "brirs", f"{o}/reverb", f"{i}/measured", "--room=where", "--azimuths=left"),
            f"--table={i / 'measured/places.csv'}",
        ],
        20,
        done="reverb/eval_reverberation.json",
    ),
    Command(
        "prepare brirs --export",
        lambda i, o: ["prepare", "brirs", f"{i}/measured/reverb", f"--export={o}/sofa"],
        10,
    ),
    Command(
        "prepare model",
        lambda i, o: ["prepare", "model", f"{o}/run", *_published(i)],
        20,
        ("run/tokenizer",),
        "run/DONE",
        torch=True,
    ),
    Command(
        "spatialize",
        lambda i, o: ["spatialize", f"{i}/data", "--split=train", "-o", f"{o}/scenes", "--jobs=1"],
        30,
        done="scenes/manifest.json",
    ),
    Command(
        "spatialize with workers",
        lambda i, o: ["spatialize", f"{i}/data", "--split=train", "-o", f"{o}/scenes", "--jobs=2"],
        20,
        done="scenes/manifest.json",
    ),
    Command(
        "spatialize bad samples",
        lambda i, o: ["spatialize", f"{i}/odd", "--split=train", "-o", f"{o}/scenes", "--jobs=2", "--max-bad=999"],
        20,
        done="scenes/manifest.json",
    ),
    Command(
        "spatialize, one scene",
        lambda i, o: [
            *(
                "spatialize",
                "--audio",
                str(next((i / "data/audio").rglob("*.wav"))),
                "-o",
                f"{o}/x.wav",
                "--seconds=60",
            ),
            *("--reverb", str(next((i / "data/reverb").rglob("*.npy")))),
        ],
        10,
    ),
    Command(
        "score -o",
        lambda i, o: [
            *("score", f"{i}/preds.jsonl", "-o", f"{o}/scores.json", "--format=json", "--replicates=2000"),
            *("--unparsed", f"{o}/unparsed.jsonl", "--junit", f"{o}/gates.xml", "--fail-over=DOA.der=1"),
        ],
        20,
    ),
    Command(
        "decode",
        lambda i, o: ["decode", f"{i}/run", f"{i}/data", "-o", f"{o}/preds.jsonl", "--workers=1"],
        20,
        torch=True,
    ),
    Command(
        "decode --encoder",
        lambda i, o: [
            *("decode", f"{i}/run", f"{i}/data", "--encoder", "--sources=both", "-o", f"{o}/heard.jsonl"),
            "--workers=1",
        ],
        10,
        torch=True,
    ),
    Command(
        "decode bad samples",
        lambda i, o: ["decode", f"{i}/run", f"{i}/odd", "-o", f"{o}/preds.jsonl", "--workers=1", "--max-bad=999"],
        10,
        torch=True,
    ),
    Command(
        "train on bad samples",
        lambda i, o: [
            *("train", f"{i}/odd", "-o", f"{o}/run", *_TRAIN, "--workers=1", "--device=cpu", "--save-every=2"),
            *("--resume", "--max-bad=999"),
        ],
        10,
        ("run/",),
        "run/DONE",
        torch=True,
    ),
    Command(
        "train",
        lambda i, o: [
            *(
                "train",
                f"{i}/data",
                "-o",
                f"{o}/run",
                *_TRAIN,
                "--workers=1",
                "--device=cpu",
                "--save-every=2",
                "--resume",
            ),
        ],
        20,
        ("run/",),
        "run/DONE",
        torch=True,
    ),
]
