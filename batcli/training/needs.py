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
from batcli.training.recipe import STAGES

TRAINED_BYTES = 16  # per trained parameter, for itself, its gradient and AdamW's two moments in float32
STATE_BYTES = 12  # per trained parameter, on disk: itself and its moments
FROZEN_BYTES = 4  # per frozen parameter, but for those of a language model from elsewhere


def report_needs(plan: TrainPlan, reporter: Reporter) -> None:
    """Report the memory for weights, gradients and moments, and the disk space for what is kept while it trains."""
    model, known = meta_model(plan.model)
    needed = {f"stage {name}": encoder_bytes(plan, model, name) for name in plan.trained_encoders}
    trained = [parameters_of(model, f"{name}.") for name in plan.trained_encoders]
    asks = not set(plan.stages).isdisjoint(STAGES)
    if asks:
        needed["stages 1 to 3"] = question_bytes(plan, model, known)
        trained.append(trained_on_questions(model))
    amounts = ", ".join(f"about {readable(size)} in {stages}" for stages, size in needed.items())
    beside = " and the language model (name it with --llm)" if asks and not known else ""
    reporter.info(f"memory: {amounts}, for weights, gradients and moments; activations{beside} on top")
    kept = {name: part.gigabytes * 1e9 for name, part in plan.cache.parts.items() if part.on_disk}
    kept["saved states"] = (plan.keep + 1) * max(trained) * STATE_BYTES  # one more while it is written
    reporter.info("disk: about " + ", ".join(f"{readable(size)} for {name}" for name, size in kept.items()))


def parameters_of(model: BAT, *parts: str) -> int:
    """Number of the parameters whose names begin so."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if name.startswith(parts))


def trained_on_questions(model: BAT) -> int:
    """Number of the parameters that stages 1 to 3 train."""
    own = ("llm.",) if model.config.llm is not None else ()
    lora = sum(p.numel() for name, p in model.named_parameters() if checkpoint.LORA in name)
    return parameters_of(model, *checkpoint.PROJECTOR_PARTS, *own) + lora


def encoder_bytes(plan: TrainPlan, model: BAT, name: str) -> float:
    """Memory of the encoders while one of them is trained, and of the rest of the model if it is there by then."""
    trained, encoders = parameters_of(model, f"{name}."), parameters_of(model, *checkpoint.ENCODER_PARTS)
    rest = 0 if plan.encoders_first else parameters_of(model, "") - encoders
    return TRAINED_BYTES * trained + FROZEN_BYTES * (encoders - trained + rest)


def question_bytes(plan: TrainPlan, model: BAT, known: bool) -> float:
    """Memory of the whole model in stages 1 to 3. `known`: whether its language model is the one that is trained."""
    trained, encoders = trained_on_questions(model), parameters_of(model, *checkpoint.ENCODER_PARTS)
    frozen = parameters_of(model, "") - trained - encoders
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
