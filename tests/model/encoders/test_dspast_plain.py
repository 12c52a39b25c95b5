"""DSpAST against its description, written out step by step in float64, with several made-up sets of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from parity.weights import uniform, value

from batcli.model.config import DspastConfig
from batcli.model.encoders.dspast import DSpAST
from batcli.model.features import dspast_features, mel_filterbank, spectrum

CONFIG = DspastConfig(seconds=1.0, n_classes=9, dim=24, depth=2, heads=2, branch_dim=8)
SALTS = (1, 2, 3)
FEATURES, REST = 5e-4, 2e-4  # relative to the largest magnitude of an array, or of a feature


def weights(salt):
    """Plausible trained values of all tensors, float64."""

    def made(name, tensor):
        shape, last = tuple(tensor.shape), name.rsplit(".", 1)[-1]
        u = uniform(name, shape, salt)
        if name.startswith("bn_ild.") and last.startswith("running"):
            return {"mean": 1e6, "var": 1e13}[last.removeprefix("running_")] * (1 + 0.5 * u)
        if last.startswith("cls_tokens"):
            return u
        if last in ("s", "pi", "pos_embed"):
            return tensor.numpy()
        return value(name, shape, salt)

    # Rounded to float32, which ours holds.
    state = DSpAST(CONFIG).state_dict()
    return {name: torch.from_numpy(np.asarray(made(name, t))).to(t.dtype).double() for name, t in state.items()}


def scenes(salt):
    """Two scenes, float64 (2, 2, 32000): the left ear louder and earlier; two sources, then digital silence."""
    n = CONFIG.samples
    one, other = (uniform(f"scene.{name}", (n,), salt) for name in "ab")
    smooth = sum(np.roll(one, k) for k in range(8)) / 8
    near = np.stack([smooth, 10 ** (-14 / 20) * np.roll(smooth, 20)])
    both = np.stack([one + 0.5 * np.roll(other, 17), 0.7 * np.roll(one, 9) + other])
    both[:, n // 2 :] = 0
    return (0.3 * np.stack([near, both]) + 0.001 * uniform("scene.noise", (2, 2, n), salt) * (both != 0)).astype(
        np.float32
    )


def transform(wave):
    """Hann-windowed frames of 1024 samples, 320 apart, centred, mirrored at the ends: complex (B, 2, T, 513)."""
    padded = np.pad(wave.astype(np.float64), ((0, 0), (0, 0), (512, 512)), mode="reflect")
    frames = np.stack([padded[..., s : s + 1024] for s in range(0, padded.shape[-1] - 1023, 320)], 2)
    return np.fft.rfft(frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)))


def six_features(wave):
    """Level left and right (dB), correlation, ratio, cosine and sine: (B, 6, T, 128)."""
    x, mel = transform(wave), mel_filterbank().astype(np.float64)
    level = 10 * np.log10(np.maximum(np.abs(x) @ mel, 1e-10))
    cross = x[:, 0] * x[:, 1].conj()
    angle = np.where(cross == 0, 0, np.angle(cross))  # −0.0 has the angle π
    correlation = np.fft.irfft(np.exp(1j * angle), 1024)
    ratio = np.exp(level[:, 0]) / (np.exp(level[:, 1]) + 1e-16)
    left, right = (np.where(x[:, ear] == 0, 0, np.angle(x[:, ear])) for ear in (0, 1))
    parts = [
        *(level[:, 0], level[:, 1], np.concatenate([correlation[..., -64:], correlation[..., :64]], -1), ratio),
        *(np.cos(right - left) @ mel, np.sin(right - left) @ mel),
    ]
    return torch.from_numpy(np.stack(parts, 1))


def plain(state, wave):
    """Arrays by name: features, gates, stems, tokens, heads."""
    x = six_features(wave)

    def norm(x, name):
        shape = (1, -1, 1, 1)[: x.ndim]
        mean, var = (state[f"{name}.running_{what}"].view(shape) for what in ("mean", "var"))
        return (x - mean) / (var + 1e-5).sqrt()

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def layer_norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    x = torch.cat([norm(x[:, :2], "bn"), x[:, 2:3], norm(x[:, 3:4], "bn_ild"), x[:, 4:]], 1)
    stretched = F.interpolate(x, (CONFIG.frames, 128), mode="bicubic", align_corners=True)
    gates, stems, branches = [], [], []
    for b in (1, 2, 3):
        part = f"conv_downsample{b}"
        pooled = norm(stretched.mean((2, 3)), f"{part}.0.bn")
        gate = linear(linear(pooled, f"{part}.0.fc.0").relu(), f"{part}.0.fc.2").sigmoid()
        stem = norm(F.conv2d(stretched * gate[:, :, None, None], state[f"{part}.1.weight"], padding=1), f"{part}.2")
        stem = F.gelu(stem * state[f"{part}.2.weight"] + state[f"{part}.2.bias"])
        patches = F.conv2d(stem, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
        patches = patches.flatten(2).mT + state["pos_embed"][:, 1:]
        y = torch.cat([state[f"cls_tokens{b}"].expand(len(x), -1, -1), patches], 1)
        for i in range(CONFIG.depth):
            block = f"blocks.{i}"
            q, k, v = linear(layer_norm(y, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
            q, k, v = (t.unflatten(-1, (CONFIG.heads, -1)).transpose(1, 2) for t in (q, k, v))
            attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
            y = y + linear(attention.transpose(1, 2).flatten(2), f"{block}.attn.proj")
            y = y + linear(F.gelu(linear(layer_norm(y, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
        gates.append(gate)
        stems.append(stem[:, 0])
        branches.append(linear(y, f"pre_head{b}"))
    distance, direction, event = (branch[:, :3].mean(1) for branch in branches)
    classes = [state[f"{name}_head.W"] for name in ("distance", "azimuth", "elevation")]
    cosines = [
        (token / token.norm(dim=-1, keepdim=True)) @ (rows / rows.norm(dim=-1, keepdim=True)).T
        for token, rows in zip((distance, direction, direction), classes, strict=True)
    ]
    heads = [linear(layer_norm(event, "fc_norm"), "head"), *cosines]
    return {"features": x, "gates": gates, "stems": stems, "tokens": [torch.cat(branches, -1)], "heads": heads}


def assert_near(found, expected, tolerance):
    expected = expected.numpy()
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("salt", SALTS)
@torch.inference_mode()
def test_every_step_is_as_described(salt):
    state, wave = weights(salt), scenes(salt)
    expected = plain(state, wave)
    encoder = DSpAST(CONFIG)
    encoder.load_state_dict(state)
    encoder.eval()
    stft = spectrum(torch.from_numpy(wave))
    features = encoder.features(stft)
    for channel in range(6):
        assert_near(features[:, channel], expected["features"][:, channel], FEATURES)
    stretched = encoder.stretch(features)
    for task, number in enumerate((1, 2, 3)):
        attention = encoder.get_submodule(f"conv_downsample{number}.0")
        assert_near(attention.weights(stretched), expected["gates"][task], REST)
        assert_near(encoder.stem(task, stretched)[:, 0], expected["stems"][task], REST)
    tokens = encoder(torch.from_numpy(wave))
    assert_near(tokens, expected["tokens"][0], REST)
    for found, part in zip(encoder.heads(tokens), expected["heads"], strict=True):
        assert_near(found, part, REST)


@pytest.mark.parametrize("salt", SALTS)
def test_the_logarithm_of_the_ratio_is_as_described(salt):
    """The ratio's own scale is that of its few largest values."""
    wave = scenes(salt)
    found = dspast_features(spectrum(torch.from_numpy(wave)), torch.from_numpy(mel_filterbank()))[:, 3]
    assert_near(found.clamp_min(1e-26).log(), six_features(wave)[:, 3].clamp_min(1e-26).log(), FEATURES)
