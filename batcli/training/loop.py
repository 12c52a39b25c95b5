"""The one training loop: every stage of every preset goes through it."""

from __future__ import annotations

import math
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from batcli.core.errors import BatError, ExitCode, Stopped
from batcli.core.progress import Reporter
from batcli.core.signals import defer_signals
from batcli.training import state
from batcli.training.log import TRAINING, Log
from batcli.training.optim import step_if
from batcli.training.recipe import learning_rate

BAD_IN_A_ROW = 3
BEHIND = 1  # updates by which the host is behind the device in reading
LOST = ("gloo", "NCCL", "Connection closed", "Connection reset", "process group")  # in errors of torch.distributed


@dataclass(frozen=True)
class Batch:
    """What one process computes at a time: the arguments of the objective, and how much they count."""

    inputs: tuple[Any, ...]
    weight: float  # answer tokens, or scenes
    names: tuple[str, ...] = ()  # what to show when the loss is not finite


@dataclass(frozen=True)
class Schedule:
    stage: str
    seed: int
    total: int  # updates
    lr: float  # at the peak; not read from the optimizer, whose own is a resumed run's last
    warmup: float
    clip: float
    log_every: int
    save_every: int
    validate_every: int = 0  # 0: only at the end
    first: int = 0  # updates of the stages before


def fit(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizers: state.Optimizers,
    updates: Iterator[Sequence[Batch]],
    schedule: Schedule,
    start: int,
    log: Log | None,
    save: Callable[[int], None],
    validate: Callable[[int], None] | None,
    reporter: Reporter,
) -> None:
    """Minimise `objective(*batch.inputs)`, a dictionary of losses, from update `start` on.

    `updates` yields the batches whose gradients make one update. Their losses are weighted by
    `Batch.weight` over all batches and processes, so neither accumulation nor the number of
    processes changes the gradient. `save(update)` is called every `save_every` updates, at the end,
    and when a signal to any process asks to stop, after which `Stopped` is raised. `validate(update)`
    comes before it, so that what it logs is never cut off, nor measured twice.

    Raises BatError after three losses in a row that are not finite (such a step changes no weight), and
    when another process is gone.
    """
    course = ProgressReader(schedule, log, reporter)
    with defer_signals() as stop, _lost_ranks(accelerator):
        for update in reporter.track(range(start, schedule.total), f"stage {schedule.stage}"):
            lr = schedule.lr * learning_rate(update, schedule.total, schedule.warmup)
            for group in _groups(optimizers):
                group["lr"] = lr * group.get("lr_scale", 1.0)
            batches = next(updates)
            names, values = _step(accelerator, objective, optimizers, batches, schedule, update, bool(stop))
            done = update + 1
            course.sent(done, lr, batches, names, values)
            measured = validate if done == schedule.total or _due(done, schedule.validate_every) else None
            kept = done == schedule.total or _due(done, schedule.save_every)
            stopping = course.read(0 if measured or kept else BEHIND) or (bool(stop) and accelerator.num_processes == 1)
            if measured:
                measured(done)
            if kept or stopping:
                course.read(0)
                save(done)
            if stopping:
                raise Stopped(stop.code or ExitCode.TERMINATED)


class Update(NamedTuple):
    """What is to be known of an update, on its way from the device."""

    number: int
    lr: float
    batches: Sequence[Batch]
    names: tuple[str, ...]  # of its losses
    values: Tensor  # on the CPU: the losses, the gradient's norm, how many processes were asked to stop
    there: torch.cuda.Event | None  # when they have arrived


class ProgressReader:
    """How training goes, as far as the host knows: it reads what an update came to while the next one is
    computed, so that a GPU always has something to do."""

    def __init__(self, schedule: Schedule, log: Log | None, reporter: Reporter) -> None:
        self.schedule, self.log, self.reporter = schedule, log, reporter
        self.unread: deque[Update] = deque()
        self.bad, self.began, self.seen = 0, time.monotonic(), 0.0
        self.mean: dict[str, float] = {}

    def sent(self, number: int, lr: float, batches: Sequence[Batch], names: tuple[str, ...], values: Tensor) -> None:
        there = torch.cuda.Event() if values.is_cuda else None
        values = values.to("cpu", non_blocking=True)
        if there:
            there.record()
        self.unread.append(Update(number, lr, batches, names, values, there))

    def read(self, but: int) -> bool:
        """Read all but the last `but` updates; returns whether in one of them a process was asked to stop."""
        stopping = False
        while len(self.unread) > but:
            stopping |= self._read(self.unread.popleft())
        return stopping

    def _read(self, update: Update) -> bool:
        if update.there:
            update.there.synchronize()
        *parts, norm, stopping = update.values.tolist()
        losses = dict(zip(update.names, parts, strict=True))
        self.bad = 0 if math.isfinite(norm) else self.bad + 1
        if self.bad >= BAD_IN_A_ROW:
            names = ", ".join(name for batch in update.batches for name in batch.names[:4])
            raise BatError(f"the loss was not finite {self.bad} times in a row, last on: {names}; try a smaller --lr")
        self.seen += sum(batch.weight for batch in update.batches)
        self.mean = losses if not self.mean else {k: 0.9 * self.mean[k] + 0.1 * v for k, v in losses.items()}
        self.reporter.status(f"loss {sum(self.mean.values()):.3f}  lr {update.lr:.1e}")
        if self.log and (update.number == self.schedule.total or _due(update.number, self.schedule.log_every)):
            self.log.write(
                kind=TRAINING,
                stage=self.schedule.stage,
                update=update.number,
                step=self.schedule.first + update.number,
                loss=sum(losses.values()),
                losses=losses,
                lr=update.lr,
                grad_norm=norm,
                weight_per_second=self.seen / (time.monotonic() - self.began),
            )
        return stopping > 0


def _due(update: int, every: int) -> bool:
    return every > 0 and update % every == 0


@contextmanager
def _lost_ranks(accelerator: Accelerator) -> Iterator[None]:
    """Say in a line what a failed exchange between processes most often means."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes == 1 or not any(word in str(error) for word in LOST):
            raise
        message = " ".join(str(error).split())
        raise BatError(f"another process was lost; start them all again with --resume ({message:.120})") from None


def _step(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizers: state.Optimizers,
    batches: Sequence[Batch],
    schedule: Schedule,
    update: int,
    stop: bool,
) -> tuple[tuple[str, ...], Tensor]:
    """One update; returns the names of its losses, and on the device their means over all processes, the
    gradient's norm before clipping, and how many processes were asked to stop (`stop`: this one), which
    all must do after the same update. Nothing here waits for the device."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    known = torch.tensor([sum(batch.weight for batch in batches), float(stop)], device=accelerator.device)
    weight, stopping = accelerator.reduce(known, "sum")
    total: dict[str, Tensor] = {}
    statistics = Statistics(objective)
    for part, batch in enumerate(batches):
        last = part == len(batches) - 1
        number = (update * len(batches) + part) * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(_seed(schedule, number))
        with nullcontext() if last else accelerator.no_sync(objective), statistics.of_one_batch():
            with accelerator.autocast():
                losses = objective(*batch.inputs)
            # Gradients are averaged over the processes, so each counts its share of the whole.
            share = batch.weight * accelerator.num_processes / weight
            accelerator.backward(sum(losses.values()) * share)
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value.detach() * share
    statistics.settle(accelerator)
    stacked = accelerator.reduce(torch.stack(list(total.values())).float(), "mean")
    # Each part for itself: the gradient of one must not drown another's.
    parts: dict[str, list[nn.Parameter]] = {}
    for number, group in enumerate(_groups(optimizers)):
        parts.setdefault(group.get("clip_with", str(number)), []).extend(group["params"])
    norms = [accelerator.clip_grad_norm_(parameters, schedule.clip) for parameters in parts.values() if parameters]
    norm = torch.stack([state.whole(torch.as_tensor(n)) for n in norms]).norm()
    step_if(norm.isfinite(), optimizers)
    return tuple(total), torch.stack([*stacked, norm, stopping])


def _groups(optimizers: state.Optimizers) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def _seed(schedule: Schedule, batch: int) -> int:
    """Of the dropout and masks of one batch: the same whichever process computes it, and in a resumed run."""
    words = [schedule.seed, zlib.crc32(schedule.stage.encode()), batch]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


class Statistics:
    """The running means of batch norms over an update: each batch moves those from before it, and the mean is kept.

    So they hang neither on the order of batches, nor on which process computes which.
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

    def settle(self, accelerator: Accelerator) -> None:
        for buffer, total in zip(self.buffers, self.sums, strict=True):
            buffer.copy_(accelerator.reduce(total / self.batches, "mean"))
        for counter, before in self.counters:
            counter.copy_(before + 1)
