"""The commands of `bat`, each of which calls one module.

Options come from the dataclasses of `options.py`. Modules are imported in the bodies, so that `--help`
needs no torch.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from batcli import __version__
from batcli import options as opts
from batcli.command import command, discard_output, origin_of
from batcli.core.errors import ExitCode, GateMissed, InputError, Stopped
from batcli.core.files import STDIO
from batcli.help import Group
from batcli.ui import Terminal, open_streams

CONTEXT = {"auto_envvar_prefix": "BAT", "help_option_names": ["-h", "--help"], "max_content_width": 110}


class Commands(Group):
    examples = """
        bat prepare demo demo
        bat train demo -o run
        bat decode run demo -o preds.jsonl
        bat score preds.jsonl
        """
    order = ("prepare", "spatialize", "train", "decode", "score")


class Kinds(Group):
    examples = """
        bat prepare demo demo
        bat prepare clips data my-sounds
        """
    order = ("demo", "clips", "rooms", "brirs", "questions", "import", "model")


app = typer.Typer(
    name="bat",
    cls=Commands,
    help="BAT listens to binaural audio and answers questions about what sounds, where and how far.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help loads rich no sooner than a bar needs it
    pretty_exceptions_enable=False,
    context_settings=CONTEXT,
)
prepare = typer.Typer(
    cls=Kinds,
    help="Make or import data, rooms, questions and published models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(prepare, name="prepare")


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
    """Render binaural scenes: one from files, or all of a split."""
    from batcli.spatialize import spatialize

    spatialize(options, terminal)
    if not options.dry_run:
        made = f"the scenes of {options.split}" if options.data else "a scene"
        terminal.done(f"{options.output}: {made}", "" if options.data else "listen to it on headphones")


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
    """Simulate rooms: binaural impulse responses, and their places."""
    from batcli.prepare.rooms import rooms

    rooms(options, terminal)
    if not options.dry_run:
        made = f"{options.rooms:,} rooms for {options.split}"
        ask = f"bat prepare questions DATA --reverb-root {shown(options.reverb)} --split {options.split} …"
        terminal.done(f"{options.reverb}: {made}", ask if options.channels == "binaural" else "")


@command(
    prepare,
    "brirs",
    opts.BrirsOptions,
    """
    bat prepare brirs reverb room.sofa --split eval
    bat prepare brirs reverb recordings --table places.csv --azimuths left --distance 1.5
    bat prepare brirs reverb --split eval --export sofa
    """,
)
def _brirs(options: opts.BrirsOptions, terminal: Terminal) -> None:
    """Take measured rooms: SOFA, or sound files; or export as SOFA."""
    from batcli.prepare.brirs import brirs

    made = brirs(options, terminal)
    if not options.dry_run:
        ask = f"bat prepare questions DATA --reverb-root {shown(options.reverb)} --split {options.split} …"
        terminal.done(f"{made}: written", "" if options.export else ask)


@command(
    prepare,
    "clips",
    opts.ClipsOptions,
    """
    bat prepare clips data ESC-50-master
    bat prepare clips data my-sounds --seconds 2 --excerpts 3
    bat prepare clips data sounds --csv table.csv --file name --label class --fold fold --eval-folds 5
    """,
)
def _clips(options: opts.ClipsOptions, terminal: Terminal) -> None:
    """Take recordings with labels: folders, a table, a collection."""
    from batcli.prepare.clips import clips

    made = clips(options, terminal)
    if not options.dry_run:
        then = "" if made.splits else f"bat prepare demo {shown(options.data)}"
        terminal.done(f"{options.data}: clips with {len(made.labels):,} labels", then)


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
    """Ask questions of all types about clips with labels, in rooms."""
    from batcli.prepare.questions import questions

    questions(options, terminal)
    if not options.dry_run:
        made = f"{options.count:,} questions for {options.split}"
        terminal.done(f"{options.data}: {made}", after_questions(options.data, options.split))


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
    """Take over released questions, checked record by record."""
    from batcli.prepare.released import import_released

    counts = import_released(options, terminal).counts
    if not options.dry_run:
        made = f"{sum(sum(by_type.values()) for by_type in counts.values()):,} questions for {', '.join(counts)}"
        terminal.done(f"{options.data}: {made}", after_questions(options.data, *counts))


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
    bat score heard.jsonl --published
    """,
)
def _score(options: opts.ScoreOptions, terminal: Terminal) -> None:
    """Score predictions by question type, or what encoders hear."""
    from batcli.core.files import write_text
    from batcli.evaluation.formats import FORMATS
    from batcli.score import score

    scores = score(options, terminal)
    missed = [str(verdict) for verdict in scores.verdicts if not verdict.passed]
    for verdict in scores.verdicts:
        if verdict.passed:
            terminal.info(f"gate passed: {verdict}")
    terminal.close()
    try:
        if scores.systems:
            write_text(options.output, FORMATS[options.format](scores))
    except BrokenPipeError:
        discard_output()
    if scores.systems:
        files = [path for path in (options.output, options.report, options.unparsed, options.junit) if path]
        where = ", ".join(str(path) for path in files if path != STDIO) or "standard output"
        then = "" if options.report or scores.subject.embedder is None else "--report DIR shows what lies behind"
        terminal.done(f"{where}: scores of {scores.systems[0].n:,} {scores.subject.scored}", then)
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
    """Make a whole dataset from nothing; no download."""
    from batcli.prepare.demo import demo

    demo(options, terminal)
    if not options.dry_run:
        made = f"a dataset of {options.count:,} questions to learn from"
        terminal.done(f"{options.data}: {made}", after_questions(options.data, "train"))


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
    """Make a run directory of published checkpoints, or the reverse."""
    from batcli.prepare.model import model

    model(options, terminal)
    if options.dry_run:
        return
    if options.export or options.export_encoder:
        terminal.done(f"{' and '.join(str(p) for p in (options.export, options.export_encoder) if p)}: exported")
    else:
        terminal.done(f"{options.run}: a run directory", f"bat decode {shown(options.run)} DATA -o preds.jsonl")


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
    """Train encoder, projector and language model, stage by stage."""
    from batcli.train import train

    train(options, terminal)
    if not options.dry_run:
        then = f"bat decode {shown(options.output)} {shown(options.data)}"
        if not (options.output / "projector.safetensors").exists():  # an encoder alone
            then += " --encoder -o heard.jsonl"
        else:
            then += " -o preds.jsonl"
        terminal.done(f"{options.output}: trained on {options.data}, stages {options.stages}", then)


@command(
    app,
    "decode",
    opts.DecodeOptions,
    """
    bat decode run demo -o preds.jsonl
    bat decode run demo -o - | bat score -
    bat decode run --audio scene.wav --question "Where is the dog?"
    bat decode run demo --encoder --sources both -o heard.jsonl
    """,
)
def _decode(options: opts.DecodeOptions, terminal: Terminal) -> None:
    """Answer the questions of a split, or one about a recording.

    With --encoder, write what the encoder hears of each clip instead.
    """
    from batcli.decode import decode

    answer = decode(options, terminal)
    if answer is not None:
        terminal.close()
        print(answer)
    elif options.data is not None and options.output is not None and not options.dry_run:
        made = f"what the encoder hears of {options.split}" if options.encoder else f"answers to {options.split}"
        piped = options.output == STDIO
        where = "standard output" if piped else options.output
        terminal.done(f"{where}: {made}", "" if piped else f"bat score {shown(options.output)}")


def shown(path: Path) -> str:
    """A path as it is typed in a shell."""
    return shlex.quote(str(path))


def after_questions(data: Path, *splits: str) -> str:
    """The command that comes after questions: training on them, or answering those that are for a test."""
    if "train" in splits:
        return f"bat train {shown(data)} -o run"
    return f"bat decode run {shown(data)} --split {splits[0]} -o preds.jsonl"


_UsageError: Any = typer.BadParameter.__bases__[0]  # click's own, which newer releases of Typer carry within themselves


def main() -> None:
    """The entry point `bat`. Errors, wrong usage among them, are one line and an exit code."""
    open_streams()
    try:
        # Named, for otherwise the command's path has one word more under `python -m batcli`.
        code = app(prog_name="bat", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit) as error:
        # Of a pipe that closes while they write help, Rich and the parser make an exit with 1.
        if not any(isinstance(e, BrokenPipeError) for e in (error, error.__context__)):
            raise
        discard_output()
        code = ExitCode.DONE
    except OSError as error:  # while it writes help or the last of its output
        print(f"bat: {error.strerror or error}", file=sys.stderr)
        discard_output()
        code = ExitCode.WRONG_INPUT
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
    """The parser's message in one line, with the variable or file that a wrong value came from."""
    context, parameter = error.ctx, getattr(error, "param", None)
    origin = origin_of(context, parameter.name) if context and parameter else "flag"
    where = None if origin in ("flag", "default") else origin
    hint = f"see `{context.command_path} --help`" if context else None
    return str(InputError(error.format_message().rstrip("."), where, hint))
