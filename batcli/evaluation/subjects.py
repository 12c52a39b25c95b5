"""What is scored: answers to questions, or what encoders hear. Of each: titles, and the published table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from batcli.data.question_types import QUESTION_TYPES

LOWER_IS_BETTER = ("der", "distance_mae", "er20", "mae")

METRICS_IN_WORDS = {
    "map": "names (mAP)",
    "label_f1": "names (F1)",
    "doa_acc": "octant",
    "lr_acc": "left/right",
    "fb_acc": "front/back",
    "ud_acc": "above/below",
    "der": "off > 0.5 m",
    "distance_mae": "metres off",
    "binary_acc": "yes or no",
    "choice_acc": "side",
    "source_acc": "which one",
    "answered": "readable",
    "er20": "off > 20°",
    "mae": "degrees off",
    "named": "true name",
}
"""Metric → what it measures, in at most 11 characters."""

TYPES_IN_WORDS = {
    "CLASSIFICATION": "what sounds",
    "DOA": "where the source is",
    "MIXUP_SINGLE_CLASSIFICATION": "which of two is there",
    "MIXUP_SINGLE_DOA": "where one of two is",
    "MIXUP_DIRECTION": "yes or no: direction",
    "MIXUP_DISTANCE_BOTH": "yes or no: distance",
    "MIXUP_NONBINARY_DIRECTION": "on which side of the other",
    "MIXUP_NONBINARY_DISTANCE": "how far from each other",
    "MIXUP_NONBINARY_SOURCE": "which of two it is",
    "DOA_PLANE": "where, near a plane",
    "MIXUP_SINGLE_CLASSIFICATION_PLANE": "which is there, near a plane",
    "MIXUP_SINGLE_DOA_PLANE": "where one of two is, near a plane",
}
"""Question type → what its questions ask."""

Columns = Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]]
"""The published table: heading → column → (type, metric) of the scores whose mean it is."""


@dataclass(frozen=True)
class Subject:
    """What a table of scores is about."""

    titles: Mapping[str, str]  # type → its title in tables
    families: Mapping[str, str]  # type → its family, or ""
    columns: Columns
    published: Mapping[str, Mapping[str, float]]  # system → "heading column" → fraction, metres or degrees
    embedder: str | None  # what the published mAP compares texts with; None: no texts
    units: str = "per cent"  # of the published table
    scored: str = "questions"  # what is compared between two systems
    independent: str = "questions"  # what is right or wrong


def paper_name(heading: str, column: str) -> str:
    """The name of a column of the published table, such as `mAP A`."""
    return f"{heading} {column}".rstrip()


# ---- answers to questions ------------------------------------------------------------------------

HEADINGS = {"map": "mAP", "label_f1": "label F1", "doa_acc": "DoA", "der": "DER", "binary_acc": "BA"}
"""Metric → heading in the published table. Label F1 is not in that: it stands beside mAP because it needs no
embedder."""

_NONE = math.nan
_NAMES = ("mAP A", "mAP C", "DoA B", "DoA D", "DER B", "DER D", "BA direction", "BA distance", "BA avg")
_ROWS = {
    "random": (0.61, 0.59, 12.57, 12.41, 67.33, 67.46, 50.0, 50.0, 50.0),
    "mono BAT": (24.15, 6.42, 14.31, 11.93, 34.17, 56.26, 57.69, 51.36, 54.33),
    "one-stage BAT": (26.23, 9.06, 76.49, 37.09, 29.28, 51.62, 65.12, 81.98, 73.55),
    "BAT (paper)": (26.34, 9.89, 75.54, 37.65, 29.16, 47.90, 69.77, 84.01, 76.89),
    "BAT (SLAM-LLM)": (25.08, 8.27, 72.73, 35.07, 34.10, 52.82, 69.84, 80.36, 75.10),
    "OWL (2025)": (26.76, 12.73, 78.31, 43.15, 26.14, 43.21, 71.21, 86.91, 79.06),
    "SAIL (2026)": (_NONE, 10.02, _NONE, 46.65, _NONE, 47.25, _NONE, _NONE, 81.44),
}


def _answer_columns() -> Columns:
    columns: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
        heading: {
            question_type.column: ((name, metric),)
            for name, question_type in QUESTION_TYPES.items()
            if question_type.column and question_type.has(metric)
        }
        for metric, heading in HEADINGS.items()
    }
    columns["BA"]["avg"] = tuple(key for keys in columns["BA"].values() for key in keys)
    return columns


ANSWERS = Subject(
    titles={name: question_type.title for name, question_type in QUESTION_TYPES.items()},
    families={name: question_type.family for name, question_type in QUESTION_TYPES.items()},
    columns=_answer_columns(),
    published={
        system: {name: percent / 100.0 for name, percent in zip(_NAMES, row, strict=True)}
        for system, row in _ROWS.items()
    },
    embedder="OpenAI",
)
"""The published rows are of the test set of SpatialSoundQA, with OpenAI embeddings."""

# ---- what encoders hear --------------------------------------------------------------------------

ONE_SOURCE, TWO_SOURCES = "ONE_SOURCE", "TWO_SOURCES"
_HEARD = {"map": "mAP", "er20": "ER20", "mae": "MAE", "der": "DER"}  # metric → heading
_ENCODERS = {
    "Spatial-AST (paper)": (49.74, 24.21, 18.00, 32.38),
    "Spatial-AST (rerun)": (49.90, 24.43, 17.87, 32.50),
    "DSpAST (2025)": (54.53, 20.28, 14.44, 28.03),
}

HEARING = Subject(
    titles={ONE_SOURCE: "one source", TWO_SOURCES: "two sources"},
    families={ONE_SOURCE: "", TWO_SOURCES: ""},
    columns={heading: {"": ((ONE_SOURCE, metric),)} for metric, heading in _HEARD.items()},
    published={
        system: dict(zip(_HEARD.values(), (row[0] / 100, row[1] / 100, row[2], row[3] / 100), strict=True))
        for system, row in _ENCODERS.items()
    },
    embedder=None,
    units="per cent, MAE in °",
    scored="scenes",
    independent="sources",
)
"""The published rows are of the 17,148 clips of AudioSet's evaluation set with 355 classes, one source each; the
rerun is that of DSpAST's authors."""
