"""What accelerate's configuration says, and which of several GPUs a process takes."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from batcli.core.errors import InputError
from batcli.core.parallel import PATIENCE
from batcli.model.device import own_device, set_arithmetic
from batcli.model.llm import load_llm
from batcli.training import launch


@pytest.mark.parametrize(
    ("variables", "precision", "cpu", "message"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "fp32", False, "DeepSpeed is not supported"),
        ({"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2"}, "fp32", True, "FSDP shards on GPUs only"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fp32", False, "FSDP has one process"),
        ({"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}, "fp32", False, "say --accumulate 4"),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "fp32", False, "mixed_precision bf16, but --precision fp32"),
        ({"ACCELERATE_MIXED_PRECISION": "fp16"}, "bf16", False, "mixed_precision fp16, but --precision bf16"),
    ],
)
def test_what_would_have_no_effect_is_refused(variables, precision, cpu, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        launch.join_processes(precision, cpu)


def test_processes_wait_for_one_another_longer_than_by_default(monkeypatch):
    made = {}
    monkeypatch.setattr(launch, "Accelerator", lambda **options: made.update(options))
    launch.join_processes("bf16", cpu=False)
    (group,) = made["kwargs_handlers"]
    assert group.to_kwargs() == {"timeout": timedelta(seconds=PATIENCE)}  # of `init_process_group`
    assert timedelta(hours=12) < group.timeout
    assert made["mixed_precision"] == "bf16"
    assert made["gradient_accumulation_plugin"].num_steps == 1


@pytest.mark.parametrize(("rank", "gpus", "own"), [(0, 8, 0), (3, 8, 3), (3, 1, 0)])
def test_each_process_takes_its_own_gpu(rank, gpus, own, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert own_device("auto") == own_device("cuda") == torch.device("cuda", own)
    assert own_device("cpu") == torch.device("cpu")


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert own_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="torch finds no cuda here"):
        own_device("cuda")


@pytest.mark.parametrize(("precision", "matmul", "cudnn"), [("fp32", "highest", False), ("bf16", "high", True)])
def test_a_gpu_multiplies_in_tf32_beside_bf16_only(precision, matmul, cudnn, monkeypatch):
    chosen = {}
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda value: chosen.update(matmul=value))
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "H200")
    line = set_arithmetic(torch.device("cuda", 0), precision)
    assert (chosen["matmul"], torch.backends.cudnn.allow_tf32) == (matmul, cudnn)
    assert line == f"computing on H200, {precision}, float32 products {'in TF32' if cudnn else 'in full'}"


def test_an_unread_language_model_has_no_weights_but_its_buffers(llm_folder):
    unread, read = load_llm(llm_folder, torch.bfloat16, read=False), load_llm(llm_folder, torch.bfloat16)
    assert all(parameter.is_meta for parameter in unread.parameters())
    for (name, a), (other, b) in zip(unread.named_buffers(), read.named_buffers(), strict=True):
        assert name == other
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    shapes = {name: (parameter.shape, parameter.dtype) for name, parameter in read.named_parameters()}
    assert shapes == {name: (parameter.shape, parameter.dtype) for name, parameter in unread.named_parameters()}
