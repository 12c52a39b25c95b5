from dataclasses import replace

import pytest

from batcli.core.errors import InputError
from batcli.core.toml import read_toml, to_toml
from batcli.model.config import PRESETS, DspastConfig, EncoderConfig, ModelConfig, SourcesConfig


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_toml(name, tmp_path):
    tables = {f"model.{part}": values for part, values in PRESETS[name].to_dict().items()}
    (tmp_path / "config.toml").write_text(to_toml(tables))
    assert ModelConfig.from_dict(read_toml(tmp_path / "config.toml")["model"]) == PRESETS[name]


def test_the_published_time_is_1024_frames():
    published = EncoderConfig()
    assert 1 + published.samples // 320 == 1001
    assert (published.frames, published.grid) == (1024, (64, 8))


@pytest.mark.parametrize("seconds", [0.05, 0.5, 1.0, 2.0, 3.7, 10.0, 30.0])
def test_frames_are_whole_patches_and_never_fewer_than_the_spectrum_has(seconds):
    config = replace(EncoderConfig(), seconds=seconds)
    spectrum_frames = 1 + config.samples // 320
    assert spectrum_frames <= config.frames < spectrum_frames + 32
    assert config.frames % 16 == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"encoder": {"dimm": 3}}, "did you mean 'dim'"),
        ({"decoder": {}}, "unknown key 'decoder'"),
        ({"encoder": {"dim": "768"}}, "encoder.dim"),
        ({"encoder": {"dim": True}}, "encoder.dim"),
        ({"encoder": {"dim": 768.5}}, "encoder.dim"),
        ({"encoder": {"seconds": float("nan")}}, "encoder.seconds"),
        ({"encoder": {"seconds": -1}}, "encoder.seconds"),
        ({"encoder": {"dim": 770, "heads": 12}}, "multiple"),
        ({"encoder": {"heads": 0}}, "positive"),
        ({"qformer": {"heads": 5}}, "multiple of heads"),
        ({"llm": {"layers": 0}}, "layers must be positive"),
        ({"lora": {"r": 0}}, "r must be positive"),
        ({"lora": {"targets": []}}, "name a module"),
        ({"encoder": {"n_mels": 100}}, "multiple of 16"),
        ({"encoder": 3}, "not a table"),
        ({}, "no encoder"),
        ({"sources": {}}, "needs the tokens of Spatial-AST or DSpAST"),
        ({"encoder": {}, "dspast": {}}, "both Spatial-AST and DSpAST"),
        ({"dspast": {"branch_dim": 0}}, "branch_dim must be positive"),
        ({"dspast": {"summary_tokens": 1}}, "dspast.summary_tokens"),
        ({"dspast": {"heads": 5}}, "multiple of 4 and of heads"),
        ({"encoder": {"branch_dim": 256}}, "unknown key 'branch_dim'"),
        ({"qformer": {"reads_question": 1}}, "qformer.reads_question"),
        ({"lora": {"targets": "q_proj"}}, "lora.targets"),
        ({"lora": {"targets": [1]}}, "lora.targets"),
        ({"qformer": {"layers": None}}, "qformer.layers"),
    ],
)
def test_a_config_that_cannot_be_built_is_refused(content, message):
    with pytest.raises(InputError, match=message):
        ModelConfig.from_dict(content)


def test_parts_that_are_not_there_are_none():
    config = ModelConfig.from_dict({"encoder": {}})
    assert (config.encoder, config.lora, config.llm, config.sources) == (EncoderConfig(), None, None, None)
    assert (list(config.encoders), config.published_encoder) == (["encoder"], "encoder")
    other = ModelConfig.from_dict({"dspast": {"summary_tokens": False}})
    assert (other.encoder, other.dspast) == (None, DspastConfig(summary_tokens=False))
    assert (list(other.encoders), other.published_encoder) == (["dspast"], "dspast")
    assert PRESETS["tiny"].published_encoder is None


def test_all_encoders_take_the_same_scenes_and_classes():
    both = ModelConfig(sources=SourcesConfig()).for_scenes(3.0, 7)
    assert [(part.seconds, part.n_classes) for part in both.encoders.values()] == [(3.0, 7)] * 2
    assert (both.seconds, both.n_classes) == (3.0, 7)
    with pytest.raises(InputError, match="differ"):
        replace(both, sources=SourcesConfig())


def test_no_more_source_tokens_than_classes():
    assert PRESETS["tiny"].for_scenes(2.0, 2).sources.tokens == 2
    assert PRESETS["tiny"].for_scenes(2.0, 20).sources.tokens == 3
