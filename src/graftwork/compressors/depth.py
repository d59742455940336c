"""Fewer blocks: what a deep encoder learned last is what a task misses least."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from graftwork import layers
from graftwork.compressor import Compressor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Layers(Compressor):
    """Leave whole blocks out: latency falls as their number does."""

    paper: ClassVar[str] = "Sajjad et al. 2023, On the effect of dropping layers, section 3; spread: DistilBERT, 2019"
    main: ClassVar[str] = "keep"
    faster: ClassVar[bool] = True
    not_after: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("heads", "ffn"), "what matters in a block was judged with all blocks above it"
    )

    keep: int = Field(default=3, ge=1)
    """How many blocks stay."""
    which: Literal["spread", "lowest"] = "spread"
    """Evenly spaced ones, the lowest and the topmost among them, or the lowest."""

    @classmethod
    def levels(cls, model: TransferModel) -> list[Compressor]:
        """One block less each time, or a sixth of them."""
        count = layers.block_count(model.encoder)
        return [cls(keep=keep) for keep in range(count - 1, 0, -max(1, round(count / 6)))]

    def unsuited(self, model: TransferModel) -> str | None:
        """One list of blocks, more of them than are to stay, and a head that does not read them all."""
        if not layers.has_single_stack(model.encoder):
            return "This encoder's blocks share their weights or stand in two stacks: none can be left out."
        if model.head.reads_layers:
            return f"The head {model.head_choice.name!r} reads every layer, so none can be left out."
        if (count := layers.block_count(model.encoder)) <= self.keep:
            return f"layers={self.keep} leaves nothing out: the encoder has {count} blocks. Give a smaller number."
        return None

    def change(self, model: TransferModel, train: Examples) -> None:
        """Cut the encoder."""
        count = layers.block_count(model.encoder)
        places = np.linspace(0, count - 1, self.keep).round() if self.which == "spread" else np.arange(self.keep)
        layers.keep_blocks(model.encoder, [int(place) for place in places])
