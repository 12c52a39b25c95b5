"""Sharding by FSDP: each process keeps a part of every weight of the projector and the language model.

The language model's weights are read once, by the first process. In the others it is on the meta device, without
memory, until accelerate shards it and sends each process its part (`fsdp_cpu_ram_efficient_loading`, accelerate's
default). Encoders are small and frozen then: each process has them whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)  # a BAT or its encoders alone


def sharded(accelerator: Accelerator) -> bool:
    """Whether FSDP shards the model."""
    return accelerator.distributed_type == DistributedType.FSDP


def reads_weights(accelerator: Accelerator) -> bool:
    """Whether this process reads the language model's weights, and does not get its part from the first one."""
    plugin = accelerator.state.fsdp_plugin if sharded(accelerator) else None
    return accelerator.is_main_process or plugin is None or not plugin.cpu_ram_efficient_loading


def place(model: Model, accelerator: Accelerator) -> Model:
    """Move the model to this process's device; if it will be sharded, only what every process has whole."""
    if not sharded(accelerator):
        return model.to(accelerator.device)
    encoders: Any = model.encoders
    for part in encoders.values():
        part.to(accelerator.device)
    for module in model.modules():  # LoRA beside weights that only the first process has read
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.requires_grad and parameter.is_meta:
                setattr(module, name, nn.Parameter(torch.zeros_like(parameter, device="cpu")))
    return model


def prepare(accelerator: Accelerator, objective: nn.Module, optimizers: list[Any]) -> list[Any]:
    """`accelerator.prepare`: [objective, *optimizers] for this process; shards the objective if FSDP does."""
    if not sharded(accelerator):
        return list(accelerator.prepare(objective, *optimizers))
    with _without_encoders(objective), _without_buffers(objective, accelerator.device):
        return list(accelerator.prepare(objective, *optimizers))


@contextmanager
def _without_encoders(objective: nn.Module) -> Iterator[None]:
    """Inside, the model has no encoders: FSDP shards whatever it finds, and they are used outside of its steps."""
    model: Any = objective.model
    encoders = dict(model.encoders)
    for name in encoders:
        setattr(model, name, None)
    try:
        yield
    finally:
        for name, encoder in encoders.items():
            setattr(model, name, encoder)


@contextmanager
def _without_buffers(objective: nn.Module, device: torch.device) -> Iterator[None]:
    """Inside, no module has buffers: accelerate takes each one of a state dict for a sharded weight. Then they are on
    `device`."""
    buffers: list[tuple[nn.Module, str, Tensor]] = [
        (module, name, buffer) for module in objective.modules() for name, buffer in module.named_buffers(recurse=False)
    ]
    for module, name, _ in buffers:
        module._buffers[name] = None
    try:
        yield
    finally:
        for module, name, buffer in buffers:
            module._buffers[name] = buffer.to(device)
