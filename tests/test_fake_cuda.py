"""Every step of training and decoding as on a GPU, without one (`fake_cuda`): what lies on which device.

Trained, stopped, resumed, validated, decoded and ablated, with the real commands: the preset `tiny` in fp32, with
`--batch-size auto` and softened distances, and the published one, shrunk, with source tokens, LoRA, bf16 and
gradient checkpointing. The fake computes on the processor, so answers are compared with the processor's.

What this cannot see: numbers that CUDA's kernels compute otherwise, TF32, autocast's choice of types on CUDA; memory
and speed; random numbers of the device; operations that CUDA does not have, or flash attention and bitsandbytes;
streams and copies without waiting; several GPUs and NCCL; what another package does with the device in its own C++
code. `tests/gpu.py` looks at these where there is a GPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from fake_cuda import CudaTensor, MixedDevices, fake_cuda

from batcli.audio.io import write_wav
from batcli.core.errors import Stopped
from batcli.decode import decode, load_model
from batcli.model.config import PRESETS
from batcli.options import DecodeOptions, TrainOptions
from batcli.train import train
from batcli.training import answers, batch_size
from batcli.training.loader import Loader


@pytest.fixture(autouse=True)
def _quick_and_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(answers, "MAX_NEW_TOKENS", 4)  # of validation
    monkeypatch.setattr(batch_size, "LARGEST", 4)
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


RECIPE = ["epochs=0.02,0.03,0.02", "source_scenes=36", "source_epochs=1", "source_batch=16"]
SMALL = {"save_every": 1, "log_every": 1, "workers": 1, "validate": "eval"}
SMALL |= {"validate_questions": 5, "validate_scenes": 4}


def decoded(run: Path, data: Path, folder: Path, **options: object) -> list[dict]:
    """The records of the first four questions, or of two scenes."""
    output = folder / f"{'-'.join(map(str, options.values()))}.jsonl"
    few = {"limit": 2} if "encoder" in options else {"limit": 4, "max_new_tokens": 3}
    decode(DecodeOptions(run=run, data=data, output=output, workers=1, **few, **options))
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_tiny(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops_after: Callable):
    options = TrainOptions(data=demo, output=tmp_path / "run", set=RECIPE, batch_size="auto", cache="disk", **SMALL)
    with fake_cuda():
        with pytest.raises(Stopped):
            train(options, stops_after("stage 3", 0))
        AcceleratorState._reset_state(True)
        train(replace(options, resume=True))
        for way in ({"num_beams": 1}, {"num_beams": 4}, {"zero_audio": True}, {"encoder": True}):
            fake = decoded(tmp_path / "run", demo, tmp_path, **way, device="cuda")
            assert fake == decoded(tmp_path / "run", demo, tmp_path, **way, device="cpu")
        monkeypatch.syspath_prepend(Path(__file__).resolve().parents[1] / "examples")
        import ablate

        monkeypatch.setattr(ablate, "load_model", lambda options: load_model(replace(options, max_new_tokens=3)))
        assert "mention" in ablate.ablate(tmp_path / "run", demo, "eval", tmp_path / "ablated", 2)
        write_wav(tmp_path / "some.wav", torch.randn(2, 16_000).numpy() / 9, 32_000)
        question = {"question": "Where is the dog?", "max_new_tokens": 4}
        assert decode(DecodeOptions(run=tmp_path / "run", audio=tmp_path / "some.wav", **question)) is not None


def test_the_published_preset(demo: Path, llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = PRESETS["llama2-7b"]
    parts = {"encoder": replace(config.encoder, dim=16, depth=2, heads=2)}
    parts["qformer"] = replace(config.qformer, layers=2, queries=3, dim=16, heads=2)
    monkeypatch.setitem(PRESETS, "llama2-7b", replace(config, **parts))
    encoder = ["encoder_epochs=1", "encoder_warmup=0.5", "encoder_update=64", "encoder_batch=32"]
    options = TrainOptions(
        data=demo,
        output=tmp_path / "run",
        set=[*RECIPE, *encoder],
        preset="llama2-7b",
        llm=llm_folder,
        stages="encoder,sources,1,2,3",
        precision="bf16",
        gradient_checkpointing=True,
        batch_size="8",
        cache="none",
        **SMALL,
    )
    with fake_cuda():
        train(options)
        for way in ({"num_beams": 1}, {"num_beams": 4}, {"encoder": True}):
            fake = decoded(tmp_path / "run", demo, tmp_path, **way, device="cuda")
            assert fake == decoded(tmp_path / "run", demo, tmp_path, **way, device="cpu")


class OnTheDevice(torch.utils.data.Dataset):
    """Items that a worker computes with a tensor on the GPU."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.weight * 2


def test_what_the_fake_refuses():
    with fake_cuda():
        here, there = torch.ones(3), torch.ones(3).to("cuda")
        indices = torch.zeros(2, dtype=torch.long)
        assert isinstance(there, CudaTensor)
        assert there.device == torch.device("cuda", 0)
        for mixed in (lambda: here + there, lambda: torch.cat([here, there]), lambda: here[indices.cuda()]):
            with pytest.raises(MixedDevices):
                mixed()
        for fine in (there[indices], there * torch.tensor(2.0), there + here.cuda()):
            assert isinstance(fine, CudaTensor)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="forked subprocess"):
            list(Loader(OnTheDevice(there), num_workers=1))
        layer = torch.nn.Linear(3, 3)
        weight = layer.weight
        layer.to("cuda")(there).sum().backward()
        assert layer.weight is weight
        assert weight.grad.device == there.device
        assert (here.copy_(there) == 1).all()
        assert not isinstance(there.cpu(), CudaTensor)
