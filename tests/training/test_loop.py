"""The training loop: bad batches, running means, groups of parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice, repeat
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from batcli.core.errors import BatError
from batcli.core.progress import SILENT
from batcli.model.encoders.dspast import AdaCos
from batcli.training.loop import RunningValues, StageLoop, name_lost_process
from batcli.training.optim import OptimizerValues
from batcli.training.schedule import Schedule
from batcli.training.stages import Batch, Stage


class Distance(nn.Module):
    """Loss: the squared distance of a weight from the input."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, target):
        return {"distance": (self.weight - target).square().sum()}


class InputStage(Stage):
    """A batch of one sample per input."""

    name, optimizer = "1", OptimizerValues((0.9, 0.95), 0.0, 1.0)

    def __init__(self, inputs, total) -> None:
        self.inputs, self.total, self.schedule = inputs, total, Schedule(0.1, 1, total, 0.01, first=1)

    def batches(self, start):
        for value in islice(self.inputs, start, None):
            yield [Batch((torch.tensor(value),), 1, (f"sample {value}",))]


class UnsavedLoop(StageLoop):
    def _save(self, update):
        pass


def run(inputs, total=10) -> Distance:
    model = Distance()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0)
    plan = SimpleNamespace(seed=0, log_every=1, save_every=100, validation=None)
    trainer: Any = SimpleNamespace(plan=plan, accelerator=Accelerator(cpu=True), log=None, reporter=SILENT)
    UnsavedLoop(trainer, InputStage(inputs, total), model, [optimizer], 0).run(0, None)
    return model


def test_a_batch_without_a_finite_loss_changes_nothing():
    clean, disturbed = run(repeat(1.0), 8), run([math.nan, *repeat(1.0, 7)], 8)
    assert disturbed.weight.isfinite().all()
    assert (disturbed.weight > 0).all()
    assert (disturbed.weight < clean.weight).all(), "one update fewer"


def test_three_such_batches_in_a_row_end_it_with_their_names():
    with pytest.raises(BatError, match="not finite 3 times in a row, last on: sample nan; try a smaller learning rate"):
        run([1.0, math.nan, math.nan, math.nan, 1.0])
    run([1.0, math.nan, math.nan, 1.0, math.nan, math.nan, 1.0], 7)


def test_running_means_do_not_depend_on_the_order_of_batches():
    """Two batches of one update move the same mean, whichever comes first; one batch moves it as ever."""
    batches = torch.randn(2, 16, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([[[0.0]], [[5.0]]])

    def moved(order) -> torch.Tensor:
        norm = nn.BatchNorm1d(3)
        statistics = RunningValues(norm)
        for number in order:
            with statistics.of_one_batch():
                norm(batches[number])
        statistics.average(Accelerator(cpu=True))
        assert norm.num_batches_tracked == 1
        return norm.running_mean

    torch.testing.assert_close(moved([0, 1]), moved([1, 0]), rtol=0, atol=1e-7)
    alone = nn.BatchNorm1d(3)
    alone(batches[0])
    assert torch.equal(moved([0]), alone.running_mean)


def test_the_scale_of_a_head_adapts_once_per_update_whatever_the_order_of_batches():
    def scale(order: Sequence[int]) -> float:
        torch.manual_seed(0)
        head = AdaCos(4, 21)
        values = RunningValues(head)
        for number in order:
            tokens = torch.randn(8, 4, generator=torch.Generator().manual_seed(number))
            with values.of_one_batch():
                head.adapt(head(tokens), torch.full((8,), number), torch.ones(8, dtype=torch.bool))
        values.average(Accelerator(cpu=True))
        return head.s.item()

    alone = [scale([0]), scale([1])]
    assert alone[0] != alone[1]
    assert scale([0, 1]) == pytest.approx(sum(alone) / 2)
    assert scale([0, 1]) == pytest.approx(scale([1, 0]), abs=1e-6)


def test_only_errors_between_processes_are_called_a_lost_process():
    class Two:
        num_processes = 2

    with pytest.raises(BatError, match="another process was lost"), name_lost_process(Two()):  # type: ignore[arg-type]
        raise RuntimeError("[/third_party/gloo/transport/tcp/pair.cc:525] Connection closed by peer [127.0.0.1]:80")
    with pytest.raises(RuntimeError, match="shapes"), name_lost_process(Two()):  # type: ignore[arg-type]
        raise RuntimeError("shapes cannot be multiplied")
