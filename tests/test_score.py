"""`bat score` from file to numbers: against a second implementation, on bad input, in pipelines."""

import csv
import io
import json
import math
import random
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from forms import json_text
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from batcli.core.errors import InputError
from batcli.core.files import write_json
from batcli.data.answers import write_doa
from batcli.data.dataset import Dataset
from batcli.data.metadata import read_reverbs
from batcli.data.question_types import PUBLISHED_TYPES
from batcli.evaluation.embed import Lexical
from batcli.evaluation.formats import FORMATS
from batcli.evaluation.subjects import ANSWERS
from batcli.options import ScoreOptions
from batcli.score import score

LABELS = ["speech", "music", "dog", "bark", "car", "accelerating, revving, vroom", "church bell", "bell"]
SIDES, DEPTHS, HEIGHTS = ("left", "right"), ("front", "behind"), ("above", "below")


def target_of(kind: str, rng: random.Random) -> str:
    if kind in ("CLASSIFICATION", "MIXUP_SINGLE_CLASSIFICATION"):
        return "; ".join(rng.sample(LABELS, rng.choice([1, 1, 2, 3])))
    if kind in ("DOA", "MIXUP_SINGLE_DOA"):
        return f"{rng.choice(SIDES)}, {rng.choice(DEPTHS)}, {rng.choice(HEIGHTS)}; {rng.randint(1, 12) / 2:g}m"
    if kind == "MIXUP_NONBINARY_DIRECTION":
        return rng.choice(SIDES)
    if kind == "MIXUP_NONBINARY_DISTANCE":
        return f"{rng.randint(1, 12) / 2:g}m"
    return rng.choice(LABELS) if kind == "MIXUP_NONBINARY_SOURCE" else rng.choice(["Yes", "No"])


def make(count: int, seed: int = 0, skill: float = 0.6, answers: int = 0) -> list[dict]:
    """Predictions of all types; `seed` fixes the questions, `answers` the predictions."""
    rng, drawn = random.Random(seed), random.Random(answers + 1_000)
    records = []
    while len(records) < count:
        one, two = ((f"eval/Y{rng.randrange(10**9)}", f"room{rng.randrange(20)}/{rng.randrange(5)}.npy") for _ in "12")
        for kind in rng.sample(list(PUBLISHED_TYPES), 3):
            pair = two if PUBLISHED_TYPES[kind].sources == 2 else (None, None)
            target = target_of(kind, rng)
            names = rng.sample(LABELS, 2)
            records.append(
                {
                    "audio_id": one[0],
                    "reverb_id": one[1],
                    "audio_id2": pair[0],
                    "reverb_id2": pair[1],
                    "question_id": len(records),
                    "question_type": kind,
                    "question": f"{kind} about the sound of {names[0]} and {names[1]}?",
                    "answer": target,
                    "prediction": target if drawn.random() < skill else target_of(kind, drawn),
                }
            )
    return records[:count]


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@dataclass
class Listener:
    """A reporter that keeps what it was told."""

    warnings: list[str] = field(default_factory=list)

    def track(self, items, description, total=None):
        yield from items

    def status(self, text): ...

    def info(self, message): ...

    def detail(self, message): ...

    def warn(self, message):
        self.warnings.append(message)


def scores_of(path: Path, **options):
    return score(ScoreOptions(predictions=[path], **{"replicates": 0} | options))


def as_json(scores) -> dict:
    return json.loads(FORMATS["json"](scores))


def bat(*arguments, stdin: str | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "batcli", "score", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, encoding="utf-8")


@pytest.fixture
def preds(tmp_path) -> Path:
    return write(tmp_path / "preds.jsonl", make(300))


# ---- the numbers ---------------------------------------------------------------------------------


def independent(records: list[dict], kind: str) -> dict[str, float]:
    """All metrics of a type, by loops over texts in the written form."""
    rows = [(r["answer"], r["prediction"]) for r in records if r["question_type"] == kind]
    n = len(rows)
    found = {"answered": 1.0}
    if kind in ("CLASSIFICATION", "MIXUP_SINGLE_CLASSIFICATION"):
        targets, predicted = (
            np.array([[name in row[i].split("; ") for name in sorted(LABELS)] for row in rows]) for i in (0, 1)
        )
        found["label_f1"] = f1_score(targets, predicted, average="micro")
        similar = np.zeros((n, len(LABELS)))
        for number, (scored, values) in enumerate(Lexical().columns([row[1] for row in rows], sorted(LABELS))):
            similar[scored, number] = values
        present = [c for c in range(len(LABELS)) if targets[:, c].any()]
        found["map"] = np.mean([average_precision_score(targets[:, c], similar[:, c]) for c in present])
    elif kind in ("DOA", "MIXUP_SINGLE_DOA"):
        pairs = [[(*part.split("; ")[0].split(", "), float(part.split("; ")[1][:-1])) for part in row] for row in rows]
        for axis, name in enumerate(("lr_acc", "fb_acc", "ud_acc")):
            found[name] = sum(a[axis] == b[axis] for a, b in pairs) / n
        found["doa_acc"] = sum(a[:3] == b[:3] for a, b in pairs) / n
        found["der"] = sum(abs(a[3] - b[3]) > 0.5 for a, b in pairs) / n
        found["distance_mae"] = sum(abs(a[3] - b[3]) for a, b in pairs) / n
    elif kind == "MIXUP_NONBINARY_DISTANCE":
        errors = [abs(float(a[:-1]) - float(b[:-1])) for a, b in rows]
        found["der"] = sum(error > 0.5 for error in errors) / n
        found["distance_mae"] = sum(errors) / n
    else:
        metric = {"MIXUP_NONBINARY_DIRECTION": "choice_acc", "MIXUP_NONBINARY_SOURCE": "source_acc"}
        found[metric.get(kind, "binary_acc")] = sum(a == b for a, b in rows) / n
    return found


def test_every_metric_of_every_type_equals_an_independent_one(tmp_path):
    records = make(2_000)
    (system,) = scores_of(write(tmp_path / "p.jsonl", records)).systems
    assert set(system.by_type) == set(PUBLISHED_TYPES)
    for kind, found in system.by_type.items():
        expected = independent(records, kind)
        assert set(found.scores) == set(expected)
        for name, value in expected.items():
            assert found.scores[name].value == pytest.approx(value, abs=1e-9), (kind, name)


def test_the_published_tables_columns_are_these_metrics(tmp_path):
    (system,) = scores_of(write(tmp_path / "p.jsonl", make(600))).systems
    value = {
        kind: {name: score.value for name, score in found.scores.items()} for kind, found in system.by_type.items()
    }
    directions, distances = value["MIXUP_DIRECTION"]["binary_acc"], value["MIXUP_DISTANCE_BOTH"]["binary_acc"]
    assert {name: found.value for name, found in system.paper.items()} == pytest.approx(
        {
            "mAP A": value["CLASSIFICATION"]["map"],
            "mAP C": value["MIXUP_SINGLE_CLASSIFICATION"]["map"],
            "label F1 A": value["CLASSIFICATION"]["label_f1"],
            "label F1 C": value["MIXUP_SINGLE_CLASSIFICATION"]["label_f1"],
            "DoA B": value["DOA"]["doa_acc"],
            "DoA D": value["MIXUP_SINGLE_DOA"]["doa_acc"],
            "DER B": value["DOA"]["der"],
            "DER D": value["MIXUP_SINGLE_DOA"]["der"],
            "BA direction": directions,
            "BA distance": distances,
            "BA avg": (directions + distances) / 2,
        }
    )
    assert system.by_family["E"]["binary_acc"].value == pytest.approx((directions + distances) / 2)


def test_free_text_counts_as_what_it_says(tmp_path):
    record = next(r for r in make(60) if r["question_type"] == "DOA")
    record |= {"answer": "left, behind, below; 2.5m"}
    record |= {"prediction": "It's to your left, behind you, a bit below, roughly 2.5 meters away"}
    (system,) = scores_of(write(tmp_path / "p.jsonl", [record])).systems
    assert {name: s.value for name, s in system.by_type["DOA"].scores.items() if name != "distance_mae"} == {
        "doa_acc": 1,
        "lr_acc": 1,
        "fb_acc": 1,
        "ud_acc": 1,
        "der": 0,
        "answered": 1,
    }


def test_no_answer_is_wrong_with_a_warning(tmp_path):
    records = make(90)
    for record in records:
        record |= {"prediction": None, "error": {"kind": "InputError", "message": "no such file"}}
    listener = Listener()
    options = ScoreOptions(predictions=[write(tmp_path / "p.jsonl", records)], replicates=0)
    (system,) = score(options, listener).systems
    for found in system.by_type.values():
        assert found.scores["answered"].value == 0
        for name, one in found.scores.items():
            assert math.isnan(one.value) if name == "distance_mae" else one.value == (name == "der") or name == "map"
    assert any("90 of 90 questions have no answer" in warning for warning in listener.warnings)


# ---- intervals, comparisons ----------------------------------------------------------------------


def test_intervals_are_seeded_and_hold_their_value(preds):
    first, again = (as_json(scores_of(preds, replicates=200)) for _ in range(2))
    other = as_json(scores_of(preds, replicates=200, seed=1))
    assert first == again
    assert first["by_type"]["DOA"]["doa_acc"]["ci"] != other["by_type"]["DOA"]["doa_acc"]["ci"]
    for found in first["by_type"].values():
        for name, one in found.items():
            if isinstance(one, dict) and one.get("ci"):
                assert one["ci"][0] <= one["value"] <= one["ci"][1], name


def test_the_order_of_the_questions_does_not_matter(tmp_path):
    records = make(200)
    straight = as_json(scores_of(write(tmp_path / "p.jsonl", records), replicates=50))
    random.Random(1).shuffle(records)
    (tmp_path / "q").mkdir()
    assert as_json(scores_of(write(tmp_path / "q" / "p.jsonl", records), replicates=50)) == straight


def test_questions_that_share_a_scene_widen_the_interval(tmp_path):
    """Each scene asked ten times, answered alike: as if there were one question, not ten."""
    records = []
    for number, record in enumerate(r for r in make(900) if r["question_type"] == "DOA"):
        records += [{**record, "question": f"{record['question']} {copy}"} for copy in range(10)] if number < 40 else []
    path = write(tmp_path / "p.jsonl", records)
    width = {}
    for cluster in ("scene", "question"):
        low, high = as_json(scores_of(path, replicates=500, cluster=cluster))["by_type"]["DOA"]["doa_acc"]["ci"]
        width[cluster] = high - low
    assert width["scene"] / width["question"] == pytest.approx(math.sqrt(10), rel=0.2)


def test_rooms_can_be_drawn_too(preds):
    """20 rooms: each drawn whole, so fewer and larger clusters."""
    by_room = as_json(scores_of(preds, replicates=50, cluster="room"))
    by_scene = as_json(scores_of(preds, replicates=50))
    assert by_room["by_type"]["DOA"]["doa_acc"]["value"] == by_scene["by_type"]["DOA"]["doa_acc"]["value"]
    assert by_room["by_type"]["DOA"]["doa_acc"]["ci"] != by_scene["by_type"]["DOA"]["doa_acc"]["ci"]


def test_against_itself_nothing_differs(preds):
    comparison = scores_of(preds, against=preds, replicates=50).comparison
    assert (comparison.n, comparison.only_here, comparison.only_there) == (300, 0, 0)
    for found in comparison.by_type.values():
        for name, difference in found.items():
            assert difference.score.value == 0, name
            assert difference.wins in (None, 0)
            assert difference.p_value == 1.0 or math.isnan(difference.p_value)


def test_against_counts_pairs_of_the_same_question(tmp_path):
    """Shuffled, and partly about other questions: pairs are found by what was asked."""
    here, there = make(300, answers=1), make(300, answers=2)
    kinds = [r["question_type"] for r in here]
    right = [[r["answer"] == r["prediction"] for r in records] for records in (here, there)]
    expected = {
        kind: (
            sum(a and not b for k, a, b in zip(kinds, *right, strict=True) if k == kind),
            sum(b and not a for k, a, b in zip(kinds, *right, strict=True) if k == kind),
        )
        for kind in ("MIXUP_DIRECTION", "MIXUP_NONBINARY_DIRECTION")
    }
    there = [r for r in there if r["question_type"] != "DOA"] + make(30, seed=9)
    random.Random(0).shuffle(there)
    scores = scores_of(write(tmp_path / "a.jsonl", here), against=write(tmp_path / "b.jsonl", there), replicates=100)
    found = scores.comparison
    assert found.n == sum(kind != "DOA" for kind in kinds)
    assert found.only_here == kinds.count("DOA")
    assert found.only_there == 30
    for kind, pair in expected.items():
        (difference,) = (d for name, d in found.by_type[kind].items() if name != "answered")
        assert (difference.wins, difference.losses) == pair


def test_against_repeated_questions_pairs_each_once(tmp_path):
    records = [r for r in make(60) if r["question_type"] == "DOA"][:1] * 3
    a = [{**r, "prediction": p} for r, p in zip(records, ["left", "right", "left"], strict=True)]
    path = write(tmp_path / "a.jsonl", a)
    comparison = scores_of(path, against=write(tmp_path / "b.jsonl", a[:2])).comparison
    assert (comparison.n, comparison.only_here) == (2, 1)
    assert comparison.by_type["DOA"]["lr_acc"].score.value == 0


def foreign(path: Path, **options) -> tuple:
    """The comparison of records with other names, and the warnings."""
    listener = Listener()
    fields = options.pop("field", ["answer=target", "prediction=response", "question_id=qid"])
    chosen = {"field": fields, "type": "MIXUP_DISTANCE_BOTH", "replicates": 0} | options
    return score(ScoreOptions(predictions=[path], **chosen), listener).comparison, listener.warnings


def test_records_without_a_scene_are_paired_by_their_ids(shared):
    """The same answers in another order: nothing differs."""
    folder = shared / "cases/11-foreign"
    comparison, warnings = foreign(folder / "yn.jsonl", against=folder / "yn_other_order.jsonl")
    assert (comparison.n, comparison.only_here, comparison.only_there) == (400, 0, 0)
    difference = comparison.by_type["MIXUP_DISTANCE_BOTH"]["binary_acc"]
    assert (difference.wins, difference.losses, difference.score.value) == (0, 0, 0.0)
    assert not warnings


def test_records_that_cannot_be_told_apart_are_refused(shared):
    folder = shared / "cases/11-foreign"
    with pytest.raises(InputError, match="400 of 400 questions cannot be told apart") as caught:
        foreign(
            folder / "yn.jsonl", against=folder / "yn_other_order.jsonl", field=["answer=target", "prediction=response"]
        )
    assert "--field question_id=" in str(caught.value.hint)


def test_ids_as_tables_write_them_are_whole_numbers(shared, tmp_path):
    """Beside empty cells, whole numbers become 7.0."""
    folder, other = shared / "cases/11-foreign", tmp_path / "floats.jsonl"
    records = [json.loads(line) for line in (folder / "yn_other_order.jsonl").read_text().splitlines()]
    other.write_text("".join(json.dumps({**record, "qid": float(record["qid"])}) + "\n" for record in records))
    comparison, warnings = foreign(folder / "yn.jsonl", against=other)
    assert (comparison.n, warnings) == (400, [])


def test_the_same_ids_with_other_true_answers_are_said_to_be_so(shared, tmp_path):
    folder, other = shared / "cases/11-foreign", tmp_path / "other.jsonl"
    records = [json.loads(line) for line in (folder / "yn_other_order.jsonl").read_text().splitlines()]
    exchanged = {"Yes": "No", "No": "Yes"}
    other.write_text(
        "".join(json.dumps({**record, "target": exchanged[record["target"]]}) + "\n" for record in records)
    )
    with pytest.raises(InputError, match="400 ids stand in both, and none with the same type, question and true"):
        foreign(folder / "yn.jsonl", against=other)


def yes_no_records(count: int, answers: int) -> list[dict]:
    targets, predicted = random.Random(0), random.Random(answers)
    return [
        {"qid": f"q{number}", "target": targets.choice(["Yes", "No"]), "response": predicted.choice(["Yes", "No"])}
        for number in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_records_with_ids_does_not_matter(tmp_path, seed):
    here, there = yes_no_records(60, answers=1), yes_no_records(60, answers=2)
    first = write(tmp_path / "a.jsonl", here)
    right = [[r["target"] == r["response"] for r in records] for records in (here, there)]
    expected = [sum(a > b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    random.Random(seed).shuffle(there)
    comparison, _ = foreign(first, against=write(tmp_path / "b.jsonl", there))
    difference = comparison.by_type["MIXUP_DISTANCE_BOTH"]["binary_acc"]
    assert [comparison.n, difference.wins, difference.losses] == [60, *expected]


def test_some_records_that_cannot_be_told_apart_are_counted(tmp_path):
    """Three ids stand twice, and the order differs: six records are left out."""
    here = yes_no_records(40, answers=1)
    for number in range(3):
        here[2 * number + 1] |= {"qid": here[2 * number]["qid"], "target": here[2 * number]["target"]}
    path = write(tmp_path / "a.jsonl", here)
    comparison, warnings = foreign(path, against=write(tmp_path / "b.jsonl", sorted(here, key=lambda r: r["target"])))
    assert (comparison.n, comparison.only_here) == (34, 6)
    assert any("6 of 40 questions cannot be told apart" in warning for warning in warnings)


def test_records_without_ids_in_the_same_order_are_paired_and_counted(tmp_path):
    paths = [write(tmp_path / f"{seed}.jsonl", yes_no_records(40, answers=seed)) for seed in (1, 2)]
    fields = ["answer=target", "prediction=response"]
    comparison, warnings = foreign(paths[0], against=paths[1], field=fields)
    assert comparison.n == 40
    assert any("40 of 40 pairs" in warning and "order of the files" in warning for warning in warnings)


def test_repeated_questions_about_a_scene_are_paired_by_their_ids(tmp_path):
    """In another order, with other answers to each: nothing differs."""
    records = [r for r in make(60) if r["question_type"] == "DOA"][:1] * 3
    predicted = ["left", "right", "nowhere"]
    a = [{**r, "question_id": place, "prediction": predicted[place]} for place, r in enumerate(records)]
    comparison = scores_of(write(tmp_path / "a.jsonl", a), against=write(tmp_path / "b.jsonl", a[::-1])).comparison
    difference = comparison.by_type["DOA"]["lr_acc"]
    assert (comparison.n, difference.wins, difference.losses) == (3, 0, 0)


def test_cases_of_answers_are_scored_as_they_say(shared):
    """Emphatic denials are right, refusals and hedges are not read."""
    for name, right, read in (("emphatic_no", 1, 1), ("hedge", 0, 0), ("refusal", 0, 0)):
        (system,) = scores_of(shared / f"cases/10-answers/{name}.jsonl").systems
        found = system.by_type["MIXUP_DISTANCE_BOTH"].scores
        assert (found["binary_acc"].value, found["answered"].value) == (right, read)


def test_nothing_in_common_is_refused(preds, tmp_path):
    with pytest.raises(InputError, match="no question in common"):
        scores_of(preds, against=write(tmp_path / "other.jsonl", make(10, seed=5)))


# ---- gates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "passed"),
    [
        ({"fail_under": ["DOA.doa_acc=0.05"]}, True),
        ({"fail_under": ["DOA.doa_acc=0.99"]}, False),
        ({"fail_under": ["B.doa_acc=0.99"]}, False),
        ({"fail_over": ["DOA.der=0.99"]}, True),
        ({"fail_over": ["D.der=0.01"]}, False),
        ({"fail_over": ["DOA.distance_mae=9.5"]}, True),
        ({"fail_under": ["E.binary_acc=0.1"]}, True),
        ({"fail_under": ["DOA.nothing=0.0"]}, False),
        ({"fail_over": ["NO_TYPE.der=1.0"]}, False),
    ],
)
def test_gates(preds, options, passed):
    (verdict,) = scores_of(preds, **options).verdicts
    assert verdict.passed is passed


def test_a_gate_at_exactly_the_value_passes(tmp_path):
    records = [r | {"prediction": r["answer"]} for r in make(60)]
    path = write(tmp_path / "p.jsonl", records)
    verdicts = scores_of(path, fail_under=["DOA.doa_acc=1.0"], fail_over=["DOA.der=0.0"]).verdicts
    assert [verdict.passed for verdict in verdicts] == [True, True]


@pytest.mark.parametrize(
    "gate", ["DOA.doa_acc", "doa_acc=0.5", "DOA.doa_acc=high", "DOA.doa_acc=nan", "DOA.doa_acc=40"]
)
def test_what_is_no_gate_is_found_before_anything_is_read(gate):
    with pytest.raises(InputError, match="--fail-under"):
        scores_of(Path("/nowhere.jsonl"), fail_under=[gate])


def test_exit_codes_and_streams(preds, tmp_path):
    missed = bat(preds, "--fail-under", "DOA.doa_acc=0.99", "--replicates", 0, "--junit", tmp_path / "gates.xml")
    assert missed.returncode == 3
    assert "gate missed: DOA.doa_acc" in missed.stderr
    assert "gate" not in missed.stdout
    assert "B DOA" in missed.stdout
    (suite,) = ElementTree.parse(tmp_path / "gates.xml").getroot()
    assert suite.attrib["failures"] == "1"
    assert bat(preds, "--fail-under", "DOA.doa_acc=0.01", "--replicates", 0).returncode == 0
    assert bat(tmp_path / "nothing.jsonl").returncode == 2


def test_a_closed_pipe_ends_quietly_and_keeps_the_gates(preds):
    for gate, code in (("0.01", 0), ("0.99", 3)):
        command = f"{sys.executable} -m batcli score {preds} --format csv --fail-under DOA.doa_acc={gate} -q"
        script = f"set -o pipefail; {command} | true"
        result = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        assert result.returncode == code
        assert "Traceback" not in result.stderr
        assert "BrokenPipe" not in result.stderr


# ---- forms ---------------------------------------------------------------------------------------


def test_json_has_the_documented_layout(preds):
    content = as_json(scores_of(preds, replicates=50))
    assert (content["schema"], content["n"]) == (1, 300)
    doa = content["by_type"]["DOA"]
    assert set(doa) == {
        "n",
        "doa_acc",
        "lr_acc",
        "fb_acc",
        "ud_acc",
        "der",
        "distance_mae",
        "answered",
        "confusion",
        "calibration",
    }
    assert 0 <= doa["doa_acc"]["ci"][0] <= doa["doa_acc"]["value"] <= doa["doa_acc"]["ci"][1] <= 1
    embedder = content["by_type"]["CLASSIFICATION"]["map"]["embedder"]
    assert embedder["name"] == "lexical"
    assert len(embedder["hash"]) == 16
    assert sum(map(sum, doa["confusion"]["counts"])) == doa["n"]


def test_csv_and_markdown_and_table_say_the_same(preds):
    scores = scores_of(preds, baseline=["random"], published=True, against=preds, replicates=20)
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"](scores))))
    assert {row["system"] for row in rows} == {"preds", "random"}
    (row,) = (r for r in rows if (r["system"], r["type"], r["metric"]) == ("preds", "DOA", "doa_acc"))
    value = scores.systems[0].by_type["DOA"].scores["doa_acc"].value
    assert float(row["value"]) == value
    assert float(row["difference"]) == 0
    for name in ("table", "md"):
        text = FORMATS[name](scores)
        assert f"{100 * value:.1f} (" in text
        assert "do not compare" in " ".join(text.split())
        assert all(system in text for system in ANSWERS.published)
    for block in FORMATS["md"](scores).split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1


def test_published_test_set_is_told_by_its_ids(tmp_path):
    records = make(30)
    for record in records:
        for audio, reverb in (("audio_id", "reverb_id"), ("audio_id2", "reverb_id2")):
            if record[audio]:
                record |= {audio: "AudioSet/eval/audio/YCqvbWnTBfTk", reverb: "17DRP5sb8fy/74.npy"}
    assert "ids of its form" in scores_of(write(tmp_path / "p.jsonl", records), published=True).published


def test_several_files_are_columns(preds, tmp_path):
    other = write(tmp_path / "other.jsonl", make(290, answers=3))
    listener = Listener()
    scores = score(ScoreOptions(predictions=[preds, other], replicates=0), listener)
    assert [system.name for system in scores.systems] == ["preds", "other"]
    assert as_json(scores)["others"][0]["name"] == "other"
    assert any("share 290" in warning for warning in listener.warnings)


def test_output_goes_to_a_file(preds, tmp_path):
    result = bat(preds, "--format", "json", "-o", tmp_path / "scores.json", "--replicates", 0)
    assert result.stdout == ""
    assert json.loads((tmp_path / "scores.json").read_text())["n"] == 300


def test_dry_run_counts_and_scores_nothing(preds):
    result = bat(preds, "--dry-run")
    assert (result.returncode, result.stdout) == (0, "")
    assert "300 questions" in result.stderr


@pytest.mark.parametrize("again", [False, True])
def test_standard_input(preds, tmp_path, again):
    """Also where it must be read twice."""
    more = ["--unparsed", tmp_path / "unread.jsonl"] if again else []
    result = bat("-", "--format", "json", "--replicates", 0, *more, stdin=preds.read_text())
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {**as_json(scores_of(preds)), "name": "stdin"}


@pytest.mark.parametrize("seed", range(3))
def test_standard_input_in_any_form_of_json(preds, seed):
    text = json_text([json.loads(line) for line in preds.read_text().splitlines()], random.Random(seed))
    result = bat("-", "--format", "json", "--replicates", 0, stdin=text)
    assert json.loads(result.stdout) == {**as_json(scores_of(preds)), "name": "stdin"}


def test_standard_input_that_is_no_text(tmp_path):
    command = [sys.executable, "-m", "batcli", "score", "-", "--unparsed", str(tmp_path / "unread.jsonl")]
    broken = subprocess.run(command, input=b"\xff\xfe", capture_output=True)
    assert broken.returncode == 2
    assert b"stdin:1: not UTF-8" in broken.stderr


# ---- bad input -----------------------------------------------------------------------------------

RECORD = make(3)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", ":2: not JSON"),
        ("[1, 2]", ":2: not a JSON object"),
        (json.dumps({**RECORD, "prediction": 3}), ":2: 'prediction' is neither text nor null: 3"),
        (json.dumps({**RECORD, "prediction": math.nan}), "neither text nor null: nan"),
        (json.dumps({k: v for k, v in RECORD.items() if k != "prediction"}), ":2: no field 'prediction'"),
        (json.dumps({k: v for k, v in RECORD.items() if k != "answer"}), ":2: no field 'answer'"),
        (json.dumps({**RECORD, "question_type": "GUESS"}), ":2: unknown question type 'GUESS'"),
        (json.dumps({**RECORD, "question_type": ["DOA"]}), ":2: unknown question type ['DOA']"),
        (
            json.dumps({**RECORD, "question_type": "DOA", "audio_id2": None, "reverb_id2": None, "answer": "there"}),
            "the true answer of a DOA is not a direction and a distance: 'there'",
        ),
        (json.dumps({**RECORD, "suprise": 1}), ":2: unknown field 'suprise'"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    path.write_bytes((json.dumps(RECORD) + "\n" + line + "\n").encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError) as caught:
        scores_of(path)
    assert message in str(caught.value)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no predictions"):
        scores_of(write(tmp_path / "p.jsonl", []))


def test_a_warning_of_duplicates_and_mixed_splits(tmp_path):
    records = make(30)
    records += records[:4]
    records[0] = {**records[0], "audio_id": "train/Y1"}
    listener = Listener()
    score(ScoreOptions(predictions=[write(tmp_path / "p.jsonl", records)], replicates=0), listener)
    assert any("stand more than once" in warning for warning in listener.warnings)
    assert any("different splits" in warning for warning in listener.warnings)


def test_labels_of_other_data_are_refused(preds, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("index,mid,display_name\n0,/m/1,Whistle\n")
    with pytest.raises(InputError, match="is a true answer, but no label"):
        scores_of(preds, labels=labels)


def test_all_labels_make_unknown_ones_count(tmp_path):
    """With the file's own labels alone, a wrong label that never is true goes unseen."""
    record = next(r for r in make(60) if r["question_type"] == "CLASSIFICATION")
    path = write(tmp_path / "p.jsonl", [{**record, "answer": "dog", "prediction": "dog; whistle"}])
    labels = tmp_path / "labels.csv"
    labels.write_text("index,mid,display_name\n0,/m/1,Dog\n1,/m/2,Whistle\n")
    found = [
        scores_of(path, labels=given).systems[0].by_type["CLASSIFICATION"].scores["label_f1"]
        for given in (None, labels)
    ]
    assert [one.value for one in found] == pytest.approx([1.0, 2 / 3])


@pytest.mark.parametrize(
    "options",
    [
        {"embedder": "magic"},
        {"embedder": "labels:"},
        {"baseline": ["luck"]},
        {"field": ["prediction"]},
        {"field": ["colour=red"]},
        {"type": "GUESS"},
        {"prior": Path("p.jsonl")},
        {"junit": Path("gates.xml")},
    ],
)
def test_options_that_mean_nothing(preds, options):
    with pytest.raises(InputError):
        scores_of(preds, **options)


# ---- baselines, unparsed, other systems ----------------------------------------------------------


def test_baselines_need_no_predictions(tmp_path):
    questions = [{k: v for k, v in r.items() if k != "prediction"} for r in make(3_000)]
    path = write(tmp_path / "questions.jsonl", questions)
    names = ["random", "majority", "prior-by-wording"]
    systems = scores_of(path, baseline=names).systems
    assert [system.name for system in systems] == names
    for system in systems:
        value = {kind: next(iter(found.scores.values())).value for kind, found in system.by_type.items()}
        assert value["MIXUP_DIRECTION"] == pytest.approx(0.5, abs=0.1)
        assert value["DOA"] == pytest.approx(1 / 8, abs=0.1)
        assert all(found.scores["answered"].value == 1.0 for kind, found in system.by_type.items())


def test_gates_need_predictions(tmp_path):
    questions = [{k: v for k, v in r.items() if k != "prediction"} for r in make(30)]
    path = write(tmp_path / "questions.jsonl", questions)
    with pytest.raises(InputError, match="without predictions"):
        scores_of(path, baseline=["random"], fail_under=["DOA.doa_acc=0.0"])


def test_prior_by_wording_finds_what_the_wording_gives_away(tmp_path):
    """ "… both …?" is always Yes here, whatever the events; the majority cannot know."""
    records = [r for r in make(2_000) if r["question_type"] == "MIXUP_DIRECTION"]
    for number, record in enumerate(records):
        names = random.Random(number).sample(LABELS, 2)
        both = number % 2
        record["question"] = (
            f"Are {names[0]} and {names[1]} {'both' if both else 'ever'} within {number % 7 + 1} meters?"
        )
        record["answer"] = "Yes" if both else "No"
    records += [r for r in make(300) if r["question_type"] == "CLASSIFICATION"]
    path = write(tmp_path / "p.jsonl", records)
    found = {
        s.name: s.by_type["MIXUP_DIRECTION"].scores["binary_acc"].value
        for s in scores_of(path, baseline=["majority", "prior-by-wording"]).systems
    }
    assert found["prior-by-wording"] == 1.0
    assert found["majority"] == pytest.approx(0.5, abs=0.01)


def test_a_prior_from_other_questions(tmp_path):
    records = [r | {"answer": "No"} for r in make(600) if r["question_type"] == "MIXUP_DIRECTION"]
    other = write(tmp_path / "train.jsonl", [r | {"answer": "Yes"} for r in records])
    path = write(tmp_path / "p.jsonl", records)
    systems = scores_of(path, baseline=["majority"], prior=other).systems
    assert systems[1].by_type["MIXUP_DIRECTION"].scores["binary_acc"].value == 0.0


def test_what_could_not_be_read_is_listed(tmp_path):
    records = make(100)
    records[7] |= {"prediction": "I do not know"}
    records[9] |= {"prediction": None}
    scores_of(write(tmp_path / "p.jsonl", records), unparsed=tmp_path / "unread.jsonl")
    listed = [json.loads(line) for line in (tmp_path / "unread.jsonl").read_text().splitlines()]
    assert [one["question_id"] for one in listed] == [7, 9]
    assert all(one["not_read"] for one in listed)


def test_fields_of_another_system(preds, tmp_path):
    theirs = [
        {
            "response": r["prediction"],
            "target": r["answer"],
            "task": r["question_type"],
            "clip": r["audio_id"],
            "extra": 1,
        }
        for r in make(300)
    ]
    fields = ["prediction=response", "answer=target", "question_type=task", "audio_id=clip"]
    found = scores_of(write(tmp_path / "theirs.jsonl", theirs), field=fields).systems[0]
    ours = scores_of(preds).systems[0]
    assert found.by_type["DOA"].scores == ours.by_type["DOA"].scores
    with pytest.raises(InputError, match="no field 'answer'"):
        scores_of(tmp_path / "theirs.jsonl", field=fields[:1], type="DOA")
    with pytest.raises(InputError, match="unknown question type"):
        scores_of(write(tmp_path / "theirs.jsonl", [{**theirs[0], "task": ["DOA"]}]), field=fields)


def test_one_type_for_all_records(tmp_path):
    records = [{"answer": "Yes", "prediction": "No"}, {"answer": "No", "prediction": "It is not."}]
    found = scores_of(write(tmp_path / "p.jsonl", records), type="MIXUP_DIRECTION").systems[0]
    assert found.by_type["MIXUP_DIRECTION"].scores["binary_acc"].value == 0.5


def write_pair(folder: Path, records: list[dict]) -> Path:
    for name, key in (("pred", "prediction"), ("gt", "answer")):
        lines = [f"{r['question_type']}-{r['question_id'] % 5}\t{r[key]}\n" for r in records]
        (folder / f"decode_beam4_{name}").write_text("".join(lines))
    return folder / "decode_beam4_pred"


def test_the_incumbents_pair_of_files(preds, tmp_path):
    pair = write_pair(tmp_path, make(300))
    ours = scores_of(preds).systems[0]
    alone = scores_of(pair).systems[0]
    assert alone.name == "decode_beam4"
    assert {k: f.scores for k, f in alone.by_type.items()} == {k: f.scores for k, f in ours.by_type.items()}
    questions = write(tmp_path / "q.jsonl", [{k: v for k, v in r.items() if k != "prediction"} for r in make(300)])
    located = as_json(scores_of(pair, questions=questions, replicates=100))
    assert located["by_type"] == as_json(scores_of(preds, replicates=100))["by_type"], "the scenes are known again"


def test_a_pair_that_does_not_fit(tmp_path):
    pair = write_pair(tmp_path, make(30))
    targets = tmp_path / "decode_beam4_gt"
    lines = targets.read_text().splitlines(keepends=True)
    targets.write_text("".join(lines[:-1]))
    with pytest.raises(InputError, match="not as many lines"):
        scores_of(pair)
    targets.write_text("".join([lines[1], lines[0], *lines[2:]]))
    with pytest.raises(InputError, match=r"decode_beam4_pred:\d"):
        scores_of(pair)
    questions = write(
        tmp_path / "q.jsonl", [{k: v for k, v in r.items() if k != "prediction"} for r in make(30, seed=3)]
    )
    targets.write_text("".join(lines))
    with pytest.raises(InputError, match="another question"):
        scores_of(pair, questions=questions)


def test_questions_that_were_not_answered_count_as_wrong(tmp_path):
    records = [r | {"prediction": r["answer"]} for r in make(300)]
    whole = write(tmp_path / "q.jsonl", [{k: v for k, v in r.items() if k != "prediction"} for r in records])
    listener = Listener()
    options = ScoreOptions(
        predictions=[write(tmp_path / "p.jsonl", records[::2])],
        questions=whole,
        replicates=0,
        unparsed=tmp_path / "unread.jsonl",
    )
    (system,) = score(options, listener).systems
    answered = sum(r["question_type"] == "DOA" for r in records[::2]) / sum(
        r["question_type"] == "DOA" for r in records
    )
    assert system.n == 300
    assert system.by_type["DOA"].scores["doa_acc"].value == pytest.approx(answered)
    assert any("150 of 300 questions were not answered" in warning for warning in listener.warnings)
    assert len((tmp_path / "unread.jsonl").read_text().splitlines()) == 150


def test_the_published_form_of_questions_is_read_too(tmp_path):
    records = make(30)
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"data": records}, indent=1))
    one_line = tmp_path / "q.json"
    one_line.write_text(json.dumps({"data": records}))
    expected = scores_of(write(tmp_path / "p.jsonl", records)).systems[0].by_type["DOA"].scores
    for file in (path, one_line):
        assert scores_of(file).systems[0].by_type["DOA"].scores == expected


# ---- the page, and what is imported --------------------------------------------------------------


def test_the_page_needs_no_network_and_escapes_what_it_shows(tmp_path):
    pytest.importorskip("matplotlib")
    records = make(400)
    wrong = next(r for r in records if r["question_type"] == "MIXUP_DIRECTION")
    wrong |= {"question": "<script>alert(1)</script>", "answer": "Yes", "prediction": "No <b>&</b>"}
    scores_of(
        write(tmp_path / "p.jsonl", records),
        report=tmp_path / "report",
        baseline=["random"],
        fail_under=["DOA.doa_acc=0.99"],
    )
    text = (tmp_path / "report" / "index.html").read_text()
    body = (
        text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace("http://creativecommons.org", "")
    )
    assert "http://" not in body
    assert "https://" not in body
    assert "<script" not in text
    assert text.count("<figure>") == 5 + 1, "2 confusions, 3 distances, accuracy against distance"
    assert "is 0." in text


def test_the_page_places_sources_and_links_scenes(tmp_path):
    """With the dataset it knows azimuth, elevation, RT60 and DRR; with the scenes it can play them."""
    pytest.importorskip("matplotlib")
    rng = random.Random(0)
    entries = []
    for number in range(60):
        x, y, z = (rng.uniform(-3, 3) for _ in range(3))
        where = {"sensor_position": "0,0,0", "source_position": f"{x},{y},{z}"}
        entries.append(
            {"fname": f"room/{number}.npy", **where, "rt60": rng.uniform(0.2, 0.8), "drr": rng.uniform(-9, 9)}
        )
    write_json(tmp_path / "data" / "eval.json", {"data": entries})
    (tmp_path / "data" / "labels.csv").write_text("index,mid,display_name\n0,/m/1,Dog\n")
    dataset = Dataset(tmp_path / "data")
    reverbs = read_reverbs(tmp_path / "data" / "eval.json")
    dataset.add_split("eval", [], None, tmp_path / "data" / "eval.json")
    dataset.save()
    records, scenes = [], []
    for number, (name, reverb) in enumerate(reverbs.items()):
        predicted = write_doa(reverb.position) if number % 3 else "left, front, above; 9m"
        ids = {"audio_id": f"eval/Y{number}", "reverb_id": name}
        question = {"question_type": "DOA", "question": "Where?", "answer": write_doa(reverb.position)}
        none = {"audio_id2": None, "reverb_id2": None, "question_id": number}
        records.append({**ids, **none, **question, "prediction": predicted})
        scenes.append({"scene_id": str(number), "file": f"scene {number}.wav", "sources": [ids]})
    (tmp_path / "scenes").mkdir()
    write(tmp_path / "scenes" / "scenes.jsonl", scenes)
    scores_of(
        write(tmp_path / "p.jsonl", records),
        report=tmp_path / "out" / "report",
        data=tmp_path / "data",
        scenes=tmp_path / "scenes",
    )
    text = (tmp_path / "out" / "report" / "index.html").read_text()
    for name in ("azimuth", "elevation", "true distance", "reverberation time RT60", "direct-to-reverberant ratio"):
        assert f"Right answers against {name}" in text
    assert text.count("<audio") == 6
    assert 'src="../../scenes/scene%20' in text


def test_the_page_is_the_same_bytes_again(preds, tmp_path):
    pytest.importorskip("matplotlib")
    for name in ("one", "two"):
        scores_of(preds, report=tmp_path / name)
    assert (tmp_path / "one" / "index.html").read_bytes() == (tmp_path / "two" / "index.html").read_bytes()


def test_neither_torch_nor_pandas_is_imported_for_json(preds):
    code = (
        "import sys; from pathlib import Path; from batcli.options import ScoreOptions;"
        "from batcli.score import score; from batcli.evaluation.report import to_json;"
        f"to_json(score(ScoreOptions(predictions=[Path({str(preds)!r})], replicates=10)));"
        "print([name for name in ('torch', 'pandas', 'transformers', 'matplotlib') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


# ---- intervals -----------------------------------------------------------------------------------


def test_map_of_a_few_unanswered_questions_lies_in_its_interval(tmp_path):
    """Each of a class of its own: resamples have fewer classes, and so a larger mAP, all of them."""
    first = next(record for record in make(30) if record["question_type"] == "CLASSIFICATION")
    changes = [{"audio_id": f"eval/{label}", "answer": label, "prediction": None} for label in LABELS]
    records = [{**first, **change} for change in changes]
    found = as_json(scores_of(write(tmp_path / "preds.jsonl", records), replicates=300))["by_type"]["CLASSIFICATION"]
    assert found["map"]["value"] == pytest.approx(1 / len(LABELS))
    low, high = found["map"]["ci"]
    assert low <= found["map"]["value"] <= high


@settings(max_examples=15)
@given(st.integers(1, 60), st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.3, 1.0]))
def test_every_interval_holds_its_value(tmp_path_factory, count, seed, skill, unanswered):
    """Of every metric, however few the questions, and whether they were answered at all."""
    records = make(count, seed, skill)
    rng = random.Random(seed)
    for record in records:
        if rng.random() < unanswered:
            record["prediction"] = None
    folder = tmp_path_factory.mktemp("few")
    other = write(folder / "b.jsonl", make(count, seed, 0.5, answers=7))
    content = as_json(scores_of(write(folder / "a.jsonl", records), replicates=60, against=other))
    seen = 0
    for part in _parts_with_interval(content):
        value, (low, high) = part.get("value", part.get("difference")), part["ci"]
        assert low <= value <= high, part
        seen += 1
    assert seen > 0 or len({(r["audio_id"], r["reverb_id"]) for r in records}) == 1  # one scene has no interval


def _parts_with_interval(content):
    if isinstance(content, dict):
        if content.get("ci") is not None:
            yield content
        for below in content.values():
            yield from _parts_with_interval(below)
    elif isinstance(content, list):
        for below in content:
            yield from _parts_with_interval(below)
