"""`bat prepare rooms`: simulated rooms as BRIRs and their metadata, in the published layout."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from batcli.audio import rooms as acoustics
from batcli.audio.hrtf import Hrtf, load_hrtf
from batcli.core.errors import InputError
from batcli.core.files import read_json, replacing, require_writable, write_json, writing
from batcli.core.geometry import Direction, Vector
from batcli.core.options import RoomsOptions
from batcli.core.progress import SILENT, Reporter
from batcli.core.work import default_jobs, rank_and_world, run_jobs, share, wait_for

SPLITS = ("train", "eval")
RECORD = "room.json"  # in a room's folder, written last: with it the room is complete


@dataclass(frozen=True)
class Settings:
    """What decides a room beside its number. Rooms of different settings are never mixed."""

    seed: int
    split: str
    sources: int
    hrtf: str
    channels: str
    rt60: tuple[float, float]
    size: Vector | None
    max_distance: float


@dataclass(frozen=True)
class Rooms:
    file: Path  # the metadata
    rooms: int
    brirs: int


def rooms(options: RoomsOptions, reporter: Reporter = SILENT) -> Rooms:
    """Make `options.rooms` rooms of `options.sources` BRIRs each, or the ones that are not there yet."""
    settings = _settings(options)
    root = options.reverb / settings.channels
    scenes = [scene_name(settings.split, number) for number in range(options.rooms)]
    file = options.reverb / f"{settings.split}_reverberation.json"
    done = Rooms(file, options.rooms, options.rooms * options.sources)
    _hrtf(settings)  # a fault in it shows before any work
    acoustics.draw_scene(*_draw_arguments(settings, 0))
    missing = [n for n in range(options.rooms) if not _exists(root / scenes[n] / RECORD, settings)]
    reporter.info(f"{options.rooms:,} rooms, {done.brirs:,} BRIRs; {options.rooms - len(missing):,} are there already")
    if options.dry_run:
        return done
    require_writable(root)
    work = run_jobs(partial(make_room, settings, root), share(missing), options.jobs or default_jobs(), chunk=2)
    for _ in reporter.track(work, "rooms", len(share(missing))):
        pass
    if rank_and_world()[0] == 0:
        wait_for([root / scene / RECORD for scene in scenes])
        _write_metadata(file, settings, root, scenes)
    else:
        wait_for([file])
    return done


def scene_name(split: str, number: int) -> str:
    """A room's folder; the split is in the name, so that no scene is in two splits."""
    return f"{split}-{number:05d}"


def make_room(settings: Settings, root: Path, number: int) -> int:
    """Simulate one room and write its files, the record last. Returns its number."""
    generator, *arguments = _draw_arguments(settings, number)
    room, listener, sources = acoustics.draw_scene(generator, *arguments)
    hrtf = _hrtf(settings)
    brirs = acoustics.simulate(room, listener, sources, hrtf, generator)
    folder = root / scene_name(settings.split, number)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for index, (brir, source) in enumerate(zip(brirs, sources, strict=True)):
        with replacing(folder / f"{index}.npy") as temporary, open(temporary, "wb") as out:
            np.save(out, brir.samples)
        entries.append(_entry(f"{folder.name}/{index}.npy", room, listener, source, hrtf, brir))
    write_json(folder / RECORD, {"settings": _plain(settings), "data": entries})
    return number


def _entry(
    name: str, room: acoustics.Room, listener: acoustics.Listener, source: Vector, hrtf: Hrtf, brir: acoustics.Brir
) -> dict[str, Any]:
    """One entry of the metadata. The listener's axes have their origin on the floor below the head."""
    ear = listener.position[1]
    return {
        "fname": name,
        "sensor_position": f"0,{ear:g},0",
        "source_position": f"{source[0]:.4f},{source[1] + ear:.4f},{source[2]:.4f}",
        "room_size": list(room.size),
        "listener_in_room": list(listener.position),
        "yaw": listener.yaw,
        "rt60": round(room.rt60, 3),
        "rt60_by_band": {
            str(band): round(float(t), 3) for band, t in zip(acoustics.BANDS, room.rt60_by_band, strict=True)
        },
        "drr": round(brir.drr, 2),
        "hrtf": hrtf.name,
    }


def _draw_arguments(
    settings: Settings, number: int
) -> tuple[np.random.Generator, list[Direction], tuple[float, float], Vector | None, float]:
    """What decides a room: chance from (seed, split, number), octants from its place in the sequence."""
    generator = np.random.default_rng([settings.seed, SPLITS.index(settings.split), number])
    first = number * settings.sources
    octants = [_octant(settings, n) for n in range(first, first + settings.sources)]
    return generator, octants, settings.rt60, settings.size, settings.max_distance


_OCTANTS = [Direction(s, d, h) for s in ("right", "left") for d in ("front", "behind") for h in ("above", "below")]


def _octant(settings: Settings, number: int) -> Direction:
    """Of the split's source `number`: every eight in a row have all eight octants, in an order by chance."""
    block, place = divmod(number, len(_OCTANTS))
    order = np.random.default_rng([settings.seed, SPLITS.index(settings.split), block, 8]).permutation(len(_OCTANTS))
    return _OCTANTS[order[place]]


def _settings(options: RoomsOptions) -> Settings:
    return Settings(
        options.seed,
        options.split,
        options.sources,
        options.hrtf if options.channels == "binaural" else "omni",
        options.channels,
        _range(options.rt60),
        _size(options.size) if options.size else None,
        options.max_distance,
    )


def _range(text: str) -> tuple[float, float]:
    try:
        values = [float(part) for part in text.split(":")]
        low, high = values if len(values) == 2 else (values[0], values[0]) if len(values) == 1 else (1.0, 0.0)
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 < low <= high < math.inf:
        raise InputError(f"not a reverberation time: {text!r:.60}", "--rt60", "seconds, such as 0.4 or 0.2:0.8")
    return low, high


def _size(text: str) -> Vector:
    try:
        width, length, height = (float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        raise InputError(f"not a room size: {text!r:.60}", "--size", "WIDTHxLENGTHxHEIGHT, such as 5x4x2.5") from None
    if not all(0 < side <= 100 for side in (width, length, height)):
        raise InputError(f"not a room size: {text!r:.60}", "--size", "each side above 0 and up to 100 m")
    return width, height, length


def _hrtf(settings: Settings) -> Hrtf:
    return load_hrtf(settings.hrtf)


def _plain(settings: Settings) -> dict[str, Any]:
    """As JSON gives it back: lists, not tuples."""
    return json.loads(json.dumps(settings.__dict__))


def _exists(record: Path, settings: Settings) -> bool:
    """Whether a room is complete. Raises InputError when it is one of other settings."""
    if not record.exists():
        return False
    found = read_json(record).get("settings", {})
    for key, value in _plain(settings).items():
        if found.get(key) != value:
            raise InputError(
                f"this room was made with {key} {found.get(key)}, not {value}", record, "choose another folder"
            )
    return True


def _write_metadata(file: Path, settings: Settings, root: Path, scenes: list[str]) -> None:
    """One room at a time: memory does not grow with their number."""

    def entries() -> Iterator[str]:
        for scene in scenes:
            for entry in read_json(root / scene / RECORD)["data"]:
                yield json.dumps(entry)

    with writing(file) as out:
        out.write(f'{{"settings": {json.dumps(_plain(settings))},\n"data": [\n')
        for number, entry in enumerate(entries()):
            out.write((",\n" if number else "") + entry)
        out.write("\n]}\n")
