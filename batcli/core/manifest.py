"""Manifests: the command, versions, commit and inputs that a file or directory was made with."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from batcli import __version__

PACKAGES = ("torch", "transformers", "peft", "accelerate", "numpy", "scipy", "soundfile", "soxr")
SECRET_WORDS = ("key", "token", "secret", "password")
MIN_SECRET = 12  # characters: a shorter value may be a common word, and is not masked
IN_ADDRESS = re.compile(r"(\w+://)[^/@\s]+@")  # user and password in an address


def versions() -> dict[str, str]:
    """The versions of `bat`, Python and the installed packages of PACKAGES."""
    found = {"bat": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def git_commit() -> str | None:
    """The commit of the checkout that this code runs from; None outside of one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def command_line() -> list[str]:
    """The command line, with secrets masked: values of options and variables that are named as one, and passwords."""
    known = [v for k, v in os.environ.items() if any(w in k.lower() for w in SECRET_WORDS) and len(v) >= MIN_SECRET]
    shown, mask = [Path(sys.argv[0]).name], False
    for argument in sys.argv[1:]:
        name, equals, _ = argument.partition("=")
        secret = name.startswith("--") and any(word in name.lower() for word in SECRET_WORDS)
        for value in known:
            argument = argument.replace(value, "…")
        argument = IN_ADDRESS.sub(r"\1…@", argument)
        shown.append("…" if mask else f"{name}=…" if secret and equals else argument)
        mask = secret and not equals
    return shown


def describe(**facts: Any) -> dict[str, Any]:
    """A manifest: the command, versions, commit and time, and `facts` (seed, input hashes, counts)."""
    return {
        "command": command_line(),
        "versions": versions(),
        "git_commit": git_commit(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        **facts,
    }
