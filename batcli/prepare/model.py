"""`bat prepare model`: convert published checkpoints to a run directory, and back."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from batcli.core.errors import InputError
from batcli.core.files import (
    TEMPORARY,
    exclusive_lock,
    require_directory,
    require_file,
    require_writable,
    require_writable_file,
    sha256,
)
from batcli.core.progress import SILENT, Reporter
from batcli.data.constants import PUBLISHED
from batcli.model import checkpoint, published
from batcli.model.bat import BAT, Encoders
from batcli.model.config import ENCODER_TITLES, PRESETS, LoraConfig, ModelConfig
from batcli.model.llm import llm_config, load_tokenizer, lora_targets, parse_lora_targets
from batcli.options import ModelOptions
from batcli.training.recipe import RECIPES
from batcli.training.start import PUBLISHED_PRESETS

WRITTEN = {checkpoint.CONFIG, checkpoint.ENCODER, checkpoint.PROJECTOR, checkpoint.ADAPTER, checkpoint.TOKENIZER}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")


def model(options: ModelOptions, reporter: Reporter = SILENT) -> None:
    """Make a run directory from published checkpoints, or write the checkpoints of a run directory.

    All inputs are read and checked before a file is written. Without `checkpoint`, the projector and LoRA
    are untrained. Raises InputError for an input with missing, unknown or misshapen parts, and for a RUN
    that holds other work.
    """
    if options.export or options.export_encoder:
        _export(options, reporter)
    else:
        _convert(options, reporter)


def _convert(options: ModelOptions, reporter: Reporter) -> None:
    """Make a run directory from published checkpoints."""
    if options.encoder is None or options.llm is None:
        missing = "--encoder" if options.encoder is None else "--llm"
        raise InputError("missing", missing, "name the published encoder with --encoder, the language model with --llm")
    inputs = _hashes([path for path in (options.encoder, options.checkpoint) if path], options.sha256)
    _require_free(options.run)
    kind = published.recognise_encoder(options.encoder)
    reporter.info(f"{options.encoder}: {ENCODER_TITLES[kind]}")
    empty = published.empty_model(_config(options, kind, options.llm), options.llm)
    tokenizer = load_tokenizer(options.llm) if any((options.llm / name).exists() for name in TOKENIZER_FILES) else None
    state = _read(options.encoder, options.checkpoint, empty, options.seed)
    if tokenizer is None:
        reporter.warn(f"{options.llm}: no tokenizer, which decoding text needs")
    reporter.info(f"{len(state):,} tensors read, {sum(part.numel() for part in state.values()):,} numbers, all placed")
    if options.dry_run:
        return
    tables: dict[str, dict[str, Any]] = {
        "prepare.model": {"encoder": options.encoder, "checkpoint": options.checkpoint, "seed": options.seed},
        "train": {"preset": PUBLISHED_PRESETS[kind]},  # `train --init` reads it
        "recipe": asdict(RECIPES[PUBLISHED_PRESETS[kind]]),
        "scenes": {"rendering": PUBLISHED},
    }
    with exclusive_lock(require_writable(options.run)):
        _require_free(options.run)
        checkpoint.write_config(options.run, empty.config, tables, options.llm)
        checkpoint.save_weights(options.run, state, empty.config, options.llm)
        if tokenizer is not None:
            checkpoint.save_tokenizer(options.run, tokenizer)
        checkpoint.finish(options.run, inputs=inputs, seed=options.seed)


def _config(options: ModelOptions, kind: str, llm: Path) -> ModelConfig:
    """The published sizes over the encoder `kind`, with LoRA on the modules that are named or usual for the LLM."""
    targets = parse_lora_targets(options.lora_targets) or lora_targets(llm_config(llm).model_type)
    config = replace(PRESETS[PUBLISHED_PRESETS[kind]], lora=LoraConfig(targets=targets))
    if not options.patches_only:
        return config
    if config.dspast is None:
        raise InputError("has no effect", "--patches-only", f"{options.encoder} is {ENCODER_TITLES[kind]}, not DSpAST")
    return replace(config, dspast=replace(config.dspast, summary_tokens=False))


def _read(encoder: Path, bat: Path | None, empty: BAT, seed: int) -> dict[str, Tensor]:
    """All tensors of the run, by our names: from the checkpoints; untrained ones drawn by `seed` without `bat`."""
    tensors = published.read_encoder(encoder, empty)
    return {**tensors, **(published.fresh_bat(empty, seed) if bat is None else published.read_bat(bat, empty))}


def _require_free(run: Path) -> None:
    """Raises InputError unless `run` can be made, or holds nothing but an unfinished conversion."""
    if not run.is_dir():
        require_writable(next(parent for parent in run.absolute().parents if parent.exists()))
        if run.exists():
            raise InputError("is a file, not a directory", run)
        return
    if (run / checkpoint.DONE).exists():
        raise InputError("holds a finished run", run, "choose another directory")
    others = [p.name for p in run.iterdir() if p.name not in WRITTEN and not p.name.startswith(TEMPORARY)]
    if others:
        raise InputError(f"holds other files: {', '.join(sorted(others)[:3])}", run, "choose another directory")
    require_writable(run)


def _hashes(files: list[Path], wanted: list[str]) -> dict[str, str]:
    """The SHA-256 of each file. Raises InputError when `--sha256 FILE=HEX` says otherwise."""
    found = {str(file): sha256(require_file(file)) for file in files}
    for entry in wanted:
        name, _, digest = entry.rpartition("=")
        named = [file for file in found if name in (file, Path(file).name)]
        if not named:
            raise InputError(f"{entry!r:.120} names no input", "--sha256", f"FILE=HEX, FILE of {', '.join(found)}")
        if found[named[0]] != digest.lower():
            raise InputError(f"its SHA-256 is {found[named[0]]}", named[0], "not the file that --sha256 asks for")
    return found


def _export(options: ModelOptions, reporter: Reporter) -> None:
    """Write the published checkpoints of a run directory."""
    for name in ("encoder", "checkpoint", "llm", "lora_targets", "patches_only", "sha256"):
        if getattr(options, name):
            raise InputError("has no meaning with --export", f"--{name.replace('_', '-')}")
    run = checkpoint.require_finished(require_directory(options.run))
    config = checkpoint.read_config(run)
    encoder = config.published_encoder
    if encoder is None or config.sources is not None or config.lora is None:
        hint = f"only runs of the presets {' and '.join(PUBLISHED_PRESETS.values())} can be exported"
        raise InputError("not of a published architecture", run, hint)
    alone = checkpoint.holds_encoders_alone(run)
    if options.export and alone:
        raise InputError("holds an encoder alone", run, "export it with --export-encoder")
    with torch.device("meta"):
        empty = Encoders(config) if alone else published.empty_model(config, checkpoint.llm_folder(run))
    for path in (options.export, options.export_encoder):
        if path is not None:
            require_writable_file(path)
    if options.dry_run:
        return
    if options.export_encoder:
        published.write_encoder(options.export_encoder, checkpoint.read_encoder(run, empty), encoder)
        reporter.info(f"wrote {options.export_encoder}")
    if options.export and isinstance(empty, BAT):
        published.write_bat(options.export, checkpoint.read_bat(run, empty))
        reporter.info(f"wrote {options.export}")
