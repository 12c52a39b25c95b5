"""Files of sound in all containers, cut or without sizes, and samples that no one expects."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

# container → (format, encoding, suffix)
CONTAINERS = {
    "WAV": ("WAV", "PCM_16", ".wav"),
    "WAV, 24 bits": ("WAV", "PCM_24", ".wav"),
    "WAV, float": ("WAV", "FLOAT", ".wav"),
    "WAV, 8 bits": ("WAV", "PCM_U8", ".wav"),
    "WAV, mu-law": ("WAV", "ULAW", ".wav"),
    "WAVEX": ("WAVEX", "PCM_16", ".wav"),
    "RF64": ("RF64", "PCM_16", ".wav"),
    "W64": ("W64", "PCM_16", ".w64"),
    "AIFF": ("AIFF", "PCM_16", ".aiff"),
    "AIFF, float": ("AIFF", "FLOAT", ".aiff"),
    "AU": ("AU", "PCM_16", ".au"),
    "CAF": ("CAF", "PCM_16", ".caf"),
    "FLAC": ("FLAC", "PCM_16", ".flac"),
    "OGG": ("OGG", "VORBIS", ".ogg"),
    "MP3": ("MP3", "MPEG_LAYER_III", ".mp3"),
}
STREAMED = tuple(name for name in CONTAINERS if name.split(",")[0] not in ("FLAC", "OGG", "MP3"))
"""Those that programs write without knowing how long they become."""

UNKNOWN = (0, 2_000_000_000, 2_000_000_036, 0x7F000000, 0x7FFFF000, 0x7FFFF024, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def encode(container: str, samples: np.ndarray, rate: int = 32_000) -> bytes:
    """Samples (n,) or (n, channels) as a whole file."""
    form, subtype, _ = CONTAINERS[container]
    whole = io.BytesIO()
    soundfile.write(whole, samples, rate, subtype=subtype, format=form)
    return whole.getvalue()


def without_sizes(container: str, whole: bytes, of_all: int, of_samples: int) -> bytes:
    """The file as a program leaves it that writes these sizes first and cannot go back."""
    content = bytearray(whole)
    kind = container.split(",")[0]

    def put(place: int, form: str, value: int) -> None:
        struct.pack_into(form, content, place, value)

    if kind in ("WAV", "WAVEX"):
        put(4, "<I", of_all)
        put(content.index(b"data") + 4, "<I", of_samples)
    elif kind == "RF64":
        at = content.index(b"ds64") + 8
        put(at, "<Q", of_all)
        put(at + 8, "<Q", of_samples)
        put(content.index(b"data") + 4, "<I", 0xFFFFFFFF)
    elif kind == "W64":
        put(16, "<Q", of_all)
        put(content.index(b"data\xf3\xac") + 16, "<Q", of_samples)
    elif kind == "CAF":
        put(content.index(b"data") + 4, ">Q", of_samples if of_samples != 0xFFFFFFFF else 2**64 - 1)
    elif kind == "AIFF":
        put(4, ">I", of_all)
        put(content.index(b"COMM") + 10, ">I", of_samples)
        put(content.index(b"SSND") + 4, ">I", of_samples)
    else:
        put(8, ">I", of_samples)
    return bytes(content)


def wav(samples: np.ndarray, before: bytes = b"", after: bytes = b"", order: str = "<", all_off_by: int = 0) -> bytes:
    """16 bits (n,) as a WAV (`order` ">": RIFX), with other chunks before and after the samples."""
    data = samples.astype(f"{order}i2").tobytes()
    head = b"fmt " + struct.pack(f"{order}IHHIIHH", 16, 1, 1, 32_000, 64_000, 2, 16)
    content = b"WAVE" + head + before + b"data" + struct.pack(f"{order}I", len(data)) + data + after
    return (b"RIFF" if order == "<" else b"RIFX") + struct.pack(f"{order}I", len(content) + all_off_by) + content


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


# ---- samples that no one expects ------------------------------------------------------------------


def _noise(count: int, seed: int = 0) -> np.ndarray:
    return (0.2 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def _late(count: int, floor: float = 0.0) -> np.ndarray:
    """A sound in the last tenth, after zeros or something 100 dB fainter."""
    samples = floor * _noise(count, 1)
    samples[count - max(1, count // 10) :] = _noise(max(1, count // 10), 2)
    return samples


CONTENTS: dict[str, Callable[[int], np.ndarray]] = {
    "noise": _noise,
    "zeros": lambda n: np.zeros(n, np.float32),
    "minus zeros": lambda n: np.full(n, -0.0, np.float32),
    "DC": lambda n: np.full(n, 0.5, np.float32),
    "minus DC": lambda n: np.full(n, -1.0, np.float32),
    "denormals": lambda n: np.full(n, 1e-42, np.float32),
    "the smallest": lambda n: np.full(n, np.finfo(np.float32).tiny, np.float32),
    "1e-30": lambda n: 1e-30 * _noise(n),
    "1e-12": lambda n: 1e-12 * _noise(n),
    "one step of 24 bits": lambda n: 2.0**-23 * np.sign(_noise(n)),
    "1e30": lambda n: 1e30 * _noise(n),
    "the largest": lambda n: np.full(n, np.finfo(np.float32).max, np.float32),
    "both largest": lambda n: np.where(np.arange(n) % 2, 1, -1) * np.finfo(np.float32).max,
    "one 1e30": lambda n: np.where(np.arange(n) == n // 2, np.float32(1e30), _noise(n)),
    "32 bits as floats": lambda n: 2.0**31 * np.clip(_noise(n), -1, 1),
    "one click": lambda n: (np.arange(n) == n // 2).astype(np.float32),
    "the first sample": lambda n: (np.arange(n) == 0).astype(np.float32),
    "the last sample": lambda n: (np.arange(n) == n - 1).astype(np.float32),
    "the band's edge": lambda n: (0.5 * np.cos(np.pi * np.arange(n))).astype(np.float32),
    "late": _late,
    "late after noise": lambda n: _late(n, 1e-6),
    "full scale": lambda n: np.sign(_noise(n)),
}
EARS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "both": lambda a, b: np.stack([a, b]),
    "alike": lambda a, b: np.stack([a, a]),
    "opposite": lambda a, b: np.stack([a, -a]),
    "left alone": lambda a, b: np.stack([a, 0 * b]),
    "right alone": lambda a, b: np.stack([0 * a, b]),
}
"""How a second ear is made of two sounds."""


def odd_sound(rng: random.Random, count: int) -> np.ndarray:
    """Two channels, half of them of noise, the others of anything."""
    first, second = (CONTENTS["noise" if rng.random() < 0.5 else rng.choice(list(CONTENTS))](count) for _ in range(2))
    return EARS["both" if rng.random() < 0.5 else rng.choice(list(EARS))](first, second)


def odd_clip(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """In place of a file: a float WAV of one or two channels and odd samples."""
    count, rate = rng.choice((1, 2, 3, 31, 400, 5_000)), rng.choice((1_000, 8_000, 32_000, 44_100, 48_000, 384_000))
    return encode("WAV, float", odd_sound(rng, count)[: rng.choice((1, 2))].T, rate)


def odd_brir(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """In place of a file: a BRIR of odd samples, now and then after a silence."""
    brir = odd_sound(rng, rng.choice((1, 2, 3, 31, 400, 5_000))).astype(rng.choice(("<f4", "<f8", ">f4")))
    if rng.random() < 0.3:
        brir = np.pad(brir, ((0, 0), (rng.choice((1, 300, 40_000)), 0)))
    whole = io.BytesIO()
    np.save(whole, brir)
    return whole.getvalue()


def odd_sizes(container: str) -> Callable[..., bytes]:
    """In place of a file: the same cut, or without its sizes, or with wrong ones, and something behind it."""

    def spoil(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
        after = rng.choice((b"", b"", b"\0", bytes(100), b"TAG" + bytes(125), rng.randbytes(60)))
        if container not in STREAMED or rng.random() < 0.4:
            return data[: rng.randrange(1, len(data))] if rng.random() < 0.8 else data + after
        sizes = [max(0, rng.choice(UNKNOWN) - rng.choice((0, 0, 8, 36, 44))) for _ in range(2)]
        if rng.random() < 0.3:
            sizes[rng.randrange(2)] = rng.choice((1, 36, len(data) - 8, len(data) // 2, 2 * len(data)))
        return without_sizes(container, data, *sizes) + after

    return spoil


def save(path: Path, content: bytes | np.ndarray) -> Path:
    """Bytes as they are, or a BRIR as .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    return path
