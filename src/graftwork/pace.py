"""How long a run will take here: a few of its steps are timed, and all of them are counted.

Time goes by tokens, padding included: their number is known for a whole run beforehand, and a few batches tell the
seconds that one takes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftwork import layers
from graftwork.budget import Budget
from graftwork.evaluate import outputs
from graftwork.examples import Examples
from graftwork.hardware import Hardware
from graftwork.loop import default_budget, rehearse, validations
from graftwork.method import GradientMethod, Method
from graftwork.model import TransferModel
from graftwork.regression import ROWS_TO_CHOOSE_BY

STEPS = 7
"""That are timed; the first of them warms up and is not counted."""
_FIXED_SECONDS = 2.0
"""Writing the model and the report, whatever the data."""
_PATHS = 6
"""How many times as long choosing a regression's strength takes as solving it once: folds begin where others ended."""


@dataclass(frozen=True)
class Reading:
    """What a model takes to read, without training."""

    load: float
    """Seconds to load it."""
    quick: float
    """Seconds a token, in the precision of training."""
    exact: float
    """Seconds a token in fp32."""
    solving: float
    """Seconds a row to solve a regression on its embeddings."""


@dataclass(frozen=True)
class StepsPace:
    """How fast the steps of one method go on one model."""

    token: float
    """Seconds a token, padding included."""
    frozen: float
    """Share of the blocks that is computed once an example, in [0, 1]."""


@dataclass(frozen=True)
class Rows:
    """How much there is to read."""

    train: int
    validation: int
    train_tokens: float
    """Of a row, on average, with the padding of a batch."""
    validation_tokens: float


def reading(model: TransferModel, some: Examples, precision: str) -> float:
    """Seconds a token, padding included, that `model` takes to read `some`."""
    few = list(some.in_order_of_length(max_tokens=8192))
    outputs(model, some, precision=precision)  # warm
    start = time.perf_counter()
    outputs(model, some, precision=precision)
    padded = sum(len(places) * int(some.lengths[places].max()) for places in few)
    return (time.perf_counter() - start) / padded


def training(
    model: TransferModel,
    method: GradientMethod,
    some: Examples,
    validation: Examples,
    hardware: Hardware,
    precision: str,
) -> StepsPace:
    """How fast `method`'s steps go.

    Args:
        model: what would be trained; it is left as it was.
        method: how.
        some: rows like those to come, best `STEPS` batches of them.
        validation: a few rows; the loop wants to look at some.
        hardware: the machine.
        precision: of the products.
    """
    told: list[float] = []

    def hear(**event: Any) -> None:
        if event["event"] == "step":
            told.append(time.perf_counter())

    model, done = rehearse(model, method, some, validation, hardware, precision, STEPS, on_event=hear)
    taken = float(np.median(np.diff(told)))
    blocks = max(layers.block_count(model.encoder), 1)
    changes = type(method).on_epoch is not Method.on_epoch
    frozen = 0.0 if changes else max(layers.frozen_depth(model.encoder) - 1, 0) / blocks
    return StepsPace(taken * done.progress.step / done.progress.padded, min(frozen, 1.0))


def padded_tokens(examples: Examples, batch_size: int = 32) -> float:
    """Tokens of a row on average, with the padding of the batches it comes in."""
    batches = examples.shuffled(batch_size, (0,))
    return sum(len(b) * int(examples.lengths[b].max()) for b in batches) / len(examples)


@dataclass(frozen=True)
class Plan:
    """A run that might be made: its recipe, how fast each stage's steps go, and how much there is to read."""

    recipe: Sequence[Method]
    steps_pace: Sequence[StepsPace | None]
    """Of each stage; None for one that takes no steps."""
    reading: Reading
    rows: Rows

    def steps(self, budget: Budget | None = None) -> float:
        """How many optimizer steps all stages take together; by default as many as the methods ask for."""
        if budget and budget.unit == "seconds":
            left = budget.amount - self._around()
            return max(left, 0.0) / min(self._step(m, p) for m, p in self._steppers)
        return float(sum(self._own_steps(m, budget) for m, _ in self._steppers))

    def seconds(self, budget: Budget | None = None) -> float:
        """How long the run takes, from its first second to its report.

        What a budget in seconds does not cover, such as a head that is solved for, may take longer than it.
        """
        if budget and budget.unit == "seconds" and self._steppers:
            return max(budget.amount, self._around())
        return self._around() + sum(self._stage(m, p, self._own_steps(m, budget)) for m, p in self._steppers)

    @property
    def _steppers(self) -> list[tuple[GradientMethod, StepsPace]]:
        return [
            (m, p)
            for m, p in zip(self.recipe, self.steps_pace, strict=True)
            if isinstance(m, GradientMethod) and p is not None
        ]

    def _around(self) -> float:
        """Everything but the steps: loading, a head in closed form, the last look in fp32, and writing."""
        rows, read = self.rows, self.reading
        total = _FIXED_SECONDS + 2 * read.load + rows.validation * rows.validation_tokens * read.exact
        solved = min(rows.train, ROWS_TO_CHOOSE_BY)
        for number, method in enumerate(self.recipe):
            if not isinstance(method, GradientMethod):
                total += rows.train * rows.train_tokens * read.exact + (_PATHS * solved + rows.train) * read.solving
            elif number == 0 and method.head_start == "probe":
                total += solved * (rows.train_tokens * read.quick + read.solving)
        return total

    def _own_steps(self, method: GradientMethod, budget: Budget | None) -> int:
        share = Budget(budget.amount / len(self._steppers), budget.unit) if budget else None
        return (share or default_budget(method, self.rows.train)).steps(self._per_epoch(method)) or 1

    def _per_epoch(self, method: GradientMethod) -> int:
        return math.ceil(self.rows.train / method.batch_size)

    def _step(self, method: GradientMethod, pace: StepsPace) -> float:
        return min(method.batch_size, self.rows.train) * self.rows.train_tokens * pace.token

    def _stage(self, method: GradientMethod, pace: StepsPace, steps: int) -> float:
        """The steps, the frozen part before them, and validation between them."""
        rows, quick = self.rows, self.reading.quick
        prefix = pace.frozen * quick * (rows.train * rows.train_tokens + rows.validation * rows.validation_tokens)
        looks = validations(steps, self._per_epoch(method)) * rows.validation * rows.validation_tokens
        return prefix + steps * self._step(method, pace) + looks * quick * (1 - pace.frozen)
