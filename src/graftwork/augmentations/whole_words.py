"""Which pieces of a vocabulary are words by themselves, so that one can stand in the place of a word."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from graftwork.augmentations.passage import casing

_MARKERS = ("Ġ", "▁")
"""What byte-level BPE and SentencePiece write for the space before a word."""
_COMMON = 0.1
"""Share of the pieces that carry a marker, from which on it is the vocabulary's own."""


class WholeWords:
    """The words of a vocabulary: pieces of letters alone that begin a word, by position.

    Attributes:
        ids: their token ids, ascending: (words,) int64.
        words: what they read as.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        found = sorted((index, word) for index, word in _readings(tokenizer) if len(word) > 1 and word.isalpha())
        self.ids = np.array([index for index, _ in found], dtype=np.int64)
        self.words = [word for _, word in found]
        self._position = {word: i for i, word in enumerate(self.words)}
        cases = np.array([casing(word) or "" for word in self.words])
        self._cased = {case: cases == case for case in ("lower", "upper", "capitalize")}

    def position(self, word: str) -> int | None:
        """Where a word of a text stands among them, read as the tokenizer reads it; None for what it splits."""
        return self._position.get(self.read(word))

    def read(self, word: str) -> str:
        """A word as the vocabulary spells it: in lower case, where the tokenizer makes everything so."""
        normalizer = self.tokenizer.normalizer
        return (normalizer.normalize_str(word) if normalizer else word).strip(" ▁")

    def cased_like(self, word: str) -> np.ndarray:
        """Which of them are written in the case of a word, as the tokenizer reads it: (words,) bool."""
        return self._cased.get(casing(self.read(word)) or "", np.zeros(len(self.words), dtype=bool))

    def positions(self, words: Iterable[str]) -> np.ndarray:
        """Where those of `words` stand that are among them, in any case: (found,) int64."""
        asked = frozenset(words)
        return np.array([i for i, word in enumerate(self.words) if word.casefold() in asked], dtype=np.int64)


def _readings(tokenizer: Tokenizer) -> list[tuple[int, str]]:
    """(id, word) of every piece that begins a word."""
    vocabulary = tokenizer.get_vocab(with_added_tokens=False)
    for marker in _MARKERS:
        begins = [index for piece, index in vocabulary.items() if piece.startswith(marker)]
        if len(begins) > _COMMON * len(vocabulary):
            return [(index, tokenizer.decode([index]).strip()) for index in begins]
    inside = tokenizer.model.continuing_subword_prefix if isinstance(tokenizer.model, WordPiece) else None
    return [(index, piece) for piece, index in vocabulary.items() if not (inside and piece.startswith(inside))]
