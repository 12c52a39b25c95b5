"""The command line: five commands, each a thin wrapper of one module.

Options come from the dataclasses of `options.py`. What a command needs (torch, numpy, …) is
imported in its body, so that `--help` stays instant.
"""

from __future__ import annotations

import errno
import inspect
import math
import os
import signal
import sys
import traceback
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batcli import __version__
from batcli.core import toml as configuration
from batcli import options as opts
from batcli.core.errors import BatError, ExitCode, GateMissed, InputError, Stopped
from batcli.core.signals import CODES
from batcli.ui import Terminal

CONTEXT = {"auto_envvar_prefix": "BAT", "help_option_names": ["-h", "--help"], "max_content_width": 110}
app = typer.Typer(
    name="bat",
    help="BAT listens to binaural audio and answers questions about what sounds, where and how far.\n\n"
    "A first run: bat prepare demo demo && bat train demo -o run && bat decode run demo -o preds.jsonl "
    "&& bat score preds.jsonl",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help loads rich no sooner than a table needs it
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings=CONTEXT,
)
prepare = typer.Typer(
    help="Make or import data, rooms, questions and published models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(prepare, name="prepare")


# ---- from an options dataclass to a command ------------------------------------------------------


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    """`--config`: the command's table becomes its defaults; an unknown key is an error."""
    if path is not None:
        with ExpectedErrors(debug=False):
            root: Any = context.find_root().command
            commands = {name: list(getattr(command, "commands", ())) for name, command in root.commands.items()}
            content, names = configuration.read_toml(path), context.command_path.split()[1:]
            configuration.refuse_stray_tables(content, commands, path)
            values, where = configuration.table(content, names, path), f"{path} [{'.'.join(names)}]"
            known = {p.name: p for p in context.command.params if p.name and p.name not in _GENERAL}
            configuration.refuse_unknown(values, known, where)
            context.default_map = {
                name: configuration.as_given(value, _kind(known[name]), f"{where} {name}")
                for name, value in values.items()
            }
    return path


def _kind(parameter: Any) -> Literal["switch", "list", "value"]:
    if getattr(parameter, "is_flag", False):
        return "switch"
    return "list" if parameter.nargs == -1 or getattr(parameter, "multiple", False) else "value"


_GENERAL = {
    "config": (
        Path,
        typer.Option(
            show_envvar=False, help="TOML file; flags and BAT_… variables win.", is_eager=True, callback=_load_config
        ),
    ),
    "print_config": (
        bool,
        typer.Option("--print-config", show_envvar=False, help="Show each value and where it came from."),
    ),
    "quiet": (bool, typer.Option("-q", "--quiet", show_envvar=False, help="Only errors and warnings.")),
    "verbose": (bool, typer.Option("-v", "--verbose", show_envvar=False, help="More detail.")),
    "debug": (
        bool,
        typer.Option("--debug", show_envvar=False, help="Show a traceback where something unexpected happens."),
    ),
}


def _parameters(schema: type) -> list[inspect.Parameter]:
    """Typer's view of an options dataclass: positional arguments first, then flags."""
    hints = typing.get_type_hints(schema)
    parameters = []
    for field in sorted(fields(schema), key=lambda f: not f.metadata.get("argument")):
        meta, hint = field.metadata, hints[field.name]
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if meta.get("argument"):
            info: Any = typer.Argument(help=meta["help"], metavar=meta["metavar"], show_default=False)
            default = inspect.Parameter.empty if meta["required"] else default
        else:
            names = [f"--{field.name.replace('_', '-')}", *meta["names"]]
            info = typer.Option(
                *names,
                help=meta["help"],
                show_envvar=False,
                show_default=default not in (None, "", []),
                **meta["limits"],
            )
            hint = hint if default is not None or _optional(hint) else hint | None
        parameters.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info]
            )
        )
    for name, (kind, info) in _GENERAL.items():
        default, hint = (False, bool) if kind is bool else (None, kind | None)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info])
        )
    return parameters


def _optional(hint: Any) -> bool:
    return typing.get_origin(hint) in (types.UnionType, typing.Union) and type(None) in typing.get_args(hint)


def command(group: typer.Typer, name: str, schema: type, examples: str) -> Callable[[Callable], Callable]:
    """Register `run(options, terminal)` as `bat … name`, with the options of `schema`."""

    def register(run: Callable[[Any, Terminal], None]) -> Callable:
        def invoke(context: typer.Context, **values: Any) -> None:
            general = {key: values.pop(key) for key in _GENERAL}
            verbosity = -1 if general["quiet"] else int(general["verbose"])
            with ExpectedErrors(general["debug"]):
                _check(context, values)
                if general["print_config"]:
                    _print_config(context, values)
                else:
                    run(schema(**values), Terminal(verbosity if _first_rank() else -1))

        context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        invoke.__signature__ = inspect.Signature([context_parameter, *_parameters(schema)])  # type: ignore[attr-defined]
        invoke.__doc__ = f"{inspect.getdoc(run)}\n\n\b\nExamples:\n" + inspect.cleandoc(examples)
        group.command(name)(invoke)
        return run

    return register


def _first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _check(context: typer.Context, values: dict[str, Any]) -> None:
    """What the parser lets pass: misspelt variables of this command, and `nan`, which no limit holds back."""
    prefix = f"{context.auto_envvar_prefix}_"
    known = [f"{prefix}{parameter.name.upper()}" for parameter in context.command.params if parameter.name]
    configuration.refuse_unknown([name for name in os.environ if name.startswith(prefix)], known, "environment")
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{value} is not a finite number", f"--{name.replace('_', '-')}")


def _print_config(context: typer.Context, values: dict[str, Any]) -> None:
    for name, value in values.items():
        print(f"{name} = {value!s}\t# {_origin(context, name)}")


def _origin(context: typer.Context, name: str) -> str:
    """Where a value came from: `flag`, the variable, the configuration file or `default`."""
    source = context.get_parameter_source(name)
    origins = {
        "COMMANDLINE": "flag",
        "ENVIRONMENT": f"{context.auto_envvar_prefix}_{name.upper()}",
        "DEFAULT_MAP": str(context.params.get("config")),
    }
    return origins.get(source.name if source else "", "default")


class ExpectedErrors:
    """Turn the errors that `bat` expects, and signals, into one line on stderr and an exit code."""

    def __init__(self, debug: bool) -> None:
        self.debug = debug
        self.stopped: Stopped | None = None

    def __enter__(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
            signal.signal(signal.SIGINT, self._stop)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (typer.Exit, SystemExit)):
            return
        if isinstance(error, BrokenPipeError):
            _discard_output()
            raise typer.Exit(ExitCode.DONE) from None
        if self.debug:
            traceback.print_exception(kind, error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            error = Stopped(ExitCode.INTERRUPTED)
        error = self.stopped or error  # a signal may come out of a library as an error of the library's
        if isinstance(error, OSError) and error.errno is not None:
            hints = {errno.ENOSPC: "free some space", errno.EACCES: "choose another path"}
            error = InputError(error.strerror or str(error), error.filename2 or error.filename, hints.get(error.errno))
        if isinstance(error, (BatError, Stopped)):
            print(f"bat: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        print(f"bat: unexpected {type(error).__name__}: {error}; --debug shows where", file=sys.stderr)
        raise typer.Exit(ExitCode.UNEXPECTED) from None

    def _stop(self, number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        self.stopped = Stopped(CODES[signal.Signals(number)])
        raise self.stopped


def _discard_output() -> None:
    """The reader of our output has seen enough, as in `bat score … | head -1`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# ---- the commands --------------------------------------------------------------------------------


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", allow_from_autoenv=False, help="Show the version.")] = False,
) -> None:
    if version:
        print(f"bat {__version__}")
        raise typer.Exit()


@command(
    app,
    "spatialize",
    opts.SpatializeOptions,
    """
    bat spatialize demo --split eval -o scenes
    bat spatialize --audio dog.wav --reverb 74.npy -o dog-in-room.wav
    bat spatialize --audio a.wav --reverb 1.npy --audio2 b.wav --reverb2 2.npy -o both.wav
    """,
)
def _spatialize(options: opts.SpatializeOptions, terminal: Terminal) -> None:
    """Render binaural scenes: one from files, or every distinct scene of a split."""
    from batcli.spatialize import spatialize

    spatialize(options, terminal)


@command(
    prepare,
    "rooms",
    opts.RoomsOptions,
    """
    bat prepare rooms reverb --rooms 500 --sources 4 --split train
    bat prepare rooms reverb --rooms 100 --sources 4 --split eval --plot eval.png
    bat prepare rooms dry --rt60 0.1:0.3 --hrtf sphere --jobs 2
    """,
)
def _rooms(options: opts.RoomsOptions, terminal: Terminal) -> None:
    """Simulate rooms: binaural impulse responses and where their sources are."""
    from batcli.prepare.rooms import rooms

    rooms(options, terminal)


@command(
    prepare,
    "questions",
    opts.QuestionsOptions,
    """
    bat prepare questions data --clips train.json --labels labels.csv --audio-root audio --reverb-root reverb
    bat prepare questions data --clips eval.json --labels labels.csv --audio-root audio --reverb-root reverb \\
        --split eval --count 2000 --types D,MIXUP_DISTANCE_BOTH
    """,
)
def _questions(options: opts.QuestionsOptions, terminal: Terminal) -> None:
    """Ask questions of all nine types about clips with labels in simulated or released rooms."""
    from batcli.prepare.questions import questions

    questions(options, terminal)


@command(
    prepare,
    "import",
    opts.ImportOptions,
    """
    bat prepare import data train.json --audio-root AudioSet --reverb-root mp3d_reverb --labels labels.csv
    bat prepare import data eval-*.json --audio-root AudioSet --reverb-root mp3d_reverb --labels labels.csv
    """,
)
def _import(options: opts.ImportOptions, terminal: Terminal) -> None:
    """Take over released questions: JSON {"data": [...]} or JSONL, checked record by record."""
    from batcli.prepare.released import import_released

    import_released(options, terminal)


@command(
    app,
    "score",
    opts.ScoreOptions,
    """
    bat score preds.jsonl
    bat score preds.jsonl zeroed.jsonl --baseline random --published
    bat score preds.jsonl --against before.jsonl --fail-under B.doa_acc=0.7 --fail-over DOA.der=0.2
    bat decode run demo -o - | bat score - --format json | jq .paper_table
    bat score theirs.jsonl --field prediction=response --field answer=target --type DOA
    """,
)
def _score(options: opts.ScoreOptions, terminal: Terminal) -> None:
    """Score predictions: per question type, and in the layout of the published table."""
    from batcli.core.files import write_text
    from batcli.evaluation.report import FORMATS
    from batcli.score import score

    scores = score(options, terminal)
    missed = [str(verdict) for verdict in scores.verdicts if not verdict.passed]
    for verdict in scores.verdicts:
        if verdict.passed:
            terminal.info(f"gate passed: {verdict}")
    try:
        if scores.systems:
            write_text(options.output, FORMATS[options.format](scores))
    except BrokenPipeError:
        _discard_output()
    if missed:
        raise GateMissed(f"gate missed: {'; '.join(missed)}")


@command(
    prepare,
    "demo",
    opts.DemoOptions,
    """
    bat prepare demo demo
    bat prepare demo small --clips 8 --rooms 40 --count 400 --eval-count 200
    """,
)
def _demo(options: opts.DemoOptions, terminal: Terminal) -> None:
    """Make a whole dataset from nothing: clips, rooms and questions; no download."""
    from batcli.prepare.demo import demo

    demo(options, terminal)


@command(
    prepare,
    "model",
    opts.ModelOptions,
    """
    bat prepare model bat7b --encoder finetuned.pth --checkpoint model.pt --llm Llama-2-7b-hf
    bat prepare model start --encoder finetuned.pth --llm Meta-Llama-3-8B
    bat prepare model bat7b --export model.pt --export-encoder finetuned.pth
    """,
)
def _model(options: opts.ModelOptions, terminal: Terminal) -> None:
    """Make a run directory of the published checkpoints, or the published checkpoints of a run directory."""
    from batcli.prepare.model import model

    model(options, terminal)


@command(
    app,
    "train",
    opts.TrainOptions,
    """
    bat train demo -o run
    bat train demo -o run --resume
    accelerate launch -m batcli train DATA -o run --preset llama2-7b --llm Llama-2-7b-hf --precision bf16
    """,
)
def _train(options: opts.TrainOptions, terminal: Terminal) -> None:
    """Train the encoder, then projector and language model, stage by stage; resumable."""
    from batcli.train import train

    train(options, terminal)


@command(
    app,
    "decode",
    opts.DecodeOptions,
    """
    bat decode run demo -o preds.jsonl
    bat decode run demo -o - | bat score -
    bat decode run --audio scene.wav --question "Where is the dog?"
    """,
)
def _decode(options: opts.DecodeOptions, terminal: Terminal) -> None:
    """Answer the questions of a split, or one question about one recording."""
    from batcli.decode import decode

    answer = decode(options, terminal)
    if answer is not None:
        print(answer)


_UsageError: Any = typer.BadParameter.__bases__[0]  # click's own, which newer releases of Typer carry within themselves


def main() -> None:
    """The entry point `bat`. Wrong usage is one line, as every other expected error is."""
    try:
        # Named, for otherwise the command's path has one word more under `python -m batcli`.
        code = app(prog_name="bat", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Of a pipe that closes while they write help, Rich and the parser make an exit with 1.
        if not any(isinstance(e, BrokenPipeError) for e in (error, error.__context__)):
            raise
        _discard_output()
        code = ExitCode.DONE
    except (KeyboardInterrupt, Stopped) as error:  # it came before a command began, or when it had ended
        stopped = error if isinstance(error, Stopped) else Stopped(ExitCode.INTERRUPTED)
        print(f"bat: {stopped}", file=sys.stderr)
        code = stopped.exit_code
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            print(f"bat: {_explain(error)}", file=sys.stderr)
        code = ExitCode.WRONG_INPUT
    sys.exit(code)


def _explain(error: Any) -> str:
    """The parser's message, with the place of a value that no flag gave."""
    context, parameter = error.ctx, getattr(error, "param", None)
    origin = _origin(context, parameter.name) if context and parameter else "flag"
    where = None if origin in ("flag", "default") else origin
    hint = f"see `{context.command_path} --help`" if context else None
    return str(InputError(error.format_message().rstrip("."), where, hint))
