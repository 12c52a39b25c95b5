"""The projector: learned queries look at the encoder's tokens and become inputs of the language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from batcli.model.config import QFormerConfig

NAME_TOKENS = 16  # of an event's name; the rest of a longer one is left out
NO_TOKEN = -1


class TokenKind(NamedTuple):
    """What the projector must know of an encoder's tokens."""

    dim: int  # width, the event's number aside
    named: bool  # whether the first entry is the number of an event


class EventNames(nn.Module):
    """The names of `n_events` events as the language model's tokens."""

    ids: Tensor

    def __init__(self, n_events: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.full((n_events, NAME_TOKENS), NO_TOKEN))

    def set(self, ids: Sequence[Sequence[int]]) -> None:
        for row, name in zip(self.ids, ids, strict=True):
            row[: len(name)] = torch.tensor(name[:NAME_TOKENS])

    def embed(self, events: Tensor, words: nn.Module) -> Tensor:
        """Events (B, K) → the mean embedding of their names' tokens, at the size that a norm would give it."""
        ids = self.ids[events]
        known = (ids != NO_TOKEN).unsqueeze(-1)
        return _unit((words(ids.clamp_min(0)).float() * known).sum(2) / known.sum(2).clamp_min(1))


class Mention(nn.Module):
    """Writes the places of events onto the words of a question that name them.

    Once a question has named an event that the encoder hears, its words carry the place of the event named
    last, and of the one before it, since relations are asked of two. The words of an answer (`NO_TOKEN` in
    the ids) carry none, since they are read back as they are written. The language model need not find out
    first which token belongs to which word: `tiny` places the named one of two sources far better with it.
    """

    def __init__(self, dim: int, llm_dim: int) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Linear(2 * dim, llm_dim), nn.LayerNorm(llm_dim))

    def forward(self, names: Tensor, ids: Tensor, embedded: Tensor, places: Tensor) -> Tensor:
        """Names (B, K, NAME_TOKENS), words (B, L), embeddings (B, L, llm_dim), places (B, K, dim) → embeddings."""
        rest = (names == NO_TOKEN).unsqueeze(2)
        windows = F.pad(ids, (0, NAME_TOKENS - 1), value=NO_TOKEN).unfold(1, NAME_TOKENS, 1)
        starts = ((windows.unsqueeze(1) == names.unsqueeze(2)) | rest).all(-1) & ~rest.all(-1)  # (B, K, L)
        when = torch.arange(ids.shape[1], device=ids.device)
        named, which = torch.where(starts, when, -1).cummax(-1).values.max(1)  # (B, L): the last one named so far
        before = torch.einsum("bkj,bjd->bkd", _just_before(starts), places)
        known = self.map(torch.cat([places, before], -1)).to(embedded.dtype)
        carried = known.gather(1, which.unsqueeze(-1).expand(-1, -1, known.shape[-1]))
        knows = (named >= 0) & (ids != NO_TOKEN)
        return torch.where(knows.unsqueeze(-1), _unit(embedded) + carried, embedded)


class Projector(nn.Module):
    """Q-Former (Li et al. 2023, BLIP-2), then a linear map to the language model's width and a norm: as published.

    `source_dim`: width of source tokens, which are mapped beside the queries; 0 when there are none.
    `n_events`: how many events they can name.
    """

    def __init__(
        self, config: QFormerConfig, encoder_dim: int, llm_dim: int, source_dim: int = 0, n_events: int = 0
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, config.queries, config.dim))
        self.qformer = _new_qformer(config, encoder_dim)
        self.linear = nn.Linear(config.dim, llm_dim)
        self.norm = nn.LayerNorm(llm_dim, eps=1e-5)
        self.sources = nn.Sequential(nn.Linear(source_dim, llm_dim), nn.LayerNorm(llm_dim)) if source_dim else None
        if source_dim:
            self.names = EventNames(n_events)
            self.mentions = Mention(source_dim, llm_dim)

    def name_events(self, ids: Sequence[Sequence[int]]) -> None:
        """The language model's tokens of each event's name."""
        self.names.set(ids)

    def forward(self, tokens: Tensor, sources: Tensor | None = None, words: nn.Module | None = None) -> Tensor:
        """Tokens (B, T, encoder_dim) [and sources (B, K, 1 + source_dim)] → (B, queries [+ K], llm_dim).

        `words`: the language model's input embeddings, from which a source token takes its event's name.
        """
        query = self.query.expand(len(tokens), -1, -1)
        seen = self.qformer(query_embeds=query, encoder_hidden_states=tokens.to(query.dtype)).last_hidden_state
        out = self.norm(self.linear(seen))
        if self.sources is None or sources is None:
            return out
        assert words is not None, "source tokens take their names from the language model's embeddings"
        place = self.sources(sources[..., 1:].to(query.dtype))
        return torch.cat([out, place + self.names.embed(sources[..., 0].long(), words)], dim=1)

    def mention(self, ids: Tensor, embedded: Tensor, tokens: Tensor, kind: str = "sources") -> Tensor:
        """Words (B, L) and their embeddings (B, L, llm_dim) → embeddings that know the named tokens' places."""
        names = self.names.ids[tokens[..., 0].long()]
        return self.mentions(names, ids, embedded, tokens[..., 1:].to(self.query.dtype))


class PassResidual(nn.Module):
    """Stands in for a layer's output block, and leaves its input as it was."""

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return residual


class QuestionProjector(nn.Module):
    """A Q-Former that reads the question, as InstructBLIP's (Dai et al. 2023), over the tokens of all `kinds`.

    Queries and the prompt's words attend to one another; the queries alone attend to the encoders' tokens. A
    named token carries its event's name through the same map as the prompt's words, so that a query can find the
    token that a word speaks of.
    """

    def __init__(self, config: QFormerConfig, kinds: Mapping[str, TokenKind], llm_dim: int, n_events: int) -> None:
        super().__init__()
        dim = config.dim
        self.kinds = dict(kinds)
        self.query = nn.Parameter(torch.randn(1, config.queries, dim))
        self.tokens = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(kind.dim, dim), nn.LayerNorm(dim)) for name, kind in kinds.items()}
        )
        self.words = nn.Linear(llm_dim, dim)
        self.qformer = _new_qformer(config, dim)
        # The words are no output, so nothing may be trained that only they would pass through.
        last = self.qformer.encoder.layer[-1]
        last.intermediate, last.output = nn.Identity(), PassResidual()
        self.linear = nn.Linear(dim, llm_dim)
        self.norm = nn.LayerNorm(llm_dim, eps=1e-5)
        self.names = EventNames(n_events)
        self.mentions = nn.ModuleDict({name: Mention(kind.dim, llm_dim) for name, kind in kinds.items() if kind.named})

    def name_events(self, ids: Sequence[Sequence[int]]) -> None:
        """The language model's tokens of each event's name."""
        self.names.set(ids)

    def forward(self, encoding: Mapping[str, Tensor], ids: Tensor, mask: Tensor, words: nn.Module) -> Tensor:
        """Tokens by kind (B, T, D), prompts (B, L) with their mask → (B, queries, llm_dim).

        `words`: the language model's input embeddings.
        """
        tokens = torch.cat([self._seen(name, part, words) for name, part in encoding.items()], 1)
        place = (mask.cumsum(1) - 1).clamp_min(0)
        asked = self.words(_unit(words(ids).float())) + _positions(place, self.query.shape[-1])
        query = self.query.expand(len(ids), -1, -1)
        seen = self.qformer(
            query_embeds=torch.cat([query, asked], 1),
            query_length=query.shape[1],
            attention_mask=F.pad(mask, (query.shape[1], 0), value=1),
            encoder_hidden_states=tokens,
        ).last_hidden_state[:, : query.shape[1]]
        return self.norm(self.linear(seen))

    def mention(self, ids: Tensor, embedded: Tensor, tokens: Tensor, kind: str = "sources") -> Tensor:
        """Words (B, L) and their embeddings (B, L, llm_dim) → embeddings that know the named tokens' places."""
        names = self.names.ids[tokens[..., 0].long()]
        return self.mentions[kind](names, ids, embedded, tokens[..., 1:].to(self.query.dtype))

    def _seen(self, kind: str, tokens: Tensor, words: nn.Module) -> Tensor:
        """An encoder's tokens (B, T, D) as the queries see them (B, T, dim)."""
        if not self.kinds[kind].named:
            return self.tokens[kind](tokens.to(self.query.dtype))
        place = self.tokens[kind](tokens[..., 1:].to(self.query.dtype))
        return place + self.words(self.names.embed(tokens[..., 0].long(), words))


def _new_qformer(config: QFormerConfig, encoder_dim: int) -> Blip2QFormerModel:
    return Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=config.dim,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            intermediate_size=int(config.dim * config.mlp_ratio),
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            cross_attention_frequency=config.cross_attention_frequency,
            encoder_hidden_size=encoder_dim,
            use_qformer_text_input=config.reads_question,
            # At the published 0.02, attention in so few dimensions is the same everywhere for a long while.
            initializer_range=config.dim**-0.5 if config.reads_question else 0.02,
        )
    )


def _positions(place: Tensor, dim: int) -> Tensor:
    """Places (B, L) of words → sines and cosines (B, L, dim) of them (Vaswani et al. 2017)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, dim, 2, device=place.device) / dim)
    angles = place.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def _just_before(starts: Tensor) -> Tensor:
    """Where each name starts (B, K, L) → (B, K, K), 1 at [k, j] where j is the last one named before k."""
    first = torch.where(starts.any(-1), starts.int().argmax(-1), -1)  # (B, K), −1: not named
    earlier = torch.where(first.unsqueeze(1) < first.unsqueeze(2), first.unsqueeze(1), -1)  # of j, seen from k
    last = earlier.argmax(-1, keepdim=True)
    return torch.zeros_like(earlier, dtype=torch.float32).scatter(
        -1, last, (earlier.amax(-1, keepdim=True) >= 0).float()
    )


def _unit(x: Tensor) -> Tensor:
    """(…, D) at a root mean square of 1."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-8)
