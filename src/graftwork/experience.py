"""What past races teach about a race not yet run: how much better each method did than a quick probe.

A race's outcome depends on how many labels there are, on how long each run may take, on how much of the task the
frozen encoder already knows, and on whether it can read the texts at all. Past races that were alike in these speak
louder. They are committed, with the script that ran them (`benchmarks/advisor.py`), so that what is foretold can be
checked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

_SPREADS = {"labels": 2.0, "steps": 1.5, "probe": 1.0, "words": 0.7, "unknown": 0.1}
"""How far apart, in each, two races may lie and still be alike: doublings of rows a class and of steps; logits; a share
of the pieces."""
_PRIOR_RACES = 0.5
"""A method that has not raced is taken to do as well as the probe, with the weight of so many races."""
_PRIOR_SD = 0.4
"""And this uncertainty of the gain, in logits."""


@dataclass(frozen=True)
class Situation:
    """What is known of a race before it is run. Scores are in [0, 1]."""

    rows: int
    """Of train."""
    classes: int
    steps: float
    """That each run takes."""
    probe: float
    """The score of a quick probe."""
    words: float
    """The score of TF-IDF."""
    unknown: float = 0.0
    """Share of the texts' pieces that the model's vocabulary lacks."""

    def at(self) -> np.ndarray:
        """Where it lies among others, in units of likeness: (5,)."""
        values = {
            "labels": math.log2(max(self.rows / self.classes, 1)),
            "steps": math.log2(max(self.steps, 1)),
            "probe": logit(self.probe),
            "words": logit(self.words) - logit(self.probe),
            "unknown": self.unknown,
        }
        return np.array([values[name] / spread for name, spread in _SPREADS.items()])


@dataclass(frozen=True)
class Race:
    """One race that was run: the situation, and the score of every method."""

    name: str
    situation: Situation
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Gain:
    """What a method is expected to add to the logit of the quick probe's score."""

    mean: float
    sd: float
    races: tuple[str, ...]
    """The past races that say so, the most alike first."""


def expected(method: str, situation: Situation, races: Sequence[Race]) -> Gain:
    """What `races` let one expect of `method` in `situation`: their mean, weighted by likeness.

    Nadaraya 1964; with a prior of no gain, whose weight is that of half a race exactly alike.
    """
    known = [race for race in races if method in race.scores]
    if not known:
        return Gain(0.0, _PRIOR_SD, ())
    here = situation.at()
    weights = np.array([math.exp(-0.5 * float(((race.situation.at() - here) ** 2).sum())) for race in known])
    gains = np.array([logit(race.scores[method]) - logit(race.situation.probe) for race in known])
    total = weights.sum() + _PRIOR_RACES
    mean = float((weights * gains).sum() / total)
    spread = float((weights * (gains - mean) ** 2).sum() + _PRIOR_RACES * _PRIOR_SD**2) / total
    nearest = [known[i].name for i in np.argsort(-weights, kind="stable") if weights[i] > 0.01]
    return Gain(mean, math.sqrt(spread), tuple(nearest))


@cache
def committed() -> tuple[Race, ...]:
    """The races that ship with the package."""
    told = json.loads(files("graftwork").joinpath("experience.json").read_text(encoding="utf-8"))
    return tuple(race_of(entry) for entry in told["races"])


def correlations() -> dict[str, Any]:
    """How well each transferability score ranked encoders, measured: `benchmarks/ranking.py`."""
    return json.loads(files("graftwork").joinpath("experience.json").read_text(encoding="utf-8"))["ranking"]


def race_of(entry: Mapping[str, Any]) -> Race:
    """A race from plain values."""
    return Race(entry["name"], Situation(**entry["situation"]), entry["scores"])


def without(races: Sequence[Race], data: Collection[str]) -> list[Race]:
    """The races on other data sets than these: what a test of the advice may know."""
    return [race for race in races if race.name.split(",")[0] not in data]


def logit(share: float) -> float:
    """The log odds of a share, kept away from 0 and 1."""
    share = min(max(share, 0.005), 0.995)
    return math.log(share / (1 - share))


def share(log_odds: float) -> float:
    """The share with these log odds."""
    return 1 / (1 + math.exp(-log_odds))
