"""Words that are near each other in an encoder's own table of word embeddings, where EDA asks WordNet for synonyms.

The table is at hand in any model, in its language. Near is not always alike in meaning: in MiniLM's table `positive`
is almost as near to `negative` as `funny` to `hilarious`. The threshold keeps most opposites out, not all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork.augmentation import Example, Rewrite
from graftwork.augmentations.language_model import word_embeddings
from graftwork.augmentations.passage import Passage, casing, stop_words
from graftwork.augmentations.whole_words import WholeWords
from graftwork.augmentations.words import EDA, WordLevel, each
from graftwork.reading import read

if TYPE_CHECKING:
    from graftwork.data import Split
    from graftwork.hardware import Hardware


_AT_ONCE = 512
"""Words looked up in one product: 40 MB of cosines with MiniLM's 21,000 words."""


class Neighbours:
    """The near neighbours of words.

    Args:
        words: the whole words of a vocabulary.
        table: the embedding of every piece: (vocabulary, dim).
        threshold: the least cosine of a neighbour.
        most: neighbours a word has at most.
        among: words, in lower case, that alone may be neighbours, and have none themselves; by default any.
    """

    def __init__(
        self, words: WholeWords, table: np.ndarray, *, threshold: float, most: int, among: frozenset[str] | None = None
    ):
        self.words, self.threshold, self.most, self.left = words, threshold, most, among or frozenset()
        rows = table[words.ids].astype(np.float32)
        self._unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)  # (words, dim)
        self._said = np.ones(len(words.words), dtype=bool)
        self._said[words.positions(stop_words())] = False
        if among is not None:
            self._said[[i for i, word in enumerate(words.words) if word.casefold() not in among]] = False
        self._known: dict[str, list[str]] = {}

    def of(self, word: str) -> list[str]:
        """The neighbours of a word of a text, the nearest first, in its own case.

        None for stop words, for words that the tokenizer splits, and for spellings such as `iPhone`; stop words and
        words `related` to it are no neighbours.
        """
        if word not in self._known:
            self.learn([word])
        return self._known[word]

    def learn(self, words: Iterable[str]) -> None:
        """Look up many words at once, which takes a sixth of the time."""
        new = sorted({word for word in words if word not in self._known})
        kept = stop_words() | self.left
        places = [None if word.casefold() in kept else self.words.position(word) for word in new]
        self._known |= {word: [] for word in new}
        found = [(word, place) for word, place in zip(new, places, strict=True) if place is not None]
        for start in range(0, len(found), _AT_ONCE):
            part = found[start : start + _AT_ONCE]
            cosines = self._unit[[place for _, place in part]] @ self._unit.T  # (part, words)
            for (word, place), cosine in zip(part, cosines, strict=True):
                if case := casing(word):
                    self._known[word] = [getattr(name, case)() for name in self._near(place, cosine)][: self.most]

    def _near(self, place: int, cosine: np.ndarray) -> Iterator[str]:
        own = self.words.words[place]
        near = np.flatnonzero((cosine >= self.threshold) & self._said & self.words.cased_like(own))
        names = (self.words.words[i] for i in near[np.argsort(-cosine[near], kind="stable")])
        return (name for name in names if not related(name, own))


def related(one: str, other: str) -> bool:
    """Whether two words are forms of one word, such as `movie` and `movies`, or its opposite, such as `unhappy`.

    So it is taken to be where they share the first half of the shorter, or where one ends with the other. Such words
    are near each other in every table, but the first break the grammar, and the second the label.

    Example:
        >>> related("surprising", "surprised"), related("fair", "unfair"), related("terrible", "dreadful")
        (True, True, False)
    """
    one, other = sorted((one.casefold(), other.casefold()), key=len)
    alike = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    return (alike >= 2 and 2 * alike >= len(one)) or other.endswith(one)


def words_of(file: str) -> frozenset[str]:
    """The words of a file of texts, in lower case: of a .txt, or of every column of a table that holds text.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    path = Path(file).expanduser()
    if path.suffix == ".txt" and path.is_file():
        texts = [path.read_text(encoding="utf-8-sig")]
    else:
        table = next(iter(read(path).tables.values()))
        texts = [cell for column in table.columns for cell in column.to_pylist() if isinstance(cell, str)]
    return frozenset(word for text in texts for word in re.findall(r"\w+", text.casefold()))


class _NearWords(WordLevel, abstract=True):
    """A kind that draws near words."""

    model: str = "minilm"
    """Whose table of word embeddings is read: an embedded model, a folder, or a hub id."""
    threshold: float = Field(default=0.68, gt=0, lt=1)
    """The least cosine of two words that may stand for each other: of MiniLM's, `funny` and `hilarious` (0.68) still
    do, `positive` and `negative` (0.67) do not."""
    neighbours: int = Field(default=5, ge=1)
    """The nearest so many of a word are drawn from."""
    toward: str = ""
    """A file of texts of another domain (.txt, or a table): words that stand there stay as they are, and others give
    way to such words alone; by default to any."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """`edited`, a text at a time, by the neighbours that the model's table gives."""
        tokenizer, table = word_embeddings(self.model, self.name)
        among = words_of(self.toward) if self.toward else None
        near = Neighbours(WholeWords(tokenizer), table, threshold=self.threshold, most=self.neighbours, among=among)
        one_by_one = each(lambda passage, luck: self.edited(passage, near, luck))

        def rewrite(examples: Sequence[Example], luck: Sequence[np.random.Generator]) -> Sequence[Example | None]:
            passages = map(Passage.of, examples)
            near.learn(passage.pieces[place] for passage in passages for place in passage.free)
            return one_by_one(examples, luck)

        return rewrite

    def drawn(self, passage: Passage, near: Neighbours, luck: np.random.Generator) -> Iterator[tuple[int, str]]:
        """(place, near word) of free words at random, as many as `count` says, or as have neighbours."""
        left = self.count(passage)
        for place in luck.permutation(passage.free).tolist():
            if left and (found := [word for word in near.of(passage.pieces[place]) if passage.fits(place, word)]):
                yield place, found[luck.integers(len(found))]
                left -= 1

    def edited(self, passage: Passage, near: Neighbours, luck: np.random.Generator) -> Passage:
        """The passage with some words changed; itself where no word has neighbours."""
        raise NotImplementedError


class NeighbourSynonyms(_NearWords):
    """Replaces some words by near ones of the encoder's own embedding table, in the same case; stop words stay."""

    paper: ClassVar[str] = EDA + ", synonym replacement; neighbours of embeddings as in Wang & Yang 2015, section 3"

    def edited(self, passage: Passage, near: Neighbours, luck: np.random.Generator) -> Passage:
        """Each drawn word gives way to its neighbour."""
        return passage.replaced(dict(self.drawn(passage, near, luck)))


class WordInsertion(_NearWords):
    """Inserts near words of some words of the text, each before a random word."""

    paper: ClassVar[str] = EDA + ", random insertion"

    def edited(self, passage: Passage, near: Neighbours, luck: np.random.Generator) -> Passage:
        """Each neighbour goes before any word that may move."""
        for _, word in list(self.drawn(passage, near, luck)):
            if places := [place for place in passage.movable if passage.fits(place, word)]:
                passage = passage.inserted(int(luck.choice(places)), word)
        return passage
