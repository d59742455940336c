"""Heads that read every token's state: by convolution over neighbours, or by asking which tokens matter."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork.head import Head, HeadNetwork


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    """Of tokens (batch, length, dim), padding left out: (batch, dim)."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1)


class SeparableNetwork(HeadNetwork):
    """Token states (batch, length, dim), each joined with its neighbours, to logits a text or a token.

    x + pointwise(GELU(depthwise(x))): the depthwise convolution mixes neighbours within each channel, the pointwise one
    channels within each token. Together k dim + dim + dim^2 + dim parameters, where a dense convolution over k tokens
    has k dim^2 + dim.
    """

    reads_tokens: ClassVar[bool] = True

    def __init__(self, dim: int, classes: int, kernel: int, *, token_level: bool):
        super().__init__()
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.pointwise = nn.Conv1d(dim, dim, 1)
        self.linear = nn.Linear(dim, classes)
        self.token_level = token_level
        nn.init.zeros_(self.pointwise.weight)  # at first the states are as the encoder gave them
        nn.init.zeros_(self.pointwise.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, classes), or (batch, length, classes)."""
        states = states.float()
        mask = torch.ones(states.shape[:2], device=states.device) if mask is None else mask
        channels = (states * mask.unsqueeze(-1)).transpose(1, 2)  # (batch, dim, length), zeros where padding is
        joined = states + self.pointwise(F.gelu(self.depthwise(channels))).transpose(1, 2)
        return self.linear(joined if self.token_level else _mean(joined, mask))


class DepthwiseSeparable(Head):
    """A convolution over neighbouring tokens with a fraction of a dense one's parameters: for what stands together."""

    paper: ClassVar[str] = "Xception, Chollet 2017, section 1.2, over tokens instead of pixels"

    kernel: int = Field(default=3, ge=1)
    """Tokens that each output sees; an odd number."""

    @field_validator("kernel")
    @classmethod
    def _is_odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("it must be odd, so that a token stands in the middle")
        return kernel

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A `SeparableNetwork` that begins as a mean and a linear layer."""
        return SeparableNetwork(dim, classes, self.kernel, token_level=token_level)


class AttendingNetwork(HeadNetwork):
    """Token states (batch, length, dim), averaged with weights softmax(x q), to (batch, classes) by a linear layer."""

    reads_tokens: ClassVar[bool] = True

    def __init__(self, dim: int, classes: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))  # at first every token counts alike
        self.linear = nn.Linear(dim, classes)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, classes)."""
        states = states.float()
        scores = states @ self.query  # (batch, length)
        if mask is not None:
            scores = scores.masked_fill(mask == 0, float("-inf"))
        return self.linear((scores.softmax(dim=1).unsqueeze(-1) * states).sum(dim=1))


class AttentionPooling(Head):
    """Learn which tokens matter, and read their weighted mean: for long texts with few telling words."""

    paper: ClassVar[str] = "A Structured Self-Attentive Sentence Embedding, Lin et al. 2017, eq. 5 with one hop"
    for_tokens: ClassVar[bool] = False

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """An `AttendingNetwork` that begins as a mean and a linear layer."""
        return AttendingNetwork(dim, classes)
