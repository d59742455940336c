"""A pretext is what a network is asked of plain text, so that it learns the language before any task.

Text is its own answer: a pretext hides some of it, says where the network must answer, and what is right there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from graftwork.choice import Choice

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True)
class Pieces:
    """What a pretext must know of a vocabulary."""

    count: int
    """Of pieces, and so of logits."""
    special: Tensor
    """Whether a piece stands for no text, as [CLS] does: (count,) bool."""
    continues: Tensor
    """Whether a piece goes on with the word before it, as ##ing does: (count,) bool."""
    mask_id: int | None = None
    """What stands in a gap; None where the vocabulary has nothing for it."""

    def to(self, device: torch.device) -> Pieces:
        """The same on `device`."""
        return Pieces(self.count, self.special.to(device), self.continues.to(device), self.mask_id)


@dataclass(frozen=True)
class Posed:
    """A question to the network."""

    inputs: dict[str, Tensor]
    """The encoder's arguments."""
    asked: Tensor
    """Where it must answer: (batch, length of its states) bool."""
    answers: Tensor
    """The ids that are right there, in the order of `asked`: (answers,) int64."""


@dataclass(frozen=True)
class Size:
    """How large a network made from nothing is."""

    layers: int
    width: int
    heads: int


SIZES = {
    "tiny": Size(layers=2, width=128, heads=2),
    "mini": Size(layers=6, width=256, heads=4),
    "small": Size(layers=6, width=512, heads=8),
    "base": Size(layers=12, width=768, heads=12),
}
"""From a laptop's minutes to a GPU's days; `base` is as wide and deep as BERT's (Devlin et al. 2019, section 3)."""


class Pretext(Choice):
    """What is asked of plain text. Subclasses say how; the shelf is `pretexts/`."""

    kind: ClassVar[str]
    """Of the language model that it makes, one of `models.LANGUAGE_MODELS`."""

    def config(self, size: Size, vocabulary: int, length: int, ids: dict[str, int]) -> PretrainedConfig:
        """Of a network from nothing.

        Args:
            size: how large.
            vocabulary: pieces.
            length: tokens it reads at most.
            ids: of the special pieces: `pad`, `start`, `end`.
        """
        raise NotImplementedError

    def tokenizer(self) -> Any:
        """An untrained tokenizer and its trainer's options, as `corpus.train_tokenizer` takes them."""
        raise NotImplementedError

    def posed(self, ids: Tensor, pieces: Pieces) -> Posed:
        """Text as a question; randomness is torch's, whose seed the loop sets for each step.

        Args:
            ids: (batch, length) int64, no padding.
            pieces: of the vocabulary, on the device of `ids`.
        """
        raise NotImplementedError


def groups_of(ids: Tensor, pieces: Pieces, unit: str, mean_span: float) -> Tensor:
    """For each piece the number of the unit it belongs to, rising from 0 along a row: (batch, length) int64.

    Args:
        ids: (batch, length).
        pieces: says what goes on with a word.
        unit: `piece`, `word` or `span`: runs of pieces whose lengths are geometric with mean `mean_span`.
        mean_span: pieces.
    """
    if unit == "piece":
        return torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    words = unit == "word"
    begins = ~pieces.continues[ids] if words else torch.rand(ids.shape, device=ids.device) < 1 / mean_span
    begins[:, 0] = False
    return begins.long().cumsum(dim=1)


def chosen(ids: Tensor, pieces: Pieces, share: float, groups: Tensor) -> Tensor:
    """A share of the pieces, whole units at random until there are enough: (batch, length) bool.

    Every row has the same number: `share` of its pieces that are text, the fewest of any row, rounded; at least one.
    The last unit of a row may be chosen in part. Special pieces never are.
    """
    luck = torch.rand(ids.shape, device=ids.device)
    of_group = luck.gather(1, groups)  # one draw a unit
    # within a unit by place, so that a unit is taken whole before the next begins
    rank = of_group - torch.arange(ids.shape[1], device=ids.device) * 1e-7
    rank = rank.masked_fill(pieces.special[ids], -1.0)
    texts = (~pieces.special[ids]).sum(dim=1)
    count = max(1, round(share * int(texts.min())))
    return torch.zeros_like(ids, dtype=torch.bool).scatter_(1, rank.topk(count, dim=1).indices, True)
