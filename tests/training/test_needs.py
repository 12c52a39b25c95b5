"""What a dry run says of memory and disk."""

from __future__ import annotations

from pathlib import Path

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
    assert "about 2.9 GB" in lines[1]
    assert lines[1].endswith("GB for cues and encodings while it trains")
    assert not any(line.startswith("disk") for line in needs(demo, tmp_path / "run", cache="none"))


def test_a_dry_run_says_what_is_kept_and_why(demo: Path, tmp_path: Path):
    messages = Messages()
    train(TrainOptions(data=demo, output=tmp_path / "run", dry_run=True, cache="none"), messages)
    assert "encodings: made at each use: --cache none" in messages.lines
    assert "cues: made at each use: --cache none" in messages.lines
