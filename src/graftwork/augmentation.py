"""An augmentation writes training texts anew, in such a way that their labels should still hold.

An `Augmentation` is the choice; `build` looks at the train split once and gives the function that rewrites. Every row
comes with a generator of its own, so that what is made of a row does not depend on the rows around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from graftwork.choice import Choice

if TYPE_CHECKING:
    import numpy as np

    from graftwork.data import Split
    from graftwork.hardware import Hardware


@dataclass(frozen=True)
class Example:
    """One labelled row."""

    input: Any
    """A text; tagging: a list of words."""
    label: Any
    """The class, or the list of labels; tagging: a tag a word."""


Rewrite = Callable[[Sequence[Example], "Sequence[np.random.Generator]"], Sequence[Example | None]]
"""Examples, and the luck of each, to rewritten ones in the same order; None where nothing could be rewritten."""


class Augmentation(Choice):
    """How a training text is written anew."""

    for_texts: ClassVar[bool] = True
    """Whether it rewrites texts that have a label, or several."""
    for_words: ClassVar[bool] = False
    """Whether it rewrites words that have tags, and keeps the tags with their words."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """What rewrites.

        Args:
            train: the rows that may be learned from; validation and test are never seen.
            hardware: where a network runs, for kinds that ask one.

        Raises:
            InputError: a model folder is missing or of the wrong kind, or train has nothing to rewrite.
        """
        raise NotImplementedError
