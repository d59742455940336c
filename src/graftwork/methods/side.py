"""Dense side-tuning: the encoder is read, never changed, and a small network beside it learns from all its layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from graftwork.head import Head
from graftwork.heads.layers import DenseSide
from graftwork.method import GradientMethod

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class SideNetwork(GradientMethod):
    """Train a small network beside the frozen encoder, which it reads through dense connections from every layer.

    No gradient enters the encoder, and each text goes through it once: after that an epoch takes seconds.
    """

    paper: ClassVar[str] = "LST: Ladder Side-Tuning, Sung, Cho & Bansal 2022, section 3"
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})

    head: Head = DenseSide()
    """The network beside the encoder: `dense-side`, `scalar-mix`, or any other head."""
    lr: float = Field(default=1e-3, gt=0, lt=1)
    """Learning rate of the encoder, were it to train; the side learns at `head_lr_factor` times as much."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """The side network learns this many times as fast."""
    epochs: float = Field(default=20, gt=0)
    """Passes over the training data, where no budget is given: they are cheap."""
    batch_size: int = Field(default=64, ge=1)
    """Examples an optimizer step."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Freeze the encoder."""
        super().prepare(model, train)
        model.encoder.requires_grad_(False)
