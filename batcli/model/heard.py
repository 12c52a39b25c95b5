"""The predictions of an encoder about whole scenes, in one form for all encoders."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

METRES_PER_CLASS = 0.5  # of the distance classes


class Heard(NamedTuple):
    """Predictions for B scenes: scores of all events, and P places, the likeliest first."""

    scores: Tensor  # (B, n_classes), one number per event: the higher, the likelier
    events: Tensor | None  # (B, P) number of the event at each place; None: places have no names, and P is 1
    azimuth: Tensor  # (B, P) degrees, 0 right, 90 front, 180 left, 270 behind
    elevation: Tensor  # (B, P) degrees, −90 … 90
    distance: Tensor  # (B, P) metres

    def cpu(self) -> Heard:
        """A copy in the processor's memory."""
        return Heard(*(None if part is None else part.cpu() for part in self))  # type: ignore[arg-type]


def from_classes(scores: Tensor, azimuth: Tensor, elevation: Tensor, distance: Tensor) -> Heard:
    """One place per scene: the likeliest class of each head.

    `scores` (B, n_classes); `azimuth` (B, 360), `elevation` (B, 180), `distance` (B, 21): logits, or cosines.
    """
    return Heard(
        scores,
        None,
        azimuth.argmax(-1, keepdim=True).float(),
        elevation.argmax(-1, keepdim=True).float() - 90,
        distance.argmax(-1, keepdim=True).float() * METRES_PER_CLASS,
    )


def from_vectors(scores: Tensor, events: Tensor, direction: Tensor, distance: Tensor) -> Heard:
    """A named place for each of P events.

    `scores` (B, n_classes), `events` (B, P), `direction` (B, P, 3): vectors (right, front, above) of any length,
    `distance` (B, P, 21): logits.
    """
    right, front, above = direction.unbind(-1)
    return Heard(
        scores,
        events,
        torch.rad2deg(torch.atan2(front, right)) % 360,
        torch.rad2deg(torch.atan2(above, torch.hypot(right, front))),
        distance.argmax(-1).float() * METRES_PER_CLASS,
    )
