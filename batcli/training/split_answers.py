"""Answer questions about scenes of a dataset, window by window, as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from batcli.core.progress import Reporter
from batcli.core.streams import ERROR, Record
from batcli.data.dataset import Dataset
from batcli.data.schema import Question
from batcli.model.answering import LoadedModel, answer, require_window
from batcli.model.bat import Encoding
from batcli.training.encodings import encode_windows
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
    answered = reporter.track(
        _answered(loaded, dataset, questions, size, workers, reporter), "questions", len(questions)
    )
    found: dict[int, Record] = {}
    for position, _ in questions:
        while position not in found:
            found.update([next(answered)])
        yield position, found.pop(position)
    next(answered, None)  # which ends the bar


def _answered(
    loaded: LoadedModel,
    dataset: Dataset,
    questions: Sequence[Numbered],
    size: int,
    workers: int | None,
    reporter: Reporter,
) -> Iterator[tuple[int, Record]]:
    """The same in the order of answering: window by window, within each in batches of questions of like length."""
    scenes = [question.scene for _, question in questions]
    for window, encodings in encode_windows(loaded, dataset, scenes, workers, reporter):
        audible = []
        for position, question in questions[window]:
            encoding = encodings[question.scene]
            if isinstance(encoding, Encoding):
                audible.append((position, question, encoding))
            else:
                yield position, {**question.to_dict(), "prediction": None, ERROR: encoding}
        audible.sort(key=lambda item: len(item[1].question))
        for start in range(0, len(audible), size):
            batch = audible[start : start + size]
            with threads_for(loaded.model):
                texts = answer(loaded, [q.question for _, q, _ in batch], Encoding.concat([e for _, _, e in batch]))
            for (position, question, _), text in zip(batch, texts, strict=True):
                yield position, {**question.to_dict(), "prediction": text}
