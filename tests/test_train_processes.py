"""Training in processes of its own: several at once, lost ones, killed ones."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env, prepare_simple_launcher_cmd_env
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
SMALL = ["--set", "source_scenes=192", "--set", "epochs=1,1,1", "--log-every", "1"]
SMALL += ["--workers", "1", "--device", "cpu", "-q"]


def environment(rank: int = 0, world: int = 1, port: int = 0) -> dict[str, str]:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    several = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in ranks.items()}} if world > 1 else {}
    return {**os.environ, **several, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(demo: Path, output: Path, *words: str, **where: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "batcli", "train", str(demo), "-o", str(output), *SMALL, *words]
    by = configured("eight_gpus" if where else "one_gpu", 2 if where else 1) | {"ACCELERATE_USE_CPU": "true"}
    return subprocess.Popen(command, env=environment(**where) | by, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def start_two(demo: Path, output: Path, *words: str) -> list[subprocess.Popen]:
    port = free_port()
    return [start(demo, output, *words, rank=rank, world=2, port=port) for rank in range(2)]


def configured(configuration: str, processes: int = 2) -> dict[str, str]:
    """What `accelerate launch` puts into the environment by a file of examples/accelerate/, on one machine."""
    words = ["--config_file", str(ROOT / "examples/accelerate" / f"{configuration}.yaml")]
    words += ["--num_machines", "1", "--num_processes", str(processes), "-m", "batcli"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    made = prepare_multi_gpu_env(arguments) if processes > 1 else prepare_simple_launcher_cmd_env(arguments)[1]
    return {name: value for name, value in made.items() if name.startswith(("ACCELERATE_", "FSDP_"))}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def log_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def weights(run: Path) -> dict[str, torch.Tensor]:
    files = [*run.glob("*.safetensors"), *run.glob("*/*.safetensors")]
    return {f"{file.relative_to(run)}/{name}": tensor for file in files for name, tensor in load_file(file).items()}


def wait_for_updates(run: Path, count: int, process: subprocess.Popen) -> None:
    """Until the log has `count` lines, or the process has ended."""
    while process.poll() is None and not ((run / "log.jsonl").exists() and len(log_of_unfinished(run)) >= count):
        time.sleep(0.02)


def log_of_unfinished(run: Path) -> list[str]:
    return (run / "log.jsonl").read_text().splitlines()


def test_two_processes_learn_what_one_learns_in_two_steps(demo: Path, tmp_path: Path):
    measured = ["--validate", "eval", "--validate-questions", "20", "--validate-scenes", "12"]
    finish(start(demo, tmp_path / "one", "--batch-size", "8", "--accumulate", "2", *measured))
    launched = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", "2"]
    words = ["-m", "batcli", "train", str(demo), "-o", str(tmp_path / "two"), *SMALL, "--batch-size", "8", *measured]
    subprocess.run([*launched, *words], env=environment(), check=True, timeout=300, capture_output=True)
    one, two = log_of(tmp_path / "one"), log_of(tmp_path / "two")
    assert [(entry["kind"], entry["stage"], entry["update"]) for entry in one] == [
        (entry["kind"], entry["stage"], entry["update"]) for entry in two
    ]
    for a, b in zip(one, two, strict=True):
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-4), f"stage {a['stage']}, update {a['update']}"
        else:
            assert b["merit"] == pytest.approx(a["merit"], abs=1e-4)
    for (name, a), b in zip(weights(tmp_path / "one").items(), weights(tmp_path / "two").values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_a_lost_process_is_named(demo: Path, tmp_path: Path):
    first, second = start_two(demo, tmp_path / "run", "--save-every", "1", "--set", "source_epochs=1000")
    wait_for_updates(tmp_path / "run", 2, first)
    second.kill()
    _, errors = first.communicate(timeout=120)
    second.communicate()
    assert first.returncode == 1
    assert "another process was lost; start them all again with --resume" in errors
    assert len(errors.splitlines()) == 1, errors


def test_killed_ten_times_it_ends_with_the_same_weights(demo: Path, tmp_path: Path):
    rng = random.Random(5)
    often = ["--save-every", "1", "--batch-size", "8", "--validate", "eval", "--validate-scenes", "8"]
    finish(start(demo, tmp_path / "calm", *often))
    run, kills = tmp_path / "run", 0
    while kills < 10:
        process = start(demo, run, *often, "--resume")
        lines = len(log_of_unfinished(run)) if (run / "log.jsonl").exists() else 0
        wait_for_updates(run, lines + rng.randrange(3), process)
        time.sleep(rng.random())
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    finish(start(demo, run, *often, "--resume"))
    calm, disturbed = weights(tmp_path / "calm"), weights(run)
    assert kills == 10, f"it was done after {kills} kills"
    assert calm.keys() == disturbed.keys()
    assert all(torch.equal(calm[name], disturbed[name]) for name in calm)
    strip = [
        [{k: v for k, v in e.items() if k != "weight_per_second"} for e in log_of(r)] for r in (tmp_path / "calm", run)
    ]
    assert strip[0] == strip[1]


SHARDED = """
# accelerate shards on GPUs alone; told that these are, it does on processors what it does there.
import sys
from accelerate import PartialState
from accelerate.utils import DistributedType

PartialState(cpu=True)
PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
if "llama2-7b" in sys.argv:
    import test_presets_train

    test_presets_train.shrink()
import batcli.train
from batcli.training.launch import describe_processes
place = batcli.train.place

def report(model, accelerator):
    frozen = [parameter for parameter in model.llm.parameters() if not parameter.requires_grad]
    read = sum(not parameter.is_meta for parameter in frozen)
    print(f"{describe_processes(accelerator, 'bf16')}, read {read} of {len(frozen)}", file=sys.stderr)
    return place(model, accelerator)

batcli.train.place = report
from batcli.cli import main
main()
"""


def start_sharded(folder: Path, *words: str) -> list[subprocess.Popen]:
    """Start `bat train` in two processes, as on two GPUs, by examples/accelerate/fsdp_two_nodes.yaml."""
    (folder / "sharded.py").write_text(SHARDED)
    paths, port = os.pathsep.join([str(ROOT), str(ROOT / "tests")]), free_port()
    by = configured("fsdp_two_nodes") | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": paths}
    command = [sys.executable, str(folder / "sharded.py"), "train", *words]
    return [
        subprocess.Popen(command, env=environment(rank, 2, port) | by, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]


def test_a_sharded_language_model_learns_the_same(demo: Path, tmp_path: Path):
    finish(start(demo, tmp_path / "one", "--stages", "1,2,3", "--batch-size", "8", "--accumulate", "2"))
    words = [str(demo), *SMALL, "--device", "auto", "--stages", "1,2,3", "--batch-size", "8"]
    for process in start_sharded(tmp_path, *words, "-o", str(tmp_path / "two")):
        finish(process)
    for a, b in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        # Whole weights are updated by another kernel than sharded ones, so that last bits part and grow.
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3), f"stage {a['stage']}, update {a['update']}"
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in two.items()}


def test_a_sharded_model_is_read_once_and_goes_on_after_a_kill(demo: Path, llm_folder: Path, tmp_path: Path):
    words = [str(demo), "--preset", "llama2-7b", "--llm", str(llm_folder), "--precision", "bf16", "--stages", "1,2"]
    words += ["--set", "epochs=0.7,0.3,0.2", "--save-every", "1", "--log-every", "1", "--workers", "1"]
    words += ["--cache", "none"]
    count = len(load_file(llm_folder / "model.safetensors"))
    for rank, process in enumerate(start_sharded(tmp_path, *words, "-o", str(tmp_path / "calm"))):
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert f"computing on cpu, bf16, 2 processes sharded by FSDP, read {0 if rank else count} of {count}" in errors
    run = tmp_path / "run"
    first, second = start_sharded(tmp_path, *words, "-o", str(run))
    while first.poll() is None and not (run / "state/step-2").exists():
        time.sleep(0.02)
    for process in (first, second):
        process.kill()
        process.communicate()
    assert not (run / "DONE").exists()
    for process in start_sharded(tmp_path, *words, "-o", str(run), "--resume"):
        finish(process)
    calm, disturbed = weights(tmp_path / "calm"), weights(run)
    assert calm.keys() == disturbed.keys()
    assert all(torch.equal(calm[name], disturbed[name]) for name in calm)
    assert any(tensor.any() for name, tensor in disturbed.items() if "lora_B" in name)


def filled(run: Path) -> int:
    """How many scenes are encoded in the newest cache."""
    states = sorted(run.glob("cache/*/state.u8"), key=lambda path: path.stat().st_mtime)
    return sum(byte != 0 for byte in states[-1].read_bytes()) if states else 0


def test_two_processes_fill_one_cache_and_go_on_after_one_is_killed(demo: Path, tmp_path: Path):
    """One process is killed while both encode; started again, both do what is missing, and nothing else."""
    # So many scenes for the source tokens that the kill falls among them.
    words = ["--batch-size", "8", "--set", "source_scenes=600", "--stages", "encoder"]
    for process in start_two(demo, tmp_path / "calm", *words):
        finish(process)
    run = tmp_path / "run"
    first, second = start_two(demo, run, *words, "--resume")
    while filled(run) < 60 and second.poll() is None:
        time.sleep(0.005)
    second.kill()
    second.communicate()
    first.kill()  # what a launcher does when one is lost
    first.communicate()
    (state,) = run.glob("cache/*/state.u8")
    assert 60 <= filled(run) < state.stat().st_size, "killed while it was filled"
    for process in start_two(demo, run, *words, "--resume"):
        finish(process)
    calm, disturbed = weights(tmp_path / "calm"), weights(run)
    assert calm.keys() == disturbed.keys()
    assert all(torch.equal(calm[name], disturbed[name]) for name in calm)
