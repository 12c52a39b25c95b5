"""`bat prepare questions`: make questions from clips with labels and BRIRs with positions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from batcli.core.errors import InputError
from batcli.core.files import exclusive_lock, inside, require_writable
from batcli.core.progress import SILENT, Reporter
from batcli.data.dataset import AUDIO_SUFFIXES, Dataset, extend_dataset, require_split_name
from batcli.data.metadata import Clip, Reverb, read_clips, read_reverbs
from batcli.options import QuestionsOptions, require
from batcli.questions.balance import BalanceCounter, BalanceReport
from batcli.questions.generate import counts_by_type, generate, question_types
from batcli.questions.scenes import all_on_planes

SHOWN = 24  # answers per line of detail


def questions(options: QuestionsOptions, reporter: Reporter = SILENT) -> BalanceReport:
    """Add a split of `options.count` questions to DATA, which is made if it is not there.

    Clips and BRIRs without a file, and clips without a label of the CSV, are left out, with a warning.
    Returns the numbers of questions and answers; of a dry run, only of questions by type. Raises
    InputError for inputs that cannot be used.
    """
    for name in ("clips", "labels", "audio_root", "reverb_root"):
        require(options, name)
    require_split_name(options.split)
    question_types(options.types)  # raises for an unknown type, before any work
    dataset = extend_dataset(
        options.data, options.audio_root, options.reverb_root, options.labels, options.seconds, options.seed
    )
    file = options.reverb_root / f"{options.reverb_split or options.split}_reverberation.json"
    clips, reverbs = read_clips(options.clips), read_reverbs(file)
    audio, brirs = options.audio_root, options.reverb_root / "binaural"
    links = options.follow_links
    there = _present([clip.audio_id for clip in clips], "clips", audio, AUDIO_SUFFIXES, links, reporter)
    clips = _labelled([clip for clip in clips if clip.audio_id in there], dataset, reporter)
    there = _present(list(reverbs), "BRIRs", brirs, ("",), links, reporter)
    reverbs = {name: reverb for name, reverb in reverbs.items() if name in there}
    types = _types(options.types, reverbs, reporter)
    _warn_of_sharing(dataset, options.split, options.clips, file, reporter)

    balance = BalanceCounter()
    asked = generate(clips, dataset.labels, reverbs, options.count, types, options.seed, balance, options.per_scene)
    if options.dry_run:
        counts = counts_by_type(options.count, types)
        rooms = len({reverb.scene for reverb in reverbs.values()})
        reporter.info(f"{len(clips):,} clips, {len(reverbs):,} BRIRs of {rooms:,} rooms, {options.count:,} questions:")
        for kind, n in counts.items():
            reporter.info(f"{kind:<27}{n:>9,}")
        return BalanceReport(counts, {}, ())
    with exclusive_lock(require_writable(options.data)):
        dataset.reload_splits()
        dataset.add_split(options.split, reporter.track(asked, "questions", options.count), options.clips, file)
        dataset.save()
    report = balance.report()
    for line in report.lines():
        reporter.info(line)
    for found in report.parts:
        most = ", ".join(f"{value!r} {n:,}" for value, n in list(found.values.items())[:SHOWN])
        reporter.detail(f"{found.question_type}, {found.part}: {most}")
    return report


def _types(text: str, reverbs: Mapping[str, Reverb], reporter: Reporter) -> tuple[str, ...]:
    """The question types; says so where families stand for those that ask on some axes alone."""
    published, on_planes = question_types(text), all_on_planes(reverbs.values())
    types = question_types(text, on_planes)
    if types != published:
        others = ", ".join(name for name in types if name not in published)
        reporter.info(f"every source is near a plane between two words, so questions are on the other axes: {others}")
    return types


def _present(
    ids: Sequence[str], what: str, root: Path, suffixes: Sequence[str], follow_links: bool, reporter: Reporter
) -> set[str]:
    """The ids whose file exists below `root`. Raises InputError for a link out of it, unless `follow_links`.

    Each folder is listed once, which is faster than a look at each file.
    """
    folders: dict[str, dict[str, bool]] = {}  # the names in it, and whether they are links
    present = set()
    for item in ids:
        path = PurePosixPath(item)
        folder = str(path.parent)
        if folder not in folders:
            directory = inside(root, folder, follow_links=follow_links) if folder != "." else root
            folders[folder] = _names(directory)
        found = [suffix for suffix in suffixes if path.name + suffix in folders[folder]]
        links = [suffix for suffix in found if folders[folder][path.name + suffix]]
        broken = [suffix for suffix in links if not inside(root, item + suffix, follow_links=follow_links).exists()]
        if len(found) > len(broken):
            present.add(item)
    if not present:
        ended = [item for item in ids[:1] if item.endswith(tuple(suffixes)) and (root / item).is_file()]
        hint = "ids stand without the files' ending" if ended and all(suffixes) else "check the roots"
        raise InputError(f"none of the {len(ids):,} {what} lies here (such as {ids[0]!r})", root, hint)
    if missing := [item for item in ids if item not in present]:
        of_all = f"{len(missing):,} of {len(ids):,} {what}"
        reporter.warn(f"{of_all} have no file below {root} (such as {missing[0]!r:.120}); left out")
    return present


def _names(directory: Path) -> dict[str, bool]:
    """The names in a folder, and whether they are links; none where there is no folder."""
    if not os.path.isdir(directory):
        return {}
    with os.scandir(directory) as entries:
        return {entry.name: entry.is_symlink() for entry in entries}


def _labelled(clips: list[Clip], dataset: Dataset, reporter: Reporter) -> list[Clip]:
    """The clips with a label of the dataset; warns of the others, or returns all clips when none has one."""
    mids = {label.mid for label in dataset.labels}
    known = [clip for clip in clips if not mids.isdisjoint(clip.mids)]
    if 0 < len(known) < len(clips):
        first = next(clip for clip in clips if mids.isdisjoint(clip.mids))
        missing = f"{len(clips) - len(known):,} of {len(clips):,} clips"
        reporter.warn(f"{missing} have no label of the CSV (such as {first.audio_id!r}); left out")
    return known


def _warn_of_sharing(dataset: Dataset, name: str, clips: Path, reverbs: Path, reporter: Reporter) -> None:
    """Warn when another split has the same clips or rooms, which are then not new to a model of one of them."""
    for other, split in dataset.splits.items():
        for what, mine, theirs in (("clips", clips, split.clips), ("rooms", reverbs, split.reverbs)):
            if other != name and theirs is not None and dataset.path(theirs).resolve() == mine.resolve():
                reporter.warn(f"split {other!r} has the same {what}: to a model of one split the other is not new")
