"""Positions and directions of sources, as in the published labels.

Right-handed axes in metres: +x right, +y up, −z front; the listener faces −z. Azimuth runs
counter-clockwise seen from above: 0° right, 90° front, 180° left, 270° behind. Elevation runs
from −90° (below) to +90° (above).
"""

from __future__ import annotations

import math
from typing import NamedTuple

Vector = tuple[float, float, float]


class Position(NamedTuple):
    """The place of a source relative to the listener: degrees [0, 360), degrees [−90, 90], metres."""

    azimuth: float
    elevation: float
    distance: float


class Direction(NamedTuple):
    """One of the eight octants around the listener's head, as one word per axis."""

    side: str  # "left" or "right"
    depth: str  # "front" or "behind"
    height: str  # "above" or "below"


def parse_vector(text: str) -> Vector:
    """Read `"x,y,z"`. Raises ValueError unless these are three finite numbers."""
    parts = text.split(",") if isinstance(text, str) else ()
    try:
        x, y, z = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f'not a position "x,y,z" in metres: {text!r:.60}') from None
    if not all(math.isfinite(value) for value in (x, y, z)):
        raise ValueError(f"not a finite position: {text!r:.60}")
    return x, y, z


def locate(sensor: Vector, source: Vector) -> Position:
    """World positions → the position that the labels state (Spatial-AST, `dataset.py`)."""
    dx, dy, dz = (b - a for a, b in zip(sensor, source, strict=True))
    return Position(
        azimuth=math.degrees(math.atan2(-dz, dx)) % 360.0,
        elevation=math.degrees(math.atan2(dy, math.hypot(dx, dz))),
        distance=math.sqrt(dx * dx + dy * dy + dz * dz),
    )


def unit_vector(azimuth: float, elevation: float) -> Vector:
    """Azimuth and elevation in degrees → unit vector in the listener's axes (x right, y up, −z front)."""
    a, e = math.radians(azimuth), math.radians(elevation)
    return math.cos(e) * math.cos(a), math.sin(e), -math.cos(e) * math.sin(a)


def offset(position: Position) -> Vector:
    """A position as a vector from the listener, in metres: the inverse of `locate`."""
    x, y, z = unit_vector(position.azimuth, position.elevation)
    return x * position.distance, y * position.distance, z * position.distance


def octant(position: Position) -> Direction:
    """The octant of a position. On its borders it is right, front or above."""
    x, y, z = unit_vector(position.azimuth, position.elevation)
    return Direction(
        "right" if x >= 0 else "left",
        "front" if z <= 0 else "behind",
        "above" if y >= 0 else "below",
    )


def round_distance(metres: float) -> float:
    """A distance in the published steps of 0.5 m; 0.25 m and 1.25 m are rounded up."""
    return math.floor(2.0 * metres + 0.5) / 2.0
