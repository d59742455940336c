"""What a curve says is what was planted in it; a real one leaves the model as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from graftwork.choice import InputError
from graftwork.methods import FullFineTuning, LinearProbe
from graftwork.rate_test import RateTest, rate_test, read
from graftwork.testing import learnable

METHOD = FullFineTuning(lr=1e-3)
RATES = np.geomspace(1e-6, 1e-1, 100).tolist()


def curve(falls_at: float, blows_at: float | None, noise: float = 0.01) -> list[float]:
    """A loss that falls from 2 to 0.5 around one rate, and blows up from another on."""
    generator = np.random.default_rng(0)
    rates = np.log10(RATES)
    loss = 0.5 + 1.5 / (1 + np.exp(6 * (rates - np.log10(falls_at))))
    if blows_at is not None:
        loss = loss + np.exp(np.clip(3 * (rates - np.log10(blows_at)), -50, 8)) * (rates > np.log10(blows_at) - 0.5)
    return (loss + noise * generator.normal(size=len(rates))).tolist()


@pytest.mark.parametrize("falls_at", [1e-4, 1e-3])
def test_the_steepest_fall_and_the_blow_up_are_found(falls_at):
    found = read(METHOD, RATES, curve(falls_at, 2e-2))
    assert found.suggested is not None
    assert found.suggested / falls_at == pytest.approx(1.5, rel=1.0)  # smoothing looks back a few steps
    assert found.highest is not None
    assert 1e-2 < found.highest < 1e-1


def test_a_loss_that_never_falls_suggests_nothing_and_keeps_the_default():
    found = read(METHOD, RATES, [2.0] * 100)
    assert (found.suggested, found.highest, found.advised) == (None, None, METHOD.lr)


def test_a_curve_that_ends_in_no_number_has_blown_up_there():
    losses = [*curve(0.0001, None)[:60], float("nan")]
    found = read(METHOD, RATES[:61], losses)
    assert found.highest == pytest.approx(RATES[60])


@pytest.mark.parametrize(
    ("default", "taken"),
    [(1e-3, 1e-3), (5e-2, 2e-3), (2.9e-2, 2.9e-2), (1e-6, 2e-3)],
    ids=["fits", "high", "ok", "low"],
)
def test_a_default_is_left_only_where_the_curve_forbids_it(default, taken):
    found = RateTest("m", (), (), suggested=2e-3, highest=9e-2, default=default)
    assert found.advised == taken


def test_a_real_curve_rises_from_a_thousandth_to_a_hundredfold_and_is_repeatable(tiny, quick):
    first, second = (rate_test(learnable("classification"), model=tiny, steps=40, hardware=quick) for _ in range(2))
    assert first == second
    assert first.rates[0] == pytest.approx(first.default / 1000)
    assert first.rates[-1] <= first.default * 100
    assert all(b > a for a, b in zip(first.rates, first.rates[1:], strict=False))
    assert first.suggested is not None
    assert first.suggested > first.rates[5]


def test_the_model_that_is_watched_does_not_move(staged):
    from graftwork.hardware import Hardware
    from graftwork.rate_test import watched

    s = staged(FullFineTuning())
    before = {n: p.clone() for n, p in s.model.named_parameters()}
    watched(s.model, FullFineTuning(), s.train, s.validation, Hardware(device="cpu", precision="fp32"), steps=20)
    assert all(torch.equal(p, before[n]) for n, p in s.model.named_parameters())


def test_what_takes_no_steps_has_no_rate(tiny):
    with pytest.raises(InputError, match="takes no steps"):
        rate_test(learnable("classification"), method=LinearProbe(), model=tiny)
    with pytest.raises(InputError, match="at least 20 steps"):
        rate_test(learnable("classification"), model=tiny, steps=5)
