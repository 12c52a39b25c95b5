"""Split questions into windows that are answered together, and plan which scenes each window encodes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from batcli.data.schema import Scene


class Window(NamedTuple):
    """Consecutive questions, and which scenes' encodings are computed and dropped before they are answered."""

    questions: slice
    scenes_to_encode: list[Scene]
    scenes_to_drop: list[Scene]  # after `scenes_to_encode` are encoded


def plan_windows(asked: Sequence[Scene], size: int, capacity: int) -> list[Window]:
    """Split the questions into windows of `size`; `asked` holds the scene of each question.

    At most `capacity` encodings are in memory, or as many as one window needs: the scenes used longest ago
    are dropped first, and encoded again where a later window needs them.
    """
    windows: list[Window] = []
    kept: OrderedDict[Scene, None] = OrderedDict()
    for start in range(0, len(asked), size):
        questions = slice(start, start + size)
        wanted = dict.fromkeys(asked[questions])
        window = Window(questions, [scene for scene in wanted if scene not in kept], [])
        for scene in wanted:
            kept[scene] = None
            kept.move_to_end(scene)
        while len(kept) > max(capacity, len(wanted)):
            window.scenes_to_drop.append(kept.popitem(last=False)[0])
        windows.append(window)
    return windows
