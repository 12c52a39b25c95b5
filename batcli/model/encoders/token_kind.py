"""The format of an encoder's tokens, which may name sound events."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NO_EVENT = -1


class NamedTokens(NamedTuple):
    """Tokens (B, K) of an encoder that name sound events by their numbers (rows of the dataset's labels)."""

    events: Tensor  # (B, K, N), NO_EVENT where a token names fewer than N
    shares: Tensor  # (B, K, N) of each event in its token: 0…1, together 1, or 0 for a token that names none
    values: Tensor  # (B, K, dim)


class TokenKind(NamedTuple):
    """Format of one encoder's tokens: the numbers of the events that it names, if several their shares, its values."""

    dim: int  # width of the values
    names: int  # most events that a token can name; 0: none

    @property
    def width(self) -> int:
        return self.dim + self.names * (2 if self.names > 1 else 1)

    def split(self, tokens: Tensor) -> NamedTokens:
        """Split tokens (B, K, width) that name events into their parts."""
        events, values = tokens[..., : self.names], tokens[..., -self.dim :]
        shares = tokens[..., self.names : -self.dim] if self.names > 1 else torch.ones_like(events)
        return NamedTokens(events.long(), shares, values)
