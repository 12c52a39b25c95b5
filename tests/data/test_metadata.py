"""Labels, clips and BRIRs as the published files have them, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.core.errors import InputError
from batcli.data.metadata import Clip, Label, read_clips, read_labels, read_reverbs

HEAD = "index,mid,display_name\n"
BRIR = {"fname": "room/1.npy", "sensor_position": "1,1.5,1", "source_position": "1,1.5,-1", "rt60": 0.4}


def write(path, content):
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content)
    return path


RELEASED = ("Speech", "Accelerating, revving, vroom", "Bark", 'Chirp "tweet"', "Whack, thwack", "Boing")


@given(
    st.lists(st.integers(0, 10**6), min_size=len(RELEASED), max_size=len(RELEASED)),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["", "\n", "\n\n  \n"]),
)
def test_released_label_files_in_all_their_forms(tmp_path_factory, indices, quoted, newline, mark, end):
    """Names with commas, quoted or not; any index column; CRLF; a byte-order mark; blank lines at the end."""

    def name(text):
        return '"{}"'.format(text.replace('"', '""')) if quoted else text

    rows = [f"{index},/m/{i},{name(text)}" for i, (index, text) in enumerate(zip(indices, RELEASED, strict=True))]
    text = newline.join(["index,mid,display_name", *rows]) + end.replace("\n", newline)
    file = write(tmp_path_factory.mktemp("labels") / "l.csv", text.encode("utf-8-sig" if mark else "utf-8"))
    assert read_labels(file) == [Label(i, f"/m/{i}", text) for i, text in enumerate(RELEASED)]


def test_columns_may_all_be_quoted(tmp_path):
    file = write(tmp_path / "l.csv", '"index","mid","display_name"\n"7","/m/1","Dog, cat"\n"", "/m/2", "Bell"\n')
    assert read_labels(file) == [Label(0, "/m/1", "Dog, cat"), Label(1, "/m/2", "Bell")]


def test_labels_may_hold_commas(tmp_path):
    file = write(tmp_path / "l.csv", HEAD + '0,/m/1,"Accelerating, revving, vroom"\n1,/m/2,Dog\n')
    assert read_labels(file) == [Label(0, "/m/1", "Accelerating, revving, vroom"), Label(1, "/m/2", "Dog")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the first line is"),
        ("mid,index,display_name\n", "expected index,mid,display_name"),
        (HEAD, "no labels"),
        ("index;mid;display_name\n0;/m/1;Dog\n", "expected index,mid,display_name"),
        (HEAD + "0,Dog\n", "l.csv:2: 2 columns, not 3"),
        (HEAD + '0,/m/1,"Accelerating", revving\n', "l.csv:2: 4 columns, not 3; quote"),
        (HEAD + "0,/m/1,Dog,\n", "l.csv:2: 4 columns, not 3; quote"),
        (HEAD + "0,/m/1,\n", "l.csv:2: an empty mid"),
        (HEAD + "0,,Dog\n", "l.csv:2: an empty mid"),
        (HEAD + '0,/m/1,"Rain\nstorm"\n', "l.csv:2: not CSV"),
        (HEAD + "0,/m/1,A\n1,/m/1,B\n", "mid '/m/1' stands twice"),
        (HEAD + "0,/m/1,Dog\n1,/m/2,dog\n", "name 'dog' stands twice"),
        (HEAD + '0,/m/1,"A\n', "not CSV"),
        (b"\xff\xfe", "not CSV"),
    ],
)
def test_what_are_no_labels(tmp_path, content, message):
    with pytest.raises(InputError) as caught:
        read_labels(write(tmp_path / "l.csv", content))
    assert message in str(caught.value)


@pytest.mark.parametrize("form", [lambda data: data, lambda data: {"data": data}])
def test_clips_in_both_forms(tmp_path, form):
    data = [{"folder": "eval", "id": "Y1.x", "label": ["/m/1", "/m/2"]}, {"id": "a/b", "label": ["/m/1"]}]
    file = write(tmp_path / "c.json", json.dumps(form(data)))
    assert read_clips(file) == [Clip("eval/Y1.x", ("/m/1", "/m/2")), Clip("a/b", ("/m/1",))]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("3", 'neither a list nor {"data"'),
        ('{"data": {}}', 'neither a list nor {"data"'),
        ("[]", "no clips"),
        ("[3]", "entry 0: not a clip with an 'id'"),
        ('[{"id": "a", "label": ["x"]}, {"id": 4}]', "entry 1: not a clip with an 'id'"),
        ('[{"id": "a", "label": []}]', "entry 0: clip 'a' has no labels"),
        ('[{"id": "a", "label": "/m/1"}]', "'label' is a list of mids"),
    ],
)
def test_what_are_no_clips(tmp_path, content, message):
    with pytest.raises(InputError) as caught:
        read_clips(write(tmp_path / "c.json", content))
    assert message in str(caught.value)


def test_brirs_know_where_their_source_is(tmp_path):
    reverbs = read_reverbs(write(tmp_path / "r.json", json.dumps({"data": [BRIR]})))
    reverb = reverbs["room/1.npy"]
    assert reverb.scene == "room"
    assert reverb.source == (0, 0, -2)
    assert reverb.position == (90, 0, 2)
    assert reverb.extra == {"rt60": 0.4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fname": None}, "entry 0: not a BRIR with an 'fname'"),
        ({"source_position": "1,2"}, "room/1.npy: not a position"),
        ({"source_position": "1,2,nan"}, "not a finite position"),
        ({"sensor_position": [1, 2, 3]}, "not a position"),
        ({"source_position": "1,1.5,1"}, "the source stands in the listener"),
    ],
)
def test_what_are_no_brirs(tmp_path, change, message):
    with pytest.raises(InputError) as caught:
        read_reverbs(write(tmp_path / "r.json", json.dumps({"data": [{**BRIR, **change}]})))
    assert message in str(caught.value)
