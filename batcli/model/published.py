"""Read and write the published checkpoints: `finetuned.pth` of Spatial-AST, DSpAST's, `model.pt`; read AudioMAE's.

No code in a file is executed (`weights_only`). A file is refused unless every tensor in it either fits
the model or is dropped by a rule below.
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
from batcli.core.files import require_file, writing
from batcli.data.constants import N_BINS, N_FFT
from batcli.model.bat import BAT, ENCODER_CLASSES
from batcli.model.checkpoint import LORA, disk_errors, require_numbers, require_same
from batcli.model.config import PUBLISHED_ENCODERS, DspastConfig, EncoderConfig, ModelConfig
from batcli.model.encoders.transformer import PatchTransformer
from batcli.model.features import mel_filterbank
from batcli.model.llm import empty_llm
from batcli.model.qformer import Projector

FRONT_END_ERROR = 1e-4
"""Largest relative difference of a frozen front end from ours; another window or scale differs by 1e-2 and more."""

TRAINING_STATE = {"optimizer", "scaler", "epoch", "args"}
"""Entries of the reference training loop beside `model`, which are dropped."""

AN_ENCODER = "an encoder's checkpoint"

DROPPED_FROM_AUDIOMAE = ("cls_token", "pos_embed", "mask_token", "norm.", "fc_norm.", "head.", "decoder_")


def front_end() -> dict[str, Tensor]:
    """Compute the frozen tensors of the published encoders, under their names in the files.

    The STFT as two convolutions, real and imaginary part, (513, 1, 1024) each; the mel filterbank (513, 128).
    """
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
    """Build the model on the meta device, without memory for weights: names and shapes to compare with."""
    with torch.device("meta"):
        return BAT(config, empty_llm(llm))


def require_published(model: BAT) -> PatchTransformer:
    """Return the model's Spatial-AST or DSpAST. Raises InputError if it has neither."""
    if model.published_encoder is None:
        raise InputError("has neither Spatial-AST nor DSpAST", "model configuration")
    return model.published_encoder


def recognise_encoder(path: Path) -> str:
    """Tell whose checkpoint a file is, by the names of its tensors → one of `PUBLISHED_ENCODERS`.

    It is the encoder with which it has more names in common; `read_encoder` then says what is wrong with the rest.
    """
    names = _model_entry(_load(path), path, AN_ENCODER).keys()
    sizes = {"encoder": EncoderConfig(), "dspast": DspastConfig()}
    with torch.device("meta"):
        known = {name: ENCODER_CLASSES[name](sizes[name]).state_dict().keys() for name in PUBLISHED_ENCODERS}
    return max(known, key=lambda name: len(known[name] & names))


def read_encoder(path: Path, model: BAT) -> dict[str, Tensor]:
    """Read a published encoder, `{"model": {name: tensor}}`, as the tensors of the model's Spatial-AST or DSpAST.

    The frozen front end may be missing; if it is there, it is compared with ours and dropped.
    Raises InputError for a tensor that is missing, surplus, of another shape or not finite.
    """
    content = _load(path)
    state = _model_entry(content, path, AN_ENCODER)
    surplus = sorted(map(str, content.keys() - TRAINING_STATE - {"model"}))
    if surplus:
        raise InputError(f"surplus beside 'model': {', '.join(surplus)}", path)
    for name, ours in front_end().items():
        if name in state:
            theirs = _fitted({name: state.pop(name)}, {name: ours}, path)[name]
            if (theirs - ours).abs().max() > FRONT_END_ERROR * ours.abs().max():
                raise InputError(f"{name} is not the published front end", path, "this encoder hears other features")
    fitted = _fitted(state, require_published(model).state_dict(), path)
    return {f"{model.config.published_encoder}.{name}": tensor for name, tensor in fitted.items()}


def read_audiomae(path: Path, encoder: PatchTransformer) -> dict[str, Tensor]:
    """Read AudioMAE's ViT, `{"model": {name: tensor}}`, as the tensors of the encoder's patch embedding and blocks.

    Class token, positions, last norm, head and decoder are dropped: the published trainings, too, start them
    from random weights. Huang et al. 2022, "Masked Autoencoders that Listen".
    Raises InputError for a tensor that is missing, surplus or of another shape.
    """
    expected = {k: v for k, v in encoder.state_dict().items() if k.startswith(("patch_embed.", "blocks."))}
    state = _model_entry(_load(path), path, "an AudioMAE checkpoint")
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(DROPPED_FROM_AUDIOMAE)}
    return _fitted(kept, expected, path)


def read_bat(path: Path, model: BAT) -> dict[str, Tensor]:
    """Read `model.pt`, `{name: tensor}`, as the tensors of `model.projector` and of the LoRA in `model.llm`."""
    state = _fitted(_tensors(_load(path), path), to_published(model.state_dict()), path)
    ours = {name: name.removeprefix("encoder_") if name.startswith("encoder_projector.") else name for name in state}
    return {ours[name]: tensor for name, tensor in state.items()}


def fresh_bat(model: BAT, seed: int) -> dict[str, Tensor]:
    """Random weights for the tensors that `read_bat` returns."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = require_published(model)
        projector = Projector(model.config.qformer, encoder.dim, model.projector.linear.out_features)
        state = {f"projector.{name}": tensor for name, tensor in projector.state_dict().items()}
        for name, like in model.state_dict().items():
            if LORA in name:
                state[name] = torch.zeros(like.shape)
                if "lora_A" in name:
                    nn.init.kaiming_uniform_(state[name], a=math.sqrt(5))  # as PEFT does; lora_B is zero
    return state


def write_encoder(path: Path, state: Mapping[str, Tensor], name: str) -> None:
    """Write the tensors of the encoder `name` of a BAT as its published file, with the frozen front end."""
    prefix = f"{name}."
    encoder = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
    _save(path, {"model": {**encoder, **front_end()}})


def write_bat(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write the projector's and LoRA's tensors of a BAT as a `model.pt`."""
    _save(path, to_published(state))


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a BAT that a `model.pt` holds, under their names in it."""
    projector = {f"encoder_{name}": tensor for name, tensor in state.items() if name.startswith("projector.")}
    return {**projector, **{name: tensor for name, tensor in state.items() if LORA in name}}


def _load(path: Path) -> dict[str, Any]:
    """Load a file of `torch.save`, memory-mapped. Raises InputError if it is damaged or no dictionary."""
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
    except Exception as error:  # of many types, from zipfile, pickle and torch
        raise InputError(f"refused, nothing in it was run: {type(error).__name__}: {error!s:.200}", path) from None
    if not isinstance(content, dict):
        raise InputError(f"a {type(content).__name__}, not a dictionary of tensors", path)
    return content


def _model_entry(content: Mapping[str, Any], path: Path, kind: str) -> dict[str, Tensor]:
    if not isinstance(content.get("model"), dict):
        raise InputError("no 'model' in it", path, f'{kind} is {{"model": {{name: tensor}}}}')
    return _tensors(content["model"], path)


def _tensors(content: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Raise InputError unless all values are tensors under string keys."""
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{name!r:.80} is a {type(value).__name__}, not a named tensor", path)
    return dict(content)


def _fitted(state: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return `state` in the order and types of `expected`. Raises InputError if names or shapes differ."""
    require_same({name: tuple(tensor.shape) for name, tensor in state.items()}, expected, path)
    require_numbers(state, expected, path)
    return {name: state[name].to(like.dtype) for name, like in expected.items()}


def _save(path: Path, content: dict[str, Any]) -> None:
    # To an open file: torch refuses the temporary name of a file without a suffix, as DSpAST's are.
    with writing(path, "wb") as file, disk_errors(path):
        torch.save(content, file)
