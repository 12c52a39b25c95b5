"""The model to train: from a preset's sizes, or from a run directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from batcli.core.errors import InputError
from batcli.model import checkpoint
from batcli.model.bat import BAT
from batcli.model.config import ModelConfig
from batcli.model.llm import load_llm, load_tokenizer, lora_targets, new_llm
from batcli.model.published import read_audiomae
from batcli.model.tokens import name_ids, train_tokenizer
from batcli.training.plan import TrainPlan

Built = tuple[BAT, PreTrainedTokenizerBase, Path | None]
"""Model, tokenizer, and the directory of a language model from elsewhere."""


def build_model(plan: TrainPlan) -> Built:
    """Raises InputError when the initial run or the language model does not fit."""
    built = _from_preset(plan) if plan.model.init is None else _from_run(plan, plan.model.init)
    model = built[0]
    if plan.model.encoder_init is not None and model.encoder is not None:
        model.encoder.load_state_dict(read_audiomae(plan.model.encoder_init, model.encoder), strict=False)
    if plan.model.gradient_checkpointing:
        model.save_memory()
    return built


def _from_run(plan: TrainPlan, init: Path) -> Built:
    how = plan.model
    model, tokenizer, config = checkpoint.load_run(init, "cpu", how.dtype, how.quantize, how.attention, how.llm)
    if config.n_classes != len(plan.dataset.labels) or tokenizer is None:
        raise InputError(f"was made for {config.n_classes} classes", init, "not this dataset's")
    return model, tokenizer, None if config.llm is not None else how.llm or checkpoint.llm_folder(init)


def _from_preset(plan: TrainPlan) -> Built:
    how, dataset = plan.model, plan.dataset
    config = how.config
    model, tokenizer = _adapted(plan, config, how.llm) if how.llm and config.lora else _new(plan, config)
    if model.sources is not None:
        model.projector.name_events([name_ids(tokenizer, label.name.lower()) for label in dataset.labels])
    return model, tokenizer, None if config.llm is not None else how.llm


def _new(plan: TrainPlan, config: ModelConfig) -> tuple[BAT, PreTrainedTokenizerBase]:
    """With a language model from nothing, its tokenizer made from the training text."""
    if config.llm is None:
        raise InputError("missing", "--llm", f"{plan.model.preset} needs a language model's directory")
    questions = plan.dataset.questions(plan.split)
    texts = (text for q in questions for text in (q.question, " " + q.answer, q.answer))
    tokenizer = train_tokenizer(texts, config.llm.vocabulary)
    return BAT(config, new_llm(config.llm, tokenizer, plan.model.attention)), tokenizer


def _adapted(plan: TrainPlan, config: ModelConfig, folder: Path) -> tuple[BAT, PreTrainedTokenizerBase]:
    """With LoRA on a language model from elsewhere."""
    llm = load_llm(folder, plan.model.dtype, quantize=plan.model.quantize, attention=plan.model.attention)
    if config.lora is not None:
        config = replace(config, lora=replace(config.lora, targets=lora_targets(llm.config.model_type)))
    return BAT(config, llm), load_tokenizer(folder)
