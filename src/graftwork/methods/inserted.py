"""What the methods have in common that put a part into the frozen encoder and train that part alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftwork.insertion import Insertion, inserted_parameters
from graftwork.method import GradientMethod
from graftwork.model import evaluating

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Inserting(GradientMethod, abstract=True):
    """A part is put into the frozen encoder, trains, and stays there."""

    def insertion(self) -> Insertion:
        """What is put in."""
        raise NotImplementedError

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze the encoder, with what may stand in it already, and put the part in."""
        super().prepare(model, train)
        before = inserted_parameters(model.encoder)
        with evaluating(model.encoder):
            model.insert(self.insertion())
        model.encoder.requires_grad_(False)
        kept = {id(p) for p in before}
        for parameter in inserted_parameters(model.encoder):
            parameter.requires_grad_(id(parameter) not in kept)
