"""The linear head: one weighted sum a class. What everything is compared with, and what a regression can be put in."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.head import Head, HeadNetwork
from graftwork.transferability import unit


class LinearNetwork(HeadNetwork):
    """A linear layer over embeddings, which may first be brought to unit length.

    On unit length the logits are `scale` times a cosine-like product: bounded, so that one learning rate suits every
    encoder.

    Args:
        dim: width of the embeddings.
        classes: number of outputs.
        normalized: whether embeddings are brought to unit length.
        scale: what the embedding is multiplied by after that.
    """

    def __init__(self, dim: int, classes: int, *, normalized: bool, scale: float):
        super().__init__()
        self.normalized, self.scale = normalized, scale
        self.linear = nn.Linear(dim, classes)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., dim) to logits (..., classes)."""
        if self.normalized:
            states = F.normalize(states.float(), dim=-1) * self.scale
        return self.linear(states)

    def prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """Of unit length where the head makes them so."""
        return unit(embeddings) if self.normalized else embeddings

    @property
    def probe(self) -> LinearNetwork:
        """Itself."""
        return self

    @torch.no_grad()
    def write(self, weight: np.ndarray, bias: np.ndarray) -> None:
        """Take weights (classes, dim) and biases (classes,) that were fitted on `prepared` embeddings."""
        factor = self.scale if self.normalized else 1.0
        self.linear.weight.copy_(torch.from_numpy(weight / factor))
        self.linear.bias.copy_(torch.from_numpy(bias))


class Linear(Head):
    """One weighted sum a class, over embeddings of unit length."""

    scale: float = Field(default=10.0, gt=0)
    """What embeddings of unit length are multiplied by, so that logits can be large."""
    normalized: bool | None = None
    """Whether embeddings are brought to unit length; by default where there is one answer a text."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `LinearNetwork` with small weights."""
        normalized = not token_level if self.normalized is None else self.normalized
        return LinearNetwork(dim, classes, normalized=normalized, scale=self.scale)
