"""`bat prepare rooms`: simulated rooms as BRIRs and their metadata, in the published layout.

Each room has a folder, and in it, written last, a record: a room with a record is complete, and a
run that was stopped goes on with those that have none. The metadata is put together from the
records. A room is decided by the settings and its number alone, so nothing depends on how many
processes share the work.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from batcli.audio.hrtf import HEADS, Hrtf, load_hrtf, omni
from batcli.audio.io import write_brir
from batcli.audio.rooms import BANDS, Brir, ListenerPose, Room, draw_scene, simulate
from batcli.core.errors import InputError
from batcli.core.files import read_json, require_writable, sha256, write_json, writing
from batcli.core.parallel import default_jobs, main_rank_lock, rank_and_world, run_jobs, share, wait_for
from batcli.core.progress import SILENT, Reporter
from batcli.data.geometry import Direction, Vector
from batcli.options import RoomsOptions

SPLITS = ("train", "eval")
RECORD = "room.json"
RECIPE = 1  # raised whenever the same settings give other rooms
OCTANTS = tuple(Direction(s, d, h) for s in ("right", "left") for d in ("front", "behind") for h in ("above", "below"))


@dataclass(frozen=True)
class RoomSettings:
    """Settings that, with its number, determine a room. Rooms of different settings are never mixed."""

    recipe: int
    seed: int
    split: str
    sources: int
    channels: str
    hrtf: str  # of a SOFA file its name, its hash, and how it was read other than it says
    rt60: tuple[float, float]  # seconds
    size: Vector | None  # width, height, length in metres
    max_distance: float
    spread: Literal["near", "even"]


@dataclass(frozen=True)
class MadeRoom:
    """What is there now."""

    file: Path  # the metadata
    rooms: int
    brirs: int


def rooms(options: RoomsOptions, reporter: Reporter = SILENT) -> MadeRoom:
    """Make the rooms that are not there yet, then the metadata of all.

    Raises InputError when the folder holds rooms of other settings, or more rooms than asked for.
    """
    hrtf = _head(options)
    for warning in hrtf.warnings:
        reporter.warn(f"{options.hrtf}: {warning}")
    settings = _settings(options, hrtf)
    root, file = options.reverb / settings.channels, options.reverb / f"{settings.split}_reverberation.json"
    made = MadeRoom(file, options.rooms, options.rooms * options.sources)
    _draw(settings, 0)  # settings that no room can meet show before any work
    missing = _missing(root, settings, options.rooms)
    if options.plot:
        from batcli.audio import plot  # without matplotlib this fails: before the work, not after it

        plot.require_format(options.plot)
    header = {"rooms": options.rooms, "settings": _plain(settings)}
    keep = _keep_metadata(file, header)
    reporter.info(f"{made.rooms:,} rooms, {made.brirs:,} BRIRs, {options.rooms - len(missing):,} rooms there already")
    if options.dry_run:
        return made

    require_writable(root)
    with main_rank_lock(file):
        _make(options, settings, root, missing, made, header, keep, reporter)
    return made


def _make(
    options: RoomsOptions,
    settings: RoomSettings,
    root: Path,
    missing: set[int],
    made: MadeRoom,
    header: dict[str, Any],
    keep: bool,
    reporter: Reporter,
) -> None:
    """This process's share of the rooms; then, in the first, the metadata of all."""
    file = made.file
    mine = [number for number in share(range(options.rooms)) if number in missing]
    work = run_jobs(partial(make_room, settings, root, options.hrtf), mine, options.jobs or default_jobs(), chunk=2)
    for _ in reporter.track(work, f"{settings.split} rooms", len(mine)):
        pass
    wait_for([root / scene_name(settings.split, number) / RECORD for number in sorted(missing)])
    if rank_and_world()[0] == 0:
        if not keep:
            _write_metadata(file, header, root)
        if options.plot:
            from batcli.audio import plot

            plot.plot_room(options.plot, root, read_json(root / scene_name(settings.split, 0) / RECORD)["data"])
    else:
        while not keep and _header(file) != header:
            time.sleep(0.05)


def scene_name(split: str, number: int) -> str:
    """A room's folder: with the split in it, so that no scene is in two splits."""
    return f"{split}-{number:05d}"


# ---- settings ------------------------------------------------------------------------------------


def _head(options: RoomsOptions) -> Hrtf:
    return omni() if options.channels == "mono" else load_hrtf(options.hrtf)


def _settings(options: RoomsOptions, hrtf: Hrtf) -> RoomSettings:
    head = hrtf.name
    if options.channels == "binaural" and options.hrtf not in HEADS:
        # With its corrections: rooms of a head that an earlier version read otherwise are not mixed with these.
        head = "; ".join([f"{hrtf.name} {sha256(Path(options.hrtf))}", *hrtf.corrections])
    return RoomSettings(
        RECIPE,
        options.seed,
        options.split,
        options.sources,
        options.channels,
        head,
        _range(options.rt60),
        _size(options.size) if options.size else None,
        options.max_distance,
        options.spread,
    )


def _range(text: str) -> tuple[float, float]:
    """`0.4` or `0.2:0.8`, in seconds."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not 0 < values[0] <= values[-1] < math.inf:
        raise InputError(f"not a reverberation time: {text!r:.60}", "--rt60", "seconds, such as 0.4 or 0.2:0.8")
    return values[0], values[-1]


def _size(text: str) -> Vector:
    """`WIDTHxLENGTHxHEIGHT` as people say it → width, height, length as the axes run."""
    try:
        width, length, height = (float(part) for part in text.lower().replace("×", "x").split("x"))
    except ValueError:
        width = length = height = math.nan
    if not all(0 < side <= 100 for side in (width, length, height)):
        raise InputError(
            f"not a room size: {text!r:.60}", "--size", "WIDTHxLENGTHxHEIGHT in metres up to 100, such as 5x4x2.5"
        )
    return width, height, length


def _plain(settings: RoomSettings) -> dict[str, Any]:
    """As JSON gives it back: lists, not tuples."""
    return json.loads(json.dumps(asdict(settings)))


# ---- one room ------------------------------------------------------------------------------------


def make_room(settings: RoomSettings, root: Path, hrtf_name: str, number: int) -> None:
    """Simulate one room and write its files, the record last."""
    hrtf = omni() if settings.channels == "mono" else load_hrtf(hrtf_name)
    rng, room, listener, sources = _draw(settings, number)
    brirs = simulate(room, listener, sources, hrtf, rng)
    folder = root / scene_name(settings.split, number)
    entries = []
    for index, (source, brir) in enumerate(zip(sources, brirs, strict=True)):
        write_brir(folder / f"{index}.npy", brir.samples)
        entries.append(_entry(f"{folder.name}/{index}.npy", room, listener, source, brir, settings.hrtf))
    write_json(folder / RECORD, {"settings": _plain(settings), "data": entries})


def _draw(settings: RoomSettings, number: int) -> tuple[np.random.Generator, Room, ListenerPose, list[Vector]]:
    """Room `number`: all its chance is from (seed, split, number).

    Octants are dealt out over the rooms: every eight sources in a row have all eight, in an order
    by chance, so left and right, front and behind, above and below are even.
    """
    seed = [settings.seed, SPLITS.index(settings.split)]
    rng = np.random.default_rng([*seed, number])
    octants = []
    for source in range(number * settings.sources, (number + 1) * settings.sources):
        deal, place = divmod(source, len(OCTANTS))
        octants.append(OCTANTS[np.random.default_rng([*seed, deal, 8]).permutation(len(OCTANTS))[place]])
    return rng, *draw_scene(rng, octants, settings.rt60, settings.size, settings.max_distance, settings.spread)


def _entry(name: str, room: Room, listener: ListenerPose, source: Vector, brir: Brir, hrtf: str) -> dict[str, Any]:
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
        "rt60_by_band": {str(band): round(float(t), 3) for band, t in zip(BANDS, room.rt60_by_band, strict=True)},
        "mixing_time": round(room.mixing_time, 4),
        "drr": round(brir.drr, 2),
        "hrtf": hrtf,
    }


# ---- what is there, and the metadata -------------------------------------------------------------


def _missing(root: Path, settings: RoomSettings, count: int) -> set[int]:
    """Numbers of the rooms to make. Raises InputError for rooms that do not belong to this run."""
    missing = set()
    for number in range(count):
        record = root / scene_name(settings.split, number) / RECORD
        if not record.exists():
            missing.add(number)
            continue
        content = read_json(record)
        found = content.get("settings") if isinstance(content, dict) else None
        if not isinstance(found, dict) or not isinstance(content.get("data"), list):
            raise InputError("no record of a room", record, "delete its folder; it is made again")
        for key, value in _plain(settings).items():
            if found.get(key) != value:
                raise InputError(
                    f"made with {key} {found.get(key)}, not {value}", record.parent, "choose another folder"
                )
    extra = [path.parent.name for path in root.glob(f"{settings.split}-*/{RECORD}")]
    extra = sorted(set(extra) - {scene_name(settings.split, number) for number in range(count)})
    if extra:
        raise InputError(
            f"holds {extra[-1]} beyond the {count} rooms asked for", root, "ask for more rooms or choose another folder"
        )
    return missing


def _header(file: Path) -> dict[str, Any] | None:
    """The first line of the metadata without its data; None if this command did not write it."""
    if not file.exists():
        return None
    with open(file, encoding="utf-8") as lines:
        try:
            header = json.loads(lines.readline(1 << 16).rstrip(",\n") + "}")
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) and isinstance(header.get("settings"), dict) else None


def _keep_metadata(file: Path, header: dict[str, Any]) -> bool:
    """Whether the metadata stays as it is: mono rooms made beside the same binaural ones share it.

    Raises InputError when it is another's, which must not be overwritten.
    """
    if not file.exists():
        return False
    found = _header(file)
    if found is None:
        raise InputError("not written by this command", file, "choose another folder")
    if found == header:
        return False

    def places(settings: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in settings.items() if key not in ("channels", "hrtf")}

    if places(found["settings"]) != places(header["settings"]):
        raise InputError("made with other settings", file, "choose another folder")
    if found["settings"]["channels"] == "binaural" and header["settings"]["channels"] == "mono":
        if found["rooms"] != header["rooms"]:
            raise InputError(f"lists {found['rooms']} rooms", file, "make as many mono rooms as binaural ones")
        return True
    return False


def _write_metadata(file: Path, header: dict[str, Any], root: Path) -> None:
    """One room at a time: memory does not grow with their number."""
    with writing(file) as out:
        out.write(json.dumps(header)[:-1] + ",\n")
        separator = '"data": [\n'
        for number in range(header["rooms"]):
            for entry in read_json(root / scene_name(header["settings"]["split"], number) / RECORD)["data"]:
                out.write(separator + json.dumps(entry))
                separator = ",\n"
        out.write("\n]}\n")
