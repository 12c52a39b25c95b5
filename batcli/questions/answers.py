"""Answers as text: one grammar, which writes them for the data and reads them for the scores."""

from __future__ import annotations

from collections.abc import Iterable

from batcli.core.geometry import Position, octant, round_distance


def write_doa(position: Position) -> str:
    """Direction and distance of a source: `right, behind, above; 3.5m`."""
    return f"{', '.join(octant(position))}; {write_distance(position.distance)}"


def write_distance(metres: float) -> str:
    """Metres to the nearest 0.5 m: `2m`, `3.5m`."""
    return f"{round_distance(metres):g}m"


def write_labels(names: Iterable[str]) -> str:
    """Names of events, lower case: `accelerating, revving, vroom; car`. A name may hold a comma, but no semicolon."""
    return "; ".join(name.strip().lower() for name in names)


def write_yes_no(value: bool) -> str:
    return "Yes" if value else "No"
