"""Inputs that failed somewhere, each with what it should give: `../shared/cases`, where it is."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from batcli.core.errors import InputError
from batcli.core.records import read_records
from batcli.core.toml import read_toml
from batcli.data.metadata import read_clips, read_labels, read_reverbs
from batcli.data.schema import read_questions
from batcli.evaluation.formats import FORMATS
from batcli.evaluation.predictions import Layout, iterate_predictions, match_questions, open_predictions
from batcli.evaluation.predictions import read_predictions as read
from batcli.options import ImportOptions, QuestionsOptions, ScoreOptions
from batcli.prepare.questions import questions
from batcli.prepare.released import import_released
from batcli.score import score


@pytest.fixture(scope="module")
def cases(shared: Path) -> Path:
    folder = shared / "cases"
    if not folder.is_dir():
        pytest.skip("../shared/cases is not here")
    return folder


FORMS = ["data_bom.json", "data_oneline.json", "data_other_first.json", "list_bom.json", "list_oneline.json"]


@pytest.mark.parametrize("name", FORMS)
def test_json_in_all_its_forms(cases, tmp_path, name):
    lines = [record for _, record in read_records(cases / "02-jsonl/preds.jsonl")]
    assert [record for _, record in read_records(cases / "02-jsonl" / name)] == lines

    def scores(path: Path) -> str:
        return FORMATS["json"](score(ScoreOptions(predictions=[path], replicates=0))).replace(
            path.name.removesuffix(".jsonl"), "x"
        )

    assert scores(cases / "02-jsonl" / name) == scores(cases / "02-jsonl/preds.jsonl")


@pytest.mark.parametrize("name", FORMS)
def test_json_in_all_its_forms_of_more_than_a_mebibyte(cases, tmp_path, name):
    """The form of the file, with its records eighty times over."""
    text = (cases / "02-jsonl" / name).read_text(encoding="utf-8")
    records = [record for _, record in read_records(cases / "02-jsonl" / name)] * 80
    content = json.loads(text.lstrip("\ufeff"))
    content = records if isinstance(content, list) else {**content, "data": records}
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    (tmp_path / name).write_text(mark + json.dumps(content), encoding="utf-8")
    assert (tmp_path / name).stat().st_size > 1 << 20
    with open_predictions([tmp_path / name]) as (file,):
        assert sum(1 for _ in iterate_predictions(file, Layout({}))) == 4800


def test_empty_second_sources_and_imports(cases, tmp_path, material):
    roots = {"audio_root": material.audio_root, "reverb_root": material.reverb_root}
    files = [cases / "02-jsonl/questions.jsonl"]
    done = import_released(ImportOptions(data=tmp_path, files=files, labels=cases / "03-labels/ok.csv", **roots))
    assert (sum(done.counts["questions"].values()), done.bad) == (60, 0)
    with open_predictions([cases / "02-jsonl/empty_aud2.jsonl"]) as (file,):
        first = next(iter(iterate_predictions(file, Layout({"audio_id2": "audio_id2"}))))
        assert len(first.scene) == 2
    # The first record is about two sources, of which it names one.
    with pytest.raises(InputError, match=r"empty_aud2\.jsonl:1: MIXUP_SINGLE_CLASSIFICATION is about two sources"):
        score(ScoreOptions(predictions=[cases / "02-jsonl/empty_aud2.jsonl"]))
    assert len(list(read_questions(cases / "02-jsonl/questions.jsonl"))) == 60


@pytest.mark.parametrize("name", ["bom.csv", "blankend.csv"])
def test_tables_as_editors_leave_them(cases, name):
    assert read_labels(cases / "03-labels" / name) == read_labels(cases / "03-labels/ok.csv")
    assert len(read_clips(cases / "03-labels/clips_bom.json")) == 112
    assert read_toml(cases / "03-labels/bom.toml") == {"train": {"seed": 1}}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("03-labels/semicolon.csv", "semicolon.csv: the first line is index;mid;display_name; expected index,mid"),
        ("08-labels/newline.csv", "Rain"),
        ("08-labels/plural.csv", "the names 'Bell' and 'Bells' differ by a plural"),
        ("08-labels/semicolon.csv", "the name 'Engine; idle' holds ';'"),
        ("12-meta/int_id.json", "int_id.json:1: not a clip with an 'id' that is text"),
        ("12-meta/dup_fname/train_reverberation.json", "train-00000/0.npy stands twice, with its source at two"),
    ],
)
def test_what_is_refused_is_named(cases, path, message):
    reader = read_labels if path.endswith(".csv") else read_reverbs if "dup" in path else read_clips
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        reader(cases / path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["newline", "plural", "semicolon"])
def test_no_questions_are_made_of_such_labels(cases, tmp_path, material, name):
    files = {"clips": cases / f"08-labels/{name}.json", "labels": cases / f"08-labels/{name}.csv"}
    roots = {"audio_root": material.audio_root, "reverb_root": material.reverb_root}
    with pytest.raises(InputError, match=name):
        questions(QuestionsOptions(data=tmp_path / "data", **files, **roots))
    assert not (tmp_path / "data").exists()


def test_ids_with_the_files_ending_are_refused_with_the_remedy(cases, tmp_path, material):
    for clip in read_clips(cases / "12-meta/ext.json"):
        (tmp_path / clip.audio_id).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / clip.audio_id).touch()
    files = {"clips": cases / "12-meta/ext.json", "labels": cases / "03-labels/ok.csv"}
    roots = {"audio_root": tmp_path, "reverb_root": material.reverb_root}
    with pytest.raises(InputError, match="ids stand without the files' ending"):
        questions(QuestionsOptions(data=tmp_path / "data", **files, **roots))


def test_the_same_answers_in_another_order_are_the_same_answers(cases, tmp_path):
    from batcli.core.progress import SILENT

    layout = Layout({"prediction": "response", "answer": "target", "question_id": "qid"}, "MIXUP_DIRECTION")
    paths = [shutil.copy(cases / "11-foreign" / name, tmp_path) for name in ("yn.jsonl", "yn_other_order.jsonl")]
    with open_predictions([Path(path) for path in paths]) as files:
        first, second = (read(file, layout, "question", SILENT) for file in files)
    pairs = match_questions(first, second)
    assert len(pairs.rows) == 400
    assert all(first.answer(a) == second.answer(b) for a, b in zip(pairs.rows, pairs.others, strict=True))
