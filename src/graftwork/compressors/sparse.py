"""Single weights set to zero: how much of a network is idle. It becomes no smaller and no faster by it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from graftwork.compressor import Compressor
from graftwork.sparsity import Over, highest, matrices, zeros

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Sparse(Compressor):
    """Set the smallest weights of the linear layers to zero. The model takes as much room and time as before.

    Training after it, where there is a budget, holds as large a share at zero.
    """

    paper: ClassVar[str] = "Learning both Weights and Connections, Han et al. 2015, section 3.1"
    main: ClassVar[str] = "share"

    share: float = Field(default=0.5, gt=0, lt=1)
    """Of the weights, that becomes zero."""
    over: Over = "matrix"
    """Whether each matrix loses this share, or all together, so that some lose more."""

    @property
    def idle(self) -> tuple[float, Over]:
        """The share that training is to hold at zero, and of what."""
        return self.share, self.over

    def change(self, model: TransferModel, train: Examples) -> None:
        """Set them to zero."""
        weights = matrices(model.encoder)
        with torch.no_grad():
            for weight, kept in zip(weights, highest([w.abs() for w in weights], self.share, self.over), strict=True):
                weight.mul_(kept)

    def notes(self, before: TransferModel, after: TransferModel, validation: Examples) -> dict[str, Any]:
        """What share of the linear layers, and of all weights, is zero."""
        return {
            "zeros_in_linear_layers": zeros(matrices(after.encoder)),
            "zeros_in_all_weights": zeros(list(after.parameters())),
        }
