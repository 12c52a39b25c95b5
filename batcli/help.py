"""The help of commands, in plain text: examples first, options in groups, required ones marked.

Typer's own help in colours would import rich, which takes twice as long as all the rest of `bat --help`.
"""

from __future__ import annotations

import inspect
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from typer.core import TyperCommand, TyperGroup

GENERAL = "General"
GROUPS: Mapping[str, str] = {
    "Input and output": """
        data run reverb source files predictions output split reverb_split audio reverb audio2 reverb2 question
        QuestionsOptions.clips ImportOptions.clips reverbs labels audio_root reverb_root layout csv table file label
        fold group separator room azimuth elevation distance azimuths checkpoint ModelOptions.encoder sha256 export
        export_encoder DecodeOptions.encoder DecodeOptions.sources true_names ScoreOptions.data against format prior
        questions field type scenes report plot unparsed junit limit encoding resume overwrite follow_links""",
    "Model": """
        preset llm init encoder_init lora_targets patches_only quantize attention num_beams max_new_tokens
        zero_audio""",
    "Recipe": """
        stages recipe set batch_size accumulate clips rooms sources count eval_count per_scene types seconds sample_rate
        rms_dbfs rendering hrtf held_out_hrtf channels rt60 size max_distance spread level longest crop excerpts channel
        test_share dev_share eval_folds dev_folds validate validate_every validate_questions validate_scenes""",
    "Scores and gates": "baseline published embedder embedder_cache cluster replicates fail_under fail_over",
    "Resources": """
        device precision jobs workers DecodeOptions.batch_size cache cache_gb gradient_checkpointing save_every keep
        log_every tensorboard max_bad""",
    GENERAL: "seed dry_run config print_config quiet verbose debug",
}
"""Heading → the options below it, in order; `Class.name` where a name has a meaning of its own in that command."""

METAVARS: Mapping[str, str] = {
    **dict.fromkeys(["audio_root", "reverb_root", "llm", "init", "ScoreOptions.data", "scenes"], "DIR"),
    **dict.fromkeys(["TrainOptions.output", "BrirsOptions.export", "report"], "DIR"),
    "SpatializeOptions.output": "PATH",
    "set": "KEY=VALUE",
    "sha256": "FILE=HEX",
    "field": "OURS=THEIRS",
    "fail_under": "METRIC=N",
    "fail_over": "METRIC=N",
    "rt60": "LOW:HIGH",
    "size": "WxLxH",
    **dict.fromkeys(["split", "reverb_split", "validate", "type"], "NAME"),
    **dict.fromkeys(["stages", "recipe", "types", "baseline", "lora_targets"], "NAMES"),
    **dict.fromkeys(["file", "label", "fold", "group", "room", "azimuth", "elevation", "distance"], "COLUMN"),
    "hrtf": "HEADS",
    "held_out_hrtf": "HEADS",
    "batch_size": "N",
    "eval_folds": "FOLDS",
    "dev_folds": "FOLDS",
}
"""Option → what stands for its value, where the type does not say it."""


def _named(table: Mapping[str, str], schema: str, name: str, otherwise: str) -> str:
    return table.get(f"{schema}.{name}", table.get(name, otherwise))


def group_of(schema: str, name: str) -> str:
    """The heading that an option of a dataclass is below."""
    groups = {one: heading for heading, names in GROUPS.items() for one in names.split()}
    return _named(groups, schema, name, "Other")


def metavar_of(schema: str, name: str, hint: Any) -> str:
    """What stands for the value of an option of this type: `N`, `FILE`, `fast|published`."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)] if _is_union(hint) else [hint]
    kind = kinds[0]
    if typing.get_origin(kind) is list:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        return "|".join(typing.get_args(kind))
    return _named(METAVARS, schema, name, {int: "N", float: "N", Path: "FILE"}.get(kind, "TEXT"))


def _is_union(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def describe(text: str, default: Any, limits: Mapping[str, float], required: bool) -> str:
    """An option's help with what else a reader should know: `[required]`, or its default and limits."""
    if required:
        return f"{text} [required]"
    shown = default not in (None, "", []) and default is not False and "[default:" not in text
    notes = [f"default: {default}"] if shown else []
    low, high = limits.get("min"), limits.get("max")
    if high is not None:
        notes.append(f"{low:g} to {high:g}")
    elif low is not None and low > 1:
        notes.append(f"{low:g} or more")
    return f"{text} [{'; '.join(notes)}]" if notes else text


class Command(TyperCommand):
    """A command whose help has the parts: usage, what it does, examples, options by group."""

    examples: str = ""  # one a line

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, " ".join(self._usage(ctx)))

    def _usage(self, ctx: Any) -> Iterator[str]:
        """Arguments, required options, then all others."""
        for parameter in self.get_params(ctx):
            if parameter.param_type_name == "argument":
                yield str(parameter.metavar)
            elif _required(parameter):
                yield f"{min(parameter.opts, key=len)} {parameter.metavar}"
        yield "[OPTIONS]"

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        write_options(self.get_params(ctx), formatter)


class Group(TyperGroup):
    """A group of commands, listed in the order of work, each with its whole summary."""

    examples: str = ""
    order: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=self.order.index)

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        formatter.write_usage(ctx.command_path, "COMMAND [OPTIONS]")

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        super().format_help_text(ctx, formatter)
        write_examples(self.examples, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        commands = [(name, summary(self.commands[name].help)) for name in self.list_commands(ctx)]
        with formatter.section("Commands, in the order of work"):
            formatter.write_dl(commands)
        write_options(self.get_params(ctx), formatter)


def summary(help: str | None) -> str:
    """The first paragraph of a help text, on one line."""
    return " ".join(inspect.cleandoc(help or "").partition("\n\n")[0].split())


def write_examples(examples: str, formatter: Any) -> None:
    """Commands that can be pasted; those longer than the terminal is wide go on after a backslash, with a flag."""
    if examples:
        with formatter.section("Examples"):
            for line in re.sub(r" \\\n *", " ", inspect.cleandoc(examples)).splitlines():
                if len(line) > formatter.width - 2:
                    flags = re.sub(r" (?=-)", "\n", line).replace(" ", "\0").replace("\n", " ")
                    parts = textwrap.wrap(flags, formatter.width - 8, break_long_words=False, break_on_hyphens=False)
                    line = " \\\n      ".join(parts).replace("\0", " ")
                formatter.write(f"  {line}\n")


def write_options(parameters: list[Any], formatter: Any) -> None:
    """Arguments and options below the headings of their groups, the required ones first."""
    rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in [*GROUPS, "Other"]}
    names = " ".join(GROUPS.values()).split()
    order = {name.rpartition(".")[2]: n for n, name in enumerate(names)}
    order |= {name: n for n, name in enumerate(names)}  # a name of all commands wins over one of its own
    parameters = sorted(
        parameters,
        key=lambda p: (p.param_type_name != "argument", not _required(p), order.get(p.name, len(names))),
    )
    for parameter in parameters:
        heading = getattr(parameter, "rich_help_panel", None) or GENERAL
        rows[heading].append((_flags(parameter), parameter.help or ""))
    for heading, found in rows.items():
        if found:
            with formatter.section(heading):
                formatter.write_dl(found, col_max=24)


def _required(parameter: Any) -> bool:
    return (parameter.help or "").endswith("[required]")


def _flags(parameter: Any) -> str:
    """`-o, --output FILE`; of an argument, its name."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar).strip("[]")
    flags = ", ".join(sorted(parameter.opts, key=len))
    return flags if getattr(parameter, "is_flag", False) else f"{flags} {parameter.metavar or 'TEXT'}"
