"""Training that knows of the rounding to come: the network computes with weights of few bits while it learns.

Its answers, and what is validated, are those of the rounded network; gradients pass the rounding as if it were not
there. What is handed back is a plain network whose weights lie on that grid already, so that rounding takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from graftwork.method import GradientMethod
from graftwork.shapes import on_grid

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel

LEVELS = {8: 127, 7: 64, 4: 7}
"""Whole numbers on either side of 0; of 7 bits as many as onnxruntime takes where it leaves one bit of 8 out."""
_STEPS = 255  # of an activation's range in 8 bits


class QuantisationAware(GradientMethod):
    """Fine-tune everything with weights, and what they are multiplied with, rounded as they will be afterwards."""

    paper: ClassVar[str] = "Jacob et al. 2018, section 3; straight-through gradients: Bengio et al. 2013"

    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """Each depth below the topmost learns at this times the rate of the one above it; 1 is one rate for all."""
    bits: Literal[8, 7, 4] = 8
    """Of a weight, a row on a scale of its own. With 8 the step `int8` of `graft compress` loses nothing after it; 7
    are what `graft export --quantized` leaves of 8."""
    activations: Literal["int8", "fp32"] = "int8"
    """How what enters a layer is rounded while training: to 8 bits over each text's own range, or not at all."""

    @property
    def depth_factor(self) -> float:
        """`layer_decay`."""
        return self.layer_decay

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Everything trains, through the rounding; a fresh head is read off the unrounded encoder."""
        super().prepare(model, train)
        for module in _rounded(model):
            module.fake = (LEVELS[self.bits], self.activations == "int8")
            # a bound method, so that a deep copy of the model computes with its own weights
            module.forward = MethodType(_linear if isinstance(module, nn.Linear) else _embedding, module)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The weights are put on their grid, and layers compute as before."""
        for module in _rounded(model):
            del module.forward, module.fake
            with torch.no_grad():
                module.weight.copy_(on_grid(module.weight, LEVELS[self.bits]))
        return model


def _rounded(model: TransferModel) -> Iterator[Any]:
    """The layers whose matrices take few bits: what a storage in int8 and an ONNX file round."""
    return (module for module in model.modules() if isinstance(module, (nn.Linear, nn.Embedding)))


def _linear(self: Any, given: Tensor) -> Tensor:
    levels, activations = self.fake
    weight = straight_through(self.weight, on_grid(self.weight.detach(), levels))
    return F.linear(straight_through(given, in_steps(given.detach())) if activations else given, weight, self.bias)


def _embedding(self: Any, ids: Tensor) -> Tensor:
    """Rounds the rows that are read: each has a scale of its own, so that it is as if the whole table were rounded."""
    rows = nn.Embedding.forward(self, ids)
    flat = rows.detach().flatten(0, -2)
    return straight_through(rows, on_grid(flat, self.fake[0]).view_as(rows))


def straight_through(exact: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `exact`."""
    return exact + (rounded - exact).detach()


def in_steps(given: Tensor) -> Tensor:
    """(batch, ...) rounded to 256 steps over each row's own range, in which 0 lies exactly.

    One range a text, not a batch: so a quantised network reads one text at a time.
    """
    values = given.float()
    dims = tuple(range(1, given.ndim))
    low, high = values.amin(dims, keepdim=True).clamp(max=0), values.amax(dims, keepdim=True).clamp(min=0)
    scale = ((high - low) / _STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    zero = (-low / scale).round()
    return (((values / scale).round() + zero).clamp(0, _STEPS) - zero).mul(scale).to(given.dtype)
