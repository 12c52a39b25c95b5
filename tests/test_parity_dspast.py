"""What the published DSpAST computes, computed by ours, from a checkpoint through its conversion.

The golden files and the script of their stand-in weights lie in `BAT_PARITY_DIR` or `../shared/parity`, and are no
part of the repository; `tests/model/encoders/test_dspast_plain.py` needs neither.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.weights import shapes
from transformers import LlamaConfig, LlamaForCausalLM

from batcli.model.checkpoint import load_encoders
from batcli.model.config import DspastConfig
from batcli.model.encoders.dspast import DSpAST
from batcli.model.encoders.transformer import PlaceClasses
from batcli.model.features import dspast_features, spectrum
from batcli.options import ModelOptions
from batcli.prepare.model import model as prepare_model

SHARED = Path(__file__).resolve().parents[2] / "shared/parity"
FOLDERS = [Path(os.environ["BAT_PARITY_DIR"]).resolve()] if os.environ.get("BAT_PARITY_DIR") else []
GOLDEN = next((found for folder in (*FOLDERS, SHARED) if (found := sorted(folder.glob("golden_dspast*.npz")))), [])
SCRIPT = next((path for folder in (*FOLDERS, SHARED) if (path := folder / "dspast_weights.py").is_file()), None)
FEATURES, REST = 5e-4, 2e-4  # tolerances, relative to the largest magnitude of an array, or of a feature

pytestmark = pytest.mark.skipif(not GOLDEN or SCRIPT is None, reason="no golden files of DSpAST are here")


def assert_near(found, golden, tolerance=REST):
    found = np.asarray(found)
    assert found.shape == golden.shape
    assert np.abs(found - golden).max() <= tolerance * np.abs(golden).max()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """`dspast_weights.py`; the `weights` that it imports is the one beside it."""
    assert SCRIPT is not None
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        return importlib.import_module("dspast_weights")
    finally:
        sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def converted(script, tmp_path_factory):
    """salt → run directory made of the stand-in checkpoint, each made once."""
    root = tmp_path_factory.mktemp("dspast")
    LlamaForCausalLM(LlamaConfig(**shapes("llm")["config"])).save_pretrained(root / "llama")

    def convert(salt: int) -> Path:
        run = root / f"run-{salt}"
        if not run.exists():
            torch.save(script.checkpoint(salt), root / "DSpAST-stage3")
            prepare_model(ModelOptions(run=run, encoder=root / "DSpAST-stage3", llm=root / "llama"))
        return run

    yield convert
    shutil.rmtree(root)  # 1 GB that pytest would keep


@pytest.fixture(scope="module", params=GOLDEN, ids=lambda path: path.stem)
def golden(request):
    with np.load(request.param, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def encoder(golden, converted) -> DSpAST:
    return load_encoders(converted(int(golden["salt"])))[0]["dspast"]


@pytest.fixture(scope="module")
def waveform(golden, script):
    kind, salt = str(golden["source"]), int(golden["salt"])
    made = script.scenes(salt) if kind.startswith("scenes") else script.weights.waveforms(salt)
    return torch.from_numpy(made)


@pytest.fixture(scope="module")
def stretched(encoder, waveform):
    with torch.inference_mode():
        return encoder.stretch(encoder.features(spectrum(waveform)))


@pytest.fixture(scope="module")
def tokens(encoder, waveform):
    with torch.inference_mode():
        return encoder.tokenize(waveform, spectrum(waveform))


def test_the_input_is_the_golden_one(golden, waveform):
    assert_near(waveform[..., ::37], golden["waveform_decimated"], 1e-6)


def test_features(golden, encoder, waveform, stretched):
    stft = spectrum(waveform)
    ratio = dspast_features(stft, encoder.mel)[:, 3].clamp_min(1e-26).log()
    assert_near(ratio[:, ::9, ::4], golden["ild_log"], FEATURES)
    for name, found in (
        ("features", encoder.features(stft)[:, :, ::9, ::4]),
        ("features_1024", stretched[:, :, ::17, ::7]),
    ):
        for channel in range(6):
            assert_near(found[:, channel], golden[name][:, channel], FEATURES)


@torch.inference_mode()
def test_branches(golden, encoder, stretched):
    stems = [encoder.get_submodule(f"conv_downsample{number}") for number in (1, 2, 3)]
    assert_near(stretched.mean((2, 3)), golden["pooled"])
    assert_near(torch.stack([stem[0].weights(stretched) for stem in stems], 1), golden["gates"])
    assert_near(torch.stack([encoder.stem(task, stretched)[:, 0, ::17, ::7] for task in range(3)], 1), golden["stems"])
    summaries = [encoder.branch(task, stretched)[0][:, :3] for task in range(3)]
    assert_near(torch.stack(summaries, 1), golden["branch_cls"])


def test_tokens(golden, encoder, tokens):
    assert tokens.shape[1:] == (encoder.count, encoder.dim) == (515, 768)
    assert_near(tokens[:, :3], golden["encoder_cls"])
    assert_near(tokens[:, 3::15], golden["encoder_patches"])


@torch.inference_mode()
def test_heads(golden, encoder, tokens):
    for name, token in zip(("distance", "direction", "event"), encoder.summaries(tokens), strict=True):
        assert_near(token, golden[f"{name}_token"])
    found = encoder.heads(tokens)
    for name, part in zip(("classifier", "distance", "azimuth", "elevation"), found, strict=True):
        assert_near(part, golden[name])


def test_losses_and_scales(golden, encoder, tokens):
    true = PlaceClasses(*torch.from_numpy(golden["labels"]))
    heads = [encoder.get_submodule(f"{name}_head") for name in true._fields]
    assert_near(torch.cat([head.s for head in heads]), golden["adacos_scale_before"])
    with torch.no_grad():
        found = encoder.heads(tokens)
        logits = encoder.train().training_logits(found, true, torch.ones(len(tokens), dtype=torch.bool))
    encoder.eval()
    assert_near(torch.cat([head.s for head in heads]), golden["adacos_scale_after"])
    losses = [
        F.binary_cross_entropy_with_logits(logits.events, torch.from_numpy(golden["event_targets"])),
        *(F.cross_entropy(getattr(logits, name), classes) for name, classes in true._asdict().items()),
    ]
    assert_near(torch.stack(losses), golden["losses"])


def test_names_and_shapes_are_the_published_ones(script):
    shapes = script.json.loads((Path(script.__file__).parent / "dspast.json").read_text())
    with torch.device("meta"):
        encoder = DSpAST(DspastConfig())
    assert {name: list(tensor.shape) for name, tensor in encoder.state_dict().items()} == shapes["tensors"]
    trained = sum(parameter.numel() for parameter in encoder.parameters())
    assert trained == shapes["parameters"]["trained"]
