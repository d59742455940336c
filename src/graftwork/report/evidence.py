"""What the page is made from: a run folder, read once, and the statistics that only the page needs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftwork.run import Run

BINS = 15
WORST_PAIRS = 15
MISTAKES = 20
# More classes than one can look at in one matrix.
MOST_CLASSES = 100


@dataclass(frozen=True)
class Evidence:
    """What the page is made from: run.json, the events, and the predictions of the split that is reported."""

    run: dict[str, Any]
    events: list[dict[str, Any]]
    split: str
    rows: dict[str, np.ndarray]
    shown: list[dict[str, Any]]

    @classmethod
    def of(cls, run: Run) -> Evidence:
        """Read a run folder; test is reported where it was evaluated, else validation."""
        whole = run.as_dict()
        split = next((name for name in ("test", "validation") if name in whole["metrics"]), "validation")
        table = run.predictions(split)
        table = table.filter(table["label"].is_valid())
        columns = {name: table[name].to_numpy() for name in ("label", "prediction", "confidence", "unsure")}
        wrong = columns["label"] != columns["prediction"]
        if whole["data"].get("task") == "classification" and not whole["data"].get("multi_label"):
            probabilities, truth = columns["confidence"], ~wrong
        else:
            probabilities, truth = _each_label(
                table["probabilities"], columns["label"], whole["data"].get("labels", [])
            )
        sure = columns["confidence"].astype(float)
        order = np.argsort(-sure, kind="stable")
        first = order[(wrong & np.isfinite(sure))[order]][:MISTAKES]
        rows = {"probabilities": probabilities, "truth": truth, "confidence": columns["confidence"], "wrong": wrong}
        return cls(whole, run.events(), split, rows, table.take(first).to_pylist())

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the reported split."""
        return self.run["metrics"].get(self.split, {})

    @property
    def tagging(self) -> bool:
        """Whether words are labelled, not texts."""
        return self.run["data"].get("task") == "tagging"

    @property
    def single_label(self) -> bool:
        """Whether each text has exactly one label."""
        return not self.tagging and not self.run["data"].get("multi_label")


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share seen in n independent examples (Wilson 1927), 95 % by default."""
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def calibration_bins(probabilities: np.ndarray, truth: np.ndarray) -> list[tuple[float, float, int]]:
    """Mean confidence, share right and count of each of BINS equal ranges of confidence that has any."""
    known = np.isfinite(probabilities.astype(float)) if len(probabilities) else np.zeros(0, bool)
    probabilities, truth = probabilities[known].astype(float), truth[known].astype(float)
    if not len(probabilities):
        return []
    which = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    counts = np.bincount(which, minlength=BINS)
    sure, right = (np.bincount(which, weights=values, minlength=BINS) for values in (probabilities, truth))
    return [(sure[b] / counts[b], right[b] / counts[b], int(counts[b])) for b in range(BINS) if counts[b]]


def accuracy_by_coverage(confidence: np.ndarray, wrong: np.ndarray) -> list[tuple[float, float]]:
    """The accuracy (0 to 1) of the surest 10, ..., 100 percent."""
    right = ~wrong[np.argsort(-confidence.astype(float), kind="stable")]
    shares = [percent for percent in range(10, 101, 2) if math.ceil(len(right) * percent / 100) >= 10] or [100]
    return [(float(percent), float(right[: math.ceil(len(right) * percent / 100)].mean())) for percent in shares]


def _each_label(column: Any, truth: np.ndarray, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Multi-label: every (text, label) pair is a prediction of its own."""
    given = column.combine_chunks().drop_null()
    if not labels or len(given) != len(truth) or len(given.flatten()) != len(truth) * len(labels):
        return np.zeros(0), np.zeros(0, bool)
    place = {label: number for number, label in enumerate(labels)}
    marked = np.zeros((len(truth), len(labels)), bool)
    for row, names in enumerate(truth):
        marked[row, [place[name] for name in names.split("|") if name in place]] = True
    return given.flatten().to_numpy(zero_copy_only=False), marked.ravel()


def worst_pairs(metrics: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
    """The classes most often mixed up: true, predicted, how often, of how many; at most WORST_PAIRS."""
    known = metrics.get("confusion")
    if not known:
        return []
    matrix = np.asarray(known["matrix"])
    off = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-off, axis=None, kind="stable")[:WORST_PAIRS]
    places = (divmod(int(place), len(matrix)) for place in order)
    labels, totals = known["labels"], matrix.sum(1)
    return [
        (labels[row], labels[column], int(off[row, column]), int(totals[row]))
        for row, column in places
        if off[row, column]
    ]


def most_confused(labels: Sequence[str], matrix: Sequence[Sequence[int]]) -> tuple[list[str], list[list[int]]]:
    """All classes, or the MOST_CLASSES with the most errors when they are more than one can look at."""
    counts = np.asarray(matrix)
    errors = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
    kept = np.sort(np.argsort(-errors, kind="stable")[:MOST_CLASSES])
    return [labels[int(place)] for place in kept], [[int(n) for n in row] for row in counts[np.ix_(kept, kept)]]


def one_after_the_other(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The events with steps, epochs and seconds counted on over the stages of a recipe; each stage counts from 0."""
    counted, before, stage = [], {"step": 0, "epoch": 0.0, "seconds": 0.0}, None
    last = before
    for event in events:
        if event.get("stage", stage) != stage:
            stage, before = event["stage"], last
        here = {key: before[key] + event[key] for key in before if event.get(key) is not None}
        counted.append({**event, **here, "stage_step": event.get("step")})
        last = {**last, **here}
    return counted
