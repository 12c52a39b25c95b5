"""JSON Lines: the line's number in every error, and files that are whole or not there."""

import json

import pytest

from batcli.core import jsonl
from batcli.core.errors import InputError
from batcli.core.jsonl import MAX_LINE, write_records
from batcli.core.records import read_records
from batcli.data.schema import read_questions


def test_records_come_back(tmp_path):
    records = [{"a": "ü \u2028 \x85"}, {"b": [1.5, None]}, {}]
    assert write_records(tmp_path / "x.jsonl", iter(records)) == 3
    assert [record for _, record in read_records(tmp_path / "x.jsonl")] == records
    assert [where for where, _ in read_records(tmp_path / "x.jsonl")] == [f"{tmp_path}/x.jsonl:{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a":', "not JSON: Expecting value at column 6"),
        (b"[1]", "not a JSON object"),
        (b"hello", "not JSON"),
        (b'"' + b"x" * MAX_LINE + b'"', "a line of more than 1,048,576 characters"),
        (b"\xff\xfe", "not UTF-8 text"),
        (b"{" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "not JSON"),
        (b'{"a": "\\ud800"}', "no text"),
    ],
)
def test_a_bad_line_is_told_by_its_number(tmp_path, line, message):
    file = tmp_path / "x.jsonl"
    # More lines before it than are decoded at once, and blank ones, which count.
    file.write_bytes(b'{"a": 1}\n\n' + b'{"a": "\xc3\xbc"}\n' * 3000 + line + b"\n{}\n")
    with pytest.raises(InputError, match=message) as caught:
        list(read_records(file))
    assert str(caught.value).startswith(f"{file}:3003: ")
    assert "\n" not in str(caught.value)


def test_blank_lines_and_a_byte_order_mark_are_no_records(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert [record["a"] for _, record in read_records(tmp_path / "x.jsonl")] == [1, 2]


def test_pairs_of_surrogates_are_text(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": "\\ud83e\\udd87"}\n')
    assert [record["a"] for _, record in read_records(tmp_path / "x.jsonl")] == ["🦇"]


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}])
def test_a_record_that_is_no_json_leaves_no_file(tmp_path, bad):
    with pytest.raises((ValueError, TypeError)):
        write_records(tmp_path / "x.jsonl", [{"a": 1}, bad])
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_what_json_dumps_writes():
    record = {"a": 'ü\n"', "b": None, "c": 1.5}
    assert jsonl.dump(record) == json.dumps(record, ensure_ascii=False) + "\n"


def test_questions_are_checked(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"audio_id": 1}\n')
    with pytest.raises(InputError, match=r"x\.jsonl:1: no field"):
        list(read_questions(tmp_path / "x.jsonl"))
