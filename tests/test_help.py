"""Help: its order, its groups, its width; and completion in a shell."""

import os
import re
import subprocess
import sys
from dataclasses import fields

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from batcli import help, options
from batcli.cli import app
from batcli.data.constants import SAMPLE_RATE

KINDS = ["demo", "clips", "rooms", "brirs", "questions", "import", "model"]
COMMANDS = [["train"], ["decode"], ["score"], ["spatialize"], *(["prepare", kind] for kind in KINDS)]
SCHEMAS = [one for one in vars(options).values() if isinstance(one, type) and issubclass(one, options.Options)]


def help_of(*path: str, width: int = 80) -> list[str]:
    result = CliRunner().invoke(app, [*path, "--help"], prog_name="bat", env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def section(lines: list[str], heading: str) -> list[str]:
    """The lines below a heading."""
    start = lines.index(f"{heading}:") + 1
    return lines[start : lines.index("", start) if "" in lines[start:] else None]


@pytest.mark.parametrize(
    ("path", "names"), [([], ["prepare", "spatialize", "train", "decode", "score"]), (["prepare"], KINDS)]
)
def test_commands_in_the_order_of_work_with_whole_summaries(path, names):
    rows = section(help_of(*path), "Commands, in the order of work")
    assert [row.split()[0] for row in rows] == names  # so each summary is one line
    assert all(re.fullmatch(r"  \w+ {2,}[A-Z].*\.", row) and "..." not in row for row in rows)


@pytest.mark.parametrize("path", [[], ["prepare"], *COMMANDS])
@pytest.mark.parametrize("width", [80, 120])
def test_examples_come_first_and_nothing_is_wider_than_the_terminal(path, width):
    lines = help_of(*path, width=width)
    assert max(map(len, lines)) <= width
    headings = [line for line in lines if re.fullmatch(r"[A-Z].*:", line)]
    assert headings[0] == "Examples:"
    assert headings[-1] == "General:"
    assert "Other:" not in headings
    assert not re.search(r"<(str|path|int|float)\b|int range|\{[A-Z]+\}|x>=", "\n".join(lines))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda one: one.__name__)
def test_every_option_has_a_group(schema):
    for field in fields(schema):
        assert help.group_of(schema.__name__, field.name) in help.GROUPS, f"{schema.__name__}.{field.name}"


def test_every_group_names_options_that_are_there():
    known = {field.name for schema in SCHEMAS for field in fields(schema)}
    known |= {f"{schema.__name__}.{field.name}" for schema in SCHEMAS for field in fields(schema)}
    general = {"config", "print_config", "quiet", "verbose", "debug"}
    assert set(" ".join(help.GROUPS.values()).split()) <= known | general
    assert set(help.METAVARS) <= known


def test_required_options_are_marked_and_in_the_usage():
    lines = help_of("prepare", "questions", width=110)
    assert lines[0].startswith("Usage: bat prepare questions DATA --clips FILE --labels FILE --audio-root DIR")
    rows = re.split(r"\n  (?=\S)", "\n".join(section(lines, "Input and output")))
    marked = [re.search(r"DATA|--[\w-]+", row)[0] for row in rows if "[required]" in row]
    assert marked == ["DATA", "--labels", "--audio-root", "--reverb-root", "--clips"]
    assert "required" not in rows[len(marked)]
    assert help_of("train")[0] == "Usage: bat train DATA -o DIR [OPTIONS]"
    assert help_of("decode")[0] == "Usage: bat decode RUN [DATA] [OPTIONS]"  # -o only with DATA


def test_metavars_defaults_and_limits():
    text = "\n".join(help_of("spatialize"))
    assert f"[default: {SAMPLE_RATE};" in text
    assert "--rendering fast|published" in text
    assert re.search(r"--max-bad N +Scenes .*\[default: 0\]", text)
    assert "--set KEY=VALUE" in "\n".join(help_of("train"))
    assert "used 4. [default: 1; 1 to 64]" in " ".join(" ".join(help_of("decode")).split())


def test_long_examples_can_be_pasted():
    lines = help_of("train")
    start = next(n for n, line in enumerate(lines) if line.endswith("\\"))
    pasted = subprocess.run(
        ["bash", "-c", "accelerate() { printf '%s\\n' \"$@\"; }; " + "\n".join(lines[start : start + 2])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert pasted.stdout.split()[-4:] == ["--llm", "Llama-2-7b-hf", "--precision", "bf16"]


def test_summaries_have_the_first_paragraph_alone():
    root = get_command(app)
    assert help.summary(root.commands["decode"].help) == "Answer the questions of a split, or one about a recording."


# ---- completion ----------------------------------------------------------------------------------


def complete(words: str, number: int) -> list[str]:
    environment = {**os.environ, "_BAT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    result = subprocess.run([sys.executable, "-m", "batcli"], env=environment, capture_output=True, text=True)
    assert result.stderr == ""
    return result.stdout.split()


def test_bash_completes_commands_options_and_values():
    assert complete("bat pre", 1) == ["prepare"]
    assert complete("bat train --resu", 2) == ["--resume"]
    assert complete("bat train --cache ", 3) == ["auto", "disk", "none"]


def test_completion_is_installed_for_bash(tmp_path):
    (tmp_path / ".bashrc").write_text("# mine\n")
    command = f"{sys.executable} -m batcli --install-completion bash"
    environment = {**os.environ, "HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    result = subprocess.run(command.split(), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "# mine" in (tmp_path / ".bashrc").read_text()
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "complete -o default -F _bat_completion bat" in script.read_text()
