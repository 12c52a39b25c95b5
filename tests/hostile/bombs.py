"""Small files that promise much, and large ones that hold nothing: what readers must not take memory for.

python tests/hostile/bombs.py        each in turn; a line of JSON with its name, the answer and the memory it took
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

GIGABYTE = 1 << 30


def sparse(path: Path, head: bytes, size: int, tail: bytes = b"") -> Path:
    """A file of `size` bytes that takes no room on disk."""
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)
        file.seek(0, 2)
        file.write(tail)
    return path


def wav(frames: int, rate: int = 32_000, channels: int = 1, riff: int = 0xFFFFFFFF) -> bytes:
    size = min(2 * channels * frames, 0xFFFFFFFF)
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16)
    head += struct.pack("<HHIIHH", 1, channels, rate, min(rate * 2 * channels, 0xFFFFFFFF), 2 * channels, 16)
    return head + b"data" + struct.pack("<I", size)


def npy(shape: str, descr: str = "<f4", version: int = 1, length: int | None = None) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(118) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header) if length is None else length)
    return b"\x93NUMPY" + bytes([version, 0]) + size + header


def clip(content: Callable[[Path], Path]) -> Callable[[Path], Any]:
    from batcli.audio.io import read_clip

    return lambda folder: read_clip(content(folder))


def brir(head: bytes, size: int) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from batcli.audio.io import read_brir

        return read_brir(sparse(folder / "x.npy", head, size))

    return read


def vectors(head: bytes, size: int) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from batcli.evaluation.embed import label_vectors

        return label_vectors(sparse(folder / "x.npy", head, size), ["dog"], lambda text: frozenset())

    return read


def records(read: str, head: bytes, size: int, tail: bytes = b"") -> Callable[[Path], Any]:
    """`read`: module:function of a reader of a path."""
    import importlib

    module, _, name = read.partition(":")

    def run(folder: Path) -> Any:
        found = getattr(importlib.import_module(module), name)(sparse(folder / "x", head, size, tail))
        if isinstance(found, (list, dict)):
            return found
        items = [item for _, item in found] if name == "read_items" else list(found)
        for item in items:
            if isinstance(item, Exception):
                raise item
        return items

    return run


def sofa(folder: Path) -> Any:
    import netCDF4
    from hostile.readers import make_sofa

    from batcli.audio.hrtf import sofa

    make_sofa(folder)
    with netCDF4.Dataset(folder / "head.sofa", "r+") as file:
        file.createDimension("HUGE", 1 << 29)
        file.createVariable("Extra", "f8", ("HUGE",), compression="zlib", chunksizes=(1 << 20,))
    return sofa(folder / "head.sofa")


def config(change: str) -> Callable[[Path], Any]:
    """A run whose config.toml asks for a model of another size."""

    def read(folder: Path) -> Any:
        from hostile.readers import make_run, read_run

        make_run(folder)
        file, (key, value) = folder / "config.toml", change.split(" = ")
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines))
        return read_run(folder)

    return read


def llm(**changes: Any) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from hostile.readers import make_llm

        from batcli.model.llm import load_llm

        make_llm(folder)
        content = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**content, **changes}))
        return load_llm(folder)

    return read


def tensors(header: bytes, length: int, size: int) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from hostile.readers import read_tensors

        sparse(folder / "t.safetensors", struct.pack("<Q", length) + header, size)
        return read_tensors(folder)

    return read


class Call:
    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.given = function, arguments

    def __reduce__(self) -> Any:
        return self.given


def checkpoint(
    content: Any, entries: dict[str, bytes] | None = None, how: int = zipfile.ZIP_STORED
) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from hostile.readers import make_published

        from batcli.model import published
        from batcli.model.config import ModelConfig

        make_published(folder)
        with zipfile.ZipFile(folder / "model.pt", "w", how) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(content, 2) if entries is None else entries["data.pkl"])
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
            if how != zipfile.ZIP_STORED:
                with archive.open("archive/data/0", "w") as record:
                    for _ in range(64):
                        record.write(bytes(1 << 24))
        from hostile.readers import small_config

        empty = published.empty_model(ModelConfig(small_config().encoder, small_config().qformer), folder / "llm")
        return published.read_bat(folder / "model.pt", empty)

    return read


def overlapping(folder: Path) -> Any:
    """Thousands of entries that are all the same bytes of the file (Fifield, "A better zip bomb", 2019)."""
    from hostile.readers import make_published, small_config

    from batcli.model import published
    from batcli.model.config import ModelConfig

    make_published(folder)
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 22))
        info = archive.filelist[0]
        archive.filelist.extend(info for _ in range(5_000))
    (folder / "model.pt").write_bytes(whole.getvalue())
    empty = published.empty_model(ModelConfig(small_config().encoder, small_config().qformer), folder / "llm")
    return published.read_bat(folder / "model.pt", empty)


NESTED = b'{"data": ' + b"[" * 200_000

BOMBS: dict[str, Callable[[Path], Any]] = {
    "a WAV that promises 4 GB": clip(lambda f: sparse(f / "x.wav", wav(1 << 31, riff=0xFFFFFFF0), 5_000)),
    "a WAV that says nothing of its length": clip(lambda f: sparse(f / "x.wav", wav(1 << 31), 5_000)),
    "a WAV of 4 GB of silence": clip(lambda f: sparse(f / "x.wav", wav(1 << 31), 4 * GIGABYTE)),
    "a WAV of 1 Hz": clip(lambda f: sparse(f / "x.wav", wav(500_000, 1, riff=1_000_036), 1_000_044)),
    "a WAV of 1,000 channels": clip(lambda f: sparse(f / "x.wav", wav(1 << 20, channels=1_000), GIGABYTE)),
    "a WAV of ten minutes at 192 kHz": clip(lambda f: sparse(f / "x.wav", wav(115_200_000, 192_000), 230_400_044)),
    "a BRIR of a trillion samples": brir(npy("(2, 1000000000000)"), 1_000),
    "a BRIR of 2^63 samples": brir(npy("(2, 9223372036854775807)"), 1_000),
    "a BRIR with a header of 4 GB": brir(npy("(2, 9)", version=2, length=0xFFFFFFF0), 4 * GIGABYTE),
    "a BRIR of 4 GB": brir(npy(f"(2, {GIGABYTE // 2})"), 4 * GIGABYTE + 128),
    "label vectors of a trillion numbers": vectors(npy("(1, 1000000000000)"), 1_000),
    "label vectors with a header of 4 GB": vectors(npy("(1, 9)", version=2, length=0xFFFFFFF0), 4 * GIGABYTE),
    "a JSON line of 1 GB": records("batcli.data.schema:read_questions", b'{"audio_id": "', GIGABYTE, b'"}\n'),
    "a released record of 1 GB": records("batcli.prepare.released:read_items", b'{"data": [{"a": "', GIGABYTE, b'"}]}'),
    "a released line of 1 GB": records("batcli.prepare.released:read_items", b'{"a": "', GIGABYTE, b'"}\n'),
    "BRIR metadata of 1 GB": records("batcli.data.metadata:read_reverbs", b'{"data": "', GIGABYTE, b'"}'),
    "BRIR metadata nested without end": records("batcli.data.metadata:read_reverbs", NESTED, len(NESTED)),
    "labels of 1 GB": records("batcli.data.metadata:read_labels", b"index,mid,display_name\n", GIGABYTE),
    "a TOML of 1 GB": records("batcli.core.toml:read_toml", b"[a]\n", GIGABYTE),
    "a SOFA file of 4 GB in 1 MB": sofa,
    "a run with a million layers": config("depth = 1000000"),
    "a run of width 2^40": config("dim = 1099511627776"),
    "a run of a year": config("seconds = 31557600.0"),
    "a language model with a million layers": llm(num_hidden_layers=1_000_000),
    "a language model of 10^18 numbers": llm(hidden_size=1 << 28, vocab_size=1 << 30, head_dim=1 << 27),
    "a language model of 100 GB": llm(vocab_size=1_000_000, hidden_size=25_000, head_dim=12_500),
    "safetensors with a header of 2^60 bytes": tensors(b"{", 1 << 60, 1_000),
    "safetensors with a header of 4 GB": tensors(b"{", 4 * GIGABYTE - 100, 4 * GIGABYTE),
    "a tensor of 2^62 numbers": tensors(
        b'{"a.weight":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,4]}}'.ljust(96), 96, 200
    ),
    "a checkpoint that asks for a terabyte": checkpoint({"a": Call(bytearray, 1 << 40)}),
    "a checkpoint of zeros, compressed": checkpoint({}, how=zipfile.ZIP_DEFLATED),
    "a checkpoint whose records overlap": overlapping,
    "a checkpoint nested without end": checkpoint(
        None, {"data.pkl": b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."}
    ),
}


def peak() -> int:
    """Most memory that this process ever had, in MB. Linux counts it anew after a write to `clear_refs`."""
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) >> 10


def main() -> None:
    from batcli.core.errors import InputError

    for name in sys.argv[1:] or BOMBS:
        with tempfile.TemporaryDirectory(prefix="bat-bomb-") as folder:
            Path("/proc/self/clear_refs").write_text("5")
            before = peak()
            try:
                BOMBS[name](Path(folder))
                answer = "read"
            except InputError as error:
                answer = str(error)
            except BaseException as error:
                answer = f"WRONG {type(error).__name__}: {error!s:.200}"
            print(json.dumps({"name": name, "answer": answer, "megabytes": peak() - before}), flush=True)


if __name__ == "__main__":
    main()
