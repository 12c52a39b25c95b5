"""The direction of imports, and what a `--help` costs."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "batcli"
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
VERBS = ("spatialize.py", "train.py", "decode.py", "score.py")
MAY_IMPORT = {  # layer → the layers below it
    "core": (),
    "data": ("core",),
    "audio": ("core", "data"),
    "questions": ("core", "data"),
    "evaluation": ("core", "data"),
    "model": ("core", "data"),
    "options": ("core", "data"),
    "training": ("core", "data", "audio", "questions", "evaluation", "model", "options"),
    "verbs": ("core", "data", "audio", "questions", "evaluation", "model", "training", "options"),
    "cli": ("core", "data", "evaluation", "options", "verbs"),
    "api": ("core", "data", "audio", "evaluation", "model", "options", "verbs"),
}
TORCH = ("model/", "training/", "train.py", "decode.py", "prepare/model.py")
MAY_LOAD = {  # packages that few modules may know
    "torch": TORCH,
    "transformers": TORCH,
    "peft": TORCH,
    "accelerate": ("training/", "train.py", "model/llm.py"),
    "typer": ("cli.py", "command.py", "help.py"),
    "click": (),
    "jinja2": ("evaluation/html.py",),
    "rich": ("ui.py", "cli.py"),
}
HEAVY = ("torch", "numpy", "pandas", "transformers", "scipy", "soundfile", "peft", "accelerate", "pydantic", "jinja2")


def layer_of(module: str) -> str:
    """`audio/io.py` → `audio`; `prepare/rooms.py` and `train.py` → `verbs`."""
    head = module.partition("/")[0]
    if head in ("cli.py", "command.py", "config.py", "help.py", "ui.py", "__main__.py"):
        return "cli"
    if head in ("options.py", "api.py"):
        return head.removesuffix(".py")
    return "verbs" if head == "prepare" or head in VERBS else head


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"))


def imports(module: str) -> Iterator[str]:
    """Every imported name, wherever in the file it stands: `batcli.core.files`, `torch.nn`."""
    for node in ast.walk(parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            # `from batcli.core import files` may name a module.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> Iterator[str]:
    """The files of this package that a file imports: `core/files.py`."""
    for name in imports(module):
        path = name.split(".")
        if path[0] != "batcli":
            continue
        for depth in (len(path), len(path) - 1):
            found = "/".join(path[1:depth])
            for file in (f"{found}.py", f"{found}/__init__.py"):
                if found and file in FILES:
                    yield file
                    break
            else:
                continue
            break


def test_every_file_has_a_layer():
    assert {layer_of(file) for file in FILES if file != "__init__.py"} == set(MAY_IMPORT)


def test_the_reader_of_imports_sees_them():
    assert "options.py" in set(own_imports("spatialize.py"))
    assert "audio/plot.py" in set(own_imports("prepare/rooms.py"))  # inside a function
    assert "config.py" in set(own_imports("command.py"))  # from batcli import config
    assert "torch.utils.data.Subset" in set(imports("training/cache.py"))


@pytest.mark.parametrize("module", [file for file in FILES if file != "__init__.py"])
def test_arrows_point_down(module):
    here = layer_of(module)
    for other in own_imports(module):
        there = layer_of(other)
        if here == there == "verbs":
            # Verbs meet through files; only the demo calls its siblings.
            assert module == "prepare/demo.py", f"{module} imports {other}"
            assert other.startswith("prepare/")
        else:
            assert here == there or there in MAY_IMPORT[here], f"{module} imports {other}"


@pytest.mark.parametrize("package", MAY_LOAD)
def test_few_modules_know(package):
    allowed = MAY_LOAD[package]
    for module in FILES:
        if any(name.partition(".")[0] == package for name in imports(module)):
            assert module.startswith(allowed), f"{module} imports {package}"


def test_core_needs_the_standard_library_alone():
    for module in (file for file in FILES if file.startswith("core/")):
        for name in imports(module):
            head = name.partition(".")[0]
            assert head in ("batcli", "tomli", "tomllib", "__future__") or head in sys.stdlib_module_names, (
                f"{module}: {name}"
            )


def test_nothing_below_the_command_line_prints_or_exits():
    for module in FILES:
        if layer_of(module) == "cli":
            continue
        for node in ast.walk(parsed(module)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("print", "exit", "quit", "sys.exit"), f"{module}:{node.lineno}: {called}"


def test_help_loads_nothing_heavy():
    program = f"""
import contextlib, io, json, sys
from typer.main import get_command
from batcli.cli import app

def walk(command, path):
    yield path
    for name, below in getattr(command, "commands", {{}}).items():
        yield from walk(below, [*path, name])

found = {{}}
for path in walk(get_command(app), []):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        app([*path, "--help"], standalone_mode=False)
    found[" ".join(path)] = [out.getvalue()[:6], [name for name in {HEAVY!r} if name in sys.modules]]
print(json.dumps(found))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = json.loads(result.stdout)
    assert len(found) == 13, list(found)  # `bat`, five verbs, and seven ways to prepare
    for path, (beginning, loaded) in found.items():
        assert beginning == "Usage:", path
        assert loaded == [], path
