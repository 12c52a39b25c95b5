"""Other heads: the same scenes, and what of the cues is left."""

from pathlib import Path

import numpy as np
import pytest
from heads import ROWS, compare, room_options, same_places, write_larger, write_without_head

from batcli.audio.hrtf import kemar, sofa
from batcli.audio.io import read_brir, write_brir
from batcli.core.errors import InputError
from batcli.data.dataset import open_dataset
from batcli.data.geometry import locate
from batcli.data.metadata import Reverb, read_reverbs
from batcli.prepare.rooms import rooms


def test_the_same_rooms_are_made_again(demo: Path, tmp_path: Path):
    data = open_dataset(demo)
    made = rooms(room_options(data, "eval", tmp_path, hrtf="kemar", jobs=1))
    again = read_reverbs(made)
    assert same_places(data.reverbs("eval"), again)
    name = next(iter(again))
    np.testing.assert_array_equal(read_brir(tmp_path / "binaural" / name), read_brir(data.brir_path(name)))
    other = {name: reverb._replace(source=(9.0, 0.0, 0.0)) for name, reverb in again.items()}
    assert not same_places(data.reverbs("eval"), other)


def test_rooms_from_elsewhere_are_refused(demo: Path, tmp_path: Path):
    data = open_dataset(demo)
    (tmp_path / "their.json").write_text('{"data": []}')
    data.splits["eval"].reverbs = str(tmp_path / "their.json")
    with pytest.raises(InputError, match="cannot be made again"):
        room_options(data, "eval", tmp_path)


def test_a_larger_head_has_longer_delays(tmp_path: Path):
    pytest.importorskip("sofar", reason="needs the extra 'sofa'")
    larger = sofa(Path(write_larger(tmp_path / "larger.sofa")))
    for azimuth in (0, 45, 180):
        own, theirs = (np.diff(head.at(azimuth, 0)[1])[0] for head in (kemar(), larger))
        assert theirs == pytest.approx(1.1 * own, rel=0.05)


@pytest.mark.parametrize(("x", "gains"), [(-1.0, (2**0.5, 0.0)), (0.0, (1.0, 1.0)), (1.0, (0.0, 2**0.5))])
def test_panning_is_by_level_alone(tmp_path: Path, x: float, gains: tuple[float, float]):
    response = np.random.default_rng(0).standard_normal((1, 400)).astype(np.float32)
    place = (x, 0.0, -1.0 if x == 0 else 0.0)
    reverb = Reverb("room/0.npy", locate((0, 0, 0), place), place, {})
    (tmp_path / "mono/room").mkdir(parents=True)
    (tmp_path / "panned/binaural").mkdir(parents=True)
    write_brir(tmp_path / "mono/room/0.npy", response)
    write_without_head(tmp_path, tmp_path / "panned", [reverb], panned=True)
    heard = read_brir(tmp_path / "panned/binaural/room/0.npy")
    np.testing.assert_allclose(heard, np.maximum(np.array(gains), 2**0.5 * 1e-3)[:, None] * response, atol=1e-6)


@pytest.mark.slow
def test_the_table_has_a_column_for_each_head(run: Path, demo: Path, tmp_path: Path):
    pytest.importorskip("sofar", reason="needs the extra 'sofa'")
    lines = compare(run, demo, tmp_path, jobs=1).splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[3:-1]] == ["as trained", "larger", "sphere", "panned", "mono"]
    assert len(lines) == len(ROWS) + 2
    assert len({line.count("|") for line in lines}) == 1
