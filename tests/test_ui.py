"""What a person sees while a command works, and after it."""

import logging
import os
import re
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

import pytest

from batcli.core.progress import SILENT, Estimate, Part, PlansAhead, track_batches
from batcli.ui import Terminal, duration, foreign_messages


@pytest.fixture
def screen(monkeypatch, capsys):
    """A terminal of 80 columns on standard error."""
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def plain(text: str) -> list[str]:
    """The lines that were drawn, without what moves the cursor or colours them."""
    text = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "\r", re.sub(r"\x1b\[[\d;]*m", "", text))
    return [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]


# ---- estimates -----------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run_part(work: Estimate, clock: Clock, name: str, count: int, seconds: float) -> None:
    work.begin(name, count)
    for _ in range(count):
        clock.now += seconds
        work.step()


def test_an_estimate_is_over_all_parts():
    clock = Clock()
    parts = [Part("cues", 100, "scenes", seconds=1), *(Part(f"stage {n}", 50, "updates", 0, 4, "q") for n in (1, 2))]
    work = Estimate(parts, clock)
    assert work.left is None
    run_part(work, clock, "cues", 100, 0.5)
    assert work.left == pytest.approx(2 * 50 * 4 * 0.5)  # as guessed, in proportion to what was measured
    assert work.share == pytest.approx(50 / 250)
    run_part(work, clock, "stage 1", 50, 3)
    assert work.left == pytest.approx(50 * 3)  # as measured on the part that is alike
    run_part(work, clock, "stage 2", 50, 3)
    assert (work.left, work.share) == (0, 1)


def test_an_estimate_takes_up_what_an_earlier_run_did():
    clock = Clock()
    work = Estimate([Part("stage 2", 100, "updates", done=60)], clock)
    run_part(work, clock, "stage 2", 10, 2)
    work.begin("stage 2", 30)
    assert work.current == Part("stage 2", 100, "updates", done=70)
    assert work.left == pytest.approx(60)


def test_a_new_plan_keeps_what_was_done_and_measured():
    clock = Clock()
    work = Estimate([Part("a", 10, ""), Part("b", 10, "")], clock)
    run_part(work, clock, "a", 10, 1)
    work.expect([Part("a", 10, ""), Part("b", 30, "")])
    assert work.left == pytest.approx(30)
    assert work.share == pytest.approx(10 / 40)


def test_batches_count_as_what_they_hold():
    class Counts:
        def __init__(self) -> None:
            self.steps, self.total = 0, 0

        def track(self, items, description, total=None) -> Iterator:
            self.total = total
            for item in items:
                yield item
                self.steps += 1

    counts = Counts()
    batches = [[1, 2, 3], [4], [5, 6]]
    assert list(track_batches(counts, batches, "scenes", 6)) == batches
    assert (counts.steps, counts.total) == (6, 6)
    assert list(track_batches(SILENT, batches, "scenes", 6)) == batches


def test_a_reporter_need_not_plan():
    assert isinstance(Terminal(), PlansAhead)
    assert not isinstance(SILENT, PlansAhead)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.84, "0.8 s"), (9.97, "10 s"), (59.97, "1 min 0 s"), (200, "3 min 20 s"), (7_500, "2 h 5 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


# ---- the screen ----------------------------------------------------------------------------------


def test_one_bar_over_all_parts(screen, capsys):
    with Terminal() as terminal:
        terminal.plan([Part("cues", 20, "scenes"), Part("stage 1", 20, "updates"), Part("stage 2", 0, "updates")])
        for name in ("cues", "stage 1", "stage 2"):
            for _ in terminal.track(range(0 if name == "stage 2" else 20), name):
                terminal.status("loss 0.123")
                for _ in terminal.track(range(2), "answering"):
                    time.sleep(0.005 if terminal._work.current.done else 0.15)
    drawn = plain(capsys.readouterr().err)
    assert max(map(len, drawn)) <= 80
    assert any(re.fullmatch(r"cues: 20/20 scenes \S+ 50 %, \d s left.*", line) for line in drawn), drawn
    assert any(re.fullmatch(r"stage 1: 20/20 updates \S+ 100 %.*", line) for line in drawn), drawn
    assert any("answering 1/2" in line for line in drawn)
    assert not any("0/0" in line for line in drawn)
    assert [re.sub(r"[\d.]+ s", "T", line) for line in drawn if " in " in line] == ["cues: 20 in T", "stage 1: 20 in T"]


def test_the_first_words_come_at_once_and_make_room(screen, capsys):
    with Terminal() as terminal:
        assert capsys.readouterr().err == "starting …"
        terminal.info("said")
        assert capsys.readouterr().err == "\r\x1b[Ksaid\n"
        terminal.status("loading")
        terminal.done("x: made", "look at it")
    assert capsys.readouterr().err == "loading\r\x1b[Kdone in 0.0 s: x: made; next: look at it\n"


def test_quiet_shows_nothing(screen, capsys):
    with Terminal(-1) as terminal:
        terminal.plan([Part("a", 3, "")])
        assert list(terminal.track(range(3), "a")) == [0, 1, 2]
        terminal.status("loss")
        terminal.done("x", "y")
    assert capsys.readouterr().err == ""


def test_without_a_terminal_long_work_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("batcli.ui.EVERY", 0.02)
    with Terminal() as terminal:
        for _ in terminal.track(range(10), "scenes"):
            time.sleep(0.015)
        list(terminal.track([], "nothing"))
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"scenes: \d/10, \d+ %(, \d s left)?", lines[0])
    assert lines[-1] == "scenes: 10 in 0.2 s"
    assert not any("\x1b" in line or "\r" in line or "nothing" in line for line in lines)


def test_what_goes_wrong_leaves_no_bar(screen, capsys):
    terminal = Terminal()

    def work() -> None:
        with terminal:
            terminal.plan([Part("a", 3, "")])
            for _ in terminal.track(range(3), "a"):
                raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        work()
    assert terminal._bar is None
    terminal.info("after")
    assert capsys.readouterr().err.endswith("after\n")


# ---- other packages ------------------------------------------------------------------------------


def foreign(shown: bool) -> None:
    with foreign_messages(shown):
        warnings.warn("`past_key_values` is deprecated", FutureWarning, stacklevel=2)
        logging.getLogger("other").warning("a note")
        logging.getLogger("other").error("an error")


@pytest.mark.parametrize("shown", [False, True])
def test_warnings_of_other_packages(shown, recwarn, caplog):
    before = os.environ.get("PYTHONWARNINGS")
    foreign(shown)
    assert len(recwarn) == int(shown)
    assert [record.message for record in caplog.records] == ["a note"] * shown + ["an error"]
    assert logging.root.manager.disable == logging.NOTSET
    assert os.environ.get("PYTHONWARNINGS") == before


# ---- Ctrl-C --------------------------------------------------------------------------------------


def test_ctrl_c_is_answered_at_once():
    program = """
import sys, time
import batcli.train
from batcli.core.signals import defer_signals
def work(options, reporter):
    with defer_signals(lambda: reporter.info("finishing this update; again to stop now")) as stop:
        print("ready", flush=True)
        time.sleep(1.5)
        stop.check()
batcli.train.train = work
from batcli.cli import main
sys.argv = ["bat", "train", "data", "-o", "run"]
main()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert select.select([process.stderr], [], [], 1.0)[0]
    assert process.stderr.readline() == "finishing this update; again to stop now\n"
    assert time.monotonic() - start < 1.0
    assert process.communicate(timeout=20)[1] == "bat: stopped by a signal; run again with --resume to go on\n"
    assert process.returncode == 130
