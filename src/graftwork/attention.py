"""Attention, computed the way that trains fastest on a CPU.

torch's fused attention on a CPU falls back to a slower one as soon as there is dropout, and in bf16 with a mask it
takes 31 ms where two products and a softmax take 3 (32 texts of 16 tokens, 12 heads of 32).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.dropout import QuickDropout
from graftwork.layers import few_inputs
from graftwork.model import evaluating

_NAME = "graftwork"


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Two products, a softmax, and dropout from quick masks.

    Args:
        module: tells whether it trains.
        query: (batch, heads, length, dim).
        key: (batch, heads, length, dim).
        value: (batch, heads, length, dim).
        attention_mask: added to the scores, broadcast to (batch, heads, length, length).
        scaling: what the scores are multiplied by.
        dropout: share of the weights that are dropped while training.

    Returns:
        (batch, length, heads, dim) and the weights (batch, heads, length, length).
    """
    scores = (query @ key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        lowest = torch.finfo(scores.dtype).min  # of fp32 this would be -inf, and a row of them NaN
        scores = scores + attention_mask.clamp(min=lowest).to(scores.dtype)
    weights = QuickDropout(dropout).train(module.training)(F.softmax(scores, dim=-1))
    return (weights @ value).transpose(1, 2).contiguous(), weights


@contextmanager
def quick_attention(encoder: Any, device: torch.device) -> Iterator[None]:
    """While open, attention is computed the way that trains fastest on `device`.

    Some networks do more between query and value than `attention` does, so the network is asked: where its answers
    would not be the same, it computes its own two products and a softmax.
    """
    before = getattr(encoder.config, "_attn_implementation", None)
    if device.type != "cpu" or before != "sdpa":
        yield
        return
    try:
        encoder.set_attn_implementation("eager")
        expected = _answers(encoder)
        _register()
        encoder.set_attn_implementation(_NAME)
        if not _same(encoder, expected):
            encoder.set_attn_implementation("eager")
        yield
    finally:
        encoder.set_attn_implementation(before)


def _same(encoder: Any, expected: Tensor) -> bool:
    try:
        return torch.allclose(_answers(encoder), expected, atol=1e-4)
    except (TypeError, ValueError, RuntimeError):  # what a network raises that `attention` does not suit
        return False


@torch.no_grad()
def _answers(encoder: nn.Module) -> Tensor:
    """The states of a few inputs, padding left out."""
    inputs = few_inputs(encoder)
    with evaluating(encoder):
        states = encoder(**inputs).last_hidden_state
    return states[inputs["attention_mask"] == 1] if "attention_mask" in inputs else states


@cache
def _register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(_NAME, attention)
    AttentionMaskInterface.register(_NAME, eager_mask)
