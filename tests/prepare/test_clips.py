"""`bat prepare clips`: public layouts in small, from their tables to clips, and what is refused."""

import csv
import json
import os

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from batcli.cli import app
from batcli.core.errors import InputError
from batcli.data.dataset import open_dataset
from batcli.data.metadata import read_clips
from batcli.options import ClipsOptions
from batcli.prepare.clips import clips

RATE = 16_000


def sound(path, seed, seconds=0.5, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.2 * np.random.default_rng(seed).normal(size=round(seconds * rate)).clip(-4, 4), rate)


def table(path, header, rows, delimiter=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])


def esc50(root, folds=5):
    rows = []
    for number, (fold, name) in enumerate((f, c) for f in range(1, folds + 1) for c in ("dog", "door_wood_knock")):
        file = f"{fold}-{number}-A-{number}.wav"
        sound(root / "audio" / file, number)
        rows.append([file, fold, number, name, "True", 1000 + number, "A"])
    table(root / "meta/esc50.csv", ["filename", "fold", "target", "category", "esc10", "src_file", "take"], rows)


def fsd50k(root):
    truth = root / "FSD50K.ground_truth"
    rows = []
    for number in range(8):
        sound(root / "FSD50K.dev_audio" / f"{number}.wav", number)
        mids = "/m/042v_gx,/m/0fx80y" if number % 2 else "/m/0bt9lr"
        names = "Acoustic_guitar,Plucked_string_instrument" if number % 2 else "Dog"
        rows.append([number, names, mids, "val" if number >= 6 else "train"])
    table(truth / "dev.csv", ["fname", "labels", "mids", "split"], rows)
    for number in (100, 101):
        sound(root / "FSD50K.eval_audio" / f"{number}.wav", number)
    table(truth / "eval.csv", ["fname", "labels", "mids"], [[100, "Dog", "/m/0bt9lr"], [101, "Dog", "/m/0bt9lr"]])


def urbansound8k(root):
    rows = []
    for number, fold in enumerate([1, 1, 2, 3, 9, 9, 10, 10]):
        file, name = f"{500 + number}-3-0-{number}.wav", ("dog_bark", "air_conditioner")[number % 2]
        sound(root / "audio" / f"fold{fold}" / file, number)
        rows.append([file, 500 + number, 0, 4, 1, fold, 3, name])
    header = ["slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class"]
    table(root / "metadata/UrbanSound8K.csv", header, rows)


def audioset(root):
    table(root / "class_labels_indices.csv", ["index", "mid", "display_name"],
          [[0, "/m/0bt9lr", "Dog"], [1, "/m/05tny_", "Bark"], [2, "/t/dd00002", "Baby cry, infant cry"]])  # fmt: skip
    lines = ["# Segments csv created Sun Mar  5 10:54:31 2017", "# num_ytids=9", "# YTID, start_seconds, end_seconds"]
    names = [f"{letter}bcdefghij{n}" for n, letter in enumerate("Yab-_c")]
    stems = [f"Y{names[0]}", names[1], f"{names[2]}_30.000", f"Y{names[3]}_30000_40000", names[4]]  # the last is gone
    for number, name in enumerate(names):
        mids = '"/m/0bt9lr,/m/05tny_"' if number % 2 else '"/t/dd00002"'
        lines.append(f"{name}, 30.000, 40.000, {mids}")
    (root / "balanced_train_segments.csv").write_text("\n".join(lines) + "\n")
    for number, stem in enumerate(stems):
        sound(root / "audio" / "train" / f"{stem}.flac", number)
    sound(root / "audio" / "eval" / "Yzzzzzzzzzzz.wav", 99)
    (root / "eval_segments.csv").write_text("\n".join([*lines[:3], 'zzzzzzzzzzz, 0.000, 10.000, "/m/0bt9lr"']) + "\n")


def split_ids(data):
    found = {}
    for split in ("train", "dev", "eval"):
        path = data / "metadata" / f"{split}.json"
        if path.exists():
            found[split] = {clip.audio_id: clip.mids for clip in read_clips(path)}
    return found


def make(tmp_path, layout, **options):
    source = tmp_path / "source"
    source.mkdir()
    layout(source)
    dataset = clips(ClipsOptions(data=tmp_path / "data", source=[source], jobs=1, **options))
    found = split_ids(tmp_path / "data")
    for ids in found.values():
        assert all(dataset.audio_path(audio_id).is_file() for audio_id in ids)
    return open_dataset(tmp_path / "data"), found


def names(dataset):
    return [label.name for label in dataset.labels]


def test_esc50(tmp_path):
    dataset, found = make(tmp_path, esc50)
    assert names(dataset) == ["Dog", "Door wood knock"]
    assert {split: len(ids) for split, ids in found.items()} == {"train": 6, "dev": 2, "eval": 2}
    assert found["eval"] == {"dog/5-8-A-8": ("/own/dog",), "door-wood-knock/5-9-A-9": ("/own/door-wood-knock",)}


def test_esc50_with_other_folds(tmp_path):
    _, found = make(tmp_path, esc50, eval_folds="1", dev_folds="2,3")
    assert {split: len(ids) for split, ids in found.items()} == {"train": 4, "dev": 4, "eval": 2}
    assert all(audio_id.split("/")[1].startswith("1-") for audio_id in found["eval"])


def test_fsd50k_has_several_labels_its_mids_and_its_splits(tmp_path):
    dataset, found = make(tmp_path, fsd50k)
    assert names(dataset) == ["Acoustic guitar", "Dog", "Plucked string instrument"]
    assert found["train"]["acoustic-guitar/1"] == ("/m/042v_gx", "/m/0fx80y")
    assert {split: len(ids) for split, ids in found.items()} == {"train": 6, "dev": 2, "eval": 2}


def test_urbansound8k(tmp_path):
    dataset, found = make(tmp_path, urbansound8k)
    assert names(dataset) == ["Air conditioner", "Dog bark"]
    assert {split: len(ids) for split, ids in found.items()} == {"train": 4, "dev": 2, "eval": 2}


def test_audioset_in_all_manners_of_naming(tmp_path, capsys):
    dataset, found = make(tmp_path, audioset, dev_share=0.0)
    assert names(dataset) == ["Baby cry, infant cry", "Bark", "Dog"]
    assert len(found["train"]) == 5
    assert found["eval"] == {"dog/zzzzzzzzzzz": ("/m/0bt9lr",)}


def test_folders_by_class_with_their_own_splits_or_without(tmp_path):
    def divided(root):
        for place, split in enumerate(("train", "valid", "test")):
            for n in range(2):
                sound(root / split / "dog bark" / f"{n}.wav", 2 * place + n)

    dataset, found = make(tmp_path, divided)
    assert names(dataset) == ["Dog bark"]
    assert {split: len(ids) for split, ids in found.items()} == {"train": 2, "dev": 2, "eval": 2}


def test_ten_recordings_of_ones_own(tmp_path):
    def own(root):
        for n in range(5):
            sound(root / "Kettle" / f"take {n}.wav", n)
            sound(root / "Door" / "deep" / f"{n}.OGG", 10 + n)

    dataset, found = make(tmp_path, own)
    assert names(dataset) == ["Door", "Kettle"]
    assert {split: len(ids) for split, ids in found.items()} == {"train": 6, "dev": 2, "eval": 2}


def test_any_table_with_ids_without_extension_groups_and_several_labels(tmp_path):
    for n in range(6):
        sound(tmp_path / "sounds" / "x" / f"id.{n}.flac", n)
    rows = [[f"x/id.{n}", "dog|wind" if n % 2 else "dog", f"rec{n // 3}"] for n in range(6)]
    table(tmp_path / "t.csv", ["name", "what", "from"], rows)
    (tmp_path / "t.csv").write_text("\ufeff" + (tmp_path / "t.csv").read_text().replace("\n", "\r\n"), newline="")
    options = ClipsOptions(
        data=tmp_path / "data", source=[tmp_path / "sounds"], csv=tmp_path / "t.csv", file="name", label="what",
        group="from", separator="|", test_share=0.5, dev_share=0.0, jobs=1,
    )  # fmt: skip
    assert names(clips(options)) == ["Dog", "Wind"]
    found = split_ids(tmp_path / "data")
    assert {len(ids) for ids in found.values()} == {3}, "a group is never divided"
    assert ("/own/dog", "/own/wind") in [*found["train"].values(), *found["eval"].values()]


def test_given_labels_are_found_by_name_and_others_left_out(tmp_path):
    (tmp_path / "labels.csv").write_text('index,mid,display_name\n0,/m/1,"Rain"\n1,/m/2,"Dog"\n')
    dataset, found = make(tmp_path, esc50, labels=tmp_path / "labels.csv")
    assert [(label.mid, label.name) for label in dataset.labels] == [("/m/1", "Rain"), ("/m/2", "Dog")]
    assert {mids for ids in found.values() for mids in ids.values()} == {("/m/2",)}


def test_the_same_samples_are_never_in_two_splits(tmp_path):
    def copies(root):
        esc50(root)
        kept = (root / "audio" / "5-8-A-8.wav").read_bytes()
        (root / "audio" / "1-0-A-0.wav").write_bytes(kept)

    _, found = make(tmp_path, copies)
    assert "dog/1-0-A-0" not in found["train"]
    assert "dog/5-8-A-8" in found["eval"]
    reason = json.loads((tmp_path / "data/metadata/left_out.json").read_text())
    assert reason[0]["reason"] == "the same samples as a recording of split eval"


def test_bad_recordings_are_left_out_and_counted(tmp_path):
    source = tmp_path / "source"
    esc50(source)
    (source / "audio/1-0-A-0.wav").write_bytes(b"RIFF")
    soundfile.write(source / "audio/2-2-A-2.wav", np.zeros(RATE), RATE)
    command = ["prepare", "clips", str(tmp_path / "data"), str(source), "--jobs", "1"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 4
    assert "2 recordings left out" in result.stderr
    assert len(split_ids(tmp_path / "data")["train"]) == 4
    assert "already complete" in CliRunner().invoke(app, command).stderr


def test_a_stopped_run_goes_on_and_gives_the_same(tmp_path, monkeypatch):
    source = tmp_path / "source"
    esc50(source)
    whole = ClipsOptions(data=tmp_path / "whole", source=[source], jobs=2)
    clips(whole)
    from batcli.prepare import clips as module

    real, made = module._convert, []

    def dies(work, folder, settings):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(work)
        return real(work, folder, settings)

    monkeypatch.setattr(module, "_convert", dies)
    parts = ClipsOptions(data=tmp_path / "parts", source=[source], jobs=1)
    with pytest.raises(KeyboardInterrupt):
        clips(parts)
    assert not (tmp_path / "parts/dataset.json").exists()
    monkeypatch.setattr(module, "_convert", lambda work, **rest: made.append(work) or real(work, **rest))
    clips(parts)
    assert len(made) == 10, "what was converted is not converted again"
    for path in sorted((tmp_path / "whole").rglob("*")):
        if path.is_file() and path.name != "dataset.json":
            assert (tmp_path / "parts" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "esc50", "csv": "meta/esc50.csv"}, "a table and a layout"),
        ({"csv": "meta/esc50.csv"}, "no column 'file'"),
        ({"csv": "meta/esc50.csv", "file": "filename", "label": "category", "eval_folds": "5"}, "no row has fold '5'"),
        (
            {"csv": "meta/esc50.csv", "file": "filename", "label": "category", "fold": "fold", "eval_folds": "7"},
            "folds here: 1, 2",
        ),
        ({"csv": "meta/esc50.csv", "file": "esc10", "label": "category"}, "none of the 4 recordings lies here"),
        ({"fold": "fold"}, "names a column of a table"),
        ({"file": "filename"}, "--file: names a column of a table"),
        ({"label": "category"}, "--label: names a column of a table"),
        ({"csv": "meta/esc50.csv", "file": "filename", "label": "category", "fold": "fold"}, "--fold: has no effect"),
        ({"test_share": 0.5, "eval_folds": "1", "dev_folds": "2"}, "--test-share: has no effect"),
        ({"dev_share": 0.5, "eval_folds": "1", "dev_folds": "2"}, "--dev-share: has no effect"),
        ({"layout": "urbansound8k"}, "no such file"),
        ({"layout": "folders", "eval_folds": "1"}, "has no folds"),
    ],
)
def test_what_contradicts_is_refused(tmp_path, options, message):
    source = tmp_path / "source"
    esc50(source, folds=2)
    if "csv" in options:
        options = {**options, "csv": source / options["csv"]}
    with pytest.raises(InputError, match=message):
        clips(ClipsOptions(data=tmp_path / "data", source=[source], **options))
    assert not (tmp_path / "data").exists()


def test_another_dataset_is_not_overwritten(tmp_path):
    dataset, _ = make(tmp_path, esc50)
    with pytest.raises(InputError, match="clips made otherwise"):
        clips(ClipsOptions(data=dataset.root, source=[tmp_path / "source"], seconds=1.0))


def test_a_dry_run_counts_and_writes_nothing(tmp_path):
    esc50(tmp_path / "source")
    result = CliRunner().invoke(app, ["prepare", "clips", str(tmp_path / "data"), str(tmp_path / "source"), "-n"])
    assert result.exit_code == 0
    assert "eval            2 recordings" in result.stderr
    assert not os.path.exists(tmp_path / "data")


def test_rooms_and_questions_come_by_the_next_command_and_are_trained_on(tmp_path):
    """From a collection's table to a trained run in three commands, at sizes of seconds."""
    esc50(tmp_path / "source", folds=5)
    data, run = str(tmp_path / "data"), str(tmp_path / "run")
    sizes = ["--rooms", "8", "--sources", "4", "--count", "60", "--eval-count", "20", "--jobs", "1"]
    stages = ["--set", "source_scenes=16", "--set", "source_epochs=1", "--set", "epochs=0.2,0.2,0.2", "--workers", "1"]
    for words in (
        ["prepare", "clips", data, str(tmp_path / "source"), "--seconds", "0.5", "--jobs", "1"],
        ["prepare", "demo", data, *sizes],
        ["train", data, "-o", run, *stages],
    ):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    dataset = open_dataset(tmp_path / "data")
    assert set(dataset.splits) == {"train", "dev", "eval"}
    for split in dataset.splits:
        clips_of = {clip.audio_id for clip in dataset.clips(split)}
        assert {source.audio_id for q in dataset.questions(split) for source in q.scene} <= clips_of
    assert (tmp_path / "run" / "DONE").exists()
    again = CliRunner().invoke(app, ["prepare", "demo", data, *sizes])
    assert "already complete" in again.stderr
    for words, message in (
        ([*sizes[:-4], "--eval-count", "24"], "made otherwise"),
        (["--clips", "9"], "has its clips already"),
        (["--seconds", "1"], "has its clips already"),
    ):
        result = CliRunner().invoke(app, ["prepare", "demo", data, *words])
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.mark.parametrize("what", ["file", "folder"])
def test_links_out_of_the_source_are_followed_when_asked_to(tmp_path, what):
    esc50(tmp_path / "real")
    source = tmp_path / "source"
    (source / "meta").mkdir(parents=True)
    (source / "meta/esc50.csv").write_bytes((tmp_path / "real/meta/esc50.csv").read_bytes())
    if what == "folder":
        (source / "audio").mkdir()
        (source / "audio/all").symlink_to(tmp_path / "real/audio")
    else:
        (source / "audio").mkdir()
        for path in (tmp_path / "real/audio").iterdir():
            (source / "audio" / path.name).symlink_to(path)
    options = ClipsOptions(data=tmp_path / "data", source=[source], jobs=1)
    with pytest.raises(InputError, match="--follow-links"):
        clips(options)
    clips(ClipsOptions(data=tmp_path / "data", source=[source], jobs=1, follow_links=True))
    assert len(split_ids(tmp_path / "data")["train"]) == 6


def test_a_link_to_nothing_is_a_missing_file(tmp_path):
    esc50(tmp_path / "source")
    path = tmp_path / "source/audio/1-0-A-0.wav"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere.wav")
    clips(ClipsOptions(data=tmp_path / "data", source=[tmp_path / "source"], jobs=1))
    assert "dog/1-0-A-0" not in split_ids(tmp_path / "data")["train"]


def test_names_that_answers_cannot_hold_are_refused(tmp_path):
    for name in ("car", "cars"):
        sound(tmp_path / "source" / name / "a.wav", len(name))
    with pytest.raises(InputError, match="differ by a plural"):
        clips(ClipsOptions(data=tmp_path / "data", source=[tmp_path / "source"], jobs=1))


@pytest.mark.parametrize("name", ["dog/caf\udce9.wav", "caf\udce9/1.wav"])
def test_names_that_are_no_text_are_refused_before_the_work(tmp_path, name):
    for each in ("dog/0.wav", "cat/0.wav"):
        sound(tmp_path / "source" / each, len(each))
    try:
        (tmp_path / "source" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "source/dog/0.wav").rename(tmp_path / "source" / name)
    except OSError:
        pytest.skip("this file system takes only names that are text")
    with pytest.raises(InputError, match="the name is not UTF-8"):
        clips(ClipsOptions(data=tmp_path / "data", source=[tmp_path / "source"], jobs=1))
    assert not (tmp_path / "data").exists()
