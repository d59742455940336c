"""Single weights go to zero while a stage trains, so that the others can take over what they did.

The model is as large and as fast as before: zeros are of use where they are stored or multiplied otherwise. What is
handed back has exactly the share asked for, and is that of the last step, not of the best one before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from graftwork.choice import InputError
from graftwork.modifier import Effect, Modifier
from graftwork.sparsity import Over, highest, matrices

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class MagnitudePruning(Modifier):
    """Hold the smallest weights of the encoder's matrices at zero, a growing share of them."""

    paper: ClassVar[str] = (
        "To prune, or not to prune, Zhu & Gupta 2017, eq. 1; by magnitude: Han et al. 2015, section 3.1"
    )

    share: float = Field(default=0.5, ge=0, lt=1)
    """Of the weights of the linear layers, that are zero in the end."""
    over: Over = "matrix"
    """Whether each matrix loses this share, or all together, so that some lose more."""
    start: float = Field(default=0.1, ge=0, lt=1)
    """Share of the budget after which the first weights go."""
    full: float = Field(default=0.7, ge=0, le=1)
    """Share of the budget from which on the same weights stay zero and the rest recovers; before `start`: at once."""
    every: int = Field(default=20, ge=1)
    """Steps from one choice of the weights that go to the next."""

    def share_at(self, fraction: float) -> float:
        """What is zero at a share `fraction` of the budget: s (1 - (1 - p)^3), p from 0 at `start` to 1 at `full`."""
        if fraction < self.start:
            return 0.0
        part = min((fraction - self.start) / (self.full - self.start), 1.0) if self.full > self.start else 1.0
        return self.share * (1 - (1 - part) ** 3)

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Nothing is zero yet."""
        return _Smallest(self, model, weights)


class _Smallest(Effect):
    """Attributes:
    pruned: the matrices, as they train.
    masks: True where a weight stays.
    settled: whether they are final.
    """

    def __init__(self, choice: MagnitudePruning, model: TransferModel, weights: list[Tensor]):
        of_layers = {id(weight) for weight in matrices(model.encoder)}
        self.choice, self.trained = choice, weights
        self.pruned = [weight for weight in weights if id(weight) in of_layers]
        if not self.pruned:
            raise InputError(
                f"Modifier {choice.name!r} acts on the encoder's own matrices, and none of them trains here. Choose a "
                "method that trains them, such as 'full-fine-tuning'."
            )
        self.settled = False
        self.masks = [torch.ones_like(weight, dtype=torch.bool) for weight in self.pruned]
        self._hold(choice.share_at(0.0))

    def after_step(self, step: int, fraction: float) -> None:
        if not self.settled and (step % self.choice.every == 0 or fraction >= self.choice.full):
            self._choose(self.choice.share_at(fraction))
            self.settled = fraction >= self.choice.full
        self._apply()

    def final(self, score: Callable[[list[Tensor]], float]) -> list[Tensor] | None:
        if not self.settled:  # the stage ended before its budget did
            self._hold(self.choice.share)
        return [weight.detach().clone() for weight in self.trained]

    def state(self) -> dict[str, Tensor]:
        return {"settled": torch.tensor(self.settled)} | {f"mask.{i}": mask for i, mask in enumerate(self.masks)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.settled = bool(state["settled"])
        self.masks = [state[f"mask.{i}"].bool() for i in range(len(self.pruned))]

    def _hold(self, share: float) -> None:
        self._choose(share)
        self._apply()

    def _choose(self, share: float) -> None:
        self.masks = highest(self._scores(), share, self.choice.over)

    def _scores(self) -> list[Tensor]:
        return [weight.detach().abs() for weight in self.pruned]

    @torch.no_grad()
    def _apply(self) -> None:
        for weight, mask in zip(self.pruned, self.masks, strict=True):
            weight.mul_(mask)
