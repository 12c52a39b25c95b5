"""What the model makes of sound that did not go through the head it was trained on.

    python examples/heads.py quickstart/run quickstart/data -o heads

The evaluation scenes of DATA again: the same rooms, places, clips and questions, heard

- as trained: with the head of DATA itself (KEMAR in the quickstart),
- larger: by a head like KEMAR whose ears and width are 10 % larger (people differ by that much in
  scale: Middlebrooks, J. Acoust. Soc. Am. 106, 1480, 1999). Needs the extra `sofa`;
- sphere: by a rigid sphere with a simple pinna and torso, which has little in common with KEMAR
  above 3 kHz,
- panned: as a stereo mix has it: one microphone without a head, the same at both ears but for the
  level, by the constant-power law,
- mono: by one microphone, the same at both ears,

and with each SOFA file that `--sofa` names. Prints a table in Markdown; A to D are the families of
questions with one answer for each scene. Rooms and answers are kept in the folder: run again, it
goes on. It takes some three minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from batcli.audio.hrtf import AZIMUTHS, ELEVATIONS, PHASES, kemar
from batcli.audio.io import write_brir
from batcli.core.errors import BatError, InputError
from batcli.core.files import inside, read_json
from batcli.data.constants import SAMPLE_RATE
from batcli.data.dataset import Dataset, extend_dataset, open_dataset
from batcli.data.metadata import Reverb, read_reverbs
from batcli.data.schema import Question
from batcli.decode import decode
from batcli.evaluation.report import System, shown
from batcli.options import DecodeOptions, RoomsOptions, ScoreOptions
from batcli.prepare.rooms import rooms
from batcli.score import score
from batcli.ui import Terminal

FAMILIES = "ABCD"
CROSSTALK = 1e-3  # −60 dB between the two channels of a mixing desk
LARGER = 1.1
ROWS = (
    ("one source: what (label F1)", "CLASSIFICATION", "label_f1"),
    ("left or right", "DOA", "lr_acc"),
    ("front or behind", "DOA", "fb_acc"),
    ("above or below", "DOA", "ud_acc"),
    ("all three", "DOA", "doa_acc"),
    ("distance off by more than 0.5 m", "DOA", "der"),
    ("two sources: what is there (label F1)", "MIXUP_SINGLE_CLASSIFICATION", "label_f1"),
    ("left or right", "MIXUP_SINGLE_DOA", "lr_acc"),
    ("front or behind", "MIXUP_SINGLE_DOA", "fb_acc"),
    ("above or below", "MIXUP_SINGLE_DOA", "ud_acc"),
    ("all three", "MIXUP_SINGLE_DOA", "doa_acc"),
    ("distance off by more than 0.5 m", "MIXUP_SINGLE_DOA", "der"),
)


def room_options(data: Dataset, split: str, reverb: Path, **changes: str) -> RoomsOptions:
    """The options that DATA's rooms were made with, for `reverb`. Raises InputError for rooms from elsewhere."""
    file = data.path(data.split(split).reverbs or "")
    content = read_json(file)
    try:
        made, count = content["settings"], content["rooms"]
        size = "x".join(f"{made['size'][i]:g}" for i in (0, 2, 1)) if made["size"] else ""
        return RoomsOptions(
            reverb=reverb,
            rooms=count,
            sources=made["sources"],
            split=made["split"],
            rt60=":".join(f"{limit:g}" for limit in made["rt60"]),
            size=size,
            max_distance=made["max_distance"],
            spread=made["spread"],
            seed=made["seed"],
            **changes,
        )
    except (KeyError, TypeError):
        raise InputError("not written by `bat prepare rooms`", file, "the same rooms cannot be made again") from None


def write_larger(path: Path) -> str:
    """KEMAR's responses as a SOFA file that says they were sampled more slowly: everything is 10 % longer."""
    try:
        import sofar
    except ModuleNotFoundError:
        raise InputError("the larger head needs the extra 'sofa'", hint="pip install 'batcli[sofa]'") from None
    rows, columns = np.meshgrid(ELEVATIONS, AZIMUTHS, indexing="ij")
    content = sofar.Sofa("SimpleFreeFieldHRIR")
    content.Data_IR = kemar().bank[::PHASES].astype(float)  # with its delays
    content.Data_SamplingRate = round(SAMPLE_RATE / LARGER)
    content.Data_Delay = np.zeros((1, 2))
    content.SourcePosition = np.stack([(columns.ravel() - 90.0) % 360, rows.ravel(), np.full(rows.size, 1.5)], -1)
    content.ReceiverPosition = np.array([[0, 0.09, 0], [0, -0.09, 0]])
    path.parent.mkdir(parents=True, exist_ok=True)
    sofar.write_sofa(str(path), content)
    return str(path)


def write_without_head(point: Path, reverb: Path, reverbs: Iterable[Reverb], panned: bool) -> None:
    """Responses of one microphone as BRIRs: alike at both ears, or panned by the source's place to the side."""
    for one in reverbs:
        response = np.load(inside(point / "mono", one.reverb_id), allow_pickle=False)[0]
        side = one.source[0] / one.position.distance if panned else 0.0  # −1 left … 1 right
        angle = (side + 1) * math.pi / 4
        gains = math.sqrt(2) * np.maximum([[math.cos(angle)], [math.sin(angle)]], CROSSTALK)
        write_brir(inside(reverb / "binaural", one.reverb_id), gains * response)


def same_places(one: dict[str, Reverb], other: dict[str, Reverb]) -> bool:
    return all(key in other and math.dist(reverb.source, other[key].source) < 1e-3 for key, reverb in one.items())


def hear_through(data: Dataset, split: str, questions: list[Question], reverb: Path, folder: Path) -> Path:
    """A dataset with `questions` of DATA about scenes in `reverb`."""
    made = extend_dataset(folder, data.path(data.audio_root), reverb, data.path(data.labels_file), data.seconds)
    made.add_split(split, questions, None, None)
    made.save()
    return folder


def table(systems: list[System]) -> str:
    first = systems[0].by_type
    lines = [["per cent", "n", *(system.name for system in systems)]]
    for name, kind, metric in ROWS:
        cells = [shown(system.by_type[kind].scores.get(metric), metric) for system in systems]
        lines.append([name, str(first[kind].n), *cells])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("heads"), help="folder for rooms and answers")
    parser.add_argument("--split", default="eval")
    parser.add_argument("--limit", type=int, help="only the first N questions [default: all]")
    parser.add_argument("--sofa", type=Path, action="append", default=[], help="a further head; repeatable")
    parser.add_argument("--jobs", type=int, help="processes [default: one per processor]")
    given = parser.parse_args()
    try:
        print(compare(given.run, given.data, given.output, given.split, given.limit, given.sofa, given.jobs))
    except BatError as error:
        parser.exit(error.exit_code, f"heads.py: {error}\n")


def compare(
    run: Path,
    root: Path,
    output: Path,
    split: str = "eval",
    limit: int | None = None,
    sofa: Iterable[Path] = (),
    jobs: int | None = None,
) -> str:
    """The table. Raises InputError for data whose rooms cannot be made again."""
    terminal = Terminal()
    data = open_dataset(root)
    questions = [question for question in data.questions(split) if question.family in FAMILIES]
    questions = questions[:limit]
    reverbs = data.reverbs(split)
    used = [reverbs[key] for key in dict.fromkeys(source.reverb_id for q in questions for source in q.scene)]
    folders = {"as trained": data.path(data.reverb_root)}
    heads = {"larger": write_larger(output / "larger.sofa"), "sphere": "sphere"}
    heads |= {path.stem: str(path) for path in sofa}
    for name, head in heads.items():
        folders[name] = output / name / "reverb"
        made = rooms(room_options(data, split, folders[name], hrtf=head, jobs=jobs), terminal)
        if not same_places({reverb.reverb_id: reverb for reverb in used}, read_reverbs(made)):
            raise InputError("other rooms than those of DATA", made, "make DATA anew with this version")
    rooms(room_options(data, split, output / "point", channels="mono", jobs=jobs), terminal)
    for name in ("panned", "mono"):
        folders[name] = output / name / "reverb"
        write_without_head(output / "point", folders[name], used, panned=name == "panned")
    answers = []
    for name, reverb in folders.items():
        scenes = hear_through(data, split, questions, reverb, output / name)
        answers.append(output / f"{name}.jsonl")
        decode(DecodeOptions(run=run, data=scenes, split=split, output=answers[-1], workers=jobs), terminal)
    found = score(ScoreOptions(predictions=answers), terminal)
    return table(found.systems)


if __name__ == "__main__":
    main()
