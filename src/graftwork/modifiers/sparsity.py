"""Single weights go to zero while a stage trains, so that the others can take over what they did.

The model is as large and as fast as before: zeros are of use where they are stored or multiplied otherwise. What is
handed back has exactly the share asked for, and is that of the last step, not of the best one before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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


class Pruning(Modifier, abstract=True):
    """Hold a growing share of the weights of the encoder's matrices at zero."""

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


class MagnitudePruning(Pruning):
    """Hold the smallest weights of the encoder's matrices at zero, a growing share of them."""

    paper: ClassVar[str] = (
        "To prune, or not to prune, Zhu & Gupta 2017, eq. 1; by magnitude: Han et al. 2015, section 3.1"
    )

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Nothing is zero yet."""
        return _Smallest(self, model, weights)


class MovementPruning(Pruning):
    """Hold at zero the weights that training moves towards zero, be they large or small; it wants many steps.

    A weight W has the score S = -sum over steps of dL/dW' times W, where W' = W or zero is what the network computes
    with. The score of a weight at zero goes on, so that it may come back, as it was when it went.
    """

    paper: ClassVar[str] = "Movement Pruning, Sanh, Wolf & Rush 2020, eq. 2-4; the growing share: section 5"

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Nothing has moved yet."""
        return _Moved(self, model, weights)


def _matrices_among(weights: list[Tensor], model: TransferModel) -> list[Tensor]:
    """Those of the weights that are the encoder's own matrices."""
    of_layers = {id(weight) for weight in matrices(model.encoder)}
    return [weight for weight in weights if id(weight) in of_layers]


class _Smallest(Effect):
    """Attributes:
    pruned: the matrices, as they train.
    masks: True where a weight stays.
    settled: whether they are final.
    """

    def __init__(self, choice: Pruning, model: TransferModel, weights: list[Tensor]):
        self.choice, self.trained = choice, weights
        self.pruned = _matrices_among(weights, model)
        if not self.pruned:
            raise InputError(
                f"Modifier {choice.name!r} acts on the encoder's own matrices, and none of them trains here. Choose a "
                "method that trains them, such as 'full-fine-tuning'."
            )
        self.settled = False
        self.masks = [torch.ones_like(weight, dtype=torch.bool) for weight in self.pruned]
        self._hold(choice.share_at(0.0))

    def after_step(self, step: int, fraction: float) -> None:
        self._take_in()
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

    def _take_in(self) -> None:
        """What the optimizer did."""

    @torch.no_grad()
    def _apply(self) -> None:
        for weight, mask in zip(self.pruned, self.masks, strict=True):
            weight.mul_(mask)


class _Moved(_Smallest):
    """Attributes:
    whole: W, the matrices without zeros.
    scores: S.
    """

    def __init__(self, choice: Pruning, model: TransferModel, weights: list[Tensor]):
        pruned = _matrices_among(weights, model)
        self.whole = [weight.detach().clone() for weight in pruned]
        self.scores = [torch.zeros_like(weight) for weight in pruned]
        self.hooks = [weight.register_hook(partial(self._moved, place)) for place, weight in enumerate(pruned)]
        super().__init__(choice, model, weights)

    @torch.no_grad()
    def _moved(self, place: int, gradient: Tensor) -> None:
        self.scores[place].addcmul_(gradient, self.whole[place], value=-1)

    def _scores(self) -> list[Tensor]:
        return self.scores

    @torch.no_grad()
    def _take_in(self) -> None:
        """Weights at zero stay as they were when they went."""
        for whole, weight, mask in zip(self.whole, self.pruned, self.masks, strict=True):
            whole.copy_(torch.where(mask, weight, whole))

    @torch.no_grad()
    def _apply(self) -> None:
        for whole, weight, mask in zip(self.whole, self.pruned, self.masks, strict=True):
            weight.copy_(whole * mask)

    def state(self) -> dict[str, Tensor]:
        of = {"whole": self.whole, "score": self.scores}
        return super().state() | {f"{name}.{i}": each for name, values in of.items() for i, each in enumerate(values)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.whole, self.scores = (
            [state[f"{name}.{i}"] for i in range(len(self.pruned))] for name in ("whole", "score")
        )

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()
