"""What a dry run says of memory and disk."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from batcli.core.files import readable
from batcli.core.progress import Silent
from batcli.data.dataset import open_dataset
from batcli.options import TrainOptions
from batcli.train import train
from batcli.training.needs import report_needs
from batcli.training.resolve import resolve


class Messages(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append(message)


def needs(demo: Path, output: Path, **changes) -> list[str]:
    """The lines of a dry run that speak of memory and disk."""
    messages = Messages()
    report_needs(resolve(TrainOptions(data=demo, output=output, **changes), open_dataset(demo)), messages)
    return messages.lines


def test_memory_and_disk_are_said(demo: Path, tmp_path: Path):
    lines = needs(demo, tmp_path / "run", set=["source_scenes=100000"])
    assert [line.partition(":")[0] for line in lines] == ["memory", "disk"]
    assert "disk: about 2.9 GB for cues, " in lines[1]
    assert " for encodings, " in lines[1]
    without = needs(demo, tmp_path / "run", cache="none")[1]
    assert "saved states" in without
    assert "cues" not in without
    assert "encodings" not in without


def test_each_stage_is_counted_by_what_it_trains(demo: Path, tmp_path: Path, run: Path):
    sizes = {name: load_numbers(run / f"{name}.safetensors") for name in ("encoder", "projector")}
    memory, disk = needs(demo, tmp_path / "run", init=run, stages="sources", keep=999)
    assert memory.startswith("memory: about ")
    assert "in stage sources, for weights" in memory
    assert "stages 1 to 3" not in memory
    assert f"{readable(12 * 1000 * sizes['encoder'])} for saved states" in disk
    memory, _ = needs(demo, tmp_path / "run", init=run, stages="1")
    assert "in stages 1 to 3" in memory
    assert "stage sources" not in memory


def load_numbers(file: Path) -> int:
    """How many numbers a file of weights holds as parameters, not as buffers."""
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    return sum(tensor.numel() for name, tensor in load_file(file).items() if not name.endswith(buffers))


def test_a_dry_run_says_what_is_kept_and_why(demo: Path, tmp_path: Path):
    messages = Messages()
    train(TrainOptions(data=demo, output=tmp_path / "run", dry_run=True, cache="none"), messages)
    assert "encodings: made at each use: --cache none" in messages.lines
    assert "cues: made at each use: --cache none" in messages.lines
