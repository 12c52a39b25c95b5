import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from batcli.model.tokens import (
    AFTER,
    BEFORE,
    IGNORED,
    collate,
    collate_prompts,
    name_ids,
    near_distances,
    padding_id,
    to_ids,
    to_text,
    train_tokenizer,
)

QUESTION, ANSWER = "Where does the sound of the dog come from?", "right, behind, above; 3.5m"
TOKENIZER = train_tokenizer([QUESTION, ANSWER, "about 3.5m away", "about 10m"] * 3, 700)


def test_the_prompt_is_the_published_one():
    assert BEFORE + "Q?" + AFTER == (
        "Based on the audio you've heard, refer to the instruction and provide a response."
        "\n\n### Instruction:\nQ?\n\n### Response:"
    )


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_any_text_comes_back(text):
    (prompt,), (answer,) = to_ids(TOKENIZER, [text], [text])
    assert TOKENIZER.decode(answer, clean_up_tokenization_spaces=False) == text
    assert TOKENIZER.decode(prompt[1:], clean_up_tokenization_spaces=False) == BEFORE + text + AFTER
    assert not {0, 1, 2} & {*prompt[1:], *answer}  # "</s>" in a question is text


def test_ids_of_the_small_tokenizer():
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    (prompt,), (answer,) = to_ids(TOKENIZER, [QUESTION], [ANSWER])
    words = TOKENIZER.convert_ids_to_tokens(prompt)
    assert words[:3] == ["<s>", BEFORE, "Where"]
    assert words[-1] == AFTER
    assert len(words) == 1 + 1 + 9 + 1 + 1  # BOS, before, nine words, question mark, after
    assert [TOKENIZER.decode([i]) for i in answer] == ["right", ",", " behind", ",", " above", ";", " 3.5m"]


def test_a_saved_tokenizer_is_the_same(tmp_path):
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert to_ids(again, [QUESTION], [ANSWER]) == to_ids(TOKENIZER, [QUESTION], [ANSWER])
    assert (again.pad_token_id, again.bos_token_id, again.eos_token_id) == (0, 1, 2)


def test_the_vocabulary_has_room_for_every_byte_and_no_more_than_asked():
    assert len(train_tokenizer(["a b"], 300)) <= 300
    assert len(train_tokenizer([f"word{i} other{i}" for i in range(500)] * 2, 400)) == 400


class Joined:
    """Writes a text's first letter as a capital, as SentencePiece writes a space before it."""

    bos_token_id = None

    def __call__(self, texts, **options):
        return {"input_ids": [[ord(c) for c in text.capitalize()] for text in texts]}


def test_the_answer_is_cut_from_the_joint_text():
    prompts, answers = to_ids(Joined(), ["why?"], ["because"])
    assert answers == [[ord(c) for c in "because"]]  # not "Because": it is no text's beginning
    assert prompts[0][0] == ord("B")  # and there is no BOS that the tokenizer does not have


def test_without_answers_only_prompts():
    assert to_ids(TOKENIZER, [QUESTION])[0] == to_ids(TOKENIZER, [QUESTION], [ANSWER])[0]
    assert to_ids(TOKENIZER, []) == ([], [])


def test_a_name_has_the_tokens_that_it_has_in_a_question():
    (prompt,), _ = to_ids(TOKENIZER, [QUESTION])
    name = name_ids(TOKENIZER, "the dog")
    assert TOKENIZER.decode(name) == " the dog"
    assert any(prompt[i : i + len(name)] == name for i in range(len(prompt)))


def test_layout_of_a_batch():
    tokens = collate([[1, 5, 6], [1, 7]], [[8], [9, 10]], pad=0, end=2)
    assert tokens.ids.tolist() == [[1, 5, 6, 8, 2, 0], [0, 1, 7, 9, 10, 2]]
    assert tokens.mask.tolist() == [[1, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1]]
    assert tokens.labels.tolist() == [[8, 2, IGNORED], [9, 10, 2]]


def test_layout_of_prompts():
    tokens = collate_prompts([[1, 5, 6], [1, 7]], pad=0)
    assert tokens.ids.tolist() == [[1, 5, 6], [0, 1, 7]]
    assert tokens.mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert tokens.labels.shape == (2, 0)


def test_padding_that_is_also_the_end_is_not_learnt_from():
    tokens = collate([[1], [1]], [[5], [5, 6, 7]], pad=2, end=2)
    assert tokens.labels[0].tolist() == [5, 2, IGNORED, IGNORED]
    assert tokens.mask[0].tolist() == [1, 1, 1, 0, 0]


def test_answers_end_at_the_first_end():
    (ids,) = to_ids(TOKENIZER, [""], [ANSWER])[1]
    rows = torch.tensor([[*ids, 2, 0, 0], [*ids[:3], 2, *ids[: len(ids) - 1]], [*ids, *ids[:3]]])
    assert to_text(TOKENIZER, rows) == [ANSWER, "right, behind", ANSWER + "right, behind"]
    assert to_text(TOKENIZER, torch.tensor([[2, 2]])) == [""]


@pytest.mark.parametrize(("pad", "expected"), [(None, 2), (0, 0)])
def test_padding_of_a_tokenizer_without_one(pad, expected):
    class Tokenizer:
        pad_token_id, eos_token_id = pad, 2

    assert padding_id(Tokenizer()) == expected


def test_distances_half_a_metre_off():
    texts = [f"{space}{n / 2:g}m" for n in range(13) for space in ("", " ")] * 3
    tokenizer = train_tokenizer(["right", *texts], 700)
    near = near_distances(tokenizer)

    def token(text: str) -> int:
        (found,) = to_ids(tokenizer, [""], [text])[1]
        assert len(found) == 1
        return found[0]

    for space in ("", " "):
        assert near[token(f"{space}3.5m")].tolist() == [token(f"{space}3m"), token(f"{space}4m")]
        assert near[token(f"{space}0m")].tolist() == [token(f"{space}0m"), token(f"{space}0.5m")]
        assert near[token(f"{space}6m")].tolist() == [token(f"{space}5.5m"), token(f"{space}6m")]
    assert near[token("right")].tolist() == [token("right")] * 2


def test_tokens_that_are_no_distance_are_near_themselves():
    assert (near_distances(TOKENIZER) == torch.arange(len(TOKENIZER)).unsqueeze(1)).all()  # 3.5m stands alone
