"""`bat decode --encoder`: what the encoders of a run hear of each clip of a split."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from batcli.audio.render import RenderSettings, render_files
from batcli.cli import app
from batcli.core.errors import InputError, Stopped, TooManyBad
from batcli.data.dataset import open_dataset
from batcli.data.fixed_scenes import fixed_scenes
from batcli.data.schema import Source
from batcli.decode import decode
from batcli.model import checkpoint
from batcli.model.bat import Encoders
from batcli.model.config import EncoderConfig, ModelConfig, QFormerConfig, SourcesConfig
from batcli.options import DecodeOptions

LIMIT = 12


@pytest.fixture(scope="module")
def heard_run(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both encoders, narrow and untrained, and no language model: none is loaded."""
    run = tmp_path_factory.mktemp("heard") / "run"
    run.mkdir()
    torch.manual_seed(0)
    dataset = open_dataset(demo)
    config = ModelConfig(
        EncoderConfig(n_mels=32, dim=16, depth=2, heads=2),
        QFormerConfig(layers=2, queries=3, dim=16, heads=2),
        sources=SourcesConfig(tokens=3, bands=16, hidden=8, event_dim=4),
    ).for_scenes(dataset.seconds, len(dataset.labels))
    encoders = Encoders(config)
    with torch.no_grad():  # large enough that scenes differ in what is heard
        for name, parameter in encoders.named_parameters():
            if name.startswith("encoder.") and parameter.ndim > 1 and "cls" not in name:
                parameter.normal_(std=0.5)
    checkpoint.write_config(run, config, {}, None)
    checkpoint.save_encoder(run, encoders.state_dict())
    checkpoint.finish(run)
    return run


def options(run: Path, data: Path | None, output: Path | None, **changes) -> DecodeOptions:
    defaults = {"encoder": True, "workers": 1, "limit": LIMIT, "device": "cpu"}
    return DecodeOptions(run=run, data=data, output=output, **{**defaults, **changes})


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def heard(heard_run: Path, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("heard") / "heard.jsonl"
    decode(options(heard_run, demo, output, sources="both"))
    return output


def test_every_clip_at_a_fixed_place_then_with_another(heard: Path, demo: Path):
    dataset = open_dataset(demo)
    clips = [clip.audio_id for clip in dataset.clips("eval")][:LIMIT]
    found = records(heard)
    assert [record["audio_id"] for record in found] == clips * 2
    assert [record["audio_id2"] is None for record in found] == [True] * LIMIT + [False] * LIMIT
    manifest = json.loads(Path(f"{heard}.manifest.json").read_text())
    assert (manifest["scenes"], manifest["bad"], manifest["seed"], manifest["sources"]) == (2 * LIMIT, 0, 0, "both")


def test_the_truth_is_that_of_clips_and_brirs_in_whole_degrees_and_half_metres(heard: Path, demo: Path):
    dataset = open_dataset(demo)
    reverbs, numbers = dataset.reverbs("eval"), {label.mid: label.number for label in dataset.labels}
    events = {clip.audio_id: sorted(numbers[mid] for mid in clip.mids) for clip in dataset.clips("eval")}
    for record in records(heard):
        pairs = [(record["audio_id"], record["reverb_id"]), (record["audio_id2"], record["reverb_id2"])]
        pairs = pairs[: len(record["truth"])]
        for (audio_id, reverb_id), truth in zip(pairs, record["truth"], strict=True):
            position = reverbs[reverb_id].position
            assert truth["events"] == events[audio_id]
            assert abs(truth["azimuth"] - position.azimuth) <= 0.5 or truth["azimuth"] == 0 > position.azimuth - 359.6
            assert abs(truth["elevation"] - position.elevation) <= 0.5
            assert abs(truth["distance"] - position.distance) <= 0.25
            assert [truth["azimuth"] % 1, truth["elevation"] % 1, 2 * truth["distance"] % 1] == [0, 0, 0]
        if len(pairs) == 2:
            assert not set(record["truth"][0]["events"]) & set(record["truth"][1]["events"])
            (_, one), (_, other) = pairs
            assert one != other
            assert reverbs[one].scene == reverbs[other].scene


@torch.inference_mode()
def test_what_the_heads_and_the_tokens_say_is_written(heard: Path, heard_run: Path, demo: Path):
    dataset = open_dataset(demo)
    encoders, config = checkpoint.load_encoders(heard_run)
    settings = RenderSettings(config.seconds, rendering="published")
    for record in records(heard)[:4] + records(heard)[-4:]:
        sources = [Source(record["audio_id"], record["reverb_id"]), Source(record["audio_id2"], record["reverb_id2"])]
        files = [dataset.files_of(source) for source in sources[: len(record["truth"])]]
        wave = torch.from_numpy(render_files(files, settings))[None]
        found = encoders["encoder"].heads(encoders["encoder"](wave))
        said = record["heard"]["encoder"]
        assert said["scores"] == pytest.approx(found.events[0].tolist(), rel=1e-3, abs=1e-4)
        assert said["places"] == [
            {
                "event": None,
                "azimuth": found.azimuth.argmax().item(),
                "elevation": found.elevation.argmax().item() - 90,
                "distance": found.distance.argmax().item() / 2,
            }
        ]
        tokens = record["heard"]["sources"]
        likeliest = np.argsort(tokens["scores"])[::-1][: config.sources.tokens]
        assert [place["event"] for place in tokens["places"]] == likeliest.tolist()


def test_places_differ_from_scene_to_scene(heard: Path):
    """So that the tests here would see a mixed-up scene."""
    found = records(heard)
    assert len({record["heard"]["encoder"]["places"][0]["azimuth"] for record in found}) > 5
    assert len({record["heard"]["sources"]["places"][0]["azimuth"] for record in found}) > 5


def test_true_names_are_placed_when_asked_for(heard: Path, heard_run: Path, demo: Path, tmp_path: Path):
    decode(options(heard_run, demo, tmp_path / "true.jsonl", sources="both", true_names=True))
    located = records(tmp_path / "true.jsonl")
    agree = 0
    for record, unaided in zip(located, records(heard), strict=True):
        assert (record["names"], unaided["names"]) == ("true", "heard")
        events = {event for truth in record["truth"] for event in truth["events"]}
        tokens = record["heard"]["sources"]
        assert {place["event"] for place in tokens["places"]} == events
        assert len(tokens["places"]) == len(events)
        scores = [tokens["scores"][place["event"]] for place in tokens["places"]]
        assert scores == sorted(scores, reverse=True)
        assert record["heard"]["encoder"] == unaided["heard"]["encoder"]
        assert tokens["scores"] == unaided["heard"]["sources"]["scores"]
        by_event = {place["event"]: place for place in unaided["heard"]["sources"]["places"]}
        for place in tokens["places"]:
            if place["event"] in by_event:
                assert place["azimuth"] == pytest.approx(by_event[place["event"]]["azimuth"], abs=0.05)
                agree += 1
    assert agree > 0


def test_a_draw_follows_from_seed_and_clip_alone(demo: Path):
    dataset = open_dataset(demo)
    whole = fixed_scenes(dataset, "eval", [1, 2], seed=0)
    few = fixed_scenes(dataset, "eval", [2], seed=0, limit=5)
    assert [scene for scene in whole if len(scene.scene) == 2][:5] == few
    other = fixed_scenes(dataset, "eval", [1, 2], seed=1)
    assert [scene.scene[0].audio_id for scene in other] == [scene.scene[0].audio_id for scene in whole]
    assert sum(a.scene == b.scene for a, b in zip(other, whole, strict=True)) < len(whole) / 2
    reverbs = {source.reverb_id for scene in whole for source in scene.scene}
    assert len(reverbs) > len(dataset.reverbs("eval")) / 2


@pytest.mark.parametrize("sources", [None, "1", "2"])
def test_one_source_unless_asked_for_more(heard: Path, heard_run: Path, demo: Path, tmp_path: Path, sources):
    decode(options(heard_run, demo, tmp_path / "one.jsonl", sources=sources))
    whole = heard.read_text().splitlines(keepends=True)
    wanted = whole[LIMIT:] if sources == "2" else whole[:LIMIT]
    assert (tmp_path / "one.jsonl").read_text() == "".join(wanted)


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    heard: Path, heard_run: Path, demo: Path, tmp_path: Path, stops_after
):
    output = tmp_path / "heard.jsonl"
    with pytest.raises(Stopped):
        decode(options(heard_run, demo, output, sources="both"), stops_after("scenes", 16))
    assert not output.exists()
    parts = [path for path in tmp_path.iterdir() if "part" in path.name]
    assert sum(len(path.read_text().splitlines()) for path in parts) == 16
    decode(options(heard_run, demo, output, sources="both"))
    assert output.read_bytes() == heard.read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_two_processes_write_what_one_writes(heard: Path, heard_run: Path, demo: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):  # the first rank waits for the other
        monkeypatch.setenv("RANK", rank)
        decode(options(heard_run, demo, tmp_path / "heard.jsonl", sources="both"))
    assert (tmp_path / "heard.jsonl").read_bytes() == heard.read_bytes()
    with pytest.raises(InputError, match="several processes cannot share standard output"):
        decode(options(heard_run, demo, Path("-")))


def test_standard_output_has_the_same_records(heard: Path, heard_run: Path, demo: Path):
    flags = ["decode", str(heard_run), str(demo), "--encoder", "--sources", "both", "--limit", str(LIMIT), "-o", "-"]
    result = CliRunner().invoke(app, [*flags, "-q", "--device", "cpu", "--workers", "1"])
    assert result.exit_code == 0
    assert result.stdout == heard.read_text()
    assert result.stderr == ""


def test_a_bad_scene_is_a_record(heard: Path, heard_run: Path, demo: Path, tmp_path: Path):
    data, output = tmp_path / "data", tmp_path / "heard.jsonl"
    shutil.copytree(demo, data)
    gone = records(heard)[3]["reverb_id"]
    open_dataset(data).brir_path(gone).unlink()
    with pytest.raises(TooManyBad, match=r"of 12 scenes could not be heard; see 'error'"):
        decode(options(heard_run, data, output))
    found = records(output)
    bad = [record for record in found if record["heard"] is None]
    assert [record["reverb_id"] == gone for record in found] == [record["heard"] is None for record in found]
    assert found[3] in bad
    assert gone in found[3]["error"]["message"]
    assert [a for a in found if a not in bad] == [b for b in records(heard)[:LIMIT] if b["reverb_id"] != gone]
    decode(options(heard_run, data, output, max_bad=len(bad)))


def test_what_is_not_finite_is_a_bad_record(heard_run: Path, demo: Path, tmp_path: Path, monkeypatch):
    import batcli.training.hearing as hearing

    original = hearing.hear

    def broken(encoders, audio, events=None):
        found = original(encoders, audio, events)
        found["encoder"].scores[2, 1] = float("nan")
        return found

    monkeypatch.setattr(hearing, "hear", broken)
    decode(options(heard_run, demo, tmp_path / "heard.jsonl", limit=8, max_bad=1))
    found = records(tmp_path / "heard.jsonl")
    assert [record.get("error", {}).get("kind") for record in found] == [None, None, "NotFinite"] + [None] * 5


def test_a_dry_run_counts(heard_run: Path, demo: Path, tmp_path: Path):
    flags = ["decode", str(heard_run), str(demo), "--encoder", "-o", str(tmp_path / "h.jsonl"), "--dry-run"]
    result = CliRunner().invoke(app, flags)
    count = len(open_dataset(demo).clips("eval"))
    assert result.exit_code == 0
    assert f"{count:,} scenes, published rendering, places of the heard events: encoder, sources" in result.stderr
    assert not (tmp_path / "h.jsonl").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_beams": 4}, "--num-beams: has no effect with --encoder"),
        ({"max_new_tokens": 9}, "--max-new-tokens: has no effect with --encoder"),
        ({"batch_size": 4}, "--batch-size: has no effect with --encoder"),
        ({"zero_audio": True}, "--zero-audio: has no effect with --encoder"),
        ({"question": "Where?"}, "--question: has no effect with --encoder"),
        ({"precision": "bf16"}, "--precision: has no effect with --encoder"),
        ({"quantize": True}, "--quantize: has no effect with --encoder"),
        ({"llm": Path("x")}, "--llm: has no effect with --encoder"),
        ({"attention": "eager"}, "--attention: has no effect with --encoder"),
        ({"encoder": False, "sources": "1"}, "--sources: has no effect without --encoder"),
        ({"encoder": False, "true_names": True}, "--true-names: has no effect without --encoder"),
        ({"encoder": False, "question": "Where?"}, "--question: has no effect without --audio"),
        ({"data": None}, "--encoder: measures the encoder on the clips of DATA"),
        ({"audio": Path("x.wav")}, "--encoder: measures the encoder on the clips of DATA"),
        ({"output": None}, "--output: missing"),
        ({"split": "nope"}, "no split 'nope'"),
    ],
)
def test_contradictions_are_refused(heard_run: Path, demo: Path, tmp_path: Path, changes: dict, message: str):
    with pytest.raises(InputError) as caught:
        decode(options(**{"run": heard_run, "data": demo, "output": tmp_path / "h.jsonl", **changes}))
    assert message in str(caught.value)


def test_other_labels_than_the_encoders(heard_run: Path, demo: Path, tmp_path: Path):
    shutil.copytree(demo, tmp_path / "data")
    file = tmp_path / "data" / "labels.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InputError, match=r"knows 28 events, .* has 27"):
        decode(options(heard_run, tmp_path / "data", tmp_path / "h.jsonl"))


def test_true_names_need_source_tokens(heard_run: Path, demo: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    config = replace(checkpoint.read_config(heard_run), sources=None)
    checkpoint.write_config(run, config, {}, None)
    checkpoint.save_encoder(run, Encoders(config).state_dict())
    checkpoint.finish(run)
    with pytest.raises(InputError, match="--true-names"):
        decode(options(run, demo, tmp_path / "h.jsonl", true_names=True))
    decode(options(run, demo, tmp_path / "h.jsonl", limit=2))
    assert [list(record["heard"]) for record in records(tmp_path / "h.jsonl")] == [["encoder"]] * 2


def test_rooms_of_one_brir_have_no_second_source(heard_run: Path, demo: Path, tmp_path: Path):
    shutil.copytree(demo, tmp_path / "data")
    dataset = open_dataset(tmp_path / "data")
    file = dataset.path(dataset.split("eval").reverbs)
    entries = json.loads(file.read_text())["data"]
    first = {entry["fname"].partition("/")[0]: entry for entry in entries}
    file.write_text(json.dumps({"data": list(first.values())}))
    with pytest.raises(InputError, match="no room of split 'eval' has two BRIRs"):
        decode(options(heard_run, tmp_path / "data", tmp_path / "h.jsonl", sources="2"))
    decode(options(heard_run, tmp_path / "data", tmp_path / "h.jsonl", limit=2))
