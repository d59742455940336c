"""Which of two domains is a text of? What a classifier of embeddings says, and how far it is right.

One classifier serves three questions: how far apart two domains lie, how much a source text is like the target, and
what a head that is stacked on another should know of a text.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graftwork.transferability import unit

FOLDS = 5
STRENGTH = 1.0
"""Inverse strength of the regularisation, on embeddings whose coordinates have a mean square of 1."""


def out_of_fold(source: np.ndarray, target: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The probability that a text is of the target, told by a classifier that did not learn from this text.

    A logistic regression in which both domains count alike, whatever their rows.

    Args:
        source: embeddings (n, dim).
        target: embeddings (m, dim).
        seed: of the folds.

    Returns:
        Of the source (n,) and of the target (m,), in [0, 1].

    Raises:
        ValueError: a domain has fewer than two texts.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = min(FOLDS, len(source), len(target))
    if folds < 2:
        raise ValueError("each domain needs two texts at least")
    x, y = _rows(source, target)
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
    found = np.asarray(cross_val_predict(_regression(), x, y, cv=cut, method="predict_proba"))[:, 1]
    return found[: len(source)], found[len(source) :]


def fitted(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights (dim,) on embeddings of unit length, and bias, whose sum is the log odds that a text is of the target."""
    found = _regression().fit(*_rows(source, target))
    return found.coef_[0] * source.shape[1] ** 0.5, float(found.intercept_[0])


def error(source: np.ndarray, target: np.ndarray) -> float:
    """How often the probabilities of `out_of_fold` are on the wrong side, both domains counted alike, in [0, 1]."""
    return float((np.mean(source >= 0.5) + np.mean(target < 0.5)) / 2)


def a_distance(wrong: float) -> float:
    """The proxy A-distance of a domain classifier's error, 2 (1 - 2 err), in [0, 2].

    Ben-David et al. 2010, section 7; Ganin et al. 2016, section 3.2. 0: no better than a coin; 2: never wrong.

    Example:
        >>> a_distance(0.5), a_distance(0.1), a_distance(0.0)
        (0.0, 1.6, 2.0)
    """
    return max(0.0, 2 * (1 - 2 * wrong))


def importance(source: np.ndarray, *, flatten: float = 1.0, most: float = 10.0) -> np.ndarray:
    """How much more often the target has texts like these than the source has, with a mean of 1: (n,).

    p / (1 - p) of the probability p that a source text is of the target, which is the ratio of the two densities
    (Bickel, Brückner & Scheffer 2009, section 3); to the power `flatten` (Shimodaira 2000, section 4).

    Args:
        source: p of each source text, (n,).
        flatten: 1 is the ratio itself, 0 weighs all alike.
        most: no text counts more than so many average ones, before the mean is made 1 again.

    Example:
        >>> importance(np.array([0.5, 0.5, 0.8]))
        array([0.5, 0.5, 2. ])
    """
    p = np.clip(source, 1e-6, 1 - 1e-6)
    ratio = (p / (1 - p)) ** flatten
    ratio = np.minimum(ratio / ratio.mean(), most)
    return ratio / ratio.mean()


def _rows(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x = unit(np.concatenate([source, target])) * source.shape[1] ** 0.5
    return x.astype(np.float64), np.repeat([0, 1], [len(source), len(target)])


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=STRENGTH, class_weight="balanced", solver="newton-cholesky", max_iter=100)
