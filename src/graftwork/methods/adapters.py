"""Adapter tuning: the encoder stays as it is, and small bottlenecks between its layers learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from graftwork.insertions.adapters import Adapters
from graftwork.methods.inserted import Inserting


class HoulsbyAdapters(Inserting):
    """Train two small bottlenecks in each block, after its attention and its feed-forward; the encoder stays as it is.

    They cannot be merged: the answers take a little longer, and the encoder can be shared by many tasks. Of a width d
    and m = d / `reduction` each adapter has 2dm + m + d parameters.
    """

    paper: ClassVar[str] = "Parameter-Efficient Transfer Learning for NLP, Houlsby et al. 2019, section 2.1"

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "reduction": (4, 8, 16)}

    reduction: float = Field(default=8.0, ge=1)
    """The encoder's width divided by that of the bottlenecks."""
    lr: float = Field(default=2e-3, gt=0, lt=1)
    """Learning rate of the adapters, at its peak."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """The head learns this many times as fast."""

    def insertion(self) -> Adapters:
        """After attention and feed-forward."""
        return Adapters(after="both", reduction=self.reduction)


class PfeifferAdapters(HoulsbyAdapters):
    """Train one small bottleneck in each block, after its feed-forward: half of Houlsby's, and often as good.

    It stands before the residual sum, as Houlsby's does; AdapterFusion puts another norm beside it.
    """

    paper: ClassVar[str] = "AdapterFusion, Pfeiffer et al. 2021: one adapter a block, after the feed-forward"

    def insertion(self) -> Adapters:
        """After the feed-forward alone."""
        return Adapters(after="feed-forward", reduction=self.reduction)
