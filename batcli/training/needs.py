"""Estimate the memory and disk space of a training."""

from __future__ import annotations

from dataclasses import replace

import torch

from batcli.core.progress import Reporter
from batcli.data.constants import SAMPLE_RATE
from batcli.model import checkpoint
from batcli.model.bat import BAT
from batcli.model.config import LlmConfig
from batcli.model.encoders.sources import SourceTokens
from batcli.model.features import spectrum
from batcli.model.llm import empty_llm, new_llm
from batcli.training.plan import ModelPlan, TrainPlan
from batcli.training.recipe import ENCODER, STAGES

TRAINED_BYTES = 16  # per trained parameter, for itself, its gradient and AdamW's two moments in float32


def report_needs(plan: TrainPlan, reporter: Reporter) -> None:
    """Report the memory for weights, gradients and moments, and the disk space for cues and encodings of all scenes."""
    model, known = meta_model(plan.model)
    numbers = {name: parameter.numel() for name, parameter in model.named_parameters()}
    own_llm = plan.model.config.llm is not None
    trained = sum(n for name, n in numbers.items() if own_llm or not name.startswith("llm.") or checkpoint.LORA in name)
    frozen = (sum(numbers.values()) - trained) * (0.5 if plan.model.quantize else plan.model.dtype.itemsize)
    memory = (TRAINED_BYTES * trained + (frozen if known else 0)) / 1e9
    beside = "" if known else " and the language model (name it with --llm)"
    reporter.info(f"memory: about {memory:.2f} GB for weights, gradients and moments; activations{beside} on top")
    if ENCODER in plan.stages and model.sources is not None:
        _report_disk(plan, reporter, "cues", cue_bytes(model.sources), plan.recipe.source_scenes)
    families = "".join(STAGES[stage] for stage in plan.stages if stage in STAGES)
    if families:
        scenes = len({q.scene for q in plan.dataset.questions(plan.split) if q.family in families})
        _report_disk(plan, reporter, "encodings", model.encoding_bytes // 2, scenes)  # kept in 16 bits


def _report_disk(plan: TrainPlan, reporter: Reporter, what: str, each: int, scenes: int) -> None:
    disk = each * scenes / 1e9
    limit = "" if disk <= plan.cache_gb else f", more than --cache-gb {plan.cache_gb:g} allows"
    reporter.info(f"disk: about {disk:.2f} GB for the {what} of {scenes:,} scenes{limit}")


def cue_bytes(sources: SourceTokens) -> int:
    """Disk space of the cues of one scene, in 16 bits: what the stage `sources` keeps while it trains."""
    with torch.device("meta"):
        scene = torch.empty(1, 2, round(sources.config.seconds * SAMPLE_RATE))
        return 2 * sources.cues(spectrum(scene)).numel()


def meta_model(plan: ModelPlan) -> tuple[BAT, bool]:
    """Build the model on the meta device, and tell whether its language model is known; if not, it is a small one."""
    folder = plan.llm or (checkpoint.llm_folder(plan.init) if plan.init and plan.config.llm is None else None)
    with torch.device("meta"):
        if plan.config.llm is not None:
            return BAT(plan.config, new_llm(plan.config.llm)), True
        if folder is not None:
            return BAT(plan.config, empty_llm(folder)), True
        return BAT(replace(plan.config, lora=None), new_llm(LlmConfig())), False
