"""What a stage minimises while it runs, and the state that this needs.

A method is a frozen choice, so what it has to remember lives here: a teacher's answers, class weights, the running mean
of the weights. By default an objective is the task's own loss, with what the method's modifiers make of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graftwork.examples import Batch, Examples
from graftwork.model import TransferModel

if TYPE_CHECKING:
    from graftwork.method import GradientMethod


class Objective:
    """The task's loss on every example once an epoch.

    Args:
        method: whose stage it is.
        model: as it begins to train.
        train: what it trains on.
        weights: what trains; modifiers take their first values as where training began.
    """

    whole: bool = False
    """Whether a batch must stay together, because the loss compares its rows; it is then never split for memory."""

    def __init__(self, method: GradientMethod, model: TransferModel, train: Examples, weights: list[Any]):
        self.method, self.model, self.train, self.trained = method, model, train, weights
        self.effects = [modifier.begin(model, train, weights) for modifier in method.modifiers]
        self.passes = max([1, *(effect.passes for effect in self.effects)])
        self._criterion: Callable[[Tensor, Tensor], Tensor] = self._plain
        for effect in self.effects:
            self._criterion = effect.criterion(self._criterion)

    # --- which examples when ---

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps an epoch."""
        return math.ceil(self._epoch_size() / self.method.batch_size)

    def batches(self, seed: tuple[int, ...]) -> list[np.ndarray]:
        """The windows of each step of one epoch; it depends on `seed` alone."""
        return self.train.shuffled(self.method.batch_size, seed, self._places(seed))

    def _places(self, seed: tuple[int, ...]) -> np.ndarray | None:
        for number, effect in enumerate(self.effects):
            places = effect.places(np.random.default_rng((*seed, 1, number)))
            if places is not None:
                return places
        return None

    def _epoch_size(self) -> int:
        places = self._places((0,))
        return len(self.train if places is None else places)

    # --- one step ---

    def loss(self, batch: Batch) -> Tensor:
        """What is minimised: a scalar, the mean over what the batch asks."""
        return self.answers(self._logits(batch), batch.targets) + self.penalty()

    def answers(self, passes: list[Tensor], targets: Tensor) -> Tensor:
        """The mean loss of answers, given as logits of one or more passes, with what the modifiers make of it."""
        task = self.model.task
        asked = [task.asked(logits, targets) for logits in passes]
        answers = asked[0][1]
        losses = torch.stack([self._criterion(logits, answers) for logits, _ in asked]).mean(dim=0)
        for effect in self.effects:
            more = effect.disagreement([logits for logits, _ in asked], answers)
            losses = losses if more is None else losses + more
        return losses.mean()

    def penalty(self) -> Tensor | float:
        """What the modifiers add, whatever the batch."""
        found = [effect.penalty() for effect in self.effects]
        return sum((p for p in found if p is not None), 0.0)

    def _logits(self, batch: Batch) -> list[Tensor]:
        mask = batch.inputs.get("attention_mask")
        return [self.model.head(self._embeddings(batch), mask) for _ in range(self.passes)]

    def _embeddings(self, batch: Batch) -> Tensor:
        embeddings = self._read(batch)
        for effect in self.effects:
            embeddings = effect.embeddings(embeddings)
        return embeddings

    def _read(self, batch: Batch) -> Tensor:
        return self.model.embed(batch.inputs)

    def _plain(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.model.task.losses(logits, targets, smoothing=self.method.label_smoothing)

    def after_step(self, step: int, fraction: float) -> None:
        """Called after each optimizer step (the first is 1), at a share `fraction` of the budget."""
        for effect in self.effects:
            effect.after_step(step, fraction)

    def scores(self, validation: Examples, precision: str) -> dict[str, float] | None:
        """What a validation finds, the task's `selection` and the `loss` among it; None for the task's own scores."""
        return None

    # --- which weights are handed back ---

    def before_validation(self, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        """Bring up to date what the loss does not train and validation reads, such as a head; by default nothing.

        Args:
            embed: windows of train to what the head reads of them now, (windows, dim) float32.
        """

    def weights(self) -> list[Tensor] | None:
        """What is validated, kept and handed back instead of what trains; None for that itself."""
        return next((w for effect in self.effects if (w := effect.weights()) is not None), None)

    def validated(self, score: float, weights: list[Tensor]) -> None:
        """Called after each validation with its score (higher is better) and the weights that were validated."""
        for effect in self.effects:
            effect.validated(score, weights)

    def final(self, score: Callable[[list[Tensor]], float]) -> list[Tensor] | None:
        """The weights to hand back instead of the best ones, or None; `score` validates any others."""
        return next((w for effect in self.effects if (w := effect.final(score)) is not None), None)

    # --- being interrupted, and ending ---

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, by name."""
        return {f"{i}.{name}": value for i, effect in enumerate(self.effects) for name, value in effect.state().items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        for i, effect in enumerate(self.effects):
            start = f"{i}."
            effect.load_state({n.removeprefix(start): v for n, v in state.items() if n.startswith(start)})

    def end(self) -> None:
        """The stage is over, or has failed."""
        for effect in self.effects:
            effect.end()
