"""What more rooms and more clips bring to hearing: training on parts of a dataset, measured on all of `eval`.

    python examples/recipes/data_curve.py DATA OUT [--rooms 44,175,700] [--clips 5,10,40] [--scenes 18000]

Each row is a training of the encoder on as many drawn scenes as every other, from the first so many rooms,
or the first so many clips of each class, of the training split.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path

from batcli.core.files import read_json, write_json
from batcli.data.dataset import Dataset, open_dataset
from batcli.options import TrainOptions
from batcli.train import train
from batcli.training.log import VALIDATION, read_log

EVERYTHING = 10**9


def part(whole: Dataset, rooms: int, clips: int, folder: Path) -> Dataset:
    """A dataset in `folder` with the audio of `whole`, but fewer training rooms and clips."""
    split = whole.split("train")
    assert split.clips is not None
    assert split.reverbs is not None
    reverbs = read_json(whole.path(split.reverbs))["data"]
    first = sorted({entry["fname"].split("/")[0] for entry in reverbs})[:rooms]
    reverbs = [entry for entry in reverbs if entry["fname"].split("/")[0] in first]
    seen: Counter[str] = Counter()
    kept = []
    for entry in read_json(whole.path(split.clips)):
        seen[entry["label"][0]] += 1
        if seen[entry["label"][0]] <= clips:
            kept.append(entry)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "reverbs.json", {"data": reverbs})
    write_json(folder / "clips.json", kept)
    root = whole.root.resolve()
    roots = {name: str(root / getattr(whole, name)) for name in ("audio_root", "reverb_root", "labels_file")}
    smaller = Dataset(folder, **roots, seconds=whole.seconds, seed=whole.seed)
    smaller.splits["train"] = replace(
        split, file=str(root / split.file), reverbs=str(folder / "reverbs.json"), clips=str(folder / "clips.json")
    )
    held_out = whole.split("eval")
    paths = {name: str(root / getattr(held_out, name)) for name in ("file", "clips", "reverbs")}
    smaller.splits["eval"] = replace(held_out, **paths)
    smaller.save()
    return smaller


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rooms", default="44,175,700")
    parser.add_argument("--clips", default="5,10,40")
    parser.add_argument("--scenes", type=int, default=18_000)
    given = parser.parse_args()
    whole = open_dataset(given.data)
    sizes = [(int(rooms), EVERYTHING) for rooms in given.rooms.split(",")]
    sizes += [(EVERYTHING, int(clips)) for clips in given.clips.split(",")]
    print("rooms  clips  one: off 20°  mean error  distance off  two: off 20°  mean error  distance off   mAP")
    for rooms, clips in sizes:
        folder = given.out.resolve() / f"{min(rooms, 10**6)}-{min(clips, 10**6)}"
        smaller = part(whole, rooms, clips, folder / "data")
        options = {"data": smaller.root, "output": folder / "run", "stages": "encoder", "overwrite": True}
        recipe = [f"source_scenes={given.scenes}"]
        train(TrainOptions(**options, set=recipe, validate="eval", validate_scenes=800))
        found = [
            r for r in read_log(folder / "run" / "log.jsonl") if (r["kind"], r["stage"]) == (VALIDATION, "sources")
        ][-1]
        counts = len({r.scene for r in smaller.reverbs("train").values()}), len(smaller.clips("train"))
        columns = [
            f"{100 * f['er20']:>10.1f} %{f['mae']:>10.1f} °{100 * f['der']:>12.1f} %"
            for f in (found["one"], found["two"])
        ]
        print(f"{counts[0]:>5,}  {counts[1]:>5,}{'  '.join(columns)}{100 * found['map']:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
