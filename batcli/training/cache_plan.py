"""Decide from the data, before anything is loaded, what is kept on disk and what is made anew at each use."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from batcli.core.errors import InputError
from batcli.core.files import readable
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import Dataset
from batcli.model.bat import ENCODER_CLASSES
from batcli.model.config import ModelConfig, SourcesConfig
from batcli.model.encoders.sources import Cues
from batcli.model.encoders.token_kind import TokenKind
from batcli.model.features import spectrum
from batcli.options import TrainOptions
from batcli.training.recipe import SOURCES, STAGES, Recipe, answers_seen
from batcli.training.run_dir import recorded

AUTO, DISK, NONE = "auto", "disk", "none"
DEFAULT_GB = 100.0
SHARED = 2.0  # questions about a scene from which its encoding is kept beside a large language model
USED = 2.0  # times that a scene is used from which its encoding is kept beside a small one
STORED_BYTES = 2  # of a number on disk


@dataclass(frozen=True)
class Kept:
    """Where something about each scene comes from at each use."""

    place: str  # DISK, or NONE: it is made anew
    gigabytes: float  # on disk, if it is kept there
    reason: str

    @property
    def on_disk(self) -> bool:
        return self.place == DISK

    def __str__(self) -> str:
        where = f"kept on disk, {readable(self.gigabytes * 1e9)}" if self.on_disk else "made at each use"
        return f"{where}: {self.reason}"


@dataclass(frozen=True)
class CachePlan:
    """What a training keeps on disk."""

    cues: Kept | None  # of the scenes that source tokens are trained on; None: not trained
    encodings: Kept | None  # of the questions' scenes; None: no stage asks questions

    @property
    def parts(self) -> dict[str, Kept]:
        return {name: kept for name, kept in (("cues", self.cues), ("encodings", self.encodings)) if kept is not None}

    @property
    def gigabytes(self) -> float:
        return sum(kept.gigabytes for kept in self.parts.values() if kept.on_disk)

    def places(self) -> dict[str, str]:
        """For `config.toml`: a resumed run keeps to it."""
        return {name: kept.place for name, kept in self.parts.items()}


def plan_cache(
    options: TrainOptions, dataset: Dataset, stages: Sequence[str], recipe: Recipe, config: ModelConfig
) -> CachePlan:
    """Decide for the cues and for the encodings of the stages, given by their names in the log.

    Raises InputError for `--cache disk` without the room, and for an option of the cache that has no effect.
    """
    if options.cache == NONE and options.cache_gb is not None:
        raise InputError("has no effect", "--cache-gb", "with --cache none, nothing is kept")
    left = DEFAULT_GB if options.cache_gb is None else options.cache_gb
    cues = encodings = None
    if SOURCES in stages and config.sources is not None:
        size = recipe.source_scenes * cue_bytes(config.sources) / 1e9
        times = "once" if recipe.source_epochs == 1 else f"{recipe.source_epochs} times"
        reason = f"each of {recipe.source_scenes:,} scenes is used {times}"
        cues = _choose(options, "cues", size, left, reason, recipe.source_epochs >= USED)
        left -= cues.gigabytes * cues.on_disk
    asking = [stage for stage in stages if stage in STAGES]
    if asking:
        facts = count_scenes(dataset, options.split, asking)
        size = facts.scenes * encoding_bytes(config) / 1e9
        pays, reason = facts.pays(asking, recipe, small=config.llm is not None)
        encodings = _choose(options, "encodings", size, left, reason, pays)
    if cues is None and encodings is None and (options.cache != AUTO or options.cache_gb is not None):
        name = "--cache" if options.cache != AUTO else "--cache-gb"
        raise InputError("has no effect", name, "these stages draw each scene for one use")
    return CachePlan(cues, encodings)


def _choose(options: TrainOptions, what: str, size: float, limit: float, reason: str, pays: bool) -> Kept:
    """Where `size` GB are kept, of `limit` that may be; `reason` says why it pays to keep them, or does not."""
    begun = _begun(options).get(what)
    if options.cache == NONE:
        return Kept(NONE, size, "--cache none")
    too_much = ""
    if size > limit:
        too_much = f"{readable(size * 1e9)} are more than the {readable(limit * 1e9)} that --cache-gb allows"
    elif begun != DISK and size > (free := free_gb(options.output)):
        too_much = f"{readable(size * 1e9)} are more than the {readable(free * 1e9)} that are free"
    if too_much and DISK in (options.cache, begun):
        raise InputError(f"{what}: {too_much}", f"--cache {DISK}", "allow more with --cache-gb, or take --cache none")
    if options.cache == DISK:
        return Kept(DISK, size, "--cache disk")
    if begun in (DISK, NONE):
        return Kept(begun, size, "as the run was begun")
    return Kept(DISK if pays and not too_much else NONE, size, reason if not pays else too_much or reason)


def _begun(options: TrainOptions) -> dict[str, Any]:
    """Table `scenes` of the run that is resumed."""
    scenes = recorded(options.output).get("scenes", {}) if options.resume and not options.overwrite else {}
    return scenes if isinstance(scenes, dict) else {}


@dataclass(frozen=True)
class SceneCounts:
    """Questions of the stages, and their distinct scenes."""

    families: Counter[str]  # questions of each
    scenes: int

    def pays(self, stages: Sequence[str], recipe: Recipe, small: bool) -> tuple[bool, str]:
        """Whether encodings that are kept save more than they cost, and why.

        `small`: the language model is one that is trained from nothing. Its step costs less than an encoding, so one
        that is used twice is kept. A step of a large one costs some 30 times as much, and encodings are large: they
        are kept only where scenes share questions.
        """
        questions = self.families.total()
        uses = sum(answers_seen(stage, self.families, recipe) for stage in stages) / max(1, self.scenes)
        if small:
            return uses >= USED, f"each of {self.scenes:,} scenes is used {uses:,.1f} times"
        shared = questions / max(1, self.scenes)
        reason = f"{questions:,} questions are about {self.scenes:,} scenes, {shared:.1f} each"
        return shared >= SHARED, reason


def count_scenes(dataset: Dataset, split: str, stages: Sequence[str]) -> SceneCounts:
    """Count the questions of the stages' families and their scenes."""
    wanted = {family for stage in stages for family in STAGES[stage]}
    families, scenes = Counter[str](), set()
    for question in dataset.questions(split):
        if question.family in wanted:
            families[question.family] += 1
            scenes.add(question.scene)
    return SceneCounts(families, len(scenes))


def encoding_bytes(config: ModelConfig) -> int:
    """Disk space of the encoding of one scene, of all encoders."""
    with torch.device("meta"):
        parts: list[Any] = [ENCODER_CLASSES[name](sizes) for name, sizes in config.encoders.items()]
    return STORED_BYTES * sum(part.count * TokenKind(part.dim, part.names).width for part in parts)


def cue_bytes(config: SourcesConfig) -> int:
    """Disk space of the cues of one scene: what the stage `sources` keeps while it trains."""
    with torch.device("meta"):
        scene = torch.empty(1, 2, round(config.seconds * SAMPLE_RATE))
        return STORED_BYTES * Cues(config)(spectrum(scene)).numel()


def free_gb(path: Path) -> float:
    """Free disk space where `path` is, or will be made."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free / 1e9
