"""Which single weights of an encoder count, and which may be zero.

A matrix with zeros is as large and as fast as one without: nothing here makes a model smaller until somebody stores it
otherwise, and nothing faster on hardware that multiplies by zero like by any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from graftwork.insertions.adapters import linear_layers

if TYPE_CHECKING:
    from torch import nn

Over = Literal["matrix", "global"]


def matrices(encoder: nn.Module) -> list[nn.Parameter]:
    """The weights of the encoder's own linear layers, in their order: no tables, biases, norms, nor what LoRA adds."""
    return [layer.weight for name, layer in linear_layers(encoder).items() if ".lora_" not in name]  # type: ignore[misc]


def highest(scores: Sequence[Tensor], share: float, over: Over) -> list[Tensor]:
    """Where the best scores are: of each tensor True but for the lowest `share` of it, or of all of them together.

    Args:
        scores: one a matrix.
        share: in [0, 1); so many of the lowest are False, rounded down; among equal ones the first.
        over: whether each matrix loses that share, or all together.
    """
    if over == "global":
        flat = torch.cat([each.flatten() for each in scores])
        parts = _highest(flat, share).split([each.numel() for each in scores])
        return [part.view_as(each) for part, each in zip(parts, scores, strict=True)]
    return [_highest(each.flatten(), share).view_as(each) for each in scores]


def _highest(scores: Tensor, share: float) -> Tensor:
    kept = torch.ones(len(scores), dtype=torch.bool, device=scores.device)
    count = int(share * len(scores))
    if count:
        kept[torch.topk(scores, count, largest=False, sorted=False).indices] = False
    return kept


def zeros(weights: Sequence[Tensor]) -> float:
    """The share of weights that are zero, in [0, 1]."""
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / max(total, 1)
