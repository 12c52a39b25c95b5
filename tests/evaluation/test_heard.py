"""Scores of what encoders hear: against scikit-learn and loops, by hand, and what is refused."""

import json
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from batcli.cli import app
from batcli.core.errors import InputError
from batcli.core.progress import Silent
from batcli.evaluation.formats import FORMATS
from batcli.evaluation.heard import Place, places_of
from batcli.evaluation.subjects import HEARING
from batcli.evaluation.table import to_table
from batcli.options import ScoreOptions
from batcli.score import score

CLASSES = 6


class Warned(Silent):
    def __init__(self):
        self.warnings = []

    def warn(self, message):
        self.warnings.append(message)


def place(rng: random.Random, **more) -> dict:
    return {
        **more,
        "azimuth": rng.randrange(360),
        "elevation": rng.randrange(-90, 91),
        "distance": rng.randrange(1, 12) / 2,
    }


def make(count: int, seed: int = 0, two: bool = False, heard: int = 0, named: bool = False, bad: float = 0) -> list:
    """Records of scenes; `seed` fixes the scenes, `heard` what is heard of them."""
    rng, drawn = random.Random(seed), random.Random(heard + 1_000)
    records = []
    for number in range(count):
        events = rng.sample(range(CLASSES), rng.randint(2, 4))
        parts = [events[:1], events[1:]] if two else [events]
        truth = [place(rng, events=sorted(part)) for part in parts]
        places = [place(drawn, event=event if named else None) for event in drawn.sample(range(CLASSES), 3)]
        if drawn.random() < 0.5:
            places[0] |= {key: truth[0][key] for key in ("azimuth", "elevation", "distance")}
        scores = [drawn.gauss(2.0 * (event in events), 1.0) for event in range(CLASSES)]
        record = {
            "audio_id": f"eval/Y{number}",
            "reverb_id": f"room{number % 7}/{number}.npy",
            "audio_id2": f"eval/Z{number}" if two else None,
            "reverb_id2": f"room{number % 7}/x.npy" if two else None,
            "truth": truth,
            "names": "heard",
            "heard": {"encoder": {"scores": scores, "places": places if named else places[:1]}},
        }
        if drawn.random() < bad:
            record |= {"heard": None, "error": {"kind": "InputError", "message": "gone"}}
        records.append(record)
    return records


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def scores_of(path: Path, reporter=None, **options) -> dict:
    return json.loads(
        FORMATS["json"](score(ScoreOptions(predictions=[path], **{"replicates": 0} | options), reporter or Silent()))
    )


# ---- the numbers ---------------------------------------------------------------------------------


def angle(one: dict, other: dict) -> float:
    """Great-circle distance by the haversine formula."""
    a1, a2, e1, e2 = (math.radians(p[name]) for name in ("azimuth", "elevation") for p in (one, other))
    part = math.sin((e2 - e1) / 2) ** 2 + math.cos(e1) * math.cos(e2) * math.sin((a2 - a1) / 2) ** 2
    return math.degrees(2 * math.asin(min(1.0, math.sqrt(part))))


def published(records: list[dict]) -> dict[str, float]:
    """The published evaluation, one source: scikit-learn and loops."""
    heard = [record["heard"]["encoder"] for record in records]
    targets = np.zeros((len(records), CLASSES))
    for row, record in enumerate(records):
        for source in record["truth"]:
            targets[row, source["events"]] = 1
    scores = np.array([each["scores"] for each in heard])
    precisions = [average_precision_score(targets[:, c], scores[:, c]) for c in range(CLASSES) if targets[:, c].any()]
    pairs = [
        (each["places"][0], source) for each, record in zip(heard, records, strict=True) for source in record["truth"]
    ]
    errors = [angle(*pair) for pair in pairs]
    right = [abs(round(2 * a["distance"]) - round(2 * b["distance"])) <= 1 for a, b in pairs]
    return {
        "map": float(np.mean(precisions)),
        "er20": sum(error > 20 for error in errors) / len(errors),
        "mae": sum(errors) / len(errors),
        "der": 1 - sum(right) / len(right),
    }


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("count", [3, 60])
def test_against_the_published_evaluation(tmp_path, count, two):
    """With two sources, an encoder that gives one place answers with that for both."""
    records = make(count, seed=count, two=two)
    content = scores_of(write(tmp_path / "h.jsonl", records))
    found = content["by_type"]["TWO_SOURCES" if two else "ONE_SOURCE"]
    assert found["n"] == content["n"] == count
    assert found["sources"] == count * (1 + two)
    assert found["events"] == len({e for r in records for s in r["truth"] for e in s["events"]})
    for metric, value in published(records).items():
        assert found[metric]["value"] == pytest.approx(value, abs=1e-6), metric
        assert content["paper_table"][metric]["value"] == (None if two else pytest.approx(value, abs=1e-6))
    assert "named" not in found


def test_equal_scores_enter_together(tmp_path):
    records = make(40)
    for record in records:
        record["heard"]["encoder"]["scores"] = [float(round(score)) for score in record["heard"]["encoder"]["scores"]]
    found = scores_of(write(tmp_path / "h.jsonl", records))["by_type"]["ONE_SOURCE"]
    assert found["map"]["value"] == pytest.approx(published(records)["map"], abs=1e-6)


def test_an_elevation_of_90_degrees_and_azimuths_across_0(tmp_path):
    records = make(3)
    for record, pair in zip(records, [((0, 89), (200, 90)), ((359, 0), (1, 0)), ((10, -90), (99, -90))], strict=True):
        (a, b), (c, d) = pair
        record["heard"]["encoder"]["places"][0] |= {"azimuth": a, "elevation": b}
        record["truth"][0] |= {"azimuth": c, "elevation": d}
    found = scores_of(write(tmp_path / "h.jsonl", records))["by_type"]["ONE_SOURCE"]
    assert found["mae"]["value"] == pytest.approx((1 + 2 + 0) / 3, abs=1e-6)
    assert found["er20"]["value"] == 0


@pytest.mark.parametrize(("off", "wrong"), [(0, 0), (0.5, 0), (-0.5, 0), (1.0, 1), (-1.0, 1)])
def test_one_class_of_distance_is_right_and_two_are_not(tmp_path, off, wrong):
    records = make(1)
    records[0]["truth"][0]["distance"] = 4.0
    records[0]["heard"]["encoder"]["places"][0]["distance"] = 4.0 + off
    assert scores_of(write(tmp_path / "h.jsonl", records))["by_type"]["ONE_SOURCE"]["der"]["value"] == wrong


def test_a_scene_without_a_result_is_wrong(tmp_path):
    records, warned = make(40, bad=0.3), Warned()
    missing = [record for record in records if record["heard"] is None]
    found = scores_of(write(tmp_path / "h.jsonl", records), warned)["by_type"]["ONE_SOURCE"]
    assert f"{len(missing)} of 40 scenes have no result (null); they count as wrong" in warned.warnings[0]
    worst = {"azimuth": 0, "elevation": 0, "distance": 1000.0}
    for record in missing:  # below all others, and as wrong as can be
        record["truth"][0] |= {"azimuth": 180, "elevation": 0}
        record["heard"] = {"encoder": {"scores": [-1e9] * CLASSES, "places": [{"event": None, **worst}]}}
    expected = published(records)
    for metric in ("map", "er20", "der"):
        assert found[metric]["value"] == pytest.approx(expected[metric], abs=1e-6), metric
    rest = [record for record in records if record not in missing]
    assert found["mae"]["value"] == pytest.approx(published(rest)["mae"], abs=1e-6)


# ---- which place answers for which source --------------------------------------------------------


def at(event: int | None, azimuth: float) -> Place:
    return Place(frozenset() if event is None else frozenset({event}), azimuth, 0, 1)


@pytest.mark.parametrize(
    ("true", "heard", "answered"),
    [
        ([{1}], [(2, 10), (1, 20)], [10]),  # of one source the likeliest, whatever its name
        ([{1}, {2}], [(2, 10), (1, 20)], [20, 10]),  # by name
        ([{1}, {2}], [(2, 10), (5, 20), (6, 30)], [20, 10]),  # else the likeliest that nobody has
        ([{1}, {2}], [(5, 10), (6, 20)], [10, 20]),
        ([{1, 3}, {2}], [(3, 10), (1, 20), (2, 30)], [10, 30]),  # several labels of one source
        ([{1}, {2}], [(2, 10)], [10, 10]),  # nothing is left
        ([{1}, {2}], [(None, 10)], [10, 10]),
    ],
)
def test_the_place_of_each_source(true, heard, answered):
    sources = [Place(frozenset(events), 0, 0, 1) for events in true]
    assert [found.azimuth for found in places_of(sources, [at(*one) for one in heard])] == answered


def test_named_sources(tmp_path):
    records = make(30, two=True, named=True)
    found = scores_of(write(tmp_path / "h.jsonl", records))["by_type"]["TWO_SOURCES"]
    hits = [
        any(place["event"] in source["events"] for place in record["heard"]["encoder"]["places"])
        for record in records
        for source in record["truth"]
    ]
    assert 0 < sum(hits) < len(hits)
    assert found["named"]["value"] == pytest.approx(sum(hits) / len(hits))


# ---- columns, comparison, gates, published rows --------------------------------------------------


def test_both_numbers_of_sources_and_both_encoders_of_a_file(tmp_path):
    records = [*make(20), *make(20, two=True, named=True)]
    for record in records:
        record["heard"]["sources"] = make(1, heard=5, named=True)[0]["heard"]["encoder"]
    file = write(tmp_path / "h.jsonl", records)
    content = scores_of(file)
    assert [content["name"], content["others"][0]["name"]] == ["h: encoder", "h: sources"]
    assert [list(part["by_type"]) for part in (content, content["others"][0])] == [["ONE_SOURCE", "TWO_SOURCES"]] * 2
    alone = scores_of(write(tmp_path / "one.jsonl", make(20)))["by_type"]["ONE_SOURCE"]
    for metric in ("map", "er20", "mae", "der"):
        assert content["by_type"]["ONE_SOURCE"][metric]["value"] == pytest.approx(alone[metric]["value"])
    for record in records:
        record["names"] = "true"
    content = scores_of(write(tmp_path / "t.jsonl", records))
    assert content["others"][0]["name"] == "t: sources (true names)"
    assert "named" not in content["others"][0]["by_type"]["TWO_SOURCES"]  # they are all named


def test_a_table_beside_the_published_rows(tmp_path):
    file = write(tmp_path / "h.jsonl", make(30))
    result = score(ScoreOptions(predictions=[file], published=True, replicates=50))
    for form in ("table", "md", "json"):
        text = FORMATS[form](result)
        assert all(system in text for system in HEARING.published)
        assert "these are 30 scenes of one source" in " ".join(text.split())
        assert "do not compare" in " ".join(text.split())
    table = to_table(result, 80)
    assert max(map(len, table.splitlines())) <= 80
    for row in (
        "Spatial-AST (paper) 49.74 24.21 18.00 32.38",
        "Spatial-AST (rerun) 49.90 24.43 17.87 32.50",
        "DSpAST (2025)       54.53 20.28 14.44 28.03",
    ):
        assert row in table
    assert "degrees off mae" in table.split("In the published")[0]
    csv = FORMATS["csv"](result)
    assert "h,,ONE_SOURCE,30,er20," in csv


def test_two_sources_alone_have_no_published_table(tmp_path):
    file = write(tmp_path / "h.jsonl", make(10, two=True))
    plain, beside = (
        FORMATS["table"](score(ScoreOptions(predictions=[file], published=published, replicates=0)))
        for published in (False, True)
    )
    assert "two sources" in plain
    assert "In the published" not in plain
    assert plain in beside
    assert "DSpAST (2025)       54.53" in beside


def test_the_published_scenes_are_told_by_form_and_number(tmp_path, monkeypatch):
    monkeypatch.setattr("batcli.evaluation.heard_scores.PUBLISHED_SCENES", 4)
    records = make(4)
    for record in records:
        record |= {"audio_id": "eval/audio/Yabcdefghijk", "reverb_id": "abcdefghijk/3.npy"}
    result = score(ScoreOptions(predictions=[write(tmp_path / "h.jsonl", records)], published=True, replicates=0))
    assert "and are as many" in result.published
    result = score(ScoreOptions(predictions=[write(tmp_path / "h.jsonl", records[1:])], published=True, replicates=0))
    assert "do not compare" in result.published


def test_intervals_draw_scenes_or_rooms(tmp_path):
    file = write(tmp_path / "h.jsonl", make(60))
    by_scene, by_room = (
        scores_of(file, replicates=300, cluster=cluster)["by_type"]["ONE_SOURCE"] for cluster in ("scene", "room")
    )
    assert by_scene["er20"]["value"] == by_room["er20"]["value"]
    assert by_scene["er20"]["ci"] != by_room["er20"]["ci"]
    low, high = by_scene["er20"]["ci"]
    share = by_scene["er20"]["value"]
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(share * (1 - share) / 60), rel=0.25)


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 10**6), st.booleans(), st.booleans(), st.sampled_from([0, 0.3, 0.9]))
def test_every_interval_holds_its_value(tmp_path_factory, count, seed, two, named, bad):
    records = [*make(1, seed, two), *make(count, seed, two, seed + 1, named, bad)]
    content = scores_of(write(tmp_path_factory.mktemp("few") / "h.jsonl", records), replicates=80)
    for found in content["by_type"].values():
        for metric in ("map", "er20", "mae", "der"):
            if found[metric]["ci"] is not None:
                low, high = found[metric]["ci"]
                assert low <= found[metric]["value"] <= high, metric


def test_against_the_same_scenes_in_another_order(tmp_path):
    first, second = make(40, two=True, named=True), make(40, two=True, named=True, heard=3)
    shuffled = random.Random(0).sample(second[5:], 35)
    here, there = write(tmp_path / "a.jsonl", first[:-3]), write(tmp_path / "b.jsonl", shuffled)
    content = scores_of(here, against=there, replicates=100)
    against = content["against"]
    assert (against["n"], against["only_here"], against["only_there"]) == (32, 5, 3)
    common = [scores_of(write(tmp_path / "x.jsonl", part[5:-3]))["by_type"]["TWO_SOURCES"] for part in (first, second)]
    for metric in ("map", "er20", "mae", "der", "named"):
        found = against["by_type"]["TWO_SOURCES"][metric]
        assert found["difference"] == pytest.approx(common[0][metric]["value"] - common[1][metric]["value"])
        assert found["ci"][0] <= found["difference"] <= found["ci"][1]
    er20 = against["by_type"]["TWO_SOURCES"]["er20"]
    assert (er20["losses"] - er20["wins"]) / 64 == pytest.approx(er20["difference"])
    assert "wins" not in against["by_type"]["TWO_SOURCES"]["mae"]
    table = FORMATS["table"](score(ScoreOptions(predictions=[here], against=there, replicates=50)))
    note = "On the 32 scenes of both; 5 only here, 3 only in b. McNemar's p takes sources for independent."
    assert note in " ".join(table.split())
    with pytest.raises(InputError, match="no scene in common"):
        scores_of(here, against=write(tmp_path / "c.jsonl", make(4)))


def test_gates_hold_an_encoder(tmp_path):
    file = str(write(tmp_path / "h.jsonl", make(30)))
    run = CliRunner().invoke
    assert (
        run(app, ["score", file, "--fail-over", "ONE_SOURCE.mae=179", "--fail-under", "ONE_SOURCE.map=0.01"]).exit_code
        == 0
    )
    missed = run(app, ["score", file, "--fail-over", "ONE_SOURCE.mae=1", "--junit", str(tmp_path / "g.xml")])
    assert missed.exit_code == 3
    assert "gate missed: ONE_SOURCE.mae of h is" in missed.stderr
    assert "ONE_SOURCE.mae" in (tmp_path / "g.xml").read_text()
    assert run(app, ["score", file, "--fail-over", "ONE_SOURCE.er20=20"]).exit_code == 2  # a fraction


def test_standard_input_and_a_dry_run(tmp_path):
    file = write(tmp_path / "h.jsonl", make(30))
    found = CliRunner().invoke(app, ["score", "-", "--format", "json", "--replicates", "0"], input=file.read_text())
    assert json.loads(found.stdout)["by_type"] == scores_of(file)["by_type"]
    dry = CliRunner().invoke(app, ["score", str(file), "--dry-run"])
    assert (dry.exit_code, dry.stdout) == (0, "")
    assert "h: 30 scenes" in dry.stderr


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"baseline": ["random"]}, {"prior": Path("x"), "baseline": ["random"]}, {"embedder": "labels:x.npy"},
        {"embedder_cache": Path("x")}, {"labels": Path("x")}, {"unparsed": Path("x")}, {"report": Path("x")},
        {"data": Path("x")}, {"scenes": Path("x")}, {"questions": Path("x")}, {"field": ["prediction=p"]},
        {"type": "DOA"},
    ],
)  # fmt: skip
def test_options_about_answers(tmp_path, changes, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is about answers; these files are what an encoder hears"):
        scores_of(write(tmp_path / "h.jsonl", make(2)), **changes)


def without(name):
    return lambda record: record.pop(name)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("truth"), "no field 'truth'"),
        (without("names"), "no field 'names'"),
        (lambda r: r.update(audio_id=3), "are text"),
        (lambda r: r.update(audio_id2="x"), "'truth' has 1 sources"),
        (lambda r: r["truth"].append(r["truth"][0]), "'truth' has 2 sources"),
        (lambda r: r.update(truth=[]), "'truth' is no list, or empty"),
        (lambda r: r["truth"][0].update(events=[]), "'events' is no list, or empty"),
        (lambda r: r["truth"][0].update(events=[CLASSES]), f"event {CLASSES} has no score"),
        (lambda r: r["truth"][0].update(events=[True]), "events are not numbers"),
        (lambda r: r["truth"][0].update(events=[-1]), "events are not numbers"),
        (lambda r: r["truth"][0].update(azimuth="3"), "azimuth is not a finite number"),
        (lambda r: r["truth"][0].update(distance=math.nan), "distance is not a finite number"),
        (lambda r: r.update(names="guessed"), "neither heard nor true"),
        (lambda r: r.update(names="true"), "others of heard ones"),
        (lambda r: r.update(heard=[]), "neither null nor an object"),
        (lambda r: r.update(heard={"other": r["heard"]["encoder"]}), "encoders other, before encoder"),
        (lambda r: r["heard"]["encoder"]["scores"].append(1.0), "7 scores of encoder, before 6"),
        (lambda r: r["heard"]["encoder"].update(scores=[math.inf] * CLASSES), "a score is not a finite number"),
        (lambda r: r["heard"]["encoder"].update(places=[]), "'places' is no list, or empty"),
        (lambda r: r["heard"].update(encoder=3), "not an object"),
        (lambda r: r.update(prediction="left"), None),
    ],
)
def test_what_is_no_scene(tmp_path, spoil, message):
    records = make(3)
    spoil(records[1])
    file = write(tmp_path / "h.jsonl", records)
    if message is None:  # other fields are nobody's business
        scores_of(file)
        return
    with pytest.raises(InputError) as caught:
        scores_of(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{file}:2")


def test_answers_and_scenes_do_not_mix(tmp_path):
    scenes = write(tmp_path / "h.jsonl", make(3))
    answer = {"question": "?", "answer": "Yes", "prediction": "Yes", "question_type": "MIXUP_DIRECTION"}
    with pytest.raises(InputError, match="score answers and what encoders hear apart"):
        scores_of(scenes, against=write(tmp_path / "p.jsonl", [answer]))


def test_a_file_of_bad_scenes_alone(tmp_path):
    with pytest.raises(InputError, match="no scene with a result"):
        scores_of(write(tmp_path / "h.jsonl", [{**record, "heard": None} for record in make(3)]))
