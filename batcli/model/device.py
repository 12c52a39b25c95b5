"""The device that this process computes on, and its arithmetic."""

from __future__ import annotations

import torch

from batcli.core.errors import InputError
from batcli.core.parallel import local_rank


def own_device(name: str) -> torch.device:
    """Resolve `auto`, `cpu`, `cuda` or `mps`. Of several GPUs, each process of a launcher gets one.

    Raises InputError if there is no such device.
    """
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise InputError(f"torch finds no {name} here", "--device", "auto takes what there is")
    if name == "cuda":
        # The remainder, as accelerate does: some launchers show each process its own GPU alone.
        return torch.device("cuda", local_rank() % max(1, torch.cuda.device_count()))
    return torch.device(name)


def set_arithmetic(device: torch.device, precision: str) -> str:
    """Choose how a GPU multiplies float32 matrices; returns a line that says so, for the log.

    With bf16, what stays float32 (encoders, Q-Former in decoding) is multiplied in TF32: 10 bits after the point,
    where bfloat16 has 7. With fp32, all 23 bits count, in convolutions, too, which torch computes in TF32 unless told.
    """
    if device.type != "cuda":
        return f"computing on {device.type}, {precision}"
    exact = precision == "fp32"
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact
    products = "float32 products in full" if exact else "float32 products in TF32"
    return f"computing on {torch.cuda.get_device_name(device)}, {precision}, {products}"
