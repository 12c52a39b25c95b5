"""The command lines of the examples: help, wrong paths in one line, links."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def started(name, *words):
    return subprocess.run([sys.executable, EXAMPLES / name, *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["ablate.py", "analyse.py", "game.py", "heads.py", "memory.py", "pictures.py"])
def test_help(name):
    result = started(name, "--help")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage:")


@pytest.mark.parametrize(("name", "words"), [("memory.py", ["{nowhere}"]), ("ablate.py", ["{nowhere}", "{nowhere}"])])
def test_a_wrong_path_is_one_line(tmp_path, name, words):
    result = started(name, *(word.format(nowhere=tmp_path / "nowhere") for word in words))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"{name}: ")


def test_links_are_followed_when_asked_to(run: Path, demo: Path, tmp_path: Path):
    """A dataset whose clips are links into another folder, as in the hub's cache."""
    import shutil

    from ablate import ablate

    from batcli.core.errors import InputError

    data = tmp_path / "data"
    shutil.copytree(demo, data, ignore=shutil.ignore_patterns("audio"))
    for clip in (demo / "audio").rglob("*.wav"):
        link = data / clip.relative_to(demo)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(clip)
    with pytest.raises(InputError, match="--follow-links"):
        ablate(run, data, "eval", tmp_path / "refused", limit=4)
    assert "whole" in ablate(run, data, "eval", tmp_path / "followed", limit=4, follow_links=True)
