"""Fewer bits on disk: weights are rounded once, and stored as what they were rounded to.

A model that is loaded computes in fp32 as before: it is smaller to keep and to send, and no faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from graftwork.compressor import Compressor
from graftwork.insertion import inserted_weights
from graftwork.shapes import Storage, packed, unpacked

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Half(Compressor):
    """Store the encoder's weights in 16 bits: half the size; plain `transformers` reads it as before."""

    paper: ClassVar[str] = "Kalamkar et al. 2019, A Study of BFLOAT16 for Deep Learning Training"
    main: ClassVar[str] = "precision"
    refits: ClassVar[bool] = False
    stores: ClassVar[bool] = True

    precision: Literal["bf16", "fp16"] = "fp16"
    """fp16 keeps 11 bits of each weight and bf16 8; weights are not large enough for bf16's range to matter."""

    def change(self, model: TransferModel, train: Examples) -> None:
        """Round."""
        _round(model, self.precision)


class Int8(Compressor):
    """Store the encoder's matrices in 8 bits, each row on a scale of its own: a quarter of the size."""

    paper: ClassVar[str] = (
        "Jacob et al. 2018, section 2.1, symmetric, one scale a row: Krishnamoorthi 2018, section 2.2"
    )
    refits: ClassVar[bool] = False
    stores: ClassVar[bool] = True

    def change(self, model: TransferModel, train: Examples) -> None:
        """Round."""
        _round(model, "int8")


class Int4(Compressor):
    """Store the encoder's matrices in 4 bits, each 32 weights of a row on a scale of their own: an eighth, nearly."""

    paper: ClassVar[str] = "Dettmers & Zettlemoyer 2023, The case for 4-bit precision, section 2 (blocks)"
    stores: ClassVar[bool] = True

    def change(self, model: TransferModel, train: Examples) -> None:
        """Round."""
        _round(model, "int4")


def _round(model: TransferModel, storage: Storage) -> None:
    inserted = inserted_weights(model.encoder)
    plain = {k: v for k, v in model.encoder.state_dict().items() if k not in inserted}
    model.encoder.load_state_dict(unpacked(packed(plain, storage)) | inserted)
    model.storage = storage
