"""Build the model to train, from a preset or from a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from batcli.core.errors import InputError
from batcli.model import checkpoint
from batcli.model.bat import BAT, Encoders
from batcli.model.llm import attention_window, load_llm, load_tokenizer, new_llm
from batcli.model.published import read_audiomae
from batcli.model.tokens import name_ids, to_ids, train_tokenizer
from batcli.training.plan import TrainPlan
from batcli.training.recipe import STAGES


def llm_of(plan: TrainPlan) -> Path | None:
    """The directory of the language model, if it is one from elsewhere and the run will have one."""
    spec = plan.model
    if spec.config.llm is not None or plan.encoders_alone:
        return None
    return spec.llm or (checkpoint.llm_folder(spec.init) if spec.init else None)


def build_encoders(plan: TrainPlan) -> Encoders:
    """Build the encoders alone. Raises InputError if the initial run does not fit the plan."""
    spec = plan.model
    encoders = Encoders(spec.config)
    _start_encoders(plan, encoders)
    _start_blocks(plan, encoders)
    if spec.gradient_checkpointing:
        encoders.save_memory()
    return encoders


def build_model(plan: TrainPlan, read_llm: bool = True) -> tuple[BAT, PreTrainedTokenizerBase]:
    """Build the whole model and its tokenizer.

    `read_llm`: whether this process reads the language model's weights, as in `load_llm`.
    Raises InputError if the initial run or the language model does not fit the plan.
    """
    spec = plan.model
    if spec.init is None or not spec.init_has_all:
        model, tokenizer = _from_preset(plan, read_llm)
        _start_encoders(plan, model)
    else:
        model, tokenizer = _from_run(plan, spec.init, read_llm)
    _start_blocks(plan, model)
    _require_window(plan, model, tokenizer)
    if spec.gradient_checkpointing:
        model.save_memory()
    return model, tokenizer


def _start_encoders(plan: TrainPlan, model: BAT | Encoders) -> None:
    """Give a model the encoders of the initial run, if there is one; it may have more of its own."""
    init = plan.model.init
    if init is not None:
        with torch.device("meta"):
            recorded = Encoders(checkpoint.read_config(init))
        model.load_state_dict(checkpoint.read_encoder(init, recorded), strict=False)


def _start_blocks(plan: TrainPlan, model: BAT | Encoders) -> None:
    """Start the published encoder's blocks and patch embedding from AudioMAE's, if the plan names a checkpoint."""
    name = plan.model.config.published_encoder
    if plan.model.encoder_init is not None and name is not None:
        encoder: Any = model.encoders[name]
        encoder.load_state_dict(read_audiomae(plan.model.encoder_init, encoder), strict=False)


def _require_window(plan: TrainPlan, model: BAT, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise InputError if a question with its answer is longer than the language model attends."""
    families = {family for stage in plan.stages for family in STAGES.get(stage, "")}
    if attention_window(model.language) is None or not families:
        return
    questions = [q for q in plan.dataset.questions(plan.split) if q.family in families]
    ids = to_ids(tokenizer, [q.question for q in questions], [q.answer for q in questions])
    tokens = sum(max(map(len, part), default=0) for part in ids) + 1  # with the end token
    where = f"the longest question and answer of {plan.dataset.questions_file(plan.split)}"
    model.require_window(tokens, where, "train on shorter ones, or with another language model")


def _from_run(plan: TrainPlan, init: Path, read_llm: bool) -> tuple[BAT, PreTrainedTokenizerBase]:
    spec = plan.model
    model, tokenizer, _ = checkpoint.load_run(
        init, "cpu", spec.dtype, spec.quantize, spec.attention, spec.llm, read_llm
    )
    if tokenizer is None:
        raise InputError("has no tokenizer", init, "its language model's directory had none")
    if model.config.sources is None and spec.config.sources is not None:
        model.add_sources(spec.config.sources)
        set_names(plan, model, tokenizer)
    return model, tokenizer


def _from_preset(plan: TrainPlan, read_llm: bool) -> tuple[BAT, PreTrainedTokenizerBase]:
    """Random weights, but for a language model from a directory, which gets LoRA."""
    spec, config = plan.model, plan.model.config
    llm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    if config.llm is not None:
        questions = plan.dataset.questions(plan.split)
        texts = (text for q in questions for text in (q.question, " " + q.answer, q.answer))
        tokenizer = train_tokenizer(texts, config.llm.vocabulary)
        llm = new_llm(config.llm, tokenizer, spec.attention)
    elif spec.llm is not None and config.lora is not None:
        llm = load_llm(spec.llm, spec.dtype, quantize=spec.quantize, attention=spec.attention, read=read_llm)
        tokenizer = load_tokenizer(spec.llm)
    else:
        raise InputError("missing", "--llm", f"{spec.preset} needs a language model's directory")
    model = BAT(config, llm)
    if model.sources is not None:
        set_names(plan, model, tokenizer)
    return model, tokenizer


def set_names(plan: TrainPlan, model: BAT, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tell the projector the names of the events that source tokens name, as they stand in questions."""
    model.projector.names.set([name_ids(tokenizer, label.name.lower()) for label in plan.dataset.labels])
