"""A template says what stands around a text, so that a language model can say what it is by filling a gap.

`{text} It was [MASK].` asks a masked model; one that reads on sees `{text} It was` of it, or is given that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from graftwork.choice import InputError

TEXT, MASK = "{text}", "[MASK]"
_UNIT = re.compile(r"\{text\}|\[MASK\]|[^\W_]+(?:['’-][^\W_]+)*")


@dataclass(frozen=True)
class Template:
    """What stands around each text.

    Args:
        text: with `{text}` once, and `[MASK]` at most once.

    Raises:
        InputError: it has not.

    Example:
        >>> Template("{text} It was [MASK].").around("Nothing works.", "<mask>")
        'Nothing works. It was <mask>.'
    """

    text: str

    def __post_init__(self) -> None:
        if self.text.count(TEXT) != 1 or self.text.count(MASK) > 1:
            raise InputError(
                f"A template has {TEXT} once and {MASK} at most once; got {self.text!r}. "
                f"Write it like '{TEXT} It was {MASK}.'"
            )

    @property
    def units(self) -> list[tuple[int, int]]:
        """Where each word, the text and the gap begin and end."""
        return [match.span() for match in _UNIT.finditer(self.text)]

    @property
    def masked(self) -> bool:
        """Whether there is a gap within it; otherwise the answer follows its end."""
        return MASK in self.text

    @property
    def read_on(self) -> Template:
        """What a model reads that sees no further than the gap: up to it, and the answer follows."""
        return Template(self.text[: self.text.index(MASK)].rstrip()) if self.masked and not self.masked_before else self

    @property
    def masked_before(self) -> bool:
        """Whether the gap stands before the text."""
        return self.masked and self.text.index(MASK) < self.text.index(TEXT)

    @property
    def spaced(self) -> bool:
        """Whether a space stands before the answer, or nothing says otherwise."""
        return not self.masked or self.text[: self.text.index(MASK)].endswith(" ")

    def before(self, mask: str) -> str:
        """What stands before the text; `mask` is what the model knows as one."""
        return self.text.partition(TEXT)[0].replace(MASK, mask)

    def after(self, mask: str) -> str:
        """What stands after the text; `mask` is what the model knows as one."""
        return self.text.partition(TEXT)[2].replace(MASK, mask)

    def around(self, given: str, mask: str) -> str:
        """The template with a text in it; `mask` is what the model knows as one."""
        return self.before(mask) + given + self.after(mask)
