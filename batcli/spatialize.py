"""`bat spatialize`: clips and BRIRs in, binaural scenes out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from batcli.audio.cues import interaural
from batcli.audio.io import write_wav
from batcli.audio.render import Settings, render_files
from batcli.core.dataset import Dataset, open_dataset
from batcli.core.errors import BatError, InputError, TooManyBad
from batcli.core.files import read_json, require_file, require_writable, write_json
from batcli.core.jsonl import write_records
from batcli.core.manifest import describe
from batcli.core.options import SpatializeOptions
from batcli.core.parts import Parts, key_of
from batcli.core.progress import SILENT, Reporter
from batcli.core.schema import Scene
from batcli.core.work import default_jobs, rank_and_world, run_jobs, share

SCENES = "scenes.jsonl"
MANIFEST = "manifest.json"


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
    if (options.data is None) == (options.audio is None):
        raise InputError("give either DATA or --audio and --reverb", hint="see `bat spatialize --help`")
    if options.data is None:
        _one_scene(options, reporter)
    else:
        _split(options, open_dataset(options.data), reporter)


def _settings(options: SpatializeOptions, dataset: Dataset | None = None) -> Settings:
    seconds = options.seconds or (dataset.seconds if dataset else Settings.seconds)
    return Settings(seconds, options.sample_rate, options.rms_dbfs, options.resampler)


def _one_scene(options: SpatializeOptions, reporter: Reporter) -> None:
    pairs = [(options.audio, options.reverb), (options.audio2, options.reverb2)]
    files = [(clip, brir) for clip, brir in pairs if clip is not None and brir is not None]
    if len(files) != sum(clip is not None or brir is not None for clip, brir in pairs):
        raise InputError(
            "a clip without a BRIR, or a BRIR without a clip", hint="give --audio with --reverb, and so on"
        )
    require_writable(options.output.parent)
    settings = _settings(options)
    if options.dry_run:
        for path in (path for pair in files for path in pair):
            require_file(path)
        reporter.info(f"1 scene of {settings.seconds:g} s from {len(files)} sources")
        return
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
    size = len(scenes) * settings.length * 2 * {"float": 4, "pcm16": 2, "pcm24": 3}[options.encoding]
    require_writable(options.output)
    reporter.info(f"{len(scenes):,} scenes of {settings.seconds:g} s, {size / 1e9:.2f} GB")
    if options.dry_run:
        return
    facts = {
        "split": options.split,
        "questions_sha256": dataset.split(options.split).sha256,
        "settings": asdict(settings),
        "encoding": options.encoding,
    }
    manifest = options.output / MANIFEST
    if manifest.exists() and _same_facts(manifest, facts):
        reporter.info(f"{options.output} is already complete")
        return
    manifest.unlink(missing_ok=True)  # from here on the folder is unfinished
    with Parts(options.output / SCENES, key_of(**facts)) as parts:
        done = parts.finished()
        todo = [
            work
            for work in share(list(_works(dataset, scenes)))
            if work.position not in done or not _whole(options.output, done[work.position])
        ]
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


def _same_facts(manifest: Path, facts: dict[str, Any]) -> bool:
    content = read_json(manifest)
    return isinstance(content, dict) and all(content.get(name) == value for name, value in facts.items())


def _whole(output: Path, record: dict[str, Any]) -> bool:
    return record["file"] is None or (output / record["file"]).exists()


def _works(dataset: Dataset, scenes: Sequence[Scene]):
    for position, scene in enumerate(scenes):
        yield Work(position, scene, tuple(dataset.files_of(source) for source in scene))


def _render_one(work: Work, output: Path, settings: Settings, encoding: str) -> dict[str, Any]:
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
    parts: Parts,
    records: list[dict[str, Any]],
    facts: dict[str, Any],
) -> None:
    bad = [record for record in records if record["file"] is None]
    clipped = sum(record.get("clipped", 0) > 0 for record in records)
    write_records(options.output / SCENES, records)
    write_json(options.output / MANIFEST, describe(**facts, seed=options.seed, scenes=len(records), bad=len(bad)))
    parts.remove()
    for record in bad[:10]:
        reporter.warn(record["error"]["message"])
    if clipped:
        reporter.warn(f"{clipped:,} scenes have clipped samples; --encoding float keeps them")
    if len(bad) > options.max_bad:
        raise TooManyBad(f"{len(bad):,} of {len(records):,} scenes failed; see 'error' in {options.output / SCENES}")
