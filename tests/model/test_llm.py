"""Directories of language models: what is refused before it can spoil a run, and the remedies that are named."""

from __future__ import annotations

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForCausalLM

from batcli.core.errors import InputError
from batcli.model.answering import LoadedModel, answer
from batcli.model.bat import BAT, Encoding
from batcli.model.config import EncoderConfig, LoraConfig, ModelConfig, QFormerConfig
from batcli.model.llm import attention_window, empty_llm, llm_config, load_llm, lora_targets, require_finite
from batcli.model.tokens import collate, collate_prompts

SMALL = ModelConfig(EncoderConfig(seconds=0.3, n_classes=5, dim=16, depth=1, heads=2), QFormerConfig(1, 3, 16, 2))
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
OLD = {"n_embd": 16, "n_layer": 2, "n_head": 2, "d_model": 16, "n_layers": 2, "n_heads": 2}
PAD, END = 0, 2
PROMPTS = [[1, 5, 6, 7, 8, 9, 10, 11, 12, 13], [1, 5, 9]]


def make(folder, kind: str, **changes):
    """A small language model of a family, with weights large enough that attention matters."""
    config = AutoConfig.for_model(kind, vocab_size=64, **{**SIZES, **OLD, **changes})
    torch.manual_seed(0)
    llm = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in llm.named_parameters():
        if "norm" not in name and "ln" not in name:
            torch.nn.init.normal_(parameter, std=0.3)
    llm.save_pretrained(folder)
    return folder


def with_lora(llm, targets=None) -> BAT:
    torch.manual_seed(1)
    lora = LoraConfig(r=2, targets=targets or lora_targets(llm.config.model_type))
    return BAT(ModelConfig(SMALL.encoder, SMALL.qformer, lora), llm).eval()


# ---- adapters ------------------------------------------------------------------------------------


def test_a_forgotten_adapter_is_refused_with_the_remedy(llm_folder, tmp_path):
    """transformers adds the adapter in a model's directory to the model, and says nothing."""
    folder = shutil.copytree(llm_folder, tmp_path / "llm")
    adapted = peft.get_peft_model(LlamaForCausalLM.from_pretrained(folder), peft.LoraConfig(r=2))
    adapted.save_pretrained(folder)
    for read in (load_llm, empty_llm, llm_config):
        with pytest.raises(InputError, match=r"adapter_config\.json: an adapter.*merge_and_unload.*or move") as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    (folder / "adapter_config.json").rename(tmp_path / "adapter_config.json")
    assert not any("lora" in name for name in load_llm(folder).state_dict())


# ---- weights that are no numbers -----------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_number_that_is_none_is_found_in_any_shard(llm_folder, tmp_path, bad, dtype):
    llm = LlamaForCausalLM.from_pretrained(llm_folder, dtype=dtype)
    llm.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    for shard in (shards[0], shards[-1]):
        state = load_file(shard)
        name = sorted(state)[-1]
        good = state[name].clone()
        state[name].view(-1)[-1] = bad
        save_file(state, shard, {"format": "pt"})
        with pytest.raises(InputError, match=f"{name} is not finite; the weights are damaged"):
            load_llm(tmp_path, torch.bfloat16)
        save_file({**state, name: good}, shard, {"format": "pt"})
    assert load_llm(tmp_path, torch.bfloat16)


def test_pickled_weights_are_checked_too(llm_folder, tmp_path):
    folder = shutil.copytree(llm_folder, tmp_path / "llm")
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state["model.norm.weight"][3] = float("nan")
    torch.save(state, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.norm\.weight is not finite"):
        load_llm(folder)


@pytest.mark.parametrize("form", ["one file", "shards", "pickled"])
def test_with_four_bits_the_files_are_checked(llm_folder, tmp_path, form):
    """Four bits hold no NaN: after loading, nothing could be found."""
    if form == "shards":
        LlamaForCausalLM.from_pretrained(llm_folder).save_pretrained(tmp_path, max_shard_size="20KB")
    else:
        shutil.copytree(llm_folder, tmp_path, dirs_exist_ok=True)
    file = sorted(tmp_path.glob("*.safetensors"))[-1]
    state = load_file(file)
    name = sorted(state)[0]
    state[name].view(-1)[0] = float("inf")
    if form == "pickled":
        file.unlink()
        file = tmp_path / "pytorch_model.bin"
        torch.save(state, file)
    else:
        save_file(state, file, {"format": "pt"})
    with pytest.raises(InputError, match=f"{name} is not finite") as caught:
        load_llm(tmp_path, quantize=True)
    assert file.name in str(caught.value)


def test_whole_numbers_and_empty_tensors_are_finite(tmp_path):
    require_finite([("a", torch.arange(3)), ("b", torch.zeros(0)), ("c", torch.zeros(2, dtype=torch.bool))], tmp_path)


# ---- attention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gemma2", "bloom", "xglm"])
def test_without_sdpa_the_remedy_is_named_and_works(tmp_path, kind):
    folder = make(tmp_path, kind)
    with pytest.raises(InputError, match=f"{kind} has no sdpa attention; give --attention eager"):
        load_llm(folder)
    targets = ("q_proj",) if kind == "xglm" else None
    bat = with_lora(load_llm(folder, attention="eager"), targets)
    assert_alike_alone_and_together(bat)


@pytest.mark.parametrize("kind", ["mpt", "mamba"])
def test_language_models_that_count_padding_as_text_are_refused(tmp_path, kind):
    with pytest.raises(InputError, match=f"{kind} counts the padding.*use another language model"):
        load_llm(make(tmp_path, kind), attention="eager")


def assert_alike_alone_and_together(bat: BAT) -> None:
    encoding = Encoding(encoder=torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(2)))
    for beams in (1, 3):
        together = bat.generate(encoding, collate_prompts(PROMPTS, PAD), PAD, END, beams, 8).tolist()
        for row, prompt in enumerate(PROMPTS):
            alone = bat.generate(encoding.select([row]), collate_prompts([prompt], PAD), PAD, END, beams, 8).tolist()[0]
            assert together[row][: len(alone)] == alone
    batch = collate(PROMPTS, [[5, 6], [7]], PAD, END)
    logits = bat(encoding, batch)[1, :2]
    one = bat(encoding.select([1]), collate(PROMPTS[1:], [[7]], PAD, END))[0]
    torch.testing.assert_close(logits, one, rtol=1e-3, atol=1e-3)


# ---- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "changes", "window"),
    [
        ("llama", {}, None),
        ("mistral", {"sliding_window": 24}, 24),
        ("mistral", {"sliding_window": None}, None),
        ("phi3", {"sliding_window": 24}, 24),
        ("gemma2", {"sliding_window": 24}, 24),
        ("gemma3_text", {"sliding_window": 24}, 24),
        ("qwen2", {"sliding_window": 24, "use_sliding_window": False}, None),
        ("qwen2", {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 1}, 24),
        ("qwen2", {"sliding_window": 24, "use_sliding_window": True, "max_window_layers": 9}, None),
    ],
)
def test_how_far_a_language_model_attends(tmp_path, kind, changes, window):
    assert attention_window(load_llm(make(tmp_path, kind, **changes), attention="eager")) == window


@pytest.mark.parametrize("kind", ["mistral", "gemma2", "gemma3_text", "phi3"])
def test_within_the_window_an_answer_does_not_depend_on_its_batch(tmp_path, kind):
    window = SMALL.qformer.queries + len(PROMPTS[0]) + 8
    targets = ("qkv_proj",) if kind == "phi3" else None
    bat = with_lora(load_llm(make(tmp_path, kind, sliding_window=window), attention="eager"), targets)
    bat.require_window(window - SMALL.qformer.queries, "the text", "none")
    assert_alike_alone_and_together(bat)


def test_what_is_longer_than_the_window_is_refused(tmp_path, tokenizer):
    folder = make(tmp_path, "mistral", sliding_window=32)
    bat = with_lora(load_llm(folder))
    loaded = LoadedModel(bat, tokenizer, torch.device("cpu"), max_new_tokens=20)
    bat.require_window(29, "x", "y")
    with pytest.raises(InputError, match=r"x: 33 tokens, but the language model attends to 32 only .*; y"):
        bat.require_window(30, "x", "y")
    with pytest.raises(InputError, match=r"--max-new-tokens: .* tokens, but.*; give fewer --max-new-tokens"):
        answer(loaded, ["Where is the dog? " * 4], Encoding(encoder=torch.randn(1, 9, 16)))


# ---- LoRA ----------------------------------------------------------------------------------------


def test_phi3_needs_the_names_of_its_modules(tmp_path):
    llm = load_llm(make(tmp_path, "phi3"))
    with pytest.raises(InputError, match="--lora-targets"):
        with_lora(llm)
    assert_alike_alone_and_together(with_lora(llm, ("qkv_proj",)))


@pytest.mark.filterwarnings("error")
def test_no_call_is_deprecated(tmp_path):
    bat = with_lora(load_llm(make(tmp_path, "mistral")))
    bat.save_memory()
    assert_alike_alone_and_together(bat)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "mistral"
