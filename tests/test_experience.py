"""What past races teach: by hand where it can be, and nothing where there are none."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from graftwork.experience import Race, Situation, committed, correlations, expected, logit, share, without

HERE = Situation(rows=800, classes=10, steps=400, probe=0.8, words=0.7)


def race(name: str, score: float, **changed: float) -> Race:
    values = {"rows": 800, "classes": 10, "steps": 400, "probe": 0.8, "words": 0.7} | changed
    return Race(name, Situation(**values), {"lora": score})  # type: ignore[arg-type]


def test_a_method_that_never_raced_is_taken_to_do_as_well_as_the_probe():
    gain = expected("lora", HERE, [])
    assert (gain.mean, gain.races) == (0.0, ())
    assert gain.sd == pytest.approx(0.4)


def test_one_race_exactly_alike_weighs_twice_the_prior():
    gain = expected("lora", HERE, [race("a", 0.9)])
    observed = logit(0.9) - logit(0.8)
    assert gain.mean == pytest.approx(observed / 1.5)
    spread = ((observed - gain.mean) ** 2 + 0.5 * 0.4**2) / 1.5
    assert gain.sd == pytest.approx(math.sqrt(spread))
    assert gain.races == ("a",)


def test_the_more_alike_the_louder():
    near, far = race("near", 0.9), race("far", 0.6, rows=100_000)
    gain = expected("lora", HERE, [far, near])
    assert gain.mean > 0
    assert gain.races[0] == "near"
    assert expected("lora", HERE, [race("near", 0.6), race("far", 0.9, rows=100_000)]).mean < 0


def test_races_on_texts_that_were_read_say_nothing_of_texts_that_cannot_be():
    races = [race("english", 0.9)]
    readable, foreign = (expected("lora", replace(HERE, unknown=share), races) for share in (0.0, 0.6))
    assert (readable.races, foreign.races) == (("english",), ())
    assert foreign.mean == pytest.approx(0, abs=1e-6)


def test_races_of_other_methods_say_nothing():
    assert expected("full-fine-tuning", HERE, [race("a", 0.9)]).races == ()


def test_what_was_learned_on_a_data_set_can_be_left_out():
    races = [race("banking77, 8 shots", 0.9), race("ag_news, all", 0.9)]
    assert [r.name for r in without(races, {"banking77"})] == ["ag_news, all"]


@pytest.mark.parametrize("value", [0.01, 0.3, 0.5, 0.99])
def test_log_odds_and_back(value):
    assert share(logit(value)) == pytest.approx(value)
    assert math.isfinite(logit(0.0))
    assert math.isfinite(logit(1.0))


def test_what_ships_can_be_read_and_every_race_had_a_probe():
    races = committed()
    assert races
    assert len({r.name for r in races}) == len(races)
    for each in races:
        assert "linear-probe" in each.scores
        assert all(0 <= score <= 1 for score in each.scores.values())
    trust = correlations()  # empty until the ranking has been measured
    assert not trust or all(
        -1 <= trust["scores"][name]["mean"] <= 1 for name in ("logme", "h-score", "neighbours", "probe")
    )
