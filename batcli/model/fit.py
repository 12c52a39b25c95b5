"""The one training loop: every stage of every preset goes through it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from batcli.core.errors import BatError
from batcli.core.progress import Reporter
from batcli.core.signals import deferred
from batcli.model.recipes import learning_rate

BAD_IN_A_ROW = 3


@dataclass(frozen=True)
class Batch:
    """What one process computes at a time: the arguments of the objective, and how much they count."""

    inputs: tuple[Any, ...]
    weight: float  # answer tokens, or scenes
    names: tuple[str, ...] = ()  # what to show when the loss is not finite


@dataclass(frozen=True)
class Schedule:
    stage: str
    total: int  # updates
    lr: float  # at the peak; not read from the optimizer, whose own is a resumed run's last
    warmup: float
    clip: float
    log_every: int
    save_every: int


class Log:
    """`log.jsonl`, one line per logged step; cut back to where a resumed run goes on."""

    def __init__(self, path: Path, bytes_kept: int) -> None:
        self.file = path.open("ab")
        self.file.truncate(bytes_kept)

    def write(self, **record: Any) -> None:
        self.file.write((json.dumps(record) + "\n").encode())
        self.file.flush()

    @property
    def size(self) -> int:
        return self.file.seek(0, 2)


def fit(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    updates: Iterator[Sequence[Batch]],
    schedule: Schedule,
    start: int,
    log: Log | None,
    save: Callable[[int], None],
    reporter: Reporter,
) -> None:
    """Minimise `objective(*batch.inputs)`, a dictionary of losses, from update `start` on.

    `updates` yields the batches whose gradients make one update. Their losses are weighted by
    `Batch.weight` over all batches and processes, so neither accumulation nor the number of
    processes changes the gradient. `save(update)` is called every `save_every` updates, at the end,
    and when a signal asks to stop, after which `Stopped` is raised.

    Raises BatError after three losses in a row that are not finite; such a step changes no weight.
    """
    bad, began, seen = 0, time.monotonic(), 0.0
    mean: dict[str, float] = {}
    with deferred() as stop:
        for update in reporter.track(range(start, schedule.total), f"stage {schedule.stage}"):
            lr = schedule.lr * learning_rate(update, schedule.total, schedule.warmup)
            for group in optimizer.param_groups:
                group["lr"] = lr
            batches = next(updates)
            losses, norm = _step(accelerator, objective, optimizer, batches, schedule.clip)
            bad = 0 if math.isfinite(norm) else bad + 1
            if bad >= BAD_IN_A_ROW:
                names = ", ".join(name for batch in batches for name in batch.names[:4])
                raise BatError(f"the loss was not finite {bad} times in a row, last on: {names}; try a smaller --lr")
            seen += sum(batch.weight for batch in batches)
            mean = losses if not mean else {k: 0.9 * mean[k] + 0.1 * v for k, v in losses.items()}
            reporter.status(f"loss {sum(mean.values()):.3f}  lr {lr:.1e}")
            done = update + 1
            if log and (done % schedule.log_every == 0 or done == schedule.total):
                log.write(
                    stage=schedule.stage,
                    update=done,
                    loss=round(sum(losses.values()), 6),
                    losses={name: round(value, 6) for name, value in losses.items()},
                    lr=lr,
                    grad_norm=norm,
                    weight_per_second=round(seen / (time.monotonic() - began), 2),
                )
            if done % schedule.save_every == 0 or done == schedule.total or stop:
                save(done)
            stop.check()


def _step(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    clip: float,
) -> tuple[dict[str, float], float]:
    """One update; returns the mean losses over all processes, and the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    weight = torch.tensor(sum(batch.weight for batch in batches), device=accelerator.device)
    weight = accelerator.reduce(weight, "sum")
    total: dict[str, Tensor] = {}
    for number, batch in enumerate(batches):
        last = number == len(batches) - 1
        with nullcontext() if last else accelerator.no_sync(objective):
            with accelerator.autocast():
                losses = objective(*batch.inputs)
            # Gradients are averaged over the processes, so each counts its share of the whole.
            share = batch.weight * accelerator.num_processes / weight
            accelerator.backward(sum(losses.values()) * share)
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value.detach() * share
    stacked = accelerator.reduce(torch.stack(list(total.values())).float(), "mean")
    # Each group for itself: the gradient of one part must not drown another's.
    norms = [accelerator.clip_grad_norm_(group["params"], clip) for group in optimizer.param_groups if group["params"]]
    norm = float(torch.stack([torch.as_tensor(n) for n in norms]).norm())
    if math.isfinite(norm):
        optimizer.step()
    return dict(zip(total, stacked.tolist(), strict=True)), norm
