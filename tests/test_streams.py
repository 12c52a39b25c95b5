"""Names that are no text, closed streams, other locales, warnings that are errors: from the shell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli import options as opts
from batcli.core.errors import InputError
from batcli.core.files import require_text, require_writable_file

LATIN = os.fsdecode(b"caf\xe9")
RECORD = {
    "audio_id": "a",
    "reverb_id": "r/0",
    "audio_id2": "",
    "reverb_id2": "",
    "question_id": 0,
    "question_type": "CLASSIFICATION",
    "question": "What?",
    "answer": "tür",
    "prediction": "tür",
}


def bat(*arguments: object, shell: str = "", **environment: str) -> subprocess.CompletedProcess:
    """Run the command, through `sh` with what `shell` says about its streams."""
    line = [sys.executable, "-m", "batcli", *map(str, arguments)]
    whole = ["sh", "-c", f'exec "$@" {shell}', "sh", *line]
    return subprocess.run(whole, capture_output=True, env={**os.environ, **environment}, timeout=120)


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps(RECORD) + "\n")
    return file


# ---- names ---------------------------------------------------------------------------------------

OPTIONS = [value for name, value in vars(opts).items() if name.endswith("Options") and name != "Options"]


@given(st.data())
def test_every_path_that_could_be_recorded_must_be_text(data):
    schema = data.draw(st.sampled_from(OPTIONS))
    names = [f.name for f in schema.__dataclass_fields__.values() if "Path" in str(f.type)]
    name = data.draw(st.sampled_from(names))
    bad = Path(os.fsdecode(data.draw(st.binary(max_size=3).map(lambda b: b"a" + b.replace(b"\0", b"") + b"\xe9"))))
    many = "list" in str(schema.__dataclass_fields__[name].type)
    required = {f.name: Path("x") for f in schema.__dataclass_fields__.values() if f.metadata.get("required")}
    given_options = {**required, name: [bad] if many else bad}
    if name in schema.only_heard:
        assert schema(**given_options)
        return
    with pytest.raises(InputError, match="the name is not UTF-8, so no file can record it; rename it") as caught:
        schema(**given_options)
    assert str(caught.value).isprintable()


def test_a_folder_whose_name_is_no_text_is_found_out_before_the_work(tmp_path, predictions):
    folder = tmp_path / LATIN
    folder.mkdir()
    for arguments in (
        ("train", tmp_path, "-o", folder / "run"),
        ("decode", folder, tmp_path, "-o", tmp_path / "p2.jsonl"),
        ("spatialize", tmp_path, "-o", folder),
        ("score", predictions, "-o", folder / "scores.txt"),
        ("prepare", "rooms", folder, "--rooms", 1),
    ):
        done = bat(*arguments)
        assert done.returncode == 2, done.stderr
        assert b"the name is not UTF-8" in done.stderr
        assert done.stderr.count(b"\n") == 1
    assert not list(folder.iterdir())


def test_the_folder_that_one_stands_in_counts_too(tmp_path, monkeypatch):
    (tmp_path / LATIN).mkdir()
    monkeypatch.chdir(tmp_path / LATIN)
    with pytest.raises(InputError, match="not UTF-8"):
        require_text(Path("run"))


def test_a_name_that_is_too_long_for_what_is_made_on_the_way(tmp_path):
    for length in (230, 255, 256, 4000):
        with pytest.raises(InputError, match="cannot be written: File name too long"):
            require_writable_file(tmp_path / ("x" * length))
    require_writable_file(tmp_path / ("x" * 200))
    assert not list(tmp_path.iterdir())


def test_a_recording_may_have_any_name(tmp_path):
    missing = bat("spatialize", "--audio", tmp_path / LATIN, "--reverb", tmp_path / "b.npy", "-o", tmp_path / "o.wav")
    assert b"no such file" in missing.stderr


def test_the_configuration_is_printed_whatever_the_names(tmp_path):
    done = bat("score", tmp_path / LATIN, "--print-config")
    assert done.returncode == 0, done.stderr
    assert rb"caf\udce9" in done.stdout


# ---- streams -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-16"])
def test_standard_output_is_utf8_whatever_the_locale(predictions, encoding):
    done = bat("score", predictions, "--format", "json", "--replicates", 0, PYTHONIOENCODING=encoding, LC_ALL="C")
    plain = bat("score", predictions, "--format", "json", "--replicates", 0)
    assert done.returncode == plain.returncode == 0, done.stderr
    assert done.stdout == plain.stdout
    shown = bat("score", predictions, "--format", "table", PYTHONIOENCODING=encoding)
    assert "–".encode() in shown.stdout


@pytest.mark.parametrize("shell", ["2>&-", "0<&-", "0<&- 2>&-", "2>/dev/full"])
def test_closed_streams_do_not_end_the_work(predictions, tmp_path, shell):
    done = bat("score", predictions, "--format", "json", "-o", tmp_path / "s.json", shell=shell)
    assert done.returncode == 0
    assert json.loads((tmp_path / "s.json").read_text())
    wrong = bat("score", predictions, "--fail-under", "x=1", shell=shell)
    assert wrong.returncode == 2


def test_closed_standard_output_does_not_end_the_work(predictions, tmp_path):
    done = bat("score", predictions, "--junit", tmp_path / "j.xml", "--fail-under", "A.label_f1=0.5", shell="1>&-")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "j.xml").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["score", "--help"], ["--version"], []])
def test_help_for_a_full_disk_is_one_line(words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "batcli", *words], stdout=full, stderr=subprocess.PIPE, timeout=120, text=True
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert words == [] or done.stderr == "bat: No space left on device\n"


def test_a_working_directory_that_is_gone_is_named(predictions, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'rmdir {gone}; "{sys.executable}" -m batcli score {predictions.resolve()} --replicates 0'
    done = subprocess.run(["sh", "-c", command], cwd=gone, capture_output=True, timeout=120, text=True)
    assert done.returncode in (0, 2)
    assert done.returncode == 0 or "the working directory: No such file" in done.stderr


def test_messages_that_nobody_reads_do_not_end_the_work(tmp_path):
    """As in `bat prepare rooms … 2>&1 | head -1`: the work was dropped, with exit code 0."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "batcli", "prepare", "rooms", str(tmp_path), "--rooms", "2", "--sources", "1"]
    done = subprocess.run([*command, "--rt60", "0.15", "--jobs", "1"], stdout=write, stderr=write, timeout=120)
    os.close(write)
    assert done.returncode == 0
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    assert (tmp_path / "train_reverberation.json").exists()


# ---- warnings ------------------------------------------------------------------------------------


def test_warnings_as_errors_do_not_end_a_training(demo, tmp_path):
    small = ("--set", "source_scenes=24", "--set", "epochs=1,1,1", "--batch-size", 16, "--workers", 1)
    done = bat("train", demo, "-o", tmp_path / "run", *small, "--stages", "encoder", PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    assert b"Warning" not in done.stderr


def test_warnings_as_errors_do_not_end_a_decode(run, demo, tmp_path):
    flags = ("--limit", 3, "--num-beams", 2, "--max-new-tokens", 6, "--workers", 1)
    done = bat("decode", run, demo, "-o", tmp_path / "p.jsonl", *flags, PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    assert b"Warning" not in done.stderr
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 3
