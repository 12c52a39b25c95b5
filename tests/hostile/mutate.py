"""Good files made bad: bytes at random, and JSON whose values are replaced where readers trust them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 2**64 - 1)
TEXTS = (
    "",
    " ",
    "/etc/passwd",
    "../../../../etc/passwd",
    "a/../../b",
    "..\\..\\b",
    "a\0b",
    "‥/‥/etc",  # one sign that looks like two dots
    "．．/．．/etc/passwd",  # full-width dots, which some libraries make plain ones of
    "∕etc∕passwd",
    "\u202egnp.exe",
    "x" * 5000,
    "\ud800",
    "\udcff",
    "é" * 300,
    "NaN",
    "1e999",
    "0,0,0",
    "1e200,1e200,1e200",
    "1e-200,0,0",
    "nan,nan,nan",
    "٣",
    "²",
    "-",
    "~",
    "http://127.0.0.1:9/x",
    "%s%n{0}{0.__class__}",
    "__import__('os').system('true')",
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    10**400,
    -(10**30),
    0.5,
    1e308,
    -1e308,
    float("inf"),
    float("nan"),
    [],
    {},
    [[]],
    [None],
    {"": None},
    ["a", 1],
    *TEXTS,
)

DEEP = {f"{depth} lists": depth for depth in (2, 100, 480, 900, 980, 5000)}
"""What stands for a value nested so deeply."""


def spoil_bytes(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """One to four changes of the kinds that transmission, disks and attackers make."""
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(found) + 1)
        if rng.random() < 0.5:
            at = min(at, rng.randrange(1, 129))  # most of what a reader trusts stands in the head
        kind = rng.randrange(9)
        if kind == 0 and found:
            found[min(at, len(found) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1 and found:
            found[min(at, len(found) - 1)] = rng.randrange(256)
        elif kind == 2:
            del found[at:]
        elif kind == 3:
            del found[at : at + rng.randrange(1, 64)]
        elif kind == 4:
            found[at:at] = rng.randbytes(rng.randrange(1, 16))
        elif kind == 5:
            found[at:at] = found[at : at + rng.randrange(1, 64)] * rng.choice((1, 2, 50))
        elif kind == 6:
            size = rng.choice((1, 2, 4, 8))
            value = (rng.choice(NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size, rng.choice(("little", "big")))
            found[at : at + size] = value
        elif kind == 7:
            found[at : at + rng.randrange(1, 64)] = bytes(rng.randrange(1, 64))
        else:
            found[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(found)


def _places(value: Any, above: Callable[[Any], None] | None = None) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """(value, how to replace it) of a tree of JSON, itself first where it can be replaced."""
    if above:
        yield value, above
    if isinstance(value, dict):
        for key in list(value):
            yield from _places(value[key], lambda new, key=key: value.__setitem__(key, new))
    elif isinstance(value, list):
        for number in range(len(value)):
            yield from _places(value[number], lambda new, number=number: value.__setitem__(number, new))


def spoil_tree(tree: Any, rng: random.Random) -> Any:
    """A copy with one to three values, keys or entries that are not what they were."""
    holder = [copy.deepcopy(tree)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(holder))[1:] or [(holder, lambda new: holder.__setitem__(0, new))]
        value, replace = places[0] if rng.random() < 0.05 else rng.choice(places)
        kind = rng.randrange(6)
        if kind == 0 and isinstance(value, dict) and value:
            del value[rng.choice(list(value))]
        elif kind == 1 and isinstance(value, dict):
            value[rng.choice((*TEXTS, "id", "label"))] = copy.deepcopy(rng.choice(VALUES))
        elif kind == 2 and isinstance(value, list) and value:
            value.append(copy.deepcopy(rng.choice(value)))
        elif kind == 3 and isinstance(value, str):
            at = rng.randrange(len(value) + 1)
            replace(value[:at] + rng.choice(TEXTS) + value[at:])
        elif kind == 4:
            replace(rng.choice(tuple(DEEP)))
        else:
            replace(copy.deepcopy(rng.choice(VALUES)))
    return holder[0]


def as_json(tree: Any) -> bytes:
    """As any program might write it: half surrogates escaped, NaN and Infinity bare."""
    text = json.dumps(tree)
    for mark, depth in DEEP.items():
        text = text.replace(f'"{mark}"', "[" * depth + "]" * depth)
    return text.encode()


def spoil_json(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """A JSON text with other values in it, or (one in four) with other bytes."""
    if rng.random() < 0.25:
        return spoil_bytes(data, rng, other)
    return as_json(spoil_tree(json.loads(data), rng))


def spoil_lines(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """JSON Lines of which one is spoilt."""
    lines = data.splitlines(keepends=True)
    if rng.random() < 0.25 or not lines:
        return spoil_bytes(data, rng, other)
    at = rng.randrange(len(lines))
    lines[at] = as_json(spoil_tree(json.loads(lines[at]), rng)) + rng.choice((b"\n", b"\r\n", b"\r", b"", b"\n\n"))
    return b"".join(lines)


def spoil_text(data: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """CSV or TOML in which a word became another."""
    if rng.random() < 0.3:
        return spoil_bytes(data, rng, other)
    text = data.decode()
    ends = [place for place, sign in enumerate(text) if sign in ' ,="\n[].'] or [0]
    start = rng.choice(ends) + rng.randrange(2)
    end = min((place for place in ends if place > start), default=len(text))
    odd = (
        *TEXTS,
        *map(str, NUMBERS),
        '"',
        "'",
        ",",
        "\n",
        "[",
        "]",
        "=",
        "nan",
        "inf",
        "true",
        "-1",
        "1e400",
        "9" * 5000,
    )
    return (text[:start] + rng.choice(odd) + text[end:]).encode(
        errors="surrogatepass" if rng.random() < 0.5 else "replace"
    )
