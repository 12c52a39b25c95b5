"""`bat prepare brirs`: bring measured rooms into the published layout, or export a split's rooms as SOFA."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from batcli.audio.hrtf import HEAD_RADIUS
from batcli.audio.io import read_brir, write_brir
from batcli.audio.measured import MeasuredBrir, MeasuredRoom, Row, read_room_files, read_room_sofa, to_brirs
from batcli.core.errors import InputError
from batcli.core.files import exclusive_lock, require_directory, require_file, require_writable, write_json, writing
from batcli.core.progress import SILENT, Reporter
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import require_split_name
from batcli.data.metadata import Reverb, read_reverbs
from batcli.data.recordings import READABLE, Files, read_rows, slug
from batcli.options import BrirsOptions, refuse_given

OF_TABLE = ["azimuths", "file", "room", "azimuth", "elevation", "distance"]
NO_DATE = "1970-01-01 00:00:00"  # of an exported file: the same rooms give the same bytes


def brirs(options: BrirsOptions, reporter: Reporter = SILENT) -> Path:
    """Make `binaural/ROOM/N.npy` and the metadata of a split from SOFA files or a table; return the metadata file.

    With `--export`, write a split's rooms as SOFA files there instead, and return that folder. Raises InputError for
    files that cannot be used, in which left and right cannot be told, and for rooms of another split.
    """
    file = options.reverb / f"{require_split_name(options.split)}_reverberation.json"
    if options.export is not None:
        if options.source or options.table:
            raise InputError("sources and an export", "--export", "import first, then export")
        refuse_given(options, [*OF_TABLE, "follow_links", "level", "longest"], "has no effect with --export")
        return _export(options, file, reporter)
    rooms = _rooms(options)
    names = _names(rooms, options.reverb, options.split)
    if file.exists():
        raise InputError("is there already", file, "choose another --split or folder")
    made = [to_brirs(room, options.level, options.longest) for room in reporter.track(rooms, "rooms")]
    for room, (found, notes) in zip(rooms, made, strict=True):
        for note in notes:
            reporter.warn(f"{room.name}: {note}")
        _describe(room, found, reporter)
    if options.dry_run:
        return file
    with exclusive_lock(require_writable(options.reverb)):
        data = []
        for name, room, (found, notes) in zip(names, rooms, made, strict=True):
            for number, (place, brir) in enumerate(zip(room.places, found, strict=True)):
                write_brir(options.reverb / "binaural" / name / f"{number}.npy", brir.samples)
                data.append(_entry(f"{name}/{number}.npy", place.file, room, brir, notes))
        write_json(file, {"data": data})
    reporter.info(f"{len(rooms):,} rooms, {len(data):,} BRIRs: {file}")
    return file


def _rooms(options: BrirsOptions) -> list[MeasuredRoom]:
    """The rooms of the sources. Raises InputError for options that only a table, or only SOFA files, have."""
    if not options.source:
        raise InputError("missing", "SOURCE", "SOFA files, or the folder of --table's files")
    if options.table is None:
        refuse_given(options, OF_TABLE, "is said by SOFA files themselves")
        refuse_given(options, ["follow_links"], "has no effect without --table")
        sounds = [path for path in options.source if path.is_dir() or path.suffix.lower() in READABLE]
        if sounds:
            raise InputError("no SOFA file", sounds[0], "sound files go in with --table, which says where sources are")
        return [room for path in options.source for room in read_room_sofa(require_file(path))]
    if options.azimuths is None:
        hint = "left: 0 is front and +90 left; right: +90 is right; bat: 0 is right and 90 front"
        raise InputError("missing", "--azimuths", hint)
    if len(options.source) > 1:
        raise InputError("a table and more than one source", "--table", "give the folder that its paths start from")
    return read_room_files(_read_table(options, options.table), options.azimuths)


def _read_table(options: BrirsOptions, table: Path) -> list[Row]:
    """The rows of a table of places; an option that is a number stands for a column of this number."""
    columns = (options.azimuth, options.elevation, options.distance)
    needed = [options.file, options.room, *(name for name in columns if not _is_number(name))]
    files, rows = Files(options.source[0], options.follow_links), []
    for where, row in read_rows(table, needed):
        path = files.by_path(row[options.file].strip())
        if path is None:
            raise InputError(f"{row[options.file]!r:.80} does not lie below {options.source[0]}", where)
        try:
            azimuth, elevation, distance = (float(name if _is_number(name) else row[name]) for name in columns)
        except ValueError as error:
            raise InputError(f"not a number: {error}", where) from None
        room = row[options.room].strip() if options.room else table.stem
        rows.append(Row(where, path, room, azimuth, elevation, distance))
    if not rows:
        raise InputError("no rows", table)
    return rows


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _names(rooms: Sequence[MeasuredRoom], reverb: Path, split: str) -> list[str]:
    """The folder of each room. Raises InputError when two share one, or another split has a room of that name."""
    names = [slug(room.name) for room in rooms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two rooms are named {twice[0]!r:.60}", reverb, "name them apart")
    for other in sorted(reverb.glob("*_reverberation.json")):
        taken = {brir.scene for brir in read_reverbs(other).values()} if other.stem != f"{split}_reverberation" else ()
        if shared := sorted(set(names) & set(taken)):
            raise InputError(f"has room {shared[0]!r:.60} already", other, "no room may be in two splits")
    return names


def _describe(room: MeasuredRoom, found: Sequence[MeasuredBrir], reporter: Reporter) -> None:
    """Show a line on a room: its places, reverberation, and gains."""
    times = [brir.rt60 for brir in found if brir.rt60 is not None]
    decay = f"RT60 {np.median(times):.2f} s" if times else "RT60 hidden by noise"
    gains = [brir.gain_db for brir in found]
    metres = [math.hypot(*brir.source) for brir in found]
    reporter.info(
        f"{room.name:.30}: {len(found)} BRIRs, {min(metres):.1f} to {max(metres):.1f} m, {decay}, "
        f"gain {min(gains):+.1f} to {max(gains):+.1f} dB"
    )


def _entry(name: str, file: str, room: MeasuredRoom, brir: MeasuredBrir, notes: Sequence[str]) -> dict[str, Any]:
    """The metadata of a BRIR."""
    return {
        "fname": name,
        "sensor_position": "0,0,0",
        "source_position": ",".join(f"{part + 0.0:.4f}" for part in brir.source),
        **({"rt60": round(brir.rt60, 3)} if brir.rt60 is not None else {}),
        "drr": round(brir.drr, 2),
        "measured": {
            "file": file,
            "rate": room.rate,
            "gain_db": round(brir.gain_db, 2),
            "shift": brir.shift,
            "corrections": list(notes),
        },
    }


# ---- export --------------------------------------------------------------------------------------


def _export(options: BrirsOptions, file: Path, reporter: Reporter) -> Path:
    """Write each room of a split as `EXPORT/ROOM.sofa`."""
    assert options.export is not None
    require_directory(options.reverb)
    rooms: dict[str, list[Reverb]] = {}
    for reverb in read_reverbs(file).values():
        rooms.setdefault(reverb.scene, []).append(reverb)
    if options.dry_run:
        reporter.info(f"{len(rooms):,} rooms")
        return options.export
    require_writable(options.export)
    for name, members in reporter.track(rooms.items(), "rooms", len(rooms)):
        irs = [read_brir(options.reverb / "binaural" / member.reverb_id) for member in members]
        write_room_sofa(options.export / f"{name.replace('/', '-')}.sofa", name, members, irs)
    reporter.info(f"{len(rooms):,} rooms: {options.export}")
    return options.export


def write_room_sofa(path: Path, name: str, members: Sequence[Reverb], irs: Sequence[np.ndarray]) -> None:
    """Write the BRIRs of a room as SOFA, SingleRoomSRIR 1.0; shorter ones end in zeros. Needs the extra `sofa`."""
    try:
        import sofar
    except ModuleNotFoundError:
        raise InputError("writing SOFA needs the extra 'sofa'", path, "pip install 'batcli[sofa]'") from None
    longest = max(samples.shape[1] for samples in irs)
    room = sofar.Sofa("SingleRoomSRIR", mandatory=True)
    room.Data_IR = np.stack([np.pad(samples, ((0, 0), (0, longest - samples.shape[1]))) for samples in irs])
    room.Data_SamplingRate = SAMPLE_RATE
    room.Data_Delay = np.zeros((len(irs), 2))
    each = np.ones((len(irs), 1))  # the convention has a row of every position for each measurement
    room.ListenerPosition, room.ListenerView, room.ListenerUp = each * [0, 0, 0], each * [1, 0, 0], each * [0, 0, 1]
    room.ReceiverPosition, room.ReceiverPosition_Type = [[0, HEAD_RADIUS, 0], [0, -HEAD_RADIUS, 0]], "cartesian"
    room.ReceiverPosition_Units = room.SourcePosition_Units = "metre"
    places = np.array([(-member.source[2], -member.source[0], member.source[1]) for member in members])
    room.SourcePosition, room.SourcePosition_Type = places, "cartesian"
    towards = -places / np.linalg.norm(places, axis=-1, keepdims=True)
    room.SourceView, room.SourceUp = towards, each * [0, 0, 1]
    room.GLOBAL_Title = f"Room {name}"
    room.GLOBAL_DatabaseName, room.GLOBAL_RoomType = "bat", "reverberant"
    room.add_attribute("GLOBAL_RoomDescription", name)
    room.GLOBAL_DateCreated = room.GLOBAL_DateModified = NO_DATE
    with tempfile.TemporaryDirectory() as folder, writing(path, "wb") as file:
        sofar.write_sofa(f"{folder}/room.sofa", room)  # HDF5 opens no file that is locked, as `path` is while it grows
        file.write(Path(folder, "room.sofa").read_bytes())
