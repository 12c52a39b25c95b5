"""The published checkpoints, `finetuned.pth` and `model.pt`, in and out: the only way for foreign weights.

Nothing in a file is executed (`weights_only`), and every tensor is accounted for: it has a place in
the model and fits it, or a rule below drops it, or the file is refused.
"""

from __future__ import annotations

import argparse
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from batcli.core.errors import InputError
from batcli.core.files import replacing, require_file
from batcli.data.constants import N_BINS, N_FFT
from batcli.model.bat import BAT
from batcli.model.checkpoint import LORA, disk_errors, require_numbers, require_same
from batcli.model.config import ModelConfig
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.model.features import mel_filterbank
from batcli.model.llm import empty_llm
from batcli.model.qformer import Projector

FRONT_END_ERROR = 1e-4
"""Largest relative difference of a frozen front end from ours; another window or scale differs by 1e-2 and more."""

TRAINING_STATE = {"optimizer", "scaler", "epoch", "args"}
"""Entries that the reference training loop saves beside `model`; of no use to a trained encoder, so dropped."""

LEFT_OF_AUDIOMAE = ("cls_token", "pos_embed", "mask_token", "norm.", "fc_norm.", "head.", "decoder_")


def front_end() -> dict[str, Tensor]:
    """The frozen tensors of the published encoder: the STFT as convolutions, and the mel filterbank."""
    time = np.arange(N_FFT)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * time / N_FFT)  # Hann, periodic
    kernel = np.exp(-2j * np.pi * (np.outer(np.arange(N_BINS), time) % N_FFT) / N_FFT) * window
    kernel = kernel[:, None].astype(np.complex64)
    return {
        "spectrogram_extractor.conv_real.weight": torch.from_numpy(kernel.real.copy()),
        "spectrogram_extractor.conv_imag.weight": torch.from_numpy(kernel.imag.copy()),
        "logmel_extractor.melW": torch.from_numpy(mel_filterbank().copy()),
    }


def empty_model(config: ModelConfig, llm: Path) -> BAT:
    """The model without memory for its weights (on the meta device): names and shapes to compare with."""
    with torch.device("meta"):
        return BAT(config, empty_llm(llm))


def require_spatial_ast(model: BAT) -> SpatialAST:
    """Raises InputError for a model without one, which no published checkpoint fits."""
    if model.encoder is None:
        raise InputError("has no Spatial-AST", "model configuration")
    return model.encoder


def read_encoder(path: Path, model: BAT) -> dict[str, Tensor]:
    """`finetuned.pth`, `{"model": {name: tensor}}`, as the tensors of `model.encoder`.

    The frozen front end is compared with ours and dropped; it may be left out.
    Raises InputError for anything that is missing, surplus, of another shape, or no finite number.
    """
    content = _load(path)
    if not isinstance(content.get("model"), dict):
        raise InputError("no 'model' in it", path, 'a Spatial-AST checkpoint is {"model": {name: tensor}}')
    surplus = sorted(map(str, content.keys() - TRAINING_STATE - {"model"}))
    if surplus:
        raise InputError(f"surplus beside 'model': {', '.join(surplus)}", path)
    state = _tensors(content["model"], path)
    for name, ours in front_end().items():
        if name in state:
            theirs = state.pop(name)
            theirs = _fitted({name: theirs}, {name: ours}, path)[name]
            if (theirs - ours).abs().max() > FRONT_END_ERROR * ours.abs().max():
                raise InputError(f"{name} is not the published front end", path, "this encoder hears other features")
    return {
        f"encoder.{name}": tensor
        for name, tensor in _fitted(state, require_spatial_ast(model).state_dict(), path).items()
    }


def read_audiomae(path: Path, encoder: SpatialAST) -> dict[str, Tensor]:
    """AudioMAE's ViT, `{"model": {name: tensor}}`, as the tensors of the encoder that it has: patches and blocks.

    Its class token, positions, last norm, head and decoder have no place here (Spatial-AST starts them
    afresh, too) and are left out by name. Huang et al. 2022, "Masked Autoencoders that Listen".
    Raises InputError for a block or patch tensor that is missing or of another shape, and for any other tensor.
    """
    content = _load(path)
    if not isinstance(content.get("model"), dict):
        raise InputError("no 'model' in it", path, 'an AudioMAE checkpoint is {"model": {name: tensor}}')
    wanted = {k: v for k, v in encoder.state_dict().items() if k.startswith(("patch_embed.", "blocks."))}
    state = _tensors(content["model"], path)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(LEFT_OF_AUDIOMAE)}
    return _fitted(kept, wanted, path)


def read_bat(path: Path, model: BAT) -> dict[str, Tensor]:
    """`model.pt`, `{name: tensor}`, as the tensors of `model.projector` and the LoRA of `model.llm`."""
    found = _fitted(_tensors(_load(path), path), to_published(model.state_dict()), path)
    return {_our_name(name): tensor for name, tensor in found.items()}


def fresh_bat(model: BAT, seed: int) -> dict[str, Tensor]:
    """The model that `read_bat` returns, before any training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = require_spatial_ast(model)
        projector = Projector(model.config.qformer, encoder.dim, model.projector.linear.out_features)
        state = {f"projector.{name}": tensor for name, tensor in projector.state_dict().items()}
        for name, like in model.state_dict().items():
            if LORA in name:
                state[name] = torch.zeros(like.shape)
                if "lora_A" in name:
                    nn.init.kaiming_uniform_(state[name], a=math.sqrt(5))  # as PEFT does; lora_B is zero
    return state


def write_encoder(path: Path, state: Mapping[str, Tensor]) -> None:
    """The encoder's tensors as a `finetuned.pth`, with the frozen front end."""
    encoder = {name.removeprefix("encoder."): tensor for name, tensor in state.items() if name.startswith("encoder.")}
    _save(path, {"model": {**encoder, **front_end()}})


def write_bat(path: Path, state: Mapping[str, Tensor]) -> None:
    """The projector's and LoRA's tensors as a `model.pt`."""
    _save(path, to_published(state))


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a BAT that a `model.pt` holds, under its names."""
    projector = {f"encoder_{name}": tensor for name, tensor in state.items() if name.startswith("projector.")}
    return {**projector, **{name: tensor for name, tensor in state.items() if LORA in name}}


def _our_name(name: str) -> str:
    return name.removeprefix("encoder_") if name.startswith("encoder_projector.") else name


def _load(path: Path) -> dict[str, Any]:
    """A file of `torch.save`, mapped into memory: a tensor that is not used is not read."""
    require_file(path)
    try:
        if not zipfile.is_zipfile(path):
            raise InputError("not a file of torch.save, or cut short", path)
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise InputError("holds compressed records, which torch.save never writes", path)
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                raise InputError("its records lie upon one another", path)
            damaged = archive.testzip()
        if damaged:
            raise InputError(f"damaged: the checksum of {damaged} is wrong", path)
        # The reference training loop keeps its options as a Namespace, which is data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except Exception as error:  # zipfile's, pickle's and torch's many ways to say no
        raise InputError(f"refused, nothing in it was run: {type(error).__name__}: {error!s:.200}", path) from None
    if not isinstance(content, dict):
        raise InputError(f"a {type(content).__name__}, not a dictionary of tensors", path)
    return content


def _tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{name!r:.80} is a {type(value).__name__}, not a named tensor", path)
    return dict(content)


def _fitted(state: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`state` in the order and types of `expected`, or InputError."""
    require_same({name: tuple(tensor.shape) for name, tensor in state.items()}, expected, path)
    require_numbers(state, expected, path)
    return {name: state[name].to(like.dtype) for name, like in expected.items()}


def _save(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as temporary, disk_errors(path):
        torch.save(content, temporary)
