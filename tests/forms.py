"""JSON in all the forms that programs and people write it in: the same records each time."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

MARK = "\ufeff"
OTHERS: Sequence[dict[str, Any]] = (
    {"version": 1},
    {"info": {"data": [1, {"data": []}], "text": '"data": ['}, "n": -1.5e3},
    {"a": None, "b": "}]", "é": "\\"},
)
"""Keys that stand beside `"data"`."""


def json_text(records: Sequence[Any], rng: random.Random) -> str:
    """The records as JSON Lines, a list, or a list under `"data"`: on one line or indented, with or without a mark."""
    plain = rng.random() < 0.5
    indent = rng.choice((None, None, 0, 1, 4, "\t"))
    form = rng.choice(("lines", "list", "data", "first", "last", "between"))
    if form == "lines":
        ends = ("\n", "\r\n", "\n\n", "\n \n", "\n" + MARK)
        text = "".join(json.dumps(one, ensure_ascii=plain) + rng.choice(ends) for one in records)
        text = text.removesuffix(MARK) if rng.random() < 0.5 else text.rstrip(MARK + "\r\n ")
    else:
        before, after = (dict(rng.choice(OTHERS)) for _ in range(2))
        whole = {
            "list": records,
            "data": {"data": records},
            "first": {"data": records, **after},
            "last": {**before, "data": records},
            "between": {**before, "data": records, "z": after},
        }[form]
        text = json.dumps(whole, indent=indent, ensure_ascii=plain)
        if rng.random() < 0.3:
            text = text.replace("\n", "\r\n")
        text += rng.choice(("", "\n", "\r\n\r\n", "  \t\n"))
    return rng.choice(("", "", MARK)) + text
