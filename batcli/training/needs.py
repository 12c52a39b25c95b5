"""Estimate the memory and disk space of a training."""

from __future__ import annotations

from dataclasses import replace

import torch

from batcli.core.progress import Reporter
from batcli.model import checkpoint
from batcli.model.bat import BAT
from batcli.model.config import LlmConfig
from batcli.model.llm import empty_llm, new_llm
from batcli.training.plan import ModelPlan, TrainPlan

TRAINED_BYTES = 16  # per trained parameter, for itself, its gradient and AdamW's two moments in float32


def report_needs(plan: TrainPlan, reporter: Reporter) -> None:
    """Report the memory for weights, gradients and moments, and the disk space for cues and encodings."""
    model, known = meta_model(plan.model)
    numbers = {name: parameter.numel() for name, parameter in model.named_parameters()}
    own_llm = plan.model.config.llm is not None
    trained = sum(n for name, n in numbers.items() if own_llm or not name.startswith("llm.") or checkpoint.LORA in name)
    frozen = (sum(numbers.values()) - trained) * (0.5 if plan.model.quantize else plan.model.dtype.itemsize)
    memory = (TRAINED_BYTES * trained + (frozen if known else 0)) / 1e9
    beside = "" if known else " and the language model (name it with --llm)"
    reporter.info(f"memory: about {memory:.2f} GB for weights, gradients and moments; activations{beside} on top")
    if plan.cache.parts:
        reporter.info(
            f"disk: about {plan.cache.gigabytes:,.2f} GB for {' and '.join(plan.cache.parts)} while it trains"
        )


def meta_model(plan: ModelPlan) -> tuple[BAT, bool]:
    """Build the model on the meta device, and tell whether its language model is known; if not, it is a small one."""
    folder = plan.llm or (checkpoint.llm_folder(plan.init) if plan.init and plan.config.llm is None else None)
    with torch.device("meta"):
        if plan.config.llm is not None:
            return BAT(plan.config, new_llm(plan.config.llm)), True
        if folder is not None:
            return BAT(plan.config, empty_llm(folder)), True
        return BAT(replace(plan.config, lora=None), new_llm(LlmConfig())), False
