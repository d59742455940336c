"""Scores of embeddings agree with their definitions computed the long way, and rank what is easy to rank."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from graftwork.transferability import SCORES, h_score, log_me, neighbours


def clouds(spread: float, *, n: int = 120, dim: int = 8, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    which = np.arange(n) % classes
    return generator.normal(size=(classes, dim))[which] + spread * generator.normal(size=(n, dim)), which


@pytest.mark.parametrize("name", SCORES)
def test_clouds_further_apart_score_higher(name):
    assert SCORES[name](*clouds(0.3)) > SCORES[name](*clouds(1.0)) > SCORES[name](*clouds(4.0))


def test_log_me_is_the_largest_evidence_of_a_bayesian_regression():
    x, which = clouds(1.0, n=30, dim=4)

    def evidence(y: np.ndarray) -> float:
        def negative(log: np.ndarray) -> float:
            covariance = np.eye(len(y)) / np.exp(log[1]) + x @ x.T / np.exp(log[0])
            return -float(multivariate_normal(np.zeros(len(y)), covariance).logpdf(y))

        return -minimize(negative, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}).fun / 30

    expected = np.mean([evidence((which == k).astype(float)) for k in range(3)])
    assert log_me(x, which) == pytest.approx(expected, abs=1e-4)


def test_log_me_holds_with_more_dimensions_than_rows():
    x, which = clouds(1.0, n=20, dim=50, classes=2)
    assert np.isfinite(log_me(x, which))


def test_the_h_score_counts_the_directions_that_separate_classes_when_there_is_no_other_spread():
    generator = np.random.default_rng(0)
    which = np.arange(3000) % 2
    x = np.where(which, 5.0, -5.0)[:, None] * np.array([1, 0, 0]) + generator.normal(size=(3000, 3))
    assert h_score(x, which) == pytest.approx(25 / 26, abs=0.02)


def test_neighbours_leave_the_row_itself_out():
    x = np.array([[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [0.01, 1.0]])
    assert neighbours(x, np.array([0, 0, 1, 1]), k=1) == 1.0
    assert neighbours(x, np.array([0, 1, 0, 1]), k=1) == 0.0
