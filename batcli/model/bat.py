"""BAT: the encoder, the projector and the language model as one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    Cache,
    GenerationConfig,
    PreTrainedModel,
)

from batcli.model.config import ModelConfig
from batcli.model.encoders.sources import SourceTokens
from batcli.model.encoders.spatial_ast import SpatialAST
from batcli.model.features import spectrum
from batcli.model.llm import add_lora, quiet
from batcli.model.qformer import NO_TOKEN, Projector, QuestionProjector, TokenKind
from batcli.model.tokens import IGNORED, Tokens


class Encoder(Protocol):
    """A module that makes tokens from a binaural waveform.

    `named` tokens have the number of the event that they are of as their first entry.
    """

    named: bool

    @property
    def dim(self) -> int:
        """Width of a token, its event's number aside."""

    @property
    def count(self) -> int:
        """Tokens of a scene."""

    def tokenize(self, waveform: Tensor, stft: Tensor) -> Tensor:
        """Waveform (B, 2, samples) and its spectrum (B, 2, bins, T) → (B, count, dim), or 1 + dim if `named`."""


ENCODERS: dict[str, Callable[[Any], nn.Module]] = {"encoder": SpatialAST, "sources": SourceTokens}
"""Field of `ModelConfig` → the `Encoder` that it configures, under the same name in `BAT`."""


class Encoding(dict[str, Tensor]):
    """Tokens (B, T, D) of a batch of scenes by encoder: computed once, then used for all questions about them."""

    @property
    def batch(self) -> int:
        return len(next(iter(self.values())))

    def to(self, device: str | torch.device) -> Encoding:
        return Encoding({name: part.to(device) for name, part in self.items()})

    def rows(self, which: slice | list[int]) -> Encoding:
        """Some scenes of the batch; nothing else is kept in memory."""
        return Encoding({name: part[which].clone() for name, part in self.items()})


def stack(encodings: Sequence[Encoding]) -> Encoding:
    """Batches of scenes as one."""
    return Encoding({name: torch.cat([encoding[name] for encoding in encodings]) for name in encodings[0]})


class BAT(nn.Module):
    """`llm`: any causal language model of transformers; it gets LoRA (and is frozen) if `config` says so."""

    encoder: SpatialAST | None
    sources: SourceTokens | None
    projector: Projector | QuestionProjector

    def __init__(self, config: ModelConfig, llm: PreTrainedModel) -> None:
        super().__init__()
        self.config = config
        words: Any = llm.get_input_embeddings()
        for name in ENCODERS:
            part = getattr(config, name)
            setattr(self, name, None if part is None else ENCODERS[name](part))
        self.projector = self._new_projector(words.embedding_dim)
        self.llm: Any = add_lora(llm, config.lora) if config.lora else llm
        # The directory's own defaults (temperature, repetition penalty) are for chat.
        self.llm.generation_config = GenerationConfig(do_sample=False)

    def _new_projector(self, llm_dim: int) -> Projector | QuestionProjector:
        config = self.config
        if config.qformer.reads_question:
            kinds = {name: TokenKind(part.dim, part.named) for name, part in self.encoders.items()}
            return QuestionProjector(config.qformer, kinds, llm_dim, config.n_classes)
        assert self.encoder is not None
        source_dim = self.sources.dim if self.sources is not None else 0
        return Projector(config.qformer, self.encoder.dim, llm_dim, source_dim, config.n_classes)

    @property
    def encoders(self) -> dict[str, Encoder]:
        """The encoders that there are, by name."""
        return {name: getattr(self, name) for name in self.config.encoders}

    @property
    def encoding_bytes(self) -> int:
        """Of one scene's encoding."""
        return 4 * sum(part.count * (part.named + part.dim) for part in self.encoders.values())

    def save_memory(self) -> None:
        """Keep fewer activations in training, and compute them again for the gradient: the same result, later."""
        if self.encoder is not None:
            self.encoder.checkpointing = True
        quiet()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its new name is not in transformers 4
            for part in (self.projector.qformer, self.llm):
                part.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def encode(self, waveform: Tensor) -> Encoding:
        """Waveform (B, 2, samples) at 32 kHz, left then right."""
        stft = spectrum(waveform)
        return Encoding({name: part.tokenize(waveform, stft) for name, part in self.encoders.items()})

    def audio_embeddings(self, encoding: Encoding, prompts: Tokens | None = None) -> Tensor:
        """The language model's audio tokens (B, queries [+ K], llm dim); a Q-Former may read the `prompts`."""
        words = self.llm.get_input_embeddings()
        if isinstance(self.projector, Projector):
            return self.projector(encoding["encoder"], encoding.get("sources"), words)
        assert prompts is not None, "this Q-Former reads the question"
        columns = prompts.ids.shape[1] - prompts.labels.shape[1]
        return self.projector(encoding, prompts.ids[:, :columns], prompts.mask[:, :columns], words)

    def forward(self, encoding: Encoding, batch: Tokens) -> Tensor:
        """One step of teacher forcing over [audio, padding, prompt, answer, end, padding].

        → logits (B, A, vocabulary) of what stands in the columns of `batch.labels`.
        """
        inputs, mask = self._inputs(self.audio_embeddings(encoding, batch), batch, encoding)
        return self.llm(
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
        prompts: Tokens,
        pad: int,
        end: int,
        num_beams: int = 1,
        max_new_tokens: int = 200,
        zero_audio: bool = False,
    ) -> Tensor:
        """The likeliest answers' ids (B, N ≤ max_new_tokens), greedy or by beam search; `pad` after `end`."""
        audio = self.audio_embeddings(encoding, prompts)
        inputs, mask = (
            self._inputs(torch.zeros_like(audio), prompts, Encoding())
            if zero_audio
            else self._inputs(audio, prompts, encoding)
        )
        return self.llm.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            past_key_values=self._read(inputs, mask, num_beams) if num_beams > 1 else None,
            generation_config=GenerationConfig(
                do_sample=False,
                num_beams=num_beams,
                max_new_tokens=max_new_tokens,
                pad_token_id=pad,
                eos_token_id=end,
            ),
        )

    def _read(self, inputs: Tensor, mask: Tensor, num_beams: int) -> Cache:
        """Keys and values of all but the last input, copied to each beam; `generate` would compute them for each.

        A cache that has no copies of what beams have in common, and writes what is new in place, was tried: it
        takes a processor as long. Copies fell from 29 to 11 % of `tiny`'s time with four beams, and attention,
        which then reads from memory what a copy had just left in the processor's cache, rose from 14 to 30.
        """
        read = self.llm(
            inputs_embeds=inputs[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=(mask[:, :-1].cumsum(1) - 1).clamp_min(0),
            logits_to_keep=1,
            use_cache=True,
        )
        read.past_key_values.batch_repeat_interleave(num_beams)
        return read.past_key_values

    def _inputs(self, audio: Tensor, batch: Tokens, encoding: Encoding) -> tuple[Tensor, Tensor]:
        """(inputs (B, audio + L, llm dim), mask (B, audio + L)); the prompt's words mention what `encoding` names."""
        words = self.llm.get_input_embeddings()(batch.ids)
        for name in (name for name in encoding if self.encoders[name].named):
            # In the prompt alone: the words of an answer are read back as they are written, one by one.
            before = batch.ids.shape[1] - batch.labels.shape[1]
            answers = F.pad(batch.labels != IGNORED, (before, 0))
            asked = batch.ids.masked_fill(answers, NO_TOKEN)
            words = self.projector.mention(asked, words, encoding[name], name)
        heard = torch.ones(audio.shape[:2], dtype=batch.mask.dtype, device=batch.mask.device)
        return torch.cat([audio.to(words.dtype), words], dim=1), torch.cat([heard, batch.mask], dim=1)


def encode_fixed_batch(model: BAT, waveforms: Sequence[Tensor], count: int, device: str | torch.device) -> Encoding:
    """`model.encode` of up to `count` scenes (2, samples), always as a batch of `count`.

    The last bit of a row depends on the size of its batch: that a scene beside it could not be rendered,
    or was encoded before a run was stopped, must change nothing.
    """
    filled = [*waveforms, *[waveforms[0]] * (count - len(waveforms))]
    found = model.encode(torch.stack(filled).to(device))
    return Encoding({name: part[: len(waveforms)] for name, part in found.items()})
