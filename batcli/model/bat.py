"""BAT: the encoder, the projector and the language model as one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

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
from batcli.model.encoders.spatial_ast import N_SUMMARY, SpatialAST
from batcli.model.features import spectrum
from batcli.model.llm import add_lora, quiet
from batcli.model.qformer import NO_TOKEN, Projector
from batcli.model.tokens import IGNORED, Tokens


class Encoding(NamedTuple):
    """A scene as the encoder hears it: computed once, then used for all questions about it."""

    tokens: Tensor  # (B, T, encoder dim)
    sources: Tensor | None = None  # (B, K, source dim): one token per source, from encoders that make them

    def to(self, device: str | torch.device) -> Encoding:
        return Encoding(self.tokens.to(device), None if self.sources is None else self.sources.to(device))

    def row(self, number: int) -> Encoding:
        """One scene of the batch, as a batch of one that keeps nothing else in memory."""
        only = slice(number, number + 1)
        return Encoding(self.tokens[only].clone(), None if self.sources is None else self.sources[only].clone())


def stack(encodings: Sequence[Encoding]) -> Encoding:
    """Batches of scenes as one."""
    sources = [encoding.sources for encoding in encodings if encoding.sources is not None]
    return Encoding(torch.cat([encoding.tokens for encoding in encodings]), torch.cat(sources) if sources else None)


class BAT(nn.Module):
    """`llm`: any causal language model of transformers; it gets LoRA (and is frozen) if `config` says so."""

    def __init__(self, config: ModelConfig, llm: PreTrainedModel) -> None:
        super().__init__()
        self.config = config
        words: Any = llm.get_input_embeddings()
        self.encoder = SpatialAST(config.encoder)
        self.sources = SourceTokens(config.sources, config.encoder.n_classes) if config.sources else None
        source_dim = self.sources.dim if self.sources else 0
        self.projector = Projector(
            config.qformer, config.encoder.dim, words.embedding_dim, source_dim, config.encoder.n_classes
        )
        self.llm: Any = add_lora(llm, config.lora) if config.lora else llm
        # The directory's own defaults (temperature, repetition penalty) are for chat.
        self.llm.generation_config = GenerationConfig(do_sample=False)

    @property
    def encoding_bytes(self) -> int:
        """Of one scene's encoding."""
        encoder, sources = self.config.encoder, self.config.sources
        numbers = (N_SUMMARY + math.prod(encoder.grid)) * encoder.dim
        if self.sources is not None and sources is not None:
            numbers += sources.tokens * (1 + self.sources.dim)
        return 4 * numbers

    def save_memory(self) -> None:
        """Keep fewer activations in training, and compute them again for the gradient: the same result, later."""
        self.encoder.checkpointing = True
        quiet()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # its new name is not in transformers 4
            for part in (self.projector.qformer, self.llm):
                part.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def encode(self, waveform: Tensor) -> Encoding:
        """Waveform (B, 2, samples) at 32 kHz, left then right."""
        stft = spectrum(waveform)
        return Encoding(self.encoder(waveform, stft), self.sources(stft)[0] if self.sources else None)

    def audio_embeddings(self, encoding: Encoding) -> Tensor:
        """What the language model hears: (B, queries [+ K], llm dim)."""
        return self.projector(encoding.tokens, encoding.sources, self.llm.get_input_embeddings())

    def forward(self, encoding: Encoding, batch: Tokens) -> Tensor:
        """One step of teacher forcing over [audio, padding, prompt, answer, end, padding].

        → logits (B, A, vocabulary) of what stands in the columns of `batch.labels`.
        """
        inputs, mask = self._inputs(self.audio_embeddings(encoding), batch, encoding.sources)
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
        audio = self.audio_embeddings(encoding)
        inputs, mask = (
            self._inputs(torch.zeros_like(audio), prompts, None)
            if zero_audio
            else self._inputs(audio, prompts, encoding.sources)
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

    def _inputs(self, audio: Tensor, batch: Tokens, sources: Tensor | None) -> tuple[Tensor, Tensor]:
        """(inputs (B, audio + L, llm dim), mask (B, audio + L))."""
        words = self.llm.get_input_embeddings()(batch.ids)
        if sources is not None:
            # In the prompt alone: the words of an answer are read back as they are written, one by one.
            before = batch.ids.shape[1] - batch.labels.shape[1]
            answers = F.pad(batch.labels != IGNORED, (before, 0))
            asked = batch.ids.masked_fill(answers, NO_TOKEN)
            words = self.projector.mention(asked, words, sources)
        heard = torch.ones(audio.shape[:2], dtype=batch.mask.dtype, device=batch.mask.device)
        return torch.cat([audio.to(words.dtype), words], dim=1), torch.cat([heard, batch.mask], dim=1)


def encode_fixed_batch(model: BAT, waveforms: Sequence[Tensor], count: int, device: str | torch.device) -> Encoding:
    """`model.encode` of up to `count` scenes (2, samples), always as a batch of `count`.

    The last bit of a row depends on the size of its batch: that a scene beside it could not be rendered,
    or was encoded before a run was stopped, must change nothing.
    """
    filled = [*waveforms, *[waveforms[0]] * (count - len(waveforms))]
    found, n = model.encode(torch.stack(filled).to(device)), len(waveforms)
    return Encoding(found.tokens[:n], None if found.sources is None else found.sources[:n])
