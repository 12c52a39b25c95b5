import importlib.util
import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from batcli.core.errors import InputError
from batcli.model.bat import BAT, Encoding
from batcli.model.config import PRESETS, SOURCES_BESIDE, EncoderConfig, LoraConfig, ModelConfig, QFormerConfig
from batcli.model.llm import empty_llm, load_llm, load_tokenizer, lora_targets
from batcli.model.tokens import IGNORED, collate, collate_prompts
from batcli.training.losses import answer_loss

PAD, END = 0, 2
PROMPTS = [[1, 30, 31], [1, 40, 41, 42, 43, 44], [1, 50], [1, 60, 61, 62]]
ANSWERS = [[70, 71, 72, 73], [80], [90, 91], [99, 98, 97]]
SMALL = ModelConfig(EncoderConfig(0.3, dim=16, depth=1, heads=2), QFormerConfig(1, 3, 16, 2), LoraConfig())


def greedy(bat, encoding, prompts, **options):
    return bat.generate(encoding, collate_prompts(prompts, PAD), PAD, END, **{"max_new_tokens": 12, **options}).tolist()


# ---- the published sizes -----------------------------------------------------------------------------


def test_trainable_parameters_of_the_published_model():
    with torch.device("meta"):  # no memory, no time
        bat = BAT(PRESETS["llama2-7b"], LlamaForCausalLM(LlamaConfig()))
    trained = {name: part.numel() for name, part in bat.named_parameters() if part.requires_grad}
    projector = sum(size for name, size in trained.items() if name.startswith("projector."))
    lora = sum(size for name, size in trained.items() if name.startswith("llm."))
    assert (projector, lora) == (69_367_296, 4_194_304)
    assert round((projector + lora) / 1e6, 2) == 73.56
    assert all("lora_" in name for name in trained if name.startswith("llm."))
    assert sum(part.numel() for part in bat.llm.parameters()) - lora == 6_738_415_616


# ---- batches -----------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_over_all_answers_tokens_and_ends(bat, encoding):
    batch = collate(PROMPTS, ANSWERS, PAD, END)
    logits = bat(encoding, batch)
    assert logits.shape[:2] == batch.labels.shape == (4, 5)
    total = 0.0
    for n, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        one = collate([prompt], [answer], PAD, END)
        alone = bat(encoding.select([n]), one)
        torch.testing.assert_close(alone[0], logits[n, : len(answer) + 1], rtol=1e-3, atol=1e-3)
        total += answer_loss(alone, one.labels).item() * (len(answer) + 1)
    assert answer_loss(logits, batch.labels).item() == pytest.approx(
        total / sum(len(answer) + 1 for answer in ANSWERS), rel=1e-4
    )


def test_generated_answers_are_the_likeliest_of_the_forward_pass(bat, encoding):
    generated = greedy(bat, encoding, PROMPTS)
    answers = [ids[: ids.index(END)] if END in ids else ids[:-1] for ids in generated]
    likeliest = bat(encoding, collate(PROMPTS, answers, PAD, END)).argmax(-1)
    for row, answer in enumerate(answers):
        assert likeliest[row, : len(answer)].tolist() == answer


def until_end(ids: list[int]) -> list[int]:
    """Beams write the end of an answer only where there is room for it beside a longer one."""
    ids = ids[: ids.index(END)] if END in ids else ids
    while ids and ids[-1] == PAD:
        ids = ids[:-1]
    return ids


@pytest.mark.filterwarnings("error")  # a warning of another library would reach the user
@pytest.mark.parametrize("beams", [1, 4])
def test_an_answer_does_not_depend_on_its_batch(bat, encoding, beams):
    together = greedy(bat, encoding, PROMPTS, num_beams=beams)
    for n, prompt in enumerate(PROMPTS):
        (alone,) = greedy(bat, encoding.select([n]), [prompt], num_beams=beams)
        assert until_end(together[n]) == until_end(alone)
    assert len({tuple(answer) for answer in together}) > 1


def test_greedy_answers_are_the_likeliest_next_tokens_of_the_forward_pass(bat, encoding):
    for n, (prompt, answer) in enumerate(zip(PROMPTS, greedy(bat, encoding, PROMPTS), strict=True)):
        answer = answer[: answer.index(END)] if END in answer else answer
        logits = bat(encoding.select([n]), collate([prompt], [answer], PAD, END))[0]
        assert logits[: len(answer)].argmax(-1).tolist() == answer


def test_beams_find_an_answer_at_least_as_likely(bat, encoding):
    def likelihood(answers):
        total = []
        for n, (prompt, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
            logits = bat(encoding.select([n]), collate([prompt], [answer], PAD, END))[0, : len(answer)]
            total.append(logits.log_softmax(-1)[range(len(answer)), answer].sum().item())
        return sum(total)

    prompts = collate_prompts(PROMPTS, PAD)
    one, four = (bat.generate(encoding, prompts, PAD, 599, n, max_new_tokens=2).tolist() for n in (1, 4))
    assert not any(599 in answer for answer in one + four)  # none ends early: lengths are equal
    assert likelihood(four) >= likelihood(one) - 1e-4


def test_beams_read_the_question_once(bat, encoding):
    seen = []
    layer = next(m for name, m in bat.llm.named_modules() if name.endswith("layers.0"))
    remove = layer.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[:2])))
    greedy(bat, encoding.select([0, 1]), PROMPTS[:2], num_beams=4, max_new_tokens=3)
    remove.remove()
    audio = bat.audio_embeddings(encoding, collate_prompts(PROMPTS, PAD))
    length = audio.shape[1] + max(map(len, PROMPTS[:2]))
    assert seen[:2] == [(2, length - 1), (8, 1)]
    assert set(seen[1:]) == {(8, 1)}


def test_answers_depend_on_the_audio(bat, encoding):
    answers = greedy(bat, encoding, PROMPTS)
    silent = greedy(bat, encoding, PROMPTS, zero_audio=True)
    assert answers != silent
    assert silent == greedy(bat, encoding.select([1, 2, 3, 0]), PROMPTS, zero_audio=True)


def test_the_directorys_chat_settings_are_not_used(llm_folder):
    bat = BAT(SMALL, load_llm(llm_folder)).eval()
    torch.manual_seed(0)
    encoding = Encoding(encoder=torch.randn(1, 9, 16))
    prompts = collate_prompts([[1, 5]], PAD)
    plain = bat.generate(encoding, prompts, PAD, END, max_new_tokens=20)
    bat.llm.get_base_model().generation_config.repetition_penalty = 1.0
    assert torch.equal(plain, bat.generate(encoding, prompts, PAD, END, max_new_tokens=20))
    assert plain.unique().numel() < 15  # the penalty of 9 in the directory forbids repetition


def test_only_lora_and_the_projector_learn_under_lora(llm_folder):
    bat = BAT(SMALL, load_llm(llm_folder))
    learnt = {name for name, part in bat.llm.named_parameters() if part.requires_grad}
    assert learnt == {name for name, _ in bat.llm.named_parameters() if "lora_" in name}
    assert all(f".{target}." in name for name in learnt for target in ["q_proj" if "q_proj" in name else "v_proj"])
    batch = collate(PROMPTS[:2], ANSWERS[:2], PAD, END)
    answer_loss(bat(Encoding(encoder=torch.randn(2, 9, 16)), batch), batch.labels).backward()
    assert bat.projector.query.grad.any()


def test_source_tokens_are_added_to_a_model_as_it_is(llm_folder):
    """The weights that were there stay; the events are those of the encoder's head, not of the source tokens."""
    torch.manual_seed(0)
    bat = BAT(SMALL, load_llm(llm_folder)).eval()
    before = {name: tensor.clone() for name, tensor in bat.state_dict().items()}
    bat.add_sources(replace(SOURCES_BESIDE, seconds=0.3, bands=16, hidden=8, event_dim=4))
    after = bat.eval().state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"sources", "projector"}
    assert bat.config.sources == replace(SOURCES_BESIDE, seconds=0.3, bands=16, hidden=8, event_dim=4)
    waveform = 0.1 * torch.randn(2, 2, SMALL.encoder.samples)
    with torch.no_grad():
        nn.init.normal_(bat.encoder.head.bias)
        encoding = bat.encode(waveform)
        likeliest = bat.encoder.heads(encoding["encoder"]).events.topk(8).indices
    named = bat.token_kinds["sources"].split(encoding["sources"])
    assert named.events.amax(1).tolist() == likeliest.tolist()
    assert encoding["sources"].shape[1:] == (8, bat.token_kinds["sources"].width)
    assert bat.encoding_bytes == 4 * sum(tokens[0].numel() for tokens in encoding.values())


# ---- language models ---------------------------------------------------------------------------------

SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3["original_max_position_embeddings"] = 64
FAMILIES = {
    "llama 2": LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama 3": LlamaForCausalLM(LlamaConfig(**SIZES, rope_scaling=LLAMA3)),
    "mistral": MistralForCausalLM(MistralConfig(**SIZES, sliding_window=16)),
    "qwen 2": Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_families_of_language_models(family, attention, tmp_path):
    FAMILIES[family].save_pretrained(tmp_path)
    llm = load_llm(tmp_path, attention=attention)
    targets = lora_targets(llm.config.model_type)
    assert targets == ("q_proj", "v_proj")
    torch.manual_seed(0)
    bat = BAT(SMALL, llm).eval()
    encoding = Encoding(encoder=torch.randn(3, 9, 16))
    batch = collate(PROMPTS[:3], ANSWERS[:3], PAD, END)
    assert bat(encoding, batch).isfinite().all()
    assert (batch.labels != IGNORED).sum() == sum(len(answer) + 1 for answer in ANSWERS[:3])
    for beams in (1, 3):
        together = greedy(bat, encoding, PROMPTS[:3], num_beams=beams)
        (alone,) = greedy(bat, encoding.select([1]), PROMPTS[1:2], num_beams=beams)
        assert together[1][: len(alone)] == alone


def test_half_precision_language_model_and_full_precision_projector(llm_folder):
    bat = BAT(SMALL, load_llm(llm_folder, torch.bfloat16)).eval()
    assert bat.llm.get_input_embeddings().weight.dtype == torch.bfloat16
    assert bat.projector.linear.weight.dtype == torch.float32
    batch = collate(PROMPTS[:2], ANSWERS[:2], PAD, END)
    loss = answer_loss(bat(Encoding(encoder=torch.randn(2, 9, 16)), batch), batch.labels)
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_four_bits_work_or_say_what_is_not_installed(llm_folder):
    if importlib.util.find_spec("bitsandbytes") is None:
        with pytest.raises(InputError, match=r"bitsandbytes.*pip install 'batcli\[quantize\]'"):
            load_llm(llm_folder, quantize=True)
        return
    bat = BAT(SMALL, load_llm(llm_folder, torch.bfloat16, quantize=True))
    batch = collate(PROMPTS[:2], ANSWERS[:2], PAD, END)
    answer_loss(bat(Encoding(encoder=torch.randn(2, 9, 16)), batch), batch.labels).backward()
    assert bat.projector.query.grad.isfinite().all()


@pytest.fixture
def damaged(llm_folder, tmp_path):
    """A copy of the language model whose tensors a function may change."""

    def change(function):
        folder = shutil.copytree(llm_folder, tmp_path / "llm")
        weights = folder / "model.safetensors"
        state = load_file(weights)
        function(state)
        save_file(state, weights, {"format": "pt"})
        return folder

    return change


def test_a_language_model_that_lacks_a_tensor_is_refused(damaged):
    folder = damaged(lambda state: state.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(InputError, match=r"missing: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_llm(folder)


def test_a_language_model_with_a_surplus_tensor_is_refused(damaged):
    folder = damaged(lambda state: state.update({"model.layers.1.extra.weight": torch.zeros(3)}))
    with pytest.raises(InputError, match=r"surplus: model\.layers\.1\.extra\.weight"):
        load_llm(folder)


def test_a_language_model_with_a_tensor_of_another_shape_is_refused(damaged):
    folder = damaged(lambda state: state.update({"model.norm.weight": torch.zeros(3)}))
    with pytest.raises(InputError, match=r"model\.norm\.weight"):
        load_llm(folder)


def test_old_llamas_rotary_buffers_are_no_surplus(damaged):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert load_llm(damaged(lambda state: state.update({name: torch.zeros(3)})))


def test_code_in_a_directory_is_not_run(llm_folder, tmp_path):
    folder = shutil.copytree(llm_folder, tmp_path / "llm")
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "stranger"
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for load in (load_llm, empty_llm):
        with pytest.raises(InputError):
            load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": 3}', '{"model_type": "bert", "vocab_size": -1}'])
def test_a_config_of_no_language_model_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as error:
        load_llm(tmp_path)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_config_or_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="Hugging Face"):
        load_llm(tmp_path)
    with pytest.raises(InputError, match="tokenizer"):
        load_tokenizer(tmp_path)


def test_lora_on_modules_that_do_not_exist_is_refused(llm_folder):
    with pytest.raises(InputError, match="--lora-targets"):
        BAT(ModelConfig(SMALL.encoder, SMALL.qformer, LoraConfig(targets=("c_attn",))), load_llm(llm_folder))


def test_customary_targets():
    assert lora_targets("gpt2") == ("c_attn",)
    assert lora_targets("a family of tomorrow") == ("q_proj", "v_proj")
