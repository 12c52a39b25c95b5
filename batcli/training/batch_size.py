"""Find the largest batch that fits into memory."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

LARGEST = 256  # a larger batch would leave too few updates per epoch
CPU_SHARE = 0.5  # of the free memory; the rest is for the loader's processes and the page cache
GPU_SHARE = 0.9
MOMENTS = 2  # numbers that AdamW keeps per parameter


def largest_batch(objective: nn.Module, inputs: Callable[[int], tuple], device: torch.device) -> int:
    """The largest power of two, up to LARGEST, of samples whose update fits into memory.

    `inputs(n)`: arguments of `objective` for n times the longest sample. On a GPU, batches are tried. On a CPU,
    where too large a batch would kill the process, their memory is extrapolated from one and two samples.
    Clears gradients. Raises torch.OutOfMemoryError if not even one sample fits.
    """
    trained = sum(p.numel() * p.element_size() for p in objective.parameters() if p.requires_grad)
    try:
        if device.type == "cuda":
            return _largest_on_gpu(objective, inputs, device, trained)
        one, two = (_activation_bytes(objective, inputs(n)) for n in (1, 2))
        each, fixed = max(two - one, 1), max(2 * one - two, 0)
        available = CPU_SHARE * free_memory() - (1 + MOMENTS) * trained - fixed
        return max(1, min(LARGEST, 1 << max(0, int(available / each).bit_length() - 1)))
    finally:
        objective.zero_grad(set_to_none=True)
        gc.collect()


def _largest_on_gpu(objective: nn.Module, inputs: Callable[[int], tuple], device: torch.device, trained: int) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    before = torch.cuda.memory_allocated(device)
    largest, size = 0, 1
    while size <= LARGEST:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        try:
            sum(objective(*inputs(size)).values()).backward()
        except torch.OutOfMemoryError:
            if not largest:
                raise
            break
        if torch.cuda.max_memory_allocated(device) - before + MOMENTS * trained > GPU_SHARE * free:
            break
        largest, size = size, 2 * size
        objective.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    return max(largest, 1)


def _activation_bytes(objective: nn.Module, inputs: tuple) -> int:
    """Bytes that a forward pass keeps for the backward pass, without parameters."""
    sizes: dict[int, int] = {}  # of each piece of memory by its address
    parameters = {p.untyped_storage().data_ptr() for p in objective.parameters()}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        losses = objective(*inputs)
    del losses
    return sum(sizes.values())


def free_memory() -> int:
    """Bytes of memory available on the machine, or to its container if that is less."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and limit.read_text().strip().isdigit():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return free
