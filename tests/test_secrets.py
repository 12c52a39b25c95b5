"""Secrets appear in no file, message or traceback, and nothing is sent anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batcli.core import manifest

ROOT = Path(__file__).resolve().parents[1]
SECRET = "hf_S3cr3tS3cr3tS3cr3t"
VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "AWS_SECRET_ACCESS_KEY")

ALONE = """
import sys
seen = []
def note(event, arguments):
    if event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        if getattr(arguments[0], "family", 0) != 1:  # AF_UNIX: to workers of this machine
            seen.append(f"{event} {arguments}")
    if event in ("urllib.Request", "http.client.connect", "smtplib.connect", "ftplib.connect"):
        seen.append(event)
sys.addaudithook(note)
from batcli.cli import main
try:
    main()
finally:
    print("SENT", seen, file=sys.stderr)
"""


def bat(*words: object, script: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "batcli"] if script is None else ["-c", script]
    where = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **dict.fromkeys(VARIABLES, SECRET)}
    return subprocess.run(
        [sys.executable, *start, *map(str, words)], env=where, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def worked(demo, run, tmp_path_factory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """Commands that write manifests and messages, with secrets all around them."""
    out = tmp_path_factory.mktemp("secrets")
    commands = (
        ("decode", run, demo, "-o", out / "preds.jsonl", "--limit", 3, "--workers", 1, "-v"),
        ("spatialize", demo, "-o", out / "scenes", "--jobs", 1, "-v"),
        ("score", out / "preds.jsonl", "-o", out / "scores.json", "--format", "json", "-v"),
    )
    return out, [bat(*words, script=ALONE) for words in commands]


def test_files_and_messages_hold_no_secret(worked):
    out, done = worked
    for process in done:
        assert process.returncode == 0, process.stderr
        assert SECRET not in process.stdout + process.stderr
    for path in out.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def test_nothing_is_sent(worked):
    for process in worked[1]:
        assert process.stderr.rstrip().endswith("SENT []"), process.stderr[-500:]


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_what_is_unexpected_shows_no_values(tmp_path, debug):
    """One line; with --debug a traceback, of code alone: what variables held is not in it."""
    script = f"""
import batcli.spatialize
def broken(options, reporter):
    token = {SECRET!r}
    raise ZeroDivisionError("by zero")
batcli.spatialize.spatialize = broken
from batcli.cli import main
main()
"""
    (tmp_path / "script.py").write_text(script.replace(repr(SECRET), "__import__('os').environ['HF_TOKEN']"))
    found = bat(
        "spatialize", "-o", tmp_path / "x", *debug, script=f"exec(open({str(tmp_path / 'script.py')!r}).read())"
    )
    assert found.returncode == 1
    assert SECRET not in found.stderr
    assert ("Traceback" in found.stderr) == bool(debug)
    assert found.stderr.rstrip().splitlines()[-1].startswith("bat: unexpected ZeroDivisionError: by zero")


def test_a_key_in_an_address_is_masked(monkeypatch):
    given = [
        "score",
        "x",
        "--embedder",
        "openai:m",
        "--config",
        f"https://user:{SECRET}@host/v1",
        f"--llm=hf://me:{SECRET}@hub",
    ]
    monkeypatch.setattr(sys, "argv", ["bat", *given])
    assert SECRET not in " ".join(manifest.command_line())
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(sys, "argv", ["bat", "score", f"x-{SECRET}-y"])
    assert SECRET not in " ".join(manifest.command_line())
