"""Each schedule goes as its formula says, and the loop follows it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graftwork.choice import InputError, build, lookup, names, parse
from graftwork.methods import FullFineTuning
from graftwork.schedule import OneCycle, Plateau, Schedule, SlantedTriangular, rate_factor

QUICK = FullFineTuning(lr=5e-3, head_lr_factor=2, batch_size=16, head_start="random")


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        ("linear", {0.0: 0.01, 0.05: 0.5, 0.1: 1.0, 0.55: 0.5, 1.0: 0.0}),
        ("constant", {0.05: 0.5, 0.1: 1.0, 0.7: 1.0, 1.0: 1.0}),
        ("cosine", {0.1: 1.0, 0.55: 0.5, 0.325: 0.5 * (1 + math.cos(math.pi / 4)), 1.0: 0.0}),
        ("cosine-restarts", {0.1: 1.0, 0.1 + 0.9 / 8: 0.5, 0.1 + 0.9 / 4: 1.0, 0.1 + 0.9 * 3 / 8: 0.5, 1.0: 0.0}),
        ({"cosine-restarts": {"cycles": 1}}, {0.1: 1.0, 0.55: 0.5, 1.0: 0.0}),
        (
            "slanted-triangular",
            {0.0: 1 / 32, 0.05: 16.5 / 32, 0.1: 1.0, 0.55: 16.5 / 32, 1: 1 / 32},
        ),
        ("one-cycle", {0.0: 1 / 25, 0.15: (1 + 1 / 25) / 2, 0.3: 1.0, 0.65: (1 + 1e-5) / 2, 1.0: 1e-5}),
        ("plateau", {0.05: 0.5, 0.1: 1.0, 1.0: 1.0}),
    ],
)
def test_by_hand(schedule, points):
    for fraction, factor in points.items():
        assert rate_factor(parse(Schedule, schedule), 0.1, fraction) == pytest.approx(factor, abs=1e-9), fraction


def test_without_warm_up_the_first_step_has_the_full_rate():
    assert rate_factor(parse(Schedule, "linear"), 0.0, 0.0) == 1.0


@pytest.mark.parametrize("name", names(Schedule))
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_none_rises_above_its_peak_or_falls_below_nothing(name, warmup):
    factors = [rate_factor(parse(Schedule, name), warmup, f) for f in np.linspace(0, 1, 201)]
    assert 0 <= min(factors) <= max(factors) <= 1


def test_one_cycle_is_torchs_own():
    weight, steps = torch.nn.Parameter(torch.zeros(1)), 200
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=steps + 1, pct_start=0.3, div_factor=25, final_div_factor=1e5 / 25
    )
    for step in range(steps):
        # torch turns one step before pct_start of its steps
        assert OneCycle(up=(0.3 * (steps + 1) - 1) / steps).factor(step / steps) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-6
        )
        optimizer.step()
        theirs.step()


def test_slanted_triangular_with_the_papers_numbers():
    # eq. 3 with T = 1000, cut_frac = 0.1, ratio = 32: cut = 100
    def paper(t: int) -> float:
        p = t / 100 if t < 100 else 1 - (t - 100) / (100 * (1 / 0.1 - 1))
        return (1 + p * 31) / 32

    for t in (0, 1, 50, 99, 100, 101, 700, 1000):
        assert SlantedTriangular().factor(t / 1000) == pytest.approx(paper(t))


@pytest.mark.usefixtures("every_step_is_told")
def test_plateau_goes_down_each_time_validation_stands_still(staged):
    s = staged(
        QUICK.model_copy(update={"lr": 1e-30, "schedule": Plateau(patience=1, reduction=0.5), "warmup": 0}), steps=24
    )
    trained = s.run()
    validations = [e for e in s.events if e["event"] == "evaluation"]
    assert len(validations) >= 3
    assert trained.progress.reductions == trained.progress.since_best >= 2  # such a rate moves nothing
    last = [e for e in s.events if e["event"] == "step"][-1]
    assert last["lr"] < 0.6e-30


@pytest.mark.usefixtures("every_step_is_told")
@pytest.mark.parametrize("name", names(Schedule))
def test_the_loop_follows_it(staged, name):
    s = staged(QUICK.model_copy(update={"schedule": lookup(Schedule, name)()}), steps=6)
    s.run()
    steps = [e for e in s.events if e["event"] == "step"]
    expected = [5e-3 * rate_factor(lookup(Schedule, name)(), 0.1, i / 6) for i in range(6)]
    assert [e["lr"] for e in steps] == pytest.approx(expected)


def test_a_method_says_which_schedules_there_are():
    with pytest.raises(InputError, match="Did you mean 'cosine'"):
        build(FullFineTuning, {"schedule": "cosin"})
    assert build(FullFineTuning, {"schedule": {"one-cycle": {"up": 0.2}}}).schedule == OneCycle(up=0.2)
