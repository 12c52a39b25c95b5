"""How much memory the published model needs, without loading it: `python examples/memory.py [LLM_DIR]`.

Parameters are counted on the meta device. For training, a step is traced there too, and what autograd
keeps for the backward pass is added up; for decoding, the keys and values of all tokens. Not counted:
the allocator's slack and kernels' workspaces (0.5–1.5 GB on a GPU).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from batcli.core.errors import BatError
from batcli.model.bat import BAT, Encoding
from batcli.model.config import PRESETS
from batcli.model.llm import empty_llm

PROMPT, ANSWER = 80, 16  # tokens; 64 of audio come before them
LONGEST = 200  # new tokens that decoding may need
BATCHES = 1, 4, 8, 16, 32, 64
NF4 = (4 + 8 / 64 + 32 / 64 / 256) / 8  # bytes of a weight: 4 bits, 8 per block of 64, 32 per 256 blocks
GB = 1e9


def build(folder: Path | None) -> BAT:
    with torch.device("meta"):
        torch.set_default_dtype(torch.bfloat16)
        llm = empty_llm(folder) if folder else LlamaForCausalLM(LlamaConfig())  # its defaults are Llama-2-7B
        torch.set_default_dtype(torch.float32)
        return BAT(PRESETS["llama2-7b"], llm)


def size(module: torch.nn.Module, trained: bool | None = None) -> int:
    """Numbers in a module's weights, or only in those that are trained."""
    return sum(p.numel() for p in module.parameters() if trained is None or p.requires_grad == trained)


def kept_for_backward(bat: BAT, step: Callable[[], object]) -> int:
    """Bytes that autograd keeps from the forward pass `step`, weights left out."""
    weights = {p.untyped_storage()._cdata for p in bat.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in kept.values())


def encoder_step(bat: BAT, batch: int) -> object:
    return bat.encoder.heads(bat.encoder(torch.zeros(batch, 2, bat.config.encoder.samples)))


def answer_step(bat: BAT, batch: int) -> object:
    audio = bat.audio_embeddings(Encoding(encoder=torch.zeros(batch, 515, 768)))
    words = bat.llm.get_input_embeddings()(torch.zeros(batch, PROMPT + ANSWER, dtype=torch.long))
    inputs = torch.cat([audio.bfloat16(), words], dim=1)
    length = inputs.shape[1]
    logits = bat.llm(
        inputs_embeds=inputs,
        attention_mask=torch.ones(batch, 1, length, length, dtype=torch.bool),  # as large as BAT's causal one
        position_ids=torch.zeros(batch, length, dtype=torch.long),
        logits_to_keep=ANSWER + 2,
        use_cache=False,
    ).logits
    return F.cross_entropy(logits.float().flatten(0, 1), torch.zeros(batch * (ANSWER + 2), dtype=torch.long))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llm", type=Path, nargs="?", help="language model directory [default: the sizes of Llama-2-7B]")
    given = parser.parse_args()
    try:
        bat = build(given.llm)
    except BatError as error:
        parser.exit(error.exit_code, f"memory.py: {error}\n")
    base = size(bat.llm) - size(bat.llm, True)
    learnt = size(bat.projector) + size(bat.llm, True)
    print("| part | parameters | trained |\n|---|---|---|")
    for name, module in (("encoder", bat.encoder), ("projector", bat.projector)):
        print(f"| {name} | {size(module) / 1e6:,.1f} M | {'yes' if name == 'projector' else 'in its own stage'} |")
    print(f"| LoRA | {size(bat.llm, True) / 1e6:,.3f} M | yes |\n| language model | {base / 1e6:,.0f} M | no |")
    print(f"\ntrained in stages 1-3: {learnt / 1e6:,.2f} M; checkpoint: {4 * learnt / 1e6:,.0f} MB, ", end="")
    print(f"encoder: {4 * size(bat.encoder) / 1e6:,.0f} MB, optimizer's state: {8 * learnt / 1e6:,.0f} MB")

    print_row("GB", [f"batch {n}" for n in BATCHES], first=True)
    bat.encoder.mel = bat.encoder.mel.to("meta")
    trained = 16 * size(bat.encoder)  # weights, gradients and two moments, 32 bits each
    print_row("encoder", [trained + kept_for_backward(bat, lambda n=n: encoder_step(bat, n)) for n in BATCHES])
    words = size(bat.llm.get_input_embeddings()) + size(bat.llm.get_output_embeddings())
    weights = {"bf16": 2 * base, "4 bits": 2 * words + NF4 * (base - words)}
    kept = [kept_for_backward(bat, lambda n=n: answer_step(bat, n)) for n in BATCHES]
    for form, held in weights.items():
        print_row(f"stages 1-3, {form}", [held + 16 * learnt + step for step in kept])
    config = bat.llm.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    scene = (64 + PROMPT + LONGEST) * 2 * config.num_hidden_layers * config.num_key_value_heads * head * 2
    for beams in (1, 4):
        for form, held in weights.items():
            held += 4 * (learnt + size(bat.encoder))
            print_row(f"decode, {form}, --num-beams {beams}", [held + n * beams * scene for n in BATCHES])


def print_row(name: str, values: list, first: bool = False) -> None:
    cells = [value if isinstance(value, str) else f"{value / GB:.1f}" for value in values]
    print(("\n" if first else "") + f"| {name} | " + " | ".join(cells) + " |")
    if first:
        print("|" + "---|" * (1 + len(cells)))


if __name__ == "__main__":
    main()
