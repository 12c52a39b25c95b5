"""The training loop: every stage of every preset goes through it."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from batcli.core.errors import BatError, ExitCode, Stopped
from batcli.core.signals import defer_signals
from batcli.training import state
from batcli.training.log import TRAINING
from batcli.training.optim import optimizers_of, parameter_groups, unfreeze
from batcli.training.recipe import ENCODER, SOURCES, learning_rate
from batcli.training.scenes import threads_for
from batcli.training.stages import Batch, Stage
from batcli.training.trainer import Trainer
from batcli.training.validate import validator

BAD_IN_A_ROW = 3
LOST_PROCESS = (
    "gloo",
    "NCCL",
    "Connection closed",
    "Connection reset",
    "process group",
)  # in torch.distributed's errors


def train_stage(trainer: Trainer, stage: Stage, first: int) -> int:
    """Train one stage, from where a resumed run stands; returns the run's updates at its end.

    `first`: updates of the stages before.
    """
    if trainer.is_past(stage.name):
        return first + stage.total
    plan, accelerator = trainer.plan, trainer.accelerator
    stage.prepare()
    groups = []
    for number, named in enumerate(unfreeze(trainer.model, stage.trained)):
        groups += parameter_groups(named, str(number), plan.recipe.weight_decay, stage.rate_of, stage.muon)
    stage.objective.train()
    optimizers = optimizers_of(groups, stage.lr, plan.recipe.betas, fused=not state.sharded(accelerator))
    objective, *prepared = accelerator.prepare(stage.objective, *optimizers)
    unwrapped = [each.optimizer for each in prepared]
    start = 0
    if trainer.resumed and trainer.resumed[1].stage == stage.name:
        state.load(trainer.resumed[0], objective, unwrapped)
        start = trainer.resumed[1].update

    def save(update: int) -> None:
        reached = state.TrainPosition(stage.name, update, first + update, trainer.log.size if trainer.log else 0)
        state.save(plan.output, accelerator, objective, unwrapped, reached, plan.keep)

    if start < stage.total:
        validate = validator(trainer, stage, plan.validation, first) if plan.validation else None
        # The encoders' convolutions are long enough to be divided among threads.
        with nullcontext() if stage.name in (ENCODER, SOURCES) else threads_for(stage.objective):
            fit(trainer, stage, objective, prepared, start, first, save, validate)
    stage.objective.eval()
    accelerator.free_memory()
    return first + stage.total


def fit(
    trainer: Trainer,
    stage: Stage,
    objective: nn.Module,
    optimizers: state.Optimizers,
    start: int,
    first: int,
    save: Callable[[int], None],
    validate: Callable[[int], None] | None,
) -> None:
    """Minimise `objective(*batch.inputs)`, a dictionary of losses, from update `start` of a stage on.

    Losses are weighted by `Batch.weight` over all batches and processes of an update, so neither
    accumulation nor the number of processes changes the gradient. `save(update)` is called every
    `save_every` updates, at the end, and when a signal to any process asks to stop, after which
    `Stopped` is raised. `validate(update)` comes before it, so that its log records are kept and no
    measurement is made twice.

    Raises BatError after three losses in a row that are not finite (such an update changes no weight),
    and when another process is gone.
    """
    plan, total, batches = trainer.plan, stage.total, stage.batches(start)
    bad, weight, mean, began = 0, 0.0, 0.0, time.monotonic()
    every = plan.validation.every if plan.validation else None
    with defer_signals() as stop, name_lost_process(trainer.accelerator):
        for done in trainer.reporter.track(range(start + 1, total + 1), f"stage {stage.name}"):
            lr = stage.lr * learning_rate(done - 1, total, plan.recipe.warmup)
            for group in _groups(optimizers):
                group["lr"] = lr * group.get("lr_scale", 1.0)
            share = next(batches)
            update = _update(trainer, stage.name, objective, optimizers, share, done - 1, bool(stop))
            stopping = update.stopping or (bool(stop) and trainer.accelerator.num_processes == 1)
            bad = 0 if math.isfinite(update.norm) else bad + 1
            if bad >= BAD_IN_A_ROW:
                names = ", ".join(name for batch in share for name in batch.names[:4])
                hint = "try a smaller learning rate (--set)"
                raise BatError(f"the loss was not finite {bad} times in a row, last on: {names}; {hint}")
            loss = sum(update.losses.values())
            weight += sum(batch.weight for batch in share)
            mean = loss if done == start + 1 else 0.9 * mean + 0.1 * loss
            trainer.reporter.status(f"loss {mean:.3f}  lr {lr:.1e}")
            if trainer.log and (done == total or done % plan.log_every == 0):
                trainer.log.write(
                    kind=TRAINING,
                    stage=stage.name,
                    update=done,
                    step=first + done,
                    loss=loss,
                    losses=update.losses,
                    lr=lr,
                    grad_norm=update.norm,
                    weight_per_second=weight / (time.monotonic() - began),
                )
            if validate and (done == total or (every and done % every == 0)):
                validate(done)
            if done == total or done % plan.save_every == 0 or stopping:
                save(done)
            if stopping:
                raise Stopped(stop.code or ExitCode.TERMINATED)


class Update(NamedTuple):
    """The outcome of an update, the same on all processes."""

    losses: dict[str, float]  # means over all batches
    norm: float  # of the gradient, before clipping
    stopping: bool  # whether a signal asked any process to stop


def _update(
    trainer: Trainer,
    stage: str,
    objective: nn.Module,
    optimizers: state.Optimizers,
    batches: Sequence[Batch],
    update: int,
    stop: bool,
) -> Update:
    """One step of the optimizers, unless the gradient is not finite. `stop`: whether this process was asked to."""
    accelerator, plan = trainer.accelerator, trainer.plan
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    known = torch.tensor([sum(batch.weight for batch in batches), float(stop)], device=accelerator.device)
    weight, stopping = accelerator.reduce(known, "sum")
    total: dict[str, Tensor] = {}
    means = BatchNormMeans(objective)
    for part, batch in enumerate(batches):
        last = part == len(batches) - 1
        number = (update * len(batches) + part) * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(_seed(plan.seed, stage, number))
        with nullcontext() if last else accelerator.no_sync(objective), means.of_one_batch():
            with accelerator.autocast():
                losses = objective(*batch.inputs)
            # Gradients are averaged over the processes, so each counts its share of the whole.
            share = batch.weight * accelerator.num_processes / weight
            accelerator.backward(sum(losses.values()) * share)
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value.detach() * share
    means.average(accelerator)
    values = accelerator.reduce(torch.stack(list(total.values())).float(), "mean").tolist()
    # Each part of the model is clipped for itself: the gradient of one must not drown another's.
    parts: dict[str, list[nn.Parameter]] = {}
    for number, group in enumerate(_groups(optimizers)):
        parts.setdefault(group.get("clip_with", str(number)), []).extend(group["params"])
    norms = [accelerator.clip_grad_norm_(parameters, plan.recipe.clip) for parameters in parts.values() if parameters]
    norm = torch.stack([state.whole(torch.as_tensor(n)) for n in norms]).norm().item()
    if math.isfinite(norm):
        for optimizer in optimizers:
            optimizer.step()
    return Update(dict(zip(total, values, strict=True)), norm, stopping.item() > 0)


def _groups(optimizers: state.Optimizers) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def _seed(seed: int, stage: str, batch: int) -> int:
    """Of the dropout and masks of one batch: the same whichever process computes it, and in a resumed run."""
    words = [seed, zlib.crc32(stage.encode()), batch]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


@contextmanager
def name_lost_process(accelerator: Accelerator) -> Iterator[None]:
    """A failed exchange between processes as a BatError: most often, another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not any(word in str(error) for word in LOST_PROCESS):
            raise
        message = " ".join(str(error).split())
        raise BatError(f"another process was lost; start them all again with --resume ({message:.120})") from None


class BatchNormMeans:
    """Running means of batch norms over an update: each batch moves those from before it, and the mean is kept.

    So they depend neither on the order of batches, nor on which process computes which.
    """

    def __init__(self, module: nn.Module) -> None:
        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        buffers = [buffer for norm in norms if norm.training for buffer in norm.buffers()]
        self.buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.counters = [(buffer, buffer.clone()) for buffer in buffers if not buffer.is_floating_point()]
        self.before = [buffer.clone() for buffer in self.buffers]
        self.sums = [torch.zeros_like(buffer) for buffer in self.buffers]
        self.batches = 0

    @contextmanager
    def of_one_batch(self) -> Iterator[None]:
        for buffer, before in zip(self.buffers, self.before, strict=True):
            buffer.copy_(before)
        yield
        for total, buffer in zip(self.sums, self.buffers, strict=True):
            total += buffer
        self.batches += 1

    def average(self, accelerator: Accelerator) -> None:
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            buffer.copy_(accelerator.reduce(total / self.batches, "mean"))
        for counter, before in self.counters:
            counter.copy_(before + 1)
