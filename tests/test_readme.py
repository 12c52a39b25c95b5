"""The README and its pages agree with the commands, the files, and the question types."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from batcli.cli import app
from batcli.data.question_types import QUESTION_TYPES

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    path: (ROOT / path).read_text(encoding="utf-8")
    for path in (
        "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "examples/data.md",
        "examples/published.md", "examples/python.md", "examples/scoring.md", "tests/README.md",
    )
}  # fmt: skip
README = PAGES["README.md"]
TREE = PAGES["CONTRIBUTING.md"].split("## The tree")[1].split("```")[1]
MOST_WORDS = 1_500  # of the README, which is read in a minute or two
TEST_COMMAND = "pip install -e '.[test]' && pytest"


def commands() -> list[str]:
    """Every `bat …` of the pages, without what comes after a pipe, `&&` or a comment."""
    text = "\n".join(PAGES.values())
    found = re.findall(r"(?:`|^|-m |&& )bat(?:cli)? ([^`|#&\n]+)", text, flags=re.MULTILINE)
    return sorted({command.strip() for command in found if command[0].islower()})


def test_ci_calls_the_readme_s_test_command():
    assert TEST_COMMAND in README
    assert any(line.startswith(TEST_COMMAND) for line in (ROOT / ".ci/run").read_text().splitlines())


def test_every_module_is_in_the_tree():
    names = set(re.findall(r"[\w]+", TREE))
    for path in (ROOT / "batcli").rglob("*.py"):
        if not path.name.startswith("__") and path.parent.name != "synth":
            assert path.stem in names, f"{path.relative_to(ROOT)} is not in the tree of CONTRIBUTING.md"
    for path in (ROOT / "examples").iterdir():
        if path.is_file():
            assert path.name in TREE, f"{path.name} is not in the tree of CONTRIBUTING.md"


@pytest.mark.parametrize("command", commands())
def test_the_options_of_every_command_exist(command: str):
    """Each flag that a page shows is in that command's help."""
    words = shlex.split(command)
    path = words[:2] if words[0] == "prepare" else words[:1]
    if path[-1].isupper() or path == ["prepare"]:
        return
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0, result.output
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(word.split('=')[0])}(?![\w-])", result.output), (
                f"{command}: {word}"
            )


def test_every_question_type_and_metric_has_a_row():
    scoring, data = PAGES["examples/scoring.md"], PAGES["examples/data.md"]
    metrics = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`[^|]*) \|", scoring, flags=re.MULTILINE))))
    for name, question_type in QUESTION_TYPES.items():
        assert f"| {question_type.family} | {question_type.sources} | `{name}` |" in data
        assert set(question_type.metrics) <= metrics


@pytest.mark.parametrize("page", PAGES)
def test_linked_files_and_pictures_exist(page: str):
    targets = re.findall(r"\]\((?!http)([^)#]+)(?:#[^)]*)?\)", PAGES[page])
    for target in targets + re.findall(r'src="([^"]+)"', PAGES[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_linked_headings_exist(page: str):
    for target, heading in re.findall(r"\]\((?!http)([^)#]*)#([^)]+)\)", PAGES[page]):
        text = (ROOT / page).parent.joinpath(target).read_text(encoding="utf-8") if target else PAGES[page]
        headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
        assert heading in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_the_readme_is_read_in_a_minute_or_two():
    assert len(README.split()) <= MOST_WORDS
