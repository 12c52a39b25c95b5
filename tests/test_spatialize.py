"""`bat spatialize`: one WAV per distinct scene, in order, resumable; one scene from files."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from scipy.signal import fftconvolve

from batcli import spatialize as module
from batcli.audio.io import read_binaural, read_brir, read_clip, write_brir, write_wav
from batcli.core.errors import InputError, TooManyBad
from batcli.core.files import TEMPORARY, read_json
from batcli.core.progress import Silent
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Question, Source, scene_id
from batcli.options import SpatializeOptions
from batcli.spatialize import MANIFEST, SCENES, spatialize


class Recorder(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warn(self, message: str) -> None:
        self.lines.append(f"warning: {message}")


def render(data: Path, output: Path, **changes) -> list[str]:
    """The messages of the command."""
    said = Recorder()
    spatialize(SpatializeOptions(**{"data": data, "output": output, "jobs": 1, **changes}), said)
    return said.lines


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the manifest, which has a date."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST}


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / SCENES).read_text().splitlines()]


@pytest.fixture(scope="module")
def rendered(demo, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spatialize") / "eval"
    render(demo, folder)
    return folder


@pytest.fixture
def three(demo, tmp_path) -> Dataset:
    """A dataset of its own with three scenes of one source each, on copies of the demo's files."""
    theirs = open_dataset(demo)
    sources = []
    for source in (question.scene[0] for question in theirs.questions("eval")):
        if not any(source.audio_id == s.audio_id or source.reverb_id == s.reverb_id for s in sources[:3]):
            sources = [*sources, source][:3]
    dataset = Dataset(tmp_path / "three", seconds=1.0)
    for source in sources:
        clip, brir = dataset.files_of(source)
        for copy, original in zip((clip, brir), theirs.files_of(source), strict=True):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(original, copy)
    ask(dataset, sources)
    return dataset


def ask(dataset: Dataset, sources: list[Source]) -> None:
    questions = [Question.of((s,), n, "DOA", "Where?", "left, front, above; 1m") for n, s in enumerate(sources)]
    dataset.add_split("eval", questions, None, None)
    dataset.save()


# ---- every scene of a split ----------------------------------------------------------------------


def test_one_wav_for_each_scene_in_the_order_of_first_appearance(demo, rendered):
    scenes = []
    for question in open_dataset(demo).questions("eval"):
        if question.scene not in scenes:
            scenes.append(question.scene)
    found = records(rendered)
    assert [tuple(Source(**source) for source in record["sources"]) for record in found] == scenes
    assert [record["scene_id"] for record in found] == [scene_id(scene) for scene in scenes]
    assert len({record["scene_id"] for record in found}) == len(scenes)
    assert sorted(contents(rendered)) == sorted([SCENES, *(record["file"] for record in found)])
    assert {len(scene) for scene in scenes} == {1, 2}


def test_wavs_are_what_the_records_say(rendered):
    for record in records(rendered):
        info = soundfile.info(rendered / record["file"])
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (32_000, 2, 32_000, "FLOAT")
        assert record["peak"] == pytest.approx(np.abs(read_binaural(rendered / record["file"])).max(), abs=1e-4)
        assert (record["seconds"], record["clipped"]) == (1.0, 0)


def test_scenes_are_the_reference_rendering(demo, rendered):
    dataset = open_dataset(demo)
    for record in records(rendered):
        expected = np.zeros((2, 32_000))
        for source in record["sources"]:
            clip, brir = dataset.files_of(Source(**source))
            x, h = read_clip(clip).astype(np.float64), read_brir(brir).astype(np.float64)
            x *= 10 ** (-14 / 20) / np.sqrt(np.mean(x**2))
            expected += np.stack([fftconvolve(x, ear)[:32_000] for ear in h]) / len(record["sources"])
        scene = read_binaural(rendered / record["file"])
        assert np.abs(scene - expected).max() <= 1e-3 * np.abs(expected).max()  # BRIRs are trimmed at −80 dB


def test_the_manifest_says_what_made_them(rendered):
    manifest = read_json(rendered / MANIFEST)
    assert (manifest["split"], manifest["scenes"], manifest["bad"]) == ("eval", len(records(rendered)), 0)
    assert manifest["settings"] == {
        "seconds": 1.0,
        "sample_rate": 32_000,
        "rms_dbfs": -14.0,
        "rendering": "fast",
        "brir_seconds": None,
    }


def test_two_jobs_give_the_same_bytes(demo, rendered, tmp_path):
    render(demo, tmp_path / "out", jobs=2)
    assert contents(tmp_path / "out") == contents(rendered)


def test_two_ranks_give_the_same_bytes(demo, rendered, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    render(demo, tmp_path / "out")
    assert not (tmp_path / "out" / SCENES).exists()
    assert len(list((tmp_path / "out").glob("*.wav"))) == len(records(rendered)) // 2
    monkeypatch.setenv("RANK", "0")
    render(demo, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(rendered)


def test_a_complete_folder_is_left_alone(demo, rendered, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in rendered.iterdir()}
    assert render(demo, rendered)[-1] == f"{rendered} is already complete"
    assert {path: path.stat().st_mtime_ns for path in rendered.iterdir()} == before


@pytest.mark.parametrize("change", [{"seconds": 0.5}, {"encoding": "pcm16"}, {"split": "train"}])
def test_scenes_of_other_settings_are_not_mixed(demo, rendered, change):
    before = contents(rendered)
    with pytest.raises(InputError, match="holds other scenes, or of other settings; choose another folder"):
        render(demo, rendered, **change)
    assert contents(rendered) == before


def test_a_lost_wav_is_made_again(demo, rendered, tmp_path):
    folder = Path(shutil.copytree(rendered, tmp_path / "out"))
    (folder / records(folder)[3]["file"]).unlink()
    render(demo, folder)
    assert contents(folder) == contents(rendered)


def test_a_terminated_run_goes_on_to_the_same_bytes(demo, rendered, tmp_path):
    folder = tmp_path / "out"
    program = f"""
import sys, time
from batcli import spatialize as module
from batcli.cli import main
whole, written = module.write_wav, []
def write_wav(*arguments):
    whole(*arguments)
    written.append(arguments)
    if len(written) == 5:
        print("five", flush=True)
        time.sleep(60)
module.write_wav = write_wav
sys.argv = ["bat", "spatialize", {str(demo)!r}, "-o", {str(folder)!r}, "--jobs", "1"]
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "five\n"
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said.splitlines()[-1] == "bat: stopped by a signal; run again to go on"
    assert "Traceback" not in said
    left = set(contents(folder))
    assert SCENES not in left
    assert not (folder / MANIFEST).exists()
    assert sum(name.endswith(".wav") for name in left) == 5
    name = next(name for name in contents(rendered) if name.endswith(".wav") and name not in left)
    (folder / f"{TEMPORARY}{name}").write_bytes(b"half")  # as a kill leaves it
    render(demo, folder)
    assert contents(folder) == contents(rendered)


def test_only_what_is_missing_is_rendered_again(three, tmp_path, monkeypatch):
    whole, done = module.render_files, []

    def stop_at_the_third(files, settings):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(files)
        return whole(files, settings)

    monkeypatch.setattr(module, "render_files", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        render(three.root, tmp_path / "out")
    monkeypatch.setattr(module, "render_files", lambda files, settings: done.append(files) or whole(files, settings))
    render(three.root, tmp_path / "out")
    assert len(done) == 3
    assert len(set(done)) == 3


# ---- bad samples ---------------------------------------------------------------------------------


def test_a_bad_clip_is_a_record_and_the_others_are_rendered(three, tmp_path):
    render(three.root, tmp_path / "good")
    clip, _ = three.files_of(next(three.questions("eval")).scene[0])
    content = clip.read_bytes()
    clip.write_bytes(content[:1000])
    message = f"{clip}: is truncated: 1,000 of {len(content):,} bytes; copy it again"

    with pytest.raises(TooManyBad, match="1 of 3 scenes failed, more than --max-bad 0; see 'error' in") as caught:
        render(three.root, tmp_path / "out")
    assert caught.value.exit_code == 4
    first, *others = records(tmp_path / "out")
    assert first["file"] is None
    assert first["error"] == {"kind": "InputError", "message": message}
    assert others == records(tmp_path / "good")[1:]
    assert read_json(tmp_path / "out" / MANIFEST)["bad"] == 1

    # It is tried again, and it is as bad; as many as are allowed are no failure.
    with pytest.raises(TooManyBad):
        render(three.root, tmp_path / "out")
    assert f"warning: {message}" in render(three.root, tmp_path / "out", max_bad=1)

    # When the clip is whole again, that scene alone is rendered.
    clip.write_bytes(content)
    before = {record["file"]: (tmp_path / "out" / record["file"]).stat().st_mtime_ns for record in others}
    render(three.root, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "good")
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == before


def test_ids_that_climb_out_are_refused_before_any_work(three, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "run_jobs", lambda *_: pytest.fail("rendered"))
    write_wav(tmp_path / "secret.wav", np.ones((1, 100), np.float32), 32_000)
    good = next(three.questions("eval")).scene[0]
    (three.root / "audio/out").symlink_to(tmp_path)
    for audio_id, message in (
        ("../../secret", r"eval.jsonl:1: 'audio_id' leads out of its root: '../../secret'"),
        (str(tmp_path / "secret"), r"eval.jsonl:1: 'audio_id' leads out of its root"),
        ("out/secret", "through a link: 'out/secret.wav'"),
    ):
        ask(three, [Source(audio_id, good.reverb_id)])
        with pytest.raises(InputError, match=message):
            render(three.root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("file", "is a file, not a directory"),
        ("file/below", "cannot be written: Not a directory"),
        ("-", "scenes do not go to standard output"),
        (None, "--output: missing"),
    ],
)
def test_an_output_that_cannot_be_is_found_before_any_work(three, tmp_path, monkeypatch, output, message):
    monkeypatch.setattr(module, "run_jobs", lambda *_: pytest.fail("rendered"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=message):
        render(three.root, tmp_path / output if output and output != "-" else output and Path(output))


def test_a_dry_run_looks_for_the_files_and_writes_nothing(three, tmp_path):
    assert render(three.root, tmp_path / "out", dry_run=True) == ["3 scenes of 1 s, 768 kB"]
    _, brir = three.files_of(next(three.questions("eval")).scene[0])
    brir.unlink()
    with pytest.raises(TooManyBad, match="1 of 3 scenes failed"):
        render(three.root, tmp_path / "out", dry_run=True)
    assert f"warning: {brir}: no such file" in render(three.root, tmp_path / "out", dry_run=True, max_bad=1)
    assert not (tmp_path / "out").exists()


def test_a_split_without_questions(three, tmp_path):
    ask(three, [])
    with pytest.raises(InputError, match=r"eval.jsonl: no questions"):
        render(three.root, tmp_path / "out")


# ---- one scene -----------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    """A loud click train at the left ear, and the same at the right."""
    clicks = np.zeros((1, 8000), np.float32)
    clicks[0, ::500] = 0.5
    write_wav(tmp_path / "a.wav", clicks, 32_000)
    for name, near in (("left.npy", 0), ("right.npy", 1)):
        brir = np.zeros((2, 64), np.float32)
        brir[near, 32], brir[1 - near, 52] = 1.0, 0.2  # 20 samples later, 14 dB fainter
        write_brir(tmp_path / name, brir)
    return {"audio": tmp_path / "a.wav", "reverb": tmp_path / "left.npy"}


def test_one_scene_from_files(files, tmp_path):
    said = render(None, tmp_path / "out.wav", **files)
    assert said == [f"{tmp_path}/out.wav: left ear 14.0 dB louder, left ear 625 µs earlier; peak 4.46"]
    assert read_binaural(tmp_path / "out.wav").shape == (2, 320_000)
    files["reverb"] = files["reverb"].with_name("right.npy")
    assert "right ear 14.0 dB louder, right ear 625 µs earlier" in render(None, tmp_path / "out.wav", **files)[0]


def test_two_sources_are_half_as_loud(files, tmp_path):
    options = {"audio": files["audio"], "seconds": 0.5}
    render(None, tmp_path / "1.wav", reverb=tmp_path / "left.npy", **options)
    render(None, tmp_path / "2.wav", reverb=tmp_path / "right.npy", **options)
    both = {"audio2": files["audio"], "reverb2": tmp_path / "right.npy"}
    assert "both ears alike, at once" in render(None, tmp_path / "3.wav", **files, **both, seconds=0.5)[0]
    one, two, mean = (read_binaural(tmp_path / f"{number}.wav") for number in (1, 2, 3))
    np.testing.assert_allclose(mean, (one + two) / 2, atol=1e-6)


def test_clipping_is_counted_where_it_happens(files, tmp_path):
    assert len(render(None, tmp_path / "f.wav", **files)) == 1
    loud = int((np.abs(read_binaural(tmp_path / "f.wav")) > 1).sum())
    assert loud >= 16
    said = render(None, tmp_path / "i.wav", **files, encoding="pcm16")
    assert said[1] == f"warning: {loud} samples were clipped; --encoding float keeps them"
    assert np.abs(read_binaural(tmp_path / "i.wav")).max() <= 1


def test_clipping_in_a_split_is_counted(three, tmp_path):
    said = render(three.root, tmp_path / "out", encoding="pcm24", rms_dbfs=0.0)
    clipped = [record["clipped"] > 0 for record in records(tmp_path / "out")]
    assert any(clipped)
    assert f"warning: {sum(clipped)} scenes have clipped samples; --encoding float keeps them" in said


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "give either DATA or --audio and --reverb"),
        (("audio",), "a clip without a BRIR, or a BRIR without a clip"),
        (("reverb",), "a clip without a BRIR"),
        (("audio", "reverb", "audio2"), "a clip without a BRIR"),
        (("audio", "reverb", "reverb2"), "a BRIR without a clip"),
        (("data", "audio", "reverb"), "give either DATA or --audio and --reverb"),
        (("data", "reverb2"), "give either DATA or --audio and --reverb"),
    ],
)
def test_wrong_usage(files, tmp_path, demo, given, message):
    every = {"data": demo, **files, "audio2": files["audio"], "reverb2": files["reverb"]}
    with pytest.raises(InputError, match=message):
        spatialize(SpatializeOptions(output=tmp_path / "out.wav", **{name: every[name] for name in given}))
    assert not (tmp_path / "out.wav").exists()


def test_bad_files_and_outputs_of_one_scene(files, tmp_path, monkeypatch):
    (tmp_path / "one.npy").write_bytes(b"")
    np.save(tmp_path / "one.npy", np.ones((1, 100)))
    for change, output, message in (
        ({"audio": tmp_path / "none.wav"}, "out.wav", "none.wav: no such file"),
        ({"reverb": tmp_path / "one.npy"}, "out.wav", r"one.npy: shape \(1, 100\), not \(2, T\)"),
        ({}, ".", "is a directory, not a file"),
        ({}, "a.wav/out.wav", "is a file, not a directory"),
        ({"dry_run": True, "reverb": tmp_path / "none.npy"}, "out.wav", "none.npy: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            render(None, tmp_path / output, **{**files, **change})
    assert render(None, tmp_path / "out.wav", **files, dry_run=True) == ["1 scene of 10 s from 1 sources"]
    assert not (tmp_path / "out.wav").exists()


def test_the_published_examples(shared, tmp_path):
    for name, side in (("74.npy", "left"), ("75.npy", "right")):
        for clip in sorted((shared / "real").glob("*.wav")):
            (said,) = render(None, tmp_path / "out.wav", audio=clip, reverb=shared / "real" / name)
            assert f": {side} ear " in said
            assert f", {side} ear " in said
