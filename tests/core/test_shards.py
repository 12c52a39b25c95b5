"""Records that are finished in any order, by several processes, over several runs."""

import threading
from contextlib import suppress

import pytest

from batcli.core.errors import InputError
from batcli.core.shards import ResumableShards, content_key


def as_rank(monkeypatch, rank: int, world: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(world))


def test_a_stopped_run_goes_on(tmp_path):
    final = tmp_path / "preds.jsonl"
    with suppress(KeyboardInterrupt), ResumableShards(final, "key") as parts:
        parts.append(1, {"n": 1})
        raise KeyboardInterrupt
    with ResumableShards(final, "key") as parts:
        assert parts.finished() == {1: {"n": 1}}
        parts.append(0, {"n": 0})
        assert parts.gather(2) == [{"n": 0}, {"n": 1}]
        parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_line_cut_by_a_kill_is_done_again(tmp_path):
    with ResumableShards(tmp_path / "x.jsonl", "key") as parts:
        parts.append(0, {"text": "a"})
        parts.append(1, {"text": "b"})
    whole = parts.own.read_bytes()
    for cut in range(len(whole)):
        parts.own.write_bytes(whole[:cut])
        with ResumableShards(tmp_path / "x.jsonl", "key") as again:
            done = again.finished()
            assert list(done) == [0, 1][: whole[:cut].count(b"\n")]
            for position in {0, 1} - set(done):
                again.append(position, {"text": "ab"[position]})
            assert again.gather(2) == [{"text": "a"}, {"text": "b"}]


def test_another_key_finds_nothing_and_ends_by_clearing_up(tmp_path):
    with ResumableShards(tmp_path / "x.jsonl", "old") as old:
        old.append(0, {"n": "old"})
    with ResumableShards(tmp_path / "y.jsonl", "old") as other:
        other.append(0, {})
    with ResumableShards(tmp_path / "x.jsonl", "new") as new:
        assert new.finished() == {}
        new.append(0, {"n": "new"})
        assert new.gather(1) == [{"n": "new"}]
        new.remove()
    assert list(tmp_path.iterdir()) == [other.own]


@pytest.mark.parametrize("name", ["preds[1].jsonl", "a*b?.jsonl", "ü.jsonl"])
def test_names_are_names_and_not_patterns(tmp_path, name):
    with ResumableShards(tmp_path / name, "key") as parts:
        parts.append(0, {"n": 0})
        assert parts.gather(1, timeout=0) == [{"n": 0}]
        parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_first_rank_waits_for_the_others(tmp_path, monkeypatch):
    final = tmp_path / "x.jsonl"
    as_rank(monkeypatch, 1, 2)
    second = ResumableShards(final, "key")
    as_rank(monkeypatch, 0, 2)
    with ResumableShards(final, "key") as first, second:
        assert first.own != second.own
        first.append(0, {"n": 0})
        with pytest.raises(InputError, match="1 records are missing; run again to go on"):
            first.gather(2, timeout=0)
        threading.Timer(0.1, second.append, (1, {"n": 1})).start()
        assert first.gather(2, timeout=5) == [{"n": 0}, {"n": 1}]


def test_keys_change_with_any_fact(tmp_path):
    keys = {content_key(**facts) for facts in ({"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": None}, {"a": tmp_path})}
    assert len(keys) == 5
    assert content_key(a=1, b=2) == content_key(b=2, a=1)
