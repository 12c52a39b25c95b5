"""Fixtures for the examples: a folder as `examples/quickstart.sh` leaves it, and the game on a port of its own."""

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(scope="session")
def quickstart(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run` and `data`: that of the variable QUICKSTART, or the smallest."""
    if "QUICKSTART" in os.environ:
        return Path(os.environ["QUICKSTART"]).resolve()
    folder = tmp_path_factory.mktemp("quickstart")
    for name, fixture in (("run", "run"), ("data", "demo")):
        (folder / name).symlink_to(request.getfixturevalue(fixture))
    return folder


@pytest.fixture(scope="session")
def opened(quickstart: Path) -> Any:
    pytest.importorskip("starlette", reason="needs the extra 'game'")
    from game import open_game

    return open_game(quickstart / "run", quickstart / "data")


@pytest.fixture
def game(opened: Any) -> Any:
    """A game of its own for each test; the model is loaded once."""
    from game import Game

    return Game(opened.loaded, opened.stock, random.Random(5))


@pytest.fixture
def address(game: Any) -> Iterator[str]:
    """Where the game is served."""
    from game import build_app, serving

    with serving(build_app(game)) as address:
        yield address


@pytest.fixture
def rng() -> random.Random:
    return random.Random(1)
