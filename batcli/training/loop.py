"""The training loop of every stage."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from batcli.core.errors import BatError, ExitCode, Stopped
from batcli.core.signals import defer_signals
from batcli.model.encoders.dspast import AdaCos
from batcli.training import state
from batcli.training.log import TRAINING
from batcli.training.optim import make_optimizers, parameter_groups, unfreeze
from batcli.training.scenes import threads_for
from batcli.training.sharding import prepare, sharded
from batcli.training.stages import Batch, Stage
from batcli.training.trainer import Trainer
from batcli.training.validate import validator

MAX_NOT_FINITE = 3  # losses in a row
# In the messages of torch.distributed's errors.
LOST_PROCESS = ("gloo", "NCCL", "Connection closed", "Connection reset", "process group")


def train_stage(trainer: Trainer, stage: Stage, first: int) -> int:
    """Train a stage, from the saved state of a resumed run on; returns the updates of all stages so far.

    `first`: updates of the stages before.
    """
    if trainer.is_past(stage.name):
        return first + stage.total
    plan, accelerator = trainer.plan, trainer.accelerator
    stage.prepare()
    groups = []
    for number, named in enumerate(unfreeze(trainer.model, stage.trained)):
        values = stage.optimizer
        groups += parameter_groups(named, str(number), values.weight_decay, stage.lr_scale, stage.decays, values.muon)
    stage.objective.train()
    peak, fused = stage.schedule.peak, not sharded(accelerator)
    optimizers = make_optimizers(groups, peak, stage.optimizer.betas, fused)
    objective, *prepared = prepare(accelerator, stage.objective, optimizers)
    loop = StageLoop(trainer, stage, objective, prepared, first)
    start = 0
    if trainer.resumed and trainer.resumed.position.stage == stage.name:
        state.load(trainer.resumed.folder, objective, loop.unwrapped)
        start = trainer.resumed.position.update
    if start < stage.total:
        validate = validator(trainer, stage, plan.validation, first) if plan.validation else None
        with threads_for(stage.objective):
            loop.run(start, validate)
    stage.objective.eval()
    accelerator.free_memory()
    return first + stage.total


class Update(NamedTuple):
    """Result of one step of the optimizers, the same in all processes."""

    losses: dict[str, float]  # means over all batches
    norm: float  # of the gradient before clipping
    stopping: bool  # whether a signal asked any process to stop


@dataclass(frozen=True)
class StageLoop:
    """The updates of one stage: objective and optimizers as accelerate prepared them."""

    trainer: Trainer
    stage: Stage
    objective: nn.Module
    optimizers: Sequence[Any]
    first: int  # updates of the stages before

    @property
    def unwrapped(self) -> state.Optimizers:
        return [optimizer.optimizer for optimizer in self.optimizers]

    @property
    def groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def run(self, start: int, validate: Callable[[int], None] | None) -> None:
        """Minimise the losses from update `start` of the stage on.

        The state is saved every `save_every` updates, at the end, and when a signal to any process asks to stop,
        after which Stopped is raised. `validate(update)` is called before, so that its records are in the saved log.

        Raises BatError after MAX_NOT_FINITE losses in a row that are not finite (such an update changes no weight),
        and when another process is lost.
        """
        plan, stage, total = self.trainer.plan, self.stage, self.stage.total
        updates = stage.batches(start)
        not_finite, weight, mean, began = 0, 0.0, 0.0, time.monotonic()
        every = plan.validation.every if plan.validation else None
        reporter = self.trainer.reporter
        stopping_soon = partial(reporter.info, "finishing this update; again to stop now")
        with defer_signals(stopping_soon) as stop, name_lost_process(self.trainer.accelerator):
            for done in reporter.track(range(start + 1, total + 1), f"stage {stage.name}"):
                lr = stage.schedule(done - 1)
                for group in self.groups:
                    group["lr"] = lr * group.get("lr_scale", 1.0)
                batches = next(updates)
                update = self.step(batches, done - 1, bool(stop))
                stopping = update.stopping or (bool(stop) and self.trainer.accelerator.num_processes == 1)
                not_finite = 0 if math.isfinite(update.norm) else not_finite + 1
                if not_finite >= MAX_NOT_FINITE:
                    names = ", ".join(name for batch in batches for name in batch.names[:4])
                    hint = "try a smaller learning rate (--set)"
                    raise BatError(f"the loss was not finite {not_finite} times in a row, last on: {names}; {hint}")
                loss = sum(update.losses.values())
                weight += sum(batch.weight for batch in batches)
                mean = loss if done == start + 1 else 0.9 * mean + 0.1 * loss
                reporter.status(f"loss {mean:.3f}")
                if self.trainer.log and (done == total or done % plan.log_every == 0):
                    self._log(done, update, loss, lr, weight / (time.monotonic() - began))
                if validate and (done == total or (every and done % every == 0)):
                    validate(done)
                if done == total or done % plan.save_every == 0 or stopping:
                    self._save(done)
                if stopping:
                    raise Stopped(stop.code or ExitCode.TERMINATED)

    def step(self, batches: Sequence[Batch], update: int, stop: bool) -> Update:
        """Step the optimizers, unless the gradient is not finite. `stop`: whether a signal asked this process to.

        Losses are weighted by `Batch.weight` over all batches and processes of the update, so neither
        accumulation nor the number of processes changes the gradient.
        """
        accelerator, plan, objective = self.trainer.accelerator, self.trainer.plan, self.objective
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        own = torch.tensor([sum(batch.weight for batch in batches), float(stop)], device=accelerator.device)
        weight, stopping = accelerator.reduce(own, "sum")
        weight = weight.clamp_min(1)  # 0 if no scene of the update could be rendered
        total: dict[str, Tensor] = {}
        means = RunningValues(objective)
        for part, batch in enumerate(batches):
            last = part == len(batches) - 1
            number = (update * len(batches) + part) * accelerator.num_processes + accelerator.process_index
            torch.manual_seed(_batch_seed(plan.seed, self.stage.name, number))
            with nullcontext() if last else accelerator.no_sync(objective), means.of_one_batch():
                with accelerator.autocast():
                    losses = objective(*batch.inputs)
                # Gradients are averaged over the processes.
                share = batch.weight * accelerator.num_processes / weight
                accelerator.backward(sum(losses.values()) * share)
            for name, value in losses.items():
                total[name] = total.get(name, 0.0) + value.detach() * share
        means.average(accelerator)
        values = accelerator.reduce(torch.stack(list(total.values())).float(), "mean").tolist()
        norm = self._clip()
        if math.isfinite(norm):
            for optimizer in self.optimizers:
                optimizer.step()
        return Update(dict(zip(total, values, strict=True)), norm, stopping.item() > 0)

    def _clip(self) -> float:
        """Clip the gradient of each `clip_with` by itself, so that a large one does not shrink the others.

        Returns the norm of the whole gradient before.
        """
        accelerator = self.trainer.accelerator
        clip = math.inf if self.stage.optimizer.clip is None else self.stage.optimizer.clip
        parts: dict[str, list[nn.Parameter]] = {}
        for number, group in enumerate(self.groups):
            parts.setdefault(group.get("clip_with", str(number)), []).extend(group["params"])
        norms = [accelerator.clip_grad_norm_(parameters, clip) for parameters in parts.values() if parameters]
        return torch.stack([state.full_tensor(torch.as_tensor(norm)) for norm in norms]).norm().item()

    def _log(self, done: int, update: Update, loss: float, lr: float, weight_per_second: float) -> None:
        assert self.trainer.log is not None
        self.trainer.log.write(
            kind=TRAINING,
            stage=self.stage.name,
            update=done,
            step=self.first + done,
            loss=loss,
            losses=update.losses,
            lr=lr,
            grad_norm=update.norm,
            weight_per_second=weight_per_second,
        )

    def _save(self, update: int) -> None:
        plan, log = self.trainer.plan, self.trainer.log
        position = state.TrainPosition(self.stage.name, update, self.first + update, log.size if log else 0)
        state.save(plan.output, self.trainer.accelerator, self.objective, self.unwrapped, position, plan.keep)


def _batch_seed(seed: int, stage: str, batch: int) -> int:
    """Seed of the dropout and masks of one batch, the same in any process and in a resumed run."""
    entropy = [seed, zlib.crc32(stage.encode()), batch]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


@contextmanager
def name_lost_process(accelerator: Accelerator) -> Iterator[None]:
    """Turn a failed exchange between processes into a BatError: most often, another process has ended."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not any(word in str(error) for word in LOST_PROCESS):
            raise
        message = " ".join(str(error).split())
        raise BatError(f"another process was lost; start them all again with --resume ({message:.120})") from None


class RunningValues:
    """Makes what batches change in a module independent of the order of an update's batches and their processes.

    That is the running means of batch norms, and the scales of DSpAST's heads.

    Each batch changes the values from before the update; the average of the results is kept.
    """

    def __init__(self, module: nn.Module) -> None:
        norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
        buffers = [buffer for norm in norms if norm.training for buffer in norm.buffers()]
        buffers += [head.s for head in module.modules() if isinstance(head, AdaCos) and head.training]
        self.buffers = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.counters = [(buffer, buffer.clone()) for buffer in buffers if not buffer.is_floating_point()]
        self.before = [buffer.clone() for buffer in self.buffers]
        self.sums = [torch.zeros_like(buffer) for buffer in self.buffers]
        self.batches = 0

    @contextmanager
    def of_one_batch(self) -> Iterator[None]:
        """Around the forward pass of each batch."""
        for buffer, before in zip(self.buffers, self.before, strict=True):
            buffer.copy_(before)
        yield
        for total, buffer in zip(self.sums, self.buffers, strict=True):
            total += buffer
        self.batches += 1

    def average(self, accelerator: Accelerator) -> None:
        """Set the values to the average over all batches and processes."""
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            buffer.copy_(accelerator.reduce(total / self.batches, "mean"))
        for counter, before in self.counters:
            counter.copy_(before + 1)
