"""A classifier on top of a classifier: what the lower one answers, and how like the target a text is, is read anew."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.head import Head, HeadNetwork
from graftwork.heads.linear import LinearNetwork


class StackedNetwork(HeadNetwork):
    """z + W2 GELU(W1 [x, softmax(z), sigmoid(d)]), where z = W_y x and d = w_d x of embeddings x at unit length.

    Attributes:
        source: W_y, the lower classifier.
        domain: w_d, the log odds that a text is of the target; the loss on answers does not move it.
        stack: W1 and W2, the upper one; W2 is 0 at first, so that the head begins as the lower one.
    """

    def __init__(self, dim: int, classes: int, hidden: int, scale: float):
        super().__init__()
        self.source = LinearNetwork(dim, classes, normalized=True, scale=scale)
        self.domain = LinearNetwork(dim, 1, normalized=True, scale=scale)
        last = nn.Linear(hidden, classes)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.stack = nn.Sequential(nn.Linear(dim + classes + 1, hidden), nn.GELU(), last)
        self.scale = scale

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., dim) to logits (..., classes)."""
        x = F.normalize(states.float(), dim=-1) * self.scale
        z, d = self.source(states), self.domain(states).detach()
        return z + self.stack(torch.cat([x, z.softmax(dim=-1), d.sigmoid()], dim=-1))

    def prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """Of unit length."""
        return self.source.prepared(embeddings)

    @property
    def probe(self) -> LinearNetwork:
        """The lower classifier."""
        return self.source


class Stacked(Head):
    """A small classifier on top of a linear one; it also reads how much a text is of the target domain."""

    paper: ClassVar[str] = (
        "Stacked Generalization, Wolpert 1992; a source classifier's answer as a feature: PRED in Daumé III 2007, "
        "section 2"
    )
    for_tokens: ClassVar[bool] = False

    hidden: int = Field(default=32, ge=1)
    """Width of the upper classifier's hidden layer."""
    scale: float = Field(default=10.0, gt=0)
    """What embeddings of unit length are multiplied by."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `StackedNetwork` whose upper part adds nothing yet."""
        return StackedNetwork(dim, classes, self.hidden, self.scale)
