"""The encoder as it was pretrained: what every other method is to improve on."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from graftwork.method import Method
from graftwork.regression import read_off, table

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Pretrained(Method):
    """Train nothing: leave the encoder as it is, and see what it is worth before it learned anything of the task.

    A task that compares embeddings needs no more. Where classes are asked for, a quick regression reads them off, as
    other methods begin with; `linear-probe` takes more care.
    """

    paper: ClassVar[str] = "as the baseline of sentence embeddings: SentEval, Conneau & Kiela 2018"
    gradient: ClassVar[bool] = False

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze the encoder; a head that has learned nothing yet is read off it."""
        super().prepare(model, train)
        model.encoder.requires_grad_(False)
        if model.head.fresh:
            read_off(model, *table(model, train))
