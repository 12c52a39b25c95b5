"""Sizes of the model's parts and the presets: everything needed to build a model with random weights."""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar

from batcli.core.errors import InputError
from batcli.core.toml import refuse_unknown
from batcli.data.constants import FAST, HOP, MAX_SECONDS, PUBLISHED, SAMPLE_RATE, SCENE_SECONDS

PATCH = 16  # frames and mel bands under one patch
FRAME_MULTIPLE = 2 * PATCH  # frames are interpolated to a multiple of this: 1,001 of 10 s to the published 1,024
MAX_SIZE = 1 << 20  # of any size; a vocabulary is the largest
MAX_LAYERS = 1_000

T = TypeVar("T")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise InputError(message, "model configuration")


def _require_sizes(config: Any, *may_be_zero: str) -> None:
    """Raise InputError for a size out of range: a model of a file's sizes is built before its weights are checked."""
    for name, value in vars(config).items():
        if isinstance(value, int) and not isinstance(value, bool):
            _require(value > 0 or name in may_be_zero, f"{name} must be positive")
            limit = MAX_LAYERS if name in ("depth", "layers") else MAX_SIZE
            _require(value <= limit, f"{name} is {value:.3g}, more than {limit:,}")
        elif name == "mlp_ratio":
            _require(0 < value <= 64, "mlp_ratio lies in (0, 64]")
        elif name == "dropout":
            _require(0 <= value < 1, "dropout lies in [0, 1)")


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of Spatial-AST, and the masking of its training. The defaults are the published values."""

    seconds: float = SCENE_SECONDS
    n_classes: int = 355
    n_mels: int = 128
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    drop_path: float = 0.1  # probability of skipping the last block; grows linearly from 0 at the first
    patch_mask: float = 0.25  # share of the grid's rows (times), then of its columns, that training drops
    frame_mask: int = 192  # most adjacent frames that training sets to zero after the stem
    band_mask: int = 48  # most adjacent mel bands that training sets to zero after the stem

    def __post_init__(self) -> None:
        _require_sizes(self, "frame_mask", "band_mask")
        _require(0 < self.seconds <= MAX_SECONDS, f"seconds must be positive, and at most {MAX_SECONDS:g}")
        _require(self.n_mels % PATCH == 0, f"n_mels must be a multiple of {PATCH}")
        _require(self.dim % self.heads == 0 and self.dim % 4 == 0, "dim must be a multiple of 4 and of heads")
        _require(0 <= self.patch_mask < 1 and 0 <= self.drop_path < 1, "patch_mask and drop_path lie in [0, 1)")

    @property
    def samples(self) -> int:
        return round(self.seconds * SAMPLE_RATE)

    @property
    def frames(self) -> int:
        """STFT frames after interpolation to whole patches."""
        return math.ceil((1 + self.samples // HOP) / FRAME_MULTIPLE) * FRAME_MULTIPLE

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along time and along frequency."""
        return self.frames // PATCH, self.n_mels // PATCH


@dataclass(frozen=True)
class DspastConfig(EncoderConfig):
    """Sizes of DSpAST, and the masking of its training. The defaults are the published values."""

    branch_dim: int = 256  # width of each of the three branches' tokens, which are joined
    summary_tokens: bool = True  # whether the Q-Former gets the three summary tokens, too, or the patches' alone


@dataclass(frozen=True)
class SourcesConfig:
    """Sizes of `SourceTokens`."""

    tokens: int = 3  # per scene, at most: one for each of the likeliest events, or for each source among these
    bands: int = 48
    block: int = 2  # STFT frames of 10 ms over which cues are averaged
    averages: int = 2  # of the cues of each event, with weights of their own
    hidden: int = 128
    event_dim: int = 64
    seconds: float = 10.0
    n_classes: int = 355
    grouped: bool = False  # whether events at one place are one source with one token, which names them all

    def __post_init__(self) -> None:
        _require_sizes(self)
        _require(self.tokens <= self.n_classes, f"{self.tokens} source tokens are more than {self.n_classes} classes")
        _require(0 < self.seconds <= MAX_SECONDS, f"seconds must be positive, and at most {MAX_SECONDS:g}")


@dataclass(frozen=True)
class QFormerConfig:
    """Sizes of BLIP-2's Q-Former. The defaults are the published values.

    `reads_question`: the queries attend to the question, too, as InstructBLIP's do, and to the tokens of every
    encoder (`QuestionProjector`). Otherwise they attend to the tokens of Spatial-AST or DSpAST alone, and source tokens
    are appended to their outputs (`Projector`).
    """

    layers: int = 8
    queries: int = 64
    dim: int = 768
    heads: int = 12
    mlp_ratio: float = 4.0
    cross_attention_frequency: int = 2  # every second layer attends to the encoder
    dropout: float = 0.1
    reads_question: bool = False

    def __post_init__(self) -> None:
        _require_sizes(self)
        _require(self.dim % self.heads == 0 and self.dim % 2 == 0, "dim must be even and a multiple of heads")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters of a frozen language model. The defaults are the published values."""

    r: int = 8
    alpha: int = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = ("q_proj", "v_proj")

    def __post_init__(self) -> None:
        _require_sizes(self)
        _require(len(self.targets) > 0, "targets must name a module")


@dataclass(frozen=True)
class LlmConfig:
    """Sizes of a Llama that is trained from random weights; its vocabulary comes from its tokenizer."""

    dim: int = 192
    mlp_dim: int = 512
    layers: int = 4
    heads: int = 4
    positions: int = 512
    vocabulary: int = 4096  # most tokens that its tokenizer may have

    def __post_init__(self) -> None:
        _require_sizes(self)
        _require(self.dim % (2 * self.heads) == 0, "dim must be an even multiple of heads")


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of all parts of a `BAT`. The fields in `ENCODERS` are encoders; one that is None is not in the model."""

    encoder: EncoderConfig | None = field(default_factory=EncoderConfig)  # Spatial-AST
    qformer: QFormerConfig = field(default_factory=QFormerConfig)
    lora: LoraConfig | None = field(default_factory=LoraConfig)  # None: train the whole language model
    llm: LlmConfig | None = None  # None: take the language model from a Hugging Face directory
    sources: SourcesConfig | None = None
    dspast: DspastConfig | None = None

    def __post_init__(self) -> None:
        _require(self.encoder is None or self.dspast is None, "it has both Spatial-AST and DSpAST")
        formats = {(part.seconds, part.n_classes) for part in self.encoders.values()}
        _require(len(formats) > 0, "it has no encoder")
        _require(len(formats) == 1, "encoders differ in seconds or n_classes")
        _require(
            self.published_encoder is not None or self.qformer.reads_question,
            "this Q-Former needs the tokens of Spatial-AST or DSpAST",
        )

    @property
    def encoders(self) -> dict[str, Any]:
        """The configured encoders by name."""
        parts = {name: getattr(self, name) for name in ENCODERS}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def published_encoder(self) -> str | None:
        """Name of the one of `PUBLISHED_ENCODERS` that is in the model."""
        return next((name for name in PUBLISHED_ENCODERS if name in self.encoders), None)

    @property
    def seconds(self) -> float:
        """Length of a scene in seconds."""
        return next(iter(self.encoders.values())).seconds

    @property
    def n_classes(self) -> int:
        return next(iter(self.encoders.values())).n_classes

    @property
    def usual_rendering(self) -> str:
        """How scenes are rendered for it unless a run says otherwise: PUBLISHED or FAST (`data.constants`)."""
        return PUBLISHED if self.llm is None else FAST

    def for_scenes(self, seconds: float, n_classes: int) -> ModelConfig:
        """Copy with another scene length and number of classes in every encoder; no more source tokens than classes."""
        sizes: dict[str, dict[str, Any]] = {name: {} for name in self.encoders}
        if self.sources is not None:
            sizes["sources"]["tokens"] = min(self.sources.tokens, n_classes)
        parts = {
            name: replace(part, seconds=seconds, n_classes=n_classes, **sizes[name])
            for name, part in self.encoders.items()
        }
        return replace(self, **parts)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Part → its values, without parts that are None; `from_dict` reads it back."""
        return {name: part for name, part in asdict(self).items() if part is not None}

    @staticmethod
    def from_dict(content: Mapping[str, Any], where: str | Path = "model") -> ModelConfig:
        """Build a config from tables; parts without a table are None, and the Q-Former has its defaults.

        Raises InputError, naming `where`, for an unknown key, a wrong type or a size out of range.
        """
        absent = dict.fromkeys((*ENCODERS, "lora", "llm"))
        return _from_dict(ModelConfig, {**absent, **content}, str(where))


ENCODERS = ("encoder", "dspast", "sources")
"""Fields of `ModelConfig` that are encoders; `bat.ENCODER_CLASSES` holds the class of each."""

PUBLISHED_ENCODERS = ("encoder", "dspast")
"""The encoders that others have published; a model has at most one of them."""

ENCODER_TITLES = {"encoder": "Spatial-AST", "dspast": "DSpAST", "sources": "source tokens"}
"""Field of `ModelConfig` → the encoder's name in messages."""


def _from_dict(schema: type[T], content: Any, where: str) -> T:
    if not isinstance(content, Mapping):
        raise InputError("not a table", where)
    refuse_unknown(list(content), [f.name for f in fields(schema)], where)  # type: ignore[arg-type]
    hints = typing.get_type_hints(schema)
    return schema(**{name: _checked(hints[name], value, f"{where}.{name}") for name, value in content.items()})


def _checked(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` of a field; raises InputError if it is of another type."""
    if typing.get_origin(hint) in (UnionType, typing.Union):
        if value is None:
            return None
        hint = typing.get_args(hint)[0]
    if is_dataclass(hint):
        return _from_dict(hint, value, where)  # type: ignore[arg-type]
    if hint is bool:
        if isinstance(value, bool):
            return value
    elif hint == tuple[str, ...]:
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            return tuple(value)
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return hint(value)
    elif hint is float and isinstance(value, float) and math.isfinite(value) and value >= 0:
        return value
    raise InputError(f"{value!r:.40} is no value for this", where)


SOURCES_BESIDE = SourcesConfig(tokens=8, grouped=True)
"""Sizes of source tokens beside a published encoder, whose labels overlap: a clip may be vehicle, car and engine."""

PRESETS = {
    "llama2-7b": ModelConfig(),
    "llama2-7b-dspast": ModelConfig(encoder=None, dspast=DspastConfig()),
    "tiny": ModelConfig(
        None,
        QFormerConfig(
            layers=2, queries=8, dim=128, heads=4, cross_attention_frequency=1, dropout=0.0, reads_question=True
        ),
        lora=None,
        llm=LlmConfig(dim=128, mlp_dim=256, layers=3),
        sources=SourcesConfig(seconds=2.0, n_classes=20),
    ),
}
