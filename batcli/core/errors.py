"""Expected errors, and the exit codes of `bat`."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

LONGEST = 1_200  # characters of a part of a message


def shortened(text: str) -> str:
    """The two ends of a text of more than LONGEST characters; any other text unchanged."""
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"


def printable(text: str) -> str:
    """`text` with control characters escaped: names in files may hold sequences that a terminal obeys."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class ExitCode(IntEnum):
    """Exit codes of `bat`."""

    DONE = 0
    UNEXPECTED = 1
    WRONG_INPUT = 2
    GATE_MISSED = 3
    TOO_MANY_BAD = 4
    INTERRUPTED = 130  # 128 + SIGINT
    TERMINATED = 143  # 128 + SIGTERM


class BatError(Exception):
    """An expected failure: shown to the user as one line, without a traceback."""

    exit_code = ExitCode.UNEXPECTED


class InputError(BatError):
    """Wrong usage, configuration or input: what is wrong, where, and what to do about it.

    >>> str(InputError("not a JSON object", where="train.jsonl:7", hint="remove the line"))
    'train.jsonl:7: not a JSON object; remove the line'
    """

    exit_code = ExitCode.WRONG_INPUT

    def __init__(self, what: str, where: str | Path | None = None, hint: str | None = None) -> None:
        self.what = shortened(" ".join(str(what).split()))  # one line, whatever a library put into its message
        self.where = where
        self.hint = hint
        super().__init__(
            printable(
                (f"{shortened(str(where))}: " if where is not None else "") + self.what + (f"; {hint}" if hint else "")
            )
        )

    def __reduce__(self):
        # Errors travel from worker processes to the main one by pickling.
        return type(self), (self.what, self.where, self.hint)


class GateMissed(BatError):
    """A score is under a limit of `--fail-under` or over one of `--fail-over`."""

    exit_code = ExitCode.GATE_MISSED


class TooManyBad(BatError):
    """The work is finished and saved, but more samples were bad than `--max-bad` allows."""

    exit_code = ExitCode.TOO_MANY_BAD


class Stopped(BaseException):
    """A signal asked the process to stop; the work done so far is saved.

    It is no `Exception`, so that code that handles bad samples does not catch it.
    """

    def __init__(self, exit_code: ExitCode) -> None:
        super().__init__("stopped by a signal")
        self.exit_code = exit_code
