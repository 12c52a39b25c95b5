"""The projector: learned queries look at the encoder's tokens and become inputs of the language model."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from batcli.model.presets import QFormerConfig


class Projector(nn.Module):
    """Q-Former (Li et al. 2023, BLIP-2), then a linear map to the language model's width and a norm.

    `source_dim`: width of the encoder's source tokens, which are mapped beside; 0 when it makes none.
    """

    def __init__(self, config: QFormerConfig, encoder_dim: int, llm_dim: int, source_dim: int = 0) -> None:
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

    def forward(self, tokens: Tensor, sources: Tensor | None = None) -> Tensor:
        """Tokens (B, T, encoder_dim) [and sources (B, K, source_dim)] → (B, queries [+ K], llm_dim)."""
        query = self.query.expand(len(tokens), -1, -1)
        seen = self.qformer(query_embeds=query, encoder_hidden_states=tokens.to(query.dtype)).last_hidden_state
        out = self.norm(self.linear(seen))
        if self.sources is None or sources is None:
            return out
        return torch.cat([out, self.sources(sources.to(query.dtype))], dim=1)
