"""How long the containers of sound say that they are, against what is there.

libsndfile reads a file that was cut short to where it ends, without an error, and nothing at all of a WAV whose
sizes were never filled in. `open_sound` refuses the first, and fills in the second.

Sources: Microsoft and IBM, Multimedia Programming Interface 1.0 (RIFF); EBU Tech 3306 (RF64); Sony, Wave64; Apple,
AIFF 1.3, AIFF-C and Core Audio Format; Sun, audio(4); RFC 3533 (Ogg); the Xing and VBRI headers of MP3 as LAME and
Fraunhofer write them.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple

from batcli.core.errors import InputError

STREAM_SIZES = (2_000_000_000, 0x7F000000, 0x80000000, 1 << 32)
"""What programs write for a length that they do not know, give or take NEAR: 2,000,000,000 (speech synthesis),
0x7F000000 and 0x7FFFF000 (sox), 0x7FFFFFFF and 0x80000000 (arecord), 0xFFFFFFFF (ffmpeg). Zero is one, too."""
NEAR = 1 << 16  # bytes: some add their headers, or round to whole samples
ENDLESS = 1 << 62  # from here on, a size of 64 bits is none
MOST_CHUNKS = 10_000  # before the samples
BLOCK = 1 << 20  # bytes read at a time
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # that players append to any file
COMMON = (b"LIST", b"JUNK", b"bext", b"iXML", b"_PMX", b"cue ", b"smpl", b"id3 ", b"fact", b"PEAK")
"""Chunks that stand after samples, and are known as such even if they are cut."""
OGG_PAGE = 65_307  # bytes of the longest page
OGG_STREAM = slice(14, 18)  # the stream's number, in a page
OGG_LAST = 4  # flag of the last page of a stream
ID3V1 = 128  # bytes at the end of an MP3 that some writers count as sound
W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")  # 'data' as a GUID


class Chunks(NamedTuple):
    """How a container writes the head of a chunk: its name, then its size."""

    name: int  # bytes of the name
    size: struct.Struct
    padded_to: int  # bytes; the size does not count what is added
    counts_head: bool = False  # whether the size does count the head

    @property
    def head(self) -> int:
        return self.name + self.size.size

    def parse(self, head: bytes) -> tuple[bytes, int]:
        """A whole head → (name, bytes of the content)."""
        (size,) = self.size.unpack(head[self.name :])
        return head[: self.name], max(0, size - self.head) if self.counts_head else size

    def pack(self, size: int) -> bytes:
        """A size as it stands in a head, or the largest."""
        return self.size.pack(min(size, (1 << 8 * self.size.size) - 1))


LITTLE, BIG = Chunks(4, struct.Struct("<I"), 2), Chunks(4, struct.Struct(">I"), 2)
WAVE64 = Chunks(16, struct.Struct("<Q"), 8, counts_head=True)
CORE = Chunks(4, struct.Struct(">Q"), 1)


class Chunk(NamedTuple):
    name: bytes
    start: int  # of its content, in bytes from the start of the file
    size: int  # of its content


class Samples(NamedTuple):
    """Where a header says that the samples are."""

    start: int
    size: int | None  # bytes; None of a stream: up to the end of the file
    corrected: Mapping[int, bytes] = MappingProxyType({})  # place → what the header of a stream should hold there
    end_file: bool = False  # whether the file must end where they end, for libsndfile reads on


class Patched(io.RawIOBase):
    """A file as if `corrected` stood in it, and as if it ended after `end` bytes."""

    def __init__(self, path: Path, corrected: Mapping[int, bytes], end: int) -> None:
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
        self._corrected, self._end = corrected, end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(self._end + offset) if whence == os.SEEK_END else self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        start = self._file.tell()
        left = max(0, self._end - start)
        count = self._file.readinto(memoryview(buffer).cast("B")[:left]) or 0
        for place, value in self._corrected.items():
            first, last = max(place, start), min(place + len(value), start + count)
            if first < last:
                memoryview(buffer).cast("B")[first - start : last - start] = value[first - place : last - place]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def open_sound(path: Path) -> Path | Patched:
    """What libsndfile is to open for the file `path`: the path, or a stream with its length filled in.

    Raises InputError for a file that is empty, shorter than its header says, or longer by something that is no
    part of its container.
    """
    size = os.path.getsize(path)
    if size == 0:
        raise InputError("is empty", path)
    with open(path, "rb") as file:
        found = _find_samples(file, size, path)
    if found is None:
        return path
    if found.size is not None and found.start + found.size > size:
        raise truncated(path, size, found.start + found.size)
    end = found.start + found.size if found.end_file and found.size else size
    return Patched(path, found.corrected, end) if found.corrected or end < size else path


def truncated(path: Path, size: int, promised: int, unit: str = "bytes") -> InputError:
    """The error of a file that holds `size` of `promised` units."""
    return InputError(f"is truncated: {size:,} of {promised:,} {unit}", path, "copy it again")


def _find_samples(file: BinaryIO, size: int, path: Path) -> Samples | None:
    """The samples of a file of `size` bytes; None where its container is another, or says nothing of its length."""
    head = file.read(40)
    form, kind = head[:4], head[8:12]
    if kind == b"WAVE" and form in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        found = _wave(file, size, path, BIG if form == b"RIFX" else LITTLE)
        if found and form == b"BW64":  # RF64 by another name, which libsndfile does not know
            return found._replace(corrected={**found.corrected, 0: b"RF64"})
        return found
    if form == b"riff" and head[24:28] == b"wave":
        return _wave64(file, size, path)
    if form == b"FORM" and kind in (b"AIFF", b"AIFC"):
        return _aiff(file, size, path)
    if form == b"caff":
        return _caf(file, size, path)
    if form in (b".snd", b"dns.") and len(head) >= 12:
        return _au(file, head, size, path)
    if form == b"OggS":
        _refuse_cut_ogg(file, size, path)
    elif head[:3] == b"ID3" or (head[0] == 0xFF and head[1:2] >= b"\xe0"):
        return _mp3(file)
    return None


# ---- containers made of chunks -------------------------------------------------------------------


def _chunks(file: BinaryIO, kind: Chunks, start: int, end: int) -> Iterator[Chunk]:
    """The chunks from `start` on whose heads lie before `end`."""
    for _ in range(MOST_CHUNKS):
        if start + kind.head > end:
            return
        file.seek(start)
        name, size = kind.parse(file.read(kind.head))
        yield Chunk(name, start + kind.head, size)
        start += kind.head + -(-size // kind.padded_to) * kind.padded_to


def _is_stream(declared: int) -> bool:
    """Whether a size stands for one that its writer did not know."""
    return declared == 0 or declared >= ENDLESS or any(abs(declared - size) <= NEAR for size in STREAM_SIZES)


def _declared(file: BinaryIO, kind: Chunks, start: int, declared: int, size: int, path: Path) -> Samples:
    """The samples in a chunk of `declared` bytes from `start` on, in a file of `size`; of a stream if it is one."""
    if 0 < declared <= size - start:
        _refuse_rest(file, kind, start + declared, size, path)
    elif _is_stream(declared) and not (declared == 0 and _ends_in_chunks(file, kind, start, size)):
        return Samples(start, None)
    return Samples(start, declared)


def _wave(file: BinaryIO, size: int, path: Path, kind: Chunks) -> Samples | None:
    """RIFF, RIFX (big-endian) and RF64 (sizes of 64 bits in the chunk ds64)."""
    ds64: tuple[int, int] | None = None  # where it lies, and the samples' size in it
    for chunk in _chunks(file, kind, 12, size):
        if chunk.name == b"ds64" and len(content := file.read(16)) == 16:
            ds64 = chunk.start, int.from_bytes(content[8:], "little")
        elif chunk.name == b"data":
            start, there = chunk.start, size - chunk.start
            if ds64 and chunk.size in (0, 0xFFFFFFFF):
                found = _declared(file, kind, start, ds64[1], size, path)
                long = {4: b"\xff" * 4, start - 4: b"\xff" * 4, ds64[0]: struct.pack("<QQ", size - 8, there)}
                return found if found.size is not None else Samples(start, None, long)
            found = _declared(file, kind, start, chunk.size, size, path)
            sizes = {4: kind.pack(size - 8), start - 4: kind.pack(there)}
            return found if found.size is not None else Samples(start, None, sizes)
    file.seek(4)
    whole = int.from_bytes(file.read(4), "big" if kind is BIG else "little")
    if not _is_stream(whole) and whole + 8 > size:  # cut before its samples
        raise truncated(path, size, whole + 8)
    return None


def _wave64(file: BinaryIO, size: int, path: Path) -> Samples | None:
    for chunk in _chunks(file, WAVE64, 40, size):
        if chunk.name == W64_DATA:
            start = chunk.start
            found = _declared(file, WAVE64, start, chunk.size, size, path)
            sizes = {16: WAVE64.pack(size), start - 8: WAVE64.pack(size - start + WAVE64.head)}
            return found._replace(end_file=True) if found.size is not None else Samples(start, None, sizes)
    return None


def _aiff(file: BinaryIO, size: int, path: Path) -> Samples | None:
    frames: tuple[int, int] | None = None  # where their number stands, and bytes of one
    for chunk in _chunks(file, BIG, 12, size):
        if chunk.name == b"COMM" and len(content := file.read(8)) == 8:
            channels, _, bits = struct.unpack(">HIH", content)
            frames = chunk.start + 2, max(1, channels * -(-bits // 8))
        elif chunk.name == b"SSND":
            start, there = chunk.start, size - chunk.start
            found = _declared(file, BIG, start, chunk.size, size, path)
            sizes = {4: BIG.pack(size - 8), start - 4: BIG.pack(there)}
            if frames:  # the samples stand behind two numbers
                sizes[frames[0]] = BIG.pack(max(0, there - 8) // frames[1])
            return found if found.size is not None else Samples(start, None, sizes)
    return None


def _caf(file: BinaryIO, size: int, path: Path) -> Samples | None:
    for chunk in _chunks(file, CORE, 8, size):
        if chunk.name == b"data":
            start = chunk.start
            found = _declared(file, CORE, start, chunk.size, size, path)
            sizes = {start - 8: CORE.pack(size - start)}
            return found if found.size is not None else Samples(start, None, sizes)
    return None


def _refuse_rest(file: BinaryIO, kind: Chunks, end: int, size: int, path: Path) -> None:
    """Raises InputError where the samples' chunk ends and more follows that is no chunk, no tag and not zero.

    It may be the rest of the sound, when a recorder stopped before it wrote the last sizes.
    """
    if _ends_in_chunks(file, kind, end, size):
        return
    file.seek(end)
    while block := file.read(BLOCK):
        if any(block):
            what = f"the {end:,} bytes up to the end of its samples are followed by {size - end:,} that are no chunk"
            raise InputError(what, path, "set the sizes in its header, or cut it there")


def _ends_in_chunks(file: BinaryIO, kind: Chunks, start: int, size: int) -> bool:
    """Whether a chunk or a tag begins at `start`, or where the next chunk should, or too little for either."""
    for place in {start, start + start % 2, -(-start // kind.padded_to) * kind.padded_to}:
        if place + kind.head > size:
            return True
        file.seek(place)
        head = file.read(kind.head)
        name, declared = kind.parse(head)
        fits = all(0x20 <= byte < 0x7F for byte in name[:4]) and place + kind.head + declared <= size + 1
        if fits or head.startswith((*TAGS, *COMMON)):
            return True
    return False


# ---- the others ----------------------------------------------------------------------------------


def _au(file: BinaryIO, head: bytes, size: int, path: Path) -> Samples:
    order = ">" if head[:4] == b".snd" else "<"
    start, declared = struct.unpack(f"{order}II", head[4:12])
    found = _declared(file, BIG, start, declared, size, path)
    return found if found.size is not None else Samples(start, None, {8: struct.pack(f"{order}I", 0xFFFFFFFF)})


def _refuse_cut_ogg(file: BinaryIO, size: int, path: Path) -> None:
    """Raises InputError where the last page is not whole, not marked as the last, or of another stream than the first.

    Of streams one after the other, as internet radio sends them, libsndfile reads the first alone.
    """
    file.seek(OGG_STREAM.start)
    stream = file.read(4)
    file.seek(max(0, size - OGG_PAGE - ID3V1))
    tail = file.read()
    page = tail[max(0, tail.rfind(b"OggS")) :]
    segments = page[27 : 27 + page[26]] if len(page) > 26 else b""
    whole = len(page) > 26 and len(segments) == page[26] and len(page) >= 27 + page[26] + sum(segments)
    if not (page.startswith(b"OggS") and whole and page[5] & OGG_LAST):
        raise InputError("is truncated: it ends before its last page", path, "copy it again")
    if page[OGG_STREAM] != stream:
        raise InputError("holds several streams, in a row or side by side", path, "make it a WAV or FLAC file")


def _mp3(file: BinaryIO) -> Samples | None:
    """The length in an Xing, Info or VBRI header, if there is one."""
    file.seek(0)
    tag, start = file.read(10), 0
    if tag[:3] == b"ID3" and len(tag) == 10:
        start = 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(tag[6:10])))
    file.seek(start)
    head = file.read(256)
    if head[:1] != b"\xff":
        return None
    size = 0
    if (at := max(head.find(b"Xing", 0, 48), head.find(b"Info", 0, 48))) > 0 and len(head) >= at + 16:
        flags, *fields = struct.unpack(">III", head[at + 4 : at + 16])
        size = (fields[1] if flags & 1 else fields[0]) if flags & 2 else 0  # the number of frames comes first
    elif head[36:40] == b"VBRI" and len(head) >= 50:
        (size,) = struct.unpack(">I", head[46:50])
    return Samples(start, max(0, size - ID3V1)) if size else None
