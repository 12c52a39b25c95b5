"""The dataset directory: written last, checked when opened, paths relative where they lie inside."""

import json
import shutil
from pathlib import Path

import pytest

from batcli.core.errors import InputError
from batcli.core.files import read_json, sha256
from batcli.data.dataset import FILE, Dataset, audio_path, extend_dataset, open_dataset, require_split_name
from batcli.data.schema import Question, Source


def question(number: int) -> Question:
    return Question.of((Source("a/1", "room/1.npy"),), number, "DOA", "Where?", "left, front, above; 1m")


@pytest.fixture
def data(tmp_path) -> Dataset:
    """Two questions, labels and roots; one root lies outside."""
    root = tmp_path / "data"
    (root / "audio").mkdir(parents=True)
    (tmp_path / "reverb/binaural").mkdir(parents=True)
    (root / "labels.csv").write_text("index,mid,display_name\n0,/m/1,Dog\n")
    dataset = extend_dataset(root, root / "audio", tmp_path / "reverb", root / "labels.csv", seconds=2.0, seed=3)
    dataset.add_split("train", [question(0), question(1)], None, None)
    dataset.save()
    return dataset


def test_what_was_saved_is_opened(data):
    opened = open_dataset(data.root)
    assert vars(opened).items() >= {"seconds": 2.0, "seed": 3, "audio_root": "audio"}.items()
    assert list(opened.questions("train")) == [question(0), question(1)]
    assert opened.split("train").counts == {"DOA": 2}
    assert opened.split("train").sha256 == sha256(data.root / "questions/train.jsonl")
    assert [label.name for label in opened.labels] == ["Dog"]
    assert read_json(data.root / FILE)["schema"] == 1


def test_a_dataset_can_move_with_what_lies_inside(data, tmp_path):
    moved = open_dataset(shutil.move(data.root, tmp_path / "elsewhere"))
    assert moved.path(moved.audio_root) == tmp_path / "elsewhere/audio"
    assert moved.path(moved.reverb_root) == tmp_path / "reverb"


def test_files_of_a_source(data):
    (data.root / "audio/a").mkdir()
    (data.root / "audio/a/Y.1.flac").touch()
    clip, brir = data.files_of(Source("a/Y.1", "room/1.npy"))
    assert clip == data.root / "audio/a/Y.1.flac"  # a dot in an id is no extension
    assert brir == Path(data.reverb_root) / "binaural/room/1.npy"
    assert audio_path(data.root, "a/none").name == "none.wav"


@pytest.mark.parametrize("source", [Source("../labels", "r/1.npy"), Source("a/1", "/etc/passwd"), Source("a\0", "r")])
def test_ids_that_climb_out(data, source):
    with pytest.raises(InputError, match="leads out of"):
        data.files_of(source)


def test_what_is_not_there(data):
    with pytest.raises(InputError, match=r"no split 'evla'; splits here: train"):
        data.questions("evla")
    with pytest.raises(InputError, match="no clip metadata for split 'train'"):
        data.clips("train")
    with pytest.raises(InputError, match="no BRIR metadata for split 'train'"):
        data.reverbs("train")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "damaged"),
        ("3", "damaged"),
        ("{", "dataset.json:1: not JSON"),
        ({"schema": 2}, "schema 2, this version reads 1"),
        ({"splits": {"train": {"file": "x"}}}, "damaged: TypeError"),
        ({"splits": []}, "damaged"),
        ({"seconds": "long"}, "damaged: ValueError"),
        ({"seconds": 0}, "damaged: ValueError: seconds is 0.0"),
        ({"seconds": float("nan")}, "damaged: ValueError: seconds is nan"),
        ({"labels": ...}, "damaged: KeyError: 'labels'"),
    ],
)
def test_what_is_no_dataset(data, content, message):
    if isinstance(content, dict):
        whole = read_json(data.root / FILE) | content
        content = json.dumps({name: value for name, value in whole.items() if value is not ...})
    (data.root / FILE).write_text(content)
    with pytest.raises(InputError) as caught:
        open_dataset(data.root)
    assert message in str(caught.value)


def test_an_unfinished_dataset_is_none(data, tmp_path):
    (data.root / FILE).unlink()
    for path, message in ((data.root, "not a finished dataset"), (tmp_path / "none", "no such directory")):
        with pytest.raises(InputError, match=message):
            open_dataset(path)


def test_splits_share_roots_labels_and_length(data, tmp_path):
    audio, reverb, labels = data.root / "audio", tmp_path / "reverb", data.root / "labels.csv"
    (tmp_path / "other").mkdir()
    (tmp_path / "more.csv").write_text("index,mid,display_name\n0,/m/1,Cat\n")
    assert set(extend_dataset(data.root, audio, reverb, labels).splits) == {"train"}
    for arguments, message in (
        ((tmp_path / "other", reverb, labels), "--audio-root"),
        ((audio, reverb, tmp_path / "more.csv"), "not the labels of"),
        ((audio, reverb, labels, 3.0), "--seconds: is 2 in"),
        ((audio, tmp_path / "other", labels), "no such directory; check --reverb-root"),
        ((tmp_path / "none", reverb, labels), "no such directory; check --audio-root"),
    ):
        with pytest.raises(InputError, match=message):
            extend_dataset(data.root, *arguments)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "../a", "a b", "x" * 101, "-a"])
def test_what_is_no_name_of_a_split(name):
    with pytest.raises(InputError, match="not a name"):
        require_split_name(name)
    assert require_split_name("eval-stage1.doa") == "eval-stage1.doa"
