"""Training between the examples: what lies between two texts is to be answered by what lies between their answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from graftwork.choice import InputError
from graftwork.modifier import Effect, Modifier

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel
    from graftwork.modifier import Criterion


class Mixup(Modifier):
    """Blend each text's embedding with another's of its batch, and its loss with the loss of the other's answer.

    The head reads m e_i + (1 - m) e_j and is charged m loss(y_i) + (1 - m) loss(y_j); m is drawn from
    Beta(alpha, alpha) for each pair. Put it last of the modifiers: what weighs an answer must see the answer itself.
    """

    paper: ClassVar[str] = (
        "mixup, Zhang et al. 2018, section 2; of sentence embeddings: Guo, Mao & Zhang 2019, 'senMixup'"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})

    alpha: float = Field(default=0.2, gt=0)
    """The larger, the nearer to half and half; near 0 texts are hardly mixed."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Refuse a head that reads tokens: the tokens of two texts do not correspond."""
        if model.reads_tokens:
            raise InputError(
                f"mixup blends one vector a text, and the head {model.head_choice.name!r} reads every token. "
                "Take another head, or leave mixup out."
            )

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Pairs drawn anew for each batch."""
        return _Blended(self.alpha)


class _Blended(Effect):
    def __init__(self, alpha: float):
        self.alpha = alpha

    def _pairs(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """How much of each row is its own, (n,), and its partner's place, (n,).

        From the seed that the loop has set for this forward pass: so embeddings and answers are blended alike, in
        every reading of the batch, and nothing has to be remembered between them.
        """
        generator = np.random.default_rng(torch.initial_seed())
        own = torch.from_numpy(generator.beta(self.alpha, self.alpha, len(like)).astype(np.float32))
        return own.to(like.device), torch.from_numpy(generator.permutation(len(like))).to(like.device)

    def embeddings(self, embeddings: Tensor) -> Tensor:
        own, partner = self._pairs(embeddings)
        return torch.lerp(embeddings[partner], embeddings, own.to(embeddings.dtype).unsqueeze(1))

    def criterion(self, inner: Criterion) -> Criterion:
        def blended(logits: Tensor, targets: Tensor) -> Tensor:
            own, partner = self._pairs(logits)
            return own * inner(logits, targets) + (1 - own) * inner(logits, targets[partner])

        return blended
