"""Rows of test on which methods disagree: where the best is wrong and another right, there is more to gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graftwork.report.race import Racer, judged_by

MOST_ROWS = 40
# How many rows of each kind are shown while there are more than MOST_ROWS in all.
SHARES = (20, 12, 8)


@dataclass(frozen=True)
class Answer:
    """What one method said about a row."""

    racer: Racer
    said: str
    confidence: float | None


@dataclass(frozen=True)
class Row:
    """A test row on which methods disagree."""

    number: int
    text: str
    label: str
    answers: list[Answer]


@dataclass(frozen=True)
class Disagreements:
    """Rows of test on which methods disagree, by what they show."""

    best: Racer
    rows: int
    """Of the test split."""
    counts: tuple[int, int, int]
    """Rows where the best is wrong and another right; where the best is right and another wrong; where all are wrong,
    each in its own way."""
    shown: tuple[list[Row], list[Row], list[Row]]
    """Of each kind the most informative ones, MOST_ROWS in all."""


def disagreements(found: Sequence[Racer], *, several: bool) -> Disagreements | None:
    """Rows on which the first seeds of the methods disagree; None where fewer than two have answered.

    Args:
        found: the best first.
        several: whether a row has several labels, joined by "|".
    """
    tables = {racer.number: racer.runs[0].predictions("test") for racer in found if racer.runs}
    tables = {number: table for number, table in tables.items() if len(table)}
    if not tables:
        return None
    first = next(iter(tables.values()))
    rows = first["row"].to_numpy()
    tables = {number: table for number, table in tables.items() if np.array_equal(table["row"].to_numpy(), rows)}
    answered = [racer for racer in found if racer.number in tables]
    judged = judged_by(answered)
    if answered[0] not in judged:  # a baseline that beats them all
        judged = [answered[0], *judged]
    if len(judged) < 2:
        return None
    labels = _cells(first["label"], several)
    said = {number: _cells(table["prediction"], several) for number, table in tables.items()}
    sure = {number: table["confidence"].to_numpy().astype(float) for number, table in tables.items()}
    given = np.stack([said[racer.number] for racer in judged])
    kinds, weight = _kinds(given == labels, given != given[0], np.stack([sure[r.number] for r in judged]))
    counts = [int((kinds == kind).sum()) for kind in range(3)]
    taken = _taken(counts)

    def row(place: int) -> Row:
        answers = [Answer(r, said[r.number][place], _finite(sure[r.number][place])) for r in answered]
        return Row(int(rows[place]), str(first["input"][place].as_py() or ""), labels[place], answers)

    shown = []
    for kind in range(3):
        places = np.flatnonzero(kinds == kind)
        order = places[np.argsort(-weight[places], kind="stable")]
        shown.append([row(int(place)) for place in order[: taken[kind]]])
    return Disagreements(judged[0], len(rows), (counts[0], counts[1], counts[2]), (shown[0], shown[1], shown[2]))


def _cells(column: Any, several: bool) -> np.ndarray:
    """Labels (rows,) as text; several of one row in a fixed order."""
    cells = [cell or "" for cell in column.to_pylist()]
    return np.array(["|".join(sorted(cell.split("|"))) for cell in cells] if several else cells, dtype=object)


def _kinds(right: np.ndarray, other: np.ndarray, sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each row shows (0, 1, 2 as in `Disagreements.counts`; -1 for nothing), and how much.

    Args:
        right: (methods, rows), the best method first.
        other: (methods, rows), whether a method says something else than the best.
        sure: (methods, rows) confidences, nan where unknown.
    """
    right, other = right.astype(bool), other.astype(bool)
    sure = np.nan_to_num(sure)
    kinds = np.full(right.shape[1], -1)
    kinds[~right.any(0) & other.any(0)] = 2
    kinds[right[0] & ~right.all(0)] = 1
    kinds[~right[0] & right.any(0)] = 0
    # many others right and the best sure; many wrong and sure; all sure of something else
    wrong = np.maximum((~right).sum(0), 1)
    mistaken = (sure * ~right).sum(0) / wrong
    weight = np.select([kinds == 0, kinds == 1], [right.mean(0) + sure[0], (~right).mean(0) + mistaken], mistaken)
    return kinds, weight


def _taken(counts: Sequence[int]) -> list[int]:
    """How many rows of each kind are shown: each kind's share first, then what the others leave over."""
    taken = [min(count, share) for count, share in zip(counts, SHARES, strict=True)]
    for kind, count in enumerate(counts):
        taken[kind] += min(count - taken[kind], MOST_ROWS - sum(taken))
    return taken


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
