"""Make Typer commands of options dataclasses: parameters, configuration files, errors and exit codes."""

from __future__ import annotations

import errno
import inspect
import math
import os
import select
import signal
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batcli import config as configuration
from batcli import help
from batcli.core.errors import BatError, ExitCode, InputError, Stopped, printable
from batcli.core.signals import CODES
from batcli.core.toml import read_toml, refuse_unknown, to_text
from batcli.ui import Terminal, foreign_messages


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    """The callback of `--config`: make the command's table its defaults. Raises InputError for an unknown key."""
    if path is not None:
        with ExpectedErrors(debug=False):
            root: Any = context.find_root().command
            ordered = {name: root.commands[name] for name in root.list_commands(context)}
            commands = {name: list(getattr(command, "commands", ())) for name, command in ordered.items()}
            content, names = read_toml(path), context.command_path.split()[1:]
            configuration.refuse_stray_tables(content, commands, path)
            values, where = configuration.table(content, names, path), f"{path} [{'.'.join(names)}]"
            known = {p.name: p for p in context.command.params if p.name and p.name not in _GENERAL}
            refuse_unknown(values, known, where)
            context.meta[_CONTENT] = content
            context.default_map = {
                name: configuration.to_flag(value, _kind(known[name]), f"{where} {name}")
                for name, value in values.items()
            }
    return path


def _add_tables(context: typer.Context, schema: type, values: dict[str, Any]) -> None:
    """Put the entries of a configuration file's table before the KEY=VALUE flags of its option."""
    for field in fields(schema):
        if name := field.metadata.get("table"):
            entries = configuration.table(
                context.meta.get(_CONTENT, {}), [name], Path(context.params.get("config") or "")
            )
            values[field.name] = [f"{key}={to_text(value)}" for key, value in entries.items()] + values[field.name]


_CONTENT = "batcli.config"  # key of a context's `meta`: the content of the configuration file


def _kind(parameter: Any) -> Literal["switch", "list", "value"]:
    if getattr(parameter, "is_flag", False):
        return "switch"
    return "list" if parameter.nargs == -1 or getattr(parameter, "multiple", False) else "value"


_GENERAL = {
    "config": (
        Path,
        typer.Option(
            show_envvar=False,
            help="Options from a TOML file; flags and BAT_… variables win.",
            metavar="FILE",
            is_eager=True,
            callback=_load_config,
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
    """The Typer parameters of an options dataclass: positional arguments, then flags, then _GENERAL."""
    hints = typing.get_type_hints(schema)
    parameters = []
    for field in sorted(fields(schema), key=lambda f: not f.metadata.get("argument")):
        meta, hint, group = field.metadata, hints[field.name], help.group_of(schema.__name__, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if meta.get("argument"):
            text = help.describe(meta["help"], None, {}, meta["required"])
            info: Any = typer.Argument(help=text, metavar=meta["metavar"], show_default=False, rich_help_panel=group)
            default = inspect.Parameter.empty if meta["required"] else default
        else:
            info = typer.Option(
                f"--{field.name.replace('_', '-')}",
                *meta["names"],
                help=help.describe(meta["help"], default, meta["limits"], default is None and not _optional(hint)),
                metavar=None if hint is bool else help.metavar_of(schema.__name__, field.name, hint),
                show_envvar=False,
                show_default=False,
                rich_help_panel=group,
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
    """Decorate `run(options, terminal)` to be the command `bat … name` with the options of `schema`."""

    def register(run: Callable[[Any, Terminal], None]) -> Callable:
        def invoke(context: typer.Context, **values: Any) -> None:
            general = {key: values.pop(key) for key in _GENERAL}
            verbosity = -1 if general["quiet"] else int(general["verbose"])
            with ExpectedErrors(general["debug"], how_to_go_on(values)):
                _check(context, values)
                _add_tables(context, schema, values)
                if general["print_config"]:
                    _print_config(context, values)
                else:
                    options = schema(**values)
                    with foreign_messages(general["debug"]), Terminal(verbosity if _first_rank() else -1) as terminal:
                        run(options, terminal)

        context_parameter = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        invoke.__signature__ = inspect.Signature([context_parameter, *_parameters(schema)])  # type: ignore[attr-defined]
        invoke.__doc__ = inspect.getdoc(run)
        group.command(name, cls=type("Command", (help.Command,), {"examples": examples}))(invoke)
        return run

    return register


def _first_rank() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _check(context: typer.Context, values: dict[str, Any]) -> None:
    """Raises InputError for unknown variables of this command, and for numbers that are not finite."""
    prefix = f"{context.auto_envvar_prefix}_"
    known = [f"{prefix}{parameter.name.upper()}" for parameter in context.command.params if parameter.name]
    refuse_unknown([name for name in os.environ if name.startswith(prefix)], known, "environment")
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{value} is not a finite number", f"--{name.replace('_', '-')}")


def _print_config(context: typer.Context, values: dict[str, Any]) -> None:
    for name, value in values.items():
        print(f"{name} = {printable(str(value))}\t# {printable(origin_of(context, name))}")


def origin_of(context: typer.Context, name: str) -> str:
    """The origin of a value: `flag`, the name of the variable or of the configuration file, or `default`."""
    source = context.get_parameter_source(name)
    origins = {
        "COMMANDLINE": "flag",
        "ENVIRONMENT": f"{context.auto_envvar_prefix}_{name.upper()}",
        "DEFAULT_MAP": str(context.params.get("config")),
    }
    return origins.get(source.name if source else "", "default")


def how_to_go_on(values: Mapping[str, Any]) -> str:
    """What to do after a signal, from the options of a command."""
    resume = " with --resume" if "resume" in values else ""
    return f"run again{resume}{', without --overwrite,' if values.get('overwrite') else ''} to go on"


class ExpectedErrors:
    """Inside, errors and signals become one line on stderr and an exit code. `go_on`: what to do after a signal."""

    def __init__(self, debug: bool, go_on: str = "run again to go on") -> None:
        self.debug, self.go_on = debug, go_on
        self.stopped: Stopped | None = None

    def __enter__(self) -> None:
        signal.signal(signal.SIGTERM, self._stop)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores it
            signal.signal(signal.SIGINT, self._stop)

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, (typer.Exit, SystemExit)):
            return
        if isinstance(error, BrokenPipeError) and reader_has_ended():
            discard_output()
            raise typer.Exit(ExitCode.DONE) from None
        if self.debug:
            traceback.print_exception(kind, error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            error = Stopped(ExitCode.INTERRUPTED)
        error = self.stopped or error  # a signal may come out of a library as an error of the library's
        if isinstance(error, OSError) and error.errno is not None:
            hints = {errno.ENOSPC: "free some space", errno.EACCES: "choose another path"}
            where = error.filename2 or error.filename or (None if _has_directory() else "the working directory")
            error = InputError(error.strerror or str(error), where, hints.get(error.errno))
        if isinstance(error, (BatError, Stopped)):
            print(f"bat: {error}; {self.go_on}" if isinstance(error, Stopped) else f"bat: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        print(f"bat: unexpected {type(error).__name__}: {error}; --debug shows where", file=sys.stderr)
        raise typer.Exit(ExitCode.UNEXPECTED) from None

    def _stop(self, number: int, frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        self.stopped = Stopped(CODES[signal.Signals(number)])
        raise self.stopped


def _has_directory() -> bool:
    """Whether the working directory is there; it may have been deleted."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def reader_has_ended() -> bool:
    """Whether nothing reads standard output any more; a broken pipe may also be one to another process."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, events in poll.poll(0))


def discard_output() -> None:
    """Drop all further output: its reader has ended, as in `bat score … | head -1`."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
