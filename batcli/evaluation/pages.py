"""The answers behind the scores: those that could not be read, and the page with the worst of each type."""

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
from batcli.data.answers import write_doa
from batcli.data.dataset import Dataset
from batcli.data.metadata import Reverb
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import Source
from batcli.evaluation.predictions import NO_ANSWER, Prediction, Predictions
from batcli.evaluation.report import Scores, finite
from batcli.evaluation.scores import Measured

WORST = 6
"""Cases of each type on the page."""


def unparsed(
    predictions: Iterator[Prediction], file: Predictions, measured: Sequence[Measured]
) -> Iterator[dict[str, Any]]:
    """The records whose answer could not be read in full, with the parts that were not."""
    missing = {
        row: list(parts)
        for found in measured
        for row, parts in zip(found.rows.tolist(), found.answers.unread, strict=True)
        if parts
    }
    for row, one in enumerate(predictions):
        if row in missing:
            yield {**finite(one.record), "prediction": _predicted(file, row), "not_read": missing[row]}


def _predicted(file: Predictions, row: int) -> str | None:
    number = int(file.predicted[row])
    return None if number == NO_ANSWER else file.texts[number]


def write_report(
    report: Path,
    result: Scores,
    predictions: Iterator[Prediction],
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
        int(row): (found, number)
        for found in measured
        if "distance" in found.answers.question_type.parts
        for number, row in enumerate(found.rows)
    }
    type_names = list(QUESTION_TYPES)
    places, cases = [], []
    for row, one in enumerate(predictions):
        if row in with_distance:
            places.append(_located(one, *with_distance[row], reverbs))
        if row in worst:
            predicted = _predicted(file, row)
            text = "(no answer)" if predicted is None else predicted
            files = links.get(one.scene) or _source_links(one.scene, dataset, report)
            case = Case(one.type_name, one.question, one.target, text, " + ".join(one.scene), files)
            cases.append((type_names.index(one.type_name), worst[row], case))
    frame = pandas.DataFrame(places, columns=["type", "target", "predicted", "near", "right", *AXES])
    ordered = [case for _, _, case in sorted(cases, key=lambda entry: entry[:2])]
    write_text(report / "index.html", html_report(result, frame, ordered))


def _worst(found: Measured) -> list[int]:
    """Rows of the worst answers, the worst first."""
    errors = found.answers.errors
    return [int(found.rows[number]) for number in np.argsort(-errors, kind="stable")[:WORST] if errors[number] > 0]


def _located(one: Prediction, found: Measured, number: int, reverbs: Mapping[str, Reverb]) -> dict[str, Any]:
    """One row of the page's pictures. `number`: of the answer among those of its type."""
    answers = found.answers
    target = answers.targets[number].distance
    row = {
        "type": one.type_name,
        "target": target,
        "predicted": answers.predicted[number].distance,
        "near": 1.0 - answers.ratios["der"][0][number],
        "distance": target,
    }
    if "direction" not in answers.question_type.parts:
        return row
    row["right"] = answers.ratios["doa_acc"][0][number]
    # Which of two sources was asked about, the true answer tells; if both fit, neither is taken.
    fitting = [
        reverb for name in one.scene[1::2] if (reverb := reverbs.get(name)) and write_doa(reverb.position) == one.target
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
