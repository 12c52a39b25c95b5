"""Stand-ins for the published checkpoints: values that depend on nothing but name, index and salt."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = Path(__file__).parent
BITS = 0xFFFFFFFFFFFFFFFF


def shapes(what):
    """`spatial_ast`, `bat` or `llm`."""
    return json.loads((HERE / f"{what}.json").read_text())


def uniform(name, shape, salt):
    """Uniform values in [-1, 1): splitmix64 of (crc32(name), salt, flat index)."""
    seed = (zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 + salt * 0xD1B54A32D192ED03) & BITS
    with np.errstate(over="ignore"):
        z = np.arange(1, np.prod(shape, dtype=np.int64) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0).reshape(shape)


def value(name, shape, salt):
    """A plausible trained value for the parameter `name`, float32 (a counter: int64)."""
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.asarray(1000, dtype=np.int64)
    u = uniform(name, tuple(shape), salt)
    level = name.startswith("bn.")  # the norm over decibels
    if last == "running_var":
        return (1.0 + 0.5 * u).astype(np.float32) * (400.0 if level else 1.0)
    if last == "running_mean":
        return (0.1 * u).astype(np.float32) - (30.0 if level else 0.0)
    if len(shape) <= 1 and last == "weight":
        return (1.0 + 0.1 * u).astype(np.float32)
    if last == "bias":
        return (0.05 * u).astype(np.float32)
    if last in ("pos_embed", "cls_tokens", "query"):
        return u.astype(np.float32)
    return (1.7 * u / np.sqrt(int(np.prod(shape[1:])))).astype(np.float32)


def fill(tensors, salt):
    """{name: shape} → {name: tensor}."""
    return {name: torch.from_numpy(np.asarray(value(name, shape, salt))) for name, shape in tensors.items()}


def waveforms(salt):
    """Two binaural clips at 32 kHz, the right ear 12 samples behind the left: float32 (2, 2, 320000)."""
    source = uniform("waveform.source", (2, 320000), salt)
    other = uniform("waveform.other", (2, 320000), salt)
    envelope = np.abs(np.sin(2 * np.pi * np.arange(320000) / 32000 * np.array([[1.5], [0.7]])))
    left = 0.3 * envelope * source
    right = 0.6 * np.roll(left, 12, axis=-1) + 0.05 * other
    return np.stack([left, right], axis=1).astype(np.float32)


def front_end():
    """The frozen STFT and mel tensors that the published encoder checkpoint also carries."""
    n = np.arange(1024)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * n / 1024)
    angle = 2 * np.pi * np.outer(np.arange(513), n) / 1024
    return {
        "spectrogram_extractor.conv_real.weight": torch.from_numpy((np.cos(angle) * hann)[:, None].astype(np.float32)),
        "spectrogram_extractor.conv_imag.weight": torch.from_numpy((-np.sin(angle) * hann)[:, None].astype(np.float32)),
        "logmel_extractor.melW": torch.from_numpy(np.load(HERE / "mel_filterbank.npz")["mel"]),
    }


def save_encoder(path, salt):
    torch.save({"model": {**fill(shapes("spatial_ast")["tensors"], salt), **front_end()}}, path)


def save_bat(path, salt):
    torch.save(fill(shapes("bat")["tensors"], salt), path)


def save_llm(folder, salt):
    small = shapes("llm")
    model = LlamaForCausalLM(LlamaConfig(**small["config"]))
    model.load_state_dict(fill(small["tensors"], salt), strict=True)
    model.save_pretrained(folder)
