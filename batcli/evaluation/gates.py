"""Gates: limits that the options set on scores, for continuous integration."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from batcli.core.errors import InputError
from batcli.evaluation.report import UNITS, System, Verdict
from batcli.evaluation.stats import Score


class Gate(NamedTuple):
    """A limit that a metric must keep, or the command ends with an error code."""

    name: str  # TYPE.metric or FAMILY.metric
    over: bool  # True: upper limit; False: lower limit
    limit: float  # fraction 0…1, metres or degrees


def parse_gates(fail_under: Sequence[str], fail_over: Sequence[str]) -> list[Gate]:
    """Parse `TYPE.metric=LIMIT` or `FAMILY.metric=LIMIT` texts. Raises InputError for any other text."""
    gates = []
    for over, texts in ((False, fail_under), (True, fail_over)):
        for text in texts:
            flag = "--fail-over" if over else "--fail-under"
            name, _, value = text.partition("=")
            try:
                limit = float(value)
            except ValueError:
                limit = math.nan
            if "." not in name or not math.isfinite(limit):
                raise InputError(f"not a gate: {text!r:.80}", flag, "such as DOA.doa_acc=0.4 or E.binary_acc=0.6")
            if abs(limit) > 1.0 and name.rpartition(".")[2].strip() not in UNITS:
                raise InputError(f"{text}: scores are fractions", flag, f"did you mean {limit / 100:g}?")
            gates.append(Gate(name.strip(), over, limit))
    return gates


def judge(systems: Sequence[System], gates: Sequence[Gate]) -> list[Verdict]:
    """Compare each system's metrics with each limit. A metric that a system lacks fails."""
    return [
        Verdict(system.name, name, over, limit, (system.find(name) or Score(math.nan)).value)
        for system in systems
        for name, over, limit in gates
    ]
