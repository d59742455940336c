"""A curve that follows the law is carried on right, and the interval knows what a few points cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.learning_curve import outlook


@pytest.mark.parametrize(("a", "b", "c"), [(0.9, 0.4, 0.0), (0.9, 0.4, 0.08), (0.5, 0.15, 0.0), (0.6, 0.8, 0.2)])
def test_a_power_law_with_a_floor_is_carried_on_within_its_interval(a, b, c):
    rows = [80, 160, 320, 640, 1280]
    scores = [1 - a * n**-b - c for n in rows]
    found = outlook(rows, scores, [0.004] * 5, 10_240)
    truth = 1 - a * 10_240**-b - c
    assert found.low - 0.01 <= truth <= found.high + 0.01
    assert found.mean == pytest.approx(truth, abs=0.03)


def test_a_flat_curve_stays_flat():
    found = outlook([100, 200, 400], [0.8, 0.8, 0.8], [0.002] * 3, 3200)
    assert found.mean == pytest.approx(0.8, abs=0.01)


def test_the_further_ahead_and_the_noisier_the_wider():
    rows, scores = [80, 160, 320, 640], [0.6, 0.68, 0.74, 0.79]
    near, far = (outlook(rows, scores, [0.005] * 4, n) for n in (1280, 20_480))
    noisy = outlook(rows, scores, [0.03] * 4, 1280)
    assert far.high - far.low > near.high - near.low
    assert noisy.high - noisy.low > near.high - near.low
    assert near.mean > 0.79


def test_two_points_are_refused():
    with pytest.raises(ValueError, match="three"):
        outlook([10, 10, 20], [0.1, 0.1, 0.2], [0.1] * 3, 40)


def test_the_same_points_give_the_same_outlook():
    given = [50, 100, 200], [0.5, 0.6, 0.68], [0.01] * 3, 800
    assert outlook(*given) == outlook(*given)
    assert np.isfinite(outlook(*given).mean)
