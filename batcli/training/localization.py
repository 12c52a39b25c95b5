"""Validation of an encoder: events, directions and distances of a fixed set of scenes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from batcli.evaluation.metrics import event_map, place_scores
from batcli.model.encoders.sources import SourceTokens
from batcli.model.encoders.transformer import PatchTransformer
from batcli.model.features import spectrum
from batcli.training.recipe import DSPAST, ENCODER, SOURCES
from batcli.training.scenes import EncoderBatch

SEED = 0  # of the scenes; not the run's, so that runs can be compared
TWO_SOURCES = 0.5  # share of scenes with two places
NAMES = {1: "one", 2: "two"}  # number of places → name in the log


class EncoderPredictions(NamedTuple):
    """Predictions for B scenes with E events each."""

    scores: Tensor  # (B, n_classes), higher is likelier
    direction: Tensor  # (B, E, 3)
    distance: Tensor  # (B, E), classes


def head_predictions(encoder: PatchTransformer, batch: EncoderBatch) -> EncoderPredictions:
    """Predict by the published heads, from waveforms in `batch.audio`, (B, 2, samples) at 32 kHz.

    The heads give one direction and distance for a scene, which all its events get. `encoder` should be in
    evaluation mode.
    """
    logits = encoder.heads(encoder(batch.audio))
    azimuth = torch.deg2rad(logits.azimuth.argmax(-1).float())
    elevation = torch.deg2rad(logits.elevation.argmax(-1).float() - 90)
    across = elevation.cos()
    direction = torch.stack([azimuth.cos() * across, azimuth.sin() * across, elevation.sin()], -1)
    events = batch.event_ids.shape[1]
    distance = logits.distance.argmax(-1)
    return EncoderPredictions(
        logits.events, direction[:, None].expand(-1, events, -1), distance[:, None].expand(-1, events)
    )


def source_predictions(sources: SourceTokens, batch: EncoderBatch) -> EncoderPredictions:
    """Predict by the source tokens, from waveforms in `batch.audio`, (B, 2, samples) at 32 kHz.

    The place of each event in `batch.event_ids` is predicted, whether the encoder detected the event or not, so
    that localization is scored apart from detection. `sources` should be in evaluation mode.
    """
    cues = sources.cues(spectrum(batch.audio))
    states, events = sources.detect(cues)
    places = sources.locate(cues, states, batch.event_ids, sources.level(cues))
    return EncoderPredictions(events, places.direction, places.distance.argmax(-1))


PREDICTIONS: dict[str, Callable[[Any, EncoderBatch], EncoderPredictions]] = {
    ENCODER: head_predictions,
    DSPAST: head_predictions,
    SOURCES: source_predictions,
}
"""Name of an encoder → its predictions for a batch."""


def collect_predictions(stage: str, encoder: Any, batches: Iterable[EncoderBatch]) -> dict[str, np.ndarray]:
    """Fields of `EncoderPredictions` and, as `true_…`, of `EncoderBatch` → arrays with a row per scene."""
    rows: dict[str, list[np.ndarray]] = {}
    for batch in batches:
        predicted = PREDICTIONS[stage](encoder, batch)
        targets = {f"true_{name}": part for name, part in batch._asdict().items() if name != "audio"}
        for name, part in {**predicted._asdict(), **targets}.items():
            rows.setdefault(name, []).append(part.float().cpu().numpy())
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def scores(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """Score all parts of `collect_predictions` together.

    Returns `map` of all scenes; `one` and `two`, the `place_scores` of scenes with one place and with two;
    and `merit`, by which the best weights are chosen: the mean of mAP, 1 − ER20 and 1 − DER with one place.
    """
    filled = [part for part in parts if part]
    rows = {name: np.concatenate([part[name] for part in filled]) for name in filled[0]}
    result: dict[str, Any] = {"map": event_map(rows["scores"], rows["true_events"] > 0)}
    for count, name in NAMES.items():
        here = (rows["true_present"] > 0) & (rows["true_n_places"] == count)[:, None]
        columns = ("direction", "true_direction", "distance", "true_distance")
        result[name] = place_scores(*(rows[column][here] for column in columns))
    one = result["one"]
    shares = [result["map"], 1 - one.get("er20", 1.0), 1 - one.get("der", 1.0)]
    return {**result, "merit": float(np.nanmean(shares))}
