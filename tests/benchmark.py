"""How fast each stage is, beside a plain version of the same work in the same run.

    python tests/benchmark.py [--quick] [--only render,encode,…] [--growth] [--json FILE]

Each round times ours and the plain version, which is written out in `tests/timed`, one after the
other; shown are medians over the rounds, their ratio, and the quartiles of the per-round ratio. One
thread. `--growth`: instead, what a unit of work costs as there is more of it. `tests/test_benchmark.py`
checks that both compute the same thing; no test looks at a time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

STAGES = {
    "render": "rendering",
    "encode": "encoder",
    "train": "training",
    "decode": "decoding",
    "data": "data",
    "start": "start",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds of small work")
    parser.add_argument("--only", default=",".join(STAGES), help="stages, by commas: " + ", ".join(STAGES))
    parser.add_argument("--growth", action="store_true", help="cost against size")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    wanted = given.only.split(",")
    if unknown := [name for name in wanted if name not in STAGES]:
        parser.error(f"unknown stage {unknown[0]!r}")
    from timed.timing import table

    found = []
    for name in wanted:
        stage = importlib.import_module(f"timed.{STAGES[name]}")
        for line in (stage.growth if given.growth else stage.lines)(given.quick):
            print(table([line], head=not found), flush=True)
            found.append(line)
    if given.json:
        given.json.write_text(json.dumps([line._asdict() for line in found], indent=2))


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # before NumPy is loaded
    main()
