"""Training states: all that a killed run needs to go on as if nothing had happened.

`RUN/state/step-N/` holds the trained weights (safetensors), the optimizer and `state.json`. No random
state: what is random in a batch follows from its number. It is written under a temporary name and
renamed when whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
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

FOLDER = "state"
# Whole tensors on the CPU whatever the sharding, and of the model only what is trained.
SAVING = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
LOADING = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)


@dataclass(frozen=True)
class TrainPosition:
    """How far a run is: `update` of `stage` is done, and the log holds `log_bytes`."""

    stage: str
    update: int
    step: int  # updates of all stages: the N of `step-N`
    log_bytes: int


Optimizers = Sequence[torch.optim.Optimizer]


def save(
    run: Path, accelerator: Accelerator, module: nn.Module, optimizers: Optimizers, place: TrainPosition, keep: int
) -> None:
    """Write `state/step-N`, then delete all but the newest `keep`. All processes call it together."""
    final = run / FOLDER / f"step-{place.step}"
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
        write_json(temporary / "state.json", asdict(place))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        for old in _states(run)[:-keep]:
            shutil.rmtree(old)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that FSDP has spread over the processes, put together; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def weights(accelerator: Accelerator, objective: nn.Module) -> dict[str, torch.Tensor]:
    """All tensors of `objective.model`, whole, for the first process; all processes call it together."""
    if not sharded(accelerator):
        return objective.model.state_dict()  # type: ignore[union-attr]
    found: dict[str, Any] = get_model_state_dict(
        objective, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )
    return {name.removeprefix("model."): tensor for name, tensor in found.items()}


def sharded(accelerator: Accelerator) -> bool:
    return accelerator.distributed_type == DistributedType.FSDP


def _states(run: Path) -> list[Path]:
    """Whole states, oldest first."""
    folders = [path for path in (run / FOLDER).glob("step-*") if path.name[5:].isdecimal()]
    return sorted(folders, key=lambda path: int(path.name[5:]))


def newest(run: Path) -> tuple[Path, TrainPosition] | None:
    """The last whole state of a run, or None."""
    states = _states(run)
    if not states:
        return None
    content = read_json(states[-1] / "state.json")
    try:
        place = TrainPosition(**content)
    except TypeError:
        place = None
    numbers = (place.update, place.step, place.log_bytes) if place else ()
    if place is None or not isinstance(place.stage, str) or not all(type(n) is int and n >= 0 for n in numbers):
        raise InputError("damaged", states[-1] / "state.json", "delete this state's folder")
    return states[-1], place


def load(folder: Path, module: nn.Module, optimizers: Optimizers) -> None:
    """Put a state back into a module and optimizers that were built as they were when it was saved."""
    try:
        weights: dict[str, Any] = dict(load_file(folder / "weights.safetensors"))
        moments = torch.load(folder / "optimizer.pt", weights_only=True, map_location="cpu")
    except Exception as error:
        raise InputError(f"damaged: {type(error).__name__}: {error}", folder, "delete this state's folder") from None
    set_state_dict(module, optimizers, model_state_dict=weights, optim_state_dict=moments, options=LOADING)
