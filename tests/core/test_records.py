"""Records in any form of JSON: the same records, and a line for what is wrong."""

import gzip
import io
import json
import random
import time

import pytest
from forms import json_text
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from batcli.core import records
from batcli.core.errors import InputError
from batcli.core.files import STDIO
from batcli.core.records import MAX_OTHER, read_items, read_records

one = st.dictionaries(
    st.sampled_from(["id", "data", "é", "text"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
    | st.sampled_from([None, 0, -1.5e-3, [], {"data": [{}]}, '"data": [', "}, {", "]", "\u2028\x85"]),
    min_size=2,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(one, min_size=1, max_size=6), st.integers(0, 2**32), st.integers(1, 400))
def test_every_form_gives_the_same_records(tmp_path, monkeypatch, given_records, seed, chunk):
    monkeypatch.setattr(records, "CHUNK", chunk)  # where a piece ends does not matter
    assume(len(given_records) > 1 or not isinstance(given_records[0].get("data"), list))
    file = tmp_path / "f.json"
    file.write_bytes(json_text(given_records, random.Random(seed)).encode())
    assert [record for _, record in read_records(file)] == given_records


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize(
    "form",
    [
        lambda data: data,
        lambda data: {"data": data},
        lambda data: {"version": 1, "data": data},
        lambda data: {"data": data, "note": "x" * 2_000_000},
        lambda data: {"note": ["x" * 2_000_000], "data": data},
    ],
    ids=["list", "data", "other first", "other last", "large other first"],
)
def test_files_of_more_than_a_piece(tmp_path, form, mark, indent):
    data = [{"id": number, "text": "é" * 200} for number in range(8_000)]
    text = mark + json.dumps(form(data), indent=indent, ensure_ascii=False)
    assert len(text) > 3 * records.CHUNK / 2
    (tmp_path / "f.json").write_text(text, encoding="utf-8")
    assert [record for _, record in read_records(tmp_path / "f.json")] == data


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 300), st.sampled_from([None, 0, 3]), st.booleans())
def test_a_bad_record_costs_only_itself_wherever_a_piece_ends(tmp_path, monkeypatch, chunk, indent, broken):
    data = [{"id": "é" * i, "text": "}, {"} for i in range(6)]
    text = json.dumps({"data": [*data, ["text", {}], None]}, indent=indent, ensure_ascii=False)
    if broken:
        text = text.replace('"id": "éé"', '"id": éé')
    file = tmp_path / "f.json"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setattr(records, "CHUNK", chunk)
    items = list(read_items(file))
    assert [item for _, item in items if not isinstance(item, InputError)] == [
        one for one in data if not (broken and one["id"] == "éé")
    ]
    assert len(items) == 8
    lines = [int(where.removeprefix(f"{file}:").partition(":")[0]) for where, _ in items]
    assert lines[:6] == [3 + 4 * i if indent is not None else 1 for i in range(6)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}][{"a": 2}]', "f.json:1: text after the list of records: [{"),
        ('[{"a": 1}\n]\n{"a": 2}', "f.json:2: text after the list"),
        ('{"x": 1, "data": [{"a": 1}]', "f.json:1: no JSON after the list"),
        ('{"x": 1, "data": [{"a": 1}], "data": [{"a": 2}]}', '"data" stands twice'),
        ('{"data": [{"a": 1}], "x": }', "no JSON after the list"),
        ('{"data": [{"a": 1}]}}', "no JSON after the list"),
        ('[{"a": 1}, {"a": 2', "f.json:1: record 2: not JSON"),
        ('[{"a": 1},', "the list does not end"),
        ('{\n"a": 1,\n"b": 2\n}', "a JSON object without a list of records; expected JSON Lines"),
        ('[{"a": 1}, 3]', "record 2: not a JSON object: 3"),
        ('[{"a": "\\ud800"}]', "no text"),
        ("[" * 500, "not"),
        ('[{"a": ' + "[" * 200 + "]" * 200 + "}]", "nested more than 100 deep"),
        (
            '{"data": [{"a": 1}], "x": "' + "x" * MAX_OTHER + '"}',
            "characters after the list of records",
        ),
        ('{"a": 1}\n{"a": 2', "f.json:2: not JSON"),
        ('["a', "not JSON"),
    ],
    ids=lambda value: value[:30],
)
def test_what_is_wrong_is_never_passed_over(tmp_path, text, message):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError) as caught:
        list(read_records(tmp_path / "f.json"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_number_at_the_end_of_a_piece_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "CHUNK", 1)
    for n in ("123456789", "-1500.0", "1e+5", "0.5E-3"):
        (tmp_path / "f.json").write_text(f'{{"n": {n}, "data": [{{"a": {n}}}]}}')
        assert [record for _, record in read_records(tmp_path / "f.json")] == [{"a": json.loads(n)}]


def test_utf16_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "f.jsonl").write_bytes('{"a": 1}\n'.encode("utf-16"))
    with pytest.raises(InputError, match=r"f\.jsonl:1: not UTF-8 text; save the file as UTF-8"):
        list(read_records(tmp_path / "f.jsonl"))


@pytest.mark.parametrize("seed", range(6))
def test_standard_input_is_utf8_whatever_the_locale(monkeypatch, seed):
    text = json_text([{"a": "ü"}, {"a": None}], random.Random(seed))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="latin-1"))
    found = list(read_records(STDIO))
    assert [record for _, record in found] == [{"a": "ü"}, {"a": None}]
    assert found[0][0].startswith("stdin:")


def test_no_text_takes_long(tmp_path):
    start = time.process_time()
    for text in ("[" + "{" * 3_000_000, '{"a":' * 500_000, '{"data": [' + '{"a": ' * 500_000, "[" + "," * 3_000_000):
        (tmp_path / "f.json").write_text(text)
        with pytest.raises(InputError):
            list(read_records(tmp_path / "f.json"))
    assert time.process_time() - start < 10


@pytest.mark.parametrize("content", [gzip.compress(b'{"id": 1}\n'), b"PK\x03\x04" + bytes(40)])
def test_a_compressed_file_is_named_so(tmp_path, content):
    (tmp_path / "p.jsonl").write_bytes(content)
    with pytest.raises(InputError, match="is compressed; unpack it"):
        list(read_items(tmp_path / "p.jsonl"))


@pytest.mark.parametrize("key", ["predictions", "results", "records"])
def test_a_list_under_another_key_is_named(tmp_path, key):
    (tmp_path / "p.json").write_text(json.dumps({"n": 1, key: [{"id": 1}, {"id": 2}]}))
    with pytest.raises(InputError, match=f"a JSON object with its list under '{key}'; expected"):
        list(read_items(tmp_path / "p.json"))
