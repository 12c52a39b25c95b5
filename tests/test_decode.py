"""Decoding: order, resumption, controls, one recording, bad scenes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import batcli.decode
import batcli.training.encodings
from batcli.audio.io import write_wav
from batcli.core.errors import InputError, Stopped, TooManyBad
from batcli.core.progress import Silent
from batcli.data.dataset import open_dataset
from batcli.decode import answer, decode, encode_audio, load_model
from batcli.options import DecodeOptions
from batcli.training.scenes import GivenScenes

LIMIT = 24


def options(run: Path, data: Path | None, output: Path | None, **changes) -> DecodeOptions:
    defaults = {"max_new_tokens": 12, "device": "cpu"}
    if data is not None:
        defaults |= {"workers": 1, "limit": LIMIT}
    return DecodeOptions(run=run, data=data, output=output, **{**defaults, **changes})


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def predictions(run: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("decode") / "preds.jsonl"
    decode(options(run, demo, output))
    return output


def test_predictions_are_the_questions_in_their_order(predictions: Path, demo: Path):
    questions = list(open_dataset(demo).questions("eval"))[:LIMIT]
    found = records(predictions)
    assert [{k: v for k, v in record.items() if k != "prediction"} for record in found] == [
        question.to_dict() for question in questions
    ]
    assert all(isinstance(record["prediction"], str) for record in found)
    manifest = json.loads(Path(f"{predictions}.manifest.json").read_text())
    assert manifest["questions"] == LIMIT
    assert manifest["bad"] == 0


@pytest.mark.parametrize("rendering", [None, "published"])
def test_scenes_are_rendered_as_the_run_or_the_option_says(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rendering: str | None
):
    made: list[str] = []

    def recording(dataset, scenes, settings):
        made.append(settings.rendering)
        return GivenScenes(dataset, scenes, settings)

    monkeypatch.setattr("batcli.training.encodings.GivenScenes", recording)
    decode(options(run, demo, tmp_path / "preds.jsonl", limit=2, rendering=rendering))
    assert made == [rendering or "fast"]
    manifest = json.loads((tmp_path / "preds.jsonl.manifest.json").read_text())
    assert manifest["rendering"] == (rendering or "fast")


def test_a_recording_of_another_rate_is_resampled_as_the_option_says(run: Path, tmp_path: Path, monkeypatch):
    write_wav(tmp_path / "x.wav", np.zeros((2, 4_800), np.float32), 48_000)
    asked = {"audio": tmp_path / "x.wav", "question": "Where?", "dry_run": True}
    read: list[str] = []
    monkeypatch.setattr("batcli.decode.read_binaural", lambda *given: read.append(given[2]) or np.zeros((2, 9)))
    for rendering in (None, "published"):
        decode(options(run, None, None, rendering=rendering, **asked))
    assert read == ["soxr", "poly"]


@pytest.mark.parametrize("changes", [{"batch_size": 1}, {"batch_size": 5}])
def test_the_batch_size_changes_no_answer(predictions: Path, run: Path, demo: Path, tmp_path: Path, changes: dict):
    decode(options(run, demo, tmp_path / "preds.jsonl", **changes))
    assert (tmp_path / "preds.jsonl").read_bytes() == predictions.read_bytes()


def test_a_stopped_decode_ends_with_the_same_bytes(
    predictions: Path, run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after
):
    monkeypatch.setattr("batcli.training.encodings.WINDOW", 8)
    output = tmp_path / "preds.jsonl"
    with pytest.raises(Stopped):
        decode(options(run, demo, output), stops_after("questions", 20))
    assert not output.exists()
    decode(options(run, demo, output))
    assert output.read_bytes() == predictions.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def test_what_is_complete_is_left_alone(run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    output, loaded = tmp_path / "preds.jsonl", []
    load = batcli.decode.load_model
    monkeypatch.setattr("batcli.decode.load_model", lambda *given: loaded.append(1) or load(*given))

    def again(**changes) -> tuple[int, str]:
        """How often the model was loaded, and the last message."""
        loaded.clear()
        decode(options(run, demo, output, **{"limit": 3, **changes}), said := Said())
        return len(loaded), said.lines[-1]

    assert again()[0] == 1
    before = (output.read_bytes(), output.stat().st_mtime_ns)
    assert again() == (0, f"{output} is already complete; --overwrite makes it anew")
    assert (output.read_bytes(), output.stat().st_mtime_ns) == before
    assert again(overwrite=True)[0] == 1
    assert output.read_bytes() == before[0]
    assert again(zero_audio=True)[0] == 1  # of other settings: made anew, as ever
    assert again()[0] == 1
    output.write_bytes(before[0] + b"\n")  # not as it was written
    assert again()[0] == 1
    assert output.read_bytes() == before[0]
    output.with_name("preds.jsonl.manifest.json").unlink()  # a stopped run may have left it so
    assert again()[0] == 1
    assert again()[0] == 0


def test_overwrite_takes_nothing_from_a_stopped_run(run: Path, demo: Path, tmp_path: Path, monkeypatch, stops_after):
    monkeypatch.setattr("batcli.training.encodings.WINDOW", 8)
    output = tmp_path / "preds.jsonl"
    for overwrite, there in ((False, True), (True, False)):
        with pytest.raises(Stopped):
            decode(options(run, demo, output), stops_after("questions", 20))
        decode(options(run, demo, output, overwrite=overwrite), said := Said())
        assert any("are there already" in line for line in said.lines) == there
        output.unlink()


def test_no_warning_of_another_package_reaches_the_user(run: Path, demo: Path, tmp_path: Path):
    """In a process of its own: pytest catches warnings."""
    command = [sys.executable, "-m", "batcli", "decode", str(run), str(demo), "-o", "preds.jsonl", "--limit", "2"]
    for quiet in ([], ["-q"]):
        arguments = [*command, *quiet, "--workers", "1", "--device", "cpu", "--overwrite"]
        result = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "Warning" not in result.stderr
        assert not quiet or result.stderr == ""


def test_other_settings_do_not_go_on_with_the_parts(
    run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after
):
    monkeypatch.setattr("batcli.training.encodings.WINDOW", 8)
    output = tmp_path / "preds.jsonl"
    with pytest.raises(Stopped):
        decode(options(run, demo, output, zero_audio=True), stops_after("questions", 20))
    decode(options(run, demo, output))
    monkeypatch.undo()
    decode(options(run, demo, tmp_path / "fresh.jsonl"))
    assert output.read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()


def test_a_deaf_model_gives_one_answer_per_question_text(run: Path, demo: Path, tmp_path: Path):
    output = tmp_path / "deaf.jsonl"
    decode(options(run, demo, output, zero_audio=True, limit=60))
    by_text: dict[str, set[str]] = {}
    for record in records(output):
        by_text.setdefault(record["question"], set()).add(record["prediction"])
    assert all(len(answers) == 1 for answers in by_text.values())


def test_each_scene_is_encoded_once(run: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    heard: list[tuple] = []
    from batcli.training.scenes import GivenScenes

    original = GivenScenes.__init__

    def noting(self, dataset, scenes, settings):
        heard.extend(scenes)
        original(self, dataset, scenes, settings)

    monkeypatch.setattr(GivenScenes, "__init__", noting)
    monkeypatch.setattr("batcli.training.encodings.WINDOW", 5)
    decode(options(run, demo, tmp_path / "preds.jsonl"))
    assert len(heard) == len(set(heard))
    assert set(heard) == {question.scene for question in list(open_dataset(demo).questions("eval"))[:LIMIT]}


def test_questions_about_one_scene_are_answered_as_one_by_one(run: Path):
    loaded = load_model(DecodeOptions(run=run, device="cpu", max_new_tokens=12))
    audio = np.random.default_rng(0).standard_normal((2, loaded.samples + 500)).astype(np.float32) / 10
    encoding = encode_audio(loaded, audio)
    questions = ["What can be heard here?", "From where do you hear the sound, and from how far?"]
    assert answer(loaded, questions, encoding) == [answer(loaded, [text], encoding)[0] for text in questions]
    cut = encode_audio(loaded, audio[:, : loaded.samples])
    assert all(torch.equal(cut[name], part) for name, part in encoding.items())


def test_one_recording(run: Path, tmp_path: Path):
    audio = np.random.default_rng(0).normal(0, 0.1, (2, 48_000)).astype(np.float32)
    write_wav(tmp_path / "scene.wav", audio, 48_000)
    ask = options(run, None, None, audio=tmp_path / "scene.wav", question="Where is the sound?")
    answer = decode(ask)
    assert isinstance(answer, str)
    assert "\n" not in answer
    assert decode(ask) == answer


def test_a_mono_recording_is_refused(run: Path, tmp_path: Path):
    write_wav(tmp_path / "mono.wav", np.zeros((1, 32_000), np.float32), 32_000)
    with pytest.raises(InputError, match=r"mono\.wav: 1 channel"):
        decode(options(run, None, None, audio=tmp_path / "mono.wav", question="What?"))


def test_a_recording_that_no_ears_heard(run: Path, tmp_path: Path):
    """Silence and surround sound are refused; one silent channel is said; what comes too late is not heard."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 32_000)).astype(np.float32)
    files = {
        "silent": 0 * noise,
        "four": np.concatenate([noise, noise]),
        "left": noise * [[1], [0]],
        "late": np.pad(noise, ((0, 0), (32_000, 0))),
    }
    said = []
    for name, audio in files.items():
        write_wav(tmp_path / f"{name}.wav", audio, 32_000)

    class Listens(Silent):
        def warn(self, message: str) -> None:
            said.append(message)

    def ask(name: str, **changes) -> str | None:
        return decode(options(run, None, None, audio=tmp_path / f"{name}.wav", question="What?", **changes), Listens())

    for name, message in (("silent", "is silent"), ("four", "4 channels"), ("late", "is silent in its first 1 s")):
        with pytest.raises(InputError, match=message):
            ask(name)
    said.clear()
    for dry_run in (True, False):
        assert isinstance(ask("left", dry_run=dry_run), str) != dry_run
    assert len(said) == 2
    assert all("left.wav: the right channel is silent" in message for message in said)


def test_a_bad_scene_is_a_record(run: Path, demo: Path, tmp_path: Path):
    data, output = tmp_path / "data", tmp_path / "preds.jsonl"
    shutil.copytree(demo, data)
    question = next(open_dataset(data).questions("eval"))
    open_dataset(data).brir_path(question.reverb_id).unlink()
    with pytest.raises(TooManyBad):
        decode(options(run, data, output))
    found = records(output)
    assert len(found) == LIMIT
    assert found[0]["prediction"] is None
    assert found[0]["error"]["kind"] == "InputError"
    assert question.reverb_id in found[0]["error"]["message"]
    assert sum(record["prediction"] is not None for record in found) > 0


def test_an_unfinished_run_is_refused(run: Path, demo: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "DONE").unlink()
    with pytest.raises(InputError, match="not a finished run"):
        decode(options(tmp_path / "run", demo, tmp_path / "preds.jsonl"))


@pytest.mark.parametrize("changes", [{"data": None}, {"audio": Path("x.wav")}, {"output": None}])
def test_wrong_usage(run: Path, demo: Path, tmp_path: Path, changes: dict):
    with pytest.raises(InputError):
        decode(options(**{"run": run, "data": demo, "output": tmp_path / "p.jsonl", **changes}))


@pytest.mark.parametrize(
    "changes",
    [{"split": "dev"}, {"output": Path("p.jsonl")}, {"batch_size": 2}, {"limit": 3}, {"workers": 1}, {"max_bad": 1}],
)
def test_what_is_about_a_split_is_refused_with_a_recording(run: Path, tmp_path: Path, changes: dict):
    name = next(iter(changes)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{name}: has no effect without DATA"):
        decode(options(**{"run": run, "data": None, "output": None, "audio": tmp_path / "x.wav", **changes}))


def test_no_more_encodings_are_kept_than_have_room(run: Path, demo: Path, tmp_path: Path, monkeypatch):
    kept = []
    original = batcli.training.encodings._encode

    def noting(loaded, window, rendered, encodings, reporter):
        original(loaded, window, rendered, encodings, reporter)
        kept.append(len(encodings))
        encoding = next(iter(encodings.values()))
        assert sum(part.nbytes for part in encoding.values()) == loaded.model.encoding_bytes

    monkeypatch.setattr("batcli.training.encodings._encode", noting)
    monkeypatch.setattr("batcli.training.encodings.WINDOW", 3)
    decode(options(run, demo, tmp_path / "all.jsonl"))
    assert kept[-1] > 6, "there are enough scenes for the test"
    kept.clear()
    loaded = load_model(DecodeOptions(run=run, device="cpu"))
    monkeypatch.setattr("batcli.training.encodings.KEPT", 4 * loaded.model.encoding_bytes + 1)
    decode(options(run, demo, tmp_path / "few.jsonl"))
    assert max(kept) == 4
    assert (tmp_path / "few.jsonl").read_bytes() == (tmp_path / "all.jsonl").read_bytes()
