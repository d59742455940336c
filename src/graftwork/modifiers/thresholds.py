"""Deciding otherwise than by the most probable class: how far each class is moved is chosen on validation."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field
from scipy.special import softmax

from graftwork.modifier import Modifier
from graftwork.task import coverage_threshold

if TYPE_CHECKING:
    from graftwork.task import Decision

_GRID = np.linspace(-8, 8, 161)
"""Offsets that are tried: exp(8) is a class that is 3,000 times as rare as it should be."""
_ROUNDS = 10
"""Over all classes at most; it mostly ends after three, when nothing is gained any more."""


class ThresholdMoving(Modifier):
    """Move what it takes to answer each class to where validation's macro-F1 is highest; the network stays as it is.

    The answer is the class with the highest log p_c + o_c. The offsets o come from coordinate ascent, of two classes it
    is one threshold. So that they are no accident of few rows they are found once a fold on the rest of validation, and
    their mean is taken only if, each judged on its own fold, they gain at least `gain`.
    """

    paper: ClassVar[str] = (
        "Plug-in classifiers: Collell, Prelec & Patil 2018; ascent: Lipton, Elkan & Naryanaswamy 2014"
    )
    needs: ClassVar[frozenset[str]] = frozenset({"one-class"})
    closed_form: ClassVar[bool] = True

    folds: int = Field(default=5, ge=2)
    """Into which validation is cut."""
    gain: float = Field(default=0.01, ge=0, le=1)
    """Macro-F1 on rows held out that it must add; otherwise nothing moves."""

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> Decision:
        """The decision with `offsets`, and with `sure_from` where as many answers are sure as before."""
        logits, truth = np.asarray(outputs, dtype=np.float64) / decision.temperature, np.asarray(targets)
        fold = np.empty(len(truth), dtype=int)
        fold[np.argsort(truth, kind="stable")] = np.arange(len(truth)) % self.folds  # each class spread over all
        found = [best_offsets(logits[fold != k], truth[fold != k]) for k in range(self.folds)]
        held_out = macro_f1(logits + np.stack(found)[fold], truth)
        if held_out <= (plain := macro_f1(logits, truth)) or held_out < plain + self.gain:
            return decision
        offsets = np.mean(found, axis=0)
        sure = float((_confidence(logits) >= decision.sure_from).mean())
        return dataclasses.replace(
            decision,
            offsets=tuple(offsets.tolist()),
            sure_from=coverage_threshold(_confidence(logits + offsets), sure),
        )


def best_offsets(logits: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """What to add to logits (n, classes) for the highest macro-F1 on `truth` (n,), by coordinate ascent: (classes,).

    Of equally good offsets the one nearest to 0. A class without a row stays at 0.
    """
    classes = logits.shape[1]
    moving = [c for c in range(classes) if (truth == c).any()]
    if classes == 2:  # only their difference decides
        moving = moving[-1:]
    offsets, best = np.zeros(classes), macro_f1(logits, truth)
    for _ in range(_ROUNDS):
        before = best
        for c in moving:
            scores = _along(logits + np.where(np.arange(classes) == c, 0.0, offsets), truth, c)
            if scores.max() > best + 1e-9:
                good = np.flatnonzero(scores >= scores.max() - 1e-12)
                offsets[c] = _GRID[good[np.argmin(abs(_GRID[good]))]]
                best = float(scores.max())
        if best == before:
            break
    return offsets


def _along(logits: np.ndarray, truth: np.ndarray, c: int) -> np.ndarray:
    """Macro-F1 with each offset of the grid added to class `c` of logits (n, classes): (grid,).

    As the offset grows, rows go over from the best of the other classes to `c`, each at its own place in the grid.
    """
    others = logits.copy()
    others[:, c] = -np.inf
    rival = others.argmax(axis=1)
    goes_at = np.searchsorted(_GRID, others.max(axis=1) - logits[:, c], side="right")
    gone, gone_right = (_gone(goes_at[rows], rival[rows], logits.shape[1]) for rows in (slice(None), truth == rival))
    given = np.bincount(rival, minlength=logits.shape[1]) - gone
    given[:, c] = gone.sum(axis=1)
    right = np.bincount(rival[truth == rival], minlength=logits.shape[1]) - gone_right
    right[:, c] = _gone(goes_at[truth == c], rival[truth == c], logits.shape[1]).sum(axis=1)
    return _mean_f1(right, given, np.bincount(truth, minlength=logits.shape[1]))


def _gone(goes_at: np.ndarray, rival: np.ndarray, classes: int) -> np.ndarray:
    """At each place of the grid, how many rows have gone over from each class: (grid, classes)."""
    cells = np.bincount(goes_at * classes + rival, minlength=(len(_GRID) + 1) * classes)
    return cells.reshape(-1, classes).cumsum(axis=0)[:-1]


def macro_f1(logits: np.ndarray, truth: np.ndarray) -> float:
    """Of answering the highest of each row of (n, classes); classes that never occur score 0."""
    guess, classes = logits.argmax(axis=1), logits.shape[1]
    right, given, asked = (np.bincount(rows, minlength=classes) for rows in (guess[guess == truth], guess, truth))
    return float(_mean_f1(right, given, asked))


def _mean_f1(right: np.ndarray, given: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The mean over the last axis, the classes, of 2 right / (given + asked)."""
    return (2 * right / np.maximum(given + asked, 1)).mean(axis=-1)


def _confidence(logits: np.ndarray) -> np.ndarray:
    """The probability of each row's answer: (n,)."""
    return softmax(logits, axis=1).max(axis=1)
