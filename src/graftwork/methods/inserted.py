"""What the methods have in common that put a part into the frozen encoder and train that part alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftwork.insertion import Insertion, inserted_parameters
from graftwork.method import GradientMethod
from graftwork.model import evaluating

if TYPE_CHECKING:
    from torch import nn

    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Inserting(GradientMethod, abstract=True):
    """A part is put into the frozen encoder, trains, and stays there."""

    def insertion(self) -> Insertion:
        """What is put in."""
        raise NotImplementedError

    def start(self, encoder: nn.Module, train: Examples) -> None:
        """Give the part, which has just been put in and alone requires gradients, its first values; it has some."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze the encoder, with what may stand in it already, and put the part in; a head is read off with it."""
        model.encoder.requires_grad_(False)
        with evaluating(model.encoder):
            model.insert(self.insertion())
            self.start(model.encoder, train)
        part = [parameter for parameter in inserted_parameters(model.encoder) if parameter.requires_grad]
        super().prepare(model, train)
        model.encoder.requires_grad_(False)
        for parameter in part:
            parameter.requires_grad_(True)
