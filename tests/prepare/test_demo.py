"""`bat prepare demo`: splits that share nothing, the same bytes however it is run, and what it refuses."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from batcli.core.errors import InputError
from batcli.core.files import TEMPORARY, read_json, write_json
from batcli.core.progress import Silent
from batcli.data.answers import write_doa
from batcli.data.dataset import FILE, open_dataset
from batcli.data.geometry import octant
from batcli.data.question_types import PUBLISHED_TYPES
from batcli.options import DemoOptions
from batcli.prepare.demo import UNFINISHED
from batcli.prepare.demo import demo as make
from batcli.prepare.rooms import rooms

SPLITS = ("train", "eval", "dev")


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def again(demo: Path, data: Path, **changes) -> DemoOptions:
    """The options that made `demo`, for another directory."""
    return DemoOptions(**{**read_json(demo / FILE)["recipe"], "data": data, "jobs": 1, **changes})


def test_no_two_splits_share_a_clip_room_or_scene(demo):
    dataset = open_dataset(demo)
    clips = {split: {clip.audio_id for clip in dataset.clips(split)} for split in SPLITS}
    rooms = {split: {reverb.scene for reverb in dataset.reverbs(split).values()} for split in SPLITS}
    scenes = {split: {question.scene for question in dataset.questions(split)} for split in SPLITS}
    for found in (clips, rooms, scenes):
        assert all(found.values())
        assert len(set().union(*found.values())) == sum(map(len, found.values()))
    sounds = {split: {dataset.audio_path(clip).read_bytes() for clip in clips[split]} for split in SPLITS}
    assert len(set().union(*sounds.values())) == sum(map(len, clips.values()))
    for split in SPLITS:
        for source in (source for scene in scenes[split] for source in scene):
            assert source.audio_id in clips[split]
            assert source.reverb_id.partition("/")[0] in rooms[split]


def test_every_class_has_as_many_clips(demo):
    dataset = open_dataset(demo)
    assert len(dataset.labels) >= 16
    for split, count in (("train", 4), ("eval", 1), ("dev", 1)):
        per_class = Counter(mid for clip in dataset.clips(split) for mid in clip.mids)
        assert per_class == {label.mid: count for label in dataset.labels}


def test_all_types_are_asked(demo):
    dataset = open_dataset(demo)
    for split, count in (("train", 240), ("eval", 60), ("dev", 60)):
        asked = Counter(question.question_type for question in dataset.questions(split))
        assert asked == dataset.split(split).counts
        assert sum(asked.values()) == count
        assert set(asked) == set(PUBLISHED_TYPES)


def test_answers_are_where_the_sources_are(demo):
    dataset = open_dataset(demo)
    reverbs = dataset.reverbs("train")
    questions = [question for question in dataset.questions("train") if question.question_type == "DOA"]
    for question in questions:
        assert question.answer == write_doa(reverbs[question.reverb_id].position)
    assert {octant(reverbs[question.reverb_id].position).side for question in questions} == {"left", "right"}


def test_files_are_audio(demo):
    dataset = open_dataset(demo)
    for question in dataset.questions("eval"):
        for source in question.scene:
            clip, brir = dataset.files_of(source)
            info = soundfile.info(clip)
            assert (info.samplerate, info.channels, info.frames) == (32_000, 1, 32_000)
            assert np.load(brir).shape[0] == 2


def test_the_same_seed_gives_the_same_bytes_with_two_jobs(demo, tmp_path, monkeypatch):
    # The rooms have such a test of their own; starting processes takes longer than the work.
    monkeypatch.setattr("batcli.prepare.demo.rooms", lambda options, reporter: rooms(replace(options, jobs=1)))
    make(again(demo, tmp_path / "data", jobs=2))
    assert contents(tmp_path / "data") == contents(demo)


def test_another_seed_gives_others(demo, tmp_path):
    other = make(again(demo, tmp_path / "data", seed=1, clips=2, rooms=8, count=20, eval_count=20))
    first, second = contents(demo), contents(other.root)
    for name in ("audio/train/bark-0000.wav", "reverb/binaural/train-00000/0.npy", "questions/train.jsonl"):
        assert first[name] != second[name]


def test_a_stopped_run_goes_on_to_the_same_bytes(demo, tmp_path):
    data = Path(shutil.copytree(demo, tmp_path / "data"))
    write_json(data / UNFINISHED, read_json(data / FILE)["recipe"])
    lost = ["questions/eval.jsonl", "metadata/eval.json", "reverb/eval_reverberation.json"]
    lost += ["audio/train/bark-0002.wav", "audio/eval/piano-0000.wav", "reverb/binaural/train-00003/room.json"]
    lost = [FILE, *(name for name in lost if (data / name).exists())]
    assert len(lost) >= 6
    for name in lost:
        (data / name).unlink()
    (data / "audio/train" / f"{TEMPORARY}bark-0002.wav").write_bytes(b"half")
    with pytest.raises(InputError, match="not a finished dataset"):
        open_dataset(data)
    kept = {path: path.stat().st_mtime_ns for path in data.glob("audio/*/[a-z]*.wav")}
    make(again(demo, data))
    assert contents(data) == contents(demo)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # what was there is not made again


def test_a_complete_one_is_left_alone(demo, monkeypatch):
    monkeypatch.setattr("batcli.prepare.demo.write_json", lambda *_: pytest.fail("wrote"))
    said, before = Said(), {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    dataset = make(again(demo, demo), said)
    assert said.lines[-1] == f"{demo} is already complete"
    assert vars(dataset) == vars(open_dataset(demo))
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before


def test_what_is_something_else_is_refused_and_stays(demo, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.tex").touch()
    for name, content in (("list", []), ("imported", {"schema": 1}), ("begun", None)):
        (tmp_path / name).mkdir()
        write_json(tmp_path / name / (FILE if content is not None else UNFINISHED), content or {"seed": 9})
    before = contents(tmp_path)
    for options, message in (
        (again(demo, demo, seed=1), "made with other options; choose another directory"),
        (again(demo, tmp_path / "file"), "is a file, not a directory"),
        (again(demo, tmp_path / "file/below"), "cannot be written"),
        (again(demo, tmp_path / "full"), "is not empty and no demo dataset"),
        *((again(demo, tmp_path / name), "made with other options") for name in ("list", "imported", "begun")),
    ):
        with pytest.raises(InputError, match=message):
            make(options)
    assert contents(tmp_path) == before


def test_a_dry_run_checks_and_makes_nothing(demo, tmp_path):
    said = Said()
    make(again(demo, tmp_path / "data", dry_run=True), said)
    assert "28 classes, 168 clips of 1 s, 18 rooms with 4 BRIRs each, 360 questions" in said.lines
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="made with other options"):
        make(again(demo, demo, seed=1, dry_run=True))


def test_heads_of_training_and_of_what_is_held_out(tmp_path):
    sizes = {"clips": 2, "rooms": 12, "sources": 4, "count": 20, "eval_count": 20, "seconds": 0.5, "jobs": 1}
    make(DemoOptions(data=tmp_path / "data", **sizes, hrtf="kemar", held_out_hrtf="sphere"))
    dataset = open_dataset(tmp_path / "data")
    heads = {split: {brir.extra["hrtf"] for brir in dataset.reverbs(split).values()} for split in dataset.splits}
    assert heads == {"train": {"kemar"}, "eval": {"sphere"}, "dev": {"sphere"}}
    assert dataset.recipe["held_out_hrtf"] == "sphere"
    with pytest.raises(InputError, match="made with other options"):
        make(DemoOptions(data=tmp_path / "data", **sizes))
