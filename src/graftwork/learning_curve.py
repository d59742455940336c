"""What more labels would buy: a curve of scores over numbers of labels, carried on beyond the last.

Error falls with the number of labels about as a power of it, down to what no number of labels mends: error(n) =
a n^-b + c (Hestness et al. 2017; for choosing how many to label: Mahmood et al. 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_FLOORS = 20
_DRAWS = 500
_STEEPEST = 1.5


@dataclass(frozen=True)
class Outlook:
    """The score to expect at a number of labels."""

    mean: float
    low: float
    """Lower end of the 80 % interval."""
    high: float
    """Upper end."""


def outlook(
    rows: Sequence[int], scores: Sequence[float], spreads: Sequence[float], wanted: int, *, seed: int = 0
) -> Outlook:
    """The score at `wanted` rows, from those at fewer.

    Args:
        rows: train rows of each point, at least three different numbers.
        scores: the score of each point, in [0, 1].
        spreads: the standard error of each score.
        wanted: rows to foretell the score at.
        seed: of the draws that the interval is made of.
    """
    if len(set(rows)) < 3:
        raise ValueError("A curve is carried on from at least three points.")
    generator = np.random.default_rng(seed)
    n, errors = np.asarray(rows, float), 1 - np.asarray(scores, float)
    noise = generator.normal(size=(_DRAWS, len(n))) * np.maximum(np.asarray(spreads, float), 1e-3)
    drawn = np.array([_carried(n, np.clip(errors + shift, 1e-4, 1), wanted, generator) for shift in noise])
    low, high = np.quantile(1 - drawn, [0.1, 0.9])
    return Outlook(float(np.median(1 - drawn)), float(low), float(high))


def _carried(n: np.ndarray, errors: np.ndarray, wanted: int, generator: np.random.Generator) -> float:
    """The error at `wanted`, with a floor drawn from those that fit about as well as the best.

    A few points hardly tell a floor from a gentle slope, so one floor alone would be surer than there is reason to be.
    """
    floors = np.linspace(0, 0.98 * errors.min(), _FLOORS)
    fits = []
    for floor in floors:
        slope, level = np.polyfit(np.log(n), np.log(errors - floor), 1)
        slope = float(np.clip(slope, -_STEEPEST, 0))
        level = float(np.mean(np.log(errors - floor) - slope * np.log(n)))
        misfit = float(np.mean((np.exp(level + slope * np.log(n)) + floor - errors) ** 2))
        fits.append((misfit, float(np.exp(level + slope * np.log(wanted)) + floor)))
    misfits = np.array([misfit for misfit, _ in fits])
    chance = np.exp(-0.5 * (misfits - misfits.min()) / max(float(misfits.min()), 1e-6))
    return float(generator.choice([found for _, found in fits], p=chance / chance.sum()))
