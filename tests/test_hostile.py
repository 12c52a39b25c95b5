"""Files from strangers: read or refused with one line, never more. `tests/attack.py` does this at length."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile.attack import attack
from hostile.bombs import BOMBS
from hostile.mutate import VALUES
from hostile.readers import READERS
from hypothesis import given, settings
from hypothesis import strategies as st

from batcli.core.errors import InputError, printable
from batcli.core.files import inside, read_json
from batcli.core.jsonl import dump, parse_line
from batcli.data.dataset import open_dataset
from batcli.data.metadata import read_clips, read_reverbs
from batcli.data.schema import FIELDS, parse_question

ROOT = Path(__file__).resolve().parents[1]
SLOW = {
    "SOFA": 12,
    "sound of odd samples": 24,
    "TOML": 30,
    "run directories": 16,
    "tokenizers": 24,
    "foreign checkpoints": 16,
    "language models": 12,
    "lists of shards": 12,
}
INPUTS = 60
MEGABYTES = 1_000  # ten minutes at 192 kHz are 460 MB, once in blocks and once whole


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name)
def test_a_spoilt_file_is_read_or_refused(reader):
    if reader.name == "SOFA":
        pytest.importorskip("sofar")
    outcome = attack(reader, SLOW.get(reader.name, INPUTS), seed=1)
    assert not outcome.wrong
    assert sum(outcome.counts.values()) >= 12


@pytest.fixture(scope="module")
def bombs() -> dict[str, dict]:
    """The outcome of each reader, in a process of its own with at most 16 GB of address space."""
    pytest.importorskip("netCDF4")
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peak memory is measured on Linux")
    command = f"ulimit -v {16 << 20}; exec {sys.executable} {ROOT / 'tests/hostile/bombs.py'}"
    where = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=where, timeout=300)
    assert done.returncode == 0, done.stderr
    return {found["name"]: found for found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", BOMBS)
def test_no_file_takes_more_memory_than_it_may(bombs, name):
    found = bombs[name]
    assert not found["answer"].startswith("WRONG"), found["answer"]
    assert found["megabytes"] < MEGABYTES


# ---- any JSON at all -----------------------------------------------------------------------------

TEXT = st.text(st.characters(), max_size=20) | st.sampled_from([value for value in VALUES if isinstance(value, str)])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
GOOD = dict(zip(FIELDS, ("a/1", "r/0.npy", None, None, 0, "DOA", "Where?", "left"), strict=True))


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS) | TEXT, JSON))
def test_a_record_is_a_question_that_can_be_written_or_an_input_error(changes):
    try:
        question = parse_question(parse_line(json.dumps({**GOOD, **changes}), "x:1"), "x:1")
    except InputError as error:
        message = str(error)
    else:
        dump(question.to_dict()).encode()
        assert parse_question(parse_line(dump(question.to_dict()), "y:1"), "y:1") == question
        return
    assert message.startswith("x:1: ")


@settings(max_examples=150, deadline=None)
@given(content=JSON)
def test_any_json_is_metadata_or_an_input_error(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    entry = {"fname": "r/1.npy", "sensor_position": "0,0,0", "source_position": "1,1,1", "id": "a", "label": ["/m/0"]}
    for whole in (
        content,
        {"data": content},
        [content],
        {"data": [{**entry, **content}] if isinstance(content, dict) else []},
    ):
        (folder / "dataset.json").write_text(json.dumps(whole))
        for read in (read_clips, read_reverbs, read_json, lambda path: open_dataset(path.parent)):
            with contextlib.suppress(InputError):
                read(folder / "dataset.json")


@settings(max_examples=300, deadline=None)
@given(
    parts=st.lists(st.sampled_from(["..", ".", "", "a", "out", "‥", "．．", "∕", "a\0", "\udcff", "x" * 300]) | TEXT)
)
def test_no_id_leads_out_of_its_root(tmp_path_factory, parts):
    root = tmp_path_factory.getbasetemp() / "root"
    root.mkdir(exist_ok=True)
    if not (root / "out").is_symlink():
        (root / "out").symlink_to("/etc")
    try:
        found = inside(root, "/".join(parts))
    except InputError:
        return
    assert os.path.realpath(found).startswith(f"{os.path.realpath(root)}/") or os.path.realpath(found) == str(root)


@given(st.text())
def test_messages_hold_nothing_that_a_terminal_obeys(text):
    assert str(InputError(text, where=text, hint=text)).isprintable()
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable(text) == text or not text.isprintable()
