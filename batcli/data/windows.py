"""Windows: stretches of questions that are answered together, and what each has to hear first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

from batcli.data.schema import Scene


class Window(NamedTuple):
    questions: slice
    new: list[Scene]  # to be heard before they are answered
    forgotten: list[Scene]  # not to be kept any longer once those are heard


def plan_windows(asked: Sequence[Scene], size: int, room: int) -> list[Window]:
    """`asked`: the scene of each question. Windows are of `size` questions.

    Of the scenes that are not asked about in a window, those asked about longest ago are forgotten
    until `room` scenes are left: where they are asked about again, they must be heard again.
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
        while len(kept) > max(room, len(wanted)):
            window.forgotten.append(kept.popitem(last=False)[0])
        windows.append(window)
    return windows
