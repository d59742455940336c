"""Similarity: how alike are two texts? Each is read by itself; the cosine of their embeddings is the answer.

So a text is embedded once and compared with any number of others, which makes the fitted model one that searches, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from graftwork.choice import InputError, suggest
from graftwork.task import Decision, Prediction, Task, Window, calibration_error, coverage_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.modalities.text import Text


class Comparing(Task, abstract=True):
    """What the tasks that compare have in common: a row is several texts, and what is said of each is its embedding."""

    head: ClassVar[str | None] = "embedding"
    texts: ClassVar[int]
    """How many a row is."""
    wanted: ClassVar[str]
    """What is read, for the message to those who give something else."""

    def inputs(self, given: Sequence[Any]) -> list[Any]:
        """Rows of texts."""
        if any(not isinstance(row, (list, tuple)) or list(map(type, row)) != [str] * self.texts for row in given):
            raise InputError(f"{self.wanted}. Give each as a list of {('two', 'three')[self.texts - 2]}.")
        return list(given)

    def windows(self, modality: Text, inputs: Sequence[Any], labels: Sequence[Any] | None) -> Iterator[Window]:
        """A window a text, a row's after one another; what exceeds the model's length is cut off each."""
        targets = self.targets(labels) if labels is not None else np.zeros(len(inputs), dtype=np.float32)
        encodings = iter(modality.encodings([text for row in inputs for text in row]))
        for i, target in enumerate(targets):
            for _ in range(self.texts):
                whole = next(encodings)
                ids = modality.cut(whole)
                yield Window(ids, np.asarray(target), i, lost=len(whole.ids) - len(ids))

    def gather(self, logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The embedding (dim,), and what is asked of the row (1,): joined, a row is (texts dim,) and (texts,)."""
        return logits, np.reshape(target, 1)


class Similarity(Comparing):
    """How alike are two texts, as a score; or are they alike or not.

    A pair is two windows after one another, and what the network says of each is its embedding. A cosine c is read as
    c / `temperature` + `offsets[0]`: a share of the way from the lowest score to the highest, or the logit of being
    similar.
    """

    paper: ClassVar[str] = "Sentence-BERT, Reimers & Gurevych 2019, section 3; Hadsell, Chopra & LeCun 2006, eq. 4"
    texts: ClassVar[int] = 2
    wanted: ClassVar[str] = "A similarity model reads pairs of texts"

    scored: bool = True
    """Whether pairs have a score, from the lower to the higher of `labels`; or are of two classes, `labels` being what
    is different and what is similar."""
    margin: float = Field(default=0.5, gt=0, le=2)
    """Of two classes: pairs that are different are pushed no further apart than this cosine distance."""

    @property
    def selection(self) -> str:  # type: ignore[override]
        """Spearman's rank correlation; average precision where there are two classes. Neither knows a threshold."""
        return "spearman" if self.scored else "average_precision"

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest score."""
        return float(self.labels[0]), float(self.labels[1])

    @property
    def decides(self) -> bool:
        """What a cosine means is fitted."""
        return True

    def targets(self, labels: Sequence[Any]) -> np.ndarray:
        """(n,) float32: shares of the scale, 0 its lower end and 1 its upper; or 0 for different and 1 for similar."""
        known = {name: float(i) for i, name in enumerate(self.labels)}
        try:
            if not self.scored:
                return np.array([known[name] for name in labels], dtype=np.float32)
            low, high = self.scale
            return np.array([(float(score) - low) / (high - low) for score in labels], dtype=np.float32)
        except KeyError as error:
            raise InputError(
                f"Label {error.args[0]!r} is none of the model's. {suggest(error.args[0], self.labels)}"
            ) from None
        except ValueError:
            raise InputError(f"A score must be a number; among those given are {list(labels)[:3]}.") from None

    # --- the loss ---

    def asked(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (2 n, dim), a pair's after one another, to cosines (n, 1) and what was asked (n,)."""
        assert len(logits) % 2 == 0, "a pair was torn apart"
        return (logits[0::2] * logits[1::2]).sum(dim=-1, keepdim=True), targets[0::2]

    def losses(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Of cosines (n, 1): their squared distance to the score. Of two classes the contrastive loss, (n,).

        With d = 1 - cosine that is d^2 / 2 for a pair that is similar and max(0, margin - d)^2 / 2 for one that is not.
        There are no classes to smooth over.
        """
        cosine = logits.float().squeeze(-1)
        if self.scored:
            return (cosine - targets).square()
        distance = 1 - cosine
        apart = (self.margin - distance).clamp(min=0)
        return (targets * distance.square() + (1 - targets) * apart.square()) / 2

    # --- answers ---

    def cosines(self, outputs: Sequence[np.ndarray]) -> np.ndarray:
        """Pairs of embeddings of unit length, (2 dim,) each, to cosines in [-1, 1]: (n,)."""
        both = np.asarray(outputs, dtype=np.float64).reshape(len(outputs), 2, -1)
        return np.clip((both[:, 0] * both[:, 1]).sum(axis=1), -1, 1)

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], coverage: float) -> Decision:
        """Scores: the line from cosines to scores with the least squares.

        Two classes: a logistic curve (Platt 1999, with his targets), and the cosine with the highest F1 as threshold. A
        score has no probability, so `coverage` marks none unsure.
        """
        cosine, truth = self.cosines(outputs), _of_pairs(targets)
        if self.scored:
            slope, offset = _least_squares(cosine, truth)
            return Decision(temperature=1 / slope, offsets=(offset,))
        slope, offset = _platt(cosine, truth)
        fitted = Decision(1 / slope, _best_threshold(cosine, truth), offsets=(offset,))
        sure_from = coverage_threshold(self._confidence(cosine, fitted), coverage)
        return Decision(fitted.temperature, fitted.threshold, sure_from, fitted.offsets)

    def _line(self, cosine: np.ndarray, decision: Decision) -> np.ndarray:
        """What a cosine means: a share of the scale, or a logit."""
        return cosine / decision.temperature + sum(decision.offsets)

    def _confidence(self, cosine: np.ndarray, decision: Decision) -> np.ndarray:
        """Of two classes, the probability of the one that is answered: (n,)."""
        similar = _sigmoid(self._line(cosine, decision))
        return np.where(cosine >= decision.threshold, similar, 1 - similar)

    def read(self, outputs: list[np.ndarray], decision: Decision) -> list[Prediction]:
        """The score as text, within the scale; or the class on whose side of the threshold the cosine lies."""
        cosine = self.cosines(outputs)
        if self.scored:
            low, high = self.scale
            scores = low + np.clip(self._line(cosine, decision), 0, 1) * (high - low)
            return [Prediction(f"{score:.5g}", None, False, {}) for score in scores]
        similar = _sigmoid(self._line(cosine, decision))
        return [
            Prediction(
                label=self.labels[int(c >= decision.threshold)],
                confidence=float(sure),
                unsure=bool(sure < decision.sure_from),
                probabilities={self.labels[0]: float(1 - p), self.labels[1]: float(p)},
            )
            for c, p, sure in zip(cosine, similar, self._confidence(cosine, decision), strict=True)
        ]

    # --- how good ---

    def score(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> dict[str, Any]:
        """Spearman's and Pearson's correlation of cosines and scores; or average precision, F1 and accuracy."""
        cosine, truth = self.cosines(outputs), _of_pairs(targets)
        if not self.scored:
            return self._score_classes(cosine, truth, decision)
        return {
            "n": len(truth),
            "loss": float(np.square(self._line(cosine, decision) - truth).mean()),
            "spearman": correlation(ranks(cosine), ranks(truth)),
            "pearson": correlation(cosine, truth),
        }

    def _score_classes(self, cosine: np.ndarray, truth: np.ndarray, decision: Decision) -> dict[str, Any]:
        from sklearn.metrics import average_precision_score, precision_recall_fscore_support

        guess = cosine >= decision.threshold
        options: dict[str, Any] = {"average": "binary", "zero_division": 0.0}
        precision, recall, f1, _ = precision_recall_fscore_support(truth == 1, guess, **options)
        line, confidence = self._line(cosine, decision), self._confidence(cosine, decision)
        right, sure = guess == (truth == 1), confidence >= decision.sure_from
        return {
            "n": len(truth),
            "loss": float((np.logaddexp(0, line) - truth * line).mean()),
            "average_precision": float(average_precision_score(truth, cosine)) if truth.any() else 0.0,
            "f1": float(f1),
            "precision": float(precision),
            "recall": float(recall),
            "accuracy": float(right.mean()),
            "ece": calibration_error(confidence, right),
            "coverage": float(sure.mean()),
            "accuracy_when_sure": float(right[sure].mean()) if sure.any() else None,
        }

    def tally(self, truth: Sequence[Any], guess: Sequence[Any], chances: Sequence[Any] | None = None) -> np.ndarray:
        """The sums of a correlation of ranks; or for each similar pair the precision from it upwards, and one."""
        asked = self.targets(truth).astype(np.float64)
        if self.scored:
            x, y = _standard(ranks(asked)), _standard(ranks(self.targets(guess)))
            return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)
        assert chances is not None, "average precision needs to know how likely each pair is to be similar"
        similar = np.asarray(chances, dtype=np.float64)[:, 1]
        _, group = np.unique(-similar, return_inverse=True)
        hits, rows = (np.cumsum(np.bincount(group, weights=each)) for each in (asked, np.ones(len(asked))))
        return np.stack([asked * (hits / rows)[group], asked], axis=1)

    def tallied(self, sums: np.ndarray) -> np.ndarray:
        """Spearman's correlation, or average precision; of redrawn rows by the ranks they had among all."""
        if not self.scored:
            return sums[..., 0] / np.maximum(sums[..., 1], 1)
        n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
        spread = np.sqrt(np.maximum((n * xx - x * x) * (n * yy - y * y), 0))
        return np.where(spread > 0, (n * xy - x * y) / np.where(spread > 0, spread, 1), 0.0)


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two (n,) in [-1, 1]; 0 where one of them does not vary.

    Example:
        >>> correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]))
        1.0
    """
    return float(np.clip(np.mean(_standard(x) * _standard(y)), -1, 1))


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each of (n,) values from 1 on, the mean of them where values are equal."""
    from scipy.stats import rankdata

    return rankdata(values)


def _standard(values: np.ndarray) -> np.ndarray:
    """Values with mean 0 and variance 1; all 0 where they do not vary."""
    centred = values - values.mean()
    spread = np.sqrt(np.mean(centred**2))
    return centred / spread if spread > 1e-12 * max(np.abs(values).max(), 1e-300) else np.zeros(len(values))


def _of_pairs(targets: Sequence[np.ndarray]) -> np.ndarray:
    """What was asked of each pair, which both its windows say: (n,)."""
    return np.asarray(targets, dtype=np.float64).reshape(len(targets), 2)[:, 0]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -logits))


def _least_squares(cosine: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the line from cosines to scores; it always rises, be it ever so little."""
    spread = float(cosine.var())
    slope = max(float(np.mean((cosine - cosine.mean()) * truth)) / spread, 1e-3) if spread > 1e-12 else 1.0
    return slope, float(truth.mean() - slope * cosine.mean())


def _platt(cosine: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Slope and offset of the logistic curve from cosines to the probability of being similar.

    Platt's targets are a little away from 0 and 1, so that classes that do not overlap give no endless slope.
    """
    from scipy.optimize import minimize

    positives, negatives = truth.sum(), (1 - truth).sum()
    wanted = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(line: np.ndarray) -> float:
        logits = np.exp(line[0]) * cosine + line[1]  # more alike is never less similar
        return float((np.logaddexp(0, logits) - wanted * logits).mean())

    found = minimize(loss, np.zeros(2), bounds=[(-7, 7), (-1e3, 1e3)]).x
    return float(np.exp(found[0])), float(found[1])


def _best_threshold(cosine: np.ndarray, truth: np.ndarray) -> float:
    """The cosine with the highest F1 from it on: halfway between the last that is similar and the next."""
    order = np.argsort(-cosine, kind="stable")
    sorted_cosine, hits = cosine[order], np.cumsum(truth[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    last = np.append(sorted_cosine[1:] < sorted_cosine[:-1], True)  # equal cosines are on one side
    best = int(np.argmax(np.where(last, f1, -1.0)))
    return float(sorted_cosine[best : best + 2].mean())
