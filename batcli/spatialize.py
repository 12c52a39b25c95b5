"""`bat spatialize`: clips and BRIRs in, binaural scenes out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from batcli.audio.cues import interaural
from batcli.audio.io import write_wav
from batcli.audio.render import RenderSettings, render_files
from batcli.core.errors import BatError, InputError, TooManyBad
from batcli.core.files import (
    STDIO,
    read_json,
    require_file,
    require_writable,
    require_writable_file,
    sha256,
    stays_below,
    write_json,
)
from batcli.core.jsonl import read_records, write_records
from batcli.core.manifest import describe
from batcli.core.parallel import default_jobs, main_rank_lock, rank_and_world, run_jobs, share
from batcli.core.progress import SILENT, Reporter
from batcli.core.shards import ResumableShards, content_key
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Scene
from batcli.options import SpatializeOptions

SCENES = "scenes.jsonl"
MANIFEST = "manifest.json"
SHOWN = 10  # messages about bad scenes; all stand in scenes.jsonl


@dataclass(frozen=True)
class Work:
    """One scene to render, with everything that a worker process needs to know."""

    position: int
    scene: Scene
    files: tuple[tuple[Path, Path], ...]


def scene_id(scene: Scene) -> str:
    """Twelve hex digits that name a scene, whatever its place in the split."""
    return hashlib.sha256("\n".join(f"{s.audio_id}\t{s.reverb_id}" for s in scene).encode()).hexdigest()[:12]


def spatialize(options: SpatializeOptions, reporter: Reporter = SILENT) -> None:
    """Render one scene (`--audio`, `--reverb`) or every distinct scene of a split.

    Raises InputError for wrong usage or input, TooManyBad when more scenes failed than allowed.
    """
    if options.output is None:
        raise InputError("missing", "--output", "name a folder for a split, a WAV file for one scene")
    if options.output == STDIO:
        raise InputError("scenes do not go to standard output", "--output", "name a folder or a WAV file")
    files = (options.audio, options.reverb, options.audio2, options.reverb2)
    if (options.data is None) == all(file is None for file in files):
        raise InputError("give either DATA or --audio and --reverb", hint="see `bat spatialize --help`")
    if options.data is None:
        _one_scene(options, reporter)
    else:
        _split(options, open_dataset(options.data), reporter)


def _settings(options: SpatializeOptions, dataset: Dataset | None = None) -> RenderSettings:
    seconds = options.seconds or (dataset.seconds if dataset else RenderSettings.seconds)
    return RenderSettings(seconds, options.sample_rate, options.rms_dbfs, options.resampler)


def _one_scene(options: SpatializeOptions, reporter: Reporter) -> None:
    pairs = [(options.audio, options.reverb), (options.audio2, options.reverb2)]
    files = [(clip, brir) for clip, brir in pairs if clip is not None and brir is not None]
    if len(files) != sum(clip is not None or brir is not None for clip, brir in pairs):
        raise InputError(
            "a clip without a BRIR, or a BRIR without a clip", hint="give --audio with --reverb, and so on"
        )
    settings = _settings(options)
    for path in (path for pair in files for path in pair):
        require_file(path)
    if options.dry_run:
        reporter.info(f"1 scene of {settings.seconds:g} s from {len(files)} sources")
        return
    require_writable_file(options.output)
    audio = render_files(files, settings)
    write_wav(options.output, audio, settings.sample_rate, options.encoding)
    peak, clipped = _peak(audio, options.encoding)
    reporter.info(f"{options.output}: {interaural(audio, settings.sample_rate).words()}; peak {peak:.2f}")
    if clipped:
        reporter.warn(f"{clipped:,} samples were clipped; --encoding float keeps them")


def _peak(audio: np.ndarray, encoding: str) -> tuple[float, int]:
    """The largest magnitude, and how many samples an integer file cannot hold."""
    magnitude = np.abs(audio)
    return float(magnitude.max()), 0 if encoding == "float" else int(np.count_nonzero(magnitude > 1.0))


def _split(options: SpatializeOptions, dataset: Dataset, reporter: Reporter) -> None:
    scenes = list(dict.fromkeys(question.scene for question in dataset.questions(options.split)))
    if not scenes:
        raise InputError("no questions", dataset.questions_file(options.split))
    settings = _settings(options, dataset)
    works = [
        Work(position, scene, tuple(dataset.files_of(source) for source in scene))
        for position, scene in enumerate(scenes)
    ]
    size = len(scenes) * settings.length * 2 * {"float": 4, "pcm16": 2, "pcm24": 3}[options.encoding]
    reporter.info(f"{len(scenes):,} scenes of {settings.seconds:g} s, {size / 1e9:.2f} GB")
    if options.dry_run:
        _report_bad(_check_files(works), len(works), "the clips and BRIRs", options, reporter)
        return
    require_writable(options.output)
    with main_rank_lock(options.output):
        _render(options, dataset, scenes, works, settings, reporter)


def _render(
    options: SpatializeOptions,
    dataset: Dataset,
    scenes: Sequence[Scene],
    works: Sequence[Work],
    settings: RenderSettings,
    reporter: Reporter,
) -> None:
    """This process's share of the scenes; then, in the first, the list of all."""
    facts = {
        "split": options.split,
        "questions_sha256": sha256(dataset.questions_file(options.split)),
        "settings": asdict(settings),
        "encoding": options.encoding,
    }
    earlier = _earlier(options.output, facts)
    if len(earlier) == len(scenes):
        reporter.info(f"{options.output} is already complete")
        return
    (options.output / MANIFEST).unlink(missing_ok=True)  # from here on the folder is unfinished
    with ResumableShards(options.output / SCENES, content_key(**facts)) as parts:
        todo = _todo(share(works), parts, earlier, options.output)
        function = partial(_render_one, output=options.output, settings=settings, encoding=options.encoding)
        jobs = options.jobs or default_jobs()
        for work, record in zip(
            todo, reporter.track(run_jobs(function, todo, jobs), "rendering", len(todo)), strict=True
        ):
            parts.append(work.position, record)
        if rank_and_world()[0] != 0:
            return
        records = parts.gather(len(scenes))
    _finish(options, reporter, parts, records, facts)


def _check_files(works: Sequence[Work]) -> list[str]:
    """What is missing, one message for each scene that cannot be rendered."""
    bad = []
    for work in works:
        try:
            for path in (path for pair in work.files for path in pair):
                require_file(path)
        except InputError as error:
            bad.append(str(error))
    return bad


def _earlier(output: Path, facts: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Position → record of the scenes that a finished run left here: all, but for those that failed.

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
        if file and not _lost(record, output):
            found[position] = record
    return found


def _todo(
    works: Sequence[Work], parts: ResumableShards, earlier: dict[int, dict[str, Any]], output: Path
) -> list[Work]:
    """The scenes that are still to be rendered. What an earlier run finished is taken over into `parts`."""
    done, todo = parts.finished(), []
    for work in works:
        record = done.get(work.position)
        if record is None and work.position in earlier:
            record = earlier[work.position]
            parts.append(work.position, record)
        if record is None or _lost(record, output):
            todo.append(work)
    return todo


def _lost(record: dict[str, Any], output: Path) -> bool:
    return record["file"] is not None and not os.path.exists(output / record["file"])  # no error for a name too long


def _render_one(work: Work, output: Path, settings: RenderSettings, encoding: str) -> dict[str, Any]:
    """Render and write one scene; a bad sample becomes a record with its error."""
    name = f"{scene_id(work.scene)}.wav"
    record: dict[str, Any] = {
        "scene_id": scene_id(work.scene),
        "file": name,
        "sources": [source._asdict() for source in work.scene],
    }
    try:
        audio = render_files(work.files, settings)
        write_wav(output / name, audio, settings.sample_rate, encoding)
    except BatError as error:
        return {**record, "file": None, "error": {"kind": type(error).__name__, "message": str(error)}}
    peak, clipped = _peak(audio, encoding)
    return {**record, "seconds": settings.seconds, "peak": round(peak, 4), "clipped": clipped}


def _finish(
    options: SpatializeOptions,
    reporter: Reporter,
    parts: ResumableShards,
    records: list[dict[str, Any]],
    facts: dict[str, Any],
) -> None:
    bad = [record["error"]["message"] for record in records if record["file"] is None]
    clipped = sum(record.get("clipped", 0) > 0 for record in records)
    write_records(options.output / SCENES, records)
    write_json(options.output / MANIFEST, describe(**facts, seed=options.seed, scenes=len(records), bad=len(bad)))
    parts.remove()
    if clipped:
        reporter.warn(f"{clipped:,} scenes have clipped samples; --encoding float keeps them")
    _report_bad(bad, len(records), f"'error' in {options.output / SCENES}", options, reporter)


def _report_bad(bad: Sequence[str], count: int, where: str, options: SpatializeOptions, reporter: Reporter) -> None:
    for message in bad[:SHOWN]:
        reporter.warn(message)
    if len(bad) > options.max_bad:
        raise TooManyBad(f"{len(bad):,} of {count:,} scenes failed, more than --max-bad {options.max_bad}; see {where}")
