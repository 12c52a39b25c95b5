"""The encoder's accuracy on a fixed set of scenes, the same for every run and update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from batcli.evaluation.metrics import event_map, place_scores
from batcli.model.encoders.sources import SourceTokens
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.model.features import spectrum
from batcli.training.scenes import EncoderBatch

SEED = 0  # of the scenes: not the run's, so that runs compare
TWO = 0.5  # share of scenes with two places
NAMES = {1: "one", 2: "two"}


class EncoderPredictions(NamedTuple):
    """Predictions for a batch of scenes with E events each."""

    scores: Tensor  # (B, n_classes), higher is likelier
    direction: Tensor  # (B, E, 3)
    distance: Tensor  # (B, E) classes


Reader = Callable[[EncoderBatch], EncoderPredictions]


def head_predictions(encoder: SpatialAST) -> Reader:
    """Predictions of the published heads; all events of a scene are where the one direction token points."""

    def read(heard: EncoderBatch) -> EncoderPredictions:
        found = encoder.heads(encoder(heard.waveform))
        azimuth = torch.deg2rad(found.azimuth.argmax(-1).float())
        elevation = torch.deg2rad(found.elevation.argmax(-1).float() - 90)
        across = elevation.cos()
        direction = torch.stack([azimuth.cos() * across, azimuth.sin() * across, elevation.sin()], -1)
        events = heard.asked.shape[1]
        distance = found.distance.argmax(-1)
        return EncoderPredictions(
            found.events, direction[:, None].expand(-1, events, -1), distance[:, None].expand(-1, events)
        )

    return read


def source_predictions(sources: SourceTokens) -> Reader:
    """Predictions of the source tokens for each event that sounds, located by its true label."""

    def read(heard: EncoderBatch) -> EncoderPredictions:
        cues = sources.cues(spectrum(heard.waveform))
        states, events = sources.hear(cues)
        found = sources.locate(cues, states, heard.asked, sources.level(cues))
        return EncoderPredictions(events, found.direction, found.distance.argmax(-1))

    return read


def collect_predictions(read: Reader, batches: Iterable[EncoderBatch], device: torch.device) -> dict[str, np.ndarray]:
    """Predictions and targets of all scenes: an array per name, a row per scene."""
    rows: dict[str, list[np.ndarray]] = {}
    for heard in batches:
        predicted = read(heard.to(device))
        kept = {**predicted._asdict(), **{f"true_{k}": v for k, v in heard._asdict().items() if k != "waveform"}}
        for name, value in kept.items():
            rows.setdefault(name, []).append(value.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def scores(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """`map` over all scenes of all parts, `er20`, `mae`, `der` of those with one place and with two, and `merit`.

    `merit`: one number to choose the best by, the mean of mAP, 1 − ER20 and 1 − DER with one place.
    """
    filled = [part for part in parts if part]
    found = {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
    result: dict[str, Any] = {"map": event_map(found["scores"], found["true_events"] > 0)}
    present = found["true_present"] > 0
    for places, name in NAMES.items():
        here = present & (found["true_places"] == places)[:, None]
        pairs = (("direction", "true_direction"), ("distance", "true_distance"))
        (direction, target), (distance, target_distance) = ([found[name][here] for name in pair] for pair in pairs)
        result[name] = place_scores(direction, target, distance, target_distance)
    one = result["one"]
    shares = [result["map"], 1 - one.get("er20", 1.0), 1 - one.get("der", 1.0)]
    return {**result, "merit": float(np.nanmean(shares))}
