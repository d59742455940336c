"""Classification: one class a text or picture, or several labels, each yes or no."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.choice import InputError, suggest
from graftwork.task import Decision, Prediction, Task, Window, calibration_error, coverage_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.modality import Modality


class Classification(Task):
    """Which class is this text; or, with `multi_label`, which of the labels hold."""

    multi_label: bool = False
    """Whether a text may have several labels, or none."""

    @property
    def selection(self) -> str:  # type: ignore[override]
        """Accuracy; macro-F1 where a text may have several labels."""
        return "macro_f1" if self.multi_label else "accuracy"

    @property
    def decides(self) -> bool:
        """Of several labels the threshold is fitted."""
        return self.multi_label

    def inputs(self, given: Sequence[Any]) -> list[Any]:
        """Texts, or the files of pictures."""
        if any(not isinstance(each, str) for each in given):
            raise InputError("A classification model reads texts, or the names of picture files.")
        return list(given)

    def windows(self, modality: Modality, inputs: Sequence[str], labels: Sequence[Any] | None) -> Iterator[Window]:
        """One window a text or picture; what exceeds the model's length is cut at the end and counted as lost."""
        given = [[] if self.multi_label else self.labels[0]] * len(inputs) if labels is None else labels
        targets = self.targets(given)
        for i, (ids, lost) in enumerate(modality.read(inputs)):
            yield Window(ids, np.asarray(targets[i]), i, lost=lost)

    def targets(self, labels: Sequence[Any]) -> np.ndarray:
        """(n,) int64, or (n, classes) float32 in {0, 1} where there may be several."""
        position = {name: i for i, name in enumerate(self.labels)}
        try:
            if not self.multi_label:
                return np.array([position[name] for name in labels], dtype=np.int64)
            targets = np.zeros((len(labels), len(self.labels)), dtype=np.float32)
            for row, given in enumerate(labels):
                targets[row, [position[name] for name in given]] = 1
            return targets
        except KeyError as error:
            raise InputError(
                f"Label {error.args[0]!r} is none of the model's. {suggest(error.args[0], self.labels)}"
            ) from None

    def losses(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy; binary cross-entropy summed over the labels where there may be several."""
        from torch.nn import functional as F

        logits = logits.float()
        if not self.multi_label:
            return F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="none")
        targets = targets * (1 - smoothing) + smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=-1)

    @property
    def separator(self) -> str | None:
        """`|`, where a text may have several labels."""
        return "|" if self.multi_label else None

    def gather(self, logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The whole output: (classes,)."""
        return logits, target

    def probabilities(
        self, outputs: Sequence[np.ndarray], temperature: float, offsets: Sequence[float] = ()
    ) -> np.ndarray:
        """(n, classes) in [0, 1]; rows sum to 1 unless labels are independent. `offsets` move each class's share."""
        scaled = np.asarray(outputs, dtype=np.float64).reshape(-1, len(self.labels)) / temperature
        if self.multi_label:
            return 1 / (1 + np.exp(-scaled))
        scaled = scaled + np.asarray(offsets) if len(offsets) else scaled
        scaled = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        return scaled / scaled.sum(axis=1, keepdims=True)

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], coverage: float) -> Decision:
        """Temperature by maximum likelihood (Guo et al. 2017), then the threshold, then what counts as sure."""
        from scipy.optimize import minimize_scalar

        truth = np.asarray(targets)
        fitted = minimize_scalar(
            lambda log_t: self._negative_log_likelihood(self.probabilities(outputs, float(np.exp(log_t))), truth),
            bounds=(-3.0, 3.0), method="bounded",
        )  # fmt: skip
        temperature = float(np.exp(fitted.x))
        probabilities = self.probabilities(outputs, temperature)
        threshold = self._best_threshold(probabilities, truth) if self.multi_label else 0.5
        confidence = self._confidence(probabilities, threshold)
        return Decision(temperature, threshold, coverage_threshold(confidence, coverage))

    def _negative_log_likelihood(self, probabilities: np.ndarray, truth: np.ndarray) -> float:
        p = np.clip(probabilities, 1e-12, 1 - 1e-12)
        if self.multi_label:
            return float(-(truth * np.log(p) + (1 - truth) * np.log(1 - p)).sum(axis=1).mean())
        return float(-np.log(p[np.arange(len(p)), truth]).mean())

    def _best_threshold(self, probabilities: np.ndarray, truth: np.ndarray) -> float:
        """The one threshold, of 5 % to 95 %, with the highest macro-F1."""
        grid = np.linspace(0.05, 0.95, 91)
        return float(grid[int(np.argmax([_macro_f1(probabilities >= t, truth == 1) for t in grid]))])

    def _confidence(self, probabilities: np.ndarray, threshold: float) -> np.ndarray:
        """(n,): the winner's probability; for several labels, that of the least certain yes or no."""
        if not self.multi_label:
            return probabilities.max(axis=1)
        return np.where(probabilities >= threshold, probabilities, 1 - probabilities).min(axis=1)

    def read(self, outputs: list[np.ndarray], decision: Decision) -> list[Prediction]:
        """The most probable class, or every label from the threshold upwards."""
        probabilities = self.probabilities(outputs, decision.temperature, decision.offsets)
        confidence = self._confidence(probabilities, decision.threshold)
        return [
            Prediction(
                label=[n for n, v in zip(self.labels, p, strict=True) if v >= decision.threshold]
                if self.multi_label
                else self.labels[int(p.argmax())],
                confidence=float(c),
                unsure=bool(c < decision.sure_from),
                probabilities={n: float(v) for n, v in zip(self.labels, p, strict=True)},
            )
            for p, c in zip(probabilities, confidence, strict=True)
        ]

    def score(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> dict[str, Any]:
        """Accuracy, macro-F1, per-class report, confusion matrix, calibration error, coverage; by scikit-learn."""
        from sklearn.metrics import precision_recall_fscore_support

        truth = np.asarray(targets)
        probabilities = self.probabilities(outputs, decision.temperature, decision.offsets)
        guess = (probabilities >= decision.threshold).astype(int) if self.multi_label else probabilities.argmax(axis=1)
        options: dict[str, Any] = {"labels": np.arange(len(self.labels)), "average": None, "zero_division": 0.0}
        per_class: Any = precision_recall_fscore_support(truth, guess, **options)
        confidence = self._confidence(probabilities, decision.threshold)
        right = (guess == truth).all(axis=1) if self.multi_label else guess == truth
        sure = confidence >= decision.sure_from
        common = {
            "n": len(truth),
            "loss": self._negative_log_likelihood(probabilities, truth),
            "macro_f1": float(np.mean(per_class[2])),
            "ece": calibration_error(confidence, right),
            "coverage": float(sure.mean()),
            "accuracy_when_sure": float(right[sure].mean()) if sure.any() else None,
            "per_class": {
                name: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
                for name, p, r, f, s in zip(self.labels, *per_class, strict=True)
            },
        }
        return common | (self._score_several(truth, guess) if self.multi_label else self._score_one(truth, guess))

    def _score_one(self, truth: np.ndarray, guess: np.ndarray) -> dict[str, Any]:
        from sklearn.metrics import confusion_matrix

        matrix = confusion_matrix(truth, guess, labels=np.arange(len(self.labels)))
        confusion = {"labels": list(self.labels), "matrix": matrix.tolist()}
        return {"accuracy": float((truth == guess).mean()), "confusion": confusion}

    def _score_several(self, truth: np.ndarray, guess: np.ndarray) -> dict[str, Any]:
        hits, given, asked = (truth * guess).sum(), guess.sum(), truth.sum()
        return {
            "micro_f1": float(2 * hits / max(given + asked, 1)),
            "subset_accuracy": float((truth == guess).all(axis=1).mean()),
        }

    def tally(self, truth: Sequence[Any], guess: Sequence[Any], chances: Sequence[Any] | None = None) -> np.ndarray:
        """Right, and one; for several labels twice the hits of each, and how often it is given or asked for."""
        asked, given = self.targets(truth), self.targets(guess)
        if self.multi_label:
            return np.concatenate([2 * asked * given, asked + given], axis=1)
        return np.stack([asked == given, np.ones(len(asked))], axis=1)

    def tallied(self, sums: np.ndarray) -> np.ndarray:
        """Accuracy, or macro-F1."""
        hits, all_of_them = np.split(sums, 2, axis=-1)
        return (hits / np.maximum(all_of_them, 1)).mean(axis=-1)


def _macro_f1(guess: np.ndarray, truth: np.ndarray) -> float:
    """Of two (n, classes) boolean arrays."""
    hits = (guess & truth).sum(axis=0)
    return float(np.mean(2 * hits / np.maximum(guess.sum(axis=0) + truth.sum(axis=0), 1)))
