"""Files of predictions, of `bat decode` or of other systems, as columns that can be scored."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from batcli.core.errors import InputError
from batcli.core.files import STDIO, require_file
from batcli.core.jsonl import numbered_lines, require_utf8
from batcli.core.progress import Reporter
from batcli.core.records import opened, read_records
from batcli.data.answers import Vocabulary, split_labels, words_of
from batcli.data.question_types import QUESTION_TYPES
from batcli.data.schema import FIELDS, parse_question

NO_ANSWER = -1  # in place of a text's number
NO_ID = 0


class Prediction(NamedTuple):
    """One question with its true and its predicted answer."""

    where: str  # file:line
    type_name: str
    scene: tuple[str, ...]  # ids of clips and BRIRs; empty where the file has none
    question: str
    target: str
    predicted: str | None
    record: Mapping[str, Any]
    id: int | str | None = None  # the question's in its file; not always unique

    @property
    def room(self) -> tuple[str, ...]:
        return tuple(sorted({reverb_id.rpartition("/")[0] for reverb_id in self.scene[1::2]}))


@dataclass(frozen=True)
class Layout:
    """The layout of a file's records, for files that `bat decode` did not write."""

    fields: Mapping[str, str]  # our name → theirs; empty: the project's own records, checked strictly
    type_name: str = ""  # question type of every record, where the file does not say
    questions_only: bool = False  # there need be no predictions


@dataclass(frozen=True)
class File:
    """A file of predictions. `path` is a copy where they came through standard input."""

    path: Path
    name: str  # of the column in tables
    shown: str  # in messages


@dataclass(frozen=True)
class Predictions:
    """The predictions of a file as columns: 34 bytes a question, and each distinct answer once."""

    name: str
    types: np.ndarray  # (n,) int8: place in QUESTION_TYPES
    clusters: np.ndarray  # (n,) uint64: hash of what a bootstrap draws together, such as the scene
    questions: np.ndarray  # (n,) uint64: hash of scene, type, wording and true answer
    ids: np.ndarray  # (n,) uint64: hash of the question's id, or NO_ID
    has_scene: np.ndarray  # (n,) bool: whether the question names its scene
    targets: np.ndarray  # (n,) int32: place in `texts` of the true answer
    predicted: np.ndarray  # (n,) int32: place in `texts` of the predicted answer, or NO_ANSWER
    texts: list[str]
    looks_published: int = 0  # questions about AudioSet evaluation clips in Matterport3D rooms
    answered: bool = True  # False: questions alone, without predictions

    def __len__(self) -> int:
        return len(self.types)

    def rows(self, type_name: str) -> np.ndarray:
        """Indices of the questions of one type, ascending."""
        return np.flatnonzero(self.types == list(QUESTION_TYPES).index(type_name))

    def answer(self, row: int) -> str | None:
        """The predicted answer to one question."""
        number = int(self.predicted[row])
        return None if number == NO_ANSWER else self.texts[number]

    def only(self, rows: np.ndarray) -> Predictions:
        """The predictions of some rows."""
        columns = ("types", "clusters", "questions", "ids", "has_scene", "targets", "predicted")
        return replace(self, **{name: getattr(self, name)[rows] for name in columns})


# ---- reading -------------------------------------------------------------------------------------


@contextmanager
def open_predictions(paths: Sequence[Path]) -> Iterator[list[File]]:
    """Open files of predictions, each with a name of its own. They can be read again, standard input, too."""
    stems = [path.name.removesuffix(".jsonl").removesuffix("_pred") for path in paths]
    clash = {stem for stem in stems if len({path for path, s in zip(paths, stems, strict=True) if s == stem}) > 1}
    names = [str(path) if stem in clash else stem for path, stem in zip(paths, stems, strict=True)]
    if sum(path == STDIO for path in paths) > 1:
        raise InputError("standard input can be read only once", "-")
    with TemporaryDirectory(prefix="bat-score-") as folder:
        files = []
        for path, name in zip(paths, names, strict=True):
            if path != STDIO:
                files.append(File(require_file(path), name, str(path)))
                continue
            copy = Path(folder) / "stdin"
            with open(copy, "wb") as target:
                shutil.copyfileobj(sys.stdin.buffer, target)
            files.append(File(copy, "stdin", "stdin"))
        yield files


def iterate_predictions(file: File, layout: Layout) -> Iterator[Prediction]:
    """Read the predictions of a file, in its order. Raises InputError at the first bad line.

    Three kinds: records of `bat decode`; other systems' JSON records, with the fields of `layout`; and the pair of
    `…_pred` and `…_gt` files of SLAM-LLM, lines of a key and a text.
    """
    targets = file.path.with_name(file.path.name.removesuffix("_pred") + "_gt")
    if file.path.name.endswith("_pred") and targets.is_file():
        return _read_pair(file, targets, layout)
    return (_prediction(record, where, layout) for where, record in read_records(file.path, file.shown))


_SCENE_FIELDS = ("audio_id", "reverb_id", "audio_id2", "reverb_id2")


def _prediction(record: dict[str, Any], where: str, layout: Layout) -> Prediction:
    if layout.fields or layout.type_name:
        return _foreign(record, where, layout)
    question = parse_question(record, where, extra=("prediction", "error"))
    if "prediction" not in record and not layout.questions_only:
        raise InputError("no field 'prediction'", where, "score the output of `bat decode`, not the questions")
    predicted = _text_or_null(record.get("prediction"), "prediction", where)
    scene = tuple(part for source in question.scene for part in source)
    type_name, target = question.question_type, question.answer
    return Prediction(where, type_name, scene, question.question, target, predicted, record, question.question_id)


def _foreign(record: dict[str, Any], where: str, layout: Layout) -> Prediction:
    """A record with other names. Fields that scores need are checked, others ignored."""
    found = {name: record.get(layout.fields.get(name, name)) for name in (*FIELDS, "prediction")}
    type_name = layout.type_name or found["question_type"]
    if not isinstance(type_name, str) or type_name not in QUESTION_TYPES:
        hint = "give --type for all records, or --field question_type=THEIR_NAME; known: " + ", ".join(QUESTION_TYPES)
        raise InputError(f"unknown question type {type_name!r:.80}", where, hint)
    for name in ("answer", "prediction"):
        theirs = layout.fields.get(name, name)
        if theirs not in record and not (name == "prediction" and layout.questions_only):
            raise InputError(f"no field {theirs!r}", where, f"--field {name}=THEIR_NAME")
    target = _text_or_null(found["answer"], "answer", where)
    if target is None:
        raise InputError("no true answer", where)
    scene = tuple(str(found[name]) for name in _SCENE_FIELDS if found[name] not in (None, ""))
    predicted = _text_or_null(found["prediction"], "prediction", where)
    number = found["question_id"]
    if isinstance(number, float) and number.is_integer():  # as tables write whole numbers beside empty cells
        number = int(number)
    if number is not None and (isinstance(number, bool) or not isinstance(number, (int, str))):
        raise InputError(f"a question's id is neither a number nor text: {number!r:.80}", where)
    return Prediction(where, type_name, scene, str(found["question"] or ""), target, predicted, record, number)


def _text_or_null(value: Any, name: str, where: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name!r} is neither text nor null: {value!r:.80}", where)
    return value


def _read_pair(file: File, targets: Path, layout: Layout) -> Iterator[Prediction]:
    """Read predictions and true answers in the two files that SLAM-LLM writes, with lines `TYPE-ID<tab>text`.

    Both have the same keys `TYPE-ID` in the same order. Keys are not unique, so line i belongs to line i.
    """
    with opened(file.path) as (lines, _), opened(targets) as (true, _):
        pairs = zip(numbered_lines(lines, file.shown), numbered_lines(true, targets), strict=True)
        try:
            for (where, line), (true_where, true_line) in pairs:
                require_utf8(line, where)
                require_utf8(true_line, true_where)
                key, tab, predicted = line.rstrip("\n").partition("\t")
                true_key, true_tab, target = true_line.rstrip("\n").partition("\t")
                if not tab or not true_tab:
                    raise InputError("no tab between key and text", where if not tab else true_where)
                if key != true_key:
                    raise InputError(f"key {key!r:.60}, but {true_key!r:.60} in {true_where}", where)
                type_name = layout.type_name or key.rpartition("-")[0]
                if type_name not in QUESTION_TYPES:
                    raise InputError(f"no question type in the key {key!r:.60}", where, "give --type")
                record = {"key": key, "question_type": type_name, "answer": target, "prediction": predicted}
                yield Prediction(where, type_name, (), key, target.strip(), predicted.strip(), record)
        except ValueError:
            raise InputError(f"not as many lines as {targets}", file.shown, "the two belong to one run") from None


def read_predictions(file: File, layout: Layout, cluster: str, reporter: Reporter) -> Predictions:
    """Read a file into columns. Raises InputError at the first bad line, and when there is no line."""
    texts: dict[str, int] = {}
    types, clusters, questions, ids, has_scene = array("b"), array("Q"), array("Q"), array("Q"), array("b")
    targets, predicted = array("i"), array("i")
    checked: set[tuple[str, str]] = set()  # true answers
    published, predictions, splits = 0, 0, Counter[str]()
    numbers = {name: number for number, name in enumerate(QUESTION_TYPES)}
    for one in reporter.track(iterate_predictions(file, layout), f"reading {file.shown}"):
        if (one.type_name, one.target) not in checked:
            _check_target(one)
            checked.add((one.type_name, one.target))
        types.append(numbers[one.type_name])
        drawn = {"scene": one.scene, "room": one.room, "question": ()}[cluster]
        clusters.append(hash_of(*(drawn or (str(len(types)),))))  # what has no scene is drawn alone
        questions.append(hash_of(*one.scene, one.type_name, one.question, one.target))
        ids.append(NO_ID if one.id is None else hash_of(str(one.id)))
        has_scene.append(bool(one.scene))
        targets.append(texts.setdefault(one.target, len(texts)))
        predicted.append(NO_ANSWER if one.predicted is None else texts.setdefault(one.predicted, len(texts)))
        predictions += layout.fields.get("prediction", "prediction") in one.record
        published += looks_published(one.scene)
        splits.update(_splits_in(one.scene))
    if not types:
        raise InputError("no predictions", file.shown, "is this the output of `bat decode`?")
    found = Predictions(
        file.name,
        np.array(types),
        np.array(clusters),
        np.array(questions),
        np.array(ids),
        np.array(has_scene, dtype=bool),
        np.array(targets),
        np.array(predicted),
        texts=list(texts),
        looks_published=published,
        answered=predictions > 0,
    )
    if 0 < predictions < len(found):
        missing = len(found) - predictions
        raise InputError(
            f"{missing:,} of {len(found):,} records have no field 'prediction'", file.shown, "decode again"
        )
    _warn(found, splits, reporter)
    return found


def _warn(found: Predictions, splits: Counter[str], reporter: Reporter) -> None:
    if found.answered and (failed := np.count_nonzero(found.predicted == NO_ANSWER)):
        reporter.warn(
            f"{found.name}: {failed:,} of {len(found):,} questions have no answer (null); they count as wrong"
        )
    distinct = np.where(found.has_scene, found.questions, found.questions ^ found.ids)  # without a scene, the id tells
    if repeated := len(found) - len(np.unique(distinct)):
        reporter.warn(f"{found.name}: {repeated:,} questions stand more than once (scene, type, wording); each counts")
    if len(splits) > 1:
        counts = ", ".join(f"{count:,} {name}" for name, count in splits.most_common())
        reporter.warn(f"{found.name}: the clips are of different splits ({counts}); is this one test set?")


_SPLIT = re.compile(r"(?:^|[/_])(train|eval|valid|test|dev)(?:[/_]|$)")
_EVALUATION_CLIP = re.compile(r"(?:^|/)eval/(?:audio/)?Y[\w-]{11}$")
_MATTERPORT_ROOM = re.compile(r"[A-Za-z0-9]{11}/\d+\.npy")


def _splits_in(scene: Sequence[str]) -> set[str]:
    """Splits that the clips' folders name."""
    return {match[1] for clip in scene[::2] if (match := _SPLIT.search(clip))}


def looks_published(scene: Sequence[str]) -> bool:
    """Whether the ids have the form of the published test set's."""
    clips, rooms = scene[::2], scene[1::2]
    return bool(clips) and all(map(_EVALUATION_CLIP.search, clips)) and all(map(_MATTERPORT_ROOM.fullmatch, rooms))


def hash_of(*parts: str) -> int:
    """A hash of 64 bits that is equal in every process, unlike Python's."""
    return int.from_bytes(hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest(), "little")


def _check_target(one: Prediction) -> None:
    question_type = QUESTION_TYPES[one.type_name]
    if not question_type.is_valid(one.target):
        what = f"the true answer of a {one.type_name} is not {question_type.expected}: {one.target!r:.80}"
        raise InputError(what, one.where)


# ---- which questions are the same ----------------------------------------------------------------


class Pairs(NamedTuple):
    """Rows of the same questions in two files."""

    rows: np.ndarray  # of the first file, ascending
    others: np.ndarray  # of the second
    by_order: int = 0  # pairs that nothing but their order tells from others
    left_out: int = 0  # rows of the first that cannot be told from others, and are not paired


def match_questions(first: Predictions, second: Predictions) -> Pairs:
    """Match the questions that two files share: scene, type, wording and true answer are equal.

    Questions that stand more than once are told apart by their ids. Where these repeat too, or are
    missing, they are paired by their order, the first with the first; without a scene only if both
    files have the same questions in the same order, else they are left out.
    """
    rows, others = _shared(first.questions, second.questions)
    free, other_free = _rest(first, rows), _rest(second, others)
    known, other_known = free[first.ids[free] != NO_ID], other_free[second.ids[other_free] != NO_ID]
    with_ids = (first.questions[known] ^ first.ids[known], second.questions[other_known] ^ second.ids[other_known])
    found, other_found = _shared(*with_ids)
    rows, others = np.append(rows, known[found]), np.append(others, other_known[other_found])
    free, other_free = _rest(first, rows), _rest(second, others)
    left_out = 0
    if not np.array_equal(first.questions, second.questions):
        common = np.isin(first.questions[free], second.questions[other_free])
        left_out = int(np.count_nonzero(common & ~first.has_scene[free]))
        free, other_free = free[first.has_scene[free]], other_free[second.has_scene[other_free]]
    found, other_found = _shared(_numbered(first.questions[free]), _numbered(second.questions[other_free]))
    rows, others = np.append(rows, free[found]), np.append(others, other_free[other_found])
    order = np.argsort(rows)
    return Pairs(rows[order], others[order], len(found), left_out)


def _shared(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places in each of the values that both have exactly once."""
    places = []
    for hashes in (first, second):
        _, starts, counts = np.unique(hashes, return_index=True, return_counts=True)
        places.append(starts[counts == 1])
    _, found, other_found = np.intersect1d(first[places[0]], second[places[1]], True, True)
    return places[0][found], places[1][other_found]


def _rest(file: Predictions, rows: np.ndarray) -> np.ndarray:
    """The rows of a file that are not among `rows`."""
    return np.setdiff1d(np.arange(len(file)), rows)


def _numbered(hashes: np.ndarray) -> np.ndarray:
    """The hashes, with repeated ones made distinct in the same way in every file."""
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    ranks = np.arange(len(hashes)) - np.searchsorted(ordered, ordered)  # among equal ones
    numbered = np.empty_like(hashes)
    numbered[order] = ordered + ranks.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return numbered


def answered_files(
    files: Sequence[Predictions], against: Predictions | None, needed: bool, reporter: Reporter
) -> list[Predictions]:
    """All files, or none where all are questions alone, for the baselines to answer, and no answers are `needed`."""
    missing = [file for file in [*files, *([against] if against else [])] if not file.answered]
    if missing and (needed or against or len(missing) < len(files)):
        raise InputError("questions without predictions", missing[0].name, "only baselines can do with them")
    if missing:
        return []
    for other in files[1:]:
        pairs = match_questions(files[0], other)
        common = len(pairs.rows) + pairs.left_out
        if common < max(len(files[0]), len(other)):
            reporter.warn(
                f"{files[0].name} ({len(files[0]):,} questions) and {other.name} ({len(other):,}) share {common:,}: "
                "their columns are about different questions"
            )
    return list(files)


def align_to_test_set(found: Predictions, whole: Predictions, reporter: Reporter) -> Predictions:
    """The whole test set with the predictions of `found`, none where `found` lacks the question.

    The two files of SLAM-LLM do not tell the scenes, so they must have a line for every question, in the test
    set's order.
    """
    if len(found) == len(whole) and not np.isin(found.questions, whole.questions).any():
        pairs = [(found.texts[f], whole.texts[w]) for f, w in zip(found.targets, whole.targets, strict=True)]
        wrong = [place for place, (f, w) in enumerate(pairs) if f.split() != w.split()]
        if wrong or not np.array_equal(found.types, whole.types):
            place = wrong[0] if wrong else int(np.flatnonzero(found.types != whole.types)[0])
            what = f"answer {place + 1} is to another question than --questions has there"
            raise InputError(what, found.name, "give the file that the answers were made from")
        rows = others = np.arange(len(found))
    else:
        rows, others, *_ = match_questions(whole, found)
    if not len(rows):
        raise InputError("no answer to any of the questions in --questions", found.name)
    if missing := len(whole) - len(rows):
        reporter.warn(f"{found.name}: {missing:,} of {len(whole):,} questions were not answered; they count as wrong")
    if surplus := len(found) - len(rows):
        reporter.warn(f"{found.name}: {surplus:,} answers are to no question of --questions; they are left out")
    predicted, answers = np.full(len(whole), NO_ANSWER, dtype=np.int32), found.predicted[others]
    predicted[rows] = np.where(answers == NO_ANSWER, NO_ANSWER, answers + len(whole.texts))
    return replace(whole, name=found.name, predicted=predicted, texts=[*whole.texts, *found.texts], answered=True)


def vocabulary_of(files: Iterable[Predictions], names: Sequence[str] | None, where: Path | None) -> Vocabulary:
    """The vocabulary to read answers with: `names`, or else all labels of the true answers. Raises InputError."""
    used: set[str] = set()
    for file in files:
        for name, question_type in QUESTION_TYPES.items():
            if "labels" in question_type.parts:
                for text in np.unique(file.targets[file.rows(name)]):
                    used.update(split_labels(file.texts[text]))
    vocabulary = Vocabulary.of(sorted(used) if names is None else names)
    for name in sorted(used):
        if words_of(name) not in vocabulary.by_words:
            raise InputError(f"{name!r} is a true answer, but no label", where, "give the labels of this data")
    return vocabulary


def about_published(file: Predictions) -> str:
    """A note on whether the file can be compared with the published rows."""
    if file.looks_published == len(file):
        return (
            "The published rows are of SpatialSoundQA's test set with OpenAI embeddings. These questions have ids of "
            "its form (AudioSet evaluation clips, Matterport3D rooms); whether they are all of it cannot be told here."
        )
    return (
        f"The published rows are of another test set: {len(file) - file.looks_published:,} of these {len(file):,} "
        "questions are not about AudioSet evaluation clips in Matterport3D rooms. They are for orientation, and do "
        "not compare."
    )
