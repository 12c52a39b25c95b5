"""Manifests hold versions and the command, and no secrets."""

import json
import platform
import re
import sys

from batcli import __version__
from batcli.core import manifest


def test_a_manifest_says_what_made_a_file(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/bat", "train", "demo"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    found = json.loads(json.dumps(manifest.describe(seed=3)))
    assert found["command"] == ["bat", "train", "demo"]
    assert found["versions"].items() >= {"bat": __version__, "python": platform.python_version()}.items()
    assert re.match(r"\d+\.\d+", found["versions"]["numpy"])
    assert found["git_commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found["git_commit"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["created"])
    assert (found["processes"], found["seed"]) == (2, 3)


def test_secrets_are_masked(monkeypatch):
    given = ["--api-key", "abc", "--hf-token=def", "--Password", "ghi", "--seed", "3", "--monkeys=4"]
    monkeypatch.setattr(sys, "argv", ["bat", *given])
    shown = " ".join(manifest.command_line())
    assert not re.search("abc|def|ghi", shown)
    assert "--seed 3" in shown
