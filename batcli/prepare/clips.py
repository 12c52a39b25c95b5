"""`bat prepare clips`: make the clips of a dataset from recordings with labels, as people have them.

Every recording becomes mono clips at 32 kHz; the labels become the dataset's vocabulary; recordings of one
origin stay in one split. Questions about the clips are made by `bat prepare questions`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from batcli.audio.clips import ClipSettings, write_clips
from batcli.core.errors import BatError, InputError, TooManyBad
from batcli.core.files import exclusive_lock, read_json, require_writable, write_json, write_text
from batcli.core.parallel import default_jobs, run_jobs
from batcli.core.progress import SILENT, Reporter
from batcli.core.shards import ResumableShards, content_key
from batcli.data.dataset import FILE, Dataset, open_dataset
from batcli.data.metadata import Label, labels_csv, read_labels, require_names
from batcli.data.recordings import OWN_MID, Columns, Recording, Source, detect_layout, read_collection, read_table, slug
from batcli.data.splits import SPLITS, SplitName, draw_splits
from batcli.options import ClipsOptions, refuse_given

METADATA, LEFT_OUT = "metadata", "left_out.json"
OF_TABLE = ["file", "label", "fold", "group", "separator"]
SHOWN = 10  # messages about bad recordings, and classes of the summary


@dataclass(frozen=True)
class Work:
    """One recording to convert, the name of its clips without a suffix, its labels and its split."""

    path: Path
    name: str
    mids: tuple[str, ...]
    split: SplitName


def clips(options: ClipsOptions, reporter: Reporter = SILENT) -> Dataset:
    """Make the clips, labels and metadata of DATA, or go on where a stopped run left it.

    Returns the dataset, without questions. Raises InputError for sources that cannot be used; TooManyBad, when all
    is written, for more than `options.max_bad` recordings that cannot be read.
    """
    recordings = _recordings(options, reporter)
    for split, share in (("eval", "test_share"), ("dev", "dev_share")):
        if any(recording.split == split for recording in recordings):
            refuse_given(options, [share], f"has no effect: the source has a split {split}")
    labels, present = _vocabulary(options, _present(recordings, reporter), reporter)
    splits = draw_splits(list(present.values()), options.test_share, options.dev_share, options.seed, reporter)
    works = _works(present, splits)
    if options.dry_run:
        for split in SPLITS:
            reporter.info(f"{split:<8}{sum(work.split == split for work in works):>9,} recordings")
        reporter.info(f"{len(labels):,} labels")
        return Dataset(options.data)
    settings = ClipSettings(options.seconds, options.crop, options.excerpts, options.channel, options.seed)
    facts = {"clips": _digest(works), "settings": asdict(settings)}
    if _is_complete(options.data, facts):
        reporter.info(f"{options.data} is already complete")
        return open_dataset(options.data)
    with exclusive_lock(require_writable(options.data)):
        return _make(options, works, labels, settings, facts, reporter)


# ---- what there is -------------------------------------------------------------------------------


def _recordings(options: ClipsOptions, reporter: Reporter) -> list[Recording]:
    eval_folds, dev_folds = _list(options.eval_folds), _list(options.dev_folds)
    if options.csv is not None:
        if options.layout != "auto":
            raise InputError("a table and a layout", "--layout", "give one of --csv and --layout")
        if len(options.source) > 1:
            raise InputError("a table and more than one source", "--csv", "one run for each table, or one table")
        if options.fold is not None and not (eval_folds or dev_folds):
            raise InputError("has no effect", "--fold", "name folds with --eval-folds or --dev-folds")
        columns = Columns(
            options.file, options.label, options.fold, options.group, options.separator, eval_folds, dev_folds
        )
        return read_table(options.csv, options.source[0], columns, options.follow_links)
    refuse_given(options, OF_TABLE, "names a column of a table, which --csv gives")
    recordings = []
    for source in options.source:
        layout = detect_layout(source) if options.layout == "auto" else options.layout
        found = read_collection(Source(source, eval_folds, dev_folds, options.follow_links), layout)
        reporter.info(f"{source}: {layout}, {len(found):,} recordings")
        recordings += found
    return recordings


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _present(recordings: Sequence[Recording], reporter: Reporter) -> dict[Path, Recording]:
    """File → recording, of the recordings whose file is there; warns of the others."""
    missing = [recording.name for recording in recordings if recording.path is None]
    if missing:
        of_all = f"{len(missing):,} of {len(recordings):,} recordings"
        reporter.warn(f"{of_all} have no file (such as {missing[0]!r:.80}); left out")
    by_path: dict[Path, Recording] = {}
    for recording in recordings:
        if recording.path is not None:
            before = by_path.setdefault(recording.path, recording)
            if before is not recording:  # AudioSet lists some segments in two tables
                by_path[recording.path] = replace(before, tags=tuple(dict.fromkeys([*before.tags, *recording.tags])))
    return by_path


def _vocabulary(
    options: ClipsOptions, recordings: Mapping[Path, Recording], reporter: Reporter
) -> tuple[list[Label], dict[Path, Recording]]:
    """The labels of the dataset, and the recordings with those of their tags that are among them.

    The vocabulary is that of `--labels`, or all tags in alphabetical order.
    """
    if options.labels is None:
        names: dict[str, str] = {}
        for tag in (tag for recording in recordings.values() for tag in recording.tags):
            names.setdefault(tag.mid, tag.name)
        ordered = sorted(names.items(), key=lambda item: (item[1].lower(), item[0]))
        require_names([name for _, name in ordered], "labels of the recordings")
        return [Label(number, mid, name) for number, (mid, name) in enumerate(ordered)], dict(recordings)
    labels = read_labels(options.labels)
    mids = {label.mid: label.mid for label in labels} | {label.name.lower(): label.mid for label in labels}
    known, unknown = {}, Counter[str]()
    for path, recording in recordings.items():
        found = [(tag, mids.get(tag.mid) or mids.get(tag.name.lower())) for tag in recording.tags]
        unknown.update(tag.name for tag, mid in found if mid is None)
        if tags := tuple(tag._replace(mid=mid) for tag, mid in found if mid is not None):
            known[path] = replace(recording, tags=tags)
    if not known:
        hint = f"labels of the recordings: {', '.join(list(unknown)[:6]):.100}"
        raise InputError("names no label of the recordings", options.labels, hint)
    if unknown:
        most = ", ".join(f"{name!r:.40}" for name, _ in unknown.most_common(3))
        left = f"{len(recordings) - len(known):,} recordings left out"
        reporter.warn(f"{len(unknown):,} labels are not in {options.labels} (such as {most}); {left}")
    return labels, known


def _works(recordings: Mapping[Path, Recording], splits: Mapping[str, SplitName]) -> list[Work]:
    """The work on each recording, in the order of names; clips are named by label and recording."""
    works, taken = [], Counter[str]()
    for path, recording in sorted(recordings.items(), key=lambda item: (item[1].name, str(item[0]))):
        stem = Path(recording.name).name.removesuffix(path.suffix)
        name = f"{slug(recording.tags[0].name)}/{''.join(c if c.isalnum() or c in '-_' else '-' for c in stem)}"
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}-of{taken[name]}"
        mids = tuple(dict.fromkeys(tag.mid for tag in recording.tags))
        works.append(Work(path, name, mids, splits[recording.group]))
    return works


# ---- clips ---------------------------------------------------------------------------------------


def _make(
    options: ClipsOptions,
    works: Sequence[Work],
    labels: Sequence[Label],
    settings: ClipSettings,
    facts: dict[str, Any],
    reporter: Reporter,
) -> Dataset:
    """Convert the recordings that are not converted yet; then write labels, metadata and, last, `dataset.json`."""
    dataset = Dataset(options.data, seconds=options.seconds, seed=options.seed, recipe={"prepare": "clips", **facts})
    folder = options.data / dataset.audio_root
    metadata = require_writable(options.data / METADATA)
    with ResumableShards(metadata / "clips.jsonl", content_key(**facts)) as shards:
        done = shards.finished()
        todo = [number for number in range(len(works)) if number not in done]
        convert = partial(_convert, folder=folder, settings=settings)
        made = run_jobs(convert, [works[number] for number in todo], options.jobs or default_jobs())
        for number, record in zip(todo, reporter.track(made, "clips", len(todo)), strict=True):
            shards.append(number, record)
        records = shards.gather(len(works))
        write_text(options.data / dataset.labels_file, labels_csv(labels))
        left_out = _write_metadata(options.data, works, records, reporter)
        dataset.save()
        shards.remove()
    if len(left_out) > options.max_bad:
        where = metadata / LEFT_OUT
        raise TooManyBad(f"{len(left_out):,} recordings left out, more than --max-bad {options.max_bad}; see {where}")
    return dataset


def _convert(work: Work, folder: Path, settings: ClipSettings) -> dict[str, Any]:
    """Write the clips of one recording; a bad recording becomes a record with its error."""
    try:
        return write_clips(work.path, folder, work.name, settings)
    except BatError as error:
        return {"error": str(error)}


def _write_metadata(
    root: Path, works: Sequence[Work], records: Sequence[Mapping[str, Any]], reporter: Reporter
) -> list[dict[str, str]]:
    """Write the metadata of each split and the list of what was left out, which is returned; show a summary."""
    left_out = [
        {"recording": str(work.path), "reason": record["error"]}
        for work, record in zip(works, records, strict=True)
        if "error" in record
    ]
    for entry in left_out[:SHOWN]:
        reporter.warn(entry["reason"])
    good = [(work, record) for work, record in zip(works, records, strict=True) if "error" not in record]
    good, copies = _without_copies(good)
    if copies:
        first = copies[0]
        reporter.warn(
            f"{len(copies):,} recordings are copies of one of a split held out (such as {first['recording']}); left out"
        )
    for fault, words in (("clipped", "are clipped"), ("offset", "had a constant offset, which was taken out")):
        found = [str(work.path) for work, record in good if record[fault]]
        if found:
            reporter.warn(f"{len(found):,} recordings {words} (such as {found[0]})")
    entries: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for work, record in good:
        for excerpt in record["excerpts"]:
            label, _, name = excerpt["file"].removesuffix(".wav").rpartition("/")
            facts = {"seconds": round(excerpt["seconds"], 3), "start": excerpt["start"], "recording": work.path.name}
            entries[work.split].append({"folder": label, "id": name, "label": list(work.mids), **facts})
    for split, of_split in entries.items():
        if of_split:
            write_json(root / METADATA / f"{split}.json", of_split)
    write_json(root / METADATA / LEFT_OUT, left_out + copies)
    _summarise(entries, reporter)
    return left_out


def _without_copies(
    recordings: Sequence[tuple[Work, Mapping[str, Any]]],
) -> tuple[list[tuple[Work, Mapping[str, Any]]], list[dict[str, str]]]:
    """The recordings without those whose samples are the same as another's of a split held out more; and the latter."""
    held_out: dict[str, SplitName] = {}
    for work, record in recordings:
        before = held_out.get(record["sha256"], work.split)
        held_out[record["sha256"]] = max(before, work.split, key=SPLITS.index)
    kept, copies = [], []
    for work, record in recordings:
        if held_out[record["sha256"]] == work.split:
            kept.append((work, record))
        else:
            reason = f"the same samples as a recording of split {held_out[record['sha256']]}"
            copies.append({"recording": str(work.path), "reason": reason})
    return kept, copies


def _summarise(entries: Mapping[str, Sequence[Mapping[str, Any]]], reporter: Reporter) -> None:
    """Show clips, seconds and classes of each split, and classes that training lacks."""
    reporter.info(f"{'split':<8}{'clips':>9}{'seconds':>10}{'classes':>9}  fewest clips of a class")
    trained: set[str] = set()
    for split in SPLITS:
        counts = Counter(mid for entry in entries[split] for mid in entry["label"])
        if not counts:
            continue
        rarest, fewest = min(counts.items(), key=lambda item: (item[1], item[0]))
        seconds = sum(entry["seconds"] for entry in entries[split])
        few = f"{fewest:,} ({rarest.removeprefix(OWN_MID):.24})"
        reporter.info(f"{split:<8}{len(entries[split]):>9,}{seconds:>10,.0f}{len(counts):>9,}  {few}")
        if split == "train":
            trained = set(counts)
        elif missing := sorted(set(counts) - trained):
            reporter.warn(f"{split} has {len(missing):,} classes without a clip for training (such as {missing[0]})")


def _is_complete(root: Path, facts: Mapping[str, Any]) -> bool:
    """Whether DATA has these clips. Raises InputError when it holds another dataset."""
    if not (root / FILE).exists():
        return False
    content = read_json(root / FILE)
    recipe = content.get("recipe") if isinstance(content, dict) else None
    if not isinstance(recipe, dict) or any(recipe.get(name) != value for name, value in facts.items()):
        raise InputError("holds another dataset, or clips made otherwise", root, "choose another directory")
    return True


def _digest(works: Sequence[Work]) -> str:
    """A hash of the recordings by path, size and time, their names, labels and splits."""
    lines = []
    for work in works:
        facts = work.path.stat()
        lines.append(f"{work.path}\0{facts.st_size}\0{facts.st_mtime_ns}\0{work.name}\0{work.mids}\0{work.split}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()
