"""Run directories: save a model as safetensors, and load it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from batcli.core.errors import InputError
from batcli.core.files import TEMPORARY, replacing, require_directory, require_file, write_json, write_text
from batcli.core.manifest import describe
from batcli.core.toml import read_toml, to_toml
from batcli.data.constants import RENDERINGS
from batcli.model.bat import BAT, Encoders
from batcli.model.config import ENCODERS, ModelConfig
from batcli.model.llm import WEIGHTS, is_finite, load_llm, load_tokenizer, peft_options, quiet_transformers

CONFIG = "config.toml"
MANIFEST = "manifest.json"
ENCODER = "encoder.safetensors"  # of all encoders: encoder.*, sources.*
PROJECTOR = "projector.safetensors"  # projector.*
ADAPTER = "adapter"  # LoRA, a PEFT directory
ADAPTER_WEIGHTS = "adapter_model.safetensors"
LLM = "llm"  # the language model and its tokenizer, if trained from random weights
TOKENIZER = "tokenizer"
DONE = "DONE"  # written last: the run is finished

ENCODER_PARTS = tuple(f"{name}." for name in ENCODERS)
PROJECTOR_PARTS = ("projector.",)
LORA = ".lora_"
BLOCK = 1 << 20  # bytes that `fingerprint` reads at each end of a file
FLOATING = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
SHOWN = 5  # names in an error


# ---- writing -----------------------------------------------------------------------------------------


def write_config(run: Path, config: ModelConfig, tables: Mapping[str, Mapping[str, Any]], llm: Path | None) -> None:
    """Write `config.toml`: `tables` (the command's options) and `model_tables`."""
    write_text(run / CONFIG, to_toml({**tables, **model_tables(config, llm)}))


def model_tables(config: ModelConfig, llm: Path | None) -> dict[str, dict[str, Any]]:
    """Tables of `config.toml`: the model's sizes, path and hash of a language model from elsewhere."""
    sizes = {f"model.{name}": part for name, part in config.to_dict().items()}
    base = {} if llm is None else {"language_model": {"path": llm.resolve(), "sha256": fingerprint(llm)}}
    return {**sizes, **base}


def save_run(
    run: Path,
    model: BAT,
    tokenizer: PreTrainedTokenizerBase | None,
    llm: Path | None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write all weights but those of a language model from elsewhere (`llm`, its directory), and the tokenizer.

    `state`: the model's tensors, if the model itself holds only shards of them.
    """
    state = model.state_dict() if state is None else state
    save_weights(run, state, model.config, llm)
    if model.config.llm is not None:
        own = {name.removeprefix("llm."): tensor for name, tensor in state.items() if name.startswith("llm.")}
        _save_directory(run / LLM, partial(model.llm.save_pretrained, state_dict=own), tokenizer)
    elif tokenizer is not None:
        save_tokenizer(run, tokenizer)


def save_weights(run: Path, state: Mapping[str, Tensor], config: ModelConfig, llm: Path | None) -> None:
    """Write encoder, projector and LoRA from the tensors of a `BAT`."""
    save_encoder(run, state)
    write_tensors(run / PROJECTOR, select(state, PROJECTOR_PARTS))
    if config.lora is not None:
        save_adapter(run, state, config, llm)


def save_tokenizer(run: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokenizer of a language model from elsewhere."""
    _save_directory(run / TOKENIZER, tokenizer)


def save_encoder(run: Path, state: Mapping[str, Tensor]) -> None:
    """Write all encoders from the tensors of a `BAT`."""
    write_tensors(run / ENCODER, select(state, ENCODER_PARTS))


def save_adapter(run: Path, state: Mapping[str, Tensor], config: ModelConfig, llm: Path | None) -> None:
    """Write LoRA as PEFT does, so that `PeftModel.from_pretrained(llm, run / "adapter")` gives the same model."""
    assert config.lora is not None
    options = peft_options(config.lora)
    options.inference_mode = True
    options.base_model_name_or_path = None if llm is None else str(llm.resolve())
    (run / ADAPTER).mkdir(parents=True, exist_ok=True)
    options.save_pretrained(str(run / ADAPTER))
    write_tensors(run / ADAPTER / ADAPTER_WEIGHTS, {adapter_name(k): v for k, v in state.items() if LORA in k})


def finish(run: Path, **facts: Any) -> None:
    """Write the manifest with `facts`, then `DONE`."""
    write_json(run / MANIFEST, describe(**facts))
    write_text(run / DONE, "")


def write_tensors(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, complete or not at all. Raises InputError if a tensor is not finite."""
    for name, tensor in state.items():
        if not is_finite(tensor):
            raise InputError(f"{name} is not finite; nothing was saved", path)
    with replacing(path) as temporary, disk_errors(path):
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, temporary)
        _make_readable(temporary)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the errors of safetensors and of torch's zip writer on a full disk into InputError."""
    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise  # not from the zip writer
        raise InputError(f"cannot be written: {error!s:.200}", path, "is there space on the disk?") from None


def _save_directory(folder: Path, *parts: Any) -> None:
    """Save parts to a directory that gets its name when it is complete.

    A part has `save_pretrained(folder)`, or is such a function.
    """
    quiet_transformers()
    temporary = folder.with_name(TEMPORARY + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    with disk_errors(folder):
        for part in parts:
            getattr(part, "save_pretrained", part)(temporary)
    for path in temporary.glob("*.safetensors"):
        _make_readable(path)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _make_readable(path: Path) -> None:
    """Set the permissions of any new file; safetensors lets only the owner read."""
    umask = os.umask(0o077)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


# ---- reading -----------------------------------------------------------------------------------------


def load_run(
    run: Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    quantize: bool = False,
    attention: str = "sdpa",
    llm: Path | None = None,
    read_llm: bool = True,
) -> tuple[BAT, PreTrainedTokenizerBase | None, ModelConfig]:
    """Load a finished run → (model in evaluation mode, tokenizer if it has one, sizes).

    `dtype`, `quantize`, `attention`, `read_llm`: of the language model, as in `load_llm`; the rest is float32.
    `llm`: directory of the language model, if it was moved.
    Raises InputError for a tensor that is missing, surplus or of another shape, or another language model, and for
    a run that holds encoders alone.
    """
    require_finished(run)
    config = read_config(run)
    if holds_encoders_alone(run):
        hint = f"train the rest: bat train DATA -o NEW --init {run} --stages 1,2,3 --llm DIR"
        raise InputError("holds an encoder without a language model", run, hint)
    own = config.llm is not None
    folder = run / LLM if own else llm_folder(run, llm)
    tokens = run / LLM if own else run / TOKENIZER
    tokenizer = load_tokenizer(tokens) if tokens.is_dir() else None
    loaded = load_llm(folder, dtype, device, quantize, attention, read_llm)
    if tokenizer is not None:
        _require_embeddings(tokenizer, loaded, tokens)
    with torch.device("meta"):  # no memory for the weights that are read next
        model = BAT(config, loaded)
    model.load_state_dict({**read_encoder(run, model), **read_bat(run, model)}, strict=False, assign=True)
    if torch.device(device).type != "cpu":
        model.to(device)
    return model.eval(), tokenizer, config


def holds_encoders_alone(run: Path) -> bool:
    """Whether a run was trained without a language model, and so holds encoders and nothing else.

    Its `config.toml` has the sizes of the other parts, too, which stages 1 to 3 add.
    """
    return read_config(run).llm is None and "language_model" not in read_toml(run / CONFIG)


def load_encoders(run: Path, device: str | torch.device = "cpu") -> tuple[Encoders, ModelConfig]:
    """Load the encoders of a finished run, and nothing else → (encoders in evaluation mode by name, sizes)."""
    config = read_config(require_finished(run))
    encoders = Encoders(config)
    encoders.load_state_dict(read_encoder(run, encoders))
    return encoders.to(device).eval(), config


def _require_embeddings(tokenizer: PreTrainedTokenizerBase, llm: PreTrainedModel, folder: Path) -> None:
    """Raise InputError if the tokenizer has an id that the language model has no embedding for."""
    embedding: Any = llm.get_input_embeddings()
    count = len(embedding.weight)
    ids = [tokenizer.vocab_size - 1, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    if (largest := max(number for number in ids if number is not None)) >= count:
        raise InputError(f"a token has number {largest:,}, the language model knows {count:,}", folder)


def read_bat(run: Path, model: BAT) -> dict[str, Tensor]:
    """Read the tensors of projector and LoRA under their names in `model`."""
    expected = model.state_dict()
    state = read_tensors(run / PROJECTOR, select(expected, PROJECTOR_PARTS))
    lora = {name: tensor for name, tensor in expected.items() if LORA in name}
    if lora:
        wanted = {adapter_name(name): tensor for name, tensor in lora.items()}
        tensors = read_tensors(run / ADAPTER / ADAPTER_WEIGHTS, wanted)
        state.update({name: tensors[adapter_name(name)] for name in lora})
    return state


def read_encoder(run: Path, model: nn.Module) -> dict[str, Tensor]:
    """Read the tensors of all encoders under their names in `model`, a `BAT` or its encoders alone.

    The run need not be finished.
    """
    return read_tensors(run / ENCODER, select(model.state_dict(), ENCODER_PARTS))


def require_finished(run: Path) -> Path:
    """Return `run`; raises InputError if it is no finished run directory."""
    require_directory(run, "make one with `bat train` or `bat prepare model`")
    if not (run / DONE).is_file():
        raise InputError("not a finished run", run, f"{DONE} is written last; run the command again")
    return run


def read_config(run: Path) -> ModelConfig:
    """Read the model's sizes from `config.toml`."""
    return ModelConfig.from_dict(read_toml(run / CONFIG).get("model", {}), f"{run / CONFIG} [model]")


def read_rendering(run: Path) -> str:
    """How the scenes were rendered that the run was trained on: one of RENDERINGS, from `config.toml`."""
    scenes = read_toml(run / CONFIG).get("scenes", {})
    rendering = scenes.get("rendering", read_config(run).usual_rendering) if isinstance(scenes, dict) else None
    if rendering not in RENDERINGS:
        known = f"known: {', '.join(RENDERINGS)}"
        raise InputError(f"names no rendering that is known: {rendering!r:.40}", f"{run / CONFIG} [scenes]", known)
    return rendering


def llm_folder(run: Path, moved: Path | None = None) -> Path:
    """Directory of the language model that the run was made with, `moved` if given.

    Raises InputError if its fingerprint differs from the recorded one.
    """
    base = read_toml(run / CONFIG).get("language_model", {})
    if not isinstance(base, dict) or not isinstance(base.get("path"), str):
        raise InputError("[language_model] names no path", run / CONFIG)
    folder = require_directory(moved or Path(base["path"]), "the run needs its language model")
    if fingerprint(folder) != base.get("sha256"):
        raise InputError("not the language model that this run was made with", folder, f"see {run / CONFIG}")
    return folder


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read a safetensors file to the CPU.

    Raises InputError unless names, shapes and kinds of numbers are exactly those of `expected`, and all are finite.
    """
    require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 -- no mapping
            require_same({name: tuple(part.get_shape()) for name, part in slices.items()}, expected, path)
            state = {name: file.get_tensor(name) for name in slices}
    except SafetensorError as error:
        raise InputError(f"damaged: {error}", path) from None
    require_numbers(state, expected, path)
    return state


# ---- names, shapes, hashes ---------------------------------------------------------------------------


def select(state: Mapping[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Tensors whose names start with one of the prefixes."""
    return {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}


def adapter_name(name: str) -> str:
    """Name in BAT (`llm.….lora_A.default.weight`) → name in a PEFT directory (`….lora_A.weight`)."""
    return name.removeprefix("llm.").replace(".default.", ".")


def require_same(shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise InputError unless names and shapes are exactly those of `expected`."""
    wrong = [
        f"{name} {list(shapes[name])}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in shapes and tuple(shapes[name]) != tuple(tensor.shape)
    ]
    missing = [name for name in expected if name not in shapes]
    surplus = [name for name in shapes if name not in expected]
    problems = [
        f"{problem}: {_shortened(names)}"
        for problem, names in (("missing", missing), ("surplus", surplus), ("wrong shape", wrong))
        if names
    ]
    if problems:
        raise InputError("; ".join(problems), where)


def require_numbers(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: str | Path) -> None:
    """Raise InputError unless each tensor is dense, on the CPU, finite, and floating-point or integer as expected."""
    for name, tensor in state.items():
        kinds = FLOATING if expected[name].is_floating_point() else WHOLE
        if tensor.layout != torch.strided or tensor.dtype not in kinds:
            raise InputError(f"{name} is {tensor.layout} {tensor.dtype}, not {expected[name].dtype}", where)
        if tensor.device.type != "cpu" or not is_finite(tensor):
            raise InputError(f"{name} is not finite", where)


def _shortened(names: Collection[str]) -> str:
    shown = ", ".join(f"{name:.200}" for name in sorted(names)[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}, … ({len(names)} in all)"


def fingerprint(folder: Path) -> str:
    """SHA-256 of name, size, first and last MiB of config.json and of each file of weights.

    Hashing all of Llama-2-7B would take longer than loading it.
    """
    digest = hashlib.sha256()
    for path in sorted(require_directory(folder).iterdir()):
        if path.name == "config.json" or path.suffix in WEIGHTS:
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with open(path, "rb") as file:
                digest.update(file.read(BLOCK))
                file.seek(max(0, size - BLOCK))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
