"""`bat spatialize`: render binaural scenes from clips and BRIRs, one or all of a split."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from batcli.audio.cues import interaural
from batcli.audio.io import SAMPLE_BYTES, peak_and_clipped, write_wav
from batcli.audio.render import RenderSettings, render_files
from batcli.core.errors import BatError, InputError, TooManyBad
from batcli.core.files import (
    STDIO,
    read_json,
    readable,
    require_file,
    require_writable,
    require_writable_file,
    sha256,
    stays_below,
    write_json,
)
from batcli.core.jsonl import write_records
from batcli.core.manifest import describe
from batcli.core.parallel import default_jobs, main_rank_lock, rank_and_world, run_jobs, share
from batcli.core.progress import SILENT, Reporter
from batcli.core.records import read_records
from batcli.core.shards import ResumableShards, content_key
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Scene, scene_id
from batcli.options import SpatializeOptions, refuse_given

SCENES = "scenes.jsonl"
MANIFEST = "manifest.json"
SHOWN = 10  # messages about bad scenes; all stand in scenes.jsonl
Record = dict[str, Any]  # a line of scenes.jsonl


@dataclass(frozen=True)
class Work:
    """One scene to render, with everything that a worker process needs to know."""

    position: int
    scene: Scene
    files: tuple[tuple[Path, Path], ...]


def spatialize(options: SpatializeOptions, reporter: Reporter = SILENT) -> None:
    """Render one scene (`--audio`, `--reverb`) or every distinct scene of a split.

    Raises InputError for wrong usage or input, TooManyBad when more scenes failed than allowed.
    """
    if options.output is None or options.output == STDIO:
        what = "missing" if options.output is None else "scenes do not go to standard output"
        raise InputError(what, "--output", "name a folder for a split, a WAV file for one scene")
    files = (options.audio, options.reverb, options.audio2, options.reverb2)
    if (options.data is None) == all(file is None for file in files):
        raise InputError("give either DATA or --audio and --reverb", hint="see `bat spatialize --help`")
    if options.data is None:
        refuse_given(options, ["follow_links"], "has no effect without DATA")
        _render_one_scene(options, reporter)
    else:
        _render_split(options, open_dataset(options.data, options.follow_links), reporter)


def _settings(options: SpatializeOptions, seconds: float) -> RenderSettings:
    return RenderSettings(options.seconds or seconds, options.sample_rate, options.rms_dbfs, options.rendering)


def _render_one_scene(options: SpatializeOptions, reporter: Reporter) -> None:
    pairs = [(options.audio, options.reverb), (options.audio2, options.reverb2)]
    files = [(clip, brir) for clip, brir in pairs if clip is not None and brir is not None]
    if len(files) != sum(clip is not None or brir is not None for clip, brir in pairs):
        raise InputError(
            "a clip without a BRIR, or a BRIR without a clip", hint="give --audio with --reverb, and so on"
        )
    settings = _settings(options, RenderSettings.seconds)
    for path in chain(*files):
        require_file(path)
    if options.dry_run:
        reporter.info(f"1 scene of {settings.seconds:g} s from {len(files)} sources")
        return
    require_writable_file(options.output)
    audio = render_files(files, settings)
    write_wav(options.output, audio, settings.sample_rate, options.encoding)
    peak, clipped = peak_and_clipped(audio, options.encoding)
    reporter.info(f"{options.output}: {interaural(audio, settings.sample_rate).words()}; peak {peak:.2f}")
    if clipped:
        reporter.warn(f"{clipped:,} samples were clipped; --encoding float keeps them")


def _render_split(options: SpatializeOptions, dataset: Dataset, reporter: Reporter) -> None:
    """Render what is not there yet: this process's share; then, in the first rank, write the list of all."""
    questions, output = dataset.questions_file(options.split), options.output
    scenes = dict.fromkeys(question.scene for question in dataset.questions(options.split))
    if not scenes:
        raise InputError("no questions", questions)
    settings = _settings(options, dataset.seconds)
    works = [Work(n, scene, tuple(map(dataset.files_of, scene))) for n, scene in enumerate(scenes)]
    size = readable(len(works) * settings.length * 2 * SAMPLE_BYTES[options.encoding])
    reporter.info(f"{len(works):,} scenes of {settings.seconds:g} s, {size}")
    if options.dry_run:
        _report_bad(_unreadable(works), len(works), "the clips and BRIRs", options, reporter)
        return
    with main_rank_lock(require_writable(output)):
        facts: dict[str, Any] = {"split": options.split, "questions_sha256": sha256(questions)}
        facts |= {"settings": asdict(settings), "encoding": options.encoding}
        earlier = _earlier(output, facts)
        if len(earlier) == len(works):
            reporter.info(f"{output} is already complete")
            return
        (output / MANIFEST).unlink(missing_ok=True)  # from here on the folder is unfinished
        with ResumableShards(output / SCENES, content_key(**facts)) as shards:
            todo = _todo(share(works), shards, earlier, output)
            render = partial(_render_work, output=output, settings=settings, encoding=options.encoding)
            rendered = run_jobs(render, todo, options.jobs or default_jobs())
            for work, record in zip(todo, reporter.track(rendered, "scenes", len(todo)), strict=True):
                shards.append(work.position, record)
            if rank_and_world()[0] != 0:
                return
            records = shards.gather(len(works))
        bad = [record["error"]["message"] for record in records if record["file"] is None]
        write_records(output / SCENES, records)
        write_json(output / MANIFEST, describe(**facts, seed=options.seed, scenes=len(records), bad=len(bad)))
        shards.remove()
    if clipped := sum(record.get("clipped", 0) > 0 for record in records):
        reporter.warn(f"{clipped:,} scenes have clipped samples; --encoding float keeps them")
    _report_bad(bad, len(records), f"'error' in {output / SCENES}", options, reporter)


def _unreadable(works: Sequence[Work]) -> list[str]:
    """A message for each scene whose clips or BRIRs cannot be read."""
    bad = []
    for work in works:
        try:
            for path in chain(*work.files):
                require_file(path)
        except InputError as error:
            bad.append(str(error))
    return bad


def _earlier(output: Path, facts: dict[str, Any]) -> dict[int, Record]:
    """Position → record of the scenes that a finished run rendered here.

    Raises InputError when it rendered other scenes or with other settings: they must not be mixed.
    """
    if not (output / MANIFEST).exists():
        return {}
    manifest = read_json(output / MANIFEST)
    if not isinstance(manifest, dict) or any(manifest.get(name) != value for name, value in facts.items()):
        raise InputError("holds other scenes, or of other settings", output, "choose another folder")
    found = {}
    for position, (where, record) in enumerate(read_records(output / SCENES)):
        file = record.get("file", 0)
        if file is not None and not (isinstance(file, str) and stays_below(file)):
            raise InputError("no record of a scene", where, "choose another folder")
        if file and not _is_lost(record, output):
            found[position] = record
    return found


def _todo(works: Sequence[Work], shards: ResumableShards, earlier: dict[int, Record], output: Path) -> list[Work]:
    """The scenes that are still to be rendered. Records of an earlier run are taken over into `shards`."""
    done, todo = shards.finished(), []
    for work in works:
        record = done.get(work.position)
        if record is None and work.position in earlier:
            record = earlier[work.position]
            shards.append(work.position, record)
        if record is None or _is_lost(record, output):
            todo.append(work)
    return todo


def _is_lost(record: Record, output: Path) -> bool:
    """Whether the scene was rendered, but its file is not there."""
    return record["file"] is not None and not os.path.exists(output / record["file"])  # no error for a name too long


def _render_work(work: Work, output: Path, settings: RenderSettings, encoding: str) -> Record:
    """Render and write one scene; a bad sample becomes a record with its error."""
    name = f"{scene_id(work.scene)}.wav"
    record: Record = {"scene_id": scene_id(work.scene), "file": name, "sources": [s._asdict() for s in work.scene]}
    try:
        audio = render_files(work.files, settings)
        write_wav(output / name, audio, settings.sample_rate, encoding)
    except BatError as error:
        return {**record, "file": None, "error": {"kind": type(error).__name__, "message": str(error)}}
    peak, clipped = peak_and_clipped(audio, encoding)
    return {**record, "seconds": settings.seconds, "peak": round(peak, 4), "clipped": clipped}


def _report_bad(bad: Sequence[str], count: int, where: str, options: SpatializeOptions, reporter: Reporter) -> None:
    for message in bad[:SHOWN]:
        reporter.warn(message)
    if len(bad) > options.max_bad:
        raise TooManyBad(f"{len(bad):,} of {count:,} scenes failed, more than --max-bad {options.max_bad}; see {where}")
