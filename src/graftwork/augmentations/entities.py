"""Entities of one type can stand for each other: what is around them says what they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork.augmentation import Augmentation, Example, Rewrite
from graftwork.augmentations.passage import Passage
from graftwork.choice import InputError

if TYPE_CHECKING:
    from graftwork.data import Split
    from graftwork.hardware import Hardware

Mention = tuple[str, ...]


class EntityReplacement(Augmentation):
    """Replaces entities by others of the same type that occur in train; tags go with them, in IOB2."""

    paper: ClassVar[str] = "Dai & Adel 2020, section 3, mention replacement"
    for_texts: ClassVar[bool] = False
    for_words: ClassVar[bool] = True

    share: float = Field(default=0.5, gt=0, le=1)
    """The probability of each entity to be replaced; one is at least."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """Learn the entities of train, then replace.

        Raises:
            InputError: train has no entity in IOB2.
        """
        known = mentions(train)
        if not known:
            raise InputError("Kind 'entity-replacement' needs entities in IOB2 (B-TYPE, I-TYPE); train has none.")

        def rewrite(examples: Sequence[Example], luck: Sequence[np.random.Generator]) -> list[Example | None]:
            return [self.replaced(example, known, own) for example, own in zip(examples, luck, strict=True)]

        return rewrite

    def replaced(self, example: Example, known: dict[str, list[Mention]], luck: np.random.Generator) -> Example | None:
        """The example with some entities replaced; None where it has none."""
        found = list(spans(example.label))
        if not found:
            return None
        drawn = luck.random(len(found)) < self.share
        if not drawn.any():
            drawn[luck.integers(len(found))] = True
        passage, words, tags = Passage.of(example), list(example.input), list(example.label)
        # from the last to the first, so that places stay true
        for (start, end, kind), goes in reversed(list(zip(found, drawn, strict=True))):
            others = [
                mention for mention in known[kind]
                if not _alike(mention, example.input[start:end]) and passage.fits(start, mention[0])
            ]  # fmt: skip
            if goes and others:
                new = list(others[luck.integers(len(others))])
                if example.input[start][:1].isupper() and passage.begins_sentence(start):
                    new[0] = new[0][:1].upper() + new[0][1:]
                words[start:end] = new
                tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (len(new) - 1)]
        return Example(words, tags)


def spans(tags: Sequence[str]) -> Iterator[tuple[int, int, str]]:
    """(first word, behind the last one, type) of every entity in IOB2, in order.

    Example:
        >>> list(spans(["O", "B-PER", "I-PER", "B-LOC"]))
        [(1, 3, 'PER'), (3, 4, 'LOC')]
    """
    starts = [i for i, tag in enumerate(tags) if tag.startswith("B-")]
    for start in starts:
        kind, end = tags[start][2:], start + 1
        while end < len(tags) and tags[end] == f"I-{kind}":
            end += 1
        yield start, end, kind


def mentions(train: Split) -> dict[str, list[Mention]]:
    """Type -> its distinct entities, sorted.

    One that a sentence begins with may owe its capital to that place: it is taken without, where train has its first
    word so.
    """
    texts = train.inputs()
    lower = {word for words in texts for word in words if word[:1].islower()}
    known: dict[str, set[Mention]] = {}
    for words, tags in zip(texts, train.labels(), strict=True):
        passage = Passage(tuple(words), tuple(tags))
        for start, end, kind in spans(tags):
            plain = words[start][:1].lower() + words[start][1:]
            first = plain if plain in lower and passage.begins_sentence(start) else words[start]
            known.setdefault(kind, set()).add((first, *words[start + 1 : end]))
    return {kind: sorted(found) for kind, found in sorted(known.items())}


def _alike(one: Sequence[str], other: Sequence[str]) -> bool:
    return [word.casefold() for word in one] == [word.casefold() for word in other]
