"""A pretext is what a network is asked of raw examples, so that it learns the language, or to see, before any task.

Text and pictures are their own answer: a pretext hides or spoils some of one, says where the network must answer, and
what is right there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from graftwork.choice import Choice, lookup, names

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
    closes: Tensor
    """Whether a sentence ends with a piece, as with a full stop: (count,) bool."""
    mask_id: int | None = None
    """What stands in a gap; None where the vocabulary has nothing for it."""
    segments: int = 1
    """How many passages of a text the network tells apart (token types)."""

    def to(self, device: torch.device) -> Pieces:
        """The same on `device`."""
        tensors = {name: getattr(self, name).to(device) for name in ("special", "continues", "closes")}
        return replace(self, **tensors)


@dataclass(frozen=True)
class Posed:
    """A question to the network."""

    inputs: dict[str, Tensor]
    """The encoder's arguments."""
    asked: Tensor
    """Where it must answer: (batch, length of its states) bool."""
    answers: Tensor
    """The ids that are right there, in the order of `asked`: (answers,) int64."""
    apart: Tensor | None = None
    """Whether the two passages of each text do not follow one another: (batch,) int64; None where that is not asked."""


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
    """What is asked of raw examples, here of plain text. Subclasses say how; the shelf is `pretexts/`."""

    reads: ClassVar[str] = "text"
    """What an example is, as the `reads` of a modality says it."""
    kind: ClassVar[str]
    """Of the language model that it makes, one of `models.LANGUAGE_MODELS`."""

    @property
    def compares(self) -> bool:
        """Whether it asks also how two passages of a text belong together."""
        return False

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


@dataclass(frozen=True)
class Shown:
    """A question about pictures."""

    pixels: Tensor
    """What there is to look at: (batch, 3, height, width)."""
    seen: Tensor
    """The patches that the encoder sees, in the order in which it gets them: (batch, seen) int64."""
    asked: Tensor
    """The patches that are to be rebuilt: (batch, patches) bool, as many of each picture."""
    answers: Tensor
    """What is right for every patch: (batch, patches, numbers)."""


class PicturePretext(Pretext, abstract=True):
    """What is asked of pictures: to rebuild what is hidden or spoiled. A light decoder answers, and is thrown away."""

    reads: ClassVar[str] = "image"
    kind: ClassVar[str] = "image"

    decoder_layers: int = Field(default=2, ge=1)
    """Blocks of the decoder, which is half as wide as the encoder."""

    def seen(self, patches: int) -> int:
        """How many of so many patches the encoder sees: by default all."""
        return patches

    def shown(self, pixels: Tensor, patch: int) -> Shown:
        """Pictures as a question; randomness is torch's, whose seed the loop sets for each step.

        Args:
            pixels: (batch, 3, height, width), normalised.
            patch: pixels of each side of a patch.
        """
        raise NotImplementedError


def patches_of(pixels: Tensor, patch: int) -> Tensor:
    """Pictures cut into patches, row by row, a patch's numbers pixel by pixel: (batch, patches, patch * patch * 3).

    Args:
        pixels: (batch, 3, height, width).
        patch: pixels of each side.
    """
    rows, columns = (side // patch for side in pixels.shape[2:])
    cut = pixels.unflatten(3, (columns, patch)).unflatten(2, (rows, patch))  # (batch, 3, rows, patch, columns, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def pretext_of(kind: str) -> Pretext:
    """The one on the shelf that makes a language model of this kind, with its defaults."""
    return next(found() for name in names(Pretext) if (found := lookup(Pretext, name)).kind == kind)


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


def passages(ids: Tensor, pieces: Pieces, relation: str) -> tuple[Tensor, Tensor, Tensor]:
    """Two passages of each text, equally long, of which one half of them do not follow one another.

    With `next` the second is then that of another text of the batch (Devlin et al. 2019, section 3.1); with `order` the
    two stand the other way round (ALBERT, Lan et al. 2020, section 3.1). They meet where a sentence ends, if one ends
    in the middle quarter of the text. A text that is alone in its batch cannot be given another's.

    Args:
        ids: (batch, length), a special piece at either end.
        pieces: of the vocabulary.
        relation: `next` or `order`.

    Returns:
        ids (batch, about 3/4 length), what ends a text standing between the passages too; which passage each piece is
        of, 0 or 1; and whether the passages do not follow one another, (batch,).
    """
    start, inner, end = ids[:, :1], ids[:, 1:-1], ids[:, -1:]
    size = 3 * inner.shape[1] // 8
    last = inner.shape[1] - size
    luck = torch.rand((len(ids), last - size + 1), device=ids.device)
    seam = size + (luck + pieces.closes[inner[:, size - 1 : last]]).argmax(dim=1)
    places = seam[:, None] + torch.arange(size, device=ids.device)
    first, second = inner.gather(1, places - size), inner.gather(1, places)
    apart = torch.rand(len(ids), device=ids.device) < 0.5
    if relation == "next":
        apart &= len(ids) > 1
        other = second.roll(int(torch.randint(1, max(2, len(ids)), ())), dims=0)
        second = torch.where(apart[:, None], other, second)
    else:
        first, second = torch.where(apart[:, None], second, first), torch.where(apart[:, None], first, second)
    joined = torch.cat([start, first, end, second, end], dim=1)
    of_second = torch.arange(joined.shape[1], device=ids.device) >= size + 2
    return joined, of_second.long().expand_as(joined), apart.long()
