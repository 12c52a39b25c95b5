"""BAT: a large language model that listens to binaural audio and answers questions about it.

    import batcli

    bat = batcli.load("run")
    bat.ask("recording.wav", "Where is the dog?")
    brir = batcli.Room(width=5, length=4, height=2.5, rt60=0.4).brir((180, 0, 2))
    scene = batcli.render("dog.wav", brir)
    batcli.evaluate("predictions.jsonl")["paper_table"]

Their code, and torch with it, is imported when a name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batcli.api import Bat, Room, evaluate, load, render

__version__ = "0.1.0"
__all__ = ["Bat", "Room", "__version__", "evaluate", "load", "render"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from batcli import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
