"""What the page of a race is made from: the methods with a look of their own, and what their runs say together.

Curves, classes and disagreements are all statements about several methods on the same rows, so they are read here once,
and the page only draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from graftwork.report.charts import BLUE, GREEN, ORANGE, Points, thin
from graftwork.report.evidence import one_after_the_other
from graftwork.report.wording import METRICS, duration
from graftwork.run import Run

# Okabe and Ito's colours that can be seen on white; a baseline is grey, and hollow.
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BASELINE = "#59626F"
DASHES = (None, "7 4", "2 3", "9 3 2 3", "14 4")
# One fewer than the colours: 42 methods come before one looks like another.
MARKERS = ("circle", "square", "triangle", "diamond", "wedge", "cross")
MOST_CLASSES = 25
# So many points a curve can be told apart and hovered over.
CURVE_POINTS = 60


@dataclass(frozen=True)
class Cost:
    """One thing that a method costs."""

    key: str
    """In an entry of comparison.json; `latency.KEY` is inside its latencies."""
    name: str
    says: Callable[[float], str]
    least: float
    """The smallest that is worth telling from nothing; a logarithmic axis begins there."""


def _time(seconds: float) -> str:
    return duration(seconds) if seconds >= 0.1 else "< 0.1 s"


def _count(number: float) -> str:
    size, letter = next(((s, word) for s, word in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if number >= s), (1, ""))
    return f"{number / size:.3g}{letter}" if letter else f"{number:,.0f}"


COSTS = (
    Cost("seconds", "time to fit", _time, 0.1),
    Cost("latency.ms_1_p50", "latency of one text", lambda ms: f"{ms:.3g} ms", 0.01),
    Cost("model_mb", "size of the model", lambda mb: f"{mb:,.3g} MB" if mb < 100 else f"{mb:,.0f} MB", 0.01),
    Cost("peak_memory_mb", "memory while fitting", lambda mb: f"{mb:,.0f} MB", 1),
    Cost("trained_parameters", "trained parameters", _count, 1),
)
"""What methods are plotted against, the most asked for first."""


@dataclass(frozen=True)
class Racer:
    """One method of the race: its entry in comparison.json, its runs by seed, and its look."""

    number: int
    """Its place by score, from 0; the page's script knows it by this."""
    entry: Mapping[str, Any]
    runs: Sequence[Run]
    colour: str
    marker: str
    dash: str | None

    @property
    def name(self) -> str:
        """Its own in the race."""
        return str(self.entry["name"])

    @property
    def baseline(self) -> bool:
        """Whether it is there to be beaten."""
        return bool(self.entry.get("baseline"))

    def cost(self, key: str) -> float | None:
        """One of its costs; `latency.KEY` looks into the latencies."""
        if key.startswith("latency."):
            return (self.entry.get("latency") or {}).get(key.removeprefix("latency."))
        return self.entry.get(key)

    @cached_property
    def evaluations(self) -> list[list[dict[str, Any]]]:
        """The evaluations of each run in order, counted on over the stages of a recipe."""
        counted = [one_after_the_other(run.events()) for run in self.runs]
        return [[event for event in events if event.get("event") == "evaluation"] for events in counted]

    def curves(self, axis: str, metric: str) -> list[Points]:
        """The validation score of each run over `axis` (`step` or `seconds`); runs without any are left out."""
        found = []
        for events in self.evaluations:
            points = [(e[axis], e[metric]) for e in events if e.get(metric) is not None and e.get(axis) is not None]
            found.append(thin(sorted(points), CURVE_POINTS))
        return [points for points in found if points]

    def classes(self) -> dict[str, tuple[float, int]]:
        """Mean F1 over seeds, and the number of test rows, of each class."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for run in self.runs:
            for name, values in (run.metrics.get("test", {}).get("per_class") or {}).items():
                if values.get("f1") is not None:
                    found.setdefault(name, []).append(values)
        return {
            name: (float(np.mean([v["f1"] for v in values])), int(values[0].get("support") or 0))
            for name, values in found.items()
        }


@dataclass(frozen=True)
class Race:
    """What the sections are made from: comparison.json, and the methods with their runs."""

    told: Mapping[str, Any]
    racers: list[Racer]

    @classmethod
    def of(cls, told: Mapping[str, Any], runs: Mapping[str, Sequence[Run]]) -> Race:
        """A comparison, and the runs of each of its methods."""
        return cls(told, _racers(told, runs))

    @property
    def metric(self) -> str:
        """What methods are ranked by."""
        return self.told["metric"]

    @property
    def score(self) -> str:
        """What that is called."""
        return METRICS.get(self.metric, (self.metric, True))[0]

    @property
    def data(self) -> Mapping[str, Any]:
        """What comparison.json says about the data."""
        return self.told.get("data") or {}

    @property
    def tagging(self) -> bool:
        """Whether words are labelled, not texts."""
        return self.data.get("task") == "tagging"

    @property
    def several(self) -> bool:
        """Whether a row has several labels, joined by "|"."""
        return self.metric == "macro_f1"

    @cached_property
    def scored(self) -> list[Racer]:
        """The methods that have a score."""
        return [racer for racer in self.racers if racer.entry.get("mean") is not None]


def _racers(told: Mapping[str, Any], runs: Mapping[str, Sequence[Run]]) -> list[Racer]:
    """Every method of a comparison, the best first."""
    found, fitted, plain = [], 0, 0
    for number, entry in enumerate(told["entries"]):
        if entry.get("baseline"):
            look, plain = (BASELINE, MARKERS[plain % len(MARKERS)], None), plain + 1
        else:
            dash = DASHES[fitted // len(COLOURS) % len(DASHES)]
            look = (COLOURS[fitted % len(COLOURS)], MARKERS[fitted % len(MARKERS)], dash)
            fitted += 1
        found.append(Racer(number, entry, list(runs.get(entry["name"], ())), *look))
    return found


def mean_curve(curves: Sequence[Points]) -> Points:
    """The mean over seeds, where all of them are known; between its own points each seed goes straight.

    Example:
        >>> mean_curve([[(1, 0.5), (3, 0.7)], [(1, 0.7), (2, 0.8), (4, 0.9)]])
        [(1.0, 0.6), (2.0, 0.7), (3.0, 0.775)]
    """
    if not curves:
        return []
    begin, end = max(c[0][0] for c in curves), min(c[-1][0] for c in curves)
    across = sorted({x for curve in curves for x, _ in curve if begin <= x <= end})
    heights = [np.interp(across, [x for x, _ in curve], [y for _, y in curve]) for curve in curves]
    return thin([(float(x), float(y)) for x, y in zip(across, np.mean(heights, axis=0), strict=True)], CURVE_POINTS)


def floor(scores: Sequence[float]) -> float | None:
    """Where an axis should begin so that the better methods can be told apart; None where all of them fit.

    What lies far below the others (a majority vote among trained models) would otherwise press them into one line. A
    gap wider than half of the whole range is cut away, as long as half of the scores, and two, stay.

    Example:
        >>> floor([0.93, 0.91, 0.90, 0.88, 0.03])
        0.88
    """
    kept = sorted(scores, reverse=True)
    least = max(2, -(-len(kept) // 2))
    cut = None
    while len(kept) > least:
        gaps = [upper - lower for upper, lower in pairwise(kept)]
        widest = int(np.argmax(gaps))
        if gaps[widest] < 0.1 or gaps[widest] < 0.5 * (kept[0] - kept[-1]) or widest + 1 < least:
            break
        kept = kept[: widest + 1]
        cut = kept[-1]
    return cut


@dataclass(frozen=True)
class ClassRow:
    """One class: its rows in test, and the F1 of each method by the method's number."""

    name: str
    support: int
    scores: dict[int, float]


def class_rows(found: Sequence[Racer]) -> tuple[list[ClassRow], int]:
    """The MOST_CLASSES classes on which the fitted methods differ most, and how many there are in all."""
    by_racer = {racer.number: racer.classes() for racer in found}
    names = dict.fromkeys(name for classes in by_racer.values() for name in classes)
    judged = judged_by([racer for racer in found if by_racer[racer.number]])

    def spread(name: str) -> float:
        values = [by_racer[r.number][name][0] for r in judged if name in by_racer[r.number]]
        return max(values, default=0.0) - min(values, default=0.0)

    chosen = sorted(names, key=lambda name: -spread(name))[:MOST_CLASSES]
    rows = [
        ClassRow(
            name,
            max(classes[name][1] for classes in by_racer.values() if name in classes),
            {number: classes[name][0] for number, classes in by_racer.items() if name in classes},
        )
        for name in chosen
    ]
    return rows, len(names)


def judged_by(found: Sequence[Racer]) -> list[Racer]:
    """The fitted methods, or all where fewer than two were fitted: baselines differ from everything."""
    fitted = [racer for racer in found if not racer.baseline]
    return fitted if len(fitted) > 1 else list(found)
