"""Scores as text for a terminal: tables that are no wider than it."""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterator, Sequence

from batcli.evaluation.report import UNITS, Comparison, Scores, comparison_note, interval_note, paper_rows, shown
from batcli.evaluation.stats import Score
from batcli.evaluation.subjects import LOWER_IS_BETTER, METRICS_IN_WORDS, TYPES_IN_WORDS

BEST = "*"
LEGEND = f"↑ higher is better, ↓ lower is better, {BEST} best of its row"
SHORT_HEADINGS = {"label F1": "F1", "direction": "dir.", "distance": "dist."}  # of the published table
LONGEST_NAME = 24  # characters of a system's name above its column
WIDTH = 80  # where no terminal says its own


def to_table(scores: Scores, width: int | None = None) -> str:
    """All scores by question type; then the published systems, and the difference, where these are wanted.

    width: columns of the terminal, by default as it says itself. Where it is too narrow, columns go below each other.
    """
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    parts = [_type_table(scores, width)]
    if scores.published is not None:
        parts.append(_published_table(scores, width))
    if scores.comparison:
        parts.append(_difference_table(scores, scores.comparison, width))
    return "\n".join(parts)


def _type_table(scores: Scores, width: int) -> str:
    several = len(scores.systems) > 1
    legend = LEGEND if several else LEGEND.partition(f", {BEST}")[0]
    embedders = dict.fromkeys(system.embedder["name"] for system in scores.systems if system.embedder)
    notes = [f"map compares texts by: {', '.join(embedders)}"] if embedders else []
    notes += [interval_note(scores)] if scores.settings["replicates"] else []
    text = _columns(_type_rows(scores), width, fixed=1)
    return "\n".join([f"Scores in per cent; {legend}", "", text.rstrip("\n"), "", *notes]).rstrip("\n") + "\n"


def _type_rows(scores: Scores) -> list[list[str]]:
    """Header and rows: the metric's label, then a cell per system. A row of one cell is the heading of a type."""
    rows = [["", *(_name(system.name) for system in scores.systems)]]
    for type_name in scores.subject.titles:
        columns = [system.by_type.get(type_name) for system in scores.systems]
        present = [found for found in columns if found]
        if not present:
            continue
        rows.append([_heading(scores, type_name, " / ".join(dict.fromkeys(f"{found.n:,}" for found in present)))])
        for metric in dict.fromkeys(metric for found in present for metric in found.scores):
            values = [found.scores.get(metric) if found else None for found in columns]
            if metric == "answered" and _all_readable(scores, type_name):
                continue
            best = _best(values, metric)
            cells = [_cell(value, metric) + (BEST if value and value.value == best else " ") for value in values]
            rows.append([_label(metric), *cells])
    return rows


def _all_readable(scores: Scores, type_name: str) -> bool:
    found = [system.by_type[type_name].scores for system in scores.systems if type_name in system.by_type]
    return all("answered" not in metrics or metrics["answered"].value == 1.0 for metrics in found)


def _best(values: Sequence[Score | None], metric: str) -> float | None:
    """The best of two or more values that are not all the same; else None."""
    known = {value.value for value in values if value is not None and not math.isnan(value.value)}
    if len(known) < 2:
        return None
    return min(known) if metric in LOWER_IS_BETTER else max(known)


def _cell(score: Score | None, metric: str) -> str:
    """`83.8 (79.9–87.5)`, in at most 16 characters: without a unit, and 100 without decimals."""
    if score is None or math.isnan(score.value):
        return "–"
    scale, digits = (1.0, UNITS[metric][1]) if metric in UNITS else (100.0, 1)
    value, low, high = (f"{scale * number:.{digits}f}".replace("100.0", "100") for number in score)
    return value if math.isnan(score.low) else f"{value} ({low}–{high})"


def _heading(scores: Scores, type_name: str, n: str) -> str:
    words = TYPES_IN_WORDS.get(type_name)
    return scores.subject.titles[type_name] + (f" – {words}" if words else "") + (f", n = {n}" if n else "")


def _label(metric: str) -> str:
    return f"{'↓' if metric in LOWER_IS_BETTER else '↑'} {METRICS_IN_WORDS.get(metric, ''):<11} {metric}"


def _name(name: str) -> str:
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def _published_table(scores: Scores, width: int) -> str:
    """The scored and the published systems in the layout of the published table."""
    subject = scores.subject
    rows = [[cell.replace(" / ", "/") for cell in row] for row in paper_rows(scores)]
    if subject.embedder:
        rows = [[row[0], *row[2:]] for row in rows]
    for old, new in SHORT_HEADINGS.items():
        rows[0] = [cell.replace(old, new) for cell in rows[0]]
    here = rows[1 : len(scores.systems) + 1]
    published = [[row[0].removeprefix("published: "), *row[1:]] for row in rows[len(scores.systems) + 1 :]]
    named = [[_name(row[0]), *row[1:]] for row in here]
    text = _columns([["", *rows[0][1:]], *named, ["published"], *published], width, fixed=1)
    notes = [scores.published] if scores.published else []
    if subject.embedder:
        notes.append(f"The published mAP compares texts by {subject.embedder}'s embeddings.")
    notes = [_wrapped(note, width) for note in notes]
    return "\n".join([f"In the published table's layout, {subject.units}", "", text, *notes]) + "\n"


def _difference_table(scores: Scores, comparison: Comparison, width: int) -> str:
    names = f"{_name(scores.systems[0].name)} − {_name(comparison.other)}"
    rows = [["", "difference", "wins / losses", "McNemar p"]]
    for type_name, found in comparison.by_type.items():
        rows.append([_heading(scores, type_name, "")])
        for metric, (score, wins, losses, p_value) in found.items():
            if metric == "answered" and _all_readable(scores, type_name) and score.value == 0:
                continue
            pair = ["", ""] if wins is None else [f"{wins:,} / {losses:,}", f"{p_value:.2g}"]
            rows.append([_label(metric), shown(score, metric, "+"), *pair])
    note = _wrapped(comparison_note(scores, comparison), width)
    return f"Difference in points, {names}\n\n{_columns(rows, width, fixed=1)}\n{note}\n"


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _columns(rows: Sequence[Sequence[str]], width: int, fixed: int) -> str:
    """Rows as aligned columns over a rule; those that do not fit beside the first `fixed` follow in further tables.

    A row of one cell runs over all columns.
    """
    whole = [row for row in rows if len(row) > 1]
    widths = [max(len(row[column]) for row in whole) for column in range(len(whole[0]))]
    tables = []
    for chosen in _that_fit(widths, width, fixed):
        lines = []
        for row in rows:
            cells = [row[column].ljust(widths[column]) for column in chosen] if len(row) > 1 else row
            lines.append(" ".join(cells).rstrip())
        lines.insert(1, "-" * max(map(len, lines)))
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def _that_fit(widths: Sequence[int], width: int, fixed: int) -> Iterator[list[int]]:
    """The columns of each table: the first `fixed`, then as many of the others as fit, at least one."""
    first = list(range(fixed))
    chosen = list(first)
    for column in range(fixed, len(widths)):
        if len(chosen) > fixed and sum(widths[c] + 1 for c in chosen) + widths[column] > width + 1:
            yield chosen
            chosen = list(first)
        chosen.append(column)
    yield chosen
