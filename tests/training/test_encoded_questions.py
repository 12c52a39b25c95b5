"""Encodings from a cache and encodings made at each use are the same bits."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
import torch

from batcli.audio.render import RenderSettings
from batcli.core.progress import SILENT
from batcli.data.dataset import Dataset, open_dataset
from batcli.data.schema import Scene, Source
from batcli.model import checkpoint
from batcli.model.bat import Encoding, encode_fixed_batch
from batcli.training.bad_scenes import BAD_SCENES, BadScenes
from batcli.training.cache import EncodingCache
from batcli.training.encoded_questions import CachedScenes, EncodedBatch, FreshScenes
from batcli.training.loader import Loader
from batcli.training.scenes import ENCODE_BATCH, GivenScenes

LOST = (Source("nowhere/lost", "room/0.npy"),)


@pytest.fixture(scope="module")
def encode(run: Path):
    return checkpoint.load_run(run)[0].encode


@pytest.fixture(scope="module")
def dataset(demo: Path) -> Dataset:
    return open_dataset(demo)


@pytest.fixture(scope="module")
def scenes(dataset: Dataset) -> list[Scene]:
    return list(dict.fromkeys(question.scene for question in dataset.questions("train")))


def fresh(dataset: Dataset, scenes: Sequence[Scene], encode, folder: Path, workers: int = 0) -> FreshScenes:
    items = GivenScenes(dataset, scenes, RenderSettings(dataset.seconds))
    return FreshScenes(items, partial(Loader, num_workers=workers), encode, "cpu", BadScenes(folder, SILENT))


@pytest.fixture(scope="module")
def cached(dataset: Dataset, scenes: list[Scene], encode, tmp_path_factory: pytest.TempPathFactory) -> CachedScenes:
    """Filled in another order than any batch has."""
    items = GivenScenes(dataset, scenes, RenderSettings(dataset.seconds))
    order = random.Random(3).sample(range(len(scenes)), len(scenes))
    folder, cache = tmp_path_factory.mktemp("cache"), None
    for start in range(0, len(order), ENCODE_BATCH):
        rows = order[start : start + ENCODE_BATCH]
        with torch.inference_mode():
            tokens = encode_fixed_batch(encode, [items[row][1] for row in rows], ENCODE_BATCH, "cpu")
        cache = cache or EncodingCache(folder, len(scenes), {k: part[0] for k, part in tokens.items()}, create=True)
        cache.put(rows, tokens)
    assert cache is not None
    return CachedScenes(cache, {scene: row for row, scene in enumerate(scenes)})


def same(a: EncodedBatch, b: EncodedBatch) -> bool:
    assert a.encoding is not None
    assert b.encoding is not None
    assert a.good == b.good
    return all(torch.equal(a.encoding[name], b.encoding[name]) for name in a.encoding)


@pytest.mark.parametrize(("sizes", "workers"), [([1], 0), ([3], 2), ([16], 1), ([5, 2, 11], 0)])
def test_every_batch_is_the_same_from_both(dataset, scenes, encode, cached, tmp_path, sizes, workers):
    """Whatever the size of the batches; a scene may come twice in one, and again in a later one."""
    rng, sizes = random.Random(1), itertools.cycle(sizes)
    batches = [rng.choices(scenes, k=next(sizes)) for _ in range(7)]
    made = list(fresh(dataset, scenes, encode, tmp_path, workers).stream(batches))
    assert len(made) == len(batches)
    for found, expected in zip(made, cached.stream(batches), strict=True):
        assert same(found, expected)
    later = list(fresh(dataset, scenes, encode, tmp_path, workers).stream(batches[4:]))
    assert all(same(a, b) for a, b in zip(later, made[4:], strict=True)), "as a resumed run begins"


def test_a_scene_is_encoded_once_for_a_batch_and_full_batches_are_encoded(dataset, scenes, encode, tmp_path):
    counts: list[int] = []

    def counting(waveform: torch.Tensor) -> Encoding:
        counts.append(len(waveform))
        return encode(waveform)

    batches = [[scenes[n], scenes[n], scenes[n + 1]] for n in range(0, 16, 2)]  # two scenes each
    assert len(list(fresh(dataset, scenes, counting, tmp_path).stream(batches))) == 8
    assert counts == [ENCODE_BATCH, ENCODE_BATCH]


def test_what_training_needs_can_be_saved_for_its_gradient(dataset, scenes, encode, tmp_path):
    (batch,) = fresh(dataset, scenes, encode, tmp_path).stream([scenes[:2]])
    assert batch.encoding is not None
    tokens = next(iter(batch.encoding.values()))
    torch.nn.Linear(tokens.shape[-1], 2)(tokens).sum().backward()  # no tensor of inference mode


def test_scenes_that_cannot_be_rendered_are_left_out_and_listed_once(dataset, scenes, encode, cached, tmp_path):
    made = fresh(dataset, [*scenes, LOST], encode, tmp_path)
    batches = [[scenes[0], LOST, scenes[1]], [LOST, LOST], [scenes[2], LOST]]
    found = list(made.stream(batches))
    assert [batch.good for batch in found] == [[True, False, True], [False, False], [True, False]]
    assert found[1].encoding is None
    good = list(cached.stream([scenes[:2], scenes[2:3]]))
    for a, b in zip((found[0], found[2]), good, strict=True):
        assert all(torch.equal(a.encoding[name], b.encoding[name]) for name in b.encoding)
    again = fresh(dataset, [*scenes, LOST], encode, tmp_path)
    list(again.stream(batches))
    assert made.bad() == again.bad() == 1
    (line,) = (tmp_path / BAD_SCENES).read_text().splitlines()
    assert json.loads(line)["error"]["message"].endswith("no such file")
