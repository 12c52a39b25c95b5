"""The records that pass between commands: questions, and the scenes that they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from batcli.core.errors import InputError
from batcli.core.files import stays_below
from batcli.core.records import read_records
from batcli.data.question_types import QUESTION_TYPES


class Source(NamedTuple):
    """A sound at a place: the ids of a mono clip and of a BRIR."""

    audio_id: str
    reverb_id: str


Scene = tuple[Source, ...]
"""Sources that sound together. A published record holds one or two; rendering, caching and encoding take any number."""


def scene_id(scene: Scene) -> str:
    """Twelve hex digits that follow from a scene's sources alone."""
    return hashlib.sha256("\n".join(f"{s.audio_id}\t{s.reverb_id}" for s in scene).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Question:
    """A question with its scene and its answer: the fields of the published records, in their order."""

    audio_id: str
    reverb_id: str
    audio_id2: str | None
    reverb_id2: str | None
    question_id: int | str
    question_type: str
    question: str
    answer: str

    @classmethod
    def of(cls, scene: Scene, question_id: int, question_type: str, question: str, answer: str) -> Question:
        """A question about a scene of one or two sources."""
        first, second = scene[0], scene[1] if len(scene) > 1 else Source(None, None)  # type: ignore[arg-type]
        return cls(*first, *second, question_id, question_type, question, answer)

    @property
    def scene(self) -> Scene:
        """The one or two sources that the question is about."""
        first = Source(self.audio_id, self.reverb_id)
        if self.audio_id2 is None or self.reverb_id2 is None:
            return (first,)
        return first, Source(self.audio_id2, self.reverb_id2)

    @property
    def family(self) -> str:
        return QUESTION_TYPES[self.question_type].family

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))  # `asdict` copies each value, which takes five times as long


FIELDS = tuple(Question.__dataclass_fields__)
_TEXT = ("audio_id", "reverb_id", "question", "answer")
_TEXT_OR_NULL = ("audio_id2", "reverb_id2")


def parse_question(record: Mapping[str, Any], where: str, *, extra: tuple[str, ...] = ()) -> Question:
    """The `Question` of a record, checked. Fields other than the published ones and `extra` are refused.

    An empty `audio_id2` or `reverb_id2`, as tables have it, is null. Raises InputError that starts with `where`
    (file:line).
    """
    missing = [name for name in FIELDS if name not in record]
    if missing:
        raise InputError(f"no field {', '.join(map(repr, missing))}", where, "each record has " + ", ".join(FIELDS))
    surplus = [name for name in record if name not in FIELDS and name not in extra]
    if surplus:
        raise InputError(f"unknown field {', '.join(map(repr, surplus))}", where, "remove it")
    for name in _TEXT:
        if not isinstance(record[name], str):
            raise InputError(f"{name!r} is not text: {record[name]!r:.80}", where)
    if "" in (record["audio_id2"], record["reverb_id2"]):
        record = {**record, **{name: record[name] or None for name in _TEXT_OR_NULL}}
    for name in _TEXT_OR_NULL:
        if record[name] is not None and not isinstance(record[name], str):
            raise InputError(f"{name!r} is neither text nor null: {record[name]!r:.80}", where)
    for name in ("audio_id", "reverb_id", "audio_id2", "reverb_id2"):
        if record[name] is not None and not stays_below(record[name]):
            raise InputError(f"{name!r} leads out of its root: {record[name]!r:.80}", where, "use a relative path")
    if (record["audio_id2"] is None) != (record["reverb_id2"] is None):
        raise InputError("'audio_id2' and 'reverb_id2' go together: both or neither", where)
    if isinstance(record["question_id"], bool) or not isinstance(record["question_id"], (int, str)):
        raise InputError(f"'question_id' is neither a number nor text: {record['question_id']!r:.80}", where)
    kind = record["question_type"]
    if not isinstance(kind, str) or kind not in QUESTION_TYPES:
        raise InputError(f"unknown question type {kind!r:.80}", where, "known: " + ", ".join(QUESTION_TYPES))
    sources = QUESTION_TYPES[kind].sources
    if sources != 1 + (record["audio_id2"] is not None):
        raise InputError(f"{kind} is about {('one source', 'two sources')[sources - 1]}", where, "check 'audio_id2'")
    return Question(**{name: record[name] for name in FIELDS})


def read_questions(path: Path) -> Iterator[Question]:
    """Read the questions of a file of records. Raises InputError at the first bad one."""
    for where, record in read_records(path):
        yield parse_question(record, where)
