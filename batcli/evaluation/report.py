"""The result of `bat score` and its forms: JSON, CSV, Markdown, JUnit; `table.py` has that for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

from batcli.evaluation.stats import Score
from batcli.evaluation.subjects import ANSWERS, Subject, paper_name

SCHEMA = 1
UNITS = {"distance_mae": (" m", 2), "mae": ("°", 1)}
"""Metric → its unit and decimals; all others are fractions, shown as per cent."""


@dataclass
class TypeScores:
    """The scores of one question type."""

    n: int
    scores: dict[str, Score]
    details: dict[str, Any] = field(default_factory=dict)  # confusion, calibration


@dataclass
class System:
    """The scores of a file of predictions or a baseline: one column of the table."""

    name: str
    n: int
    by_type: dict[str, TypeScores]
    by_family: dict[str, dict[str, Score]]
    paper: dict[str, Score]  # "mAP A", …, "BA avg"
    embedder: dict[str, str] | None = None  # name, hash

    def find(self, name: str) -> Score | None:
        """The score that `DOA.doa_acc` or `B.doa_acc` names, if there is one."""
        where, _, metric = name.rpartition(".")
        if where in self.by_type:
            return self.by_type[where].scores.get(metric)
        return self.by_family.get(where, {}).get(metric)


class Difference(NamedTuple):
    """A metric of one system minus that of another, on the same questions."""

    score: Score
    wins: int | None = None  # questions that only this one has right
    losses: int | None = None  # questions that only the other has right
    p_value: float = math.nan  # McNemar


@dataclass
class Comparison:
    """The first system minus another, on the questions of both."""

    other: str
    n: int  # questions in both
    only_here: int
    only_there: int
    by_type: dict[str, dict[str, Difference]]
    paper: dict[str, Score]


class Verdict(NamedTuple):
    """A limit that the options set on a metric (a gate), with the metric's value and whether it keeps the limit."""

    system: str
    name: str  # TYPE.metric
    over: bool  # True: values over the limit fail; False: values under it fail
    limit: float  # fraction 0…1, or metres
    value: float  # in the same unit; NaN, which fails, where the system has no such metric

    @property
    def passed(self) -> bool:
        return self.value <= self.limit if self.over else self.value >= self.limit

    def __str__(self) -> str:
        found = "missing" if math.isnan(self.value) else f"{self.value:.4f}"
        return f"{self.name} of {self.system} is {found}, wanted {'≤' if self.over else '≥'} {self.limit:g}"


@dataclass
class Scores:
    """The result of `bat score`. The first system is the first file of predictions."""

    systems: list[System]
    settings: dict[str, Any]
    comparison: Comparison | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    published: str | None = None  # a note on the published rows, where they are wanted
    subject: Subject = ANSWERS


# ---- JSON ----------------------------------------------------------------------------------------


def to_json(scores: Scores) -> str:
    first, *others = scores.systems
    content = {"schema": SCHEMA, **_system_json(first), "settings": scores.settings}
    if others:
        content["others"] = [_system_json(system) for system in others]
    if scores.comparison:
        content["against"] = _comparison_json(scores.comparison)
    if scores.verdicts:
        content["gates"] = [{**verdict._asdict(), "passed": verdict.passed} for verdict in scores.verdicts]
    if scores.published is not None:
        published = scores.subject.published
        rows = {system: {_key(name): value for name, value in row.items()} for system, row in published.items()}
        content["published"] = {"note": scores.published, "embedder": scores.subject.embedder, "systems": rows}
    return json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _key(paper_column: str) -> str:
    return paper_column.replace(" ", "_").lower()


def _system_json(system: System) -> dict[str, Any]:
    by_type = {
        type_name: {
            "n": found.n,
            **{metric: _score_json(score, metric, system) for metric, score in found.scores.items()},
            **found.details,
        }
        for type_name, found in system.by_type.items()
    }
    by_family = {
        family: {name: _score_json(score, name, system) for name, score in found.items()}
        for family, found in system.by_family.items()
    }
    paper = {_key(name): _score_json(score, name.lower(), system) for name, score in system.paper.items()}
    return {"name": system.name, "n": system.n, "by_type": by_type, "by_family": by_family, "paper_table": paper}


def _score_json(score: Score, name: str, system: System) -> dict[str, Any]:
    ci = None if math.isnan(score.low) else [score.low, score.high]
    embedder = {"embedder": system.embedder} if system.embedder and name.startswith("map") else {}
    return {"value": score.value, "ci": ci, **embedder}


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    def difference(found: Difference) -> dict[str, Any]:
        score, wins, losses, p_value = found
        content: dict[str, Any] = {"difference": score.value, "ci": None if math.isnan(score.low) else score[1:]}
        return content if wins is None else content | {"wins": wins, "losses": losses, "mcnemar_p": p_value}

    return {
        "name": comparison.other,
        "n": comparison.n,
        "only_here": comparison.only_here,
        "only_there": comparison.only_there,
        "by_type": {
            type_name: {metric: difference(one) for metric, one in found.items()}
            for type_name, found in comparison.by_type.items()
        },
        "paper_table": {_key(name): difference(Difference(score)) for name, score in comparison.paper.items()},
    }


def finite(value: Any) -> Any:
    """A copy with None in place of NaN at every depth, for JSON."""
    if isinstance(value, Mapping):
        return {key: finite(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(below) for below in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---- tables --------------------------------------------------------------------------------------


def tidy(scores: Scores) -> Iterator[dict[str, Any]]:
    """One row per system, type and metric, for the CSV: fractions and metres."""
    for system in scores.systems:
        for type_name, found in system.by_type.items():
            for metric, score in found.scores.items():
                row = {
                    "system": system.name,
                    "family": scores.subject.families[type_name],
                    "type": type_name,
                    "n": found.n,
                    "metric": metric,
                    "embedder": system.embedder["name"] if system.embedder and metric == "map" else "",
                    "value": score.value,
                    "low": score.low,
                    "high": score.high,
                }
                if scores.comparison:
                    here = scores.comparison.by_type if system is scores.systems[0] else {}
                    score, _, _, p_value = here.get(type_name, {}).get(metric, Difference(Score(math.nan)))
                    row |= {"difference": score.value, "difference_low": score.low, "difference_high": score.high}
                    row["mcnemar_p"] = p_value
                yield row


def to_csv(scores: Scores) -> str:
    import pandas

    return pandas.DataFrame(tidy(scores)).to_csv(index=False)


def shown(score: Score | None, metric: str, sign: str = "") -> str:
    """`84.1 (80.2–87.9)` in per cent, `0.62 m (0.55–0.70)`, `–` for NaN. `sign`: "+" of a difference."""
    if score is None or math.isnan(score.value):
        return "–"
    scale = 1.0 if metric in UNITS else 100.0
    unit, digits = UNITS.get(metric, ("", 1))
    value, low, high = (f"{scale * number:{sign}.{digits}f}" for number in score)
    if math.isnan(score.low):
        return value + unit
    return f"{value}{unit} ({low} to {high})" if sign else f"{value}{unit} ({low}–{high})"


def type_rows(scores: Scores) -> list[list[str]]:
    """Header and rows: type, n, metric, then a column per system."""
    rows = [["type", "n", "metric", *(system.name for system in scores.systems)]]
    for type_name, title in scores.subject.titles.items():
        columns = [system.by_type.get(type_name) for system in scores.systems]
        present = [found for found in columns if found]
        counts = " / ".join(dict.fromkeys(f"{found.n:,}" for found in present))
        first = [title, counts]
        for metric in dict.fromkeys(metric for found in present for metric in found.scores):
            cells = [shown(found.scores.get(metric) if found else None, metric) for found in columns]
            rows.append([*first, _with_embedder(metric, scores), *cells])
            first = ["", ""]
    return rows


def _with_embedder(metric: str, scores: Scores) -> str:
    names = dict.fromkeys(system.embedder["name"] for system in scores.systems if system.embedder)
    return f"{metric} ({', '.join(names)})" if metric == "map" and names else metric


def paper_rows(scores: Scores) -> list[list[str]]:
    """Header and rows in the layout of the published table; columns that no system has are left out."""
    subject = scores.subject
    used = {
        head: columns
        for head, columns in subject.columns.items()
        if any(not math.isnan(s.paper[paper_name(head, column)].value) for s in scores.systems for column in columns)
    }
    if scores.published is not None:
        used = used or dict(subject.columns)
    rows = [[subject.units, "embedder", *(paper_name(head, " / ".join(columns)) for head, columns in used.items())]]
    systems: list[tuple[str, str, Mapping[str, float]]] = [
        (s.name, s.embedder["name"] if s.embedder else "–", {name: score.value for name, score in s.paper.items()})
        for s in scores.systems
    ]
    if scores.published is not None:
        systems += [(f"published: {name}", subject.embedder or "–", row) for name, row in subject.published.items()]
    for name, embedder, values in systems:
        cells = [
            " / ".join(_cell(values.get(paper_name(head, column), math.nan), keys) for column, keys in columns.items())
            for head, columns in used.items()
        ]
        rows.append([name, embedder, *cells])
    return rows if subject.embedder else [[row[0], *row[2:]] for row in rows]


def _cell(value: float, keys: Sequence[tuple[str, str]]) -> str:
    """A value of the published table, which has units in its heading or none. `keys`: the scores that it is of."""
    scale = 1.0 if keys[0][1] in UNITS else 100.0
    return "–" if math.isnan(value) else f"{scale * value:.2f}"


def comparison_rows(scores: Scores, comparison: Comparison) -> list[list[str]]:
    """Header and rows: the first system minus the other, on the questions of both."""
    rows = [["type", "metric", f"{scores.systems[0].name} − {comparison.other}", "wins / losses", "McNemar p"]]
    for type_name, found in comparison.by_type.items():
        first = scores.subject.titles[type_name]
        for metric, (score, wins, losses, p_value) in found.items():
            pair = ["", ""] if wins is None else [f"{wins:,} / {losses:,}", f"{p_value:.2g}"]
            rows.append([first, metric, shown(score, metric, "+"), *pair])
            first = ""
    return rows


def sections(scores: Scores) -> Iterator[tuple[str, list[list[str]], str]]:
    """The tables of the report: (heading, rows, note) each."""
    yield "Scores in per cent", type_rows(scores), interval_note(scores) if scores.settings["replicates"] else ""
    paper = paper_rows(scores)
    if len(paper[0]) > 1:
        yield "In the published table's layout", paper, scores.published or ""
    if comparison := scores.comparison:
        yield "Difference", comparison_rows(scores, comparison), comparison_note(scores, comparison)


def interval_note(scores: Scores) -> str:
    """How the intervals were made."""
    settings = scores.settings
    return f"95 % intervals: {settings['replicates']:,} resamples by {settings['cluster']}, seed {settings['seed']}"


def comparison_note(scores: Scores, comparison: Comparison) -> str:
    """Which questions were compared, and what the test takes for granted."""
    return (
        f"On the {comparison.n:,} {scores.subject.scored} of both; {comparison.only_here:,} only here, "
        f"{comparison.only_there:,} only in {comparison.other}. McNemar's p takes {scores.subject.independent} for "
        "independent."
    )


def to_markdown(scores: Scores) -> str:
    """Tables and gates, as the summary of a CI job shows them."""
    gates = "".join(f"- {'✅' if v.passed else '❌'} {_escaped(str(v))}\n" for v in scores.verdicts)
    parts = [f"### Gates\n\n{gates}"] if gates else []
    parts += [
        f"### {head}\n\n{_pipes(rows)}{note and chr(10) + note + chr(10)}" for head, rows, note in sections(scores)
    ]
    return "\n".join(parts)


def _pipes(rows: Sequence[Sequence[str]]) -> str:
    header, *body = ([_escaped(cell) for cell in row] for row in rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *body))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("_", "\\_").replace("<", "&lt;")


def to_junit(scores: Scores) -> str:
    """The gates as test cases, one suite per system."""
    suites = []
    for system in dict.fromkeys(verdict.system for verdict in scores.verdicts):
        cases, failed = [], 0
        for verdict in (v for v in scores.verdicts if v.system == system):
            failed += not verdict.passed
            name = quoteattr(f"{verdict.name} {'<=' if verdict.over else '>='} {verdict.limit:g}")
            body = "/>" if verdict.passed else f"><failure message={quoteattr(str(verdict))}/></testcase>"
            cases.append(f"    <testcase classname={quoteattr(f'bat.score.{system}')} name={name}{body}\n")
        head = f'  <testsuite name={quoteattr(system)} tests="{len(cases)}" failures="{failed}">\n'
        suites.append(f"{head}{''.join(cases)}  </testsuite>\n")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n{"".join(suites)}</testsuites>\n'
