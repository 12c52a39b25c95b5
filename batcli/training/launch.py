"""The processes of a training, as accelerate's launcher configures them."""

from __future__ import annotations

import os
from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from batcli.core.errors import InputError
from batcli.core.parallel import PATIENCE
from batcli.model.device import set_arithmetic
from batcli.training.sharding import sharded

CONFIGURATION = "accelerate's configuration"


def join_processes(precision: str, cpu: bool) -> Accelerator:
    """Start accelerate in this process, on a GPU where there is one, unless `cpu`.

    Raises InputError for what a configuration of accelerate says and this training would not do.
    """
    require_supported(precision, cpu)
    return Accelerator(
        mixed_precision="bf16" if precision == "bf16" else "no",
        cpu=cpu,
        # The loop weighs losses itself; the configuration's number of steps would divide them once more.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # NCCL's own ten minutes are less than the main process, or the slowest, may take to encode scenes.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=PATIENCE))],
    )


def describe_processes(accelerator: Accelerator, precision: str) -> str:
    """Set this process's arithmetic; returns a line about it and the processes, for the log."""
    count, how = accelerator.num_processes, " sharded by FSDP" if sharded(accelerator) else ""
    return set_arithmetic(accelerator.device, precision) + (f", {count} processes{how}" if count > 1 else "")


def require_supported(precision: str, cpu: bool) -> None:
    """Raise InputError for a setting of accelerate (in its environment variables) that would have no effect."""
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise InputError("DeepSpeed is not supported", CONFIGURATION, "shard with FSDP: examples/accelerate/fsdp.yaml")
    if _is_set("ACCELERATE_USE_FSDP"):
        if cpu:
            raise InputError("FSDP shards on GPUs only", CONFIGURATION, "leave out --device cpu, or FSDP")
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            raise InputError("FSDP has one process, so nothing would be sharded", CONFIGURATION, "num_processes: 2")
    if (steps := os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")) not in ("1", "auto"):
        raise InputError(f"gradient_accumulation_steps {steps}", CONFIGURATION, f"say --accumulate {steps}")
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("no", precision):
        hint = "--precision bf16" if mixed == "bf16" else "--precision knows fp32 and bf16"
        raise InputError(f"mixed_precision {mixed}, but --precision {precision}", CONFIGURATION, hint)


def _is_set(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
