"""Training a chosen few of the pretrained weights, wherever they stand: the biases, or the norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field
from torch import nn

from graftwork.choice import InputError
from graftwork.method import GradientMethod

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Selective(GradientMethod, abstract=True):
    """What the methods that train a chosen few weights have in common."""

    lr: float = Field(default=2e-3, gt=0, lt=1)
    """Learning rate of what trains of the encoder, at its peak."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """The head learns this many times as fast."""

    def chosen(self, encoder: nn.Module) -> list[nn.Parameter]:
        """The encoder's parameters that train."""
        raise NotImplementedError

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze the encoder but for what is chosen."""
        chosen = self.chosen(model.encoder)
        if not chosen:
            raise InputError(
                f"This encoder has nothing that {self.name!r} could train. Choose another method, such as 'lora'."
            )
        super().prepare(model, train)
        model.encoder.requires_grad_(False)
        for parameter in chosen:
            parameter.requires_grad_(True)


class BitFit(Selective):
    """Train the biases alone, one parameter in a thousand: what the encoder knows is shifted, never rewritten."""

    name: ClassVar[str] = "bitfit"
    paper: ClassVar[str] = "BitFit, Ben Zaken, Ravfogel & Goldberg 2022, section 3"

    def chosen(self, encoder: nn.Module) -> list[nn.Parameter]:
        """Every bias, those of norms included."""
        return [p for name, p in encoder.named_parameters() if name.rpartition(".")[2] == "bias"]


class LayerNormTuning(Selective):
    """Train the weights and biases of the norms alone: the fewest parameters that reach into every block."""

    paper: ClassVar[str] = "Zhao et al. 2023, Tuning LayerNorm in Attention; Qi et al. 2022, Parameter-Efficient Tuning"

    def chosen(self, encoder: nn.Module) -> list[nn.Parameter]:
        """What stands in a module whose class is called some kind of `Norm`."""
        norms = [module for module in encoder.modules() if type(module).__name__.endswith("Norm")]
        return [p for norm in norms for p in norm.parameters(recurse=False)]
