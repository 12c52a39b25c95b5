"""`bat prepare rooms`: simulate rooms, as BRIRs and metadata in the published layout.

Each room has a folder with a record, which is written last: a stopped run goes on with the rooms that
have none. The metadata is put together from the records. A room follows from the settings and its
number alone, so nothing depends on the number of processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from batcli.audio.hrtf import HEADS, Hrtf, load_hrtf, omni
from batcli.audio.io import write_brir
from batcli.audio.rooms import BANDS, Brir, ListenerPose, Room, draw_scene, simulate
from batcli.core.errors import InputError
from batcli.core.files import read_json, require_writable, require_writable_file, sha256, write_json, writing
from batcli.core.parallel import default_jobs, main_rank_lock, rank_and_world, run_jobs, share, wait_for
from batcli.core.progress import SILENT, Reporter
from batcli.data.geometry import Direction, Vector
from batcli.options import RoomsOptions, refuse_given

SPLITS: tuple[Literal["train", "eval", "dev"], ...] = ("train", "eval", "dev")
RECORD = "room.json"
RECIPE = 1  # to be raised when the same settings give other rooms
OCTANTS = tuple(Direction(s, d, h) for s in ("right", "left") for d in ("front", "behind") for h in ("above", "below"))


@dataclass(frozen=True)
class RoomSettings:
    """All that, with its number, determines a room. Rooms of different settings are never mixed."""

    recipe: int
    seed: int
    split: str
    sources: int
    channels: str
    hrtf: str  # one head or several; of a SOFA file its name, its hash, and its corrections
    rt60: tuple[float, float]  # seconds
    size: Vector | None  # width, height, length in metres
    max_distance: float
    spread: Literal["near", "even"]


def rooms(options: RoomsOptions, reporter: Reporter = SILENT) -> Path:
    """Make the rooms that are not there yet, then the metadata of all; return the metadata file.

    Raises InputError when the folder holds rooms of other settings, or more rooms than asked for.
    """
    heads = _heads(options)
    for name, hrtf in heads.items():
        for warning in hrtf.warnings:
            reporter.warn(f"{name}: {warning}")
    settings, count = _settings(options, heads), options.rooms
    root, file = options.reverb / settings.channels, options.reverb / f"{settings.split}_reverberation.json"
    _draw(settings, 0)  # raises for settings that no room can meet, before any work
    missing = _missing(root, settings, count)
    if options.plot:
        from batcli.audio.plot import plot_room, require_format  # raises without matplotlib

        require_format(options.plot)
    header = {"rooms": count, "settings": _plain(settings)}
    keep = _keep_metadata(file, header)
    reporter.info(f"{count:,} rooms, {count * options.sources:,} BRIRs, {count - len(missing):,} rooms there already")
    if options.dry_run:
        return file

    if options.plot:
        require_writable_file(options.plot)
    require_writable(root)
    with main_rank_lock(file):
        mine = [number for number in share(range(count)) if number in missing]
        work = run_jobs(partial(make_room, settings, root, tuple(heads)), mine, options.jobs or default_jobs(), chunk=2)
        for _ in reporter.track(work, f"{settings.split} rooms", len(mine)):
            pass
        if rank_and_world()[0] != 0:
            return file
        wait_for([root / scene_name(settings.split, number) / RECORD for number in sorted(missing)])
        if not keep:
            _write_metadata(file, header, root)
        if options.plot:
            plot_room(options.plot, root, read_json(root / scene_name(settings.split, 0) / RECORD)["data"])
    return file


def scene_name(split: str, number: int) -> str:
    """The folder of a room; the split is in its name, so that no room is in two splits."""
    return f"{split}-{number:05d}"


# ---- settings ------------------------------------------------------------------------------------


def _heads(options: RoomsOptions) -> dict[str, Hrtf]:
    """Name or path → head. Raises InputError for one that is named twice or has no effect, and as `load_hrtf`."""
    if options.channels == "mono":
        refuse_given(options, ["hrtf"], "has no effect on one point without a head")
        return {"omni": omni()}
    names = [name.strip() for name in options.hrtf.split(",")]
    if len(set(names)) < len(names) or not all(names):
        raise InputError(f"a head twice, or none: {options.hrtf!r:.120}", "--hrtf", "such as kemar,mine.sofa")
    return {name: load_hrtf(name) for name in names}


def _recorded(name: str, hrtf: Hrtf) -> str:
    """A head as settings and metadata name it: of a file its name, its hash, and its corrections."""
    if name in (*HEADS, "omni"):
        return hrtf.name
    # With its corrections, so that rooms of a file that an earlier version read otherwise are not mixed in.
    return "; ".join([f"{hrtf.name} {sha256(Path(name))}", *hrtf.corrections])


def _settings(options: RoomsOptions, heads: Mapping[str, Hrtf]) -> RoomSettings:
    head = ", ".join(_recorded(name, hrtf) for name, hrtf in heads.items())
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
    """(lowest, highest) RT60 in seconds, from `0.4` or `0.2:0.8`."""
    try:
        values = [float(part) for part in text.split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not 0 < values[0] <= values[-1] < math.inf:
        raise InputError(f"not a reverberation time: {text!r:.60}", "--rt60", "seconds, such as 0.4 or 0.2:0.8")
    return values[0], values[-1]


def _size(text: str) -> Vector:
    """`WIDTHxLENGTHxHEIGHT` → (width, height, length) in metres, the order of the axes."""
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
    """The settings as they are read back from JSON: lists, not tuples."""
    return json.loads(json.dumps(asdict(settings)))


# ---- one room ------------------------------------------------------------------------------------


def make_room(settings: RoomSettings, root: Path, heads: Sequence[str], number: int) -> None:
    """Simulate one room with one of the heads, in turn, and write its files, the record last."""
    name = heads[number % len(heads)]
    hrtf = omni() if settings.channels == "mono" else load_hrtf(name)
    rng, room, listener, sources = _draw(settings, number)
    brirs = simulate(room, listener, sources, hrtf, rng)
    folder = root / scene_name(settings.split, number)
    entries = []
    for index, (source, brir) in enumerate(zip(sources, brirs, strict=True)):
        write_brir(folder / f"{index}.npy", brir.samples)
        entries.append(_entry(f"{folder.name}/{index}.npy", room, listener, source, brir, _recorded(name, hrtf)))
    write_json(folder / RECORD, {"settings": _plain(settings), "data": entries})


def _draw(settings: RoomSettings, number: int) -> tuple[np.random.Generator, Room, ListenerPose, list[Vector]]:
    """Draw room `number` from (seed, split, number): (generator for its BRIRs, room, listener, sources).

    Every eight sources in a row lie in all eight octants, in a random order, so that left and right,
    front and behind, above and below are as common.
    """
    seed = [settings.seed, SPLITS.index(settings.split)]
    rng = np.random.default_rng([*seed, number])
    octants = []
    for source in range(number * settings.sources, (number + 1) * settings.sources):
        deal, place = divmod(source, len(OCTANTS))
        octants.append(OCTANTS[np.random.default_rng([*seed, deal, 8]).permutation(len(OCTANTS))[place]])
    return rng, *draw_scene(rng, octants, settings.rt60, settings.size, settings.max_distance, settings.spread)


def _entry(name: str, room: Room, listener: ListenerPose, source: Vector, brir: Brir, hrtf: str) -> dict[str, Any]:
    """The metadata of a BRIR. Its positions have their origin on the floor below the head."""
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


# ---- records and metadata -------------------------------------------------------------


def _missing(root: Path, settings: RoomSettings, count: int) -> set[int]:
    """The numbers of the rooms without a record. Raises InputError for rooms that do not belong to this run."""
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
    """The first line of a metadata file, without its data; None if this command did not write the file."""
    if not file.exists():
        return None
    with open(file, encoding="utf-8") as lines:
        try:
            header = json.loads(lines.readline(1 << 16).rstrip(",\n") + "}")
        except (ValueError, RecursionError):
            return None
    return header if isinstance(header, dict) and isinstance(header.get("settings"), dict) else None


def _keep_metadata(file: Path, header: dict[str, Any]) -> bool:
    """Whether the metadata file stays: mono rooms beside the same binaural ones share it.

    Raises InputError for metadata of other rooms, which must not be overwritten.
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
    """Write the metadata of all rooms, one at a time, so that memory does not grow with their number."""
    with writing(file) as out:
        out.write(json.dumps(header)[:-1] + ",\n")
        separator = '"data": [\n'
        for number in range(header["rooms"]):
            for entry in read_json(root / scene_name(header["settings"]["split"], number) / RECORD)["data"]:
                out.write(separator + json.dumps(entry))
                separator = ",\n"
        out.write("\n]}\n")
