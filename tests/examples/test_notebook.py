"""The notebook runs from top to bottom, offline, and is committed with its outputs."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebook'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebook'")
pytest.importorskip("ipykernel", reason="needs the extra 'notebook'")

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "inference.ipynb"


def outputs(notebook, kind: str) -> list:
    return [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def texts(notebook) -> str:
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    return "".join(output.get("text", "") for cell in code for output in cell.outputs)


def players(notebook) -> int:
    return sum("<audio" in "".join(output["data"]["text/html"]) for output in outputs(notebook, "text/html"))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(quickstart: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("QUICKSTART", str(quickstart))
    paths = [str(NOTEBOOK.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))  # this checkout, whatever is installed
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": NOTEBOOK.parent}}
    ).execute()
    assert len(outputs(notebook, "image/png")) == 4
    assert players(notebook) == 3
    assert "doa_acc" in texts(notebook)


def test_it_is_committed_as_it_was_executed():
    notebook = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert len(outputs(notebook, "image/png")) == 4
    assert players(notebook) == 3
    kinds = [output.output_type for cell in notebook.cells for output in cell.get("outputs", [])]
    assert "error" not in kinds
    everything = NOTEBOOK.read_text(encoding="utf-8")
    assert "/tmp/" not in everything  # nothing of the machine that it ran on
    assert "/home/" not in everything
    assert NOTEBOOK.stat().st_size < 1_000_000
