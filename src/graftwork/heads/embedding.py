"""The head that is none: what a text is, as a vector, for tasks that compare texts."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from graftwork.head import Head, HeadNetwork


class EmbeddingNetwork(HeadNetwork):
    """Embeddings (..., dim) to unit length, in fp32. It has no weights, so there is nothing fresh about it."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh = False

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(..., dim) to (..., dim)."""
        return F.normalize(states.float(), dim=-1)


class Embedding(Head):
    """Hand on the embedding itself, at unit length: the head of tasks that compare texts, which take no other."""

    paper: ClassVar[str] = "Sentence-BERT, Reimers & Gurevych 2019, section 3"
    for_tokens: ClassVar[bool] = False
    for_classes: ClassVar[bool] = False

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """An `EmbeddingNetwork`, whatever the classes."""
        return EmbeddingNetwork()
