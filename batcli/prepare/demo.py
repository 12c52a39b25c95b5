"""`bat prepare demo`: simulated rooms and questions for synthesised clips, or for those of `bat prepare clips`."""

from __future__ import annotations

import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from batcli.audio.io import write_wav
from batcli.audio.synth import LABELS, synthesise
from batcli.core.errors import InputError
from batcli.core.files import (
    TEMPORARY,
    exclusive_lock,
    read_json,
    remove,
    require_directory,
    require_writable,
    write_json,
    write_text,
)
from batcli.core.parallel import default_jobs, run_jobs
from batcli.core.progress import SILENT, Reporter
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import FILE, Dataset, open_dataset
from batcli.data.metadata import labels_csv, read_clips, read_reverbs
from batcli.options import DemoOptions, RoomsOptions, refuse_given
from batcli.prepare.rooms import rooms
from batcli.questions.generate import generate

RT60 = "0.12:0.4"  # seconds: furnished and treated rooms
MAX_DISTANCE = 4.0  # metres: across a living room
PER_SCENE = {"train": 16, "eval": 4, "dev": 4}  # questions; a scene costs a hundred times as much as a question
TRAIN_SHARES = {
    "CLASSIFICATION": 0.05,
    "DOA": 0.10,
    "MIXUP_SINGLE_CLASSIFICATION": 0.14,
    "MIXUP_SINGLE_DOA": 0.14,
    "MIXUP_DIRECTION": 0.26,
    "MIXUP_DISTANCE_BOTH": 0.17,
    "MIXUP_NONBINARY_DIRECTION": 0.04,
    "MIXUP_NONBINARY_DISTANCE": 0.05,
    "MIXUP_NONBINARY_SOURCE": 0.05,
}
"""Relations need more questions than facts do; the other splits have the published shares."""
HELD_OUT: tuple[Literal["eval", "dev"], ...] = ("eval", "dev")
"""`eval` is for results, `dev` for choices made on the way to them."""
HELD_OUT_SHARE = 4  # training clips and rooms for each of a held-out split
UNFINISHED = ".tmp-demo.json"  # the options of a dataset that is not finished
DEMO = "demo"  # in the recipe of a dataset whose clips were given: the options of its rooms and questions
HEADS = ("hrtf", "held_out_hrtf")  # recorded where they are not the defaults
RECORDED = ("seed", "clips", "rooms", "sources", "count", "eval_count", "seconds")


class SplitSize(NamedTuple):
    """Numbers of clips, rooms and questions in one split."""

    clips: int  # of each class
    rooms: int
    questions: int


Sizes = dict[Literal["train", "eval", "dev"], SplitSize]


def demo(options: DemoOptions, reporter: Reporter = SILENT) -> Dataset:
    """Make DATA, or go on where a stopped run left it.

    Where `bat prepare clips` has made DATA, its clips and labels are taken; else they are synthesised. No two of the
    splits train, eval and dev share a clip, room or scene. Raises InputError when DATA holds something else.
    """
    root = options.data
    given = _given_clips(root)
    if given:
        refuse_given(options, ["clips", "seconds"], f"{root} has its clips already")
    facts = {name: getattr(options, name) for name in RECORDED if not (given and name in ("clips", "seconds"))}
    facts |= {name: value for name in HEADS if (value := getattr(options, name)) != getattr(DemoOptions, name)}
    sizes = _sizes(options)
    if given:
        sizes = {split: size for split, size in sizes.items() if _clips_file(root, split).exists()}
    complete = _has_questions(given, facts) if given else _is_complete(root, facts)
    clips, n_rooms, questions = (sum(column) for column in zip(*sizes.values(), strict=True))
    about_clips = (
        f"{len(given.labels)} classes, clips of at most {given.seconds:g} s"
        if given
        else f"{len(LABELS)} classes, {clips * len(LABELS):,} clips of {options.seconds:g} s"
    )
    reporter.info(f"{about_clips}, {n_rooms:,} rooms with {options.sources} BRIRs each, {questions:,} questions")
    if options.dry_run:
        return Dataset(root)
    if complete:
        reporter.info(f"{root} is already complete")
        return open_dataset(root)
    with exclusive_lock(require_writable(root)):
        if given:
            dataset = replace(given, recipe={**given.recipe, DEMO: facts})
        else:
            write_json(root / UNFINISHED, facts)
            dataset = Dataset(root, seconds=options.seconds, seed=options.seed, recipe=facts)
            write_text(root / dataset.labels_file, labels_csv(LABELS))
            _make_clips(dataset, sizes, options, options.jobs or default_jobs(), reporter)
        return _add_rooms_and_questions(dataset, options, sizes, reporter)


def _sizes(options: DemoOptions) -> Sizes:
    held_out = SplitSize(-(-options.clips // HELD_OUT_SHARE), -(-options.rooms // HELD_OUT_SHARE), options.eval_count)
    return {"train": SplitSize(options.clips, options.rooms, options.count), **dict.fromkeys(HELD_OUT, held_out)}


def _given_clips(root: Path) -> Dataset | None:
    """The dataset in `root` if `bat prepare clips` made its clips."""
    content = read_json(root / FILE) if (root / FILE).is_file() else None
    recipe = content.get("recipe") if isinstance(content, dict) else None
    return open_dataset(root) if isinstance(recipe, dict) and recipe.get("prepare") == "clips" else None


def _has_questions(given: Dataset, facts: dict[str, Any]) -> bool:
    """Whether the rooms and questions of these options are there. Raises InputError for questions made otherwise."""
    if given.splits and given.recipe.get(DEMO) != facts:
        raise InputError(
            "has questions that were made otherwise", given.root, "prepare the clips into another directory"
        )
    return bool(given.splits)


def _add_rooms_and_questions(dataset: Dataset, options: DemoOptions, sizes: Sizes, reporter: Reporter) -> Dataset:
    """Make the rooms and questions that are not there yet; `dataset.json` comes last."""
    root = dataset.root
    for split, size in sizes.items():
        rooms(
            RoomsOptions(
                reverb=root / dataset.reverb_root,
                rooms=size.rooms,
                sources=options.sources,
                split=split,
                rt60=RT60,
                max_distance=MAX_DISTANCE,
                spread="even",
                hrtf=options.hrtf if split == "train" else options.held_out_hrtf or options.hrtf,
                seed=options.seed,
                jobs=options.jobs,
            ),
            reporter,
        )
    for split, size in sizes.items():
        clips, reverbs = _clips_file(root, split), root / dataset.reverb_root / f"{split}_reverberation.json"
        asked = generate(
            read_clips(clips),
            dataset.labels,
            read_reverbs(reverbs),
            size.questions,
            seed=zlib.crc32(f"{options.seed} {split}".encode()),
            per_scene=PER_SCENE[split],
            shares=TRAIN_SHARES if split == "train" else None,
        )
        dataset.add_split(split, reporter.track(asked, f"{split} questions", size.questions), clips, reverbs)
    dataset.save()
    remove(root / UNFINISHED)
    return dataset


def _is_complete(root: Path, facts: dict) -> bool:
    """Whether DATA is finished. Raises InputError when it holds anything but this dataset, finished or not."""
    if not root.exists():
        return False
    require_directory(root)
    for name in (FILE, UNFINISHED):
        if (root / name).exists():
            content = read_json(root / name)
            if not isinstance(content, dict) or content.get("recipe", content) != facts:
                raise InputError("made with other options", root / name, "choose another directory")
            return name == FILE
    if not all(path.name.startswith(TEMPORARY) for path in root.iterdir()):
        raise InputError("is not empty and no demo dataset", root, "choose another directory")
    return False


def _clips_file(root: Path, split: str) -> Path:
    return root / "metadata" / f"{split}.json"


def _make_clips(dataset: Dataset, sizes: Sizes, options: DemoOptions, jobs: int, reporter: Reporter) -> None:
    """Make the clips, and write the metadata of each split."""
    root = dataset.path(dataset.audio_root)
    todo = [
        (split, number, take) for split in sizes for number in range(len(LABELS)) for take in range(sizes[split].clips)
    ]
    function = partial(_make_clip, root=root, seed=options.seed, seconds=options.seconds)
    entries: dict[str, list[dict]] = {split: [] for split in sizes}
    made = reporter.track(run_jobs(function, todo, jobs), "clips", len(todo))
    for clip_id, (split, number, _) in zip(made, todo, strict=True):
        entries[split].append({"folder": split, "id": clip_id, "label": [LABELS[number].mid]})
    for split in sizes:
        write_json(_clips_file(dataset.root, split), entries[split])


def _make_clip(which: tuple[str, int, int], root: Path, seed: int, seconds: float) -> str:
    """Write one clip (split, class, number within the class), unless it is there; return its id."""
    split, number, take = which
    name = "".join(c if c.isalnum() else "-" for c in LABELS[number].name.lower()).replace("--", "-")
    clip_id = f"{name}-{take:04d}"
    path = root / split / f"{clip_id}.wav"
    if not path.exists():
        rng = np.random.default_rng([seed, zlib.crc32(split.encode()), number, take])
        write_wav(path, synthesise(number, rng, seconds, SAMPLE_RATE)[None], SAMPLE_RATE, "pcm16")
    return clip_id
