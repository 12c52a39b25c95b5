"""The scenes of a run that could not be rendered: `bad.jsonl`, with the reason for each."""

from __future__ import annotations

from pathlib import Path

from batcli.core.jsonl import dump
from batcli.core.progress import Reporter
from batcli.core.records import read_records
from batcli.data.schema import Scene, Source
from batcli.training.scenes import RenderError

BAD_SCENES = "bad.jsonl"


class BadScenes:
    """The list of a run. Processes share it: each adds a scene once, at the end of the file."""

    def __init__(self, run: Path, reporter: Reporter) -> None:
        self.file, self.reporter = run / BAD_SCENES, reporter
        self.known = self._read()

    def add(self, bad: RenderError) -> None:
        """Warn of a scene that is not listed yet, and list it."""
        if bad.scene in self.known:
            return
        self.known.add(bad.scene)
        self.reporter.warn(bad.error["message"])
        with open(self.file, "a", encoding="utf-8") as file:
            file.write(dump({"sources": [source._asdict() for source in bad.scene], "error": bad.error}))

    def count(self) -> int:
        """Number of scenes that any process has listed."""
        return len(self._read())

    def _read(self) -> set[Scene]:
        if not self.file.exists():
            return set()
        return {tuple(Source(**source) for source in record["sources"]) for _, record in read_records(self.file)}
