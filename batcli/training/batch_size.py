"""How many samples fit into memory at once: found by trying the longest."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

LARGEST = 256  # a larger batch makes fewer updates of an epoch than learning needs
CPU_SHARE = 0.5  # of the memory that is free: the loader's processes and the system's cache need some
GPU_SHARE = 0.9
MOMENTS = 2  # numbers of AdamW for each parameter, beside its gradient


def largest_batch(objective: nn.Module, inputs: Callable[[int], tuple], device: torch.device) -> int:
    """The largest power of two, up to 256, of samples whose update fits; `inputs(n)`: n times the longest sample.

    On a GPU by doing it. On a CPU, where too much ends not in an error but in the process's end, from
    what one and two samples keep for the gradient. Gradients are cleared after.
    Raises torch.OutOfMemoryError when not even one sample fits.
    """
    trained = sum(p.numel() * p.element_size() for p in objective.parameters() if p.requires_grad)
    try:
        if device.type == "cuda":
            return _tried(objective, inputs, device, trained)
        one, two = (_kept(objective, inputs(n)) for n in (1, 2))
        each, fixed = max(two - one, 1), max(2 * one - two, 0)
        room = CPU_SHARE * free_memory() - (1 + MOMENTS) * trained - fixed
        return max(1, min(LARGEST, 1 << max(0, int(room / each).bit_length() - 1)))
    finally:
        objective.zero_grad(set_to_none=True)
        gc.collect()


def _tried(objective: nn.Module, inputs: Callable[[int], tuple], device: torch.device, trained: int) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    before = torch.cuda.memory_allocated(device)
    found, size = 0, 1
    while size <= LARGEST:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            sum(objective(*inputs(size)).values()).backward()
        except torch.OutOfMemoryError:
            if not found:
                raise
            break
        if torch.cuda.max_memory_allocated(device) - before + MOMENTS * trained > GPU_SHARE * free:
            break
        found, size = size, 2 * size
        objective.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return max(found, 1)


def _kept(objective: nn.Module, inputs: tuple) -> int:
    """Bytes that a forward pass keeps for the gradient, each piece of memory once, parameters aside."""
    seen: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in objective.parameters()}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        losses = objective(*inputs)
    del losses
    return sum(seen.values())


def free_memory() -> int:
    """Bytes that this process may still take: the machine's, or what its container has left."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
