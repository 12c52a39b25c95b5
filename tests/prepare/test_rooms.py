"""`bat prepare rooms`: layout, metadata, the same bytes however it is run, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from batcli.core.errors import InputError
from batcli.core.files import TEMPORARY, read_json
from batcli.data.constants import DIRECT_SAMPLE
from batcli.data.geometry import octant
from batcli.data.metadata import read_reverbs
from batcli.options import RoomsOptions
from batcli.prepare.rooms import RECORD, rooms, scene_name


def make(folder: Path, **changes) -> Path:
    """Eight small, dry rooms of three sources, unless `changes` say otherwise."""
    rooms(RoomsOptions(**{"reverb": folder, "rooms": 8, "sources": 3, "rt60": "0.15:0.3", "jobs": 1, **changes}))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("rooms") / "reverb")


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "batcli", "prepare", "rooms", str(folder), "--rooms", "8", "--sources", "3"]
    command += ["--rt60", "0.15:0.3", *arguments]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.PIPE, text=True)


# ---- what is written -----------------------------------------------------------------------------


def test_layout_is_the_published_one(made):
    reverbs = read_reverbs(made / "train_reverberation.json")
    assert len(reverbs) == 24
    assert {reverb.scene for reverb in reverbs.values()} == {scene_name("train", number) for number in range(8)}
    for reverb_id in reverbs:
        samples = np.load(made / "binaural" / reverb_id, allow_pickle=False)
        assert samples.dtype == np.float32
        assert samples.shape[0] == 2
        assert 3000 < samples.shape[1] < 32_000
        assert np.isfinite(samples).all()


def test_metadata_tells_what_the_responses_are(made):
    for reverb_id, reverb in read_reverbs(made / "train_reverberation.json").items():
        samples, extra = np.load(made / "binaural" / reverb_id), reverb.extra
        x, _, z = reverb.source
        # The louder ear, within a millisecond of the direct sound, is that of the label formula.
        left, right = (samples[:, : DIRECT_SAMPLE + 32] ** 2).sum(-1)
        if abs(x) > 0.26 * reverb.position.distance:
            assert (right > left) == (octant(reverb.position).side == "right")
        assert 0.15 <= extra["rt60"] <= 0.301
        assert [int(band) for band in extra["rt60_by_band"]] == [125, 250, 500, 1000, 2000, 4000, 8000]
        assert -30 < extra["drr"] < 20
        assert extra["hrtf"] == "kemar"
        # The room turned about the listener: the source is inside it.
        yaw, (width, height, length) = np.radians(extra["yaw"]), extra["room_size"]
        ear_x, ear_y, ear_z = extra["listener_in_room"]
        assert 0 < ear_x + x * np.cos(yaw) + z * np.sin(yaw) < width
        assert 0 < ear_z - x * np.sin(yaw) + z * np.cos(yaw) < length
        assert 0 < ear_y + reverb.source[1] < height


def test_octants_are_even(made):
    counts = Counter(octant(r.position) for r in read_reverbs(made / "train_reverberation.json").values())
    assert len(counts) == 8
    assert set(counts.values()) == {3}


def test_the_record_says_where_the_room_ends(made):
    """`train_reverberation.json` is the records one after the other, and the settings."""
    whole = read_json(made / "train_reverberation.json")
    parts = [read_json(made / "binaural" / scene_name("train", number) / RECORD) for number in range(8)]
    assert whole["data"] == [entry for part in parts for entry in part["data"]]
    assert all(part["settings"] == whole["settings"] for part in parts)
    assert whole["rooms"] == 8


def test_splits_share_no_scene_and_no_room(made, tmp_path):
    make(tmp_path, split="eval")
    train, evaluation = (
        read_reverbs(folder / f"{split}_reverberation.json") for folder, split in ((made, "train"), (tmp_path, "eval"))
    )
    assert not {r.scene for r in train.values()} & {r.scene for r in evaluation.values()}
    assert not {r.source for r in train.values()} & {r.source for r in evaluation.values()}


# ---- the same bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize(("jobs", "threads"), [("2", "1"), ("1", "2")])
def test_jobs_and_threads_change_nothing(made, tmp_path, jobs, threads):
    with run(tmp_path, "--jobs", jobs, OMP_NUM_THREADS=threads, OPENBLAS_NUM_THREADS=threads) as process:
        assert process.wait(timeout=120) == 0
    assert contents(tmp_path) == contents(made)


def test_ranks_change_nothing(made, tmp_path):
    processes = [run(tmp_path, "--jobs", "1", RANK=str(rank), WORLD_SIZE="2") for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_and_resumed(made, tmp_path, number):
    process = run(tmp_path, "--jobs", "1")
    while not list(tmp_path.glob(f"binaural/*/{RECORD}")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(number)
    assert process.wait(timeout=60) == (-9 if number == signal.SIGKILL else 143)
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


def test_a_half_written_room_is_made_again(made, tmp_path):
    make(tmp_path)
    room = tmp_path / "binaural" / scene_name("train", 5)
    (room / RECORD).unlink()
    (room / "1.npy").write_bytes(b"half")
    (room / f"{TEMPORARY}2.npy").write_bytes(b"left by a killed process")
    (tmp_path / f"{TEMPORARY}train_reverberation.json").write_bytes(b"{")
    make(tmp_path)
    assert contents(tmp_path) == contents(made)


def test_more_rooms_keep_the_ones_there_are(made, tmp_path):
    make(tmp_path, rooms=5)
    before = contents(tmp_path / "binaural")
    make(tmp_path)
    assert contents(tmp_path) == contents(made)
    assert before.items() <= contents(tmp_path / "binaural").items()


def test_another_seed_gives_other_rooms(made, tmp_path):
    make(tmp_path, seed=1)
    one, other = (read_reverbs(folder / "train_reverberation.json") for folder in (made, tmp_path))
    assert one.keys() == other.keys()
    assert all(one[key].source != other[key].source for key in one)


# ---- variants ------------------------------------------------------------------------------------


def test_mono_beside_binaural_shares_the_metadata(made, tmp_path):
    make(tmp_path)
    metadata = (tmp_path / "train_reverberation.json").read_bytes()
    make(tmp_path, channels="mono")
    assert (tmp_path / "train_reverberation.json").read_bytes() == metadata
    for reverb_id in read_reverbs(tmp_path / "train_reverberation.json"):
        mono, binaural = (np.load(tmp_path / folder / reverb_id) for folder in ("mono", "binaural"))
        assert mono.shape == (1, binaural.shape[1])
    with pytest.raises(InputError, match="lists 8 rooms"):
        make(tmp_path, channels="mono", rooms=9)


def test_mono_alone_has_metadata_of_its_own(tmp_path):
    make(tmp_path, channels="mono", rooms=2)
    assert read_json(tmp_path / "train_reverberation.json")["data"][0]["hrtf"] == "omni"


def test_size_head_and_distance_as_asked_for(tmp_path):
    make(tmp_path, size="6x5x2.6", hrtf="sphere", max_distance=2.0, rt60="0.25")
    for reverb in read_reverbs(tmp_path / "train_reverberation.json").values():
        assert reverb.extra["room_size"] == [6.0, 2.6, 5.0]
        assert reverb.extra["hrtf"] == "sphere"
        assert reverb.extra["rt60"] == pytest.approx(0.25, abs=0.001)
        assert 0.499 < reverb.position.distance < 2.001


def test_dry_run_writes_nothing(tmp_path):
    make(tmp_path / "reverb", dry_run=True)
    assert not (tmp_path / "reverb").exists()


@pytest.mark.parametrize("channels", ["binaural", "mono"])
def test_picture(tmp_path, channels):
    pytest.importorskip("matplotlib", reason="the extra 'plot' is not installed")
    make(tmp_path / "reverb", rooms=1, channels=channels, plot=tmp_path / "room.png")
    header = (tmp_path / "room.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert int.from_bytes(header[16:20], "big") > 1000


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"seed": 1}, "made with seed 0, not 1; choose another folder"),
        ({"hrtf": "sphere"}, "made with hrtf kemar, not sphere"),
        ({"sources": 2}, "made with sources 3, not 2"),
        ({"rt60": "0.2"}, r"made with rt60 \[0.15, 0.3\], not \[0.2, 0.2\]"),
        ({"size": "5x4x2.5"}, "made with size None"),
        ({"max_distance": 5.0}, "made with max_distance 10.0, not 5.0"),
        ({"spread": "even"}, "made with spread near, not even"),
        ({"rooms": 4}, "holds train-00007 beyond the 4 rooms asked for"),
        ({"channels": "mono", "seed": 1}, "made with other settings"),
    ],
)
def test_rooms_of_other_settings_are_never_mixed(made, changes, what):
    before = contents(made)
    with pytest.raises(InputError, match=what):
        make(made, **changes)
    assert contents(made) == before


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"rt60": "fast"}, "--rt60: not a reverberation time: 'fast'"),
        ({"rt60": "0.5:0.2"}, "not a reverberation time"),
        ({"rt60": "nan"}, "not a reverberation time"),
        ({"rt60": "0.01"}, "cannot have an RT60 of 0.01 s; from"),
        ({"size": "5x4x2.5", "rt60": "0.02"}, "a room of 5 x 4 x 2.5 m cannot have an RT60 of 0.02 s; from"),
        ({"size": "5x4"}, "--size: not a room size: '5x4'"),
        ({"size": "5x4x0"}, "not a room size"),
        ({"size": "1x4x2.5"}, "a room of 1 x 4 x 2.5 m is too small; at least 2 m each way"),
        ({"hrtf": "dummy"}, "dummy: no such file; a head is kemar, sphere or a SOFA file"),
        ({"plot": Path("room.bmp")}, "room.bmp: a picture of unknown format"),
    ],
)
def test_bad_input_is_one_line_before_any_work(tmp_path, changes, what):
    with pytest.raises(InputError, match=what) as error:
        make(tmp_path / "reverb", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "reverb").exists()


def test_metadata_of_others_is_not_overwritten(tmp_path):
    file = tmp_path / "train_reverberation.json"
    file.write_text(json.dumps({"data": [{"fname": "17DRP5sb8fy/0.npy"}]}))
    with pytest.raises(InputError, match="not written by this command"):
        make(tmp_path)
    assert "17DRP5sb8fy" in file.read_text()


def test_exit_code_of_bad_input(tmp_path):
    with run(tmp_path / "reverb", "--rt60", "x") as process:
        assert process.stderr is not None
        message = process.stderr.read()
        assert process.wait(timeout=60) == 2
    assert message.count("\n") == 1
    assert message.startswith("bat: --rt60: not a reverberation time")


def test_a_head_that_contradicts_its_file_is_read_by_ear_and_said(tmp_path):
    """On standard error in one line, in the metadata, and not mixed with rooms of another reading."""
    pytest.importorskip("sofar", reason="the extra 'sofa' is not installed")
    from sofa_sets import write_set

    head = write_set(tmp_path / "h.SOFA", receivers_swapped=True)
    with run(tmp_path / "reverb", "--hrtf", str(head), "--jobs", "2") as process:
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 0
    (warning,) = [line for line in said.splitlines() if "warning" in line]
    assert "h.SOFA: ReceiverPosition calls channel 0 the right ear" in warning
    for reverb_id, reverb in read_reverbs(tmp_path / "reverb/train_reverberation.json").items():
        assert reverb.extra["hrtf"].endswith("; ears by the responses, against ReceiverPosition")
        x, _, _ = reverb.source
        left, right = (np.load(tmp_path / "reverb/binaural" / reverb_id)[:, : DIRECT_SAMPLE + 32] ** 2).sum(-1)
        if abs(x) > 0.26 * reverb.position.distance:
            assert (right > left) == (x > 0)


def test_several_heads_take_turns_and_are_recorded(tmp_path):
    options = RoomsOptions(reverb=tmp_path / "both", rooms=4, sources=2, hrtf="kemar,sphere", jobs=1)
    file = rooms(options)
    heads = [entry["hrtf"] for entry in json.loads(file.read_text())["data"]]
    assert heads == ["kemar", "kemar", "sphere", "sphere"] * 2
    for head, number in (("kemar", 0), ("sphere", 1)):
        rooms(RoomsOptions(reverb=tmp_path / head, rooms=2, sources=2, hrtf=head, jobs=1))
        name = f"binaural/train-{number:05d}/0.npy"
        assert np.array_equal(np.load(tmp_path / "both" / name), np.load(tmp_path / head / name))


@pytest.mark.parametrize("hrtf", ["kemar,kemar", "kemar,", ","])
def test_a_head_twice_or_none_is_refused(tmp_path, hrtf):
    with pytest.raises(InputError, match="--hrtf: a head twice, or none"):
        rooms(RoomsOptions(reverb=tmp_path, rooms=1, hrtf=hrtf, jobs=1))


def test_a_head_is_refused_where_there_is_none(tmp_path):
    with pytest.raises(InputError, match="--hrtf: has no effect on one point"):
        rooms(RoomsOptions(reverb=tmp_path, rooms=1, channels="mono", hrtf="sphere", jobs=1))
