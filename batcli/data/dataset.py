"""The dataset directory: `dataset.json`, which is written last, and the files that it names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from batcli.core.errors import InputError
from batcli.core.files import inside, read_json, require_directory, sha256, stays_below, write_json
from batcli.core.jsonl import write_records
from batcli.core.manifest import versions
from batcli.data.constants import MAX_SECONDS, SCENE_SECONDS
from batcli.data.metadata import Clip, Label, Reverb, read_clips, read_labels, read_reverbs
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import Question, Scene, Source, read_questions

FILE = "dataset.json"
SCHEMA = 1
AUDIO_SUFFIXES = (".wav", ".flac")


@dataclass
class Split:
    """A split, as in `dataset.json`. Paths inside the dataset are relative to it."""

    file: str  # the questions, JSONL
    sha256: str
    counts: dict[str, int]  # questions by type
    clips: str | None = None  # clip metadata, for training the encoder
    reverbs: str | None = None  # BRIR metadata, likewise


@dataclass
class Dataset:
    """An opened dataset directory."""

    root: Path
    audio_root: str = "audio"
    reverb_root: str = "reverb"
    labels_file: str = "labels.csv"
    seconds: float = SCENE_SECONDS  # length of a rendered scene
    seed: int = 0
    recipe: dict[str, Any] = field(default_factory=dict)  # what `bat prepare` made it from
    splits: dict[str, Split] = field(default_factory=dict)
    follow_links: bool = False  # whether links below the roots may lead out of them; the user's word, never a file's

    def path(self, stored: str) -> Path:
        """The place of a path as `dataset.json` stores it: absolute, or relative to the dataset."""
        return self.root / stored

    def store(self, path: Path) -> str:
        """`path` as `dataset.json` stores it: relative where it lies inside the dataset."""
        path, root = path.resolve(), self.root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)

    def split(self, name: str) -> Split:
        """Raises InputError when there is no such split."""
        if name not in self.splits:
            known = ", ".join(self.splits) or "none"
            raise InputError(f"no split {name!r}", self.root / FILE, f"splits here: {known}")
        return self.splits[name]

    def questions_file(self, name: str) -> Path:
        return self.path(self.split(name).file)

    def questions(self, name: str) -> Iterator[Question]:
        return read_questions(self.questions_file(name))

    @cached_property
    def labels(self) -> list[Label]:
        return read_labels(self.path(self.labels_file))

    def clips(self, name: str) -> list[Clip]:
        """The clips of a split. Raises InputError when the dataset has no metadata of them."""
        stored = self.split(name).clips
        if stored is None:
            raise InputError(f"no clip metadata for split {name!r}", self.root / FILE, "give --clips to `bat prepare`")
        return read_clips(self.path(stored))

    def reverbs(self, name: str) -> dict[str, Reverb]:
        """The BRIRs of a split, by `reverb_id`. Raises InputError when the dataset has no metadata of them."""
        stored = self.split(name).reverbs
        if stored is None:
            raise InputError(f"no BRIR metadata for split {name!r}", self.root / FILE, "give --reverb-root")
        return read_reverbs(self.path(stored))

    def audio_path(self, audio_id: str) -> Path:
        return audio_path(self.path(self.audio_root), audio_id, self.follow_links)

    def brir_path(self, reverb_id: str) -> Path:
        return inside(self.path(self.reverb_root) / "binaural", reverb_id, follow_links=self.follow_links)

    def files_of(self, source: Source) -> tuple[Path, Path]:
        """(clip, BRIR) of a source. Raises InputError for an id that leads out of its root."""
        return self.audio_path(source.audio_id), self.brir_path(source.reverb_id)

    def require_inside(self, scenes: Iterable[Scene]) -> None:
        """Raise InputError if a clip or a BRIR leads out of its root; whether the files are there does not matter."""
        sources = {source for scene in scenes for source in scene}
        for audio_id in {source.audio_id for source in sources}:
            self.audio_path(audio_id)
        for reverb_id in {source.reverb_id for source in sources}:
            self.brir_path(reverb_id)

    def add_split(self, name: str, questions: Iterable[Question], clips: Path | None, reverbs: Path | None) -> Split:
        """Write `questions/NAME.jsonl` and add it to `splits`, which `save` writes."""
        counts: Counter[str] = Counter()

        def counted() -> Iterator[dict[str, Any]]:
            for question in questions:
                counts[question.question_type] += 1
                yield question.to_dict()

        file = self.root / "questions" / f"{name}.jsonl"
        write_records(file, counted())
        self.splits[name] = Split(
            self.store(file),
            sha256(file),
            {kind: counts[kind] for kind in QUESTION_TYPES if counts[kind]},
            self.store(clips) if clips else None,
            self.store(reverbs) if reverbs else None,
        )
        return self.splits[name]

    def reload_splits(self) -> None:
        """Read `splits` again: another run may have added one since the dataset was opened."""
        if (self.root / FILE).is_file():
            self.splits = open_dataset(self.root).splits

    def save(self) -> None:
        """Write `dataset.json`, the last step of making a dataset."""
        write_json(
            self.root / FILE,
            {
                "schema": SCHEMA,
                "seed": self.seed,
                "versions": versions(),
                "audio_root": self.audio_root,
                "reverb_root": self.reverb_root,
                "labels": self.labels_file,
                "seconds": self.seconds,
                "recipe": self.recipe,
                "splits": {name: asdict(split) for name, split in self.splits.items()},
            },
        )


def require_split_name(name: str) -> str:
    """`name`, if it can name a split and its file. Raises InputError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        hint = "letters, digits, dots, dashes and underscores, a letter or digit first"
        raise InputError(f"not a name: {name!r:.110}", "--split", hint)
    return name


def extend_dataset(
    root: Path, audio_root: Path, reverb_root: Path, labels: Path, seconds: float | None = None, seed: int = 0
) -> Dataset:
    """The dataset in `root`, or a new one, to which a split can be added. Nothing is written.

    Raises InputError for roots, labels or seconds that are missing or differ from the dataset's.
    """
    require_directory(audio_root, "check --audio-root")
    require_directory(reverb_root / "binaural", "check --reverb-root: BRIRs lie in its folder binaural/")
    given = read_labels(labels)
    if not (root / FILE).is_file():
        new = Dataset(root, seconds=SCENE_SECONDS if seconds is None else seconds, seed=seed)
        new.audio_root, new.reverb_root = new.store(audio_root), new.store(reverb_root)
        new.labels_file = new.store(labels)
        return new
    dataset = open_dataset(root)
    for name, stored, path in (
        ("--audio-root", dataset.audio_root, audio_root),
        ("--reverb-root", dataset.reverb_root, reverb_root),
    ):
        if dataset.path(stored).resolve() != path.resolve():
            hint = "all splits of a dataset share their roots; choose another DATA"
            raise InputError(f"is {dataset.path(stored)} in {root / FILE}, not {path}", name, hint)
    if dataset.labels != given:
        hint = "all splits of a dataset share their labels; choose another DATA"
        raise InputError(f"not the labels of {dataset.path(dataset.labels_file)}", labels, hint)
    if seconds is not None and seconds != dataset.seconds:
        raise InputError(
            f"is {dataset.seconds:g} in {root / FILE}, not {seconds:g}", "--seconds", "choose another DATA"
        )
    return dataset


def audio_path(root: Path, audio_id: str, follow_links: bool = False) -> Path:
    """The file of a clip: its id with the first of AUDIO_SUFFIXES that exists, else `.wav`."""
    # Not `with_suffix`: an AudioSet id may hold a dot, which is no extension.
    paths = [inside(root, audio_id + suffix, follow_links=follow_links) for suffix in AUDIO_SUFFIXES]
    return next((path for path in paths if os.path.isfile(path)), paths[0])


def open_dataset(root: Path, follow_links: bool = False) -> Dataset:
    """Open the dataset in `root`. Raises InputError when it is not finished, damaged or of another schema."""
    require_directory(root, "make one with `bat prepare demo DATA`")
    file = root / FILE
    if not file.is_file():
        raise InputError("not a finished dataset", root, f"{FILE} is written last; run `bat prepare` again")
    content = read_json(file)
    try:
        if content["schema"] != SCHEMA:
            raise InputError(f"schema {content['schema']!r:.20}, this version reads {SCHEMA}", file)
        splits = {name: _split(**entry) for name, entry in content["splits"].items()}
        dataset = Dataset(
            root,
            _path(content["audio_root"]),
            _path(content["reverb_root"]),
            _path(content["labels"]),
            float(content.get("seconds", SCENE_SECONDS)),
            int(content["seed"]),
            dict(content.get("recipe", {})),
            splits,
            follow_links,
        )
        if not 0 < dataset.seconds <= MAX_SECONDS:
            raise ValueError(f"seconds is {dataset.seconds}, not up to {MAX_SECONDS:g}")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"damaged: {type(error).__name__}: {error}", file, "run `bat prepare` again") from None
    return dataset


def _split(file: Any, sha256: Any, counts: Any, clips: Any = None, reverbs: Any = None) -> Split:
    """A split of `dataset.json`. Raises TypeError for values of other types."""
    if not isinstance(counts, dict) or not all(isinstance(count, int) for count in counts.values()):
        raise TypeError(f"counts are {counts!r:.60}")
    if not isinstance(sha256, str):
        raise TypeError(f"sha256 is {sha256!r:.60}")
    metadata = (None if path is None else _path(path) for path in (clips, reverbs))
    return Split(_path(file), sha256, counts, *metadata)


def _path(value: Any) -> str:
    """A stored path: absolute, or relative and below the dataset. Raises TypeError for any other value."""
    if not isinstance(value, str) or not (os.path.isabs(value) or stays_below(value)):
        raise TypeError(f"{value!r:.60} is no path")
    return value
