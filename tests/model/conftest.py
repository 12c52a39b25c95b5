"""Small models with random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from batcli.model.bat import BAT, load_llm, new_llm
from batcli.model.presets import EncoderConfig, LlmConfig, LoraConfig, ModelConfig, QFormerConfig, SourcesConfig
from batcli.model.prompt import train_tokenizer

ENCODER = EncoderConfig(seconds=0.3, n_classes=5, dim=16, depth=2, heads=2)
QFORMER = QFormerConfig(layers=2, queries=3, dim=16, heads=2)
SOURCES = SourcesConfig(tokens=2, bands=16, hidden=8, event_dim=4, seconds=0.3, n_classes=5)
TEXTS = [
    "Where does the sound of the dog come from, and how far away is it?",
    "Is the sound of rain to your left?",
    "right, behind, above; 3.5m",
    "left, front, below; 10m",
    "accelerating, revving, vroom; car; rain",
    "Yes",
    "No",
]


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS * 3, 600)


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory, tokenizer):
    """A language model directory with a tokenizer, and generation settings that BAT must not take over."""
    folder = tmp_path_factory.mktemp("llm")
    save_llama(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_llama(folder, **changes):
    torch.manual_seed(1)
    sizes = {
        "vocab_size": 600,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    llm = LlamaForCausalLM(LlamaConfig(**{**sizes, **changes}, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    with torch.no_grad():
        for parameter in llm.parameters():
            parameter.normal_(std=0.3)
    llm.generation_config.repetition_penalty = 9.0
    llm.save_pretrained(folder)


@pytest.fixture(params=["from nothing", "source tokens beside", "reading the question", "sources alone", "with LoRA"])
def bat(request, tokenizer, llm_folder):
    """A BAT in evaluation mode, with weights large enough that its answers depend on what it hears."""
    torch.manual_seed(0)
    if request.param != "with LoRA":
        sources = None if request.param == "from nothing" else SOURCES
        qformer = replace(QFORMER, reads_question=request.param in ("reading the question", "sources alone"))
        encoder = None if request.param == "sources alone" else ENCODER
        config = ModelConfig(encoder, qformer, None, LlmConfig(24, 32, 2, 4), sources)
        model = BAT(config, new_llm(config.llm, tokenizer))
        if sources:
            model.projector.name_events([[30], [41, 42], [50], [60, 61, 62], [31]])
    else:
        model = BAT(ModelConfig(ENCODER, QFORMER, LoraConfig(r=4)), load_llm(llm_folder))
    with torch.no_grad():
        for name, parameter in model.llm.named_parameters():
            if "norm" not in name:
                parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def encoding(bat):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return bat.encode(0.1 * torch.randn(4, 2, ENCODER.samples, generator=generator))
