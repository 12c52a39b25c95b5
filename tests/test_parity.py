"""What the published implementation computes, computed by ours, through the checkpoints' conversion.

`BAT_PARITY_DIR` names a folder of `golden_*.npz`; without it, the made-up case kept in `tests/parity`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from batcli.audio.render import RenderSettings, render_files
from batcli.model.checkpoint import load_run
from batcli.model.tokens import IGNORED, collate, collate_prompts
from batcli.options import ModelOptions
from batcli.prepare.model import model as prepare_model
from batcli.training.losses import answer_loss

HERE = Path(__file__).parent / "parity"
FOLDER = Path(os.environ.get("BAT_PARITY_DIR") or HERE).resolve()
GOLDEN = sorted(path for path in FOLDER.glob("golden_*.npz") if not path.stem.startswith("golden_dspast"))
PAD, END = 0, 2

spec = importlib.util.spec_from_file_location("parity_weights", HERE / "weights.py")
weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(weights)


def assert_near(found, golden, tolerance):
    """Relative to the largest magnitude of the golden array."""
    found = np.asarray(found)
    assert found.shape == golden.shape
    assert np.abs(found - golden).max() <= tolerance * np.abs(golden).max()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """salt → (folder with the stand-in checkpoints, run directory made of them), each made once."""
    root = tmp_path_factory.mktemp("parity")
    made = {}

    def convert(salt):
        if salt not in made:
            folder = root / str(salt)
            folder.mkdir()
            weights.save_encoder(folder / "finetuned.pth", salt)
            weights.save_bat(folder / "model.pt", salt)
            weights.save_llm(folder / "llama", salt)
            prepare_model(options(folder, "run"))
            made[salt] = folder
        return made[salt]

    yield convert
    shutil.rmtree(root)  # 1.2 GB that pytest would keep


def options(folder, run):
    return ModelOptions(
        run=folder / run, encoder=folder / "finetuned.pth", checkpoint=folder / "model.pt", llm=folder / "llama"
    )


@pytest.fixture(scope="module", params=GOLDEN, ids=lambda path: path.stem)
def golden(request):
    with np.load(request.param, allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def model(golden, converted):
    return load_run(converted(int(golden["salt"])) / "run")[0]


@pytest.fixture(scope="module")
def waveform(golden):
    if golden["source"][0] == "synthetic":
        return weights.waveforms(int(golden["salt"]))
    real = next((f for f in (FOLDER.parent / "real", HERE.parents[2] / "shared/real") if f.is_dir()), None)
    if real is None:
        pytest.skip("the clips and BRIRs of `real` are not here")
    scenes = [[real / name for name in names.split()] for names in golden["source"]]
    published = RenderSettings(rendering="published")
    return np.stack([render_files(list(zip(names[::2], names[1::2], strict=True)), published) for names in scenes])


def test_what_the_fast_rendering_changes_at_the_encoders_output(converted, shared):
    """A real clip with silence in it, in a real room, heard with stand-in weights: README has the figures of twelve."""
    model = load_run(converted(1) / "run")[0]
    files = [(shared / "real/YCqvbWnTBfTk.wav", shared / "real/74.npy")]
    scenes = [render_files(files, RenderSettings(rendering=rendering)) for rendering in ("fast", "published")]
    with torch.inference_mode():
        fast, published = (model.encode(torch.from_numpy(scene)[None])["encoder"] for scene in scenes)
    difference = ((fast - published).square().mean() / published.square().mean()).sqrt()
    assert 1e-3 < difference < 0.03


@pytest.fixture(scope="module")
def encoding(model, waveform):
    with torch.inference_mode():
        return model.encode(torch.from_numpy(waveform))


@pytest.fixture(scope="module")
def ids(golden):
    """(prompts, answers), without the padding."""
    return [[[i for i in row if i >= 0] for row in golden[name].tolist()] for name in ("prompt_ids", "answer_ids")]


def test_golden_files_are_there():
    assert GOLDEN, f"no golden_*.npz in {FOLDER}"


def test_rendering(golden, waveform):
    assert_near(waveform[..., ::37], golden["waveform_decimated"], 1e-5)
    assert_near(np.sqrt((waveform.astype(np.float64) ** 2).mean(-1)), golden["waveform_rms"], 1e-5)


def test_encoder(golden, encoding):
    assert_near(encoding["encoder"][:, :3], golden["encoder_cls"], 1e-3)
    assert_near(encoding["encoder"][:, 3::16], golden["encoder_patches"], 1e-3)
    assert encoding["encoder"].shape[1:] == (515, 768)
    assert list(encoding) == ["encoder"]


def test_heads(golden, model, encoding):
    with torch.inference_mode():
        readings = model.encoder.heads(encoding["encoder"])
    for name, logits in zip(("classifier", "distance", "azimuth", "elevation"), readings, strict=True):
        assert_near(logits, golden[name], 1e-3)


def test_qformer(golden, model, encoding):
    with torch.inference_mode():
        assert_near(model.audio_embeddings(encoding), golden["qformer"], 2e-3)


def test_loss_and_logits(golden, model, encoding, ids):
    batch = collate(*ids, PAD, END)
    with torch.inference_mode():
        logits = model(encoding, batch)
    assert_near(logits[batch.labels != IGNORED], golden["logits_answer"], 2e-3)
    assert_near(answer_loss(logits, batch.labels), golden["loss"], 1e-3)


@pytest.mark.parametrize("beams", [1, 4])
def test_generation(golden, model, encoding, ids, beams):
    expected = golden[f"generated_beam{beams}"]
    together = model.generate(encoding, collate_prompts(ids[0], PAD), PAD, END, beams, expected.shape[1])
    assert together.tolist() == expected.tolist()
    for n, prompt in enumerate(ids[0]):
        one = encoding.select([n])
        alone = model.generate(one, collate_prompts([prompt], PAD), PAD, END, beams, expected.shape[1])
        assert alone.tolist() == expected[n : n + 1].tolist()


def test_round_trip(converted):
    """Convert, export, convert again: the same tensors, and the exported files hold what the given ones held."""
    salt = int(np.load(GOLDEN[0])["salt"])
    folder = converted(salt)
    again = folder / "again"
    again.mkdir()
    prepare_model(ModelOptions(run=folder / "run", export=again / "model.pt", export_encoder=again / "finetuned.pth"))
    (again / "llama").symlink_to(folder / "llama")
    for name in ("finetuned.pth", "model.pt"):
        given, exported = (torch.load(f / name, weights_only=True, mmap=True) for f in (folder, again))
        given, exported = given.get("model", given), exported.get("model", exported)
        assert given.keys() == exported.keys()
        for key, tensor in given.items():
            torch.testing.assert_close(exported[key], tensor, rtol=0, atol=1e-6 if key in weights.front_end() else 0)
    prepare_model(options(again, "run"))
    for name in ("encoder.safetensors", "projector.safetensors", "adapter/adapter_model.safetensors"):
        assert (folder / "run" / name).read_bytes() == (again / "run" / name).read_bytes()
