"""How well an encoder suits a task, guessed from its embeddings alone: no training, seconds instead of hours.

Each score takes embeddings (n, dim) and classes (n,), and is the higher the better. They rank encoders, or the layers
of one; none is an accuracy, except those of `neighbours` and `probe`, which are measured on rows held out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

_FIXED_POINT = 1e-3  # relative change of alpha / beta at which the evidence is taken as found
_ROUNDS = 100


def log_me(embeddings: np.ndarray, classes: np.ndarray) -> float:
    """Log of the maximum evidence of a Bayesian linear regression on each class, the mean a row and class.

    LogME, You et al. 2021, algorithm 1, in the singular basis of the embeddings (You et al. 2022, section 4.2).

    Args:
        embeddings: (n, dim).
        classes: (n,) int, at least two different ones.
    """
    x = embeddings.astype(np.float64)
    left, singular, _ = np.linalg.svd(x, full_matrices=False)
    kept = singular > singular[0] * 1e-7
    left, squared = left[:, kept], singular[kept] ** 2
    return float(np.mean([_evidence(left, squared, (classes == k).astype(np.float64)) for k in np.unique(classes)]))


def _evidence(left: np.ndarray, squared: np.ndarray, y: np.ndarray) -> float:
    """Of one regression, divided by the rows: `left` (n, r) are its singular vectors, `squared` (r,) its spectrum."""
    n = len(y)
    along = (left.T @ y) ** 2
    outside = max(float(y @ y - along.sum()), 0.0)
    alpha, beta = 1.0, 1.0
    for _ in range(_ROUNDS):
        ratio = alpha / beta
        gamma = (squared / (ratio + squared)).sum()
        weights = (squared * along / (ratio + squared) ** 2).sum()
        residual = (along * (ratio / (ratio + squared)) ** 2).sum() + outside
        alpha, beta = gamma / max(weights, 1e-12), (n - gamma) / max(residual, 1e-12)
        if abs(alpha / beta - ratio) <= _FIXED_POINT * ratio:
            break
    ratio = alpha / beta
    weights = (squared * along / (ratio + squared) ** 2).sum()
    residual = (along * (ratio / (ratio + squared)) ** 2).sum() + outside
    found = len(squared) * np.log(alpha) + n * np.log(beta) - np.log(alpha + beta * squared).sum()
    found -= beta * residual + alpha * weights + n * np.log(2 * np.pi)
    return float(found / (2 * n))


def h_score(embeddings: np.ndarray, classes: np.ndarray) -> float:
    """How much of the embeddings' spread lies between the classes: tr(cov(x)^-1 cov(E[x | class])).

    H-score, Bao et al. 2019, definition 2; with the covariance shrunk as in Ibrahim et al. 2021, section 4, so that it
    also holds for fewer rows than dimensions.

    Args:
        embeddings: (n, dim).
        classes: (n,) int.
    """
    from sklearn.covariance import ledoit_wolf

    x = embeddings - embeddings.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(x, assume_centered=True)
    means = np.zeros_like(x)
    for k in np.unique(classes):
        means[classes == k] = x[classes == k].mean(axis=0)
    between = means.T @ means / len(x)
    return float((1 - shrinkage) * np.trace(np.linalg.solve(covariance, between)))


def neighbours(embeddings: np.ndarray, classes: np.ndarray, k: int = 5) -> float:
    """Accuracy of each row's `k` nearest other rows, by cosine: leave-one-out, in [0, 1]."""
    x = unit(embeddings)
    k = min(k, len(x) - 1)
    _, position = np.unique(classes, return_inverse=True)
    right = 0
    for start in range(0, len(x), 1024):
        cosine = x[start : start + 1024] @ x.T
        cosine[np.arange(len(cosine)), np.arange(start, start + len(cosine))] = -np.inf
        nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
        near = np.take_along_axis(cosine, nearest, axis=1)
        votes = np.zeros((len(cosine), position.max() + 1))
        np.add.at(votes, (np.arange(len(cosine))[:, None], position[nearest]), np.exp(near / 0.07))
        right += int((votes.argmax(axis=1) == position[start : start + len(cosine)]).sum())
    return right / len(x)


def probe(embeddings: np.ndarray, classes: np.ndarray, folds: int = 3, seed: int = 0) -> float:
    """Accuracy of a logistic regression on rows held out: stratified cross-validation, in [0, 1]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    x = unit(embeddings)
    fewest = int(np.unique(classes, return_counts=True)[1].min())
    cut = StratifiedKFold(max(2, min(folds, fewest)), shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # one row of each class is little, and still no regression target
        warnings.filterwarnings("ignore", message="The number of unique classes|The least populated class")
        return float(cross_val_score(LogisticRegression(C=10.0, max_iter=300, tol=1e-3), x, classes, cv=cut).mean())


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Embeddings (n, dim), each brought to unit length; zeros stay zeros."""
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


SCORES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "logme": log_me, "h-score": h_score, "neighbours": neighbours, "probe": probe,
}  # fmt: skip
