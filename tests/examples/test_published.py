"""`examples/published.sh` on a made tree of the released form, with the published model in small."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from batcli.data.dataset import open_dataset

ROOT = Path(__file__).resolve().parents[2]
SMALL = """
from dataclasses import replace
from batcli.model import config
from batcli.training import recipe

published = config.PRESETS["llama2-7b"]
config.PRESETS["llama2-7b"] = replace(
    published,
    encoder=replace(published.encoder, n_mels=32, dim=16, depth=1, heads=2),
    qformer=replace(published.qformer, layers=1, queries=3, dim=16, heads=2),
)
config.SOURCES_BESIDE = replace(config.SOURCES_BESIDE, bands=16, hidden=8, event_dim=4)
from batcli.cli import main
main()
"""
ENCODER_OPTIONS = "--device cpu --workers 1 --set encoder_epochs=1 --set encoder_update=16 --set encoder_batch=8"
OPTIONS = (
    "--device cpu --workers 1 --set source_scenes=24 --set source_update=24 --set source_batch=24 "
    "--set update=8 --set batch=8 --set epochs=1,1,1"
)
FILES = {  # families of each evaluation file
    "stage1-clsdoa/eval-stage1-classification": "A",
    "stage1-clsdoa/eval-stage1-doa": "B",
    "stage2-single/eval-stage2-classification": "C",
    "stage2-single/eval-stage2-doa": "D",
    "stage3-mixup/eval-stage3-direction": "E",
}


def write_tree(demo: Path, tree: Path) -> None:
    """The scenes of `demo` in the layout of the released files: few questions, clips and BRIRs of each split."""
    dataset = open_dataset(demo)
    shutil.copytree(demo / "audio", tree / "AudioSet")
    shutil.copytree(demo / "reverb" / "binaural", tree / "mp3d_reverb" / "binaural")
    metadata = tree / "AudioSet" / "metadata"
    metadata.mkdir()
    shutil.copy(demo / "labels.csv", metadata / "class_labels_indices_subset.csv")
    for split, name in (("train", "balanced"), ("eval", "eval")):
        clips = json.loads((demo / f"metadata/{split}.json").read_text())
        (metadata / f"{name}.json").write_text(json.dumps(clips[::4]))
        shutil.copy(demo / f"reverb/{split}_reverberation.json", tree / "mp3d_reverb")
    questions = {
        split: [q.to_dict() | {"family": q.family} for q in dataset.questions(split)] for split in ("train", "eval")
    }
    wanted = {
        "stage3-mixup/train": ("train", "ABCDE", 3),
        **{name: ("eval", family, 1) for name, family in FILES.items()},
    }
    for name, (split, families, count) in wanted.items():
        chosen = []
        for family in families:
            chosen += [q for q in questions[split] if q["family"] == family][:count]
        file = tree / "closed-end" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"data": [{k: v for k, v in q.items() if k != "family"} for q in chosen]}))


def test_the_published_system_from_the_released_files(demo: Path, llm_folder: Path, tmp_path: Path):
    write_tree(demo, tmp_path / "tree")
    (tmp_path / "small.py").write_text(SMALL)
    bat = f"{shlex.quote(sys.executable)} {tmp_path / 'small.py'}"
    variables = {"BAT": bat, "ENCODER_OPTIONS": ENCODER_OPTIONS, "OPTIONS": OPTIONS}
    where = {**os.environ, **variables, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        "bash",
        str(ROOT / "examples/published.sh"),
        str(tmp_path / "tree"),
        str(llm_folder),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, env=where, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert (out / "run/DONE").exists()
    heard = [json.loads(line) for line in (out / "heard.jsonl").read_text().splitlines()]
    assert {record["audio_id"].split("/")[0] for record in heard} == {"eval"}
    assert all("encoder" in record["heard"] for record in heard)
    predictions = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(predictions) == len(FILES)
    assert all(isinstance(record["prediction"], str) for record in predictions)
    for words in ("Spatial-AST", "DSpAST", "BAT"):
        assert words in done.stdout, done.stdout
    stages = [json.loads(line)["stage"] for line in (out / "run/log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["sources", "1", "2", "3"]
