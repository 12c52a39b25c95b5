"""The command line: where values come from, exit codes, and what goes to which stream."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import pytest

import batcli.spatialize
import batcli.train
from batcli import __version__
from batcli.cli import main
from batcli.core.errors import ExitCode, GateMissed, InputError, Stopped, TooManyBad
from batcli.core.toml import to_toml
from batcli.ui import Terminal


class Result(NamedTuple):
    code: int
    out: str
    err: str


Bat = Callable[..., Result]


@pytest.fixture
def bat(monkeypatch, capsys, tmp_path) -> Bat:
    """`bat(argument, …, VARIABLE=value)` in an empty folder; the command line as the shell starts it."""
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(*arguments: object, **environment: str) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["bat", *map(str, arguments)])
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        out, err = capsys.readouterr()
        return Result(caught.value.code or 0, out, err)

    return run


@pytest.fixture
def given(monkeypatch) -> list:
    """Replaces `bat spatialize`: the options that it was called with."""
    calls: list = []
    monkeypatch.setattr(batcli.spatialize, "spatialize", lambda options, reporter: calls.append(options))
    return calls


# ---- where values come from ----------------------------------------------------------------------

LAYERS = [  # from the weakest to the strongest: sample_rate as seen, and its origin
    (32_000, "default"),
    (16_000, "bat.toml"),
    (22_050, "BAT_SPATIALIZE_SAMPLE_RATE"),
    (48_000, "flag"),
]


@pytest.mark.parametrize("strongest", range(4))
def test_flag_beats_environment_beats_file_beats_default(bat, given, strongest):
    Path("bat.toml").write_text("[spatialize]\nsample-rate = 16000\n")
    arguments = ["spatialize", "demo", "-o", "out"]
    arguments += ["--config", "bat.toml"] if strongest >= 1 else []
    environment = {"BAT_SPATIALIZE_SAMPLE_RATE": "22050"} if strongest >= 2 else {}
    arguments += ["--sample-rate", 48_000] if strongest >= 3 else []
    value, origin = LAYERS[strongest]
    shown = bat(*arguments, "--print-config", **environment)
    assert (shown.code, shown.err) == (0, "")
    assert f"sample_rate = {value}\t# {origin}" in shown.out.splitlines()
    assert "output = out\t# flag" in shown.out.splitlines()
    assert not given
    assert bat(*arguments, "-q", **environment) == (0, "", "")
    assert given[0].sample_rate == value


def test_print_config_shows_every_option_once(bat):
    lines = bat("spatialize", "--print-config").out.splitlines()
    names = [line.partition(" = ")[0] for line in lines]
    assert sorted(names) == sorted(field.name for field in fields(batcli.spatialize.SpatializeOptions))
    assert all(re.fullmatch(r"\w+ = .*\t# default", line) for line in lines)


@pytest.mark.parametrize("start", [["-m", "batcli"], ["-c", "from batcli.cli import main; main()"]])
def test_the_file_counts_however_the_command_is_started(tmp_path, start):
    # `accelerate launch -m batcli` starts it so; the command's path has more words then.
    (tmp_path / "bat.toml").write_text("[prepare.rooms]\nrooms = 7\n")
    command = [sys.executable, *start, "prepare", "rooms", "x", "--config", "bat.toml", "--print-config"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "rooms = 7\t# bat.toml" in result.stdout.splitlines()
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("toml", "name", "value"),
    [
        ('data = "demo"', "data", "demo"),
        ("seconds = 2", "seconds", "2.0"),
        ("dry_run = true", "dry_run", "True"),
        ("dry-run = false", "dry_run", "False"),
        ('encoding = "pcm16"', "encoding", "pcm16"),
        ("rms_dbfs = -20.5", "rms_dbfs", "-20.5"),
    ],
)
def test_values_of_a_file(bat, toml, name, value):
    Path("x.toml").write_text(f"[spatialize]\n{toml}\n")
    assert f"{name} = {value}\t# x.toml" in bat("spatialize", "--config", "x.toml", "--print-config").out


def test_lists_in_a_file(bat):
    Path("x.toml").write_text('[score]\nfail_under = ["A.label_f1=0.5", "B.doa_acc=0.4"]\n')
    lines = bat("score", "x.jsonl", "--config", "x.toml", "--print-config").out.splitlines()
    assert "fail_under = ['A.label_f1=0.5', 'B.doa_acc=0.4']\t# x.toml" in lines


def test_the_configuration_of_a_run_is_a_configuration(bat):
    Path("config.toml").write_text(to_toml({"train": {"data": "demo", "stages": "1,2"}, "model.encoder": {"n": 3}}))
    assert "stages = 1,2\t# config.toml" in bat("train", "--config", "config.toml", "--print-config").out


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("[spatialize]\nsplitt = 'eval'", "x.toml [spatialize]: unknown key 'splitt'; did you mean 'split'?"),
        ("[spatialise]\nsplit = 'eval'", "x.toml: unknown key 'spatialise'; did you mean 'spatialize'?"),
        ("[prepare.romms]\nrooms = 3", "x.toml [prepare]: unknown key 'romms'; did you mean 'rooms'?"),
        ("seed = 3", "x.toml: unknown key 'seed'; known: prepare, spatialize, train, decode, score"),
        ("[spatialize]\nquiet = true", "x.toml [spatialize]: unknown key 'quiet'; known: data, seconds"),
        ("spatialize = 3", "x.toml: 'spatialize' is not a table; write [spatialize]"),
        ("[spatialize", "x.toml: not TOML: Expected ']'"),
        ("[spatialize]\nsplit = ['a']", "x.toml [spatialize] split: ['a'] is neither text nor a number"),
        ("[spatialize]\ndry_run = 'no'", "x.toml [spatialize] dry_run: 'no' is neither true nor false"),
        ("[spatialize]\nmax_bad = 1.5", "x.toml: Invalid value for '--max-bad': '1.5' is not a valid"),
        ("[spatialize]\nmax_bad = true", "x.toml [spatialize] max_bad: True is neither text nor a number"),
        ("[spatialize]\nmax_bad = -1", "x.toml: Invalid value for '--max-bad': -1 is not in the range x>=0"),
        ("[spatialize]\nseconds = nan", "--seconds: nan is not a finite number"),
        ("[spatialize]\nencoding = 'mp3'", "x.toml: Invalid value for '--encoding': 'mp3' is not one of"),
    ],
)
def test_bad_files_are_refused(bat, given, toml, message):
    Path("x.toml").write_text(toml)
    result = bat("spatialize", "demo", "-o", "out", "--config", "x.toml")
    assert result.err.startswith(f"bat: {message}")
    assert_one_line(result)
    assert not given


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BAT_SPATIALIZE_SECONDS", "x", "BAT_SPATIALIZE_SECONDS: Invalid value for '--seconds': 'x' is not a valid"),
        ("BAT_SPATIALIZE_SEED", "-1", "BAT_SPATIALIZE_SEED: Invalid value for '--seed': -1 is not in the range x>=0"),
        (
            "BAT_SPATIALIZE_SECOND",
            "1",
            "environment: unknown key 'BAT_SPATIALIZE_SECOND'; did you mean 'BAT_SPATIALIZE_SECONDS'?",
        ),
    ],
)
def test_bad_variables_are_refused(bat, given, variable, value, message):
    result = bat("spatialize", "demo", "-o", "out", **{variable: value})
    assert result.err.startswith(f"bat: {message}")
    assert_one_line(result)
    assert not given


def test_others_variables_are_theirs(bat, given):
    # `BAT_VERSION` and `BAT_THEME` are common: of image builders, and of the file viewer with this name.
    assert bat("spatialize", "demo", "-q", BAT_VERSION="1", BAT_THEME="x", BAT_TRAIN_SEED="y") == (0, "", "")
    assert len(given) == 1


# ---- exit codes and streams ----------------------------------------------------------------------


def assert_one_line(result: Result) -> None:
    """One line on standard error, nothing on standard output, exit code 2."""
    assert result.code == 2
    assert result.out == ""
    assert re.fullmatch(r"bat: [^\n]+\n", result.err)


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("no such file", "x.wav"), 2, "x.wav: no such file"),
        (GateMissed("gate missed: x"), 3, "gate missed: x"),
        (TooManyBad("3 of 4 scenes failed"), 4, "3 of 4 scenes failed"),
        (KeyboardInterrupt(), 130, "stopped by a signal; run again to go on"),
        (Stopped(ExitCode.TERMINATED), 143, "stopped by a signal; run again to go on"),
        (OSError(28, "No space left on device", "out/x.wav"), 2, "out/x.wav: No space left on device; free some space"),
        (PermissionError(13, "Permission denied", "out"), 2, "out: Permission denied; choose another path"),
        (
            ZeroDivisionError("division by zero"),
            1,
            "unexpected ZeroDivisionError: division by zero; --debug shows where",
        ),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_exit_codes(bat, monkeypatch, error, code, message, debug):
    def fail(options, reporter):
        raise error

    monkeypatch.setattr(batcli.spatialize, "spatialize", fail)
    result = bat("spatialize", *["--debug"] * debug)
    assert (result.code, result.out) == (code, "")
    assert result.err.splitlines()[-1] == f"bat: {message}"
    assert ("Traceback" in result.err) == debug
    assert debug or result.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ([], "run again with --resume to go on"),
        (["--resume"], "run again with --resume to go on"),
        (["--overwrite"], "run again with --resume, without --overwrite, to go on"),
    ],
)
def test_a_stopped_training_goes_on_with_resume(bat, monkeypatch, words, advice):
    """Without it, an unfinished run is refused; with --overwrite, it is thrown away."""

    def stop(options, reporter):
        raise Stopped(ExitCode.TERMINATED)

    monkeypatch.setattr(batcli.train, "train", stop)
    assert bat("train", "data", "-o", "run", *words) == (143, "", f"bat: stopped by a signal; {advice}\n")


def test_a_signal_to_the_process(tmp_path):
    program = "import batcli.spatialize, signal, time, sys; from batcli.cli import main\n"
    # A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C.
    program += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "def work(*_): print('ready', flush=True); time.sleep(60)\n"
    program += "batcli.spatialize.spatialize = work; sys.argv = ['bat', 'spatialize']; main()"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.communicate(timeout=20)[1] == "bat: stopped by a signal; run again to go on\n"
        assert process.returncode == code


@pytest.mark.parametrize("error", [None, AssertionError(), OSError(5, "Input/output error"), InputError("cut")])
def test_a_signal_that_comes_out_of_a_library_as_its_own_error(bat, monkeypatch, error):
    def lose_it(options, reporter):
        with suppress(Stopped):
            signal.raise_signal(signal.SIGTERM)
        if error:
            raise error

    monkeypatch.setattr(batcli.spatialize, "spatialize", lose_it)
    result = bat("spatialize", "-q")
    assert result == ((143, "", "bat: stopped by a signal; run again to go on\n") if error else (0, "", ""))


def test_version(bat):
    assert bat("--version") == (0, f"bat {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nope", "No such command 'nope'; see `bat --help`"),
        ("--bogus", "No such option: --bogus; see `bat --help`"),
        ("prepare nope", "No such command 'nope'; see `bat prepare --help`"),
        ("prepare rooms", "Missing argument 'REVERB'; see `bat prepare rooms --help`"),
        ("spatialize --bogus 1", "No such option: --bogus"),
        ("spatialize a b", "Got unexpected extra argument"),
        ("spatialize --seconds x", "Invalid value for '--seconds': 'x' is not a valid float range"),
        ("spatialize --seconds nan", "--seconds: nan is not a finite number"),
        ("spatialize --seed -1", "Invalid value for '--seed': -1 is not in the range x>=0"),
        ("spatialize --encoding mp3", "Invalid value for '--encoding': 'mp3' is not one of 'float', 'pcm16', 'pcm24'"),
        ("spatialize --config none.toml", "none.toml: no such file"),
        ("spatialize", "--output: missing; name a folder for a split, a WAV file for one scene"),
        ("spatialize -o out", "give either DATA or --audio and --reverb; see `bat spatialize --help`"),
        ("spatialize none -o out", "none: no such directory; make one with `bat prepare demo DATA`"),
        ("spatialize . -o out", ".: not a finished dataset; dataset.json is written last; run `bat prepare` again"),
        ("spatialize --audio a.wav --reverb b.npy -o c.wav", "a.wav: no such file"),
        ("score none.jsonl", "none.jsonl: no such file"),
        ("score .", ".: is a directory, not a file"),
        ("prepare import data none.json --audio-root . --reverb-root . --labels x", "binaural: no such directory"),
        ("prepare questions data --split x", "--clips: missing"),
        ("prepare rooms reverb --rt60 x", "--rt60: not a reverberation time: 'x'"),
        ("prepare rooms reverb --hrtf none.sofa", "none.sofa: no such file"),
        ("prepare demo data --clips 0", "Invalid value for '--clips': 0 is not in the range x>=2"),
    ],
)
def test_wrong_usage_and_input_are_one_line(bat, arguments, message):
    result = bat(*arguments.split())
    assert message in result.err
    assert_one_line(result)
    assert os.listdir() == []


@pytest.mark.parametrize("arguments", [[], ["prepare"]])
def test_no_command_shows_the_help(bat, arguments):
    result = bat(*arguments)
    assert result.code in (0, 2)  # click says the one before 8.2, the other since
    assert (result.out + result.err).startswith("Usage: bat")


def test_help_is_for_standard_output(bat):
    result = bat("prepare", "rooms", "--help")
    assert (result.code, result.err) == (0, "")
    assert "Usage: bat prepare rooms REVERB [OPTIONS]" in result.out
    assert "bat prepare rooms reverb --rooms 500" in result.out


@pytest.mark.parametrize("asked", ["--print-config", "--help"])
def test_a_reader_who_has_seen_enough(asked):
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "batcli", "spatialize", asked]
    for unbuffered in ("", "1"):
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, env=environment)
        assert (result.returncode, result.stderr) == (0, "")
    os.close(writing)


# ---- what a person sees --------------------------------------------------------------------------

END = "done in 0.0 s: x.wav: a scene; next: listen to it on headphones\n"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ([], f"work: 3 in 0.0 s\ninfo\nwarning: warn\n{END}"),
        (["-q"], "warning: warn\n"),
        (["-v"], f"work: 3 in 0.0 s\ninfo\nwarning: warn\ndetail\n{END}"),
    ],
)
def test_quiet_and_verbose(bat, monkeypatch, flag, said):
    def work(options, reporter):
        assert list(reporter.track([1, 2, 3], "work")) == [1, 2, 3]
        reporter.status("loss 1")
        reporter.info("info")
        reporter.warn("warn")
        reporter.detail("detail")

    monkeypatch.setattr(batcli.spatialize, "spatialize", work)
    assert bat("spatialize", "-o", "x.wav", *flag) == (0, "", said)
    assert bat("spatialize", *flag, RANK="1", WORLD_SIZE="2").err == "warning: warn\n"  # the first rank speaks


def test_a_terminal_gets_a_bar_and_whole_lines(monkeypatch, capsys):
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    terminal, path = Terminal(), "/a/long/path" * 10
    for item in terminal.track(range(3), "rendering"):
        terminal.status(f"loss {item}")
        terminal.info(f"[{path}]")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count(f"[{path}]") == 3  # neither wrapped nor read as markup
    assert "rendering" in err
    assert "3/3" in err


@pytest.mark.parametrize(
    ("words", "last"),
    [
        ("train my\\ data -o run", "run: trained on my data, stages encoder,1,2,3; next: bat decode run 'my data' "),
        ("decode run data -o preds.jsonl", "preds.jsonl: answers to eval; next: bat score preds.jsonl"),
        ("decode run data -o -", "standard output: answers to eval"),
        ("spatialize data --split dev -o scenes", "scenes: the scenes of dev"),
        ("prepare demo data", "data: a dataset of 60,000 questions to learn from; next: bat train data -o run"),
        (
            "prepare rooms reverb --rooms 9",
            "reverb: 9 rooms for train; next: bat prepare questions DATA --reverb-root reverb",
        ),
        ("prepare model run", "run: a run directory; next: bat decode run DATA -o preds.jsonl"),
    ],
)
def test_the_last_line_says_what_was_made_and_what_comes_next(bat, monkeypatch, words, last):
    import batcli.decode
    import batcli.prepare.demo
    import batcli.prepare.model
    import batcli.prepare.rooms

    for module, name in (
        (batcli.train, "train"),
        (batcli.decode, "decode"),
        (batcli.spatialize, "spatialize"),
        (batcli.prepare.demo, "demo"),
        (batcli.prepare.rooms, "rooms"),
        (batcli.prepare.model, "model"),
    ):
        monkeypatch.setattr(module, name, lambda options, reporter: None)
    arguments = shlex.split(words)
    result = bat(*arguments)
    assert (result.code, result.out) == (0, "")
    assert result.err.startswith(f"done in 0.0 s: {last}")
    assert bat(*arguments, "-q") == bat(*arguments, "--dry-run") == (0, "", "")
