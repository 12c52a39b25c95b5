"""Labels, clips and BRIRs as the published files have them, and what is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.core.errors import InputError
from batcli.data.answers import Vocabulary, words_of, write_labels
from batcli.data.answers import read_labels as read_answer
from batcli.data.metadata import Clip, Label, read_clips, read_labels, read_reverbs, require_names

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
        ("3", "c.json:1: not a JSON object"),
        ('{"data": {}}', "c.json:1: not a clip with an 'id'"),
        ('{\n"data": {}\n}', "c.json: a JSON object without a list of records"),
        ("[]", "no clips"),
        ("[3]", "c.json:1: not a JSON object"),
        ('[{"id": "a", "label": ["x"]},\n{"id": 4}]', "c.json:2: not a clip with an 'id'"),
        ('[{"id": "a", "label": ["x"]}, {"id": 4}]', "c.json:1: record 2: not a clip with an 'id'"),
        ('[{"id": "a", "label": []}]', "c.json:1: clip 'a' has no labels"),
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
        ({"fname": None}, "r.json:1: not a BRIR with an 'fname'"),
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


def test_a_brir_has_one_source(tmp_path):
    same, near = {**BRIR, "rt60": 0.5}, {**BRIR, "fname": "./room//1.npy", "source_position": "1,1.5,-1.0004"}
    assert len(read_reverbs(write(tmp_path / "r.json", json.dumps([BRIR, same, near])))) == 2
    for again in (BRIR["fname"], "room/./1.npy", "room//1.npy"):
        moved = {**BRIR, "fname": again, "source_position": "1,1.5,-1.1"}
        with pytest.raises(InputError, match=rf"r\.json:1: record 2: {again} stands twice, with its source at two"):
            read_reverbs(write(tmp_path / "r.json", json.dumps([BRIR, moved])))


# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Engine; idle"], "'Engine; idle' holds ';'"),
        (["Whack|thwack"], "'Whack|thwack' holds '|'"),
        *((["Rain" + sign + "storm"], "holds a line break") for sign in ("\n", "\r", "\r\n", "\x0b", "\x85", "\u2028")),
        *((["Rain" + sign + "storm"], "that does not show") for sign in ("\t", "\0", "\u200b", "\u202e", "\x7f")),
        (["x" * 201], "has 201 characters, up to 200"),
        *(([name], f"{name!r} holds no letter") for name in ("911", "…", "?!", "1,000", "🦇")),
        (["Bell", "Bells"], "'Bell' and 'Bells' differ by a plural"),
        (["Bells", "Dog", "Bell"], "'Bells' and 'Bell' differ by a plural"),
        (["Baby cry", "Baby cries"], "differ by a plural"),
        (["Church bell, ringing", "Church bells, ringing"], "differ by a plural"),
        (["Glass", "glasses"], "differ by a plural"),
        (["Box", "Boxes"], "differ by a plural"),
        (["Horse", "Horses"], "differ by a plural"),
        (["Knife", "Knives"], "differ by a plural"),
        (["Tick-tock", "Tick tock"], "or by punctuation only"),
        (["Bark (dog)", "Bark, dog"], "or by punctuation only"),
    ],
)
def test_names_that_answers_cannot_hold_or_readers_tell_apart(names, message):
    with pytest.raises(InputError, match=r"l\.csv: the names? .*; give the class another name") as caught:
        require_names(names, "l.csv")
    assert message in str(caught.value)


def test_names_are_checked_where_labels_are_read(tmp_path):
    with pytest.raises(InputError, match=r"l\.csv: the names 'Bell' and 'Bells' differ by a plural"):
        read_labels(write(tmp_path / "l.csv", HEAD + "0,/m/0,Bell\n1,/m/1,Bells\n"))


def test_names_that_look_alike_and_are_not():
    require_names(["Car", "Care", "Cars, racing", "Bus", "Bass", "Tap", "Tape", "狗吠", "C", "Ça", "Mp3 player"], "x")


@given(st.lists(st.text("abs ,-'", min_size=1, max_size=8).filter(lambda n: any(c.isalpha() for c in n)), max_size=6))
def test_names_that_are_accepted_are_read_back_from_answers(names):
    names = list(dict.fromkeys(name.strip().lower() for name in names))
    try:
        require_names(names, "x")
    except InputError:
        return
    vocabulary = Vocabulary.of(names)
    assert vocabulary.names == tuple(names)
    for number, name in enumerate(names):
        if not {"no", "not", "without"} & set(words_of(name)):
            assert read_answer(write_labels([name]), vocabulary) == {number}


# ---- what editors add ----------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n", "\n  \n", "\n,,\n,,\n"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_marks_and_blank_lines_do_not_matter(tmp_path, mark, end, newline):
    text = mark + newline.join([HEAD.strip(), '0,/m/1,"Baby cry, infant cry"', "", "1,/m/2,Dog"]) + end
    assert [label.name for label in read_labels(write(tmp_path / "l.csv", text.encode()))] == [
        "Baby cry, infant cry",
        "Dog",
    ]
