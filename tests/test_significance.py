"""Ties are called ties, gaps are found, and the corrections are those of the papers."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from graftwork.significance import Evidence, difference, holm, mcnemar, standings


def share(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]


def evidence(*correct: np.ndarray) -> Evidence:
    tallies = [np.stack([c, np.ones(len(c))], axis=1) for c in correct]
    return Evidence(tallies, share, correct)


def runs(generator: np.random.Generator, difficulty: np.ndarray, seeds: int, gap: float = 0.0) -> Evidence:
    """Rows of uneven difficulty, which each seed gets right by chance; `gap` is the loss in accuracy."""
    chance = np.clip(difficulty - gap, 0, 1)
    return evidence(*(generator.random(len(chance)) < chance for _ in range(seeds)))


@pytest.mark.parametrize("seeds", [1, 3])
def test_two_seeds_of_one_recipe_are_tied_in_at_least_95_of_100_pairs(seeds):
    generator = np.random.default_rng(0)
    tied = 0
    for _ in range(200):
        difficulty = generator.beta(4, 0.6, 3000)
        pair = {"a": runs(generator, difficulty, seeds), "b": runs(generator, difficulty, seeds)}
        tied += all(s.tied for s in standings(pair, draws=400).values())
    assert tied >= 190


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_gap_of_three_points_on_3000_rows_is_found_in_at_least_90_of_100_pairs(seeds):
    generator = np.random.default_rng(1)
    found = 0
    for _ in range(200):
        difficulty = 0.03 + 0.97 * generator.beta(4, 0.6, 3000)
        pair = {"good": runs(generator, difficulty, seeds), "bad": runs(generator, difficulty, seeds, gap=0.03)}
        found += not standings(pair, draws=400)["bad"].tied
    assert found >= 180


def test_the_interval_holds_the_true_difference_about_95_times_in_100():
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        difficulty = 0.05 + 0.9 * generator.beta(4, 0.6, 800)
        a, b = runs(generator, difficulty, 3), runs(generator, difficulty, 3, gap=0.02)
        _, low, high, _ = difference(a, b, draws=400)
        held += low <= difficulty.mean() - np.clip(difficulty - 0.02, 0, 1).mean() <= high
    assert 184 <= held <= 199


def test_seeds_that_differ_widen_the_interval():
    generator = np.random.default_rng(3)
    steady = evidence(*(generator.random(2000) < 0.8 for _ in range(3)))
    shaky = evidence(*(generator.random(2000) < p for p in (0.7, 0.8, 0.9)))
    found = standings({"steady": steady, "shaky": shaky})
    assert found["shaky"].high - found["shaky"].low > 3 * (found["steady"].high - found["steady"].low)
    assert found["shaky"].sd > 5 * found["steady"].sd


def test_holm_steps_down_and_never_reorders():
    assert holm({"a": 0.01, "b": 0.02, "c": 0.04, "d": 0.005}) == pytest.approx(
        {"d": 0.02, "a": 0.03, "b": 0.04, "c": 0.04}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"b": 1.0, "a": 1.0}


def test_mcnemar_counts_only_the_rows_where_one_is_right():
    a = np.array([True] * 10 + [False] * 2 + [True] * 500)
    b = np.array([False] * 10 + [True] * 2 + [True] * 500)
    assert mcnemar(a, b) == pytest.approx(0.0385742, abs=1e-6)  # 2 (C(12,0) + C(12,1) + C(12,2)) / 2^12
    assert mcnemar(a, a) == 1.0


def test_scores_are_those_of_scikit_learn():
    generator = np.random.default_rng(4)
    truth, guess = generator.integers(0, 3, (2, 50))
    assert evidence(truth == guess).scores == pytest.approx([accuracy_score(truth, guess)])
