"""Work over processes and ranks: the same results, in the same order, however many there are."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from batcli.core import parallel as work
from batcli.core.errors import BatError, InputError
from batcli.core.parallel import rank_and_world, run_jobs, share, wait_for


def test_the_same_order_with_one_job_and_with_two():
    # What a child is to call must be importable there; it is quick for early items and slow for none.
    items = [str(number) for number in range(41)]
    assert list(run_jobs(int, items, 1)) == list(run_jobs(int, items, 2, chunk=3)) == list(range(41))


def test_one_thread_in_children_and_the_old_number_afterwards(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert list(run_jobs(os.getenv, ["OMP_NUM_THREADS", "MKL_NUM_THREADS"], 2, chunk=1)) == ["1", "1"]
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_an_error_of_a_child_is_the_callers():
    with pytest.raises(InputError, match="lost: no such file; look"):
        list(run_jobs(partial(raise_input_error), [1, 2], 1))
    error = InputError("no such file", "lost", "look")
    kind, arguments = error.__reduce__()  # how it comes out of a child
    assert str(kind(*arguments)) == str(error)
    with pytest.raises(ValueError, match="invalid literal"):
        list(run_jobs(int, ["1", "x"], 2, chunk=1))


def raise_input_error(item: int) -> None:
    raise InputError("no such file", "lost", "look")


def test_a_child_that_dies_is_told_in_one_line():
    with pytest.raises(BatError, match="a worker process died"):
        list(run_jobs(os._exit, [1, 2], 2))


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which processes live")
def test_children_end_with_a_parent_that_is_killed():
    program = (
        "import time; from batcli.core.parallel import run_jobs; print(list(run_jobs(time.sleep, [0, 100, 100], 2, 1)))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    children = wait_until(lambda: workers_of(parent.pid), lambda found: len(found) == 2)
    time.sleep(0.3)  # until they wait for their parent
    parent.kill()
    parent.wait()
    assert wait_until(lambda: [pid for pid in children if is_alive(pid)], lambda left: not left) == []


def wait_until(look, done, seconds: float = 10.0):
    end = time.monotonic() + seconds
    while not done(found := look()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def workers_of(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        children = [int(pid) for pid in file.read().split()]
    return [pid for pid in children if "multiprocessing-fork" in open(f"/proc/{pid}/cmdline").read()]


def is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_ranks_share_all_and_share_alike(monkeypatch, world):
    monkeypatch.setenv("WORLD_SIZE", str(world))
    shares = []
    for rank in range(world):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(share(range(20)))
    assert sorted(item for each in shares for item in each) == list(range(20))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("-1", "2"), ("a", "2"), ("0", ""), ("0", "0")])
def test_what_is_no_rank(monkeypatch, rank, world):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", world)
    with pytest.raises(InputError, match="environment: RANK"):
        rank_and_world()


def test_waiting_for_a_file_that_does_not_come(tmp_path):
    wait_for([tmp_path], timeout=0)
    with pytest.raises(InputError, match="another process did not write this file"):
        wait_for([tmp_path / "none"], timeout=0)


@pytest.mark.parametrize(("ranks", "jobs"), [(None, 6), ("1", 6), ("2", 3), ("4", 1), ("100", 1), ("0", 6), ("x", 6)])
def test_ranks_on_one_machine_share_its_processors(monkeypatch, ranks, jobs):
    monkeypatch.setattr(work.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if ranks is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", ranks)
    assert work.default_jobs() == jobs


SIGNALLED = """
import os, signal, subprocess, sys, time
from batcli.core.parallel import run_jobs

if __name__ == "__main__":
    name, moment = sys.argv[1], float(sys.argv[2])
    noted = []
    signal.signal(getattr(signal, name), lambda number, frame: noted.append(number))
    kill = f"import os, signal, time; time.sleep({moment}); os.killpg({os.getpgrp()}, signal.{name})"
    stranger = subprocess.Popen([sys.executable, "-c", kill], start_new_session=True)
    print(list(run_jobs(time.sleep, [1.0] * 4, 2, 1)))
    stranger.wait()
    print(len(noted))
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="nothing says who sent a signal")
@pytest.mark.parametrize("moment", [0.0, 0.1, 1.0])  # while they start, and while they work
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_to_all_processes_is_for_the_parent_to_obey(tmp_path, name, moment):
    (tmp_path / "program.py").write_text(SIGNALLED)
    words = [sys.executable, str(tmp_path / "program.py"), name, str(moment)]
    where = {**os.environ, "PYTHONPATH": str(Path(work.__file__).parents[2])}
    done = subprocess.run(words, env=where, start_new_session=True, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[None, None, None, None]\n1\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes are not forked")
def test_a_worker_obeys_its_parent():
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    worker = context.Process(target=_wait_as_worker, args=(ready,))
    with work.block_signals():
        worker.start()
    assert ready.wait(10)
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)  # a stranger
    worker.join(0.3)
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0


def _wait_as_worker(ready) -> None:
    work.start_worker()
    ready.set()
    time.sleep(60)
