"""Fixtures that many tests share."""

import csv
import json
import math
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# The tests run in as many processes as there are processors; more threads than these make each of them slower. Before
# torch is imported, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from batcli.core.errors import ExitCode, Stopped
from batcli.core.progress import Silent
from batcli.options import TrainOptions

# Beside other work, the first examples can take seconds.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

NAMES = (
    "Speech", "Male speech, man speaking", "Dog", "Accelerating, revving, vroom", "Car", "Music", "Guitar",
    "Bell", "Whack, thwack", "Cash register", "Rain", "Chirp, tweet", "Bark, growl (dog)", "Inside, small room",
)  # fmt: skip


class Material(NamedTuple):
    """What questions are made of, as files; the clips and BRIRs themselves are empty."""

    labels: Path
    clips: Path
    audio_root: Path
    reverb_root: Path


@pytest.fixture(scope="session")
def material(tmp_path_factory) -> Material:
    """300 clips with one to three of 14 labels, and 120 rooms of 5 sources placed without any care."""
    folder = tmp_path_factory.mktemp("material")
    rng = random.Random(20)
    with open(folder / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("index", "mid", "display_name"), *((i, f"/m/{i}", name) for i, name in enumerate(NAMES))]
        )
    (folder / "audio/some").mkdir(parents=True)
    clips = []
    for number in range(300):
        mids = [f"/m/{i}" for i in rng.sample(range(len(NAMES)), rng.choice((1, 1, 2, 3)))]
        clips.append({"folder": "some", "id": f"Y{number}.x", "label": mids})
        (folder / f"audio/some/Y{number}.x.wav").touch()
    (folder / "clips.json").write_text(json.dumps(clips))
    reverbs = []
    for room in range(120):
        (folder / f"reverb/binaural/room{room}").mkdir(parents=True)
        sensor = [rng.uniform(-20, 20) for _ in range(3)]
        for number in range(5):
            distance, azimuth = rng.uniform(0.3, 10), rng.uniform(0, 2 * math.pi)
            up = max(-1.4, min(1.6, distance * rng.uniform(-1, 1)))
            across = math.sqrt(distance**2 - up**2)
            source = [sensor[0] + across * math.cos(azimuth), sensor[1] + up, sensor[2] + across * math.sin(azimuth)]
            name = f"room{room}/{number}.npy"
            (folder / "reverb/binaural" / name).touch()
            positions = (",".join(f"{value:.4f}" for value in place) for place in (sensor, source))
            reverbs.append({"fname": name, **dict(zip(("sensor_position", "source_position"), positions, strict=True))})
    (folder / "reverb/train_reverberation.json").write_text(json.dumps({"data": reverbs}))
    return Material(folder / "labels.csv", folder / "clips.json", folder / "audio", folder / "reverb")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset directory of a very small demo: 4 clips per class, 12 rooms, scenes of 1 s. Read only."""
    from batcli.options import DemoOptions
    from batcli.prepare.demo import demo as make

    data = tmp_path_factory.mktemp("demo") / "data"
    make(DemoOptions(data=data, clips=4, rooms=12, sources=4, count=240, eval_count=60, seconds=1.0, jobs=1))
    return data


@pytest.fixture(scope="session")
def train_options() -> Callable[..., TrainOptions]:
    """`train_options(data, output, **changes)`: all stages, a few updates each."""
    recipe = ["source_scenes=192", "epochs=1,1,1"]
    small = {"batch_size": "16", "log_every": 1, "workers": 1, "device": "cpu"}

    def options(data: Path, output: Path, set: Sequence[str] = (), **changes: Any) -> TrainOptions:
        return TrainOptions(data=data, output=output, set=[*recipe, *set], **{**small, **changes})

    return options


@pytest.fixture(scope="session")
def run(demo: Path, train_options: Callable[..., TrainOptions], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, trained without disturbance on `demo`."""
    from batcli.train import train

    output = tmp_path_factory.mktemp("run") / "run"
    train(train_options(demo, output))
    return output


TEXTS = [
    "Where does the sound of the dog come from, and how far away is it?",
    "Is the sound of rain to your left?",
    "right, behind, above; 3.5m",
    "left, front, below; 10m",
    "accelerating, revving, vroom; car; rain",
    "Yes",
    "No",
]


@pytest.fixture(scope="session")
def tokenizer():
    from batcli.model.tokens import train_tokenizer

    return train_tokenizer(TEXTS * 3, 600)


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory, tokenizer) -> Path:
    """A language model directory with a tokenizer, and generation settings that BAT must not take over."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("llm")
    torch.manual_seed(1)
    sizes = {
        "vocab_size": 600,
        "hidden_size": 24,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    llm = LlamaForCausalLM(LlamaConfig(**sizes, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    with torch.no_grad():
        for parameter in llm.parameters():
            parameter.normal_(std=0.3)
    llm.generation_config.repetition_penalty = 9.0
    llm.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


class StopsAfter(Silent):
    """A reporter that raises what Ctrl-C raises, `count` items into the bar `description`."""

    def __init__(self, description: str, count: int) -> None:
        self.description, self.count = description, count

    def track(self, items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if description == self.description and number == self.count:
                raise Stopped(ExitCode.INTERRUPTED)
            yield item


@pytest.fixture(scope="session")
def stops_after() -> type[StopsAfter]:
    return StopsAfter


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, BRIRs and golden figures beside the checkout; not part of the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("../shared (real clips and golden figures) is not here")
    return folder
