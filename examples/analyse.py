"""What a sceptic would ask of a dataset: how even it is, and what its answers give away.

    python examples/analyse.py DATA [--split eval]

Histograms count BRIRs as the questions use them, once per distinct scene and source.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from batcli.data.dataset import open_dataset

WIDTH = 40  # characters of the longest bar


def histogram(title: str, unit: str, values: Iterable[float], edges: list[float]) -> None:
    values = list(values)
    counts = [sum(low <= value < high for value in values) for low, high in pairwise(edges)]
    print(f"\n{title} ({len(values):,}; {sum(counts) / max(1, len(values)):.1%} in range)")
    for (low, high), count in zip(pairwise(edges), counts, strict=True):
        bar = "█" * round(WIDTH * count / max(1, *counts))
        print(f"  {low:6g} to {high:5g} {unit:<3} {count:6,} {bar}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--split", default="train")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    reverbs = dataset.reverbs(given.split)
    questions = list(dataset.questions(given.split))
    scenes = list(dict.fromkeys(question.scene for question in questions))
    heard = [reverbs[source.reverb_id] for scene in scenes for source in scene]

    print(f"{given.data}, {given.split}: {len(questions):,} questions about {len(scenes):,} scenes")
    histogram("azimuth", "°", (r.position.azimuth for r in heard), [float(a) for a in range(0, 361, 30)])
    histogram("elevation", "°", (r.position.elevation for r in heard), [float(e) for e in range(-90, 91, 15)])
    histogram("distance", "m", (r.position.distance for r in heard), [0.5, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10.01])
    histogram("RT60", "s", (r.extra["rt60"] for r in heard if "rt60" in r.extra), [n / 20 for n in range(2, 20)])
    histogram(
        "direct to reverberant",
        "dB",
        (r.extra["drr"] for r in heard if "drr" in r.extra),
        [float(d) for d in range(-24, 25, 4)],
    )

    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        answers[question.question_type][question.answer] += 1
    print("\nmost frequent answers")
    for kind, counts in answers.items():
        total = sum(counts.values())
        common = ", ".join(f"{answer} {count / total:.1%}" for answer, count in counts.most_common(3))
        print(f"  {kind:<28} {total:6,}  {common}")


if __name__ == "__main__":
    main()
