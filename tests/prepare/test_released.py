"""`bat prepare import`: every good record kept, every bad one named by its line."""

import json
import tracemalloc

import pytest
from typer.testing import CliRunner

from batcli.cli import app
from batcli.core.errors import InputError, TooManyBad
from batcli.data.dataset import open_dataset
from batcli.data.question_types import QUESTION_TYPES
from batcli.options import ImportOptions
from batcli.prepare.released import import_released


def record(number: int, **changes) -> dict:
    kind = list(QUESTION_TYPES)[number % len(QUESTION_TYPES)]
    two = kind.startswith("MIXUP")
    return {
        "audio_id": f"eval/audio/Y{number}",
        "reverb_id": f"room/{number}.npy",
        "audio_id2": "eval/audio/Yé.b" if two else None,
        "reverb_id2": "room/x.npy" if two else None,
        "question_id": number,
        "question_type": kind,
        "question": 'Is "whack, thwack" {near} [you], or is it }, { far?',
        "answer": "accelerating, revving, vroom; car\n",
        **changes,
    }


class Heard:
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


@pytest.fixture
def take(material, tmp_path):
    """Import files into tmp_path/data; returns (result, reporter)."""

    def run(*files, **changes):
        heard = Heard()
        roots = {"audio_root": material.audio_root, "reverb_root": material.reverb_root, "labels": material.labels}
        options = ImportOptions(data=tmp_path / "data", files=list(files), **{**roots, **changes})
        return import_released(options, heard), heard

    return run


def records_of(tmp_path, split: str) -> list[dict]:
    return [question.to_dict() for question in open_dataset(tmp_path / "data").questions(split)]


# ---- what is right -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda data: json.dumps({"data": data}),
        lambda data: json.dumps({"data": data}, indent=4),
        lambda data: json.dumps({"version": [1, {"a": "b"}], "data": data, "end": True}, ensure_ascii=False),
        lambda data: "\n " + json.dumps(data, indent=1) + "\n",
        lambda data: "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in data),
        lambda data: "\ufeff" + "\r\n\r\n".join(json.dumps(one) for one in data),
    ],
    ids=["data", "indented", "other keys", "list", "lines", "lines with BOM and blanks"],
)
def test_every_form_gives_the_same_records(take, tmp_path, write):
    data = [record(i) for i in range(40)]
    (tmp_path / "eval-x.json").write_bytes(write(data).encode())
    result, heard = take(tmp_path / "eval-x.json")
    assert records_of(tmp_path, "eval-x") == data
    assert result.bad == 0
    assert not heard.warnings
    assert sum(result.counts["eval-x"].values()) == 40
    assert list(result.counts["eval-x"]) == list(QUESTION_TYPES)


def test_quoted_and_unquoted_labels_are_the_same_labels(take, tmp_path):
    """As released: names with commas without quotes, AudioSet's own numbers in the index column."""
    names = ["Speech", "Accelerating, revving, vroom", "Car", "Whack, thwack"]
    forms = {"plain.csv": "{0},/m/{0},{1}", "quoted.csv": '{0},/m/{0},"{1}"'}
    for file, form in forms.items():
        rows = [form.format(number, name) for number, name in zip((0, 301, 300, 462), names, strict=True)]
        (tmp_path / file).write_text("\n".join(["index,mid,display_name", *rows]) + "\n")
    (tmp_path / "a.json").write_text(json.dumps({"data": [record(0)]}))
    (tmp_path / "b.json").write_text(json.dumps({"data": [record(1)]}))
    take(tmp_path / "a.json", labels=tmp_path / "plain.csv")
    take(tmp_path / "b.json", labels=tmp_path / "quoted.csv")  # refused if these were other labels
    labels = open_dataset(tmp_path / "data").labels
    assert [(label.number, label.name) for label in labels] == list(enumerate(names))


def test_files_of_one_split_or_each_its_own(take, tmp_path):
    for name, numbers in (("a", range(3)), ("b", range(3, 5))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record(i)) + "\n" for i in numbers))
    both = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    result, _ = take(*both)
    assert {name: sum(counts.values()) for name, counts in result.counts.items()} == {"a": 3, "b": 2}
    take(*both, split="all")
    assert [r["question_id"] for r in records_of(tmp_path, "all")] == [0, 1, 2, 3, 4]
    assert list(open_dataset(tmp_path / "data").splits) == ["a", "b", "all"]


def test_metadata_of_clips_and_brirs_is_kept(take, tmp_path, material):
    (tmp_path / "a.jsonl").write_text(json.dumps(record(0)))
    take(tmp_path / "a.jsonl", clips=material.clips, reverbs=material.reverb_root / "train_reverberation.json")
    dataset = open_dataset(tmp_path / "data")
    assert len(dataset.clips("a")) == 300
    assert len(dataset.reverbs("a")) == 600


def test_a_dry_run_counts_and_writes_nothing(take, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(record(1)))
    result, heard = take(tmp_path / "a.jsonl", dry_run=True)
    assert result.counts == {"a": {"DOA": 1}}
    assert heard.infos[0] == "a: 1 questions"
    assert not (tmp_path / "data").exists()


def test_memory_does_not_grow_with_the_file(take, tmp_path):
    with open(tmp_path / "large.json", "w") as file:
        file.write('{"data": [')
        file.writelines((", " if i else "") + json.dumps(record(i)) for i in range(30_000))
        file.write("]}")
    assert (tmp_path / "large.json").stat().st_size > 9e6
    tracemalloc.start()
    try:
        result, _ = take(tmp_path / "large.json", dry_run=True)
        assert tracemalloc.get_traced_memory()[1] < 7e6
    finally:
        tracemalloc.stop()
    assert sum(result.counts["large"].values()) == 30_000


# ---- what is wrong -------------------------------------------------------------------------------

BAD = [
    ({"question_type": "NOPE"}, "unknown question type 'NOPE'"),
    ({"audio_id": "../../etc/passwd"}, "'audio_id' leads out of its root"),
    ({"reverb_id": "/etc/passwd"}, "'reverb_id' leads out of its root"),
    ({"answer": None}, "'answer' is not text"),
    ({"audio_id2": "x", "reverb_id2": None}, "go together"),
    ({"surplus": 1}, "unknown field 'surplus'"),
    ({"question": "\ud800"}, "holds bytes that are no text"),
]


@pytest.mark.parametrize("indent", [None, 2])
def test_bad_records_are_named_by_line_and_left_out(take, tmp_path, indent):
    data = [record(9 * i) for i in range(20)]
    for i, (changes, _) in enumerate(BAD):
        data[2 * i + 1] = record(0, **changes)
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"data": data}, indent=indent) if indent else "\n".join(map(json.dumps, data)))
    text = file.read_text().splitlines()
    with pytest.raises(TooManyBad, match=rf"^7 bad records left out, more than --max-bad 6; first {file}:\d+$"):
        take(file, max_bad=6)
    result, heard = take(file, max_bad=7)
    assert result.bad == 7
    assert records_of(tmp_path, "f") == [data[i] for i in range(20) if i % 2 == 0 or i > 2 * len(BAD)]
    for (_, message), warning in zip(BAD, heard.warnings, strict=True):
        where, _, rest = warning.partition(": ")
        assert message in rest
        name, _, line = where.rpartition(":")
        assert name == str(file)
        # The line is where the record starts.
        assert text[int(line) - 1].lstrip().startswith("{")
    lines = [int(warning.split(": ")[0].rpartition(":")[2]) for warning in heard.warnings]
    assert lines[0] == (13 if indent else 2)
    assert lines == sorted(set(lines))


def test_lines_that_are_no_json(take, tmp_path):
    lines = [json.dumps(record(i)) for i in range(6)]
    lines[1], lines[3], lines[4] = "not json", lines[3][:60], "[1, 2]"
    (tmp_path / "f.jsonl").write_text("\n".join(lines))
    result, heard = take(tmp_path / "f.jsonl", max_bad=3)
    assert result.bad == 3
    assert [w.split(": ")[0].rpartition(":")[2] for w in heard.warnings] == ["2", "4", "5"]
    assert [r["question_id"] for r in records_of(tmp_path, "f")] == [0, 2, 5]


def test_bytes_that_are_no_text_spoil_one_record(take, tmp_path):
    lines = [json.dumps(record(i, answer="é"), ensure_ascii=False).encode() for i in range(3)]
    lines[1] = lines[1].replace("é".encode(), b"\xe9")
    for name, content in (("l.jsonl", b"\n".join(lines)), ("d.json", b'{"data": [' + b",\n".join(lines) + b"]}")):
        (tmp_path / name).write_bytes(content)
        result, heard = take(tmp_path / name, max_bad=1)
        assert f"{name}:2: not UTF-8 text" in heard.warnings[0]
        assert result.bad == 1


def test_a_broken_record_in_a_list_costs_only_itself(take, tmp_path):
    text = json.dumps({"data": [record(i) for i in range(5)]}, indent=1)
    (tmp_path / "f.json").write_text(text.replace('"question_id": 2,', '"question_id": ,'))
    result, heard = take(tmp_path / "f.json", max_bad=1)
    assert [r["question_id"] for r in records_of(tmp_path, "f")] == [0, 1, 3, 4]
    assert "f.json:23: not JSON: Expecting value" in heard.warnings[0]
    assert result.bad == 1


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_list_that_is_cut_short(take, tmp_path, cut):
    text = json.dumps({"data": [record(0), record(9), record(18)]})
    (tmp_path / "f.json").write_text(text[: -cut - 1])
    result, heard = take(tmp_path / "f.json", max_bad=1)
    assert "is the file cut short?" in heard.warnings[-1]
    assert sum(result.counts["f"].values()) == (3 if cut == 1 else 2)


@pytest.mark.parametrize("content", ["", "\n \n", '{"data": []}', "{\n}", '{\n "questions": [{"a": 1}]\n}', "RIFF\0\0"])
def test_files_that_hold_no_questions(take, tmp_path, content):
    (tmp_path / "f.json").write_text(content)
    with pytest.raises(InputError) as caught:
        take(tmp_path / "f.json")
    assert str(caught.value).startswith(f"{tmp_path / 'f.json'}: ")
    assert not (tmp_path / "data/dataset.json").exists()
    assert not list((tmp_path / "data").rglob("*.jsonl"))


def test_two_files_of_one_name(take, tmp_path):
    files = [tmp_path / stage / "train.json" for stage in ("stage1", "stage2")]
    for file in files:
        file.parent.mkdir()
        file.write_text(json.dumps([record(0)]))
    with pytest.raises(InputError, match=r"a second file named 'train'.*give --split"):
        take(*files)


def test_options_that_are_missing_or_wrong(take, tmp_path):
    (tmp_path / "f.json").write_text(json.dumps([record(0)]))
    for changes, message in (
        ({"audio_root": None}, "--audio-root: missing"),
        ({"labels": tmp_path / "no.csv"}, "no.csv: no such file"),
        ({"clips": tmp_path / "no.json"}, "no.json: no such file"),
        ({"split": "a/b"}, "--split: not a name: 'a/b'"),
    ):
        with pytest.raises(InputError, match=message):
            take(tmp_path / "f.json", **changes)
    with pytest.raises(InputError, match=r"nothing\.json: no such file"):
        take(tmp_path / "nothing.json")


# ---- from the shell ------------------------------------------------------------------------------


def test_the_command_and_its_exit_codes(material, tmp_path):
    roots = ["--audio-root", str(material.audio_root), "--reverb-root", str(material.reverb_root)]
    command = [
        "prepare",
        "import",
        str(tmp_path / "data"),
        "-",
        "--split",
        "x",
        "--labels",
        str(material.labels),
        *roots,
    ]
    lines = [json.dumps(record(i)) for i in range(4)]
    good = CliRunner().invoke(app, command, input="\n".join(lines))
    assert good.exit_code == 0, good.output
    assert good.stdout == ""
    assert "x: 4 questions" in good.stderr
    bad = CliRunner().invoke(app, command, input="\n".join([*lines, "{", "}"]))
    assert bad.exit_code == 4
    assert "warning: stdin:5: not JSON" in bad.stderr
    assert "bat: 2 bad records left out, more than --max-bad 0; first stdin:5" in bad.stderr
    assert len(records_of(tmp_path, "x")) == 4
    assert CliRunner().invoke(app, command, input="").exit_code == 2
