"""Triplets: which of two texts is nearer to a third? Learned from an order, where nobody could say a score.

As with pairs, each text is read by itself, so what was learned searches, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from graftwork.choice import InputError, suggest
from graftwork.task import Decision, Prediction, calibration_error, coverage_threshold
from graftwork.tasks.similarity import Comparing

if TYPE_CHECKING:
    from torch import Tensor

_FOUND_AMONG = (1, 10)
"""The k of recall@k."""
_AT_ONCE = 10_000_000
"""Cosines held in memory at once."""
_SAME = 1e-6
"""Cosines of one text with its copy differ by no more than this."""


class Triplets(Comparing):
    """Which of two texts is nearer to an anchor: the first or the second, by the higher cosine.

    A row is three windows after one another: anchor, first, second.
    """

    paper: ClassVar[str] = "Deep metric learning using triplet network, Hoffer & Ailon 2015, section 2"
    texts: ClassVar[int] = 3
    wanted: ClassVar[str] = "A model of triplets reads three texts: an anchor, and two of which one is nearer to it"

    margin: float = Field(default=0.3, gt=0, le=2)
    """By how much the cosine of the nearer text is to be higher."""

    def targets(self, labels: Sequence[Any]) -> np.ndarray:
        """(n,) float32: 1 where the first is nearer, 0 where the second is."""
        known = {name: float(i) for i, name in enumerate(self.labels)}
        try:
            return np.array([known[name] for name in labels], dtype=np.float32)
        except KeyError as error:
            message = f"Label {error.args[0]!r} is none of a triplet's. {suggest(str(error.args[0]), self.labels)}"
            raise InputError(message) from None

    # --- the loss ---

    def asked(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (3 n, dim), a triplet's after one another, to differences of cosines (n, 1), and targets (n,)."""
        assert len(logits) % 3 == 0, "a triplet was torn apart"
        anchor, first, second = logits[0::3], logits[1::3], logits[2::3]
        return (anchor * (first - second)).sum(dim=-1, keepdim=True), targets[0::3]

    def losses(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """The margin ranking loss: by how much the difference of cosines falls short of `margin`, (n,).

        There are no classes to smooth over.
        """
        difference = logits.float().squeeze(-1)
        return (self.margin - (2 * targets - 1) * difference).clamp(min=0)

    # --- answers ---

    def differences(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """By how much the first is nearer than the second, of joined embeddings of unit length (3 dim,): (n,)."""
        anchor, first, second = np.moveaxis(_parted(outputs), 1, 0)
        return (anchor * (first - second)).sum(axis=1)

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], coverage: float) -> Decision:
        """How sure a difference makes: a logistic curve through one half at no difference, with Platt's targets."""
        signed = self._right_by(outputs, targets)
        fitted = Decision(temperature=_temperature(signed))
        return Decision(fitted.temperature, sure_from=coverage_threshold(_confidence(signed, fitted), coverage))

    def read(self, outputs: list[np.ndarray], decision: Decision) -> list[Prediction]:
        """The first or the second; what is not nearer than the second is not the first."""
        difference = self.differences(outputs)
        first = _sigmoid(difference / decision.temperature)
        return [
            Prediction(
                label=self.labels[int(d > 0)],
                confidence=float(sure),
                unsure=bool(sure < decision.sure_from),
                probabilities={self.labels[0]: float(1 - p), self.labels[1]: float(p)},
            )
            for d, p, sure in zip(difference, first, _confidence(difference, decision), strict=True)
        ]

    def _right_by(self, outputs: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> np.ndarray:
        """The differences, above 0 where the order is right: (n,)."""
        nearer = np.asarray(targets, dtype=np.float64).reshape(len(targets), 3)[:, 0]
        return (2 * nearer - 1) * self.differences(outputs)

    # --- how good ---

    def score(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> dict[str, Any]:
        """The share in the right order (`accuracy`), and how often the nearer text is found among those of all rows."""
        signed = self._right_by(outputs, targets)
        confidence, right = _confidence(signed, decision), signed > 0
        sure = confidence >= decision.sure_from
        before = _nearer_than_own(_parted(outputs), first=np.asarray(targets, dtype=np.float64)[:, 0] == 1)
        return {
            "n": len(signed),
            "loss": float(np.logaddexp(0, -signed / decision.temperature).mean()),
            "accuracy": float(right.mean()),
            **{f"recall_at_{k}": float((before < k).mean()) for k in _FOUND_AMONG},
            "ece": calibration_error(confidence, right),
            "coverage": float(sure.mean()),
            "accuracy_when_sure": float(right[sure].mean()) if sure.any() else None,
        }

    def tally(self, truth: Sequence[Any], guess: Sequence[Any], chances: Sequence[Any] | None = None) -> np.ndarray:
        """Right, and one."""
        return np.stack([self.targets(truth) == self.targets(guess), np.ones(len(truth))], axis=1)

    def tallied(self, sums: np.ndarray) -> np.ndarray:
        """Accuracy."""
        return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _parted(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Joined embeddings, (3 dim,) each, as (n, 3, dim)."""
    return np.asarray(outputs, dtype=np.float64).reshape(len(outputs), 3, -1)


def _nearer_than_own(z: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of triplets (n, 3, dim) how many other rows' nearer texts are nearer to the anchor than its own: (n,)."""
    anchor = z[:, 0]
    nearer = np.where(first[:, None], z[:, 1], z[:, 2])
    own = (anchor * nearer).sum(axis=1)
    size = max(1, _AT_ONCE // len(z))
    counts = [
        (anchor[i : i + size] @ nearer.T > own[i : i + size, None] + _SAME).sum(axis=1) for i in range(0, len(z), size)
    ]
    return np.concatenate(counts)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def _confidence(difference: np.ndarray, decision: Decision) -> np.ndarray:
    """The probability of what is answered: (n,), from one half on."""
    return _sigmoid(np.abs(difference) / decision.temperature)


def _temperature(signed: np.ndarray) -> float:
    """What differences are divided by, so that their sigmoid is how often the order is right.

    Platt's targets are a little away from 1, so that an order that is always right gives no endless slope.
    """
    from scipy.optimize import minimize_scalar

    wanted = (len(signed) + 1) / (len(signed) + 2)

    def loss(slope: float) -> float:
        logits = np.exp(slope) * signed
        return float((np.logaddexp(0, logits) - wanted * logits).mean())

    return float(np.exp(-minimize_scalar(loss, bounds=(-7, 7), method="bounded").x))
