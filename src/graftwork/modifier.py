"""A modifier is something added to a stage of any method: a penalty, other weights for rare classes, averaged weights.

Modifiers combine: `LoRA` with `l2-sp` and `class-weights` is one stage. A `Modifier` is the choice; while a stage
runs, `begin` gives its `Effect`, which holds what it has to remember.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from graftwork.choice import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.examples import Examples
    from graftwork.model import TransferModel
    from graftwork.task import Decision

    Criterion = Callable[[Tensor, Tensor], Tensor]
    """(logits (n, classes), targets (n,) or (n, classes)) -> the loss of each answer, (n,)."""


class Effect:
    """A modifier at work in one stage. Every hook does nothing by default."""

    passes: int = 1
    """How often each batch is read, each time with other dropout masks."""

    def places(self, generator: np.random.Generator) -> np.ndarray | None:
        """The windows of one epoch, repeats allowed, always equally many; None for each once."""
        return None

    def embeddings(self, embeddings: Tensor) -> Tensor:
        """What the head is to read instead, (batch, ...)."""
        return embeddings

    def criterion(self, inner: Criterion) -> Criterion:
        """What is computed of each answer, given how it would be without this modifier."""
        return inner

    def disagreement(self, logits: list[Tensor], targets: Tensor) -> Tensor | None:
        """What is added for how the `passes` differ: (n,) of the answers asked; `logits` one (n, classes) a pass."""
        return None

    def penalty(self) -> Tensor | None:
        """What is added to the loss of each step, whatever the batch: a scalar."""
        return None

    def after_step(self, step: int, fraction: float) -> None:
        """Called after each optimizer step (the first is 1), at a share `fraction` of the budget."""

    def weights(self) -> list[Tensor] | None:
        """What is to be validated, kept and handed back instead of the weights that train, in their order."""
        return None

    def validated(self, score: float, weights: list[Tensor]) -> None:
        """Called after each validation with its score (higher is better) and the weights that were validated."""

    def final(self, score: Callable[[list[Tensor]], float]) -> list[Tensor] | None:
        """The weights to hand back instead of the best ones; `score` validates any others."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must hold, by name, so that a resumed stage goes on to the same bits."""
        return {}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""

    def end(self) -> None:
        """The stage is over, or has failed: take away what was put into the model for its length."""


class Modifier(Choice):
    """Something added to a stage of any method."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What data must have, as for methods; `one-class` where each answer is one class of several."""
    closed_form: ClassVar[bool] = False
    """Whether methods that take no steps heed it, through `table`."""
    steps: ClassVar[bool] = True
    """Whether methods that take steps heed it, through `begin`."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Called before the method's own `prepare`, once, on the pretrained weights."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """The effect on one stage, once the method is prepared.

        Args:
            model: as it begins to train.
            train: what it trains on.
            weights: what trains, each with its present value.
        """
        return Effect()

    def table(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Other rows for a regression: embeddings (n, dim), targets (n,), and what each row counts, (n,), mean 1."""
        return x, y, weight

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> Decision:
        """Another decision than the task's own, fitted on validation's raw outputs."""
        return decision
