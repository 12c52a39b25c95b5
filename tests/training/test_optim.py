"""Parameter groups, and Muon."""

import pytest
import torch
from torch import nn

from batcli.training.optim import Muon, make_optimizers, parameter_groups

NAMES = {  # as in transformers' models: name, shape, whether Muon moves it
    "model.embed_tokens.weight": ((9, 8), False),
    "model.layers.0.self_attn.q_proj.weight": ((8, 8), True),
    "model.layers.1.mlp.up_proj.weight": ((16, 8), True),
    "model.layers.1.input_layernorm.weight": ((8,), False),
    "qformer.encoder.layer.0.attention.attention.query.bias": ((8,), False),
    "qformer.encoder.layer.0.attention.attention.query.weight": ((8, 8), True),
    "query": ((1, 4, 8), False),
    "lm_head.weight": ((9, 8), False),
}


def made() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    return {name: nn.Parameter(torch.randn(shape)) for name, (shape, _) in NAMES.items()}


def test_lower_layers_learn_slower_and_vectors_do_not_decay():
    named = {f"blocks.{i}.{kind}": nn.Parameter(torch.zeros(*shape)) for i in (0, 1) for kind, shape in
             (("weight", (2, 2)), ("bias", (2,)))}  # fmt: skip
    groups = parameter_groups(named, "0", 0.05, lambda name: 0.75 ** (2 - int(name.split(".")[1])))
    assert sorted((g["weight_decay"], g["lr_scale"]) for g in groups) == [
        (0.0, 0.75**2), (0.0, 0.75), (0.05, 0.75**2), (0.05, 0.75)
    ]  # fmt: skip
    assert len({g["clip_with"] for g in groups}) == 2, "layers are clipped together"
    assert sum(len(g["params"]) for g in groups) == 4


def test_muon_is_for_matrices_within_layers():
    named = made()
    groups = parameter_groups(named, "0", 0.05, muon=True)
    marked = [p for group in groups if group["muon"] for p in group["params"]]
    assert {name for name, p in named.items() if any(p is m for m in marked)} == {
        name for name, (_, muon) in NAMES.items() if muon
    }
    assert sum(len(group["params"]) for group in groups) == len(named)
    assert len({group["clip_with"] for group in groups}) == 2, "all matrices are clipped together"
    assert not any(group["muon"] for group in parameter_groups(named, "0", 0.05))


def test_what_an_update_moves():
    """Without decay, by Muon: all directions alike, and in all about as far as a step of AdamW."""
    named = made()
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizers = make_optimizers(parameter_groups(named, "0", 0.0, muon=True), 0.01, (0.9, 0.95), fused=True)
    for p in named.values():
        p.grad = torch.randn_like(p) * torch.logspace(0, -1, p.shape[-1])
    for optimizer in optimizers:
        optimizer.step()
    for name, (_, muon) in NAMES.items():
        moved = named[name].detach() - before[name]
        if muon:
            directions = torch.linalg.svdvals(moved)
            assert directions.min() > directions.max() / 3
            assert 0.5 < moved.square().mean().sqrt() / (0.2 * 0.01) < 1.5
        else:
            torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.01), rtol=1e-3, atol=0)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with 2.9")
def test_muon_is_torchs():
    shapes = [(8, 8), (16, 8), (8, 16), (8, 8), (16, 8)]
    ours, theirs = ([nn.Parameter(p.detach().clone()) for p in map(torch.ones, shapes)] for _ in range(2))
    optimizers = [
        Muon([{"params": ours, "weight_decay": 0.05}], lr=0.01),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    ]
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(a.shape, generator=generator)
            b.grad = a.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)  # their products are of bfloat16
