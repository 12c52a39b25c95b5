"""Splits of recordings: groups stay together, the source's own splits count."""

from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batcli.core.progress import SILENT
from batcli.data.recordings import Recording, Tag
from batcli.data.splits import draw_splits


class Warned(type(SILENT)):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def recording(number, label, group=None, split=None):
    return Recording(None, f"r{number}", (Tag.own(label),), group or f"r{number}", split)


def test_shares_are_met_in_every_class():
    recordings = [recording(f"{label}{n}", label) for label in ("dog", "cat") for n in range(50)]
    splits = draw_splits(recordings, 0.2, 0.1, 0, SILENT)
    counts = defaultdict(Counter)
    for each in recordings:
        counts[each.tags[0].name][splits[each.group]] += 1
    assert counts == {"Dog": {"train": 35, "eval": 10, "dev": 5}, "Cat": {"train": 35, "eval": 10, "dev": 5}}


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, {"train": 1}), (2, {"train": 1, "eval": 1}), (3, {"train": 1, "eval": 1, "dev": 1})],
)
def test_few_recordings_train_first(count, expected):
    splits = draw_splits([recording(n, "dog") for n in range(count)], 0.2, 0.1, 0, SILENT)
    assert Counter(splits.values()) == expected


def test_no_share_no_split():
    assert set(draw_splits([recording(n, "dog") for n in range(9)], 0, 0, 0, SILENT).values()) == {"train"}


def test_the_sources_own_splits_count_and_dev_is_drawn_where_it_has_none():
    recordings = [recording(n, "dog", split="eval") for n in range(10)] + [recording(n, "dog") for n in range(10, 50)]
    splits = draw_splits(recordings, 0.5, 0.1, 0, SILENT)
    assert Counter(splits.values()) == {"eval": 10, "train": 36, "dev": 4}
    assert all(splits[f"r{n}"] == "eval" for n in range(10))


def test_a_divided_group_is_held_out_whole_and_told():
    reporter = Warned()
    recordings = [
        recording(0, "dog", "g", "train"),
        recording(1, "dog", "g", "eval"),
        recording(2, "dog", None, "train"),
    ]
    assert draw_splits(recordings, 0.2, 0, 0, reporter) == {"g": "eval", "r2": "train"}
    assert reporter.warnings == [
        "1 groups are in more than one split of the source; each was put into one, the most held out"
    ]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from("abc"), st.sampled_from([None, "train", "dev", "eval"])),
        min_size=1,
        max_size=40,
    ),
    st.integers(0, 5),
)
def test_the_order_of_recordings_does_not_matter(drawn, seed):
    recordings = [recording(n, "dog", f"g{group}", split) for n, (group, _, split) in enumerate(drawn)]
    there = draw_splits(recordings, 0.2, 0.1, seed, SILENT)
    assert there == draw_splits(recordings[::-1], 0.2, 0.1, seed, SILENT)
    assert set(there) == {each.group for each in recordings}
