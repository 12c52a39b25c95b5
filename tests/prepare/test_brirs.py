"""`bat prepare brirs`: tables and SOFA files in, the published layout out, and SOFA again."""

import csv
import json

import numpy as np
import pytest
import soundfile
from measured_room import AZIMUTHS, DISTANCES, ELEVATIONS, PLACES, simulated
from typer.testing import CliRunner

from batcli.audio.io import read_brir
from batcli.cli import app
from batcli.data.metadata import read_reverbs


@pytest.fixture
def recorded(tmp_path):
    """A folder of stereo FLACs at 32 kHz with a table; azimuths run clockwise."""
    folder = tmp_path / "recorded"
    folder.mkdir()
    rows = []
    for number, samples in enumerate(simulated()):
        soundfile.write(folder / f"{number}.flac", 0.3 * samples.T, 32_000, subtype="PCM_24")
        rows.append([f"{number}", "Lab 1", -AZIMUTHS[number], ELEVATIONS[number], DISTANCES[number]])
    with open(folder / "places.csv", "w", newline="") as file:
        csv.writer(file).writerows([["file", "where", "azimuth", "elevation", "distance"], *rows])
    return folder


def run(*words):
    return CliRunner().invoke(app, ["prepare", "brirs", *map(str, words)])


def test_a_table_becomes_a_split_and_a_sofa_file_and_the_same_split_again(tmp_path, recorded):
    table = ["--table", recorded / "places.csv", "--azimuths", "right", "--room", "where"]
    result = run(tmp_path / "reverb", recorded, *table)
    assert result.exit_code == 0, result.stderr
    assert "Lab 1: 10 BRIRs, 1.0 to 1.6 m, RT60 0.3" in result.stderr
    reverbs = read_reverbs(tmp_path / "reverb/eval_reverberation.json")
    assert [reverb.source for reverb in reverbs.values()] == [
        pytest.approx((-y, z, -x), abs=1e-3) for x, y, z in PLACES
    ]
    first = next(iter(reverbs.values()))
    assert (first.scene, first.extra["measured"]["file"], first.extra["measured"]["rate"]) == (
        "lab-1",
        "0.flac",
        32_000,
    )
    assert first.extra["measured"]["gain_db"] == pytest.approx(10.5, abs=1)

    sofar = pytest.importorskip("sofar")
    assert run(tmp_path / "reverb", "--export", tmp_path / "sofa").exit_code == 0
    read = sofar.read_sofa(str(tmp_path / "sofa/lab-1.sofa"), verbose=False)
    assert read.GLOBAL_SOFAConventions == "SingleRoomSRIR"
    for number, name in enumerate(reverbs):
        samples = read_brir(tmp_path / "reverb/binaural" / name)
        assert np.abs(read.Data_IR[number, :, : samples.shape[1]] - samples).max() < 1e-7
    assert run(tmp_path / "again", tmp_path / "sofa/lab-1.sofa", "--level", "as-is").exit_code == 0
    again = read_reverbs(tmp_path / "again/eval_reverberation.json")
    for name, reverb in reverbs.items():
        assert again[name].source == pytest.approx(reverb.source, abs=1e-4)
        here, there = (read_brir(tmp_path / folder / "binaural" / name) for folder in ("reverb", "again"))
        common = min(here.shape[1], there.shape[1]) - 400
        assert np.abs(here[:, :common] - there[:, :common]).max() < 1e-6


def test_a_wrong_convention_is_corrected_and_told(tmp_path, recorded):
    result = run(tmp_path / "reverb", recorded, "--table", recorded / "places.csv", "--azimuths", "left")
    assert result.exit_code == 0
    assert "azimuths clockwise by the responses" in result.stderr
    reverbs = read_reverbs(tmp_path / "reverb/eval_reverberation.json")
    assert [reverb.source for reverb in reverbs.values()] == [
        pytest.approx((-y, z, -x), abs=1e-3) for x, y, z in PLACES
    ]
    assert {reverb.scene for reverb in reverbs.values()} == {"places"}, "without --room, the table names it"


def test_a_number_stands_for_a_column(tmp_path, recorded):
    table = ["--table", recorded / "places.csv", "--azimuths", "right", "--elevation", "0", "--distance", "2"]
    assert run(tmp_path / "reverb", recorded, *table, "--split", "dev", "--longest", "0.1").exit_code == 0
    reverbs = read_reverbs(tmp_path / "reverb/dev_reverberation.json")
    assert all(reverb.position.elevation == pytest.approx(0, abs=1e-6) for reverb in reverbs.values())
    assert all(reverb.position.distance == pytest.approx(2, abs=1e-3) for reverb in reverbs.values())
    assert read_brir(tmp_path / "reverb/binaural" / next(iter(reverbs))).shape == (2, 3_200)


def test_a_dry_run_writes_nothing(tmp_path, recorded):
    result = run(tmp_path / "reverb", recorded, "--table", recorded / "places.csv", "--azimuths", "right", "-n")
    assert result.exit_code == 0
    assert "10 BRIRs" in result.stderr
    assert not (tmp_path / "reverb").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "SOURCE: missing"),
        (["{folder}", "--table", "{table}"], "--azimuths: missing; left: 0 is front"),
        (["{table}"], "not a SOFA file"),
        (["{folder}", "--azimuths", "left"], "--azimuths: is said by SOFA files themselves"),
        (["{folder}", "--room", "where"], "--room: is said by SOFA files themselves"),
        (["{folder}", "{folder}", "--table", "{table}", "--azimuths", "left"], "a table and more than one source"),
        (["{folder}", "--table", "{table}", "--azimuths", "left", "--distance", "metres"], "no column 'metres'"),
        (["{folder}", "--table", "{table}", "--azimuths", "left", "--distance", "where"], "places.csv:2: not a number"),
        (["{folder}", "--table", "{table}", "--azimuths", "left", "--file", "where"], "does not lie below"),
        (["{folder}", "--export", "{folder}"], "sources and an export"),
        (["{folder}"], "no SOFA file; sound files go in with --table"),
        (["{folder}/0.flac"], "no SOFA file; sound files go in with --table"),
        (["{folder}", "--distance", "2"], "--distance: is said by SOFA files themselves"),
        (["x.sofa", "--follow-links"], "--follow-links: has no effect without --table"),
        (["--export", "{folder}", "--level", "as-is"], "--level: has no effect with --export"),
        (["--export", "{folder}", "--longest", "1"], "--longest: has no effect with --export"),
        (["--export", "{folder}", "--azimuths", "left"], "--azimuths: has no effect with --export"),
    ],
)
def test_what_contradicts_is_refused(tmp_path, recorded, words, message):
    words = [word.format(folder=recorded, table=recorded / "places.csv") for word in words]
    result = run(tmp_path / "reverb", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "reverb").exists()


def test_no_room_is_in_two_splits_and_no_split_is_written_over(tmp_path, recorded):
    table = [recorded, "--table", recorded / "places.csv", "--azimuths", "right"]
    assert run(tmp_path / "reverb", *table, "--split", "train").exit_code == 0
    result = run(tmp_path / "reverb", *table, "--split", "eval")
    assert result.exit_code == 2
    assert "has room 'places' already; no room may be in two splits" in result.stderr
    before = json.loads((tmp_path / "reverb/train_reverberation.json").read_text())
    result = run(tmp_path / "reverb", *table, "--split", "train")
    assert result.exit_code == 2
    assert "is there already" in result.stderr
    assert json.loads((tmp_path / "reverb/train_reverberation.json").read_text()) == before
