"""Averages of the weights that training goes through: wider optima, steadier answers, at no cost when predicting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from graftwork.modifier import Effect, Modifier

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class EMA(Modifier):
    """Hand back an exponential moving average of the weights: each step's share fades with the steps after it.

    After t steps the average of w_1 ... w_t, w_s weighing decay^(t - s), with weights that sum to one: the correction
    of Adam, so that a short stage does not lean on where it began.
    """

    paper: ClassVar[str] = (
        "Acceleration of Stochastic Approximation by Averaging, Polyak & Juditsky 1992; corrected as in Adam, Kingma & "
        "Ba 2015, section 3"
    )

    decay: float = Field(default=0.99, ge=0, lt=1)
    """How much of the average is kept at a step; it looks back some 1 / (1 - decay) steps."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """An average of nothing yet."""
        return _Moving(self, weights)


class SWA(Modifier):
    """Hand back the plain mean of the weights from a share of the budget on.

    The paper keeps the rate high meanwhile: `schedule="constant"` makes the averaged weights differ, a rate that falls
    to zero makes them nearly one. Until then, and wherever validation is better, the weights themselves.
    """

    paper: ClassVar[str] = "Averaging Weights Leads to Wider Optima, Izmailov et al. 2018, algorithm 1"

    start: float = Field(default=0.75, ge=0, lt=1)
    """Share of the budget after which the mean begins."""
    every: int = Field(default=1, ge=1)
    """Steps from one weights that enter the mean to the next."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """A mean of nothing yet."""
        return _Mean(self, weights)


class _Average(Effect):
    """A running average of the weights.

    Attributes:
        taken: how many have entered it.
    """

    def __init__(self, weights: list[Tensor]):
        self.trained, self.taken = weights, 0
        self.average: list[Tensor] = []

    def _take(self, share: float) -> None:
        """Move by `share` of the way to the present weights; the first are taken whole."""
        if not self.taken:
            self.average = [w.detach().clone() for w in self.trained]
        for average, weight in zip(self.average, self.trained, strict=True):
            average.lerp_(weight.detach(), share)
        self.taken += 1

    def weights(self) -> list[Tensor] | None:
        return self.average or None

    def state(self) -> dict[str, Tensor]:
        return {"taken": torch.tensor(self.taken)} | {f"average.{i}": a for i, a in enumerate(self.average)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        self.taken = int(state["taken"])
        self.average = [state[f"average.{i}"] for i in range(len(state) - 1)]


class _Moving(_Average):
    def __init__(self, choice: EMA, weights: list[Tensor]):
        super().__init__(weights)
        self.decay = choice.decay

    def after_step(self, step: int, fraction: float) -> None:
        self._take((1 - self.decay) / (1 - self.decay ** (self.taken + 1)))


class _Mean(_Average):
    def __init__(self, choice: SWA, weights: list[Tensor]):
        super().__init__(weights)
        self.choice = choice

    def after_step(self, step: int, fraction: float) -> None:
        if fraction >= self.choice.start and step % self.choice.every == 0:
            self._take(1 / (self.taken + 1))


class ModelSoup(Modifier):
    """Hand back the mean of several of the run's best checkpoints, as far as validation likes them mixed.

    Greedy: the best comes first, and each next one stays in the mean if validation is not worse for it. A checkpoint is
    what a validation looked at; the candidates are kept in memory, each as large as what trains.
    """

    paper: ClassVar[str] = "Model Soups, Wortsman et al. 2022, recipe 1 ('GreedySoup'), over the checkpoints of one run"

    candidates: int = Field(default=5, ge=2)
    """How many of the best checkpoints are tried."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """No candidate yet."""
        return _Soup(self.candidates)


class _Soup(Effect):
    def __init__(self, size: int):
        self.size = size
        self.candidates: list[tuple[float, list[Tensor]]] = []  # the best first, of equal ones the earlier

    def validated(self, score: float, weights: list[Tensor]) -> None:
        if len(self.candidates) == self.size and score <= self.candidates[-1][0]:
            return
        self.candidates.append((score, [w.detach().clone() for w in weights]))
        self.candidates = sorted(self.candidates, key=lambda candidate: -candidate[0])[: self.size]

    def final(self, score: Callable[[list[Tensor]], float]) -> list[Tensor] | None:
        (best, soup), *others = self.candidates
        ingredients = 1
        for _, candidate in others:
            stirred = [torch.lerp(s, c, 1 / (ingredients + 1)) for s, c in zip(soup, candidate, strict=True)]
            if (reached := score(stirred)) >= best:
                best, soup, ingredients = reached, stirred, ingredients + 1
        return soup

    def state(self) -> dict[str, Tensor]:
        kept = {f"{k}.{i}": w for k, (_, weights) in enumerate(self.candidates) for i, w in enumerate(weights)}
        return {"scores": torch.tensor([score for score, _ in self.candidates], dtype=torch.float64)} | kept

    def load_state(self, state: dict[str, Tensor]) -> None:
        scores = np.asarray(state["scores"].cpu()).tolist()
        each = (len(state) - 1) // max(len(scores), 1)
        self.candidates = [(s, [state[f"{k}.{i}"] for i in range(each)]) for k, s in enumerate(scores)]
