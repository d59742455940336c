"""When the rows that have labels are not of the domain that matters: those count more that look like it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork.domain_classifier import importance, out_of_fold
from graftwork.examples import tokenised
from graftwork.features import embeddings
from graftwork.modifier import Effect, Modifier

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class ImportanceSampling(Modifier):
    """Read source rows the more often, the more they look like the target's.

    A row is drawn with a chance in proportion to p / (1 - p), where p is the probability that it is of the target, told
    from the embeddings of the model as the stage finds it by a classifier that did not learn from this row. It helps
    where the target's texts are among the kinds that the source has, and costs where few of these are like it.
    """

    paper: ClassVar[str] = (
        "Shimodaira 2000, section 4; by a classifier: Bickel, Brückner & Scheffer 2009, section 3; drawn instead of "
        "weighted: sampling-importance resampling, Rubin 1988"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"target", "pooled"})

    flatten: float = Field(default=1.0, ge=0, le=1)
    """The power of p / (1 - p): at 0 all rows are alike."""
    most: float = Field(default=10.0, gt=1)
    """No row counts more than so many average ones."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Tell how much each source row looks like the target, on the weights as they are before the stage."""
        target = tokenised(train.data, "target", model.task, model.modality)
        told, _ = out_of_fold(embeddings(model, train), embeddings(model, target))
        model.importance = importance(told, flatten=self.flatten, most=self.most)  # type: ignore[assignment]

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Rows drawn anew for each epoch, as many as there are."""
        return _Drawn(model)


class _Drawn(Effect):
    def __init__(self, model: TransferModel):
        self.model, self.chances = model, np.asarray(model.importance)

    def places(self, generator: np.random.Generator) -> np.ndarray:
        """Systematic resampling: each row as often as expected, give or take one."""
        edges = np.cumsum(self.chances)
        return np.searchsorted(edges, (np.arange(len(edges)) + generator.random()) * edges[-1] / len(edges))

    def end(self) -> None:
        del self.model.importance
