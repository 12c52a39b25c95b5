"""The parts of a training, for the bar that is over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from batcli.core.progress import Part, PlansAhead
from batcli.data.question_types import QUESTION_TYPES
from batcli.training.cache_plan import encoding_bytes
from batcli.training.recipe import SOURCES, STAGES, stage_updates
from batcli.training.scenes import labelled_clips
from batcli.training.stages import SourceAmount
from batcli.training.trainer import Trainer

CUES, ENCODING = "cues", "encoding"
# Seconds of a step of `tiny` on a processor core: only their proportions count, and only until they are measured.
A_SCENE, A_SCENE_OF_AN_UPDATE, A_QUESTION = 0.006, 0.0015, 0.012


def report_work(trainer: Trainer) -> None:
    """Tell a reporter that plans ahead what is to be done, as far as it is known, and what an earlier run did."""
    if isinstance(trainer.reporter, PlansAhead):
        position = trainer.resumed.position if trainer.resumed else None
        parts = [part for stage, part in _parts(trainer) if not trainer.is_past(stage)]
        if position is not None:
            now = f"stage {position.stage}"
            parts = [replace(part, done=position.update) if part.name == now else part for part in parts]
        trainer.reporter.plan(parts)


def _parts(trainer: Trainer) -> Iterator[tuple[str, Part]]:
    """Each part, and the stage that it belongs to."""
    plan, recipe = trainer.plan, trainer.plan.recipe
    for name in trainer.plan.trained_encoders:
        if name == SOURCES:
            amount = SourceAmount.of(trainer)
            updates, per_update = amount.updates, amount.per_update
            if plan.cache.cues is not None and plan.cache.cues.on_disk:
                yield name, Part(CUES, amount.scenes, "scenes", seconds=A_SCENE)
        else:
            clips, per_update = len(labelled_clips(plan.dataset, plan.split)), recipe.encoder_update
            updates = recipe.encoder_epochs * recipe.epoch_updates(clips)
        yield name, Part(f"stage {name}", updates, "updates", seconds=per_update * A_SCENE_OF_AN_UPDATE)
    asking = [stage for stage in trainer.stages if stage in STAGES]
    if not asking:
        return
    if plan.cache.encodings is not None and plan.cache.encodings.on_disk:
        scenes = round(plan.cache.encodings.gigabytes * 1e9 / encoding_bytes(plan.model.config))
        yield asking[0], Part(ENCODING, scenes, "scenes", seconds=A_SCENE)
    families = Counter[str]()
    for kind, count in plan.dataset.split(plan.split).counts.items():
        families[QUESTION_TYPES[kind].family] += count
    per_update = recipe.update or (recipe.batch or 8) * plan.accumulate * plan.processes
    for stage in asking:
        updates = stage_updates(stage, families, recipe, per_update)
        yield stage, Part(f"stage {stage}", updates, "updates", seconds=per_update * A_QUESTION, alike="questions")
