"""What all stages of a training share; nothing in it changes while they run."""

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
from batcli.model.bat import BAT
from batcli.training.log import Log
from batcli.training.plan import TrainPlan
from batcli.training.recipe import ENCODER
from batcli.training.scenes import Loader
from batcli.training.state import TrainPosition


@dataclass(frozen=True)
class Trainer:
    plan: TrainPlan
    accelerator: Accelerator
    model: BAT
    tokenizer: PreTrainedTokenizerBase
    llm: Path | None  # where a language model from elsewhere lies
    reporter: Reporter
    log: Log | None  # the first process's
    resumed: tuple[Path, TrainPosition] | None  # the state that training goes on from

    @property
    def device(self) -> torch.device:
        return self.accelerator.device

    @property
    def settings(self) -> RenderSettings:
        return RenderSettings(self.model.config.seconds)

    @property
    def stages(self) -> list[str]:
        """All stages in order; `encoder` is one stage for each encoder that the model has."""
        parts = {ENCODER: tuple(self.model.encoders)}
        return [part for stage in self.plan.stages for part in parts.get(stage, (stage,))]

    @property
    def batches_per_update(self) -> int:
        return self.plan.accumulate * self.accelerator.num_processes

    def is_past(self, stage: str) -> bool:
        """Whether the run was resumed in a later stage."""
        return self.resumed is not None and self.stages.index(stage) < self.stages.index(self.resumed[1].stage)

    def shares(self, start: int, total: int, batch: int) -> Iterator[list[range]]:
        """For each update from `start` to `total`: the stretches of the sample order that this process takes.

        Which process takes which batch changes nothing but the order of a sum.
        """
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        for update in range(start, total):
            first = update * self.batches_per_update + rank
            numbers = itertools.islice(itertools.count(first, processes), self.plan.accumulate)
            yield [range(number * batch, (number + 1) * batch) for number in numbers]

    def load(self, items: TorchDataset, **how: Any) -> Loader:
        """A loader whose workers render ahead; it draws from no random state that training uses."""
        generator = torch.Generator().manual_seed(0)
        return Loader(items, num_workers=self.plan.workers, generator=generator, **how)

    def write_config(self) -> None:
        """`config.toml`, by the first process."""
        if self.accelerator.is_main_process:
            tables = self.plan.tables(self.accelerator.num_processes)
            checkpoint.write_config(self.plan.output, self.model.config, tables, self.llm)

    def save_encoder(self) -> None:
        """The encoder's weights, by the first process; all wait for it."""
        if self.accelerator.is_main_process:
            checkpoint.save_encoder(self.plan.output, self.model.state_dict())
        self.accelerator.wait_for_everyone()
