"""The options of all commands: the command line, the environment, TOML files and the library have the
same names, types, defaults and help.

Precedence: flag > environment (`BAT_TRAIN_SEED`) > `--config` TOML (table `[train]`) > default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from batcli.core.errors import InputError
from batcli.core.files import require_text
from batcli.data.constants import FAST, RMS_DBFS, SAMPLE_RATE


def option(default: Any, help: str, *names: str, table: str | None = None, **limits: Any) -> Any:
    """A flag. `names`: further names such as `-o`; `limits`: `min` and `max` of a number.

    `table`: a table of the configuration file, whose entries are put before the KEY=VALUE of the flag.
    """
    metadata = {"help": help, "names": names, "limits": limits, "table": table}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def argument(help: str, default: Any = ..., metavar: str | None = None) -> Any:
    """A positional argument; required unless it has a default."""
    metadata = {"help": help, "argument": True, "required": default is ..., "metavar": metavar}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=None if default is ... else default, metadata=metadata)


@dataclass(kw_only=True)
class Options:
    """Options that all commands take."""

    seed: int = option(0, "Seed of what is random: same seed, same bytes.", min=0)
    dry_run: bool = option(False, "Check the inputs, print the counts, do nothing.", "-n")

    only_heard: ClassVar[tuple[str, ...]] = ()  # options whose files are recorded nowhere: any name will do

    def __post_init__(self) -> None:
        """Raise InputError for a path that no manifest could record, before any work."""
        for name in (one.name for one in fields(self) if one.name not in self.only_heard):
            value = getattr(self, name)
            for path in value if isinstance(value, list) else [value]:
                if isinstance(path, Path):
                    require_text(path)


@dataclass(kw_only=True)
class Rendering:
    """How a scene is rendered; the defaults are the published ones."""

    seconds: float | None = option(None, "Length of a scene [default: the dataset's, else 10].", min=0.05, max=600)
    sample_rate: int = option(SAMPLE_RATE, "Samples per second of the result.", min=8_000, max=192_000)
    rms_dbfs: float = option(RMS_DBFS, "RMS that each clip is brought to before its room.", min=-80, max=0)
    rendering: Literal["fast", "published"] = option(
        FAST, "published: exactly as the published data was made; fast: what lies 80 dB below a BRIR left out."
    )


@dataclass(kw_only=True)
class Roots:
    """How files below the folders of clips and BRIRs are found."""

    follow_links: bool = option(
        False, "Read clips and BRIRs through links that lead out of their folders, as in the hub's cache."
    )


@dataclass(kw_only=True)
class LanguageModel:
    """How a language model from elsewhere is loaded."""

    llm: Path | None = option(None, "Language model directory [default: where the run says it lies].")
    quantize: bool = option(False, "4-bit weights of the language model (needs batcli[quantize]).")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = option("sdpa", "Attention of the language model.")


HEADS_HELP = (
    "kemar, sphere (analytic, needs no data) or a SOFA file (needs batcli[sofa]); several by commas: room by room."
)


@dataclass(kw_only=True)
class DemoOptions(Options):
    data: Path = argument("The dataset directory to make, or one of `bat prepare clips`.", metavar="DATA")
    clips: int = option(40, "Training clips per class; eval and dev each get a quarter as many more.", min=2)
    rooms: int = option(700, "Training rooms; eval and dev each get a quarter as many more.", min=1)
    sources: int = option(6, "Sources, and so BRIRs, per room.", min=2)
    count: int = option(60_000, "Training questions.", min=20)
    eval_count: int = option(2_400, "Questions of eval, and of dev.", min=20)
    seconds: float = option(2.0, "Length of a clip and of a scene.", min=0.5, max=60)
    hrtf: str = option("kemar", HEADS_HELP)
    held_out_hrtf: str | None = option(None, "Heads of eval and dev [default: those of training].")
    jobs: int | None = option(None, "Processes [default: one per processor].", min=1)


@dataclass(kw_only=True)
class ClipsOptions(Roots, Options):
    data: Path = argument("The dataset directory to make.", metavar="DATA")
    source: list[Path] = argument("Folders of recordings.", metavar="SOURCE...")
    layout: Literal["auto", "folders", "esc50", "fsd50k", "urbansound8k", "audioset"] = option(
        "auto", "How SOURCE is laid out; folders: one per class [default: told by its tables]."
    )
    csv: Path | None = option(None, "Table of the recordings, with a header.")
    file: str = option("file", "Column of the file's path below SOURCE.")
    label: str = option("label", "Column of the label.")
    fold: str | None = option(None, "Column of the fold.")
    group: str | None = option(None, "Column of the origin: recordings of one origin stay in one split.")
    separator: str | None = option(None, "Text between several labels in one cell.")
    eval_folds: str = option("", "Folds for eval, by commas.")
    dev_folds: str = option("", "Folds for dev, by commas.")
    test_share: float = option(0.2, "Of each class for eval, where the source has none.", min=0, max=0.9)
    dev_share: float = option(0.1, "Of each class for dev, where the source has none.", min=0, max=0.9)
    labels: Path | None = option(None, "Keep to this CSV of labels (index,mid,display_name), by id or name.")
    seconds: float = option(2.0, "Length of a scene, and most of a clip; 10 for the published model.", min=0.5, max=60)
    crop: Literal["loudest", "start", "random"] = option("loudest", "Which part of a longer recording.")
    excerpts: int = option(1, "Most clips from one recording, without overlap.", min=1)
    channel: Literal["first", "mean"] = option("first", "What becomes of several channels.")
    jobs: int | None = option(None, "Processes [default: one per processor].", min=1)
    max_bad: int = option(0, "Recordings that may fail before the exit code is 4.", min=0)


@dataclass(kw_only=True)
class RoomsOptions(Options):
    reverb: Path = argument("The REVERB directory to make or to extend.", metavar="REVERB")
    rooms: int = option(100, "How many rooms.", min=1)
    sources: int = option(4, "Sources, and so BRIRs, per room.", min=1)
    split: Literal["train", "eval", "dev"] = option("train", "Which split; no room is in two.")
    hrtf: str = option("kemar", HEADS_HELP)
    channels: Literal["binaural", "mono"] = option("binaural", "Two ears, or one point without a head.")
    rt60: str = option("0.15:0.9", "Reverberation time in seconds: one value, or LOW:HIGH.")
    size: str = option("", "Room size WIDTHxLENGTHxHEIGHT in metres [default: drawn].")
    max_distance: float = option(10.0, "Farthest source, metres.", min=0.5, max=50)
    spread: Literal["near", "even"] = option(
        "near", "Distances: near, each dB of level as common as any; even, each metre, which takes halls."
    )
    plot: Path | None = option(None, "Also draw the first room to this PNG, PDF or SVG (needs batcli[plot]).")
    jobs: int | None = option(None, "Processes [default: one per processor].", min=1)


@dataclass(kw_only=True)
class BrirsOptions(Roots, Options):
    reverb: Path = argument("The REVERB directory to make or to extend.", metavar="REVERB")
    source: list[Path] = argument("SOFA files, or the folder that --table's paths start from.", [], "[SOURCE]...")
    split: str = option("eval", "Name of the split; no room is in two.")
    table: Path | None = option(None, "CSV of sound files (two channels, left first) and places.")
    file: str = option("file", "Column of the file.")
    room: str | None = option(None, "Column of the room [default: all are of one].")
    azimuth: str = option("azimuth", "Column of the azimuth in degrees, or a number.")
    elevation: str = option("elevation", "Column of the elevation in degrees, up is positive, or a number.")
    distance: str = option("distance", "Column of the distance in metres, or a number.")
    azimuths: Literal["left", "right", "bat"] | None = option(
        None, "left: 0 is front, +90 left; right: +90 is right; bat: 0 is right, 90 front."
    )
    level: Literal["direct", "as-is"] = option(
        "direct", "direct: each direct sound as loud as KEMAR's at its distance, as distances need."
    )
    longest: float = option(2.0, "Seconds of a response that are kept.", min=0.05, max=20)
    export: Path | None = option(None, "Write the split's rooms as SOFA into this folder instead.")


@dataclass(kw_only=True)
class QuestionsOptions(Roots, Options):
    data: Path = argument("The dataset directory to make or to extend.", metavar="DATA")
    clips: Path = option(None, "Clip metadata, JSON: folder, id, label (list of mids).")
    labels: Path = option(None, "CSV: index,mid,display_name.")
    audio_root: Path = option(None, "Folder that clip ids start from.")
    reverb_root: Path = option(None, "Folder with binaural/ and SPLIT_reverberation.json.")
    split: str = option("train", "Name of the split; also picks SPLIT_reverberation.json.")
    reverb_split: str = option("", "Take another split's BRIRs [default: the split's own].")
    count: int = option(10_000, "How many questions.", min=1)
    types: str = option("A,B,C,D,E", "Families or question types, separated by commas.")
    per_scene: int = option(4, "Questions about one scene: more for training (8, 12), few for evaluation.", min=1)
    seconds: float | None = option(None, "Length of a scene [default: the dataset's, else 10].", min=0.05, max=600)


@dataclass(kw_only=True)
class ImportOptions(Options):
    data: Path = argument("The dataset directory to make or to extend.", metavar="DATA")
    files: list[Path] = argument('Released question files: JSON {"data": [...]} or JSONL.', metavar="FILES...")
    audio_root: Path = option(None, "Folder that audio_id starts from.")
    reverb_root: Path = option(None, "Folder that holds binaural/<scene>/<n>.npy.")
    labels: Path = option(None, "CSV: index,mid,display_name.")
    clips: Path | None = option(None, "Clip metadata JSON, which training the encoder needs.")
    reverbs: Path | None = option(None, "BRIR metadata JSON, which training the encoder needs.")
    split: str = option("", "Name of the split [default: each file's name].")
    max_bad: int = option(0, "Bad records that are left out before the exit code is 4.", min=0)


@dataclass(kw_only=True)
class ModelOptions(Options):
    run: Path = argument("The run directory to make, or to export.", metavar="RUN")
    encoder: Path | None = option(None, "Published checkpoint of Spatial-AST or DSpAST.")
    checkpoint: Path | None = option(None, "Published BAT checkpoint (model.pt).")
    llm: Path | None = option(None, "Language model directory, such as Llama-2-7b-hf.")
    sha256: list[str] = option([], "FILE=HEX that an input must have; repeatable.")
    export: Path | None = option(None, "Write RUN's projector and LoRA as a published model.pt instead.")
    export_encoder: Path | None = option(None, "Write RUN's encoder as its published checkpoint instead.")
    patches_only: bool = option(False, "The Q-Former gets DSpAST's 512 patch tokens, not its 3 summaries.")
    lora_targets: str = option("", "Modules with LoRA, by commas [default: q_proj,v_proj, or the family's].")


@dataclass(kw_only=True)
class SpatializeOptions(Roots, Options, Rendering):
    only_heard = ("audio", "reverb", "audio2", "reverb2")
    data: Path | None = argument("A dataset directory, for all scenes of a split.", None, metavar="[DATA]")
    split: str = option("eval", "Which split of DATA.")
    audio: Path | None = option(None, "Clip of a single scene: WAV, FLAC or OGG, any rate.")
    reverb: Path | None = option(None, "BRIR of a single scene: .npy, (2, T) at 32 kHz.")
    audio2: Path | None = option(None, "Second clip.")
    reverb2: Path | None = option(None, "Second BRIR.")
    output: Path = option(None, "Folder for a split, WAV file for a single scene.", "-o")
    encoding: Literal["float", "pcm16", "pcm24"] = option("float", "Samples in the WAV; only float holds peaks over 1.")
    jobs: int | None = option(None, "Processes [default: one per processor].", min=1)
    max_bad: int = option(0, "Scenes that may fail before the exit code is 4.", min=0)


@dataclass(kw_only=True)
class TrainOptions(Roots, Options, LanguageModel):
    data: Path = argument("The dataset directory.", metavar="DATA")
    output: Path = option(None, "The run directory to make.", "-o")
    preset: Literal["tiny", "llama2-7b", "llama2-7b-dspast"] | None = option(
        None, "Sizes of the model and its recipe [default: those of --init, else tiny]."
    )
    stages: str = option(
        "encoder,1,2,3",
        "Which, in order; sources: source tokens beside a published encoder; 1: A,B; 2: A-D; 3: A-E; all: A-E at once.",
    )
    resume: bool = option(False, "Go on where the run directory's last checkpoint stands.")
    overwrite: bool = option(False, "Throw away what the run directory holds.")
    split: str = option("train", "Split to learn from.")
    init: Path | None = option(None, "Run directory to start from: its weights, sizes and recipe.")
    encoder_init: Path | None = option(None, "AudioMAE checkpoint that the encoder's blocks start from.")
    batch_size: str | None = option(
        None, "Questions per step and process, or auto: as many as fit into memory [default: the preset's]."
    )
    accumulate: int | None = option(
        None, "Steps whose gradients are added before an update, where the recipe does not say [default: 1].", min=1
    )
    gradient_checkpointing: bool = option(False, "Compute twice what then need not be kept: less memory, more time.")
    lora_targets: str | None = option(
        None, "Modules of --llm with LoRA, by commas [default: those usual for its family]."
    )
    patches_only: bool = option(False, "The Q-Former gets DSpAST's 512 patch tokens, not its 3 summaries.")
    recipe: str = option(
        "",
        "By commas: as-2m, as-20k, events (of Spatial-AST); dspast-1, -2, -3; paper, slam-llm (of stages 1-3).",
    )
    set: list[str] = option(
        [],
        "KEY=VALUE of the recipe, such as lr=1e-3 or epochs=2,2,3; repeatable; in a file, table [recipe].",
        table="recipe",
    )
    save_every: int = option(500, "Updates between checkpoints.", min=1)
    keep: int = option(2, "Checkpoints to keep.", min=1)
    log_every: int = option(10, "Updates between log lines.", min=1)
    tensorboard: bool = option(False, "Also log to RUN/tensorboard (needs batcli[tensorboard]).")
    validate: str | None = option(None, "Split to measure on, at the end of each stage [default: none].")
    validate_every: int | None = option(
        None, "Updates between measurements [default: only at the end of a stage].", min=1
    )
    validate_questions: int = option(200, "Questions to answer in a measurement, alike many of each type.", min=1)
    validate_scenes: int = option(200, "Scenes to place in a measurement of the encoder, always the same.", min=1)
    rendering: Literal["fast", "published"] | None = option(
        None, "How scenes are rendered, see `bat spatialize` [default: that of --init or the preset]."
    )
    workers: int | None = option(None, "Processes that render ahead [default: one per processor].", min=1)
    cache: Literal["auto", "disk", "none"] = option(
        "auto", "Encodings of scenes: kept on disk; none: made at each use; auto: on disk where that pays and fits."
    )
    cache_gb: float | None = option(None, "Most disk space for what is kept [default: 100].", min=0)
    precision: Literal["fp32", "bf16"] = option("fp32", "Arithmetic; bf16 is mixed precision.")
    device: Literal["auto", "cpu"] = option("auto", "auto: the launcher's choice, a GPU where there is one.")
    max_bad: int = option(0, "Scenes that may fail before the exit code is 4.", min=0)


@dataclass(kw_only=True)
class DecodeOptions(Roots, Options, LanguageModel):
    only_heard = ("audio",)
    run: Path = argument("The run directory of `bat train` or `bat prepare model`.", metavar="RUN")
    data: Path | None = argument("A dataset directory, for all questions of a split.", None, metavar="[DATA]")
    split: str = option("eval", "Which split of DATA.")
    output: Path | None = option(None, "Predictions, JSONL; - is standard output.", "-o")
    overwrite: bool = option(False, "Answer again what is answered already.")
    audio: Path | None = option(None, "One binaural WAV to ask about.")
    question: str | None = option(None, "The question about --audio.")
    encoder: bool = option(False, "Write what the encoder hears of each clip, at a fixed place, instead of answers.")
    sources: Literal["1", "2", "both"] | None = option(
        None, "With --encoder: sources in a scene, alone (as published), with another, or both [default: 1]."
    )
    true_names: bool = option(
        False, "With --encoder: tell source tokens the true events, and measure their places alone."
    )
    num_beams: int = option(1, "Beams; the published results used 4.", min=1, max=64)
    max_new_tokens: int = option(200, "Longest answer, in tokens.", min=1)
    batch_size: int = option(32, "Questions at a time.", min=1)
    limit: int | None = option(None, "Only the first N questions, or clips [default: all].", min=1)
    zero_audio: bool = option(False, "Control: the model hears nothing (its audio tokens are zero).")
    rendering: Literal["fast", "published"] | None = option(
        None, "How scenes are rendered, see `bat spatialize` [default: as those that RUN was trained on]."
    )
    workers: int | None = option(None, "Processes that render ahead [default: one per processor].", min=1)
    precision: Literal["fp32", "bf16"] = option("fp32", "Arithmetic of the model.")
    device: Literal["auto", "cpu", "cuda", "mps"] = option("auto", "Where the model runs.")
    max_bad: int = option(0, "Questions or scenes that may fail before the exit code is 4.", min=0)


@dataclass(kw_only=True)
class ScoreOptions(Options):
    predictions: list[Path] = argument("Prediction files, JSONL; - is standard input.", metavar="PREDS...")
    format: Literal["table", "json", "csv", "md"] = option("table", "Form of the scores.")
    output: Path = option(Path("-"), "Where the scores go; - is standard output.", "-o")
    against: Path | None = option(None, "Compare with these predictions, question by question.")
    baseline: list[str] = option([], "Add a column: random, majority or prior-by-wording; repeatable.")
    prior: Path | None = option(None, "Questions that the baselines count [default: the scored ones].")
    published: bool = option(False, "Add the published systems' rows.")
    embedder: str = option(
        "lexical",
        "What mAP compares texts with: lexical, sentence:DIR, openai:MODEL, labels:FILE.npy, python:MOD:FUNC.",
    )
    embedder_cache: Path | None = option(
        None, "SQLite file that keeps an endpoint's embeddings [default: in ~/.cache]."
    )
    labels: Path | None = option(None, "CSV of all label names [default: those in the true answers].")
    cluster: Literal["scene", "room", "question"] = option("scene", "What the intervals draw together.")
    replicates: int = option(1000, "Resamples for the 95 % intervals; 0: no intervals.", min=0, max=100_000)
    fail_under: list[str] = option([], "Gate: exit 3 below it, such as DOA.doa_acc=0.4 or B.doa_acc=0.4; repeatable.")
    fail_over: list[str] = option([], "Gate: exit 3 above it, such as DOA.der=0.5; repeatable.")
    junit: Path | None = option(None, "Also write the gates as JUnit XML.")
    unparsed: Path | None = option(None, "Also write the answers that could not be read, JSONL.")
    report: Path | None = option(None, "Also write this folder with index.html, one page (needs batcli[plot]).")
    data: Path | None = option(None, "Dataset directory: where its sources are, for --report, and its labels.")
    scenes: Path | None = option(None, "Folder of `bat spatialize`, for --report to link to.")
    questions: Path | None = option(None, "The whole test set: what was not answered counts as wrong.")
    field: list[str] = option([], "Other systems' files: our field=theirs, such as prediction=response; repeatable.")
    type: str = option("", "Question type of all records, where the file does not say.")


def require(options: Any, name: str) -> Any:
    """The value of an option. Raises InputError if it was not given."""
    value = getattr(options, name)
    if value is None:
        hint = type(options).__dataclass_fields__[name].metadata["help"]
        raise InputError("missing", f"--{name.replace('_', '-')}", hint)
    return value


def refuse_given(options: Any, names: Sequence[str], why: str) -> None:
    """Raises InputError, which says `why`, for the first of these options that does not have its default."""
    defaults = {field.name: field for field in fields(options)}
    for name in names:
        field = defaults[name]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if getattr(options, name) != default:
            raise InputError(why, f"--{name.replace('_', '-')}", "leave it out")
