"""Windows of questions: each scene is encoded before its questions are answered, once if there is room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batcli.data.schema import Source
from batcli.data.windows import plan_windows

SCENES = [(Source(f"clip{n}", f"room/{n}.npy"),) for n in range(6)]


@given(st.lists(st.sampled_from(SCENES), max_size=40), st.integers(1, 7), st.integers(1, 8))
def test_what_is_asked_about_is_known_and_no_more_than_there_is_room_for(asked, size, room):
    windows = plan_windows(asked, size, room)
    assert [scene for window in windows for scene in asked[window.questions]] == asked
    kept = set()
    for window in windows:
        wanted = set(asked[window.questions])
        assert not kept & set(window.scenes_to_encode)
        kept |= set(window.scenes_to_encode)
        kept -= set(window.scenes_to_drop)
        assert wanted <= kept
        assert len(kept) <= max(room, len(wanted))


@given(st.lists(st.sampled_from(SCENES), max_size=40), st.integers(1, 7))
def test_with_room_for_all_each_is_heard_once(asked, size):
    windows = plan_windows(asked, size, len(SCENES))
    new = [scene for window in windows for scene in window.scenes_to_encode]
    assert len(new) == len(set(new)) == len(set(asked))
    assert not any(window.scenes_to_drop for window in windows)


def test_those_asked_about_longest_ago_are_forgotten():
    a, b, c, d = SCENES[:4]
    windows = plan_windows([a, b, a, c, d, b], 2, 3)
    changes = [(window.scenes_to_encode, window.scenes_to_drop) for window in windows]
    assert changes == [
        ([a, b], []),
        ([c], []),
        ([d], [a]),
    ]
