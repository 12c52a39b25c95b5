"""The package from Python: ask a model, make a room, render a scene, score answers.

Sound is a file (a path as `str` or `Path`) or an array with its rate. Binaural arrays are (n, 2) or (2, n), left ear
first, mono arrays are (n,); integers are scaled to −1…1 by their type, floats are taken as they are.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from batcli.audio import convolve
from batcli.audio.hrtf import load_hrtf
from batcli.audio.io import MAX_RATE, MIN_RATE, read_binaural, read_brir, read_clip, resample, silent_ear
from batcli.audio.render import RenderSettings
from batcli.audio.rooms import ListenerPose, room_with_rt60, simulate
from batcli.core.errors import InputError
from batcli.core.jsonl import write_records
from batcli.data.constants import RMS_DBFS, SAMPLE_RATE
from batcli.data.geometry import Position, Vector, offset
from batcli.options import DecodeOptions, ScoreOptions

if TYPE_CHECKING:
    from batcli.model.answering import LoadedModel

Samples = NDArray[Any]
Audio = str | Path | Samples
ABSORPTION = 0.1  # of every surface and band, before it is scaled to the RT60
EAR_HEIGHT = 1.5  # m above the floor, or the middle of a low room


# ---- a model -------------------------------------------------------------------------------------


class Bat:
    """A trained model that answers questions about binaural sound. Made by `load`."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._loaded = loaded

    @property
    def seconds(self) -> float:
        """Length of what the model hears; of longer sound it hears the beginning."""
        return self._loaded.seconds

    # A text is a sequence of texts, too, so the overloads overlap: the first that fits counts.
    @overload
    def ask(self, audio: Audio, question: str, *, rate: int | None = None) -> str: ...  # type: ignore[overload-overlap]
    @overload
    def ask(self, audio: Audio, question: Sequence[str], *, rate: int | None = None) -> list[str]: ...  # type: ignore[overload-overlap]
    @overload
    def ask(self, audio: Sequence[Audio], question: str, *, rate: int | None = None) -> list[str]: ...  # type: ignore[overload-overlap]
    @overload
    def ask(self, audio: Sequence[Audio], question: Sequence[str], *, rate: int | None = None) -> list[list[str]]: ...
    def ask(
        self, audio: Audio | Sequence[Audio], question: str | Sequence[str], *, rate: int | None = None
    ) -> str | list[str] | list[list[str]]:
        """Answer a question, or each of a list, about a recording, or about each of a list.

        audio: a file, or an array (n, 2) or (2, n) at `rate` Hz. Of a list of recordings the result has one answer
        each, or one list of answers each. Raises InputError for sound that is mono, silent, broken or of unknown rate.

        >>> bat.ask("scene.wav", "Where is the dog?")                                  # doctest: +SKIP
        'left, front, above; 1.5m'
        """
        if isinstance(audio, (str, Path, np.ndarray)):
            return self._ask_one(audio, question, rate)
        return [self._ask_one(each, question, rate) for each in audio]  # type: ignore[return-value]

    def _ask_one(self, audio: Audio, question: str | Sequence[str], rate: int | None) -> str | list[str]:
        from batcli.model.answering import answer, encode_audio

        questions = [question] if isinstance(question, str) else list(question)
        for each in questions:
            if not isinstance(each, str) or not each.strip():
                raise InputError(f"not a question: {each!r:.60}", "question", "give text")
        resampler = RenderSettings(rendering=self._loaded.rendering).resampler
        sound = binaural(audio, rate, resampler)
        if not questions:
            return []
        answers = answer(self._loaded, questions, encode_audio(self._loaded, sound))
        return answers[0] if isinstance(question, str) else answers


def load(
    run: str | Path,
    *,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    num_beams: int = 1,
    llm: str | Path | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Bat:
    """Load the model of a finished run of `bat train` or `bat prepare model`.

    num_beams: 1 is greedy; the published results used 4. llm: the language model's directory, where it is not the one
    that the run names. Raises InputError for a directory that holds no finished run.
    """
    from batcli.decode import load_model

    llm = None if llm is None else Path(llm)
    options = DecodeOptions(run=Path(run), device=device, num_beams=num_beams, llm=llm, precision=precision)
    return Bat(load_model(options))


def binaural(audio: Audio, rate: int | None = None, resampler: str = "soxr") -> NDArray[np.float32]:
    """Sound at two ears as float32 (2, n) at 32 kHz, left first. Raises InputError as `Bat.ask` does."""
    if not isinstance(audio, np.ndarray):
        _refuse_rate(audio, rate)
        return read_binaural(Path(audio), SAMPLE_RATE, resampler)
    if audio.ndim == 1:
        raise InputError(f"mono, of {len(audio):,} samples", "audio", "give both ears, as (n, 2) or (2, n)")
    if audio.ndim != 2 or 2 not in audio.shape:
        raise InputError(f"an array of shape {audio.shape}", "audio", "binaural sound is (n, 2) or (2, n)")
    if audio.shape == (2, 2):
        raise InputError("an array of shape (2, 2) may be read either way", "audio", "give more than two samples")
    ears = audio if audio.shape[0] == 2 else audio.T
    found = resample(_floats(ears, "audio"), _known(rate, "audio"), SAMPLE_RATE, resampler)
    if not found.any():
        raise InputError("is silent", "audio")
    if ear := silent_ear(found):
        raise InputError(f"the {ear} channel is silent, which no ear is", "audio", "give both ears")
    return found


def _floats(samples: Samples, where: str) -> NDArray[np.float32]:
    """Samples as float32, integers scaled by their type. Raises InputError for others, and for NaN or infinity."""
    if samples.dtype.kind == "i":
        return np.ascontiguousarray(samples / -float(np.iinfo(samples.dtype).min), dtype=np.float32)
    if samples.dtype.kind != "f":
        raise InputError(f"samples of type {samples.dtype}", where, "give floats or signed integers")
    if samples.size == 0 or not np.isfinite(samples).all():
        raise InputError("no samples" if samples.size == 0 else "holds NaN or infinite samples", where)
    return np.ascontiguousarray(samples, dtype=np.float32)


def _known(rate: int | None, where: str) -> int:
    if rate is None:
        raise InputError("an array without a rate", where, "give its samples per second, such as rate=48_000")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"a rate of {rate:,} Hz", where, f"from {MIN_RATE:,} to {MAX_RATE:,}")
    return rate


def _refuse_rate(audio: str | Path, rate: int | None) -> None:
    if rate is not None:
        raise InputError("a file says its own rate", str(audio), "leave `rate` out")


# ---- rooms and scenes ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Room:
    """A simulated shoebox room with a listener.

    width, length, height: metres. rt60: reverberation time in seconds. listener: of the head's centre, metres from the
    left wall, from the floor, and from the wall in front [default: the middle of the room, ears at 1.5 m]. head:
    kemar, sphere, or a SOFA file. seed: of the diffuse tail.
    """

    width: float
    length: float
    height: float
    rt60: float = 0.4
    listener: Vector | None = None
    head: str | Path = "kemar"
    seed: int = 0

    def brir(self, source: tuple[float, float, float]) -> NDArray[np.float32]:
        """The binaural room impulse response (2, T) at 32 kHz of a source, left ear first.

        source: azimuth (degrees: 0 right, 90 front, 180 left, 270 behind), elevation (degrees, up is positive) and
        distance (metres). Raises InputError for a source outside the room or in the head, and for an RT60 that the
        room cannot have.
        """
        size = (self.width, self.height, self.length)
        middle = (self.width / 2, min(EAR_HEIGHT, self.height / 2), self.length / 2)
        pose = ListenerPose(self.listener or middle)
        room = room_with_rt60(size, np.full((6, 7), ABSORPTION), self.rt60)
        place = Position(*map(float, source))
        rng = np.random.default_rng(self.seed)
        return simulate(room, pose, [offset(place)], load_hrtf(str(self.head)), rng)[0].samples


def render(
    clip: Audio | Sequence[Audio],
    brir: Audio | Sequence[Audio],
    *,
    rate: int | None = None,
    seconds: float | None = None,
    rms_dbfs: float = RMS_DBFS,
) -> NDArray[np.float32]:
    """Render a scene: each clip brought to `rms_dbfs` and convolved with its BRIR; the mean of two or more.

    clip: a file, of which the first channel is taken, or an array (n,) at `rate` Hz; or a list of them. brir: a .npy
    file or an array (2, T) at 32 kHz; or a list of as many. seconds: length of the scene [default: until the longest
    clip and its reverberation end]. Returns float32 (2, samples) at 32 kHz, left ear first. Raises InputError for
    sound or responses that cannot be used.
    """
    clips, brirs = _listed(clip), _listed(brir)
    if len(clips) != len(brirs) or not clips:
        raise InputError(f"{len(clips)} clips and {len(brirs)} BRIRs", "render", "give a BRIR for each clip")
    mono = [_mono(each, rate) for each in clips]
    responses = [_response(each) for each in brirs]
    longest = max(len(samples) + response.shape[1] - 1 for samples, response in zip(mono, responses, strict=True))
    length = longest if seconds is None else round(seconds * SAMPLE_RATE)
    if length < 1:
        raise InputError(f"a scene of {seconds} s", "seconds", "give a length over 0")
    pairs = [(samples, convolve.prepare(response, length)) for samples, response in zip(mono, responses, strict=True)]
    return convolve.render(pairs, length, rms_dbfs)


def _listed(items: Audio | Sequence[Audio]) -> list[Audio]:
    return [items] if isinstance(items, (str, Path, np.ndarray)) else list(items)


def _mono(clip: Audio, rate: int | None) -> NDArray[np.float32]:
    if not isinstance(clip, np.ndarray):
        _refuse_rate(clip, rate)
        return read_clip(Path(clip))
    if clip.ndim != 1:
        raise InputError(f"a clip of shape {clip.shape}", "clip", "a clip is mono, (n,): give one channel")
    return resample(_floats(clip, "clip"), _known(rate, "clip"), SAMPLE_RATE)


def _response(brir: Audio) -> NDArray[np.float32]:
    if not isinstance(brir, np.ndarray):
        return read_brir(Path(brir))
    if brir.ndim != 2 or brir.shape[0] != 2 or brir.shape[1] < 1:
        raise InputError(f"a BRIR of shape {brir.shape}", "brir", "a BRIR is (2, T), left ear first, at 32 kHz")
    found = _floats(brir, "brir")
    if not found.any(1).all():
        raise InputError("silent at an ear", "brir")
    return found


# ---- scores --------------------------------------------------------------------------------------


def evaluate(predictions: str | Path | Sequence[Mapping[str, Any]], **options: Any) -> dict[str, Any]:
    """Score answers → the content of `bat score --format json`: `by_type`, `by_family`, `paper_table`, `settings`.

    predictions: a JSONL file of `bat decode`, or its records: `question_type`, `question`, `answer` (the true one),
    `prediction`, and what else they have. options: those of `bat score` by name, such as `replicates=0` (no intervals)
    or `baseline=["random"]`. Raises InputError for records that are no predictions and for unknown options.
    """
    from batcli.evaluation.report import to_json
    from batcli.score import score

    known = {field.name for field in fields(ScoreOptions)} - {"predictions"}
    if unknown := sorted(set(options) - known):
        raise InputError(f"unknown option {unknown[0]!r:.60}", "evaluate", "see `bat score --help`")
    if isinstance(predictions, (str, Path)):
        return json.loads(to_json(score(ScoreOptions(predictions=[Path(predictions)], **options))))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "predictions.jsonl"
        write_records(file, (dict(record) for record in predictions))
        return json.loads(to_json(score(ScoreOptions(predictions=[file], **options))))
