"""A baseline answers the same task without a network of its own: what a method has to beat to be worth its cost.

Baselines hand back raw outputs like those of a network, so that the task decides, reads and scores them alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from graftwork.choice import Choice
from graftwork.task import Task


@dataclass(frozen=True)
class Rows:
    """The rows of one split, as baselines read them."""

    inputs: Sequence[Any]
    """Texts, or lists of words."""
    targets: Any
    """What `task.targets` made of the labels: (n,), (n, classes), or one array of tags a row."""
    embeddings: Callable[[], np.ndarray]
    """What the pretrained encoder makes of them, (n, dim); computed when asked for."""


Answers = Callable[[Rows], list[np.ndarray]]
"""Rows to raw outputs, one array a row: (classes,), or (words, tags)."""


class Baseline(Choice):
    """A way to answer without fine-tuning anything."""

    reads: ClassVar[frozenset[str]] = frozenset({"text", "image"})
    """What it can answer about, as `Data.reads` says it."""
    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})
    """The tasks it can answer."""

    def fit(self, train: Rows, task: Task) -> Answers:
        """Learn from `train`."""
        raise NotImplementedError


RARE = -10.0
"""The output of a class that was never seen: about 1 in 20,000."""


def log_odds(share: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as logits, cut off at `RARE` and its opposite."""
    with np.errstate(divide="ignore"):
        return np.clip(np.log(share) - np.log1p(-share), RARE, -RARE)


def log_share(share: np.ndarray) -> np.ndarray:
    """Shares in [0, 1] as log probabilities, cut off at `RARE`."""
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(share), RARE)
