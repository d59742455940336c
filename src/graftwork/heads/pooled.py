"""Heads over one vector a text (or a word): a hidden layer more, or a prototype a class."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.head import Head, HeadNetwork
from graftwork.transferability import unit


class MLPNetwork(HeadNetwork):
    """(..., dim) through one hidden layer to (..., classes)."""

    def __init__(self, dim: int, hidden: int, classes: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, classes))

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """W2 GELU(W1 x)."""
        return self.layers(states.float())


class MLP(Head):
    """One hidden layer: for classes that no straight line parts. It starts at random, and wants more labels."""

    name: ClassVar[str] = "mlp"
    paper: ClassVar[str] = "Gaussian Error Linear Units, Hendrycks & Gimpel 2016, for what is between its layers"

    hidden: int | None = Field(default=None, ge=1)
    """Width of the hidden layer; by default that of the embeddings."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Of the hidden layer, while it trains."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """An `MLPNetwork` as torch draws it."""
        return MLPNetwork(dim, self.hidden or dim, classes, self.dropout)


class CosineNetwork(HeadNetwork):
    """(..., dim) to (..., classes): `scale` times the cosine of the angle to each class's prototype.

    Attributes:
        prototypes: (classes, dim), of any length.
        scale: learned, from what the choice says.
    """

    def __init__(self, dim: int, classes: int, scale: float):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(classes, dim))
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """`scale` cos(x, w_c)."""
        return self.scale * F.linear(F.normalize(states.float(), dim=-1), F.normalize(self.prototypes, dim=-1))

    @torch.no_grad()
    def start(self, embeddings: np.ndarray, targets: np.ndarray) -> None:
        """Each prototype is the mean of its class's embeddings at unit length; a class without a row keeps its own."""
        members = targets.T if targets.ndim == 2 else targets == np.arange(len(self.prototypes))[:, None]
        members = members.astype(np.float32)  # (classes, n)
        sums = torch.from_numpy(members @ unit(embeddings).astype(np.float32)).to(self.prototypes)
        found = torch.from_numpy(members.sum(axis=1) > 0).to(self.prototypes.device)
        self.prototypes[found] = sums[found]
        self.fresh = False


class Cosine(Head):
    """One prototype a class, and the angle to it: begins as the means of the classes; at home with few labels."""

    paper: ClassVar[str] = "Dynamic Few-Shot Visual Learning without Forgetting, Gidaris & Komodakis 2018, section 3.2"

    scale: float = Field(default=10.0, gt=0)
    """What the cosines are multiplied by at first; it is learned."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `CosineNetwork` with prototypes at random."""
        return CosineNetwork(dim, classes, self.scale)
