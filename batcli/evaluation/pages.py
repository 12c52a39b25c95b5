"""Answers behind the scores: those that could not be read, and the page with the worst of each type."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from batcli.core.errors import InputError
from batcli.core.files import inside, write_text
from batcli.core.jsonl import read_records
from batcli.data.dataset import Dataset
from batcli.data.metadata import Reverb
from batcli.data.schema import QUESTION_TYPES, Source
from batcli.evaluation.predictions import NOT_SAID, PLACE_TYPES, Answered, Predictions
from batcli.evaluation.report import Scores, finite
from batcli.evaluation.scores import Marks, Measured
from batcli.questions.answers import read_distance, write_doa

WORST = 6
"""Cases of each type on the page."""


def unparsed(answers: Iterator[Answered], file: Predictions, measured: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """The records whose answer could not be read in full, with the parts that were not."""
    missing: dict[int, list[str]] = {}
    for found in measured:
        for part, unread in found.marks.unread.items():
            for row in found.rows[unread].tolist():
                missing.setdefault(row, []).append(part)
    for row, answer in enumerate(answers):
        if row in missing:
            said = int(file.said[row])
            text = None if said == NOT_SAID else file.texts[said]
            yield {**finite(answer.record), "prediction": text, "not_read": missing[row]}


def write_report(
    report: Path,
    result: Scores,
    answers: Iterator[Answered],
    file: Predictions,
    measured: Sequence[Measured],
    dataset: Dataset | None,
    scenes: Path | None,
) -> None:
    """`index.html` in the folder `report`, about the first system, whose predictions are `file`."""
    import pandas

    from batcli.evaluation.html import AXES, Case, html_report

    reverbs = _all_reverbs(dataset) if dataset else {}
    links = _scene_links(scenes, report) if scenes else {}
    worst = {row: order for found in measured for order, row in enumerate(_worst(found))}
    with_distance = {
        int(row): (found.marks, place)
        for found in measured
        if found.marks.said_metres is not None
        for place, row in enumerate(found.rows)
    }
    places, cases = [], []
    for row, answer in enumerate(answers):
        if row in with_distance:
            places.append(_located(answer, *with_distance[row], reverbs))
        if row in worst:
            said = int(file.said[row])
            text = "(no answer)" if said == NOT_SAID else file.texts[said]
            files = links.get(answer.scene) or _source_links(answer.scene, dataset, report)
            case = Case(answer.kind, answer.question, answer.truth, text, " + ".join(answer.scene), files)
            cases.append((QUESTION_TYPES.index(answer.kind), worst[row], case))
    frame = pandas.DataFrame(places, columns=["kind", "truth", "said", "near", "right", *AXES])
    ordered = [case for _, _, case in sorted(cases, key=lambda entry: entry[:2])]
    write_text(report / "index.html", html_report(result, frame, ordered))


def _worst(found: Measured) -> list[int]:
    """Rows of the worst answers, the worst first."""
    badness = found.marks.badness()
    return [int(found.rows[place]) for place in np.argsort(-badness, kind="stable")[:WORST] if badness[place] > 0]


def _located(answer: Answered, found: Marks, place: int, reverbs: Mapping[str, Reverb]) -> dict[str, Any]:
    """One row of the page's pictures."""
    assert found.said_metres is not None
    row = {
        "kind": answer.kind,
        "truth": read_distance(answer.truth),
        "said": found.said_metres[place],
        "near": 1.0 - found.parts["der"][0][place],
    }
    row["distance"] = row["truth"]
    if answer.kind not in PLACE_TYPES:
        return row
    row["right"] = found.parts["doa_acc"][0][place]
    # Which of two sources was asked about, the true answer tells; if both fit, neither is taken.
    fitting = [
        reverb
        for name in answer.scene[1::2]
        if (reverb := reverbs.get(name)) and write_doa(reverb.position) == answer.truth
    ]
    if len(fitting) == 1:
        position, extra = fitting[0].position, fitting[0].extra
        row |= {"azimuth": position.azimuth, "elevation": position.elevation, "distance": position.distance}
        row |= {name: extra[name] for name in ("rt60", "drr") if isinstance(extra.get(name), (int, float))}
    return row


def _all_reverbs(dataset: Dataset) -> dict[str, Reverb]:
    found: dict[str, Reverb] = {}
    for name, split in dataset.splits.items():
        if split.reverbs is not None:
            found |= dataset.reverbs(name)
    return found


def _address(path: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix())


def _scene_links(folder: Path, report: Path) -> dict[tuple[str, ...], list[tuple[str, str]]]:
    """Of the scenes that `bat spatialize` rendered: ids → link to the WAV."""
    links = {}
    for where, record in read_records(folder / "scenes.jsonl"):
        try:
            ids = tuple(part for source in record["sources"] for part in (source["audio_id"], source["reverb_id"]))
            if record["file"] is not None:
                links[ids] = [(record["file"], _address(inside(folder, record["file"], where), report))]
        except (KeyError, TypeError):
            raise InputError("not a scene of `bat spatialize`", where) from None
    return links


def _source_links(scene: Sequence[str], dataset: Dataset | None, report: Path) -> list[tuple[str, str]]:
    """Clips and BRIRs of a scene, where the dataset is known."""
    if dataset is None:
        return []
    files = [path for pair in zip(scene[::2], scene[1::2], strict=True) for path in dataset.files_of(Source(*pair))]
    return [(path.name, _address(path, report)) for path in files if path.exists()]
