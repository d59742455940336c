"""Word-level kinds: some words of a text are deleted, swapped, inserted or replaced, and its label stays.

EDA (Wei & Zou 2019) showed that on small data these gain as much as costlier ways. A few words a text, not more: from
a third on, its section 4.2 measures a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork.augmentation import Augmentation, Example, Rewrite
from graftwork.augmentations.passage import Passage

if TYPE_CHECKING:
    from graftwork.data import Split
    from graftwork.hardware import Hardware

EDA = "Wei & Zou 2019 (EDA), section 2"


class WordLevel(Augmentation, abstract=True):
    """A kind that changes a share of the words, and none of an entity."""

    for_words: ClassVar[bool] = True

    share: float = Field(default=0.1, gt=0, le=0.5)
    """Share of a text's words that is changed; one word at least."""

    def count(self, passage: Passage) -> int:
        """How many words are changed: max(1, share * words), rounded down."""
        return max(1, int(self.share * len(passage.words)))


def each(edited: Callable[[Passage, np.random.Generator], Passage]) -> Rewrite:
    """What rewrites examples one by one, from what edits a passage."""

    def rewrite(examples: Sequence[Example], luck: Sequence[np.random.Generator]) -> list[Example]:
        pairs = zip(examples, luck, strict=True)
        return [edited(Passage.of(example), own).example(example.label) for example, own in pairs]

    return rewrite


class _Edited(WordLevel, abstract=True):
    """A word-level kind that needs to know nothing but the text."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """`edited`, a text at a time."""
        return each(self.edited)

    def edited(self, passage: Passage, luck: np.random.Generator) -> Passage:
        """The passage with some words changed; itself where nothing can be."""
        raise NotImplementedError


class WordDeletion(_Edited):
    """Leaves out some words: each goes with probability `share`, and one goes at least.

    Negations stay, and so does a word without which two marks would meet, or `a` would stand before a vowel.
    """

    paper: ClassVar[str] = EDA + ", random deletion"

    def edited(self, passage: Passage, luck: np.random.Generator) -> Passage:
        """From the last word to the first, so that places stay true."""
        if len(passage.words) < 2:
            return passage
        drawn = luck.random(len(passage.free)) < self.share
        if not drawn.any() and len(drawn):
            drawn[luck.integers(len(drawn))] = True
        for place in reversed(np.array(passage.free, dtype=int)[drawn].tolist()):
            if passage.can_lose(place):
                passage = passage.without(place)
        return passage


class WordSwap(_Edited):
    """Lets pairs of words change places, as many times as `share` says.

    Marks and spaces stay where they are, and so does a capitalised word that a sentence begins with.
    """

    paper: ClassVar[str] = EDA + ", random swap"

    def edited(self, passage: Passage, luck: np.random.Generator) -> Passage:
        """Pairs are drawn one after another, so that a word may travel."""
        movable = passage.movable
        if len(movable) < 2:
            return passage
        for _ in range(self.count(passage)):
            one, other = luck.choice(movable, size=2, replace=False).tolist()
            if passage.fits(one, passage.pieces[other]) and passage.fits(other, passage.pieces[one]):
                passage = passage.exchanged(one, other)
        return passage
