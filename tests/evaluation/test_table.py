"""Scores in a terminal: how wide, what is marked, what is left out."""

import math

import pytest

from batcli.data.question_types import QUESTION_TYPES
from batcli.evaluation.report import Comparison, Difference, Scores, System, TypeScores
from batcli.evaluation.stats import Score
from batcli.evaluation.subjects import ANSWERS, HEARING, METRICS_IN_WORDS, TYPES_IN_WORDS
from batcli.evaluation.table import to_table

SETTINGS = {"replicates": 1000, "cluster": "scene", "seed": 0}


def system(name: str, value: float, answered: float = 1.0) -> System:
    """Every metric of every type is `value`, with an interval."""
    by_type = {}
    for type_name, kind in QUESTION_TYPES.items():
        metrics = [*(["map"] if kind.has_map else []), *kind.metrics]
        found = {metric: Score(value, value * 0.9, value * 1.1) for metric in metrics}
        by_type[type_name] = TypeScores(12_345, {**found, "answered": Score(answered, answered, answered)})
    paper = {f"{head} {column}".rstrip(): Score(value) for head, cols in ANSWERS.columns.items() for column in cols}
    return System(name, 111_105, by_type, {}, paper, {"name": "lexical", "hash": ""})


def lines_of(scores: Scores, width: int) -> list[str]:
    return to_table(scores, width).splitlines()


def row(lines: list[str], type_name: str, metric: str) -> str:
    """The row of a metric below the heading of a type."""
    start = next(n for n, line in enumerate(lines) if line.startswith(f"{ANSWERS.titles[type_name]} "))
    return next(line for line in lines[start:] if f" {metric} " in f"{line} ")


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_fits_the_terminal(count, width):
    names = ["predictions", "deaf", "a-long-name-of-a-file-of-predictions-of-mine"]
    systems = [system(names[n % 3], 0.9 - n / 10) for n in range(count)]
    first = systems[0].by_type
    differences = {
        name: {m: Difference(s, 1234, 5678, 0.00012) for m, s in t.scores.items()} for name, t in first.items()
    }
    comparison = Comparison(names[2], 9, 1, 1, differences, {})
    lines = lines_of(Scores(systems, SETTINGS, comparison, published="They do not compare. " * 9), width)
    assert max(map(len, lines)) <= width
    for value in (f"{90 - 10 * n}.0 (" for n in range(count)):
        assert any(value in line for line in lines), value


def test_three_systems_stand_side_by_side_in_80_columns():
    lines = lines_of(Scores([system("predictions", 0.9), system("deaf", 0.12), system("random", 0.13)], SETTINGS), 80)
    assert row(lines, "DOA", "doa_acc") == (
        "↑ octant      doa_acc      90.0 (81.0–99.0)* 12.0 (10.8–13.2)  13.0 (11.7–14.3)"
    )
    assert lines[0] == "Scores in per cent; ↑ higher is better, ↓ lower is better, * best of its row"
    assert sum(line.startswith("B DOA ") for line in lines) == 1


def test_the_best_value_is_marked_by_the_metrics_direction():
    lines = lines_of(Scores([system("a", 0.9), system("b", 0.2)], SETTINGS), 80)
    assert row(lines, "DOA", "doa_acc").count("*") == 1
    assert "90.0 (81.0–99.0)*" in row(lines, "DOA", "doa_acc")
    assert "20.0 (18.0–22.0)*" in row(lines, "DOA", "der")
    assert row(lines, "DOA", "der").startswith("↓")
    assert "0.20 (0.18–0.22)*" in row(lines, "DOA", "distance_mae")


def test_nothing_is_marked_where_all_are_the_same_or_alone():
    for systems in (
        [system("a", 0.9)],
        [system("a", 0.9), system("b", 0.9)],
        [system("a", 0.5), system("b", math.nan)],
    ):
        lines = lines_of(Scores(systems, SETTINGS), 80)
        assert not any("*" in line for line in lines[1:])


def test_answered_is_shown_where_some_could_not_be_read():
    assert not any("answered" in line for line in lines_of(Scores([system("a", 0.9)], SETTINGS), 80))
    shown = lines_of(Scores([system("a", 0.9), system("b", 0.9, answered=0.98)], SETTINGS), 80)
    assert "98.0 (98.0–98.0)" in row(shown, "DOA", "answered")


def test_no_second_table_without_published_systems():
    scores = Scores([system("a", 0.9)], SETTINGS)
    assert "layout" not in to_table(scores, 80)
    scores.published = ""
    assert "BAT (paper)" in to_table(scores, 80)


def test_the_width_is_the_terminals(monkeypatch):
    scores = Scores([system(name, 0.9) for name in "abcd"], SETTINGS)
    for width in (80, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert to_table(scores) == to_table(scores, width)
    assert to_table(scores, 80) != to_table(scores, 120)


def test_everything_scored_has_words():
    assert set(TYPES_IN_WORDS) == set(QUESTION_TYPES)
    metrics = {metric for kind in QUESTION_TYPES.values() for metric in kind.metrics} | {"map", "answered"}
    metrics |= {metric for columns in HEARING.columns.values() for keys in columns.values() for _, metric in keys}
    assert metrics | {"named"} == set(METRICS_IN_WORDS)
    assert all(len(words) <= 11 for words in METRICS_IN_WORDS.values())
