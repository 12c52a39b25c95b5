"""One HTML page about a result: tables, confusion, distances, where it goes wrong. Needs matplotlib.

The page holds everything it shows (SVG, style) and asks no network for anything; only the worst cases
link to files, the scenes that can be listened to.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from batcli.data.question_types import QUESTION_TYPES
from batcli.evaluation.metrics import OCTANTS
from batcli.evaluation.report import Scores, sections, shown
from batcli.evaluation.stats import Score, wilson

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
"""What accuracy is drawn against: label, and the edges of the bins (None: deciles)."""


class Case(NamedTuple):
    """A wrong answer to look into."""

    type_name: str
    question: str
    target: str
    predicted: str
    scene: str  # ids
    links: Sequence[tuple[str, str]]  # (text, address); sound files play in place


def html_report(scores: Scores, places: pandas.DataFrame, cases: Sequence[Case]) -> str:
    """places: one row per answer with a distance: `type`, `target` and `predicted` in metres, `near` (within
    0.5 m), `right` (the direction) and the columns of `AXES`; NaN where unknown."""
    with matplotlib.rc_context(_STYLE):
        body = "\n".join(filter(None, [_head(scores), *_tables(scores), *_pictures(scores, places), _cases(cases)]))
    title = html.escape(f"Scores of {scores.systems[0].name}")
    return _PAGE.format(title=title, style=_CSS, body=body)


def _head(scores: Scores) -> str:
    first = scores.systems[0]
    tiles = "".join(
        f"<div class=tile><b>{html.escape(shown(Score(score.value), name))}</b><span>{html.escape(name)}</span></div>"
        for name, score in first.paper.items()
        if not math.isnan(score.value)
    )
    types = ", ".join(f"{found.n:,} {QUESTION_TYPES[name].title}" for name, found in first.by_type.items())
    return (
        f"<h1>Scores of {html.escape(first.name)}</h1>\n<p>{first.n:,} questions: {html.escape(types)}.</p>\n"
        f"<div class=tiles>{tiles}</div>"
    )


def _tables(scores: Scores) -> Iterator[str]:
    if scores.verdicts:
        gates = "".join(
            f"<li class={'passed' if v.passed else 'missed'}>{html.escape(str(v))}</li>" for v in scores.verdicts
        )
        yield f"<h2>Gates</h2><ul class=gates>{gates}</ul>"
    for heading, rows, note in sections(scores):
        yield f"<h2>{html.escape(heading)}</h2>{_table(rows)}<p class=note>{html.escape(note)}</p>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table; where its first columns are type and n, they become a line of their own above their metrics."""
    grouped = len([name for name in rows[0] if name in ("type", "n")])
    header, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = []
    for row in body:
        if grouped and row[0]:
            count = f" · {row[1]} questions" if grouped == 2 else ""
            lines.append(f"<tr><th colspan={len(row) - grouped} scope=rowgroup>{row[0]}{count}</th></tr>")
        lines.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row[grouped:])}</tr>")
    head = "".join(f"<th scope=col>{cell}</th>" for cell in header[grouped:])
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"


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


def _pictures(scores: Scores, places: pandas.DataFrame) -> Iterator[str]:
    first = scores.systems[0]
    confusions = [
        _figure(
            _confusion(found.details["confusion"]),
            f"{QUESTION_TYPES[name].title}: true octant (rows) and answered octant (columns), per cent of the row",
        )
        for name, found in first.by_type.items()
        if "confusion" in found.details
    ]
    note = "L left, R right; F front, B behind; A above, U below; – not said in full."
    yield _gallery("Directions", confusions, note)
    distances = [
        _figure(_distances(here), f"{question_type.title}: true and answered distance")
        for name, question_type in QUESTION_TYPES.items()
        if len(here := places[(places["type"] == name) & places["predicted"].notna()])
    ]
    note = "A disc's area is the number of answers; the line joins their medians; the band is ± 0.5 m."
    yield _gallery("Distances", distances, note)
    located = places[places["right"].notna()]
    shares = [
        _figure(_shares(located, name, label, edges), f"Right answers against {label.partition(',')[0]}")
        for name, (label, edges) in AXES.items()
        if located[name].notna().sum() >= FEWEST
    ]
    note = (
        "Direction right (all three words), and distance within 0.5 m, in per cent; bands are 95 % Wilson "
        f"intervals, which take answers for independent; bins of fewer than {FEWEST} answers are left out."
    )
    yield _gallery("Where it goes wrong", shares, note)


def _gallery(heading: str, figures: Sequence[str], note: str) -> str:
    if not figures:
        return ""
    return f"<h2>{heading}</h2><div class=grid>{''.join(figures)}</div><p class=note>{html.escape(note)}</p>"


def _figure(figure: Figure, caption: str) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace("<svg ", f'<svg role="img" aria-label="{html.escape(caption)}" ', 1)
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


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


# ---- worst cases ---------------------------------------------------------------------------------


def _cases(cases: Sequence[Case]) -> str:
    if not cases:
        return ""
    rows = "".join(
        f"<tr><td>{html.escape(QUESTION_TYPES[case.type_name].title)}</td><td>{html.escape(case.question)}</td>"
        f"<td>{html.escape(case.target)}</td><td>{html.escape(case.predicted)}</td><td>{_links(case)}</td></tr>"
        for case in cases
    )
    head = "".join(f"<th>{name}</th>" for name in ("type", "question", "true answer", "answer", "scene"))
    return (
        "<h2>Worst cases</h2><div class=wide><table class=cases>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _links(case: Case) -> str:
    parts = []
    for text, address in case.links:
        escaped = html.escape(address, quote=True)
        if address.endswith((".wav", ".flac")):
            parts.append(f'<audio controls preload="none" src="{escaped}"></audio>')
        parts.append(f'<a href="{escaped}">{html.escape(text)}</a>')
    return f"<small>{html.escape(case.scene)}</small>{' '.join(parts)}"


_CSS = """
:root { color-scheme: light; --ink: #1f2933; --soft: #c9d3df; --accent: #2f6db5; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 82rem; color: var(--ink); background: #fff;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; }
.note { color: #52606d; font-size: .87rem; max-width: 60rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(7.5rem, 1fr)); gap: .6rem; margin-top: 1rem; }
.tile { border: 1px solid var(--soft); border-radius: .5rem; padding: .5rem .7rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.tile span { color: #52606d; font-size: .85rem; }
.wide { overflow-x: auto; border: 1px solid var(--soft); border-radius: .5rem; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: left; padding: .3rem .7rem; white-space: nowrap; vertical-align: top; }
tbody th { background: #fafbfc; border-top: 1px solid var(--soft); font-weight: 600; }
thead th { background: #f3f6f9; border-bottom: 1px solid var(--soft); }
tbody tr + tr td { border-top: 1px solid #eef2f6; }
.cases td { white-space: normal; min-width: 9rem; }
.cases td:nth-child(2) { min-width: 16rem; }
.cases small { display: block; color: #52606d; overflow-wrap: anywhere; }
.cases audio { display: block; width: 15rem; height: 2rem; margin: .2rem 0; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem; }
figure { margin: 0; border: 1px solid var(--soft); border-radius: .5rem; padding: .6rem; min-width: 0; }
figure svg { width: 100%; height: auto; display: block; }
figcaption { color: #52606d; font-size: .85rem; margin-top: .3rem; overflow-wrap: anywhere; }
.gates { padding-left: 1.2rem; } .missed { color: #a61b1b; font-weight: 600; } .passed { color: #1f6b3a; }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
