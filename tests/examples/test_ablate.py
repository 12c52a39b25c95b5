"""What each part of a small model carries."""

import json
from pathlib import Path

from ablate import HEARD, MENTION, QUERIES, SILENCE, TOKENS, WHOLE, Ablated, ablate, parts_of

from batcli.decode import decode
from batcli.model.checkpoint import load_run
from batcli.options import DecodeOptions


def answers(path: Path) -> dict[str, str]:
    records = map(json.loads, path.read_text().splitlines())
    return {record["question_id"]: record["prediction"] for record in records}


def test_a_line_for_each_part_and_whole_answers_as_decode_gives_them(run: Path, demo: Path, tmp_path: Path):
    found = ablate(run, demo, "dev", tmp_path / "parts").splitlines()
    parts = [TOKENS + "sources", QUERIES, MENTION, HEARD, SILENCE]
    assert [line.split("|")[1].strip() for line in found] == ["", "---", WHOLE, "n", *parts]
    assert len({line.count("|") for line in found}) == 1
    assert all("[" in line for line in found[4:])
    for silent, name in ((False, "whole"), (True, "silence")):
        decode(
            DecodeOptions(
                run=run, data=demo, split="dev", output=tmp_path / "p.jsonl", device="cpu", workers=1, zero_audio=silent
            )
        )
        assert answers(tmp_path / "p.jsonl") == answers(tmp_path / "parts" / f"{name}.jsonl")
        (tmp_path / "p.jsonl").unlink()
    assert answers(tmp_path / "parts/everything-heard.jsonl") != answers(tmp_path / "parts/whole.jsonl")


def test_the_model_is_whole_again_afterwards(run: Path):
    model = load_run(run)[0]
    before = model.audio_embeddings, model.projector.mention
    assert MENTION in parts_of(model)
    with Ablated(model, MENTION).installed():
        assert model.projector.mention != before[1]
    assert (model.audio_embeddings, model.projector.mention) == before
