"""BAT: the encoder, the projector and the language model as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Cache, GenerationConfig, PreTrainedModel

from batcli.core.errors import InputError
from batcli.model.config import ModelConfig, SourcesConfig
from batcli.model.encoders.dspast import DSpAST
from batcli.model.encoders.sources import SourceTokens
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.model.encoders.token_kind import TokenKind
from batcli.model.encoders.transformer import PatchTransformer
from batcli.model.features import spectrum
from batcli.model.heard import Heard
from batcli.model.llm import add_lora, attention_window, cache_name, quiet_transformers
from batcli.model.qformer import NO_TOKEN, Projector, QuestionProjector
from batcli.model.tokens import IGNORED, TextBatch


class Encoder(Protocol):
    """A module that turns a binaural waveform into tokens."""

    names: int  # most events that a token names (see `TokenKind`); 0: none
    dim: int  # width of a token without the names
    count: int  # tokens per scene

    def tokenize(self, waveform: Tensor, stft: Tensor) -> Tensor:
        """Waveform (B, 2, samples) and its STFT (B, 2, bins, T) → (B, count, width of `TokenKind(dim, names)`)."""

    def hear(self, waveform: Tensor, stft: Tensor, events: Tensor | None = None) -> Heard:
        """Predict the events and places of scenes; arguments as of `tokenize`.

        `events` (B, P): if the encoder's tokens have names, locate these instead of the likeliest ones.
        """


ENCODER_CLASSES: dict[str, Callable[[Any], nn.Module]] = {
    "encoder": SpatialAST,
    "dspast": DSpAST,
    "sources": SourceTokens,
}
"""Name of a `ModelConfig` field and `BAT` attribute → the class of that `Encoder`."""


class Encoders(nn.ModuleDict):
    """The encoders of a model without its other parts, by name, with the parameter names that they have in `BAT`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__({name: ENCODER_CLASSES[name](part) for name, part in config.encoders.items()})
        self.config = config

    @property
    def encoders(self) -> dict[str, Any]:
        """The encoders by name, as in `BAT`."""
        return dict(self.items())

    def save_memory(self) -> None:
        """Turn on gradient checkpointing, as in `BAT`."""
        if (name := self.config.published_encoder) is not None:
            self.encoders[name].checkpointing = True


def hear(encoders: nn.ModuleDict, waveform: Tensor, events: Tensor | None = None) -> dict[str, Heard]:
    """The predictions of each encoder for scenes (B, 2, samples) at 32 kHz. `events`: see `Encoder.hear`.

    Source tokens beside an encoder are of the events that its head finds likeliest, as in `encode_waveforms`.
    """
    stft, found = spectrum(waveform), dict[str, Heard]()
    parts: dict[str, Any] = dict(encoders.items())
    for name, part in parts.items():
        if isinstance(part, SourceTokens):
            scores = next((heard.scores for heard in found.values()), None)
            found[name] = part.hear(waveform, stft, events, scores)
        else:
            found[name] = part.hear(waveform, stft)
    return found


class Encoding(dict[str, Tensor]):
    """Tokens (B, T, D) of a batch of scenes by encoder name: computed once, used for every question about them."""

    @staticmethod
    def concat(encodings: Sequence[Encoding]) -> Encoding:
        """Join batches along the batch dimension."""
        return Encoding({name: torch.cat([each[name] for each in encodings]) for name in encodings[0]})

    @property
    def batch_size(self) -> int:
        return len(next(iter(self.values())))

    def to(self, device: str | torch.device) -> Encoding:
        return Encoding({name: tokens.to(device) for name, tokens in self.items()})

    def select(self, rows: slice | list[int]) -> Encoding:
        """Copy some scenes of the batch, so that the memory of the others can be freed."""
        return Encoding({name: tokens[rows].clone() for name, tokens in self.items()})


class BAT(nn.Module):
    """Encoders, projector and language model.

    `llm` is any causal language model of transformers; if `config.lora` is set, it is frozen and gets LoRA.
    """

    encoder: SpatialAST | None
    dspast: DSpAST | None
    sources: SourceTokens | None
    projector: Projector | QuestionProjector

    def __init__(self, config: ModelConfig, llm: PreTrainedModel) -> None:
        super().__init__()
        self.config = config
        embedding: Any = llm.get_input_embeddings()
        self.llm_dim: int = embedding.embedding_dim
        for name, build in ENCODER_CLASSES.items():
            part = getattr(config, name)
            setattr(self, name, None if part is None else build(part))
        self.projector = self._new_projector()
        self.llm: Any = add_lora(llm, config.lora) if config.lora else llm
        # The directory's own defaults (temperature, repetition penalty) are for chat.
        self.language.generation_config = GenerationConfig(do_sample=False)

    def _new_projector(self) -> Projector | QuestionProjector:
        config, kinds, pretrained = self.config, self.token_kinds, self.config.llm is None
        if config.qformer.reads_question:
            return QuestionProjector(config.qformer, kinds, self.llm_dim, config.n_classes, pretrained)
        assert config.published_encoder is not None
        dim = kinds[config.published_encoder].dim
        return Projector(config.qformer, dim, self.llm_dim, kinds.get("sources"), config.n_classes, pretrained)

    def add_sources(self, config: SourcesConfig) -> None:
        """Add untrained source tokens beside the encoder, and their untrained part of the projector."""
        self.config = replace(self.config, sources=config)
        self.sources = SourceTokens(config)
        before, self.projector = self.projector.state_dict(), self._new_projector()
        self.projector.load_state_dict(before, strict=False)  # all but what is new

    @property
    def language(self) -> Any:
        """The language model without PEFT's shell, which passes deprecated names and refuses some models.

        LoRA is in its layers.
        """
        return self.llm.get_base_model() if self.config.lora else self.llm

    @property
    def audio_tokens(self) -> int:
        """The number of audio tokens."""
        beside = self.sources is not None and not self.config.qformer.reads_question
        return self.config.qformer.queries + (self.sources.count if beside and self.sources is not None else 0)

    def require_window(self, tokens: int, where: str, hint: str) -> None:
        """Raise InputError if audio and a text of `tokens` are longer than the language model attends.

        Padding lies within the text, so what a token attends to would depend on the batch.
        """
        window, needed = attention_window(self.language), self.audio_tokens + tokens
        if window is not None and needed > window:
            what = f"{needed:,} tokens, but the language model attends to {window:,} only (sliding window)"
            raise InputError(what, where, hint)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders of this model by name."""
        return {name: getattr(self, name) for name in self.config.encoders}

    @property
    def published_encoder(self) -> PatchTransformer | None:
        """Spatial-AST or DSpAST, whichever the model has."""
        name = self.config.published_encoder
        return None if name is None else getattr(self, name)

    @property
    def token_kinds(self) -> dict[str, TokenKind]:
        """Format of each encoder's tokens."""
        return {name: TokenKind(part.dim, part.names) for name, part in self.encoders.items()}

    @property
    def encoding_bytes(self) -> int:
        """Size of the encoding of one scene in float32."""
        return 4 * sum(self.encoders[name].count * kind.width for name, kind in self.token_kinds.items())

    def save_memory(self) -> None:
        """Turn on gradient checkpointing: training keeps fewer activations and computes them again."""
        if self.published_encoder is not None:
            self.published_encoder.checkpointing = True
        quiet_transformers()
        for part in (self.projector.qformer, self.language):
            # The new name is not in every transformers 5.
            enable = getattr(part, "activation_checkpointing_enable", None) or part.gradient_checkpointing_enable
            enable({"use_reentrant": False})

    def encode(self, waveform: Tensor) -> Encoding:
        """Waveform (B, 2, samples) at 32 kHz, left ear first → its tokens by encoder."""
        return encode_waveforms(self.encoders, waveform)

    def audio_embeddings(self, encoding: Encoding, prompts: TextBatch | None = None) -> Tensor:
        """Compute the language model's audio tokens (B, queries [+ K], llm dim).

        `prompts` (of which answers are ignored) are needed if the Q-Former reads the question.
        """
        embedding = self.llm.get_input_embeddings()
        if isinstance(self.projector, Projector):
            assert self.config.published_encoder is not None
            return self.projector(encoding[self.config.published_encoder], encoding.get("sources"), embedding)
        assert prompts is not None, "this Q-Former reads the question"
        columns = prompts.prompt_length
        return self.projector(encoding, prompts.ids[:, :columns], prompts.mask[:, :columns], embedding)

    def forward(self, encoding: Encoding, batch: TextBatch) -> Tensor:
        """Run teacher forcing over [audio, padding, prompt, answer, end, padding].

        Returns the logits (B, A, vocabulary) that predict the columns of `batch.labels`.
        """
        inputs, mask = self._inputs(self.audio_embeddings(encoding, batch), batch, encoding)
        return self.language(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp_min(0),
            logits_to_keep=batch.labels.shape[1] + 1,
            use_cache=False,
        ).logits[:, :-1]

    @torch.no_grad()
    def generate(
        self,
        encoding: Encoding,
        prompts: TextBatch,
        pad: int,
        end: int,
        num_beams: int = 1,
        max_new_tokens: int = 200,
        zero_audio: bool = False,
    ) -> Tensor:
        """Decode answers greedily or by beam search → token ids (B, N ≤ max_new_tokens), `pad` after `end`.

        `zero_audio` replaces the audio tokens by zeros.
        """
        audio = self.audio_embeddings(encoding, prompts)
        if zero_audio:
            audio, encoding = torch.zeros_like(audio), Encoding()
        inputs, mask = self._inputs(audio, prompts, encoding)
        prefilled = {cache_name(self.language): self._prefill(inputs, mask, num_beams)} if num_beams > 1 else {}
        return self.language.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            **prefilled,
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=num_beams,
                max_new_tokens=max_new_tokens,
                pad_token_id=pad,
                eos_token_id=end,
            ),
        )

    def _prefill(self, inputs: Tensor, mask: Tensor, num_beams: int) -> Cache:
        """Compute keys and values of all inputs but the last once, and repeat them for each beam."""
        output = self.language(
            inputs_embeds=inputs[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=(mask[:, :-1].cumsum(1) - 1).clamp_min(0),
            logits_to_keep=1,
            use_cache=True,
        )
        cache = getattr(output, cache_name(self.language))
        cache.batch_repeat_interleave(num_beams)
        return cache

    def _inputs(self, audio: Tensor, batch: TextBatch, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """Embed the text after the audio tokens → inputs (B, audio + L, llm dim) and mask (B, audio + L).

        The prompt's words carry the places of the events that they name, from the named tokens of `encoding`.
        """
        text = self.llm.get_input_embeddings()(batch.ids)
        # Not in the answers: a decoded answer is read back token by token, without places.
        answers = F.pad(batch.labels != IGNORED, (batch.prompt_length, 0))
        prompts = batch.ids.masked_fill(answers, NO_TOKEN)
        for name, tokens in encoding.items():
            if self.encoders[name].names:
                text = self.projector.mention(prompts, text, tokens, name)
        audio_mask = torch.ones(audio.shape[:2], dtype=batch.mask.dtype, device=batch.mask.device)
        return torch.cat([audio.to(text.dtype), text], dim=1), torch.cat([audio_mask, batch.mask], dim=1)


def encode_waveforms(encoders: Mapping[str, Encoder], waveform: Tensor) -> Encoding:
    """Waveform (B, 2, samples) at 32 kHz, left ear first → its tokens by encoder.

    Source tokens beside an encoder are of the events that its head finds likeliest.
    """
    stft, encoding, scores = spectrum(waveform), Encoding(), None
    for name, part in encoders.items():
        if isinstance(part, SourceTokens):
            encoding[name] = part.tokenize(waveform, stft, scores)
        elif isinstance(part, PatchTransformer):
            tokens = part(waveform, stft)
            scores = part.heads(tokens).events
            encoding[name] = part.kept(tokens)
        else:
            encoding[name] = part.tokenize(waveform, stft)
    return encoding


def encode_fixed_batch(
    encode: Callable[[Tensor], Encoding], waveforms: Sequence[Tensor], count: int, device: str | torch.device
) -> Encoding:
    """Encode up to `count` scenes (2, samples) as a batch of exactly `count`, padded with copies.

    The last bit of an encoding depends on the batch size; so it does not depend on which other scenes
    could be rendered, or were encoded before a run was stopped.
    """
    padded = [*waveforms, *[waveforms[0]] * (count - len(waveforms))]
    return Encoding({name: tokens[: len(waveforms)] for name, tokens in encode(torch.stack(padded).to(device)).items()})
