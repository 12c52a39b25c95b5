"""What the encoders of a run hear of given scenes, as records, while workers render what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from batcli.audio.render import RenderSettings
from batcli.core.progress import Reporter, track_batches
from batcli.core.streams import ERROR, Record
from batcli.data.dataset import Dataset
from batcli.data.fixed_scenes import FixedScene
from batcli.model.bat import hear
from batcli.model.heard import Heard
from batcli.training.encodings import render_ahead
from batcli.training.scenes import ENCODE_BATCH, GivenScenes, RenderError, threads_for

DECIMALS = 2  # of degrees
NOT_FINITE = {"kind": "NotFinite", "message": "the encoder's output for this scene is not finite"}


class Listener(NamedTuple):
    """Loaded encoders, and how they listen."""

    encoders: nn.ModuleDict  # in evaluation mode
    device: torch.device
    settings: RenderSettings
    true_names: bool = False  # locate the true events, rather than the likeliest


def hear_scenes(
    listener: Listener,
    dataset: Dataset,
    scenes: Sequence[FixedScene],
    places: Sequence[int],
    workers: int | None,
    reporter: Reporter,
) -> Iterator[tuple[int, Record]]:
    """(place, record) of the scenes at some places of `scenes`, in their order.

    `workers`: processes that render; None: one per processor.
    """
    most = max(len(_events(scene)) for scene in scenes) if listener.true_names else 0  # the same in every batch
    items = GivenScenes(dataset, [scenes[place].scene for place in places], listener.settings)
    batches = [range(n, min(n + ENCODE_BATCH, len(items))) for n in range(0, len(items), ENCODE_BATCH)]
    with threads_for(listener.encoders):
        rendered = render_ahead(items, batches, workers, reporter)
        for batch in track_batches(reporter, rendered, "scenes", len(items)):
            good = {index: audio for index, audio in batch if not isinstance(audio, RenderError)}
            found = _hear(listener, {index: scenes[places[index]] for index in good}, list(good.values()), most)
            for index, audio in batch:
                scene = scenes[places[index]]
                result = {ERROR: audio.error} if isinstance(audio, RenderError) else found[index]
                yield places[index], _record(scene, listener.true_names, result)


@torch.inference_mode()
def _hear(
    listener: Listener, scenes: Mapping[int, FixedScene], waveforms: Sequence[Tensor], most: int
) -> dict[int, Record]:
    """What is heard of each scene by its key. `most`: true events of the scene that has most, or 0."""
    if not scenes:
        return {}
    # The last bits of a result depend on the batch size; so it is always the same, with copies.
    padding = ENCODE_BATCH - len(waveforms)
    audio = torch.stack([*waveforms, *[waveforms[0]] * padding]).to(listener.device)
    events = None
    if most:
        rows = [_events(scene) for scene in scenes.values()]
        rows = [row + row[:1] * (most - len(row)) for row in rows]
        events = torch.tensor(rows + rows[:1] * padding, device=listener.device)
    heard = {name: each.cpu() for name, each in hear(listener.encoders, audio, events).items()}
    found = {}
    for row, (key, scene) in enumerate(scenes.items()):
        count = len(_events(scene)) if most else None
        results = {name: _as_json(each, row, count) for name, each in heard.items()}
        found[key] = {"heard": results} if None not in results.values() else {ERROR: NOT_FINITE}
    return found


def _events(scene: FixedScene) -> list[int]:
    """The true events of a scene, source by source, each once."""
    return list(dict.fromkeys(event for source in scene.truth for event in source.events))


def _as_json(heard: Heard, row: int, count: int | None) -> dict[str, Any] | None:
    """One scene of a batch, the likeliest place first; None if not finite. `count`: places that are no padding."""
    scores = heard.scores[row]
    if not all(bool(part[row].isfinite().all()) for part in heard if part is not None):
        return None
    places: list[dict[str, Any]] = []
    for place in range(heard.azimuth.shape[1]):
        event = None if heard.events is None else int(heard.events[row, place])
        azimuth = round(float(heard.azimuth[row, place]), DECIMALS) % 360
        elevation, distance = round(float(heard.elevation[row, place]), DECIMALS), float(heard.distance[row, place])
        places.append({"event": event, "azimuth": azimuth, "elevation": elevation, "distance": distance})
    if heard.events is not None and count is not None:
        places = sorted(places[:count], key=lambda place: -float(scores[place["event"]]))
    return {"scores": [float(str(np.float32(score))) for score in scores.tolist()], "places": places}


def _record(scene: FixedScene, true_names: bool, result: Record) -> Record:
    """The record of a scene: its sources as in a question's record, the truth, and what was heard or the error."""
    first, second = scene.scene[0], scene.scene[1] if len(scene.scene) > 1 else None
    return {
        "audio_id": first.audio_id,
        "reverb_id": first.reverb_id,
        "audio_id2": second and second.audio_id,
        "reverb_id2": second and second.reverb_id,
        "truth": [{**source._asdict(), "events": list(source.events)} for source in scene.truth],
        "names": "true" if true_names else "heard",
        "heard": None,
        **result,
    }
