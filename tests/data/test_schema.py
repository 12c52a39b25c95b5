"""Question records: good ones, and the messages for bad ones."""

import json

import pytest

from batcli.core.errors import InputError
from batcli.data.schema import FIELDS, Question, Source, parse_question

ONE = {
    "audio_id": "eval/Y1",
    "reverb_id": "room/1.npy",
    "audio_id2": None,
    "reverb_id2": None,
    "question_id": 7,
    "question_type": "DOA",
    "question": "Where is it?",
    "answer": "left, front, above; 1m",
}
TWO = {**ONE, "audio_id2": "eval/Y2", "reverb_id2": "room/2.npy", "question_type": "MIXUP_DIRECTION"}


def test_fields_are_the_published_ones_in_their_order():
    assert tuple(ONE) == FIELDS
    assert list(parse_question(ONE, "x:1").to_dict()) == list(ONE)


@pytest.mark.parametrize("record", [ONE, TWO, {**ONE, "question_id": "a7"}])
def test_a_record_comes_back_as_it_was(record):
    assert json.loads(json.dumps(parse_question(record, "x:1").to_dict())) == record


def test_scenes_hold_one_source_or_two():
    one, two = parse_question(ONE, "x:1"), parse_question(TWO, "x:1")
    assert one.scene == (Source("eval/Y1", "room/1.npy"),)
    assert two.scene == (Source("eval/Y1", "room/1.npy"), Source("eval/Y2", "room/2.npy"))
    for question in (one, two):
        again = Question.of(question.scene, 7, question.question_type, "Where is it?", "left, front, above; 1m")
        assert again == question


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({k: v for k, v in ONE.items() if k != "answer"}, "no field 'answer'"),
        ({**ONE, "anwser": ""}, "unknown field 'anwser'"),
        ({**ONE, "answer": None}, "'answer' is not text: None"),
        ({**ONE, "audio_id": 3}, "'audio_id' is not text"),
        ({**ONE, "audio_id2": 3}, "'audio_id2' is neither text nor null"),
        ({**ONE, "audio_id2": "x"}, "both or neither"),
        ({**ONE, "question_id": True}, "'question_id' is neither a number nor text"),
        ({**ONE, "question_id": 1.5}, "'question_id' is neither a number nor text"),
        ({**ONE, "question_type": "DOAA"}, "unknown question type 'DOAA'; known: CLASSIFICATION, DOA"),
        ({**ONE, "question_type": ["DOA"]}, "unknown question type"),
        ({**ONE, "question_type": "MIXUP_DIRECTION"}, "MIXUP_DIRECTION is about two sources"),
        ({**TWO, "question_type": "DOA"}, "DOA is about one source"),
        *(
            ({**TWO, name: bad}, f"{name!r} leads out of its root")
            for name in ("audio_id", "reverb_id", "audio_id2", "reverb_id2")
            for bad in ("../../etc/passwd", "/etc/passwd", "a/../../b", "a\0b", "a\\..\\b", ".", "./")
        ),
        ({**ONE, "audio_id": ""}, "'audio_id' leads out of its root"),
        ({**TWO, "reverb_id": ""}, "'reverb_id' leads out of its root"),
        ({**TWO, "audio_id2": ""}, "both or neither"),
        ({**TWO, "audio_id2": "", "reverb_id2": None}, "is about two sources"),
    ],
)
def test_what_is_no_question(record, message):
    with pytest.raises(InputError) as caught:
        parse_question(record, "train.jsonl:7")
    assert str(caught.value).startswith("train.jsonl:7: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_fields_are_allowed_where_the_reader_asks_for_them():
    assert parse_question({**ONE, "prediction": "x"}, "x:1", extra=("prediction",)) == parse_question(ONE, "x:1")


@pytest.mark.parametrize("empty", [{"audio_id2": ""}, {"reverb_id2": ""}, {"audio_id2": "", "reverb_id2": ""}])
def test_an_empty_second_source_is_none(empty):
    question = parse_question({**ONE, **empty}, "x:1")
    assert question == parse_question(ONE, "x:1")
    assert len(question.scene) == 1
