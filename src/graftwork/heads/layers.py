"""Heads that read every layer of the encoder: what one layer forgot another may still know."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from graftwork.head import Head, HeadNetwork
from graftwork.heads.linear import LinearNetwork


class MixNetwork(HeadNetwork):
    """States of all layers (batch, layers, dim), mixed, to (batch, classes).

    gamma times the sum over layers of softmax(s)_l h_l, and a linear layer over that.
    """

    reads_layers: ClassVar[bool] = True

    def __init__(self, dim: int, classes: int, layers: int):
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(layers))  # at first every layer counts alike
        self.gamma = nn.Parameter(torch.ones(()))
        self.linear = LinearNetwork(dim, classes, normalized=False, scale=1.0)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, classes)."""
        return self.linear(self.gamma * torch.einsum("l,bld->bd", self.scores.softmax(dim=0), states.float()))

    @property
    def probe(self) -> LinearNetwork:
        """What reads the mix."""
        return self.linear

    def prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """The plain mean of the layers."""
        return embeddings.mean(axis=1)


class ScalarMix(Head):
    """Learn how much each layer counts, and read their weighted mean."""

    paper: ClassVar[str] = "Deep Contextualized Word Representations, Peters et al. 2018, eq. 1"
    for_tokens: ClassVar[bool] = False

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `MixNetwork` in which every layer counts alike."""
        return MixNetwork(dim, classes, layers)


class SideStage(nn.Module):
    """One stage of a side network: its layer's state, made narrow, and all that the stages before it found.

    g_l = GELU(W [D norm(h_l); g_0; ...; g_(l-1)]), with widths d -> r and r (l + 1) -> r.
    """

    def __init__(self, dim: int, width: int, before: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.down = nn.Linear(dim, width)
        self.join = nn.Linear(width * (before + 1), width)

    def forward(self, state: Tensor, found: list[Tensor]) -> Tensor:
        """(batch, dim) and what was found, (batch, width) each, to (batch, width)."""
        return nn.functional.gelu(self.join(torch.cat([self.down(self.norm(state)), *found], dim=-1)))


class DenseNetwork(HeadNetwork):
    """States of all layers (batch, layers, dim) to (batch, classes): a probe of the top, and what the side adds to it.

    Attributes:
        linear: the probe of the topmost layer.
        stages: one a layer, from the lowest; each reads all before it.
        up: all stages to the classes; zero at first, so that training begins at the probe.
    """

    reads_layers: ClassVar[bool] = True

    def __init__(self, dim: int, classes: int, width: int, layers: int, dropout: float):
        super().__init__()
        self.linear = LinearNetwork(dim, classes, normalized=True, scale=10.0)
        self.stages = nn.ModuleList(SideStage(dim, width, before) for before in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.up = nn.Linear(width * layers, classes)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, classes). Of more layers than stages the topmost are read."""
        states = states.float()
        found: list[Tensor] = []
        for stage, state in zip(self.stages, states.unbind(dim=1)[-len(self.stages) :], strict=True):
            found.append(stage(state, found))
        return self.linear(states[:, -1]) + self.up(self.dropout(torch.cat(found, dim=-1)))

    @property
    def probe(self) -> LinearNetwork:
        """What reads the topmost layer."""
        return self.linear

    def prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """The topmost layer, at unit length."""
        return self.linear.prepared(embeddings[:, -1])


class DenseSide(Head):
    """A small network beside the encoder that reads all its layers, each stage also what those before it found."""

    paper: ClassVar[str] = (
        "Ladder side-tuning: Sung, Cho & Bansal 2022, section 3, over pooled states; dense connections: Huang et al. "
        "2017, eq. 2"
    )
    for_tokens: ClassVar[bool] = False

    width: int = Field(default=96, ge=1)
    """Of each stage."""
    layers: int | None = Field(default=None, ge=1)
    """How many of the topmost layers it reads; by default all, the embeddings among them."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Of what the stages found, while it trains."""

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `DenseNetwork` that begins as a probe."""
        return DenseNetwork(dim, classes, self.width, min(self.layers or layers, layers), self.dropout)
