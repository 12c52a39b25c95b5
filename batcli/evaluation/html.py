"""The page of `bat score --report`: tables, pictures, and the worst answers of each type. Needs matplotlib.

The page holds everything it shows (SVG, style) and asks no network for anything; only the worst cases
link to files, the scenes that can be listened to.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import matplotlib
import numpy as np
import pandas
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batcli.core.errors import InputError
from batcli.core.files import inside, write_text
from batcli.core.records import read_records
from batcli.data.answers import write_doa
from batcli.data.dataset import Dataset
from batcli.data.metadata import Reverb
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import Source
from batcli.evaluation.metrics import OCTANTS
from batcli.evaluation.predictions import Prediction, Predictions
from batcli.evaluation.report import Scores, sections, shown
from batcli.evaluation.scores import Measured
from batcli.evaluation.stats import Score, wilson

WORST = 6
"""Cases of each type on the page."""
INK, ACCENT, SOFT = "#1f2933", "#2f6db5", "#c9d3df"
FEWEST = 5
"""Answers in a bin, for its share to be drawn."""

SHORT = {"left": "L", "right": "R", "front": "F", "behind": "B", "above": "A", "below": "U"}
AXES = {
    "azimuth": ("azimuth, ° (0 right, 90 front, 180 left, 270 behind)", [*range(0, 361, 30)]),
    "elevation": ("elevation, °", [-90, -60, -45, -30, -15, 0, 15, 30, 45, 60, 90]),
    "distance": ("true distance, m", [0, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6, 8, 1e9]),
    "rt60": ("reverberation time RT60, s", None),
    "drr": ("direct-to-reverberant ratio, dB", None),
}
"""Columns that accuracy is drawn against: label, and the edges of the bins (None: deciles)."""


class Case(NamedTuple):
    """A wrong answer, for the table of worst cases."""

    title: str  # of its question type
    question: str
    target: str
    predicted: str
    scene: str  # ids of clips and BRIRs
    links: Sequence[tuple[str, str]]  # (text, address); sound files play in place


def write_report(
    report: Path,
    result: Scores,
    predictions: Iterator[Prediction],
    file: Predictions,
    measured: Sequence[Measured],
    dataset: Dataset | None,
    scenes: Path | None,
) -> None:
    """Write `index.html` in the folder `report`, about the first system, whose predictions are `file`."""
    reverbs = _all_reverbs(dataset) if dataset else {}
    links = _scene_links(scenes, report) if scenes else {}
    worst = [row for found in measured for row in _worst(found)]
    with_distance = {
        int(row): (found, number)
        for found in measured
        if "distance" in found.answers.question_type.parts
        for number, row in enumerate(found.rows)
    }
    places: list[dict[str, Any]] = []
    cases: dict[int, Case] = {}
    for row, one in enumerate(predictions):
        if row in with_distance:
            places.append(_located(one, *with_distance[row], reverbs))
        if row in worst:
            title, predicted = QUESTION_TYPES[one.type_name].title, file.answer(row)
            text = "(no answer)" if predicted is None else predicted
            files = links.get(one.scene) or _source_links(one.scene, dataset, report)
            cases[row] = Case(title, one.question, one.target, text, " + ".join(one.scene), files)
    frame = pandas.DataFrame(places, columns=["type", "target", "predicted", "near", "right", *AXES])
    write_text(report / "index.html", _page(result, frame, [cases[row] for row in worst]))


def _page(scores: Scores, places: pandas.DataFrame, cases: Sequence[Case]) -> str:
    """The page as HTML. places: one row per answer with a distance: `type`, `target` and `predicted` in metres,
    `near` (within 0.5 m), `right` (the direction) and the columns of `AXES`; NaN where unknown."""
    loader = PackageLoader("batcli.evaluation")
    pages = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    first = scores.systems[0]
    with matplotlib.rc_context(_STYLE):
        return pages.get_template("report.html").render(
            system=first,
            types=[f"{found.n:,} {QUESTION_TYPES[name].title}" for name, found in first.by_type.items()],
            tiles=[
                (n, shown(Score(score.value), n)) for n, score in first.paper.items() if not math.isnan(score.value)
            ],
            verdicts=scores.verdicts,
            sections=list(sections(scores)),
            galleries=list(_galleries(scores, places)),
            cases=cases,
        )


# ---- answers -------------------------------------------------------------------------------------


def _worst(found: Measured) -> list[int]:
    """Rows of the answers with the largest errors, the worst first."""
    errors = found.answers.errors
    return [int(found.rows[number]) for number in np.argsort(-errors, kind="stable")[:WORST] if errors[number] > 0]


def _located(one: Prediction, found: Measured, number: int, reverbs: Mapping[str, Reverb]) -> dict[str, Any]:
    """One row of the page's pictures. `number`: of the answer among those of its type."""
    answers = found.answers
    target = answers.targets[number].distance
    row = {
        "type": one.type_name,
        "target": target,
        "predicted": answers.predicted[number].distance,
        "near": 1.0 - answers.ratios["der"][0][number],
        "distance": target,
    }
    if "direction" not in answers.question_type.parts:
        return row
    row["right"] = answers.ratios["doa_acc"][0][number]
    # Which of two sources was asked about, the true answer tells; if both fit, neither is taken.
    fitting = [
        reverb for name in one.scene[1::2] if (reverb := reverbs.get(name)) and write_doa(reverb.position) == one.target
    ]
    if len(fitting) == 1:
        position, extra = fitting[0].position, fitting[0].extra
        row |= {"azimuth": position.azimuth, "elevation": position.elevation, "distance": position.distance}
        row |= {name: extra[name] for name in ("rt60", "drr") if isinstance(extra.get(name), (int, float))}
    return row


def _all_reverbs(dataset: Dataset) -> dict[str, Reverb]:
    splits = [name for name, split in dataset.splits.items() if split.reverbs is not None]
    return {key: reverb for name in splits for key, reverb in dataset.reverbs(name).items()}


def _address(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def _scene_links(folder: Path, report: Path) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Links to the scenes that `bat spatialize` rendered: ids → (text, address)."""
    links = {}
    for where, record in read_records(folder / "scenes.jsonl"):
        try:
            ids = tuple(part for source in record["sources"] for part in (source["audio_id"], source["reverb_id"]))
            if record["file"] is not None:
                links[ids] = [(record["file"], _address(inside(folder, record["file"], where), report))]
        except (KeyError, TypeError):
            raise InputError("not a scene of `bat spatialize`", where) from None
    return links


def _source_links(scene: Sequence[str], dataset: Dataset | None, report: Path) -> list[tuple[str, str]]:
    """Links to the clips and BRIRs of a scene, where the dataset is known."""
    if dataset is None:
        return []
    files = [path for pair in zip(scene[::2], scene[1::2], strict=True) for path in dataset.files_of(Source(*pair))]
    return [(path.name, _address(path, report)) for path in files if path.exists()]


# ---- pictures ------------------------------------------------------------------------------------

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: smaller, searchable, in the page's font
    "svg.hashsalt": "bat",  # same result, same bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def _galleries(scores: Scores, places: pandas.DataFrame) -> Iterator[tuple[str, list[tuple[str, str]], str]]:
    """(heading, figures by their captions, note) of each kind of picture."""
    confusions = [
        _figure(
            f"{QUESTION_TYPES[name].title}: true octant (rows) and answered octant (columns), per cent of the row",
            _confusion(found.details["confusion"]),
        )
        for name, found in scores.systems[0].by_type.items()
        if "confusion" in found.details
    ]
    yield "Directions", confusions, "L left, R right; F front, B behind; A above, U below; – not said in full."
    distances = [
        _figure(f"{question_type.title}: true and answered distance", _distances(here))
        for name, question_type in QUESTION_TYPES.items()
        if len(here := places[(places["type"] == name) & places["predicted"].notna()])
    ]
    note = "A disc's area is the number of answers; the line joins their medians; the band is ± 0.5 m."
    yield "Distances", distances, note
    located = places[places["right"].notna()]
    shares = [
        _figure(f"Right answers against {label.partition(',')[0]}", _shares(located, name, label, edges))
        for name, (label, edges) in AXES.items()
        if located[name].notna().sum() >= FEWEST
    ]
    note = (
        "Direction right (all three words), and distance within 0.5 m, in per cent; bands are 95 % Wilson "
        f"intervals, which take answers for independent; bins of fewer than {FEWEST} answers are left out."
    )
    yield "Where it goes wrong", shares, note


def _figure(caption: str, figure: Figure) -> tuple[str, str]:
    """The caption, and the SVG without its opening `<svg `, which the page writes with a label."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    return caption, file.getvalue().partition("<svg ")[2]


def _axes(width: float = 4.6, height: float = 3.2) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _confusion(confusion: dict[str, Any]) -> Figure:
    counts = np.array(confusion["counts"], dtype=float)
    shares = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    figure, axes = _axes(4.6, 4.0)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=100.0, aspect="auto")
    names = ["".join(SHORT[word] for word in octant.split(", ")) for octant in OCTANTS]
    axes.set_xticks(range(len(names) + 1), [*names, "–"])
    axes.set_yticks(
        range(len(names)), [f"{name}  {int(n):,}" for name, n in zip(names, counts.sum(axis=1), strict=True)]
    )
    axes.tick_params(length=0)
    axes.set_xlabel("answered")
    axes.set_ylabel("true octant, and how often")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:
            axes.text(column, row, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else INK)
    return figure


def _distances(places: pandas.DataFrame) -> Figure:
    """Discs on the 0.5 m grid of the true answers; other answers are drawn at their nearest step."""
    figure, axes = _axes()
    top = float(max(places["target"].max(), places["predicted"].quantile(0.99))) + 0.5
    steps = places.assign(predicted=(2.0 * places["predicted"]).round() / 2.0)
    counts = steps.groupby(["target", "predicted"]).size().reset_index(name="n")
    ends = np.array([0.0, top])
    axes.fill_between(ends, ends - 0.5, ends + 0.5, color=SOFT, alpha=0.5, linewidth=0)
    sizes = 140.0 * counts["n"] / counts["n"].max()
    axes.scatter(counts["target"], counts["predicted"], s=sizes, color=ACCENT, alpha=0.6, linewidths=0)
    medians = places.groupby("target")["predicted"].median()
    axes.plot(medians.index, medians.to_numpy(), color=INK, linewidth=1.2)
    axes.set(xlim=(0, top), ylim=(0, top), xlabel="true distance, m", ylabel="answered distance, m")
    return figure


def _shares(places: pandas.DataFrame, name: str, label: str, edges: Sequence[float] | None) -> Figure:
    figure, axes = _axes()
    known = places.dropna(subset=[name])
    if edges is None:
        edges = np.unique(known[name].quantile(np.linspace(0.0, 1.0, 9)).to_numpy()).tolist()
    bins = pandas.cut(known[name], edges, right=name not in ("azimuth", "elevation"), include_lowest=True)
    grouped = known.groupby(bins, observed=True)
    for column, text, colour in (("right", "direction", ACCENT), ("near", "distance", "#b5572f")):
        found = grouped.agg(n=(column, "size"), hits=(column, "sum"), at=(name, "mean"))
        found = found[found["n"] >= FEWEST]
        low, high = wilson(found["hits"].to_numpy(float), found["n"].to_numpy(float))
        axes.fill_between(found["at"], 100.0 * low, 100.0 * high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(found["at"], 100.0 * found["hits"] / found["n"], color=colour, marker="o", markersize=3.5, label=text)
    axes.set(ylim=(0, 102), xlabel=label, ylabel="right, per cent")
    if name == "azimuth":
        axes.set_xticks(range(0, 361, 90))
    axes.legend(frameon=False, loc="lower right")
    return figure
