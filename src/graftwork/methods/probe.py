"""The linear probe: what the frozen encoder already knows, read off by logistic regression."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork.method import Method
from graftwork.regression import Regression, table

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class LinearProbe(Method):
    """Freeze the encoder and fit a logistic regression on its embeddings: seconds, and hard to beat with few labels."""

    paper: ClassVar[str] = "Alain & Bengio 2016; as a sentence-classification baseline: SentEval, Conneau & Kiela 2018"
    gradient: ClassVar[bool] = False
    reads_off: ClassVar[bool] = True

    strengths: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0)
    """Inverse regularisation strengths C to choose from; the best in cross-validation on train is taken."""
    folds: int = Field(default=5, ge=2)
    """Folds of the cross-validation; fewer where a class has fewer examples."""
    max_iter: int = Field(default=1000, ge=1)
    """Iterations of the solver at most."""
    tolerance: float = Field(default=1e-4, gt=0)
    """The solver stops where no element of the gradient is larger."""
    seed: int = Field(default=0, ge=0)
    """Of the folds."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze the encoder."""
        super().prepare(model, train)
        model.encoder.requires_grad_(False)
        model.head.requires_grad_(True)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """Fit the head in closed form."""
        solver = Regression(self.strengths, self.folds, self.max_iter, self.tolerance, self.seed)
        x, y = table(model, train)
        weight = np.ones(len(y))
        for modifier in self.modifiers:
            x, y, weight = modifier.table(x, y, weight, self.seed)
        solver.write_head(model, x, y, weight)
        return model
