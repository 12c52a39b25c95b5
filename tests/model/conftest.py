"""Small models with random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from batcli.model.bat import BAT
from batcli.model.config import EncoderConfig, LlmConfig, LoraConfig, ModelConfig, QFormerConfig, SourcesConfig
from batcli.model.llm import load_llm, new_llm

ENCODER = EncoderConfig(seconds=0.3, n_classes=5, dim=16, depth=2, heads=2)
QFORMER = QFormerConfig(layers=2, queries=3, dim=16, heads=2)
SOURCES = SourcesConfig(tokens=2, bands=16, hidden=8, event_dim=4, seconds=0.3, n_classes=5)


@pytest.fixture(
    params=[
        "from nothing",
        "source tokens beside",
        "reading the question",
        "sources alone",
        "with LoRA",
        "sources added",
    ]
)
def bat(request, tokenizer, llm_folder):
    """A BAT in evaluation mode, with weights large enough that its answers depend on the audio."""
    torch.manual_seed(0)
    if request.param not in ("with LoRA", "sources added"):
        sources = None if request.param == "from nothing" else SOURCES
        qformer = replace(QFORMER, reads_question=request.param in ("reading the question", "sources alone"))
        encoder = None if request.param == "sources alone" else ENCODER
        config = ModelConfig(encoder, qformer, None, LlmConfig(24, 32, 2, 4), sources)
        model = BAT(config, new_llm(config.llm, tokenizer))
        if sources:
            model.projector.names.set([[30], [41, 42], [50], [60, 61, 62], [31]])
    else:
        model = BAT(ModelConfig(ENCODER, QFORMER, LoraConfig(r=4)), load_llm(llm_folder))
        if request.param == "sources added":
            model.add_sources(replace(SOURCES, tokens=4, grouped=True))
            model.projector.names.set([[30], [41, 42], [50], [60, 61, 62], [31]])
            nn.init.ones_(model.projector.mentions.map[1].weight)
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
