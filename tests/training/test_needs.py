"""What a dry run says of memory and disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from batcli.core.progress import Silent
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import open_dataset
from batcli.model.config import PRESETS
from batcli.model.encoders.sources import SourceTokens
from batcli.model.features import spectrum
from batcli.options import TrainOptions
from batcli.training.needs import cue_bytes, report_needs
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


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_cues_take_as_much_as_they_are_computed_to(seconds: float):
    sources = SourceTokens(replace(PRESETS["tiny"].sources, seconds=seconds)).eval()
    cues = sources.cues(spectrum(torch.randn(1, 2, round(seconds * SAMPLE_RATE))))
    assert cue_bytes(sources) == cues.half().nbytes


def test_disk_of_the_quickstart():
    """52,008 scenes took 3.00 GB, their labels aside."""
    assert 52_008 * cue_bytes(SourceTokens(PRESETS["tiny"].sources)) / 1e9 == pytest.approx(3.0, abs=0.01)


def test_what_is_more_than_allowed_is_said_before_anything_is_loaded(demo: Path, tmp_path: Path):
    lines = needs(demo, tmp_path / "run", cache_gb=0.001, set=["source_scenes=100000"])
    assert [line.partition(":")[0] for line in lines] == ["memory", "disk", "disk"]
    assert "for the cues of 100,000 scenes, more than --cache-gb 0.001 allows" in lines[1]
    assert "disk" not in needs(demo, tmp_path / "run", stages="1")[0]
    assert len(needs(demo, tmp_path / "run", stages="1")) == 2, "no cues where no encoder is trained"
