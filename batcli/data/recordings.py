"""Tables of recordings with labels: folders by class, any CSV, and the layouts of public collections.

Each reader returns the recordings that the table lists, with the files that lie there. Sources: ESC-50 (Piczak
2015), FSD50K (Fonseca et al. 2022), UrbanSound8K (Salamon et al. 2014), AudioSet (Gemmeke et al. 2017).
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from batcli.core.errors import InputError
from batcli.core.files import inside, require_directory, require_file, require_text

SplitName = Literal["train", "dev", "eval"]
Layout = Literal["folders", "esc50", "fsd50k", "urbansound8k", "audioset"]
READABLE = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".w64", ".caf")
OWN_MID = "/own/"  # begins the id of a label that has none in AudioSet's ontology
YOUTUBE_ID = 11  # characters
MAX_TABLE = 1 << 28  # bytes; AudioSet's largest table has 100 MB


class Tag(NamedTuple):
    """A label of a recording: its id in AudioSet's ontology, or OWN_MID with its name, and its name."""

    mid: str
    name: str

    @staticmethod
    def own(name: str) -> Tag:
        """A label that has a name alone."""
        return Tag(OWN_MID + slug(name), spoken(name))


@dataclass(frozen=True)
class Recording:
    """A file of sound with its labels."""

    path: Path | None  # None: the table lists it, and it is not there
    name: str  # as the table has it
    tags: tuple[Tag, ...]
    group: str  # recordings of one group have one origin, and belong in one split
    split: SplitName | None = None  # None: to be drawn


@dataclass(frozen=True)
class Columns:
    """The columns of a CSV, and which folds are held out."""

    file: str
    label: str
    fold: str | None = None
    group: str | None = None
    separator: str | None = None  # between several labels in one cell
    eval_folds: tuple[str, ...] = ()
    dev_folds: tuple[str, ...] = ()

    def split(self, fold: str | None) -> SplitName | None:
        """The split of a fold; None where it is to be drawn: without folds, or of training with no fold for dev."""
        if fold is None or (not self.eval_folds and not self.dev_folds):
            return None
        if fold in self.eval_folds:
            return "eval"
        if fold in self.dev_folds:
            return "dev"
        return "train"


class Source(NamedTuple):
    """A folder of recordings, and what the user says of it."""

    root: Path
    eval_folds: tuple[str, ...] = ()
    dev_folds: tuple[str, ...] = ()
    follow_links: bool = False


def detect_layout(source: Path) -> Layout:
    """The collection whose table lies in `source`; `folders` where there is none."""
    for layout, table in (
        ("esc50", "meta/esc50.csv"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv"),
        ("urbansound8k", "metadata/UrbanSound8K.csv"),
        ("audioset", "class_labels_indices.csv"),
    ):
        if (source / table).is_file():
            return layout  # type: ignore[return-value]
    return "folders"


def read_collection(source: Source, layout: Layout) -> list[Recording]:
    """The recordings of a folder by its layout. Raises InputError when it has another one, or no recording."""
    require_directory(source.root)
    return _require_some(READERS[layout](source), source.root)


def read_table(table: Path, root: Path, columns: Columns, follow_links: bool = False) -> list[Recording]:
    """The recordings of a CSV with a header. File names are paths below `root`, with or without an extension.

    Raises InputError for a column that is not there, an empty cell, or a fold that no row has.
    """
    rows = list(read_rows(table, [columns.file, columns.label, columns.fold, columns.group]))
    find, recordings, folds = Files(root, follow_links), [], set()
    for where, row in rows:
        name, cell = row[columns.file].strip(), row[columns.label].strip()
        if not name or not cell:
            raise InputError(f"no {columns.label if name else columns.file}", where, "fill the cell or remove the row")
        names = cell.split(columns.separator) if columns.separator else [cell]
        fold = row[columns.fold].strip() if columns.fold else None
        folds.add(fold)
        group = row[columns.group].strip() if columns.group else ""
        tags = tuple(Tag.own(each) for each in names if each.strip())
        recordings.append(Recording(find.by_path(name), name, tags, group or name, columns.split(fold)))
    unknown = [fold for fold in (*columns.eval_folds, *columns.dev_folds) if fold not in folds]
    if unknown:
        known = ", ".join(sorted(str(fold) for fold in folds)) if columns.fold else "none; give --fold"
        raise InputError(f"no row has fold {unknown[0]!r:.40}", table, f"folds here: {known:.120}")
    return _require_some(recordings, root)


def spoken(name: str) -> str:
    """A class name as it is said in questions and answers: `air_conditioner` → `Air conditioner`."""
    words = " ".join(name.replace("_", " ").split())
    return words[:1].upper() + words[1:]


def slug(name: str) -> str:
    """A name as part of a file name: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


class Files:
    """Finds files of sound below a folder, which is listed once."""

    def __init__(self, root: Path, follow_links: bool = False) -> None:
        """Raises InputError for a name that is not UTF-8, and for a link out of `root`, unless `follow_links`."""
        self.root = require_directory(root)
        self.all: list[Path] = []
        self.paths: dict[str, Path] = {}  # by path below the root without an extension
        self.names: dict[str, Path] = {}  # by name without an extension; the first of several
        for folder, folders, names in os.walk(root, followlinks=follow_links):
            folders.sort()
            if linked := next((name for name in folders if os.path.islink(os.path.join(folder, name))), None):
                inside(root, Path(folder, linked).relative_to(root).as_posix(), follow_links=follow_links)
            for name in sorted(names):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in READABLE and not name.startswith("."):
                    path = require_text(Path(folder, name))
                    if path.is_symlink():
                        if not path.exists():
                            continue  # a link to nothing is a missing file
                        inside(root, path.relative_to(root).as_posix(), follow_links=follow_links)
                    self.all.append(path)
                    self.paths.setdefault(path.relative_to(root).with_name(stem).as_posix(), path)
                    self.names.setdefault(stem, path)

    def by_path(self, name: str) -> Path | None:
        """The file of a path below the root, with or without its extension; else the file of that name anywhere."""
        stem = os.path.splitext(name)[0] if os.path.splitext(name)[1].lower() in READABLE else name
        stem = stem.removeprefix("./")
        return self.paths.get(stem) or self.names.get(stem.rpartition("/")[2])


def read_rows(table: Path, needed: Collection[str | None] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """(`file:line`, cells by column) of a CSV with a header. Raises InputError unless it has the `needed` columns."""
    if require_file(table).stat().st_size > MAX_TABLE:
        raise InputError(f"larger than {MAX_TABLE:,} bytes", table, "is this a table?")
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            missing = [name for name in needed if name is not None and name not in header]
            if missing:
                raise InputError(f"no column {missing[0]!r:.40}", table, f"columns here: {', '.join(header):.200}")
            for row in reader:
                where = f"{table}:{reader.line_num}"
                if any(row.get(name) is None for name in needed if name is not None):
                    raise InputError("fewer cells than columns", where)
                yield where, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"not CSV: {error}", table) from None


def _require_some(recordings: list[Recording], source: Path) -> list[Recording]:
    """`recordings`, if a file of one is there. Raises InputError that names a file otherwise."""
    if not recordings:
        raise InputError("no recordings", source, "a folder of folders, one per class, or give --csv")
    if all(recording.path is None for recording in recordings):
        first = recordings[0].name
        raise InputError(f"none of the {len(recordings):,} recordings lies here (such as {first!r:.80})", source)
    return recordings


# ---- layouts -------------------------------------------------------------------------------------


def _folders(source: Source) -> list[Recording]:
    """A folder of folders, one per class; or of folders train, dev (valid) and eval (test) of such folders."""
    _refuse_folds("folders", source)
    splits: dict[str, SplitName] = {
        "train": "train",
        **dict.fromkeys(("dev", "valid", "validation", "val"), "dev"),
        **dict.fromkeys(("eval", "test"), "eval"),
    }
    below = sorted(path for path in source.root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if below and all(path.name.lower() in splits for path in below):
        return [
            each
            for path in below
            for each in _classes(source._replace(root=path), f"{path.name}/", splits[path.name.lower()])
        ]
    return _classes(source, "", None)


def _classes(source: Source, prefix: str, split: SplitName | None) -> list[Recording]:
    recordings = []
    for path in Files(source.root, source.follow_links).all:
        name = path.relative_to(source.root).with_suffix("").as_posix()
        label, slash, _ = name.partition("/")
        if not slash:
            hint = "put each class into a folder of its own, or give --csv"
            raise InputError("lies in no folder of a class", path, hint)
        recordings.append(Recording(path, f"{prefix}{name}", (Tag.own(label),), f"{prefix}{name}", split))
    return recordings


def _esc50(source: Source) -> list[Recording]:
    eval_folds, dev_folds = source.eval_folds or ("5",), source.dev_folds or ("4",)
    columns = Columns("filename", "category", "fold", "src_file", None, eval_folds, dev_folds)
    return read_table(source.root / "meta" / "esc50.csv", source.root / "audio", columns, source.follow_links)


def _urbansound8k(source: Source) -> list[Recording]:
    eval_folds, dev_folds = source.eval_folds or ("10",), source.dev_folds or ("9",)
    columns = Columns("slice_file_name", "class", "fold", "fsID", None, eval_folds, dev_folds)
    table = source.root / "metadata" / "UrbanSound8K.csv"
    return read_table(table, source.root / "audio", columns, source.follow_links)


def _fsd50k(source: Source) -> list[Recording]:
    """Its `dev` is for training, with the rows marked `val` for choices; its `eval` for results."""
    _refuse_folds("fsd50k", source)
    recordings = []
    for part in ("dev", "eval"):
        table = source.root / "FSD50K.ground_truth" / f"{part}.csv"
        find = Files(source.root / f"FSD50K.{part}_audio", source.follow_links)
        needed = ["fname", "labels", "mids", *(["split"] if part == "dev" else [])]
        for where, row in read_rows(table, needed):
            names, mids = row["labels"].split(","), row["mids"].split(",")
            if len(names) != len(mids):
                raise InputError(f"{len(names)} labels and {len(mids)} mids", where)
            tags = tuple(Tag(mid, spoken(name)) for name, mid in zip(names, mids, strict=True))
            split: SplitName = "eval" if part == "eval" else "dev" if row["split"] == "val" else "train"
            recordings.append(Recording(find.by_path(row["fname"]), row["fname"], tags, row["fname"], split))
    return recordings


def _audioset(source: Source) -> list[Recording]:
    """Tables `*_segments.csv`: those whose name begins with `eval` are for results, the others for training."""
    _refuse_folds("audioset", source)
    names = {}
    for _, row in read_rows(source.root / "class_labels_indices.csv", ["mid", "display_name"]):
        names[row["mid"]] = row["display_name"]
    tables = sorted(source.root.glob("*segments*.csv"))
    if not tables:
        raise InputError(
            "no table of segments", source.root, "such as eval_segments.csv, beside class_labels_indices.csv"
        )
    find, recordings = _by_youtube_id(source), []
    for table in tables:
        split: SplitName | None = "eval" if table.name.startswith("eval") else None
        for where, youtube_id, mids in _segments(table):
            unknown = [mid for mid in mids if mid not in names]
            if unknown:
                raise InputError(f"{unknown[0]!r:.40} is not in class_labels_indices.csv", where)
            tags = tuple(Tag(mid, names[mid]) for mid in mids)
            recordings.append(Recording(find.get(youtube_id), youtube_id, tags, youtube_id, split))
    return recordings


def _segments(table: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(`file:line`, YouTube id, mids) of a table of segments; lines that start with # are its header."""
    with open(require_file(table), encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.reader(file, skipinitialspace=True), 1):
            if not row or row[0].startswith("#"):
                continue
            if len(row) < 4 or len(row[0]) != YOUTUBE_ID:
                raise InputError("not YTID, start_seconds, end_seconds, positive_labels", f"{table}:{number}")
            yield f"{table}:{number}", row[0], [mid.strip() for mid in row[3].split(",") if mid.strip()]


def _by_youtube_id(source: Source) -> dict[str, Path]:
    """YouTube id → file, of names such as `ID`, `YID`, `ID_30.000`, `ID_30000_40000`."""
    found: dict[str, Path] = {}
    # Whole names first: an id may itself begin with a Y, or be the beginning of a longer name.
    files = sorted(Files(source.root, source.follow_links).names.items(), key=lambda item: (len(item[0]), item[0]))
    for stem, path in files:
        for start in (0, 1):
            if start and not stem.startswith("Y"):
                continue
            youtube_id, rest = stem[start : start + YOUTUBE_ID], stem[start + YOUTUBE_ID :]
            if len(youtube_id) == YOUTUBE_ID and (not rest or rest[0] in "_.-"):
                found.setdefault(youtube_id, path)
                break
    return found


def _refuse_folds(layout: str, source: Source) -> None:
    if source.eval_folds or source.dev_folds:
        option = "--eval-folds" if source.eval_folds else "--dev-folds"
        raise InputError(f"layout {layout} has no folds", option, "leave it out, or give --csv and --fold")


READERS: Mapping[str, Callable[[Source], list[Recording]]] = {
    "folders": _folders,
    "esc50": _esc50,
    "fsd50k": _fsd50k,
    "urbansound8k": _urbansound8k,
    "audioset": _audioset,
}
