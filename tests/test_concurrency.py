"""Several runs at once: on one output, on one cache, and on a dataset that changes under them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from batcli.core.errors import InputError, Stopped
from batcli.core.files import exclusive_lock
from batcli.data.dataset import open_dataset
from batcli.decode import decode
from batcli.options import DecodeOptions, ImportOptions, RoomsOptions, SpatializeOptions
from batcli.prepare.released import import_released
from batcli.prepare.rooms import rooms
from batcli.spatialize import spatialize
from batcli.training.cache import EncodingCache

ROOT = Path(__file__).resolve().parents[1]
HOLD = """
import os, sys, time
from pathlib import Path
from batcli.core.files import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", ["", "preds.jsonl"], ids=["a directory", "a file"])
def test_one_holds_it_until_it_ends(tmp_path, name):
    with exclusive_lock(tmp_path / name):
        with pytest.raises(InputError, match="another run is writing here"), exclusive_lock(tmp_path / name):
            pass
        with exclusive_lock(tmp_path / "another"):
            pass
    with exclusive_lock(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "preds.jsonl"], ids=["a directory", "a file"])
def test_a_killed_run_holds_nothing_even_where_its_children_live_on(tmp_path, name):
    words = [sys.executable, "-c", HOLD, str(tmp_path / name)]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    try:
        with pytest.raises(InputError, match="another run"), exclusive_lock(tmp_path / name):
            pass
        process.kill()
        process.wait()
        with exclusive_lock(tmp_path / name):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_the_second_run_on_an_output_gets_one_line_and_spoils_nothing(demo, run, tmp_path):
    scenes, preds = tmp_path / "scenes", tmp_path / "preds.jsonl"
    scenes.mkdir()
    split = {"data": demo, "split": "eval"}
    for output, command in (
        (scenes, lambda: spatialize(SpatializeOptions(**split, output=scenes, jobs=1))),
        (preds, lambda: decode(DecodeOptions(**split, run=run, output=preds, workers=1, limit=2))),
        (tmp_path / "train_reverberation.json", lambda: rooms(RoomsOptions(reverb=tmp_path, rooms=1, jobs=1))),
    ):
        with exclusive_lock(output), pytest.raises(InputError, match="another run is writing here"):
            command()
        command()


def test_two_imports_into_one_dataset_lose_no_split(demo, tmp_path):
    """Both open it before either has written."""
    roots = {"audio_root": demo / "audio", "reverb_root": demo / "reverb", "labels": demo / "labels.csv"}
    data, lines = tmp_path / "data", (demo / "questions/eval.jsonl").read_text().splitlines(keepends=True)
    for name in ("first", "a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    import_released(ImportOptions(data=data, files=[tmp_path / "first.jsonl"], **roots))
    faults: list[Exception] = []

    def take(name: str) -> None:
        for _ in range(200):
            try:
                import_released(ImportOptions(data=data, files=[tmp_path / f"{name}.jsonl"], **roots))
                return
            except InputError as error:
                if "another run" not in str(error):
                    faults.append(error)
                    return
                time.sleep(0.02)

    threads = [threading.Thread(target=take, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert set(open_dataset(data).splits) == {"first", "a", "b"}


def test_a_dataset_edited_during_a_decode(demo, run, tmp_path, stops_after):
    """Answers from before the edit are not used after it."""
    data, output = tmp_path / "data", tmp_path / "preds.jsonl"
    shutil.copytree(demo, data)
    options = DecodeOptions(run=run, data=data, output=output, workers=1, batch_size=4)
    with pytest.raises(Stopped):
        decode(options, stops_after("questions", 40))
    file = data / "questions/eval.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[-1], *lines[:-1]]))
    decode(options)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["question_id"] for record in records] == [
        json.loads(x)["question_id"] for x in file.read_text().splitlines()
    ]
    decode(DecodeOptions(run=run, data=data, output=tmp_path / "calm.jsonl", workers=1, batch_size=4))
    assert output.read_bytes() == (tmp_path / "calm.jsonl").read_bytes()


def test_two_ranks_fill_one_cache(tmp_path):
    """Each process writes its rows through a mapping of its own; all see all."""
    sample = {"tokens": torch.zeros(7, 5), "numbers": torch.zeros(3, dtype=torch.long)}
    count, world = 300, 2
    EncodingCache(tmp_path, count, sample, create=True)

    def row(number: int) -> dict[str, torch.Tensor]:
        return {"tokens": torch.full((1, 7, 5), float(number)), "numbers": torch.full((1, 3), number)}

    def fill(rank: int) -> None:
        cache = EncodingCache(tmp_path, count, sample, create=False)
        for number in range(rank, count, world):
            cache.put([number], row(number))

    children = []
    for rank in range(world):
        if (child := os.fork()) == 0:
            fill(rank)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    cache = EncodingCache(tmp_path, count, sample, create=True)  # a third that comes later deletes nothing
    assert len(cache.missing()) == 0
    found = cache.get(np.arange(count))
    assert torch.equal(found["numbers"][:, 0], torch.arange(count))
    assert torch.equal(found["tokens"][:, 0, 0], torch.arange(count).float())
