"""Feeds every reader files that were spoilt at random, and says what became of them.

    python tests/attack.py [--count 100000] [--only labels,SOFA,…] [--seed 0]

A file may be read or refused with one line; any other exception, code that it runs, a file that it
makes us open outside its folder, and more than some seconds or some memory, is a fault (exit code 1).
`tests/test_hostile.py` does a small part of this in the ordinary tests.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys

MEMORY = 8 << 30  # bytes of address space beyond which an allocation fails: no input may ask for so much


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--only", default="", help="readers, by commas")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from hostile.attack import attacks

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    inputs = faults = 0
    print(f"{'reader':<36}{'inputs':>8}{'read':>8}{'refused':>9}{'wrong':>7}{'ms each':>9}{'peak MB':>9}")
    for found in attacks(given.count, [word for word in given.only.split(",") if word], given.seed):
        count = sum(found.counts.values())
        inputs, faults = inputs + count, faults + found.counts["wrong"]
        columns = [f"{found.counts[name]:>{width},}" for name, width in (("read", 8), ("refused", 9), ("wrong", 7))]
        each = f"{1000 * found.seconds / count:>9.2f}{found.megabytes:>9.0f}"
        print(f"{found.name:<36}{count:>8,}{''.join(columns)}{each}", flush=True)
        for fault, where in found.wrong.items():
            print(f"    {where}: {fault}", flush=True)
    print(f"{inputs:,} inputs, {faults:,} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # before NumPy is loaded
    sys.exit(main())
