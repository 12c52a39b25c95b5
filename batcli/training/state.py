"""Training states: save and load what a resumed run needs to end with the same weights.

`RUN/state/step-N/` holds the trained weights (safetensors), the optimizers' state and `state.json`; it gets its
name when it is complete. There is no random state, since the seed of a batch follows from its number.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor

from batcli.core.errors import InputError
from batcli.core.files import TEMPORARY, read_json, write_json
from batcli.model.checkpoint import disk_errors
from batcli.training.sharding import sharded

FOLDER = "state"
# Tensors on the CPU, unsharded, and of trained parameters only.
SAVING = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
LOADING = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


@dataclass(frozen=True)
class TrainPosition:
    """Progress of a run."""

    stage: str
    update: int  # updates done of this stage
    step: int  # updates done of all stages, the N of `step-N`
    log_bytes: int  # size of the log


class SavedState(NamedTuple):
    """A complete state on disk."""

    folder: Path
    position: TrainPosition


Optimizers = Sequence[torch.optim.Optimizer]


def save(
    run: Path, accelerator: Accelerator, module: nn.Module, optimizers: Optimizers, position: TrainPosition, keep: int
) -> None:
    """Write `state/step-N`, then delete all but the newest `keep`. All processes must call it."""
    final = run / FOLDER / f"step-{position.step}"
    temporary = final.with_name(TEMPORARY + final.name)
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    weights, moments = get_state_dict(module, optimizers, options=SAVING)
    if accelerator.is_main_process:
        tensors = {name: value.contiguous() for name, value in weights.items() if isinstance(value, torch.Tensor)}
        with disk_errors(final):
            save_file(tensors, temporary / "weights.safetensors")
            torch.save(moments, temporary / "optimizer.pt")
        write_json(temporary / "state.json", asdict(position))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for old in _states(run)[:-keep]:
            shutil.rmtree(old)


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """Gather a tensor that FSDP has sharded; return any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights(accelerator: Accelerator, objective: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors of `objective.model` in the main process. All processes must call it.

    Of a sharded model, trained weights are gathered, and frozen ones of the language model are left out: they are not
    saved, and need not fit into one process.
    """
    model: Any = objective.model
    if not sharded(accelerator):
        return model.state_dict()
    trained = get_model_state_dict(objective, options=SAVING)
    whole = {name: tensor for name, tensor in model.state_dict().items() if not isinstance(tensor, DTensor)}
    return {**whole, **{name.removeprefix("model."): tensor for name, tensor in trained.items()}}


def _states(run: Path) -> list[Path]:
    """Folders of complete states, oldest first."""
    folders = [path for path in (run / FOLDER).glob("step-*") if path.name[5:].isdecimal()]
    return sorted(folders, key=lambda path: int(path.name[5:]))


def newest(run: Path) -> SavedState | None:
    """Find the last state of a run. Raises InputError if its `state.json` is damaged."""
    states = _states(run)
    if not states:
        return None
    file = states[-1] / "state.json"
    damaged = InputError("damaged", file, "delete this state's folder")
    try:
        position = TrainPosition(**read_json(file))
    except TypeError:
        raise damaged from None
    numbers = (position.update, position.step, position.log_bytes)
    if not isinstance(position.stage, str) or not all(type(n) is int and n >= 0 for n in numbers):
        raise damaged
    return SavedState(states[-1], position)


def load(folder: Path, module: nn.Module, optimizers: Optimizers) -> None:
    """Load a state into a module and optimizers that were built as when it was saved."""
    try:
        weights: dict[str, Any] = dict(load_file(folder / "weights.safetensors"))
        moments = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(f"damaged: {type(error).__name__}: {error}", folder, "delete this state's folder") from None
    set_state_dict(module, optimizers, model_state_dict=weights, optim_state_dict=moments, options=LOADING)
