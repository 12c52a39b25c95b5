"""`bat prepare questions`: files in, a split out, and a clear line for what is wrong."""

import json
import re
import shutil

import pytest
from typer.testing import CliRunner

from batcli.cli import app
from batcli.core.errors import InputError
from batcli.core.files import sha256
from batcli.data.dataset import open_dataset
from batcli.options import QuestionsOptions
from batcli.prepare.questions import questions


class Heard:
    """A reporter that remembers."""

    def __init__(self):
        self.infos, self.warnings = [], []

    def track(self, items, description, total=None):
        yield from items

    def status(self, text): ...

    def info(self, message):
        self.infos.append(message)

    def warn(self, message):
        self.warnings.append(message)

    def detail(self, message): ...


def options(material, data, **changes) -> QuestionsOptions:
    return QuestionsOptions(
        data=data,
        **{
            "clips": material.clips,
            "labels": material.labels,
            "audio_root": material.audio_root,
            "reverb_root": material.reverb_root,
            "count": 500,
            **changes,
        },
    )


def flags(material, data, *more: str) -> list[str]:
    files = ["--clips", str(material.clips), "--labels", str(material.labels)]
    roots = ["--audio-root", str(material.audio_root), "--reverb-root", str(material.reverb_root)]
    return ["prepare", "questions", str(data), *files, *roots, *more]


# ---- what is written -----------------------------------------------------------------------------


def test_a_split_is_written_and_reported(material, tmp_path):
    heard = Heard()
    report = questions(options(material, tmp_path / "data"), heard)
    dataset = open_dataset(tmp_path / "data")
    asked = list(dataset.questions("train"))
    assert len(asked) == 500 == sum(report.counts.values())
    assert dataset.splits["train"].counts == report.counts
    assert dataset.splits["train"].sha256 == sha256(tmp_path / "data/questions/train.jsonl")
    assert len(dataset.clips("train")) == 300
    assert len(dataset.reverbs("train")) == 600
    assert all(path.is_file() for question in asked for source in question.scene for path in dataset.files_of(source))
    assert heard.infos == report.lines()
    assert not heard.warnings


def test_same_seed_same_bytes(material, tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        questions(options(material, tmp_path / name, seed=seed))
    a, b, c = ((tmp_path / name / "questions/train.jsonl").read_bytes() for name in "abc")
    assert a == b != c


def test_a_second_split_leaves_the_first(material, tmp_path):
    shutil.copy(material.reverb_root / "train_reverberation.json", material.reverb_root / "eval_reverberation.json")
    heard = Heard()
    questions(options(material, tmp_path, seconds=4.0))
    before = (tmp_path / "questions/train.jsonl").read_bytes()
    questions(options(material, tmp_path, split="eval", count=60, types="D", seed=1), heard)
    dataset = open_dataset(tmp_path)
    assert list(dataset.splits) == ["train", "eval"]
    assert dataset.seconds == 4.0
    assert dataset.splits["eval"].counts == {"MIXUP_SINGLE_DOA": 60}
    assert (tmp_path / "questions/train.jsonl").read_bytes() == before
    # The rooms are a copy under another name, which is not seen; the clips are the same file.
    assert heard.warnings == ["split 'train' has the same clips: to a model of one split the other is not new"]


def test_a_dry_run_writes_nothing(material, tmp_path):
    heard = Heard()
    report = questions(options(material, tmp_path / "data", dry_run=True, types="A,C"), heard)
    assert not (tmp_path / "data").exists()
    assert report.counts == {"CLASSIFICATION": 271, "MIXUP_SINGLE_CLASSIFICATION": 229}
    assert heard.infos[0] == "300 clips, 600 BRIRs of 120 rooms, 500 questions:"


def test_missing_files_are_left_out_with_a_warning(material, tmp_path):
    clips = json.loads(material.clips.read_text())
    (tmp_path / "clips.json").write_text(
        json.dumps([{"folder": "some", "id": "gone", "label": ["/m/1"]}, {"id": "x/y", "label": ["/m/1"]}, *clips])
    )
    heard = Heard()
    questions(options(material, tmp_path / "data", clips=tmp_path / "clips.json"), heard)
    (warning,) = heard.warnings
    assert "2 of 302 clips have no file" in warning
    assert "some/gone" in warning
    assert not {"some/gone", "x/y"} & {q.audio_id for q in open_dataset(tmp_path / "data").questions("train")}


def test_the_command(material, tmp_path):
    result = CliRunner().invoke(
        app, flags(material, tmp_path / "data", "--count", "90", "--types", "B,MIXUP_DIRECTION")
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    *table, last = lines  # which names a path of any length
    assert max(map(len, table)) <= 80
    assert last.startswith("done in ")
    assert any(re.match(r"DOA +\d+ octant +8 ", line) for line in lines)
    assert any(re.match(r"MIXUP_DIRECTION +\d+ answer +2 ", line) for line in lines)


# ---- what is refused -----------------------------------------------------------------------------


def refused(material, tmp_path, **changes) -> str:
    with pytest.raises(InputError) as caught:
        questions(options(material, tmp_path / "data", **changes))
    assert not (tmp_path / "data").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_options_that_are_missing_or_wrong(material, tmp_path):
    assert refused(material, tmp_path, clips=None).startswith("--clips: missing")
    assert "--types: unknown question type 'Z'" in refused(material, tmp_path, types="A,Z")
    assert "--split: not a name: '../train'" in refused(material, tmp_path, split="../train")
    assert "test_reverberation.json: no such file" in refused(material, tmp_path, split="test")
    assert "nowhere: no such directory" in refused(material, tmp_path, audio_root=tmp_path / "nowhere")
    assert "BRIRs lie in its folder binaural/" in refused(material, tmp_path, reverb_root=material.audio_root)
    assert "none of the 300 clips lies here" in refused(material, tmp_path, audio_root=material.reverb_root)


def test_malformed_positions(material, tmp_path):
    root = tmp_path / "reverb"
    (root / "binaural").mkdir(parents=True)
    for position, message in (
        ("1,2", "not a position"),
        ("1,2,nan", "not a finite position"),
        ("0,0,0", "the source stands in the listener"),
        ([1, 2, 3], "not a position"),
    ):
        entries = [{"fname": "r/0.npy", "sensor_position": "0,0,0", "source_position": position}]
        (root / "train_reverberation.json").write_text(json.dumps({"data": entries}))
        line = refused(material, tmp_path, reverb_root=root)
        assert "train_reverberation.json:1: r/0.npy: " in line
        assert message in line


def test_clips_without_labels(material, tmp_path):
    file = tmp_path / "clips.json"
    file.write_text('[{"folder": "some", "id": "Y0.x", "label": []}]')
    assert "clips.json:1: clip 'Y0.x' has no labels" in refused(material, tmp_path, clips=file)
    file.write_text('[{"folder": "some", "id": "Y0.x", "label": ["/m/77"]}]')
    assert "no clip has a label of the CSV" in refused(material, tmp_path, clips=file)


def test_ids_that_climb(material, tmp_path):
    file = tmp_path / "clips.json"
    file.write_text('[{"folder": "../../etc", "id": "passwd", "label": ["/m/1"]}]')
    assert "leads out of" in refused(material, tmp_path, clips=file)


def test_a_name_quoted_in_part(material, tmp_path):
    file = tmp_path / "labels.csv"
    file.write_text('index,mid,display_name\n0,/m/0,Speech\n1,/m/1,"Whack", thwack\n')
    assert "labels.csv:3: 4 columns, not 3; quote the whole of a name" in refused(material, tmp_path, labels=file)


def test_other_roots_labels_or_seconds_than_the_dataset(material, tmp_path):
    questions(options(material, tmp_path))
    other = tmp_path / "other"
    (other / "binaural").mkdir(parents=True)
    shutil.copy(material.reverb_root / "train_reverberation.json", other)
    (tmp_path / "labels.csv").write_text("index,mid,display_name\n0,/m/0,Speech\n")
    for changes, message in (
        ({"reverb_root": other}, "--reverb-root: is "),
        ({"labels": tmp_path / "labels.csv"}, "not the labels of "),
        ({"seconds": 3.0}, "--seconds: is 10 in "),
    ):
        with pytest.raises(InputError, match=message):
            questions(options(material, tmp_path, **changes))


def test_the_exit_code_is_2(material, tmp_path):
    result = CliRunner().invoke(app, flags(material, tmp_path / "data", "--split", "nope"))
    assert result.exit_code == 2
    assert result.stderr.startswith("bat: ")
    assert result.stderr.count("\n") == 1


def test_brirs_without_heights_are_asked_about_on_the_other_axes(material, tmp_path):
    """The same rooms with every source at the height of the ears, as most measured rooms are."""
    reverb = tmp_path / "reverb"
    shutil.copytree(material.reverb_root, reverb)
    content = json.loads((reverb / "train_reverberation.json").read_text())
    for entry in content["data"]:
        x, _, z = entry["source_position"].split(",")
        entry["source_position"] = f"{x},{entry['sensor_position'].split(',')[1]},{z}"
    (reverb / "train_reverberation.json").write_text(json.dumps(content))
    reporter = Heard()
    report = questions(options(material, tmp_path / "data", reverb_root=reverb, count=200), reporter)
    assert any("questions are on the other axes: DOA_PLANE" in line for line in reporter.infos)
    assert {"DOA_PLANE", "MIXUP_SINGLE_DOA_PLANE", "MIXUP_DIRECTION"} < set(report.counts)
    assert "DOA" not in report.counts
    with pytest.raises(InputError, match="too near to a plane"):
        questions(options(material, tmp_path / "named", reverb_root=reverb, count=20, types="DOA"))
