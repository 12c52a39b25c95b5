"""Optimizers: AdamW, and Muon for the matrices within a stack of layers where a recipe asks for it.

Muon (Jordan et al. 2024; Liu et al. 2025, Muon is Scalable for LLM Training) makes each update of a matrix
orthogonal, so that directions with small gradients move as far as those with large ones. Updates have
AdamW's root mean square, so both use one learning rate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from batcli.model.bat import BAT
from batcli.model.checkpoint import LORA

ITERATIONS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # of Newton and Schulz, as in torch.optim.Muon
WITHIN_LAYERS = re.compile(r"(^|\.)layers?\.\d+\.")  # as transformers names them


def unfreeze(model: BAT, trained: Sequence[nn.Module]) -> list[dict[str, nn.Parameter]]:
    """Let the parameters of `trained` learn, and no others: of a language model with LoRA, only that.

    Returns them by name, for each part.
    """
    model.requires_grad_(False)
    adapted = model.llm if model.config.lora is not None else None
    parts = [{n: p for n, p in part.named_parameters() if part is not adapted or LORA in n} for part in trained]
    for part in parts:
        for parameter in part.values():
            parameter.requires_grad_(True)
    return parts


def parameter_groups(
    named: Mapping[str, nn.Parameter],
    part: str,
    weight_decay: float,
    rate_of: Callable[[str], float] | None = None,
    muon: bool = False,
) -> list[dict[str, Any]]:
    """The optimizer's groups of one part of a model, all clipped together but for matrices and the rest.

    Matrices alone have weight decay, as is customary. `rate_of`: a parameter's share of the learning rate.
    `muon`: matrices within a stack of layers are marked for Muon.
    """
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for name, parameter in named.items():
        matrix, rate = parameter.ndim > 1, rate_of(name) if rate_of else 1.0
        inner = muon and parameter.ndim == 2 and WITHIN_LAYERS.search(name) is not None
        group = {
            "params": [],
            "weight_decay": weight_decay if matrix else 0.0,
            "lr_scale": rate,
            "muon": inner,
            "clip_with": f"{part}.{'matrices' if matrix else 'vectors'}",
        }
        groups.setdefault((not matrix, inner, -rate), group)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


class Muon(torch.optim.Optimizer):
    """torch.optim.Muon with `match_rms_adamw`, all matrices of one shape at once."""

    def __init__(self, groups: Sequence[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                updates = orthogonal(torch.stack([self._nesterov(p, group["momentum"]) for p in parameters]))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update, alpha=-0.2 * math.sqrt(max(shape)) * group["lr"])

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state, gradient = self.state[parameter], parameter.grad
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)  # type: ignore[arg-type]
        return gradient.lerp(buffer, momentum)  # type: ignore[union-attr]


def orthogonal(matrices: Tensor) -> Tensor:
    """(N, rows, columns) → bfloat16, of each about U Vᵀ of its singular value decomposition."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def optimizers_of(
    groups: Sequence[dict[str, Any]], lr: float, betas: tuple[float, float], fused: bool
) -> list[torch.optim.Optimizer]:
    """One for each kind of group in `groups`; `fused`: AdamW in one pass over weights and moments."""
    marked = [group for group in groups if group["muon"]]
    rest = [group for group in groups if not group["muon"]]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=lr, betas=betas, fused=fused)]
    if marked:
        found.append(Muon(marked, lr))
    return found
