"""What all stages of a training share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from batcli.audio.render import Settings
from batcli.core.dataset import Dataset
from batcli.core.options import TrainOptions
from batcli.core.progress import Reporter
from batcli.core.work import default_jobs
from batcli.model.bat import BAT
from batcli.model.data import Loader
from batcli.model.log import Log
from batcli.model.recipes import Recipe
from batcli.model.state import Place


@dataclass
class Run:
    """A training under way."""

    options: TrainOptions
    recipe: Recipe
    dataset: Dataset
    stages: list[str]
    settings: Settings
    accelerator: Accelerator
    model: BAT
    tokenizer: PreTrainedTokenizerBase
    reporter: Reporter
    log: Log | None  # the first process's
    resumed: tuple[Path, Place] | None
    step: int = 0  # updates of the stages that are done
    bad: int = 0  # scenes that could not be rendered

    def load(self, items, **how) -> Loader:
        """A loader whose workers render ahead; it draws from no random state that training uses."""
        workers = self.options.workers or default_jobs()
        return Loader(items, num_workers=workers, generator=torch.Generator().manual_seed(0), **how)
