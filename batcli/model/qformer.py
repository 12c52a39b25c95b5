"""Projectors: a Q-Former turns encoder tokens into inputs of the language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from batcli.model.config import QFormerConfig
from batcli.model.encoders.token_kind import NO_EVENT, NamedTokens, TokenKind

NAME_TOKENS = 16  # kept of an event's name
NO_TOKEN = -1


class EventNames(nn.Module):
    """The names of `n_events` events as token ids of the language model, saved with the weights."""

    ids: Tensor  # (n_events, NAME_TOKENS), padded with NO_TOKEN

    def __init__(self, n_events: int) -> None:
        super().__init__()
        self.register_buffer("ids", torch.full((n_events, NAME_TOKENS), NO_TOKEN))

    def set(self, ids: Sequence[Sequence[int]]) -> None:
        """Set the token ids of each event's name."""
        for row, name in zip(self.ids, ids, strict=True):
            row[: len(name)] = torch.tensor(name[:NAME_TOKENS])

    def of(self, events: Tensor) -> Tensor:
        """Event numbers (…) → token ids of their names (…, NAME_TOKENS), all NO_TOKEN for NO_EVENT."""
        return self.ids[events.clamp_min(0)].masked_fill((events == NO_EVENT).unsqueeze(-1), NO_TOKEN)

    def embed(self, named: NamedTokens, embedding: nn.Module) -> Tensor:
        """Embed what each token names, by the language model's input embeddings: (B, K, llm_dim).

        The mean embedding of a name's tokens, averaged over a token's names by their shares, normalised; 0 for a
        token without a name.
        """
        total: Tensor | float = 0.0
        # One by one: all at once takes as many times the memory.
        for events, share in zip(named.events.unbind(-1), named.shares.unbind(-1), strict=True):
            ids = self.of(events)
            used = (ids != NO_TOKEN).unsqueeze(-1)
            mean = (embedding(ids.clamp_min(0)).float() * used).sum(2) / used.sum(2).clamp_min(1)
            total = total + mean * share.unsqueeze(-1)
        assert isinstance(total, Tensor)
        return _rms_norm(total)


class Mention(nn.Module):
    """Adds to the prompt's words what the encoder's tokens tell of the events that the prompt names.

    Example: "is the dog to the left of the car?". Every word from "dog" on gets a linear map of two tokens added to
    its embedding: that of the event named last, here dog, then car, and that of the event named before it (none,
    then dog), since some questions relate two. Otherwise, the language model would first have to learn which
    token belongs to which word. Only for tokens that name events; one that names several is found by any of them.

    `pretrained`: the language model knows its words at the scale that they have, so they are left as they are, what
    is added has the scale of the word that it is added to, and at first nothing is added. Otherwise, words are
    brought to the scale of what is added, a root mean square of 1.
    """

    def __init__(self, kind: TokenKind, llm_dim: int, pretrained: bool) -> None:
        super().__init__()
        self.kind, self.pretrained = kind, pretrained
        norm = nn.LayerNorm(llm_dim)
        if pretrained:
            nn.init.zeros_(norm.weight)
        self.map = nn.Sequential(nn.Linear(2 * kind.dim, llm_dim), norm)

    def forward(self, names: EventNames, ids: Tensor, embedded: Tensor, tokens: Tensor) -> Tensor:
        """Return the text's embeddings (B, L, llm_dim) with the map of the tokens added.

        names: the names of all events. ids (B, L): token ids of the text, NO_TOKEN where nothing is to be added;
        embedded (B, L, llm_dim): their embeddings. tokens (B, K, kind.width): tokens of an encoder that name events.
        """
        named = self.kind.split(tokens)
        places = named.values.to(next(self.parameters()).dtype)  # (B, K, dim)
        starts = _starts(ids, names.of(named.events))  # (B, K, L)
        columns = torch.arange(ids.shape[1], device=ids.device)
        # (B, L): column in which the latest name starts, −1 before the first, and the event that it names
        column, latest = torch.where(starts, columns, -1).cummax(-1).values.max(1)
        previous = torch.einsum("bkj,bjd->bkd", _previous_event(starts), places)
        added = self.map(torch.cat([places, previous], -1)).to(embedded.dtype)
        added = added.gather(1, latest.unsqueeze(-1).expand(-1, -1, added.shape[-1]))
        changed = (column >= 0) & (ids != NO_TOKEN)
        mentioned = embedded + added * _rms(embedded) if self.pretrained else _rms_norm(embedded) + added
        return torch.where(changed.unsqueeze(-1), mentioned, embedded)


class Projector(nn.Module):
    """The published projector: Q-Former (Li et al. 2023, BLIP-2), linear map to the language model's width, norm.

    `source_kind`: format of source tokens, which are mapped and appended to the queries' outputs; None without them.
    `n_events`: number of events that source tokens can name. `pretrained`: see `Mention`.
    """

    def __init__(
        self,
        config: QFormerConfig,
        encoder_dim: int,
        llm_dim: int,
        source_kind: TokenKind | None = None,
        n_events: int = 0,
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, config.queries, config.dim))
        self.qformer = _new_qformer(config, encoder_dim)
        self.linear = nn.Linear(config.dim, llm_dim)
        self.norm = nn.LayerNorm(llm_dim, eps=1e-5)
        self.source_kind, self.sources = source_kind, None
        if source_kind is not None:
            self.sources = nn.Sequential(nn.Linear(source_kind.dim, llm_dim), nn.LayerNorm(llm_dim))
            self.names = EventNames(n_events)
            self.mentions = Mention(source_kind, llm_dim, pretrained)

    def forward(self, tokens: Tensor, sources: Tensor | None = None, embedding: nn.Module | None = None) -> Tensor:
        """Tokens (B, T, encoder_dim) [and source tokens (B, K, source_kind.width)] → (B, queries [+ K], llm_dim).

        `embedding`: the language model's input embeddings, needed for the names of source tokens.
        """
        query = self.query.expand(len(tokens), -1, -1)
        hidden = self.qformer(query_embeds=query, encoder_hidden_states=tokens.to(query.dtype)).last_hidden_state
        out = self.norm(self.linear(hidden))
        if self.source_kind is None or self.sources is None or sources is None:
            return out
        assert embedding is not None, "source tokens take their names from the language model's embeddings"
        named = self.source_kind.split(sources)
        places = self.sources(named.values.to(query.dtype))
        return torch.cat([out, places + self.names.embed(named, embedding)], dim=1)

    def mention(self, ids: Tensor, embedded: Tensor, tokens: Tensor, kind: str = "sources") -> Tensor:
        """Apply `Mention` to text (B, L) and its embeddings (B, L, llm_dim); `kind` can be source tokens only."""
        return self.mentions(self.names, ids, embedded, tokens)


class PassResidual(nn.Module):
    """Replaces the output block of a transformer layer that needs none: `forward` returns the residual unchanged."""

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return residual


class QuestionProjector(nn.Module):
    """A Q-Former that also reads the question, as InstructBLIP's (Dai et al. 2023), over the tokens of all `kinds`.

    Queries and the prompt's words attend to one another; only the queries attend to the encoders' tokens.
    A token that names events carries their names through the same linear map as the prompt's words, so that a
    query can find the token that belongs to a word. `pretrained`: see `Mention`.
    """

    def __init__(
        self,
        config: QFormerConfig,
        kinds: Mapping[str, TokenKind],
        llm_dim: int,
        n_events: int,
        pretrained: bool = False,
    ) -> None:
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
        self.mentions = nn.ModuleDict(
            {name: Mention(kind, llm_dim, pretrained) for name, kind in kinds.items() if kind.names}
        )

    def forward(self, encoding: Mapping[str, Tensor], ids: Tensor, mask: Tensor, embedding: nn.Module) -> Tensor:
        """Tokens (B, T, D) by encoder, prompts (B, L) with their mask → (B, queries, llm_dim).

        `embedding`: the language model's input embeddings.
        """
        tokens = torch.cat([self._map_tokens(name, part, embedding) for name, part in encoding.items()], 1)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        prompt = self.words(_rms_norm(embedding(ids).float())) + _sinusoids(positions, self.query.shape[-1])
        query = self.query.expand(len(ids), -1, -1)
        hidden = self.qformer(
            query_embeds=torch.cat([query, prompt], 1),
            query_length=query.shape[1],
            attention_mask=F.pad(mask, (query.shape[1], 0), value=1),
            encoder_hidden_states=tokens,
        ).last_hidden_state[:, : query.shape[1]]
        return self.norm(self.linear(hidden))

    def mention(self, ids: Tensor, embedded: Tensor, tokens: Tensor, kind: str = "sources") -> Tensor:
        """Apply the `Mention` of the encoder `kind`: see `Projector.mention`."""
        return self.mentions[kind](self.names, ids, embedded, tokens)

    def _map_tokens(self, kind: str, tokens: Tensor, embedding: nn.Module) -> Tensor:
        """Map an encoder's tokens (B, T, D) to the width of the Q-Former (B, T, dim)."""
        if not self.kinds[kind].names:
            return self.tokens[kind](tokens.to(self.query.dtype))
        named = self.kinds[kind].split(tokens)
        return self.tokens[kind](named.values.to(self.query.dtype)) + self.words(self.names.embed(named, embedding))


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
            # At the published 0.02, attention in so few dimensions stays uniform for a long while.
            initializer_range=config.dim**-0.5 if config.reads_question else 0.02,
        )
    )


def _sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Positions (B, L) → their sines and cosines (B, L, dim) (Vaswani et al. 2017)."""
    rates = torch.exp(-math.log(10_000) * torch.arange(0, dim, 2, device=positions.device) / dim)
    angles = positions.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], -1)


def _previous_event(starts: Tensor) -> Tensor:
    """Columns in which names start (B, K, L) → (B, K, K), 1 at [k, j] where event j is named last before event k."""
    first = torch.where(starts.any(-1), starts.int().argmax(-1), -1)  # (B, K), −1: not named
    earlier = torch.where(first.unsqueeze(1) < first.unsqueeze(2), first.unsqueeze(1), -1)  # of j, for each k
    last = earlier.argmax(-1, keepdim=True)
    return torch.zeros_like(earlier, dtype=torch.float32).scatter(
        -1, last, (earlier.amax(-1, keepdim=True) >= 0).float()
    )


def _starts(ids: Tensor, name_ids: Tensor) -> Tensor:
    """Where in texts (B, L) one of the N names (B, K, N, NAME_TOKENS) of each of K tokens starts: bool (B, K, L)."""
    flat = name_ids.flatten(1, 2)
    padding = (flat == NO_TOKEN).unsqueeze(2)
    windows = F.pad(ids, (0, NAME_TOKENS - 1), value=NO_TOKEN).unfold(1, NAME_TOKENS, 1)
    found = ((windows.unsqueeze(1) == flat.unsqueeze(2)) | padding).all(-1) & ~padding.all(-1)
    return found.unflatten(1, name_ids.shape[1:3]).any(2)


def _rms_norm(x: Tensor) -> Tensor:
    """Scale (…, D) to a root mean square of 1."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-8)


def _rms(x: Tensor) -> Tensor:
    """Root mean square of each row: (…, D) → (…, 1)."""
    return x.float().square().mean(-1, keepdim=True).sqrt().to(x.dtype)
