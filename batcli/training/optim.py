"""Optimizers: AdamW and, if the recipe says so, Muon for the matrices within layers.

Muon (Jordan et al. 2024; Liu et al. 2025, Muon is Scalable for LLM Training) makes each update of a matrix
orthogonal, so that directions with small gradients move as far as those with large ones. Its updates are
scaled to AdamW's root mean square, so that both use one learning rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batcli.model.bat import BAT, Encoders
from batcli.model.checkpoint import LORA

ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # of Newton and Schulz, as in torch.optim.Muon
WITHIN_LAYERS = re.compile(r"(^|\.)layers?\.\d+\.")  # in parameter names of transformers


def unfreeze(model: BAT | Encoders, trained: Sequence[nn.Module]) -> list[dict[str, nn.Parameter]]:
    """Make the parameters of `trained` trainable (of a language model with LoRA, only LoRA), and freeze all others.

    Returns the trainable parameters of each part by name.
    """
    model.requires_grad_(False)
    adapted = model.llm if isinstance(model, BAT) and model.config.lora is not None else None
    parts = [{n: p for n, p in part.named_parameters() if part is not adapted or LORA in n} for part in trained]
    for part in parts:
        for parameter in part.values():
            parameter.requires_grad_(True)
    return parts


def parameter_groups(
    named: Mapping[str, nn.Parameter],
    part: str,
    weight_decay: float,
    lr_scale: Callable[[str], float] = lambda name: 1.0,
    decays: Callable[[str], bool] = lambda name: True,
    muon: bool = False,
) -> list[dict[str, Any]]:
    """Make the optimizer groups of one part of a model.

    Matrices for which `decays` is true have weight decay; matrices, and all else, are clipped together
    (`clip_with`). `lr_scale`: factor on the learning rate of a parameter. `muon`: mark matrices within layers for
    Muon.
    """
    groups: dict[tuple[bool, bool, bool, float], dict[str, Any]] = {}
    for name, parameter in named.items():
        matrix, scale = parameter.ndim > 1, lr_scale(name)
        decayed = matrix and decays(name)
        inner = muon and parameter.ndim == 2 and WITHIN_LAYERS.search(name) is not None
        group = {
            "params": [],
            "weight_decay": weight_decay if decayed else 0.0,
            "lr_scale": scale,
            "muon": inner,
            "clip_with": f"{part}.{'matrices' if matrix else 'vectors'}",
        }
        groups.setdefault((not matrix, not decayed, inner, -scale), group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


class Muon(torch.optim.Optimizer):
    """`torch.optim.Muon` with `match_rms_adamw`; faster, since it updates all matrices of one shape at once."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in by_shape.items():
                updates = orthogonal(torch.stack([self._nesterov(p, group["momentum"]) for p in parameters]))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-0.2 * math.sqrt(max(shape)) * group["lr"])

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        """Update the parameter's momentum buffer → its gradient with Nesterov momentum."""
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)  # type: ignore[arg-type]
        return gradient.lerp(buffer, momentum)  # type: ignore[union-attr]


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) → approximately U Vᵀ of each one's singular value decomposition, in bfloat16."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


@dataclass(frozen=True)
class OptimizerValues:
    """How a stage's parameters are updated, apart from the learning rate."""

    betas: tuple[float, float]  # of AdamW
    weight_decay: float
    clip: float | None  # largest norm of a gradient; None: any
    muon: bool = False  # for matrices within layers; AdamW for the rest


def make_optimizers(
    groups: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], fused: bool
) -> list[torch.optim.Optimizer]:
    """Make AdamW (`fused` as in torch) and, if any group is marked for it, Muon."""
    marked = [group for group in groups if group["muon"]]
    rest = [group for group in groups if not group["muon"]]
    adamw = torch.optim.AdamW(rest, lr=lr, betas=betas, fused=fused)
    return [adamw, Muon(marked, lr)] if marked else [adamw]
