"""Long runs: does memory grow, and is anything left behind?

    python tests/soak.py RUN DATA OUT [--split train] [--questions 20000] [--scenes 5000]

Spatializes that many scenes and answers that many questions, looks at the memory of the command with
all its processes every half second, and prints the most of each fifth of the course. Exit code 1 when the
last fifth takes a tenth more than the second, or when a process or a temporary file outlives its command.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from batcli.data.dataset import Dataset, open_dataset

PAUSE = 0.5  # seconds
ENDING = 10.0  # seconds within which what a command has started ends after it
GROWTH = 1.1
PARTS = 5


def family(root: int) -> list[int]:
    """A process and all that come from it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:  # it has ended
                continue
    found = [root]
    for process in found:
        found += [child for child, parent in parents.items() if parent == process]
    return found


def megabytes(processes: list[int]) -> float:
    """What the processes hold alone, and their share of what they share; of files, only what they have changed.

    What is mapped from files (libraries above all) can be read again, and their share of it moves with
    whatever else runs on the machine.
    """
    total = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon:", "Pss_Shmem:")))
    return total / 1000


def watch(name: str, *command: str) -> bool:
    """Run `bat COMMAND`; True if its memory stayed and nothing is left."""
    before = set(Path(tempfile.gettempdir()).iterdir())
    started = time.monotonic()
    running = subprocess.Popen([sys.executable, "-m", "batcli", *command, "-q"])
    samples, known = [], set()
    while running.poll() is None:
        processes = family(running.pid)
        known.update(processes)
        samples.append(megabytes(processes))
        time.sleep(PAUSE)
    took = time.monotonic() - started
    end = time.monotonic() + ENDING
    while (left := [process for process in known if Path(f"/proc/{process}").exists()]) and time.monotonic() < end:
        time.sleep(PAUSE)
    files = set(Path(tempfile.gettempdir()).iterdir()) - before
    size = max(1, len(samples) // PARTS)
    # The most of each, as in every fifth workers come and go: a median would say how often one looked while they lived.
    parts = [max(samples[i * size : (i + 1) * size], default=0.0) for i in range(PARTS)]
    print(
        f"{name}: exit {running.returncode}, {took:.0f} s, MB by fifths: {', '.join(f'{mb:,.0f}' for mb in parts)}",
        end="",
    )
    print(f"; {len(left)} processes and {len(files)} temporary files left", flush=True)
    return running.returncode == 0 and parts[-1] <= GROWTH * parts[1] and not left and not files


def first_scenes(whole: Dataset, split: str, scenes: int, folder: Path) -> Path:
    """A dataset of the questions about the first so many scenes."""
    kept, seen = [], set()
    for question in whole.questions(split):
        seen.add(question.scene)
        if len(seen) > scenes:
            break
        kept.append(question)
    root = whole.root.resolve()
    roots = {name: str(root / getattr(whole, name)) for name in ("audio_root", "reverb_root", "labels_file")}
    part = Dataset(folder, **roots, seconds=whole.seconds)
    part.add_split(split, kept, None, None)
    part.save()
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--split", default="train")
    parser.add_argument("--questions", type=int, default=20_000)
    parser.add_argument("--scenes", type=int, default=5_000)
    given = parser.parse_args()
    part = first_scenes(open_dataset(given.data), given.split, given.scenes, given.out / "part")
    split, limit = ("--split", given.split), ("--limit", str(given.questions))
    fine = [
        watch(f"{given.scenes:,} scenes", "spatialize", str(part), *split, "-o", str(given.out / "scenes")),
        watch(
            f"{given.questions:,} questions",
            *("decode", str(given.run), str(given.data), *split, *limit, "-o", str(given.out / "answers.jsonl")),
        ),
    ]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
