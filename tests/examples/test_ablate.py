"""Ablation of a small model."""

import json
from pathlib import Path

from ablate import (
    ALL_AUDIO,
    MENTION,
    MIRRORED,
    QUERIES,
    SILENCE,
    TOKENS,
    WHOLE,
    Ablation,
    ablate,
    exchange_sides,
    parts_of,
)

from batcli.decode import decode
from batcli.model.checkpoint import load_run
from batcli.options import DecodeOptions


def answers(path: Path) -> dict[str, str]:
    records = map(json.loads, path.read_text().splitlines())
    return {record["question_id"]: record["prediction"] for record in records}


def test_a_row_for_each_part_and_the_answers_of_decode(run: Path, demo: Path, tmp_path: Path):
    rows = ablate(run, demo, "dev", tmp_path / "parts").splitlines()
    parts = [TOKENS + "sources", QUERIES, MENTION, ALL_AUDIO, SILENCE, MIRRORED]
    assert [line.split("|")[1].strip() for line in rows] == ["", "---", WHOLE, "n", *parts]
    assert len({line.count("|") for line in rows}) == 1
    assert all("[" in line for line in rows[4:])
    for silent, name in ((False, "whole"), (True, "silence")):
        decode(
            DecodeOptions(
                run=run, data=demo, split="dev", output=tmp_path / "p.jsonl", device="cpu", workers=1, zero_audio=silent
            )
        )
        assert answers(tmp_path / "p.jsonl") == answers(tmp_path / "parts" / f"{name}.jsonl")
        (tmp_path / "p.jsonl").unlink()
    assert answers(tmp_path / "parts/all-audio.jsonl") != answers(tmp_path / "parts/whole.jsonl")


def test_sides_are_exchanged_in_whole_words():
    text = "Left or right: is the piano left of the bright bell?"
    assert exchange_sides(text) == "Right or left: is the piano right of the bright bell?"
    assert exchange_sides(exchange_sides(text)) == text


def test_the_model_is_restored(run: Path):
    model = load_run(run)[0]
    before = model.audio_embeddings, model.projector.mention
    assert MENTION in parts_of(model)
    with Ablation(model, MENTION).installed():
        assert model.projector.mention != before[1]
    assert (model.audio_embeddings, model.projector.mention) == before
