"""Triplets: those that say nothing, and those that say the opposite of another."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graftwork.data import Split, empty_inputs
from graftwork.finding import Finding, Kind, number, percent
from graftwork.splitting import normalise
from graftwork.symptom import Case, rows_where, symptom


@symptom("triplet-without-choice", "warning", "Triplets repeat a text, so that nothing or too little is to be chosen.")
def _without_choice(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in _triplets(case):
        anchor, nearer, farther = _texts(split)
        mask = ((nearer == farther) | (anchor == nearer) | (anchor == farther)) & ~empty_inputs(split)
        if mask.any():
            message = f"{number(int(mask.sum()), 'row')} of {name} ({percent(mask.mean())}) with the same text twice."
            yield say(message, **rows_where(split, mask, name), fix="Give three different texts, or leave them out.")


@symptom("contradicting-triplets", "warning", "One triplet calls nearer what another of the same anchor calls farther.")
def _contradicting(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in _triplets(case):
        rows = list(zip(*_texts(split), strict=True))
        said = {row for row in rows if row[1] != row[2]}
        mask = np.array([(anchor, farther, nearer) in said for anchor, nearer, farther in rows], dtype=bool)
        if mask.any():
            message = f"{number(int(mask.sum()), 'row')} of {name} ({percent(mask.mean())}) with an opposite."
            yield say(message, **rows_where(split, mask, name), fix="Decide on one of the two.")


def _triplets(case: Case) -> Iterator[tuple[str, Split]]:
    if case.data.ordered:
        yield from case.labelled.items()


def _texts(split: Split) -> np.ndarray:
    """The normalised anchors, nearer and farther texts: (3, rows) of str."""
    return np.array([[normalise(text) for text in row] for row in split.inputs()], dtype=object).T
