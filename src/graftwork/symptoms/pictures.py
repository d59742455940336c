"""Pictures: files that are not there, or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graftwork.data import empty_inputs
from graftwork.finding import Finding, Kind, number
from graftwork.symptom import Case, rows_where, symptom

NAMED = 3
"""So many files are named by their whole paths."""


@symptom("damaged-picture", "error", "Pictures are missing, cut off or damaged: nothing can be learned from them.")
def _damaged_picture(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in case.data.splits.items():
        if split.pictures and (mask := empty_inputs(split)).any():
            count = int(mask.sum())
            files = ", ".join(map(repr, split.inputs(np.flatnonzero(mask)[:NAMED]))) + " ..." * (count > NAMED)
            message = f"{number(count, 'picture')} of {name} cannot be read: {files}."
            fix = "Replace them, or remove such rows with --drop empty."
            yield say(message, **rows_where(split, mask, name), fix=fix)
