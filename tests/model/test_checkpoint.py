import shutil

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from batcli.core.errors import InputError
from batcli.model import checkpoint, published
from batcli.model.bat import BAT
from batcli.model.checkpoint import fingerprint, finish, load_run, save_run, write_config
from batcli.model.config import ModelConfig, SourcesConfig
from batcli.model.llm import load_llm


@pytest.fixture
def saved(bat, tokenizer, llm_folder, tmp_path):
    """(run directory, the model in it)."""
    external = llm_folder if bat.config.lora else None
    write_config(tmp_path / "run", bat.config, {"train": {"seed": 7}}, external)
    save_run(tmp_path / "run", bat, tokenizer, external)
    finish(tmp_path / "run", seed=7)
    return tmp_path / "run", bat


with_patches = pytest.mark.parametrize("bat", ["from nothing", "reading the question", "with LoRA"], indirect=True)
with_lora = pytest.mark.parametrize("bat", ["with LoRA"], indirect=True)


def test_what_is_loaded_is_what_was_saved(saved, tokenizer):
    run, bat = saved
    if bat.config.lora is not None:  # the fixture has changed the base model, which is not the run's
        bat.llm.get_base_model().load_state_dict(
            {
                name.replace("q_proj", "q_proj.base_layer").replace("v_proj", "v_proj.base_layer"): tensor
                for name, tensor in load_llm(checkpoint.llm_folder(run)).state_dict().items()
            },
            strict=False,
        )
    again, tokens, config = load_run(run)
    assert config == bat.config
    assert tokens.get_vocab() == tokenizer.get_vocab()
    before, after = bat.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert not again.training
    assert {n for n, p in bat.named_parameters() if p.requires_grad} == {
        n for n, p in again.named_parameters() if p.requires_grad
    }


def test_layout_of_a_run(saved):
    run, bat = saved
    names = {path.name for path in run.iterdir()}
    common = {"config.toml", "manifest.json", "encoder.safetensors", "projector.safetensors", "DONE"}
    assert names == common | ({"adapter", "tokenizer"} if bat.config.lora else {"llm"})
    assert all(path.stat().st_mode & 0o044 for path in run.rglob("*") if path.is_file())
    assert (run / "DONE").stat().st_mtime_ns >= max(p.stat().st_mtime_ns for p in run.iterdir() if p.name != "DONE")


@with_lora
def test_the_adapter_is_what_peft_loads(saved, llm_folder):
    run, bat = saved
    loaded = PeftModel.from_pretrained(load_llm(llm_folder), str(run / "adapter"))
    lora = {name: tensor for name, tensor in loaded.state_dict().items() if "lora_" in name}
    ours = {name: tensor for name, tensor in bat.llm.state_dict().items() if "lora_" in name}
    assert lora.keys() == ours.keys()
    assert all(torch.equal(lora[name], ours[name]) for name in lora)
    assert loaded.peft_config["default"].lora_alpha == 32


@with_lora
def test_source_tokens_are_kept_with_the_encoder(bat, tokenizer, llm_folder, tmp_path):
    config = ModelConfig(
        bat.config.encoder,
        bat.config.qformer,
        bat.config.lora,
        None,
        SourcesConfig(2, 16, 5, hidden=8, event_dim=4, seconds=bat.config.seconds, n_classes=bat.config.n_classes),
    )
    model = BAT(config, load_llm(llm_folder))
    write_config(tmp_path, config, {}, llm_folder)
    save_run(tmp_path, model, None, llm_folder)
    assert any(name.startswith("sources.") for name in load_file(tmp_path / "encoder.safetensors"))
    finish(tmp_path)
    again = load_run(tmp_path)[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_run_that_is_not_done_is_refused(saved):
    run, _ = saved
    (run / "DONE").unlink()
    with pytest.raises(InputError, match="not a finished run"):
        load_run(run)


@with_lora
def test_a_moved_language_model_is_found_and_another_one_refused(saved, tmp_path):
    run, _ = saved
    folder = checkpoint.llm_folder(run)
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert load_run(run, llm=moved)[0]
    state = load_file(moved / "model.safetensors")
    state["model.norm.weight"] += 1
    save_file(state, moved / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="not the language model that this run was made with"):
        load_run(run, llm=moved)
    with pytest.raises(InputError, match="no such directory"):
        load_run(run, llm=tmp_path / "nowhere")


def test_the_fingerprint_sees_the_configuration_and_names_sizes_and_both_ends_of_weights(tmp_path):
    def prints(**files):
        shutil.rmtree(tmp_path / "f", ignore_errors=True)
        (tmp_path / "f").mkdir()
        for name, content in files.items():
            (tmp_path / "f" / name.replace("_", ".")).write_bytes(content)
        return fingerprint(tmp_path / "f")

    big = bytes(5 << 20)
    different = [
        prints(a_bin=big),
        prints(b_bin=big),
        prints(a_safetensors=big),
        prints(a_bin=big + b"\0"),
        prints(a_bin=b"\1" + big[1:]),
        prints(a_bin=big[:-1] + b"\1"),
        prints(a_bin=big, b_bin=b""),
        prints(a_bin=big, config_json=b"{}"),
        prints(),
    ]
    assert len(set(different)) == len(different)
    assert prints(a_bin=big, README_md=b"text") == different[0]


@pytest.mark.parametrize("name", ["encoder.safetensors", "projector.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "missing", "surplus", "shape", "nan", "whole numbers", "not there", "text"])
def test_damaged_weights_are_refused(saved, name, damage):
    run, _ = saved
    path = run / name
    state = load_file(path)
    first = next(key for key in state if state[key].ndim == 2 and state[key].is_floating_point())
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("weights")
    elif damage == "not there":
        path.unlink()
    else:
        if damage == "missing":
            del state[first]
        state.update(
            {
                "surplus": {"encoder.other": torch.zeros(3)},
                "shape": {first: state.get(first, torch.zeros(1, 1))[:1]},
                "nan": {first: torch.full_like(state.get(first, torch.zeros(1)), torch.nan)},
                "whole numbers": {first: torch.zeros_like(state.get(first, torch.zeros(1)), dtype=torch.int64)},
            }.get(damage, {})
        )
        save_file(state, path)
    with pytest.raises(InputError) as error:
        load_run(run)
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    if damage in ("missing", "surplus", "shape"):
        assert (first if damage != "surplus" else "encoder.other") in str(error.value)


def test_weights_that_are_not_finite_are_never_saved(bat, tokenizer, llm_folder, tmp_path):
    with torch.no_grad():
        bat.projector.linear.weight[0, 0] = torch.inf
    with pytest.raises(InputError, match=r"projector\.linear\.weight is not finite"):
        save_run(tmp_path, bat, tokenizer, llm_folder)
    assert not (tmp_path / "projector.safetensors").exists()
    assert not any(path.name.startswith(".tmp-") for path in tmp_path.rglob("*"))


AUDIOMAE = (
    "cls_token",
    "pos_embed",
    "mask_token",
    "norm.weight",
    "decoder_blocks.0.norm1.weight",
    "decoder_embed.bias",
)


def audiomae(path, encoder, **changes):
    """A file as AudioMAE's training leaves it; a tensor of None is left out."""
    state = {
        k: torch.randn_like(v) for k, v in encoder.state_dict().items() if k.startswith(("patch_embed.", "blocks."))
    }
    state |= {name: torch.zeros(3) for name in AUDIOMAE} | changes
    torch.save({"model": {k: v for k, v in state.items() if v is not None}, "epoch": 1, "args": None}, path)
    return state


@with_patches
def test_audiomae_starts_patches_and_blocks(bat, tmp_path):
    state = audiomae(tmp_path / "mae.pth", bat.encoder)
    found = published.read_audiomae(tmp_path / "mae.pth", bat.encoder)
    assert "blocks.0.attn.qkv.weight" in found
    assert "patch_embed.proj.weight" in found
    assert not any(name.startswith(("cls", "pos", "decoder", "norm")) for name in found)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())
    kept = bat.encoder.conv_downsample[0].weight.clone()
    bat.encoder.load_state_dict(found, strict=False)
    assert torch.equal(bat.encoder.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    assert torch.equal(bat.encoder.conv_downsample[0].weight, kept)


@with_patches
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks.0.mlp.fc1.bias": None}, "missing: blocks.0.mlp.fc1.bias"),
        ({"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)}, "wrong shape: patch_embed.proj.weight"),
        ({"blocks.9.norm1.bias": torch.zeros(8)}, "surplus: blocks.9.norm1.bias"),
        ({"something": torch.zeros(8)}, "surplus: something"),
    ],
)
def test_what_is_no_audiomae_of_this_size_is_refused(bat, tmp_path, changes, message):
    audiomae(tmp_path / "mae.pth", bat.encoder, **changes)
    with pytest.raises(InputError, match=message) as error:
        published.read_audiomae(tmp_path / "mae.pth", bat.encoder)
    assert str(tmp_path / "mae.pth") in str(error.value)


@with_patches
def test_memory_is_saved_without_another_gradient(bat, encoding):
    """Gradient checkpointing computes the same."""

    def gradients():
        bat.train().zero_grad()
        torch.manual_seed(0)
        waveform = torch.randn(2, 2, bat.config.encoder.samples)
        bat.encoder(waveform).square().sum().backward()
        return {name: p.grad.clone() for name, p in bat.encoder.named_parameters() if p.grad is not None}

    before = gradients()
    bat.save_memory()
    after = gradients()
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name])
