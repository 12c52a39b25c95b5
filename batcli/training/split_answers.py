"""Answer questions about scenes of a dataset, window by window, as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batcli.core.progress import Reporter
from batcli.core.streams import ERROR, Record
from batcli.data.dataset import Dataset
from batcli.data.schema import Question
from batcli.model.answering import LoadedModel, answer, require_window
from batcli.model.bat import Encoding
from batcli.training.encodings import Encodings, encode_windows
from batcli.training.scenes import threads_for

Numbered = tuple[int, Question]  # (place in the split, question)


def answer_split(
    loaded: LoadedModel,
    dataset: Dataset,
    questions: Sequence[Numbered],
    size: int,
    workers: int | None,
    reporter: Reporter,
) -> Iterator[tuple[int, Record]]:
    """(place, prediction record) of each question, in the order given; `size` questions at a time.

    `workers`: processes that render; None: one per processor.
    """
    require_window(loaded, [question.question for _, question in questions])
    scenes = [question.scene for _, question in questions]
    for window, encodings in encode_windows(loaded, dataset, scenes, workers, reporter):
        yield from _answer_window(loaded, questions[window], encodings, size, reporter)


def _answer_window(
    loaded: LoadedModel, window: Sequence[Numbered], encodings: Encodings, size: int, reporter: Reporter
) -> Iterator[tuple[int, Record]]:
    """The same for one window: in batches of `size` questions of like length, then in the order given."""
    found: dict[int, Record] = {}
    audible = []
    for position, question in window:
        encoding = encodings[question.scene]
        if isinstance(encoding, Encoding):
            audible.append((position, question, encoding))
        else:
            found[position] = {**question.to_dict(), "prediction": None, ERROR: encoding}
    audible.sort(key=lambda item: len(item[1].question))
    with threads_for(loaded.model):
        for start in reporter.track(range(0, len(audible), size), "answering"):
            batch = audible[start : start + size]
            texts = answer(loaded, [q.question for _, q, _ in batch], Encoding.concat([e for _, _, e in batch]))
            for (position, question, _), text in zip(batch, texts, strict=True):
                found[position] = {**question.to_dict(), "prediction": text}
    for position, _ in window:
        yield position, found[position]
