"""Read labels (CSV), clips (JSON) and BRIRs (JSON) in the published formats."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any, NamedTuple, Protocol

from batcli.core.errors import InputError
from batcli.core.files import MAX_LIST, require_file
from batcli.core.records import read_records
from batcli.data.answers import is_plural_of, words_of
from batcli.data.geometry import Position, Vector, locate, parse_vector

LABEL_COLUMNS = ["index", "mid", "display_name"]
MAX_LABEL_BYTES = 1 << 24  # AudioSet's 527 classes take 15 kB
ENDS_NAMES = ";|"  # signs at which readers of answers end a name
JOINERS = dict.fromkeys((0x200C, 0x200D))  # which some scripts need within words, though they do not show
LONGEST_NAME = 200  # characters; of an answer with several names, 1,000 are read
SAME_PLACE = 1e-3  # metres
NEAREST, FARTHEST = 1e-3, 1e4  # metres from listener to source; others are errors


class Label(NamedTuple):
    """A class of sound."""

    number: int  # of its row, from 0: the class's place in the encoder's output
    mid: str
    name: str  # display name as AudioSet writes it; may hold commas


class Clip(NamedTuple):
    """A mono clip and its labels."""

    audio_id: str  # path below the audio root, without extension
    mids: tuple[str, ...]


class Reverb(NamedTuple):
    """A BRIR and where its source is."""

    reverb_id: str  # path below `<reverb root>/binaural`
    position: Position
    source: Vector  # relative to the listener, in metres
    extra: Mapping[str, Any]  # the other fields of the file: room size, RT60, …

    @property
    def scene(self) -> str:
        """The room: sources of one room can be heard in one scene."""
        return self.reverb_id.rpartition("/")[0]


def read_labels(path: Path) -> list[Label]:
    """Read `index,mid,display_name`, one label a line; lines without content are skipped.

    Labels are numbered by their rows, as the published code numbers them, whatever stands in the column `index`: in
    a subset of AudioSet's labels these may be AudioSet's own numbers. A name may hold commas, quoted or not.

    Raises InputError for any other file, and for names that answers cannot hold or readers cannot tell apart.
    """
    if require_file(path).stat().st_size > MAX_LABEL_BYTES:
        raise InputError(f"larger than {MAX_LABEL_BYTES:,} bytes", path, "are these labels?")
    try:
        with open(path, encoding="utf-8-sig") as file:
            header, *lines = [line.rstrip("\n") for line in file] or [""]
    except UnicodeDecodeError as error:
        raise InputError(f"not CSV: {error}", path) from None
    if [column.strip().lower() for column in _columns(header, f"{path}:1")] != LABEL_COLUMNS:
        raise InputError(f"the first line is {header:.80}", path, "expected index,mid,display_name")
    labels: list[Label] = []
    for number, line in enumerate(lines, 2):
        if line.strip(", \t"):
            labels.append(Label(len(labels), *_mid_and_name(line, f"{path}:{number}")))
    if not labels:
        raise InputError("no labels", path)
    for column in ("mid", "name"):
        values = [getattr(label, column).lower() for label in labels]
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise InputError(f"{column} {twice!r} stands twice", path)
    require_names([label.name for label in labels], path)
    return labels


def _columns(line: str, where: str) -> list[str]:
    """The columns of one line of CSV, which may be quoted."""
    try:
        return next(csv.reader([line], strict=True, skipinitialspace=True), [])
    except csv.Error as error:
        hint = "a quoted name ends with a quote, on its line"
        raise InputError(f"not CSV: {error}: {line!r:.80}", where, hint) from None


def _mid_and_name(line: str, where: str) -> tuple[str, str]:
    """The last two columns of `index,mid,display_name`, of which the last may hold commas without quotes."""
    columns = _columns(line, where)
    if len(columns) > 3:
        name = line.split(",", 2)[2].strip()
        if name.startswith('"') or not columns[-1].strip():
            raise InputError(f"{len(columns)} columns, not 3", where, "quote the whole of a name that holds a comma")
        columns = [*columns[:2], name]
    if len(columns) < 3:
        raise InputError(f"{len(columns)} columns, not 3", where, "expected index,mid,display_name")
    mid, name = columns[1].strip(), columns[2].strip()
    if not mid or not name:
        raise InputError("an empty mid or display name", where)
    return mid, name


class Named(Protocol):
    """A class of sound as a label file has it."""

    @property
    def mid(self) -> str: ...
    @property
    def name(self) -> str: ...


def labels_csv(labels: Iterable[Named]) -> str:
    """The text of a label file."""
    rows = [f'{number},{label.mid},"{label.name}"' for number, label in enumerate(labels)]
    return "\n".join([",".join(LABEL_COLUMNS), *rows]) + "\n"


def require_names(names: Sequence[str], where: str | Path) -> None:
    """Raises InputError for a name that a written answer cannot hold, and for two that readers cannot tell apart."""
    hint = "give the class another name"
    for name in names:
        for sign in ENDS_NAMES:
            if sign in name:
                raise InputError(f"the name {name!r:.80} holds {sign!r}, which stands between two names", where, hint)
        if len(name.splitlines()) > 1:
            raise InputError(f"the name {name!r:.80} holds a line break", where, hint)
        if not name.translate(JOINERS).isprintable():
            raise InputError(f"the name {name!r:.80} holds a character that does not show", where, hint)
        if len(name) > LONGEST_NAME:
            raise InputError(f"the name {name!r:.80} has {len(name):,} characters, up to {LONGEST_NAME}", where, hint)
        if not any(character.isalpha() for character in name):
            raise InputError(f"the name {name!r:.80} holds no letter", where, hint)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)  # by the beginnings of their words
    for name in names:
        others = alike[tuple(word[:2] for word in words_of(name))]
        for other in others:
            if is_plural_of(words_of(other), words_of(name)):
                what = f"the names {other!r:.80} and {name!r:.80} differ by a plural or by punctuation only"
                raise InputError(what, where, hint)
        others.append(name)


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(`file:line`, entry) of a list of clips or BRIRs."""
    if require_file(path).stat().st_size > MAX_LIST:
        raise InputError(f"larger than {MAX_LIST:,} bytes", path)
    return read_records(path)


def read_clips(path: Path) -> list[Clip]:
    """Read clip metadata: records `{"folder", "id", "label": [mid, …]}`."""
    clips = []
    for where, entry in _records(path):
        if not isinstance(entry.get("id"), str):
            raise InputError("not a clip with an 'id' that is text", where, 'such as "id": "YabcDEF"')
        mids = entry.get("label")
        if not isinstance(mids, list) or not mids or not all(isinstance(mid, str) for mid in mids):
            raise InputError(f"clip {entry['id']!r:.80} has no labels", where, "'label' is a list of mids")
        folder = entry.get("folder") or ""
        clips.append(Clip(f"{folder}/{entry['id']}" if folder else entry["id"], tuple(mids)))
    if not clips:
        raise InputError("no clips", path)
    return clips


def read_reverbs(path: Path) -> dict[str, Reverb]:
    """Read BRIR metadata, by `reverb_id`: records `{"fname", "sensor_position", "source_position", …}`.

    Raises InputError for a file that stands twice, at two positions.
    """
    reverbs: dict[str, Reverb] = {}
    places: dict[str, Vector] = {}  # by the file's shortest path
    for where, entry in _records(path):
        if not isinstance(entry.get("fname"), str):
            raise InputError("not a BRIR with an 'fname'", where)
        try:
            sensor = parse_vector(entry.get("sensor_position", ""))
            source = parse_vector(entry.get("source_position", ""))
        except ValueError as error:
            raise InputError(f"{entry['fname']:.80}: {error}", where) from None
        position = locate(sensor, source)
        if not NEAREST <= position.distance <= FARTHEST:
            what = "the source stands in the listener" if position.distance < NEAREST else "the source is too far away"
            raise InputError(f"{entry['fname']:.80}: {what}, at {position.distance:.3g} m", where)
        x, y, z = (b - a for a, b in zip(sensor, source, strict=True))
        if math.dist(places.setdefault(normpath(entry["fname"]), (x, y, z)), (x, y, z)) > SAME_PLACE:
            hint = "one of the two is wrong: each BRIR has one source"
            raise InputError(f"{entry['fname']:.80} stands twice, with its source at two positions", where, hint)
        extra = {k: v for k, v in entry.items() if k not in ("fname", "sensor_position", "source_position")}
        reverbs[entry["fname"]] = Reverb(entry["fname"], position, (x, y, z), extra)
    if not reverbs:
        raise InputError("no BRIRs", path)
    return reverbs
