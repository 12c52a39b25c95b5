"""`examples/recipes/PUBLISHED.md` says what the code has, and names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from batcli.training.recipe import NAMED, Recipe, with_named

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "examples/recipes/PUBLISHED.md").read_text(encoding="utf-8")
TABLES = {("as-2m", "as-20k"): "## Spatial-AST", ("paper", "slam-llm"): "## Stages 1 to 3"}


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(heading)[1].split("\n## ")[0]
    lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return lines[1:]


@pytest.mark.parametrize("names", TABLES)
def test_every_value_of_a_recipe_is_on_the_page(names: tuple[str, str]):
    table = rows(TABLES[names])
    for column, name in enumerate(names, start=1):
        pairs = dict(re.findall(r"`(\w+) = ([^`]+)`", " ".join(row[column] for row in table)))
        own = {"muon", "soft_distance", "one_way"}  # which no published recipe has
        assert set(pairs) == set(NAMED[name]) - own
        written = Recipe().with_values([f"{key}={value}" for key, value in pairs.items()])
        recipe = with_named(Recipe(), [name])
        for key in pairs:
            assert getattr(written, key) == getattr(recipe, key), f"{name}: {key}"


def test_every_test_on_the_page_exists():
    defined = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 15
    assert named <= defined, named - defined
