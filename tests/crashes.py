"""Kills every command that writes at random moments, fills its disk, closes its pipe; then runs it again.

    python tests/crashes.py [--share 1.0] [--only train,decode,…] [--seed 0]

What stands under a final name after a kill must be whole, and running again must end with the bytes
of a run that nobody disturbed. Full disks are small tmpfs mounts, which takes root; without it they
are left out, and said so. `tests/test_crashes.py` does some of this in the ordinary tests.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the kills of a full run")
    parser.add_argument("--only", default="", help="commands, by commas")
    parser.add_argument("--kills-only", action="store_true", help="no disks and pipes")
    parser.add_argument("--no-torch", action="store_true", help="nothing with torch: a quick look")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    from crash.commands import COMMANDS, make_inputs, use_small_presets
    from crash.kill import Tried, closed_pipes, disks, kills

    words = [word for word in given.only.split(",") if word]
    chosen = [
        command
        for command in COMMANDS
        if (not words or any(word in command.name for word in words)) and not (given.no_torch and command.torch)
    ]
    tried: list[Tried] = []

    def note(found: Tried) -> None:
        tried.append(found)
        counts = ", ".join(f"{name} {count}" for name, count in sorted(found.counts.items()))
        print(f"{found.name:<36}{found.seconds:>6.1f} s  {counts}", flush=True)
        for wrong in found.wrong:
            print(f"    WRONG: {wrong}", flush=True)

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a disk takes most of the time to be sure
    with tempfile.TemporaryDirectory(prefix="bat-crash-", dir=memory) as name:
        folder = Path(name).resolve()
        inputs = folder / "inputs"
        child = os.fork()  # what makes the inputs starts threads, which no fork survives
        if child == 0:
            inputs.mkdir()
            make_inputs(inputs, with_models=not given.no_torch)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            return 1
        import batcli.prepare.brirs
        import batcli.prepare.clips
        import batcli.prepare.demo
        import batcli.prepare.questions
        import batcli.prepare.released
        import batcli.score
        import batcli.spatialize

        if not given.no_torch:
            import batcli.decode
            import batcli.prepare.model
            import batcli.train  # noqa: F401

            use_small_presets()

        for number, command in enumerate(chosen):
            place = folder / f"kill-{number}"
            place.mkdir()
            note(kills(command, inputs, place, max(1, round(given.share * command.kills)), given.seed))
        for number, command in enumerate(chosen if not given.kills_only else ()):
            place = folder / f"disk-{number}"
            place.mkdir()
            try:
                note(disks(command, inputs, place, max(1, round(given.share * 4)), given.seed))
            except PermissionError:
                print("full disks: left out, for want of the right to mount")
                break
        (folder / "pipe").mkdir()
        if not given.kills_only and (not words or "pipe" in words):
            note(closed_pipes(inputs, folder / "pipe", with_models=not given.no_torch))
    total = sum(count for t in tried for name, count in t.counts.items() if name.startswith("SIG"))
    faults = sum(len(t.wrong) for t in tried)
    print(f"{total} kills, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # before NumPy is loaded
    sys.exit(main())
