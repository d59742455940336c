"""A budget is an amount of one unit, and is written as it is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graftwork.budget import Budget
from graftwork.choice import InputError


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("3epochs", 3, "epochs"), ("1epoch", 1, "epochs"), ("0.5epochs", 0.5, "epochs"), ("500steps", 500, "steps"),
        ("90s", 90, "seconds"), ("10m", 600, "seconds"), ("2h", 7200, "seconds"), (" 10 M ", 600, "seconds"),
        ("1.5min", 90, "seconds"),
    ],
)  # fmt: skip
def test_every_unit_is_read(text, amount, unit):
    assert Budget.parse(text) == Budget(amount, unit)


@pytest.mark.parametrize("text", ["", "3", "epochs", "3 parsecs", "-3epochs", "1e3steps", "three epochs", "3epochs 4s"])
def test_what_is_not_understood_is_answered_with_examples(text):
    with pytest.raises(InputError, match=r"is not understood\. Write 3epochs, 500steps, 90s, 10m or 2h"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["0epochs", "0s", "0.0steps", "1.5steps"])
def test_nothing_and_half_steps_are_refused(text):
    with pytest.raises(InputError, match="must be above 0"):
        Budget.parse(text)


@given(st.integers(1, 10**6), st.sampled_from(["epochs", "steps", "seconds"]))
def test_what_is_written_reads_as_the_same_budget(amount, unit):
    budget = Budget(float(amount), unit)
    assert Budget.parse(str(budget)) == budget


@given(st.floats(1e-3, 1e7), st.sampled_from(["epochs", "seconds"]))
def test_a_fraction_is_written_as_exactly_as_it_is_read(amount, unit):
    budget = Budget(amount, unit)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(("text", "steps"), [("7steps", 7), ("3epochs", 30), ("0.25epochs", 2), ("0.01epochs", 1)])
def test_epochs_become_steps_and_never_none(text, steps):
    assert Budget.parse(text).steps(steps_per_epoch=10) == steps


def test_only_a_clock_can_tell_how_many_steps_a_time_is():
    assert Budget.parse("10s").steps(steps_per_epoch=10) is None
