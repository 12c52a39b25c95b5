"""The package from Python: questions, rooms, scenes, scores, and what is refused."""

import doctest
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import batcli
from batcli.core.errors import InputError
from batcli.data.dataset import open_dataset
from batcli.decode import decode
from batcli.options import DecodeOptions, SpatializeOptions
from batcli.spatialize import spatialize

RATE = 32_000


@pytest.fixture(scope="module")
def bat(run):
    return batcli.load(run, device="cpu")


@pytest.fixture(scope="module")
def scene(demo, tmp_path_factory) -> Path:
    """A rendered scene of the demo's eval split."""
    folder = tmp_path_factory.mktemp("scene")
    dataset = open_dataset(demo)
    (clip, brir), *_ = map(dataset.files_of, next(dataset.questions("eval")).scene)
    spatialize(SpatializeOptions(audio=clip, reverb=brir, output=folder / "scene.wav", seconds=dataset.seconds))
    return folder / "scene.wav"


def test_answers_are_those_of_decode(bat, run, scene):
    question = "Where is the sound, and how far?"
    expected = decode(DecodeOptions(run=run, audio=scene, question=question, device="cpu"))
    assert bat.ask(scene, question) == bat.ask(str(scene), question) == expected
    samples, rate = soundfile.read(scene, dtype="float32")
    assert bat.ask(samples, question, rate=rate) == bat.ask(samples.T, question, rate=rate) == expected


def test_one_or_many_recordings_and_questions(bat, scene):
    questions = ["Where is the sound?", "What do you hear?"]
    each = [bat.ask(scene, question) for question in questions]
    assert bat.ask(scene, questions) == each
    assert bat.ask([scene, scene], questions) == [each, each]
    assert bat.ask([scene, scene], questions[0]) == [each[0], each[0]]
    assert bat.ask(scene, []) == []
    assert bat.ask([], questions) == []


def test_a_text_is_one_question_not_its_letters(bat, scene):
    assert isinstance(bat.ask(scene, "Where?"), str)


@pytest.mark.parametrize("dtype", ["int16", "int32", "float32", "float64"])
def test_integers_are_scaled_and_rates_converted(dtype):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    ears = np.stack([tone, 0.5 * tone])
    scale = np.iinfo(dtype).max if dtype.startswith("int") else 1
    found = batcli.api.binaural((ears * scale).astype(dtype), 48_000)
    assert found.dtype == np.float32
    assert found.shape == (2, RATE)
    assert np.abs(np.fft.rfft(found[0])).argmax() == 440
    assert np.abs(found[:, 1000:-1000]).max(1) == pytest.approx([0.5, 0.25], abs=2e-3)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (np.ones(100), RATE, "mono, of 100 samples; give both ears"),
        (np.ones((4, 100)), RATE, r"shape \(4, 100\)"),
        (np.ones((2, 2)), RATE, "either way"),
        (np.ones((2, 100)), None, "without a rate; give its samples per second"),
        (np.ones((2, 100)), 10, "a rate of 10 Hz"),
        (np.full((2, 100), np.nan), RATE, "NaN"),
        (np.zeros((2, 100)), RATE, "is silent"),
        (np.stack([np.ones(100), np.zeros(100)]), RATE, "right channel is silent"),
        (np.ones((2, 100), dtype=np.uint8), RATE, "samples of type uint8"),
        (np.ones((2, 100), dtype=complex), RATE, "samples of type complex"),
        (np.ones((2, 0)), RATE, "no samples"),
        ("missing.wav", None, "no such file"),
        (Path("missing.wav"), RATE, "says its own rate"),
    ],
)
def test_sound_that_cannot_be_asked_about(bat, audio, rate, message):
    with pytest.raises(InputError, match=message) as caught:
        bat.ask(audio, "Where?", rate=rate)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("question", ["", " ", 3, None])
def test_what_is_no_question(bat, scene, question):
    with pytest.raises(InputError, match="not a question"):
        bat.ask(scene, [question])


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError):
        batcli.load(tmp_path)


def test_a_room_has_the_response_of_its_source():
    room = batcli.Room(width=5, length=4, height=2.5, rt60=0.3)
    left, right = room.brir((180, 0, 1.5)), room.brir((0, 0, 1.5))
    assert left.dtype == np.float32
    energy = np.square(left).sum(1), np.square(right).sum(1)
    assert energy[0][0] > 1.5 * energy[0][1]
    assert energy[1][1] > 1.5 * energy[1][0]
    assert np.array_equal(left, room.brir((180, 0, 1.5)))
    near, far = (np.square(room.brir((90, 0, metres))[:, :100]).sum() for metres in (0.7, 1.4))
    assert near == pytest.approx(4 * far, rel=0.2), "the direct sound, at half the distance"
    longer = batcli.Room(width=5, length=4, height=2.5, rt60=0.8).brir((180, 0, 1.5))
    assert longer.shape[1] > 1.5 * left.shape[1]


@pytest.mark.parametrize("change", [{"head": "sphere"}, {"listener": (1.0, 1.2, 3.0)}, {"seed": 5}])
def test_what_a_room_is_made_with_matters(change):
    made = [batcli.Room(width=5, length=4, height=2.5, rt60=0.3, **more).brir((135, 10, 0.8)) for more in ({}, change)]
    assert made[0].shape != made[1].shape or not np.array_equal(*made)


def test_a_source_outside_the_room_is_refused():
    with pytest.raises(InputError, match="outside the room"):
        batcli.Room(width=5, length=4, height=2.5).brir((180, 0, 20))


def test_a_scene_is_that_of_spatialize(demo, tmp_path):
    dataset = open_dataset(demo)
    clip, brir = dataset.files_of(next(dataset.questions("eval")).scene[0])
    options = SpatializeOptions(audio=clip, reverb=brir, output=tmp_path / "scene.wav", seconds=1.0)
    spatialize(options)
    expected = soundfile.read(tmp_path / "scene.wav", dtype="float32")[0].T
    found = batcli.render(clip, brir, seconds=1.0)
    assert np.abs(found - expected).max() < 1e-6
    samples, rate = soundfile.read(clip, dtype="float32")
    assert np.abs(batcli.render(samples, np.load(brir), rate=rate, seconds=1.0) - expected).max() < 1e-6
    both = batcli.render([clip, clip], [brir, brir], seconds=1.0)
    assert np.abs(both - expected).max() < 1e-5, "the mean of two that are the same"
    whole = batcli.render(samples, np.load(brir), rate=rate)
    assert whole.shape == (2, len(samples) * RATE // rate + np.load(brir).shape[1] - 1)
    assert np.abs(batcli.render(clip, brir, seconds=1.0, rms_dbfs=-20) * 10 ** (6 / 20) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("clip", "brir", "options", "message"),
    [
        (np.ones((2, 9)), np.ones((2, 9)), {"rate": RATE}, "a clip is mono"),
        (np.ones(9), np.ones((9, 2)), {"rate": RATE}, r"a BRIR is \(2, T\)"),
        (np.ones(9), np.ones((2, 9)), {}, "without a rate"),
        (np.ones(9), [np.ones((2, 9))] * 2, {"rate": RATE}, "1 clips and 2 BRIRs"),
        (np.ones(9), np.stack([np.ones(9), np.zeros(9)]), {"rate": RATE}, "silent at an ear"),
        (np.ones(9), np.ones((2, 9)), {"rate": RATE, "seconds": 0}, "a length over 0"),
    ],
)
def test_scenes_that_cannot_be_rendered(clip, brir, options, message):
    with pytest.raises(InputError, match=message):
        batcli.render(clip, brir, **options)


def test_scores_of_records_and_of_a_file(tmp_path):
    one = {
        "question_type": "MIXUP_DIRECTION",
        "audio_id": "a",
        "reverb_id": "r/0",
        "audio_id2": "b",
        "reverb_id2": "r/1",
    }
    records = [
        {**one, "question_id": n, "question": "Left?", "answer": "Yes", "prediction": "Yes" if n % 4 else "No"}
        for n in range(8)
    ]
    found = batcli.evaluate(records, replicates=0)
    assert found["by_type"]["MIXUP_DIRECTION"]["binary_acc"]["value"] == 0.75
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert batcli.evaluate(tmp_path / "p.jsonl", replicates=0)["by_type"] == found["by_type"]
    with pytest.raises(InputError, match="unknown option 'replicate'"):
        batcli.evaluate(records, replicate=0)
    with pytest.raises(InputError):
        batcli.evaluate([{"a": 1}])


def test_import_is_quick_and_loads_nothing_heavy():
    program = "import sys, batcli; dir(batcli); print([n for n in ('torch', 'numpy', 'soundfile') if n in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
    assert {"load", "Room", "render", "evaluate"} <= set(dir(batcli))
    with pytest.raises(AttributeError, match="no attribute 'lood'"):
        _ = batcli.lood
    import batcli.score as module

    assert callable(module.score), "the module keeps its name"


def test_the_package_says_that_it_is_typed():
    assert (Path(batcli.__file__).parent / "py.typed").exists()


def test_the_page_of_examples_runs(run, demo, tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[1] / "examples" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 5
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart/run").symlink_to(run)
    (tmp_path / "quickstart/data").symlink_to(demo)
    options = DecodeOptions(
        run=run, data=demo, output=tmp_path / "quickstart/predictions.jsonl", limit=40, device="cpu"
    )
    decode(options)
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(block, names)
    assert capsys.readouterr().out.count("\n") >= 6


def test_examples_in_docstrings_are_the_names_that_there_are():
    names = re.findall(r"batcli\.(\w+)\(", batcli.__doc__)
    assert set(names) == {"load", "Room", "render", "evaluate"}
    assert doctest.testmod(batcli.api).failed == 0
