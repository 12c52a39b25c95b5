"""Scenes that are drawn for the encoder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batcli.audio.render import RenderSettings, load_source, render_files
from batcli.data.dataset import open_dataset
from batcli.model.config import PRESETS
from batcli.model.encoders.sources import Cues, SourceTokens
from batcli.model.features import spectrum
from batcli.training.order import clip_order, rarity_weights
from batcli.training.scenes import GROUP, MAX_EVENTS, CuedRooms, DrawnScenes, SceneDistribution

SETTINGS = RenderSettings(1.0)


def drawn(demo: Path, two: float = 0.0, **distribution) -> DrawnScenes:
    return DrawnScenes(open_dataset(demo), "train", SETTINGS, 0, 40, SceneDistribution(two, **distribution))


def test_a_scene_depends_on_its_index_alone(demo: Path):
    scenes, again = (drawn(demo, 0.5, mixup=0.5, roll=True, gain=True, any_brir=True) for _ in range(2))
    for number in (7, 3):
        for a, b in zip(scenes[number], again[number], strict=True):
            assert torch.equal(a, b)


def test_scenes_have_the_number_of_their_places(demo: Path):
    assert {int(drawn(demo, 0.0)[i].n_places) for i in range(5)} == {1}
    assert {int(drawn(demo, 1.0)[i].n_places) for i in range(5)} == {2}


def test_mixed_clips_share_a_place_and_the_weight_of_events(demo: Path):
    scenes = [drawn(demo, mixup=1.0)[i] for i in range(20)]
    different = [scene for scene in scenes if scene.present.sum() > 1]
    assert len(different) > 10
    for scene in different:
        assert int(scene.n_places) == 1
        assert scene.events.sum() == pytest.approx(1.0)
        assert torch.equal(scene.direction[0], scene.direction[1])
        assert 0.1 < scene.events.max() < 0.9


def test_no_augmentation_is_the_published_rendering(demo: Path):
    """With all augmentations on but without effect, the audio is that of `render_files`."""
    plain, other = drawn(demo), drawn(demo, mixup=1e-9)
    torch.testing.assert_close(other[4].audio, plain[4].audio)
    assert torch.equal(other[4].events, plain[4].events)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.integers(1, 12), st.integers(0, 12))
def test_each_place_has_slots_for_its_events(demo: Path, first: int, second: int):
    scenes = drawn(demo)
    counts = [count for count in (first, second) if count]
    events = [[(20 * place + number, 1.0) for number in range(count)] for place, count in enumerate(counts)]
    scenes.n_classes = 40
    reverbs = scenes.rooms[0][: len(counts)]
    scene = scenes.with_targets(torch.zeros(2, 1), events, reverbs)
    assert scene.events.sum() == sum(counts)
    used = [int((scene.present * (scene.place == place)).sum()) for place in range(len(counts))]
    assert sum(used) == min(MAX_EVENTS, sum(counts))
    assert all(one == count or one >= max(used) - 1 for one, count in zip(used, counts, strict=True))
    for slot in range(sum(used)):
        place = int(scene.place[slot])
        assert scene.event_ids[slot] // 20 == place
        assert scene.distance[slot].item() == pytest.approx(reverbs[place].position.distance)
        assert torch.equal(scene.direction[slot], scene.direction[place])


def test_cached_clips_are_not_modified(demo: Path):
    scenes = drawn(demo, roll=True, gain=True, mixup=1.0)
    clip, reverb = scenes.clips[0][0], scenes.rooms[0][0]
    files = scenes.dataset.audio_path(clip), scenes.dataset.brir_path(reverb.reverb_id)
    before = load_source(*files, SETTINGS)[0].copy()
    for number in range(10):
        scenes[number]
    np.testing.assert_array_equal(load_source(*files, SETTINGS)[0], before)


def test_rare_labels_are_drawn_as_often_as_frequent_ones():
    """Nine clips of one label and one of another: each label has half of the probability."""
    weights = rarity_weights([[0]] * 9 + [[1]])
    np.testing.assert_allclose(weights / weights.sum(), [1 / 18] * 9 + [1 / 2], rtol=2e-2)
    assert weights[9] == 1000 / 1.01
    order = clip_order([[0]] * 9 + [[1]], epochs=4_000, each=1, balanced=True, seed=0)
    assert Counter(order.tolist())[9] == pytest.approx(2_000, abs=130)


def test_an_epoch_has_each_clip_at_most_once_and_is_drawn_anew():
    """Weighted draws are those of clip after clip: the share of epochs without the rarest is that of the formula."""
    labels = [[0]] * 4 + [[1]] * 2 + [[2]]
    order = clip_order(labels, epochs=3_000, each=2, balanced=True, seed=1).reshape(3_000, 2)
    assert (order[:, 0] != order[:, 1]).all()
    rates = rarity_weights(labels) / rarity_weights(labels).sum()
    missed = sum(rates[a] * rates[b] / (1 - rates[a]) for a in range(6) for b in range(6) if a != b)
    assert (order != 6).all(1).mean() == pytest.approx(missed, abs=0.03)
    assert len({tuple(epoch) for epoch in order.tolist()}) > 20
    whole = clip_order(labels, epochs=5, each=7, balanced=False, seed=1).reshape(5, 7)
    assert (np.sort(whole) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in whole.tolist()}) == 5
    cut = clip_order(labels, epochs=50, each=3, balanced=False, seed=1)
    assert len(set(cut.tolist())) == 7, "what is dropped differs from epoch to epoch"


def test_a_draw_of_a_room_has_each_source_alone_and_in_pairs(demo: Path, monkeypatch: pytest.MonkeyPatch):
    rendered: list[list[tuple[Path, Path]]] = []

    def recording(files, settings):
        rendered.append(files)
        return render_files(files, settings)

    monkeypatch.setattr("batcli.training.scenes.render_files", recording)
    scenes = drawn(demo)
    sources = SourceTokens(replace(PRESETS["tiny"].sources, n_classes=scenes.n_classes))
    _, draw = CuedRooms(scenes, sources.cues)[3]
    assert len(rendered) == GROUP
    assert len(draw.events) == 2 * GROUP
    assert draw.n_places[:GROUP].tolist() == [1] * GROUP
    for number in range(GROUP, 2 * GROUP):
        pair = [
            i for i in range(GROUP) if draw.event_ids[i, 0] in draw.event_ids[number, : int(draw.present[number].sum())]
        ]
        assert len(pair) == int(draw.n_places[number])
        assert torch.equal(draw.events[number], draw.events[pair].amax(0))
        together = render_files([rendered[i][0] for i in pair], SETTINGS)
        expected = sources.cues(spectrum(torch.from_numpy(together))[None])[0]
        torch.testing.assert_close(draw.audio[number], expected, atol=0.02, rtol=1e-3)


def test_a_pair_has_no_label_and_no_place_in_common(demo: Path):
    rooms = CuedRooms(drawn(demo), Cues(PRESETS["tiny"].sources))
    for number in range(6):
        _, draw = rooms[number]
        pairs = draw.n_places == 2
        assert pairs.sum() >= GROUP - 1
        assert (draw.events[pairs].sum(1) == 2).all()
        assert (draw.direction[pairs, 0] != draw.direction[pairs, 1]).any(-1).all()


SIGNALLED = """
import os, subprocess, sys, time
from torch.utils.data import Dataset
from batcli.core.signals import defer_signals
from batcli.training.loader import Loader

class Slow(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        time.sleep(0.2)
        return index

with defer_signals() as stop:
    kill = f"import os, time; time.sleep({sys.argv[1]}); os.killpg({os.getpgrp()}, 15)"
    stranger = subprocess.Popen([sys.executable, "-c", kill], start_new_session=True)
    found = [number for batch in Loader(Slow(), batch_size=1, num_workers=2) for number in batch.tolist()]
    stranger.wait()
    print(found, bool(stop))
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="nothing says who sent a signal")
@pytest.mark.parametrize("moment", [0.0, 0.05, 0.3])
def test_a_signal_to_all_processes_leaves_the_loader_its_workers(moment):
    where = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    words = [sys.executable, "-c", SIGNALLED, str(moment)]
    done = subprocess.run(words, env=where, start_new_session=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[0, 1, 2, 3, 4, 5] True\n", "")
