"""What all stages of a training share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedTokenizerBase

from batcli.audio.render import RenderSettings
from batcli.core.parallel import default_jobs
from batcli.core.progress import Reporter
from batcli.data.dataset import Dataset
from batcli.model.bat import BAT
from batcli.options import TrainOptions
from batcli.training.log import Log
from batcli.training.recipe import Recipe
from batcli.training.scenes import Loader
from batcli.training.state import TrainPosition


@dataclass
class Run:
    """A training under way."""

    options: TrainOptions
    recipe: Recipe
    dataset: Dataset
    stages: list[str]
    settings: RenderSettings
    accelerator: Accelerator
    model: BAT
    tokenizer: PreTrainedTokenizerBase
    reporter: Reporter
    log: Log | None  # the first process's
    resumed: tuple[Path, TrainPosition] | None
    step: int = 0  # updates of the stages that are done
    bad: int = 0  # scenes that could not be rendered

    def load(self, items, **how) -> Loader:
        """A loader whose workers render ahead; it draws from no random state that training uses."""
        workers = self.options.workers or default_jobs()
        return Loader(items, num_workers=workers, generator=torch.Generator().manual_seed(0), **how)
