"""The projector: learned queries look at the encoder's tokens and become inputs of the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from batcli.model.presets import QFormerConfig

NAME_TOKENS = 16  # of an event's name; the rest of a longer one is left out
NO_TOKEN = -1


class Projector(nn.Module):
    """Q-Former (Li et al. 2023, BLIP-2), then a linear map to the language model's width and a norm.

    `source_dim`: width of the encoder's source tokens, which are mapped beside; 0 when it makes none.
    `n_events`: how many events they can name.
    """

    names: Tensor

    def __init__(
        self, config: QFormerConfig, encoder_dim: int, llm_dim: int, source_dim: int = 0, n_events: int = 0
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, config.queries, config.dim))
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=config.dim,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=int(config.dim * config.mlp_ratio),
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                cross_attention_frequency=config.cross_attention_frequency,
                encoder_hidden_size=encoder_dim,
            )
        )
        self.linear = nn.Linear(config.dim, llm_dim)
        self.norm = nn.LayerNorm(llm_dim, eps=1e-5)
        self.sources = nn.Sequential(nn.Linear(source_dim, llm_dim), nn.LayerNorm(llm_dim)) if source_dim else None
        if source_dim:
            self.register_buffer("names", torch.full((n_events, NAME_TOKENS), NO_TOKEN))

    def name_events(self, ids: Sequence[Sequence[int]]) -> None:
        """The language model's tokens of each event's name."""
        for row, name in zip(self.names, ids, strict=True):
            row[: len(name)] = torch.tensor(name[:NAME_TOKENS])

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
        return torch.cat([out, place + self._name(sources[..., 0].long(), words)], dim=1)

    def _name(self, events: Tensor, words: nn.Module) -> Tensor:
        """Events (B, K) → the mean embedding of their names' tokens, at the size that a norm would give it."""
        ids = self.names[events]
        known = (ids != NO_TOKEN).unsqueeze(-1)
        name = (words(ids.clamp_min(0)).float() * known).sum(2) / known.sum(2).clamp_min(1)
        return name * torch.rsqrt(name.square().mean(-1, keepdim=True) + 1e-8)
