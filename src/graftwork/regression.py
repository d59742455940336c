"""A head in closed form: logistic regression on what a frozen encoder says of the examples."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftwork.features import embeddings, embeddings_of
from graftwork.hardware import faster_precision
from graftwork.heads.linear import LinearNetwork

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel

ROWS_TO_CHOOSE_BY = 10_000
"""C is chosen on at most so many rows, drawn at random; the regression is then fitted on all."""

ROWS_TO_READ_ANEW = 3000
"""Before a validation, where the loss does not train the head, a quick regression is fitted on at most so many rows."""

_NEVER = -20.0
"""The bias of a class that train does not hold."""


@dataclass(frozen=True)
class Regression:
    """How the regression is solved."""

    strengths: tuple[float, ...]
    """Inverse regularisation strengths C to choose from, in cross-validation."""
    folds: int
    max_iter: int
    tolerance: float
    seed: int

    def write_head(self, model: TransferModel, x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> None:
        """Make a regression the model's head.

        Args:
            model: with a linear head.
            x: embeddings (n, dim), as `HeadNetwork.prepared` gives them.
            y: targets, (n,) or (n, labels).
            weight: what each row counts, (n,); by default all alike.
        """
        counts = None if weight is None or (weight == 1).all() else weight
        with warnings.catch_warnings():  # one row of each class is little, and still no regression target
            warnings.filterwarnings("ignore", message="The number of unique classes")
            found, bias = self._several(x, y, counts) if y.ndim == 2 else self._one(x, y, counts)
        present = np.arange(y.shape[1]) if y.ndim == 2 else np.unique(y)
        linear = _probe(model)
        weights = np.zeros(linear.linear.weight.shape, dtype=np.float32)
        biases = np.full(len(weights), _NEVER, dtype=np.float32)
        weights[present], biases[present] = found, bias
        linear.write(weights, biases)
        model.head.fresh = False

    def _one(self, x: np.ndarray, y: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Multinomial weights (classes, dim) and biases (classes,), of the classes that occur."""
        fitted = self._fitted(x, y, counts, int(np.unique(y, return_counts=True)[1].min()), "accuracy")
        weight, bias = fitted.coef_, fitted.intercept_
        if len(weight) == 1:  # sklearn keeps one row for two classes
            weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
        return weight, bias

    def _several(self, x: np.ndarray, y: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """One regression a label, each with a C of its own by log loss: weights (labels, dim) and biases (labels,)."""
        weight, bias = np.zeros((y.shape[1], x.shape[1])), np.full(y.shape[1], _NEVER)
        for k, count in enumerate(y.sum(axis=0)):
            fewest = int(min(count, len(y) - count))
            if fewest:
                fitted = self._fitted(x, y[:, k], counts, fewest, "neg_log_loss")
                weight[k], bias[k] = fitted.coef_[0], fitted.intercept_[0]
            elif count:
                bias[k] = -_NEVER
        return weight, bias

    def _fitted(self, x: np.ndarray, y: np.ndarray, counts: np.ndarray | None, smallest: int, scoring: str) -> Any:
        """The regression on all rows with the C that did best; `smallest` is how many rows the rarest class has."""
        from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
        from sklearn.model_selection import StratifiedKFold, train_test_split

        # with one set of weights Newton's few steps are quickest; with many it would solve for all of them together
        solver = "newton-cholesky" if len(np.unique(y)) == 2 else "lbfgs"
        chosen = self.strengths[len(self.strengths) // 2]
        if smallest >= 2 and len(self.strengths) > 1:
            some, answers, weight = x, y, counts
            if len(x) > ROWS_TO_CHOOSE_BY:
                places = np.arange(len(x))
                kept, _ = train_test_split(places, train_size=ROWS_TO_CHOOSE_BY, random_state=self.seed)
                some, answers, weight = x[kept], y[kept], None if counts is None else counts[kept]
            folds = min(self.folds, int(np.unique(answers, return_counts=True)[1].min()))
            if folds >= 2:
                options: dict[str, Any] = {"use_legacy_attributes": False, "l1_ratios": (0.0,), "Cs": self.strengths}
                cut = StratifiedKFold(folds, shuffle=True, random_state=self.seed)
                # from weak to strong, each fit beginning where the last one ended
                path = LogisticRegressionCV(
                    cv=cut, solver=solver, scoring=scoring, max_iter=self.max_iter, tol=self.tolerance, **options
                )
                path.fit(some, answers, sample_weight=weight)
                if some is x:
                    return path
                chosen = float(np.mean(path.C_))
        return LogisticRegression(C=chosen, solver=solver, max_iter=self.max_iter, tol=self.tolerance).fit(x, y, counts)


def start_head(model: TransferModel, train: Examples) -> None:
    """A quick regression as the head that training starts from; read off at most `ROWS_TO_CHOOSE_BY` rows.

    For tasks that pool. What the encoder says of them is kept, so that other seeds and methods need not ask again.
    """
    precision = faster_precision(model.device.type)
    if len(train) <= ROWS_TO_CHOOSE_BY:
        x, y = table(model, train, precision)
    else:
        some = np.sort(np.random.default_rng(0).permutation(len(train))[:ROWS_TO_CHOOSE_BY])
        x = model.head.prepared(embeddings_of(model, train, some, precision))
        y = np.asarray(train.targets[some])
    if model.head.probe is None:
        model.head.start(x, y)
        return
    read_off(model, x, y)


def read_off(model: TransferModel, x: np.ndarray, y: np.ndarray) -> None:
    """A quick regression on embeddings `x` (n, dim) and targets `y` as the model's head, which has a linear part."""
    Regression(strengths=(10.0,), folds=5, max_iter=1000, tolerance=1e-3, seed=0).write_head(model, x, y)
    with torch.no_grad():  # a class that was not among the rows may still come
        bias = _probe(model).linear.bias
        bias[bias == _NEVER] = bias[bias != _NEVER].min()


def read_anew(model: TransferModel, train: Examples, embed: Callable[[np.ndarray], np.ndarray]) -> None:
    """Read the head off the encoder as it is now, on at most `ROWS_TO_READ_ANEW` rows of train.

    Args:
        model: which, with one class a text.
        train: the rows.
        embed: windows of it to what the head reads of them now, (windows, dim) float32.
    """
    rows = np.sort(np.random.default_rng(0).permutation(len(train))[:ROWS_TO_READ_ANEW])
    read_off(model, model.head.prepared(embed(rows)), np.asarray(train.targets[rows]))


def _probe(model: TransferModel) -> LinearNetwork:
    assert isinstance(model.head.probe, LinearNetwork), "only a linear part can hold a regression"
    return model.head.probe


def table(model: TransferModel, train: Examples, precision: str = "fp32") -> tuple[np.ndarray, np.ndarray]:
    """Rows for the regression: embeddings (n, dim) and targets (n,) or (n, labels).

    For tagging each word is a row: the state of its first piece.
    """
    states = embeddings(model, train, precision=precision)
    targets = np.asarray(train.targets)
    if model.task.token_level:
        asked = targets != -100
        states, targets = states[asked], targets[asked]
    return model.head.prepared(states).astype(np.float32), targets
