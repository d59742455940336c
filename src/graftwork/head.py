"""A head reads what the encoder says and answers in numbers. Any method can take any head that suits the task.

A `Head` is the choice; `build` makes its network. Most read one vector an example; some read every token's state
(`reads_tokens`), also where there is one answer a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import field_validator
from torch import Tensor, nn

from graftwork.choice import Choice
from graftwork.template import Template

if TYPE_CHECKING:
    from graftwork.model import TransferModel


class HeadNetwork(nn.Module):
    """The layers between embeddings and logits.

    Attributes:
        fresh: whether nothing has been learned yet.
        reads_tokens: whether it reads token states (batch, length, dim) for an answer a text.
        reads_layers: whether it reads every layer's pooled state, (batch, layers + 1, dim), the embeddings' first.
        pretrained: whether its weights are `inherit`ed, and so move no faster than those of the encoder's top.
    """

    reads_tokens: ClassVar[bool] = False
    reads_layers: ClassVar[bool] = False
    pretrained: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.fresh = True

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings (..., dim) to logits (..., classes).

        Where the head reads tokens, states (batch, length, dim) and their `mask` (batch, length), 1 for tokens and 0
        for padding, to logits (batch, classes), or (batch, length, classes) for token-level tasks.
        """
        raise NotImplementedError

    def prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """What the head reads, (n, dim) or (n, layers + 1, dim), as a regression should see it: (n, dim)."""
        return embeddings

    @property
    def probe(self) -> HeadNetwork | None:
        """The linear part that can hold a regression on `prepared` embeddings; None where there is none."""
        return None

    def start(self, embeddings: np.ndarray, targets: np.ndarray) -> None:
        """Begin from `prepared` embeddings (n, dim) and targets, (n,) or (n, labels), where there is no `probe`.

        By default nothing: the weights stay as they were drawn.
        """

    def meet(self, model: TransferModel) -> None:
        """Take the shape that the model's labels, tokenizer and encoder ask for; by default it has it already."""

    def inherit(self, model: TransferModel, folder: Path) -> None:
        """Take over what a pretrained model's `folder` holds besides the encoder; by default nothing.

        Raises:
            InputError: it does not hold what this head needs.
        """


class Head(Choice):
    """How embeddings become answers."""

    template: str = ""
    """What stands around each text, as `{text} It was [MASK].`; the state at the mask is then read, or without a mask
    the last one, instead of the pooled text."""

    for_tokens: ClassVar[bool] = True
    """Whether it can answer for each token, as tagging asks."""
    for_classes: ClassVar[bool] = True
    """Whether it answers in classes at all."""

    @field_validator("template")
    @classmethod
    def _is_a_template(cls, value: str) -> str:
        if value:
            Template(value)
        return value

    def build(self, dim: int, classes: int, *, token_level: bool, layers: int = 1) -> HeadNetwork:
        """A fresh network.

        Args:
            dim: width of the embeddings.
            classes: number of outputs.
            token_level: whether there is an answer for each token.
            layers: how many layers' states there are to read, the embeddings' among them.
        """
        raise NotImplementedError
