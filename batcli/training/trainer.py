"""The immutable context that all stages of a training share."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import Dataset as TorchDataset
from transformers import PreTrainedTokenizerBase

from batcli.audio.render import RenderSettings
from batcli.core.progress import Reporter
from batcli.model import checkpoint
from batcli.model.bat import BAT, Encoders
from batcli.training.loader import Loader
from batcli.training.log import Log
from batcli.training.plan import TrainPlan
from batcli.training.state import SavedState


@dataclass(frozen=True)
class Trainer:
    """The plan of a training, its model, and the tools that stages need."""

    plan: TrainPlan
    accelerator: Accelerator
    model: BAT | Encoders  # encoders alone until a language model is needed
    tokenizer: PreTrainedTokenizerBase | None  # None as long as there is no language model
    llm: Path | None  # directory of a language model from elsewhere, loaded or not
    reporter: Reporter
    log: Log | None  # in the main process
    resumed: SavedState | None  # the saved state that training continues from

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def bat(self) -> BAT:
        """The whole model."""
        assert isinstance(self.model, BAT), "the language model is not loaded yet"
        return self.model

    @property
    def words(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the language model."""
        assert self.tokenizer is not None, "the language model is not loaded yet"
        return self.tokenizer

    @property
    def settings(self) -> RenderSettings:
        return RenderSettings(self.model.config.seconds, rendering=self.plan.rendering)

    @property
    def stages(self) -> list[str]:
        """The names of all stages, in order."""
        return list(self.plan.stage_names)

    def per_update(self, batch: int, accumulate: int) -> int:
        """Samples of an update: `accumulate` batches of `batch` in each process."""
        return batch * accumulate * self.accelerator.num_processes

    def is_past(self, stage: str) -> bool:
        """Whether the run was resumed in a stage after this one."""
        return self.resumed is not None and self.stages.index(stage) < self.stages.index(self.resumed.position.stage)

    def batch_ranges(self, start: int, total: int, batch: int, accumulate: int) -> Iterator[list[range]]:
        """For each update from `start` to `total`: positions in the order of samples of this process's batches.

        An update is of `accumulate` batches of `batch` samples in each process. Processes take batches in turn, so
        their number changes only the order in which gradients are summed.
        """
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        for update in range(start, total):
            first = update * accumulate * processes + rank
            numbers = itertools.islice(itertools.count(first, processes), accumulate)
            yield [range(number * batch, (number + 1) * batch) for number in numbers]

    def load(self, items: TorchDataset, **options: Any) -> Loader:
        """Make a loader with the plan's workers; it leaves torch's global random state alone."""
        generator = torch.Generator().manual_seed(0)
        return Loader(items, num_workers=self.plan.workers, reporter=self.reporter, generator=generator, **options)

    def write_config(self) -> None:
        """Write `config.toml` in the main process."""
        if self.accelerator.is_main_process:
            tables = self.plan.tables()
            checkpoint.write_config(self.plan.output, self.model.config, tables, self.llm)

    def save_encoder(self) -> None:
        """Write the weights of all encoders in the main process; the others wait."""
        if self.accelerator.is_main_process:
            checkpoint.save_encoder(self.plan.output, self.model.state_dict())
        self.accelerator.wait_for_everyone()
