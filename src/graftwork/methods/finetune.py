"""Fine-tuning the pretrained weights themselves: all of them, the topmost, at different rates, or one after another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from graftwork import layers
from graftwork.method import GradientMethod

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class FullFineTuning(GradientMethod):
    """Train every weight: the most accurate when labels are many, the most expensive always."""

    paper: ClassVar[str] = "BERT, Devlin et al. 2019, section 4; layer-wise rates: Sun et al. 2019, section 5.3.2"

    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """Each depth below the topmost learns at this times the rate of the one above it; 1 is one rate for all."""

    @property
    def depth_factor(self) -> float:
        """`layer_decay`."""
        return self.layer_decay


class TopLayers(GradientMethod):
    """Train the topmost blocks and the head; the rest is frozen, computed once an example, and read from disk."""

    paper: ClassVar[str] = "Lee, Tang & Lin 2019, What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning"

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "blocks": (1, 2, 3, 4)}

    blocks: int = Field(default=2, ge=0)
    """How many of the topmost blocks train; 0 trains the head alone."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze everything below the topmost blocks."""
        super().prepare(model, train)
        layers.train_top(model.encoder, self.blocks)


class DiscriminativeRates(GradientMethod):
    """Train every weight, the lower the slower: general knowledge lies low and is kept."""

    paper: ClassVar[str] = "ULMFiT, Howard & Ruder 2018, section 3.2, 'Discriminative fine-tuning'"

    decay: float = Field(default=2.6, ge=1)
    """The rate of each depth is that of the one above it divided by this; ULMFiT found 2.6."""

    @property
    def depth_factor(self) -> float:
        """One `decay`-th."""
        return 1 / self.decay


class GradualUnfreezing(GradientMethod):
    """Train the head first, then one more depth each epoch from the top: a head that knows nothing tears no depth."""

    paper: ClassVar[str] = "ULMFiT, Howard & Ruder 2018, section 3.3, 'Gradual unfreezing'"

    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """Each depth below the topmost learns at this times the rate of the one above it; 1 is one rate for all."""
    every: int = Field(default=1, ge=1)
    """Epochs between two unfreezings."""
    epochs: float = Field(default=10, gt=0)
    """Passes over the training data, where no budget is given: one for the head, one for each depth, and some over."""

    @property
    def depth_factor(self) -> float:
        """`layer_decay`."""
        return self.layer_decay

    def on_epoch(self, model: TransferModel, epoch: int) -> None:
        """Epoch 0 trains the head; each `every` epochs the next depth below joins."""
        groups = layers.layer_groups(model.encoder)
        layers.train_only(model.encoder, groups[max(0, len(groups) - epoch // self.every) :])
