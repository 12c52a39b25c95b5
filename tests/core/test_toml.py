"""TOML in and out."""

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.config import refuse_stray_tables, table, to_flag
from batcli.core.errors import InputError
from batcli.core.toml import read_toml, refuse_unknown, to_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

text = st.text(st.characters(exclude_categories=["Cs"]))
values = text | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)


@given(st.dictionaries(st.sampled_from(["seed", "data", "lr"]), values | st.lists(values)))
def test_what_is_written_is_read(content):
    assert tomllib.loads(to_toml({"train": content, "model.sizes": {"n": 1}})) == {
        "train": content,
        "model": {"sizes": {"n": 1}},
    }


def test_none_is_left_out_for_toml_has_no_null():
    assert tomllib.loads(to_toml({"train": {"a": None, "b": 1, "c": math.inf}})) == {"train": {"b": 1, "c": math.inf}}


@pytest.mark.parametrize("content", [b"[a\n", b"a = \n", b"a = 1\na = 2\n", b"\xff", b"a = " + b"[" * 5000])
def test_what_is_no_toml(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.toml: not TOML") as caught:
        read_toml(tmp_path / "x.toml")
    assert "\n" not in str(caught.value)


def test_toml_that_is_too_large(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"#" * (1 << 21))
    with pytest.raises(InputError, match="larger than"):
        read_toml(tmp_path / "x.toml")


def test_tables_by_their_names(tmp_path):
    content = {"prepare": {"rooms": {"max-distance": 3}, "demo": 4}}
    assert table(content, ["prepare", "rooms"], tmp_path) == {"max_distance": 3}
    assert table(content, ["train"], tmp_path) == {}
    with pytest.raises(InputError, match=r"'demo' is not a table; write \[prepare.demo\]"):
        table(content, ["prepare", "demo"], tmp_path)


def test_unknown_keys_come_with_a_guess():
    refuse_unknown(["seed"], ["seed", "split"], "x")
    with pytest.raises(InputError, match="x: unknown key 'sede'; did you mean 'seed'"):
        refuse_unknown(["seed", "sede"], ["seed", "split"], "x")
    with pytest.raises(InputError, match="unknown key 'qqq'; known: seed, split"):
        refuse_unknown(["qqq"], ["seed", "split"], "x")


def test_tables_of_no_command(tmp_path):
    commands = {"train": [], "prepare": ["rooms", "demo"]}
    refuse_stray_tables({"train": {}, "prepare": {"rooms": {}}, "model": {}}, commands, tmp_path)
    for content, message in (
        ({"trian": {}}, "unknown key 'trian'; did you mean 'train'"),
        ({"seed": 3}, "unknown key 'seed'; known: train, prepare"),
        ({"prepare": {"romms": {}}}, r"\[prepare\]: unknown key 'romms'; did you mean 'rooms'"),
    ):
        with pytest.raises(InputError, match=message):
            refuse_stray_tables(content, commands, tmp_path)


@pytest.mark.parametrize(
    ("value", "kind", "given"),
    [
        (1.5, "value", "1.5"),
        ("a", "value", "a"),
        (3, "value", "3"),
        (True, "switch", True),
        ([1, "a"], "list", ["1", "a"]),
    ],
)
def test_values_become_what_a_flag_gives(value, kind, given):
    assert to_flag(value, kind, "x") == given


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (True, "value", "True is neither text nor a number"),
        ([1], "value", "neither text nor a number"),
        ({}, "value", "neither text nor a number"),
        ("yes", "switch", "'yes' is neither true nor false"),
        (1, "switch", "1 is neither true nor false"),
        ("a", "list", r"is not a list; write \["),
        ([[1]], "list", "neither text nor a number"),
    ],
)
def test_values_of_the_wrong_kind(value, kind, message):
    with pytest.raises(InputError, match=message):
        to_flag(value, kind, "x.toml [train] seed")
