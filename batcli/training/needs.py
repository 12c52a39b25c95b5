"""Estimate the memory and disk space of a training."""

from __future__ import annotations

from dataclasses import replace

import torch

from batcli.core.files import readable
from batcli.core.progress import Reporter
from batcli.model import checkpoint
from batcli.model.bat import BAT
from batcli.model.config import LlmConfig
from batcli.model.llm import empty_llm, new_llm
from batcli.training.plan import ModelPlan, TrainPlan
from batcli.training.recipe import ENCODER

TRAINED_BYTES = 16  # per trained parameter, for itself, its gradient and AdamW's two moments in float32
FROZEN_BYTES = 4  # per frozen parameter, but for those of a language model from elsewhere


def report_needs(plan: TrainPlan, reporter: Reporter) -> None:
    """Report the memory for weights, gradients and moments, and the disk space for cues and encodings."""
    model, known = meta_model(plan.model)
    needed = {}
    if ENCODER in plan.stages:
        needed["stage encoder"] = encoder_bytes(plan, model)
    if not plan.encoders_alone:
        needed["stages 1 to 3"] = question_bytes(plan, model, known)
    amounts = ", ".join(f"about {readable(size)} in {stages}" for stages, size in needed.items())
    beside = "" if known or plan.encoders_alone else " and the language model (name it with --llm)"
    reporter.info(f"memory: {amounts}, for weights, gradients and moments; activations{beside} on top")
    if plan.cache.gigabytes:
        reporter.info(
            f"disk: about {readable(plan.cache.gigabytes * 1e9)} for {' and '.join(plan.cache.parts)} while it trains"
        )


def encoder_bytes(plan: TrainPlan, model: BAT) -> float:
    """Memory of the encoders while they are trained, and of the rest of the model if it is there by then."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    encoders = sum(size for name, size in sizes.items() if name.startswith(checkpoint.ENCODER_PARTS))
    rest = sum(sizes.values()) - encoders
    return TRAINED_BYTES * encoders + (0 if plan.encoders_first else FROZEN_BYTES * rest)


def question_bytes(plan: TrainPlan, model: BAT, known: bool) -> float:
    """Memory of the whole model in stages 1 to 3. `known`: whether its language model is the one that is trained."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    encoders = sum(size for name, size in sizes.items() if name.startswith(checkpoint.ENCODER_PARTS))
    own = plan.model.config.llm is not None
    trained = sum(
        size
        for name, size in sizes.items()
        if name.startswith(checkpoint.PROJECTOR_PARTS) or checkpoint.LORA in name or (own and name.startswith("llm."))
    )
    frozen = sum(sizes.values()) - trained - encoders
    each = 0.5 if plan.model.quantize else plan.model.dtype.itemsize
    return TRAINED_BYTES * trained + FROZEN_BYTES * encoders + (frozen * each if known else 0)


def meta_model(plan: ModelPlan) -> tuple[BAT, bool]:
    """Build the model on the meta device, and tell whether its language model is known; if not, it is a small one."""
    recorded = plan.init is not None and plan.init_has_all and plan.config.llm is None
    folder = plan.llm or (checkpoint.llm_folder(plan.init) if plan.init is not None and recorded else None)
    with torch.device("meta"):
        if plan.config.llm is not None:
            return BAT(plan.config, new_llm(plan.config.llm)), True
        if folder is not None:
            return BAT(plan.config, empty_llm(folder)), True
        return BAT(replace(plan.config, lora=None), new_llm(LlmConfig())), False
