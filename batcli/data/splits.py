"""Divide recordings among the splits train, dev and eval, so that none of one origin is in two."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from batcli.core.progress import Reporter
from batcli.data.recordings import Recording, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "dev", "eval")
"""From the least held out to the most."""


def draw_splits(
    recordings: Sequence[Recording], test_share: float, dev_share: float, seed: int, reporter: Reporter
) -> dict[str, SplitName]:
    """Group → split.

    The source's own splits count; a group that they divide goes to the most held out of its splits, with a
    warning. What the source leaves open is drawn by group and class: `test_share` for eval and `dev_share` for dev,
    where the source has no such split.
    """
    groups: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.group].append(recording)
    drawn: dict[str, SplitName] = {}
    divided = 0
    for group, members in groups.items():
        if splits := {member.split for member in members if member.split is not None}:
            drawn[group] = max(splits, key=SPLITS.index)
            divided += len(splits) > 1
    if divided:
        what = "groups are in more than one split of the source"
        reporter.warn(f"{divided:,} {what}; each was put into one, the most held out")
    theirs = set(drawn.values())
    shares = {"eval": 0.0 if "eval" in theirs else test_share, "dev": 0.0 if "dev" in theirs else dev_share}
    by_class: dict[str, list[str]] = defaultdict(list)
    for group, members in groups.items():
        if group not in drawn:
            by_class[members[0].tags[0].mid].append(group)
    for names in by_class.values():
        drawn |= _deal(sorted(names, key=lambda group: _random(seed, group)), shares)
    return drawn


def _random(seed: int, group: str) -> bytes:
    """A number that orders the groups, and does not change when others come."""
    return hashlib.blake2b(f"{seed} {group}".encode()).digest()


def _deal(groups: Sequence[str], shares: Mapping[str, float]) -> dict[str, SplitName]:
    """Group of one class → split. A share that is not 0 gets a group, if one is left for training."""
    dealt: dict[str, SplitName] = dict.fromkeys(groups, "train")
    at = 0
    for split in reversed(SPLITS[1:]):
        wanted = max(1, round(shares[split] * len(groups))) if shares[split] else 0
        count = max(0, min(wanted, len(groups) - 1 - at))
        dealt |= dict.fromkeys(groups[at : at + count], split)
        at += count
    return dealt
