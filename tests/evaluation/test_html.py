"""The package as a wheel: it has the template of the page. What the page shows, `test_score.py` tests."""

import os
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_wheel_has_every_file_of_the_package(tmp_path, monkeypatch):
    build = pytest.importorskip("hatchling.build")
    monkeypatch.chdir(ROOT)
    with zipfile.ZipFile(tmp_path / build.build_wheel(os.fspath(tmp_path))) as wheel:
        found = set(wheel.namelist())
    package = {path for path in (ROOT / "batcli").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in package} <= found
    assert "batcli/evaluation/templates/report.html" in found
