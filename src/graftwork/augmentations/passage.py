"""A passage: an example as words that can be moved, and everything that must stay where it is.

Texts and tagged words are edited by the same four edits. Whatever no edit names keeps its place to the character:
punctuation, white space, and every entity with its tags.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

from graftwork.augmentation import Example

_WORD = re.compile(r"[^\W_](?:\S*[^\W_])?")
"""What stands between two spaces, without the marks at its ends: `3.5`, `U.S`, `film's`, `and/or`."""
_SENTENCE_END = re.compile(r"[.!?…]")
_ARTICLES = ("a", "an")
_VOWELS = tuple("aeiou")
_NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "nor",
        "none",
        "nothing",
        "neither",
        "nobody",
        "nowhere",
        "cannot",
        "without",
        "hardly",
        "barely",
        "n't",
        "n’t",
    ]
)


@dataclass(frozen=True)
class Passage:
    """Words and what stands between them. Edits give a new passage; places are positions in `pieces`."""

    pieces: tuple[str, ...]
    """Of a text: what is no word, a word, what is no word, ..., so that they join to the text. Else the words."""
    tags: tuple[str, ...] | None = None
    """A tag a piece, where words are tagged."""

    @classmethod
    def of(cls, example: Example) -> Passage:
        """The example's words, with their tags where it is a list of words."""
        if not isinstance(example.input, str):
            return cls(tuple(example.input), tuple(example.label))
        pieces, end = [], 0
        for word in _WORD.finditer(example.input):
            pieces += [example.input[end : word.start()], word[0]]
            end = word.end()
        return cls((*pieces, example.input[end:]))

    def example(self, label: object) -> Example:
        """The passage as an example; `label` is that of a text."""
        if self.tags is None:
            return Example("".join(self.pieces), label)
        return Example(list(self.pieces), list(self.tags))

    @cached_property
    def words(self) -> tuple[int, ...]:
        """The places of words: pieces with a letter or a digit."""
        return tuple(i for i, piece in enumerate(self.pieces) if any(c.isalnum() for c in piece))

    @cached_property
    def free(self) -> tuple[int, ...]:
        """The places of words that may be changed: of no entity, and no negation, without which a text says the
        opposite.
        """
        return tuple(
            i for i in self.words if (self.tags is None or self.tags[i] == "O") and not _negates(self.pieces[i])
        )

    @cached_property
    def movable(self) -> tuple[int, ...]:
        """The free places of words that can stand elsewhere: not the capital letter that a sentence begins with."""
        return tuple(i for i in self.free if not (self.pieces[i][0].isupper() and self.begins_sentence(i)))

    def begins_sentence(self, place: int) -> bool:
        """Whether no word stands before this one in its sentence."""
        return self._previous(place) is None or bool(_SENTENCE_END.search(self._before(place)))

    def fits(self, place: int, word: str) -> bool:
        """Whether `word` may stand at `place`: after an article only if it begins with a vowel where the word does."""
        previous = self._previous(place)
        if previous is None or self.pieces[previous].casefold() not in _ARTICLES:
            return True
        return (word[:1].casefold() in _VOWELS) == (self.pieces[place][:1].casefold() in _VOWELS)

    def stands_alone(self, place: int) -> bool:
        """Whether marks, or the ends of the passage, are on both sides: without this word they would meet."""
        first, last = self._previous(place) is None, self._next(place) is None
        return (first or bool(self._before(place).strip())) and (last or bool(self._after(place).strip()))

    def _previous(self, place: int) -> int | None:
        return max((i for i in self.words if i < place), default=None)

    def _next(self, place: int) -> int | None:
        return min((i for i in self.words if i > place), default=None)

    def _before(self, place: int) -> str:
        previous = self._previous(place)
        return "".join(self.pieces[0 if previous is None else previous + 1 : place])

    def _after(self, place: int) -> str:
        return "".join(self.pieces[place + 1 : self._next(place)])

    # --- edits ---

    def replaced(self, words: Mapping[int, str]) -> Passage:
        """With other words at some places."""
        return replace(self, pieces=tuple(words.get(i, piece) for i, piece in enumerate(self.pieces)))

    def exchanged(self, one: int, other: int) -> Passage:
        """With two words in each other's place."""
        return self.replaced({one: self.pieces[other], other: self.pieces[one]})

    def inserted(self, place: int, word: str) -> Passage:
        """With a further word before the free one at `place`."""
        new = (word,) if self.tags else (word, " ")
        tags = self.tags and (*self.tags[:place], "O", *self.tags[place:])
        return Passage((*self.pieces[:place], *new, *self.pieces[place:]), tags)

    def can_lose(self, place: int) -> bool:
        """Whether the passage still reads well without the word at `place`.

        It does not where marks, or its ends, would meet, or an article would no longer suit its word.
        """
        following = self._next(place)
        return not self.stands_alone(place) and (following is None or self.fits(place, self.pieces[following]))

    def without(self, place: int) -> Passage:
        """Without the word at `place`; if a sentence began with it in a capital letter, so it does again."""
        following, raised = self._next(place), self
        if following in self.free and self.pieces[place][0].isupper() and self.begins_sentence(place):
            word = self.pieces[following]
            raised = self.replaced({following: word[0].upper() + word[1:]})
        pieces = raised.pieces
        if self.tags is not None:
            return Passage(pieces[:place] + pieces[place + 1 :], self.tags[:place] + self.tags[place + 1 :])
        left, right = pieces[place - 1], pieces[place + 1]
        # of the two sides the one with marks stays, of two blanks the one that ends a line
        keeps_left = following is not None and not right.strip() and (left.strip() or "\n" not in right)
        return Passage((*pieces[: place - 1], left if keeps_left else right, *pieces[place + 2 :]))


def _negates(word: str) -> bool:
    lower = word.casefold()
    return lower in _NEGATIONS or lower.endswith(("n't", "n’t"))


def casing(word: str) -> str | None:
    """How a word is written: the name of the method of `str` that writes any word so; None for `iPhone`.

    Example:
        >>> [casing(word) for word in ("word", "Word", "WORD", "WoRD")]
        ['lower', 'capitalize', 'upper', None]
    """
    upper = ("upper",) if len(word) > 1 else ()  # `I` and `A` say nothing about the words in their place
    return next((how for how in ("lower", *upper, "capitalize") if getattr(word, how)() == word), None)


@cache
def stop_words() -> frozenset[str]:
    """English words that say little by themselves, in lower case."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)
