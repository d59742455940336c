"""Whole texts written by a model: translated there and back, or made up after an example."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork.augmentation import Augmentation, Example, Rewrite
from graftwork.augmentations.language_model import LanguageModel

if TYPE_CHECKING:
    from graftwork.data import Split
    from graftwork.hardware import Hardware

_SPARE = 16
"""Tokens by which a translation may be longer than its source."""


class _Written(Augmentation, abstract=True):
    """A kind that lets a model write."""

    top_k: int = Field(default=40, ge=1)
    """The most probable tokens that each is drawn from; with 1, the most probable is taken."""
    temperature: float = Field(default=0.9, gt=0)
    """Logits are divided by this before a draw: below 1 the text is more usual, above it more varied."""

    def written(
        self,
        model: LanguageModel,
        texts: Sequence[str | None],
        luck: Sequence[np.random.Generator],
        *,
        longest: int,
        spare: int,
    ) -> list[str | None]:
        """What the model writes for each text; None where there is no text, or one of more than `longest` tokens.

        It may write as many tokens as the text has, and `spare` more.
        """
        given = [text or "" for text in texts]
        lengths = model.lengths(given)
        read = [i for i, text in enumerate(texts) if text and lengths[i] <= longest]
        found: list[str | None] = [None] * len(texts)
        if read:
            room = np.minimum(lengths[read] + spare, model.max_length - 1)
            answers = model.write(
                [given[i] for i in read], [luck[i] for i in read], room=room, top_k=self.top_k,
                temperature=self.temperature,
            )  # fmt: skip
            for i, answer in zip(read, answers, strict=True):
                found[i] = answer.strip()
        return found


class BackTranslation(_Written):
    """Says the same in other words: two translation models of yours carry a text into another language and back.

    Texts longer than the models read are left out, for their end would be lost.
    """

    paper: ClassVar[str] = "Sennrich 2016, section 3.1; drawn, not searched: Edunov 2018, section 4; Xie 2020 (UDA)"

    there: str = ""
    """The folder of a sequence-to-sequence model that translates into the other language."""
    back: str = ""
    """The folder of the one that translates back."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """Both models, one after the other; each text has luck of its own on both ways."""
        ways = [
            LanguageModel.load(folder, "sequence-to-sequence", hardware, asked_by=f"{self.name}.{field}")
            for field, folder in (("there", self.there), ("back", self.back))
        ]

        def rewrite(examples: Sequence[Example], luck: Sequence[np.random.Generator]) -> list[Example | None]:
            texts: list[str | None] = [example.input for example in examples]
            for model, own in zip(ways, zip(*(each.spawn(len(ways)) for each in luck), strict=True), strict=True):
                texts = self.written(model, texts, own, longest=model.max_length, spare=_SPARE)
            return _labelled(texts, examples)

        return rewrite


class Generation(_Written):
    """Makes up texts: a causal model of yours is shown a label with an example, and continues after the label.

    The least faithful of all kinds: check its labels with a finished run.
    """

    paper: ClassVar[str] = "Kumar, Choudhary & Cho 2020, section 3.1; Anaby-Tavor et al. 2020 (LAMBADA), without tuning"

    model: str = ""
    """The folder of a causal language model."""

    def build(self, train: Split, hardware: Hardware) -> Rewrite:
        """A prompt a text; what is written up to the end of the line is the new one."""
        model = LanguageModel.load(self.model, "causal", hardware, asked_by=f"{self.name}.model")

        def rewrite(examples: Sequence[Example], luck: Sequence[np.random.Generator]) -> list[Example | None]:
            prompts = [prompt(example) for example in examples]
            written = self.written(model, prompts, luck, longest=model.max_length // 2, spare=0)
            return _labelled([text and first_line(text) for text in written], examples)

        return rewrite


def prompt(example: Example) -> str:
    r"""What the causal model continues.

    Example:
        >>> prompt(Example("Lovely view.", "good"))
        'good: Lovely view.\ngood:'
    """
    label = example.label if isinstance(example.label, str) else ", ".join(example.label)
    return f"{label}: {' '.join(example.input.split())}\n{label}:"


def first_line(written: str) -> str:
    r"""What was written up to the end of the line; where it never ended, up to the last whole sentence.

    Example:
        >>> first_line("Nice bed.\ngood: Nice"), first_line("Nice bed. But the lift was")
        ('Nice bed.', 'Nice bed.')
    """
    line, ended, _ = written.partition("\n")
    whole = None if ended else re.match(r".*[.!?…](?=\s)", line)
    return (whole[0] if whole else line).strip()


def _labelled(texts: Sequence[str | None], examples: Sequence[Example]) -> list[Example | None]:
    """The texts with the labels of the examples; None where nothing was written."""
    return [Example(text, example.label) if text else None for text, example in zip(texts, examples, strict=True)]
