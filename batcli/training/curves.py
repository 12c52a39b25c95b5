"""Plot a training: losses, learning rate and validation, stage by stage. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from batcli.core.files import replacing
from batcli.training.log import TRAINING, VALIDATION, read_log

Records = Sequence[Mapping[str, Any]]
INK, RATE = "#333333", "#9a9a9a"
STYLE: Any = {
    "figure.constrained_layout.use": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": RATE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "grid.color": "#e6e6e6",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}
COLOURS = ("#1f6fb4", "#d1452c", "#2c7f62", "#b8860b", "#7a3fa0")
METRICS = {  # name in the log → (label, colour)
    "map": ("mAP", "#1f6fb4"),
    "er20": ("ER20", "#d1452c"),
    "mae": ("MAE", "#5b6770"),
    "der": ("DER", "#2c7f62"),
    "label_f1": ("label F1", "#7a3fa0"),
    "doa_acc": ("DoA accuracy", "#b8860b"),
    "lr_acc": ("left or right", "#56a3d9"),
    "binary_acc": ("yes or no", "#e0709b"),
    "choice_acc": ("which side", "#8a5a2b"),
    "source_acc": ("which source", "#333333"),
}
MAX_DEGREES = 120  # on the axis of the mean error; chance is 90
SMOOTHING = 0.03  # share of a stage over which a loss is averaged on each side


@rc_context(STYLE)
def plot_curves(file: Path, log: Path) -> None:
    """Plot a `log.jsonl` as PNG: a column per stage, with rows for losses, learning rate and, if any, validation."""
    records = list(read_log(log))
    stages = {stage: list(group) for stage, group in groupby(records, key=lambda record: record["stage"])}
    validated = any(record["kind"] == VALIDATION for record in records)
    heights = (3.0, 1.0, 2.6) if validated else (3.0, 1.0)
    figure = Figure(figsize=(2.2 + 3.4 * len(stages), 1.2 + 1.15 * sum(heights)), facecolor="white")
    axes = figure.subplots(len(heights), len(stages), squeeze=False, sharex="col", height_ratios=heights)
    for column, (stage, group) in enumerate(stages.items()):
        training = [record for record in group if record["kind"] == TRAINING]
        validation = [record for record in group if record["kind"] == VALIDATION]
        axes[0, column].set_title(f"stage {stage}")
        _plot_losses(axes[0, column], training, validation)
        _plot_learning_rate(axes[1, column], training)
        if validated:
            _plot_metrics(axes[2, column], validation)
        axes[-1, column].set_xlabel("update")
        axes[-1, column].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for row, name in enumerate(("loss", "learning rate", "share")[: len(heights)]):
        axes[row, 0].set_ylabel(name)
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)


def _plot_losses(axes: Axes, training: Records, validation: Records) -> None:
    """Plot each training loss, as logged and smoothed, and the validation loss as crosses."""
    names = list(dict.fromkeys(name for record in training for name in record["losses"]))
    for name, colour in zip(names, COLOURS, strict=False):
        updates, values = _series(training, "losses", name)
        axes.plot(updates, values, color=colour, linewidth=0.7, alpha=0.3)
        axes.plot(updates, _smooth(values), color=colour, linewidth=1.6, label=name)
    updates, values = _series(validation, "loss")
    if updates:
        axes.plot(updates, values, "x", color=INK, markersize=6, markeredgewidth=1.6, label="validation")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.legend()


def _plot_learning_rate(axes: Axes, training: Records) -> None:
    updates, values = _series(training, "lr")
    axes.fill_between(updates, values, color=RATE, alpha=0.35, linewidth=0)
    axes.plot(updates, values, color=RATE, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, -3))
    axes.yaxis.get_offset_text().set_fontsize(8)


def _plot_metrics(axes: Axes, validation: Records) -> None:
    """Plot shares (left axis) and degrees (right axis); dashed lines are for scenes with two places."""
    axes.set_ylim(0, 1)
    degrees = axes.twinx()
    degrees.set_ylim(0, MAX_DEGREES)
    degrees.grid(False)
    degrees.spines[:].set_visible(False)
    lines = []
    for path in _metric_paths(validation[-1]) if validation else ():
        updates, values = _series(validation, *path)
        name, colour = METRICS[path[-1]]
        label = name + {"two": ", two places", "one": ", one place"}.get(path[0], "")
        style = "o--" if path[0] == "two" else "o-"
        axis = degrees if name == "MAE" else axes
        lines += axis.plot(
            updates, values, style, color=colour, clip_on=False, markersize=3, linewidth=1.4, label=label
        )
    if any(line.axes is degrees for line in lines):
        degrees.set_yticks(range(0, MAX_DEGREES + 1, 24))
        degrees.set_ylabel("MAE, degrees", fontsize=8)
    else:
        degrees.set_yticks([])
    if lines:
        axes.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, fontsize=7.5)


def _metric_paths(record: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Keys, from outer to inner, of the metrics in a validation record that can be plotted."""
    groups = [(group, name) for group in ("mean", "one", "two") for name in record.get(group, {})]
    return [path for path in [("map",), *groups] if path[-1] in METRICS and _value(record, path) is not None]


def _value(record: Any, path: Sequence[str]) -> float | None:
    for name in path:
        record = record.get(name) if record is not None else None
    return record


def _series(records: Records, *path: str) -> tuple[list[int], list[float]]:
    """(updates, values) of the records that have a value at `path`."""
    pairs = [(record["update"], value) for record in records if (value := _value(record, path)) is not None]
    return [update for update, _ in pairs], [value for _, value in pairs]


def _smooth(values: Sequence[float]) -> list[float]:
    """Centred running mean of the logarithm."""
    reach = max(1, round(SMOOTHING * len(values)))
    logs = [math.log(max(value, 1e-12)) for value in values]
    windows = (logs[max(0, n - reach) : n + reach + 1] for n in range(len(logs)))
    return [math.exp(sum(window) / len(window)) for window in windows]
