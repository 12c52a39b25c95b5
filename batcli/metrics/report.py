"""What `bat score` found, and its forms: table, JSON, CSV, Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batcli.core.schema import FAMILIES
from batcli.metrics.stats import Score

SCHEMA = 1
METRES = ("distance_mae",)
"""Metrics in metres; all others are fractions, shown as per cent."""

PAPER_COLUMNS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "mAP": {
        "A": (("CLASSIFICATION", "map"),),
        "C": (("MIXUP_SINGLE_CLASSIFICATION", "map"),),
    },
    "label F1": {
        "A": (("CLASSIFICATION", "label_f1"),),
        "C": (("MIXUP_SINGLE_CLASSIFICATION", "label_f1"),),
    },
    "DoA": {"B": (("DOA", "doa_acc"),), "D": (("MIXUP_SINGLE_DOA", "doa_acc"),)},
    "DER": {"B": (("DOA", "der"),), "D": (("MIXUP_SINGLE_DOA", "der"),)},
    "BA": {
        "direction": (("MIXUP_DIRECTION", "binary_acc"),),
        "distance": (("MIXUP_DISTANCE_BOTH", "binary_acc"),),
        "avg": (("MIXUP_DIRECTION", "binary_acc"), ("MIXUP_DISTANCE_BOTH", "binary_acc")),
    },
}
"""The published table: heading → column → the metrics whose mean it is. (Its columns have no label
F1, which needs no embedder.)"""


@dataclass
class TypeScores:
    """The questions of one type."""

    n: int
    scores: dict[str, Score]
    details: dict[str, Any] = field(default_factory=dict)  # confusion, calibration


@dataclass
class System:
    """One column of the table: a file of predictions, or a baseline."""

    name: str
    n: int
    by_type: dict[str, TypeScores]
    by_family: dict[str, dict[str, Score]]
    paper: dict[str, Score]  # "mAP A", …, "BA avg"
    embedder: dict[str, str] | None = None  # name, hash


@dataclass
class Scores:
    """The whole result; the first system is the one that was asked about."""

    systems: list[System]
    settings: dict[str, Any]


def paper_names() -> dict[str, tuple[tuple[str, str], ...]]:
    """ "mAP A" → its metrics, in the order of the published table."""
    return {f"{head} {column}": parts for head, columns in PAPER_COLUMNS.items() for column, parts in columns.items()}


# ---- JSON ----------------------------------------------------------------------------------------


def to_json(scores: Scores) -> str:
    first, *others = scores.systems
    content = {"schema": SCHEMA, **_system_json(first), "settings": scores.settings}
    if others:
        content["others"] = [_system_json(system) for system in others]
    return json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _system_json(system: System) -> dict[str, Any]:
    by_type = {
        kind: {
            "n": found.n,
            **{name: _score_json(score, name, system) for name, score in found.scores.items()},
            **found.details,
        }
        for kind, found in system.by_type.items()
    }
    by_family = {
        family: {name: _score_json(score, name, system) for name, score in found.items()}
        for family, found in system.by_family.items()
    }
    paper = {name.replace(" ", "_").lower(): _score_json(s, name.lower(), system) for name, s in system.paper.items()}
    return {"name": system.name, "n": system.n, "by_type": by_type, "by_family": by_family, "paper_table": paper}


def _score_json(score: Score, name: str, system: System) -> dict[str, Any]:
    ci = None if math.isnan(score.low) else [score.low, score.high]
    embedder = {"embedder": system.embedder} if system.embedder and name.startswith("map") else {}
    return {"value": score.value, "ci": ci, **embedder}


def _finite(value: Any) -> Any:
    """NaN → null, all the way down: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- tables --------------------------------------------------------------------------------------


def tidy(scores: Scores) -> Iterator[dict[str, Any]]:
    """One row per system, type and metric."""
    for system in scores.systems:
        for kind, found in system.by_type.items():
            for metric, score in found.scores.items():
                yield {
                    "system": system.name,
                    "family": FAMILIES[kind],
                    "type": kind,
                    "n": found.n,
                    "metric": metric,
                    "embedder": system.embedder["name"] if system.embedder and metric == "map" else "",
                    "value": score.value,
                    "low": score.low,
                    "high": score.high,
                }


def to_csv(scores: Scores) -> str:
    """Fractions and metres, one row per system, type and metric."""
    import pandas

    return pandas.DataFrame(tidy(scores)).to_csv(index=False)


def shown(score: Score | None, metric: str) -> str:
    """`84.1 (80.2–87.9)` in per cent, `0.62 m (0.55–0.70)` in metres, `–` for nothing."""
    if score is None or math.isnan(score.value):
        return "–"
    scale, digits, unit = (1.0, 2, " m") if metric in METRES else (100.0, 1, "")
    text = f"{scale * score.value:.{digits}f}{unit}"
    if math.isnan(score.low):
        return text
    return f"{text} ({scale * score.low:.{digits}f}–{scale * score.high:.{digits}f})"


def type_rows(scores: Scores) -> list[list[str]]:
    """Header and rows: type, metric, n, then a column per system."""
    names = [system.name for system in scores.systems]
    rows = [["type", "n", "metric", *names]]
    for kind in FAMILIES:
        present = [system.by_type[kind] for system in scores.systems if kind in system.by_type]
        metrics = list(dict.fromkeys(metric for found in present for metric in found.scores))
        counts = " / ".join(str(n) for n in dict.fromkeys(found.n for found in present))
        for number, metric in enumerate(metrics):
            found_scores = [
                system.by_type[kind].scores.get(metric) if kind in system.by_type else None for system in scores.systems
            ]
            first = [f"{FAMILIES[kind]} {kind}", counts] if number == 0 else ["", ""]
            rows.append([*first, _with_embedder(metric, scores), *(shown(score, metric) for score in found_scores)])
    return rows


def _with_embedder(metric: str, scores: Scores) -> str:
    names = dict.fromkeys(system.embedder["name"] for system in scores.systems if system.embedder)
    return f"{metric} ({', '.join(names)})" if metric == "map" and names else metric


def paper_rows(scores: Scores) -> list[list[str]]:
    """Header and rows in the layout of the published table; columns that nobody has are left out."""
    used = {
        head: columns
        for head, columns in PAPER_COLUMNS.items()
        if any(not math.isnan(s.paper[f"{head} {column}"].value) for s in scores.systems for column in columns)
    }
    rows = [["per cent", "embedder", *(f"{head} {' / '.join(columns)}" for head, columns in used.items())]]
    for system in scores.systems:
        cells = [" / ".join(_cell(system.paper[f"{h} {column}"]) for column in columns) for h, columns in used.items()]
        rows.append([system.name, system.embedder["name"] if system.embedder else "–", *cells])
    return rows


def _cell(score: Score) -> str:
    return "–" if math.isnan(score.value) else f"{100.0 * score.value:.2f}"


def to_table(scores: Scores) -> str:
    return _aligned(type_rows(scores), right=1) + "\n" + _aligned(paper_rows(scores))


def _aligned(rows: Sequence[Sequence[str]], right: int | None = None) -> str:
    """Columns two spaces apart under a rule; column `right` is set flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column == right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines) + "\n"


def to_markdown(scores: Scores) -> str:
    """Two tables, as a CI job summary shows them."""
    return f"### Scores\n\n{_pipes(type_rows(scores))}\n### Published table's layout\n\n{_pipes(paper_rows(scores))}"


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    header, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


FORMATS = {"table": to_table, "json": to_json, "csv": to_csv, "md": to_markdown}
