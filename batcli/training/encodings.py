"""Encode the scenes of many questions, window by window, while workers render what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from batcli.audio.render import RenderSettings
from batcli.core.parallel import default_jobs
from batcli.core.progress import Reporter
from batcli.data.dataset import Dataset
from batcli.data.schema import Scene
from batcli.data.windows import Window, plan_windows
from batcli.model.answering import LoadedModel, encode_audio
from batcli.model.bat import Encoding, encode_fixed_batch
from batcli.training.loader import Loader, no_collate
from batcli.training.scenes import ENCODE_BATCH, GivenScenes, RenderError, threads_for

WINDOW = 1_024  # questions that are answered together, once their scenes are encoded
KEPT = 1 << 25  # bytes of encodings in memory beside those of the window: 1,300 scenes of `tiny`, 20 of the published
AHEAD = 1 << 25  # bytes of scenes that wait to be encoded, where two batches per worker are less

Encodings = dict[Scene, Encoding | dict[str, str]]
"""The encoding of each scene, a batch of one, or the error (kind, message) why it could not be rendered."""
Rendered = Iterator[list[tuple[int, Tensor | RenderError]]]


def encode_windows(
    loaded: LoadedModel, dataset: Dataset, scenes: Sequence[Scene], workers: int | None, reporter: Reporter
) -> Iterator[tuple[slice, Encodings]]:
    """Split questions, given by their scenes, into windows: yield the slice and the encodings of each.

    A scene is encoded once, unless its encoding had to be dropped for want of room (`KEPT`).
    `workers`: processes that render; None: one per processor.
    """
    windows = plan_windows(scenes, WINDOW, max(1, KEPT // loaded.model.encoding_bytes))
    encodings: Encodings = {}
    if loaded.zero_audio:  # the same zeros for all, so nothing need be rendered
        encodings = dict.fromkeys(scenes, encode_audio(loaded, np.zeros((2, 0), np.float32)))
        windows = [Window(window.questions, [], []) for window in windows]
    rendered = _render(loaded, dataset, windows, workers, reporter)
    for window in windows:
        _encode(loaded, window, rendered, encodings, reporter)
        yield window.questions, encodings


def _render(
    loaded: LoadedModel, dataset: Dataset, windows: Sequence[Window], workers: int | None, reporter: Reporter
) -> Rendered:
    """The new scenes of each window, in batches that cross no window; workers render ahead of the reader."""
    scenes: list[Scene] = []
    batches: list[range] = []
    for window in windows:
        stop = len(scenes) + len(window.scenes_to_encode)
        batches += [range(n, min(n + ENCODE_BATCH, stop)) for n in range(len(scenes), stop, ENCODE_BATCH)]
        scenes += window.scenes_to_encode
    settings = RenderSettings(loaded.seconds, rendering=loaded.rendering)
    return render_ahead(GivenScenes(dataset, scenes, settings), batches, workers, reporter)


def render_ahead(
    scenes: GivenScenes, batches: Sequence[Sequence[int]], workers: int | None, reporter: Reporter
) -> Rendered:
    """The scenes of each batch, while `workers` processes render the next ones; None: one per processor."""
    workers = min(workers or default_jobs(), len(batches))
    each = max(1, workers) * ENCODE_BATCH * 2 * 4 * scenes.settings.length  # bytes: two ears, 32 bits
    loader = Loader(
        scenes,
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=max(2, AHEAD // each) if workers else None,
        collate_fn=no_collate,
        reporter=reporter,
    )
    return iter(loader)


@torch.inference_mode()
def _encode(loaded: LoadedModel, window: Window, rendered: Rendered, encodings: Encodings, reporter: Reporter) -> None:
    """Add the scenes that are new in the window to `encodings`, and drop those for which there is no room."""
    with threads_for(loaded.model):
        count = len(window.scenes_to_encode)
        for start in range(0, count, ENCODE_BATCH):
            reporter.status(f"hearing {start:,}/{count:,} scenes")
            scenes = window.scenes_to_encode[start : start + ENCODE_BATCH]
            found = dict(zip(scenes, (audio for _, audio in next(rendered)), strict=True))
            encodings.update((scene, bad.error) for scene, bad in found.items() if isinstance(bad, RenderError))
            good = {scene: audio for scene, audio in found.items() if not isinstance(audio, RenderError)}
            if good:
                encoding = encode_fixed_batch(loaded.model.encode, list(good.values()), ENCODE_BATCH, loaded.device)
                encodings.update((scene, encoding.select([row])) for row, scene in enumerate(good))
    reporter.status("")
    for scene in window.scenes_to_drop:
        del encodings[scene]
