"""Data: rooms, questions, the import of released files, scores. The reference has none of these to compare with."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from timed.timing import Line, compare, run_python, weigh_python

from batcli.audio.hrtf import kemar
from batcli.audio.rooms import draw_scene, simulate
from batcli.data.geometry import locate, octant
from batcli.data.metadata import Clip, Label, Reverb
from batcli.questions.generate import generate

PUBLISHED = 872_312  # questions of the released training files
WORDING = "Regarding linear distance, is the origin of the sound of music further from you than that of cash register?"


def simulate_rooms(count: int) -> None:
    """Four BRIRs of 1 s in each."""
    rng = np.random.default_rng(1)
    for _ in range(count):
        room, listener, sources = draw_scene(rng, [octant(locate((0, 0, 0), (1, 1, -1)))] * 4)
        simulate(room, listener, sources, kemar(), rng, 1.0)


def ask(count: int) -> None:
    labels = [Label(n, f"/m/{n}", f"sound {n}") for n in range(40)]
    clips = [Clip(f"a/{n}", (f"/m/{n % 40}",)) for n in range(800)]
    rng = np.random.default_rng(2)
    reverbs = {}
    for number in range(1_200):
        name = f"room{number // 6}/{number % 6}.npy"
        x, y, z = (float(value) for value in rng.normal(0, 2, 3))
        reverbs[name] = Reverb(name, locate((0, 0, 0), (x, y, z)), (x, y, z), {})
    for question in generate(clips, labels, reverbs, count):
        json.dumps(question.to_dict())


def released(count: int) -> Iterator[dict]:
    """Records as the released files have them."""
    for n in range(count):
        yield {
            "audio_id": f"balanced_train/audio/Y{n % 20_000:011d}",
            "reverb_id": f"scene{n % 300}/{n % 90}.npy",
            "audio_id2": f"balanced_train/audio/Y{7 * n % 20_000:011d}",
            "reverb_id2": f"scene{n % 300}/{3 * n % 90}.npy",
            "question_id": n,
            "question_type": "MIXUP_DISTANCE_BOTH",
            "question": WORDING,
            "answer": "No" if n % 2 else "Yes",
        }


def make_released(folder: Path, count: int) -> list[str]:
    """A released file, and the arguments of `bat` that import it."""
    (folder / "labels.csv").write_text("index,mid,display_name\n0,/m/0,Music\n1,/m/1,Cash register\n")
    (folder / "audio").mkdir(exist_ok=True)
    (folder / "reverb/binaural").mkdir(parents=True, exist_ok=True)
    with open(folder / "train.json", "w") as file:
        file.write('{"data": [')
        for number, record in enumerate(released(count)):
            file.write(f"{', ' if number else ''}{json.dumps(record)}")
        file.write("]}")
    roots = {"--audio-root": folder / "audio", "--reverb-root": folder / "reverb", "--labels": folder / "labels.csv"}
    return [
        "import",
        str(folder / "data"),
        str(folder / "train.json"),
        *(str(x) for pair in roots.items() for x in pair),
    ]


def make_predictions(path: Path, count: int) -> Path:
    with open(path, "w") as file:
        for number, record in enumerate(released(count)):
            file.write(json.dumps({**record, "prediction": "Yes" if number % 3 else "No"}) + "\n")
    return path


def lines(quick: bool) -> Iterator[Line]:
    rounds, scale = (3, 1) if quick else (9, 4)
    yield compare("rooms, BRIRs of 1 s", lambda: simulate_rooms(5 * scale), None, rounds, 20 * scale)
    yield compare("questions", lambda: ask(2_500 * scale), None, rounds, 2_500 * scale)
    with tempfile.TemporaryDirectory() as name:
        yield import_line(Path(name), 50_000 if quick else PUBLISHED)
        predictions = make_predictions(Path(name) / "predictions.jsonl", 5_000 * scale)
        score = ["-m", "batcli", "score", "-q", str(predictions), "--labels", str(Path(name) / "labels.csv")]
        yield compare("score", lambda: run_python(*score), None, 3, 5_000 * scale, "the whole command, 1,000 resamples")


def import_line(folder: Path, count: int) -> Line:
    arguments = make_released(folder, count)
    seconds, megabytes = weigh_python("-m", "batcli", "prepare", *arguments, "-q")
    with open(folder / "data/questions/train.jsonl") as file:
        written = sum(1 for _ in file)
    if written != count:
        raise RuntimeError(f"{written:,} of {count:,} records were imported")
    note = f"{count:,} records in {seconds:.1f} s, peak memory {megabytes:.0f} MB"
    return Line("import", seconds / count, None, None, 1, count, note)


def growth(quick: bool) -> Iterator[Line]:
    """Against the number of records."""
    sizes = (1_000, 10_000, 100_000)
    for count in sizes[: 2 if quick else 3]:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            yield import_line(folder, count)._replace(name=f"import, per record of {count:,}")
            predictions = make_predictions(folder / "predictions.jsonl", count)
            score = ["-m", "batcli", "score", "-q", str(predictions)]
            yield compare(f"score, per prediction of {count:,}", lambda s=score: run_python(*s), None, 1, count)
            yield compare(f"questions, per question of {count:,}", lambda n=count: ask(n), None, 1, count)
