"""Symptom: a function of a `Case` that yields the findings of one kind.

The decorator gives the kind its code, severity and sentence. To add a kind, write one such function in a file of
`symptoms/`; `check` runs all of them, and the docs list them by themselves. Real data is never perfect: an error is
only what would make the fitted model or its score wrong or impossible.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftwork import splitting
from graftwork.data import Data, Split
from graftwork.finding import Finding, Kind, Severity, place

if TYPE_CHECKING:
    from graftwork.modalities.text import Text

SAMPLE = 20_000
"""Train rows looked at where a look at all would cost too much."""
TOKENS_AT_ONCE = 1_024
"""Texts given to the tokenizer at once."""


@dataclass(frozen=True, eq=False)
class Case:
    """What the symptoms look at: the data, the tokenizer, the output folder; costly looks are taken once."""

    data: Data
    text: Text | None = None
    out: Path | None = None

    @cached_property
    def labelled(self) -> dict[str, Split]:
        """Every split but the unlabelled target."""
        return {name: split for name, split in self.data.splits.items() if name != "target"}

    @property
    def train(self) -> Split:
        """The split that is learned from."""
        return self.data["train"]

    @property
    def noun(self) -> str:
        """What one row is: a text, or a picture."""
        return "picture" if self.data.reads == "image" else "text"

    @property
    def single(self) -> bool:
        """Classification with one label a row."""
        return self.data.task == "classification" and not self.data.multi_label

    @cached_property
    def has_classes(self) -> bool:
        """Whether the labels can be classes at all; numbers and ids get one error, not one for each consequence."""
        distinct = len(self.train.counts)
        return not self.single or not (is_measured(self.train) or (distinct > 10 and distinct > 0.8 * len(self.train)))

    @cached_property
    def texts(self) -> dict[str, pa.ChunkedArray]:
        """The inputs of each split as text; words joined by spaces."""
        columns = {name: split.table["input"] for name, split in self.data.splits.items()}
        return {name: _joined(column) for name, column in columns.items()}

    @cached_property
    def groups(self) -> Mapping[str, np.ndarray]:
        """For each row of each labelled split the group of near-identical texts it is in."""
        if all(name in self.data.groups for name in self.labelled):
            return self.data.groups
        every = splitting.groups(split.content for split in self.labelled.values())
        ends = np.cumsum([len(split) for split in self.labelled.values()])[:-1]
        return dict(zip(self.labelled, np.split(every, ends), strict=True))

    @cached_property
    def tokens(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each split: tokens of each row before any cut, special ones included, and unknown pieces."""
        assert self.text is not None
        return {name: _count_tokens(split, self.text) for name, split in self.data.splits.items()}

    @cached_property
    def sample(self) -> tuple[list[str], list[str]]:
        """Up to `SAMPLE` train texts and labels, evenly spaced; single label only."""
        at = np.unique(np.linspace(0, len(self.train) - 1, SAMPLE).astype(np.int64))
        return [text.casefold() for text in self.train.inputs(at)], self.train.labels(at)


def _joined(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join(column, " ") if pa.types.is_list(column.type) else column


def _count_tokens(split: Split, text: Text) -> tuple[np.ndarray, np.ndarray]:
    lengths, unknown = np.zeros(len(split), np.int32), np.zeros(len(split), np.int32)
    start = 0
    for inputs, _ in split.batches(TOKENS_AT_ONCE):
        for row, encoding in enumerate(text.encodings(inputs), start):
            ids = encoding.ids
            lengths[row] = len(ids)
            if text.unknown_id is not None:
                unknown[row] = ids.count(text.unknown_id)
        start += len(inputs)
    return lengths, unknown


Symptom = Callable[[Kind, Case], Iterator[Finding]]
SYMPTOMS: list[tuple[Kind, Symptom]] = []


def symptom(code: str, severity: Severity, sentence: str, *, of_words: bool = False) -> Callable[[Symptom], Symptom]:
    """Register a function of (kind, case) that yields the findings of one kind.

    Args:
        code: of the kind.
        severity: of its findings.
        sentence: what they say.
        of_words: whether it looks at what is written; pictures are then left in peace.
    """

    def register(function: Symptom) -> Symptom:
        def of_texts(kind: Kind, case: Case) -> Iterator[Finding]:
            return function(kind, case) if case.data.reads == "text" else iter(())

        SYMPTOMS.append((Kind(code, severity, sentence), of_texts if of_words else function))
        return function

    return register


def rows_where(split: Split, mask: np.ndarray, name: str) -> dict[str, Any]:
    """The `where` and `rows` of a finding about the rows of `split` that `mask` marks."""
    rows = split.rows[np.flatnonzero(mask)[:20]]
    return {"where": place(rows, name, count=int(mask.sum())), "rows": rows}


def some(names: list[str], limit: int = 5) -> str:
    """The first few names, quoted and shortened, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in names[:limit]) + more


def first_rows(case: Case, names: list[str]) -> dict[str, Any]:
    """Where the rarest of these labels stands."""
    for split_name, split in case.labelled.items():
        rarest = min(names, key=lambda name: split.counts.get(name, 0) or np.inf)
        if rarest in split.counts:
            return rows_where(split, split.has(rarest), split_name)
    return {}


def is_measured(split: Split) -> bool:
    """Whether the labels are a measured quantity: all numbers, and many of them, or several with decimals."""
    names = [name.strip() for name in split.counts if name]
    enough = len(names) > 100 or (len(names) > 20 and any("." in name for name in names))
    return enough and all(re.fullmatch(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", name) for name in names)


def copies(case: Case) -> bool:
    """Whether most labels repeat their text."""
    if not case.single:
        return False
    texts, labels = case.sample
    same = sum(text.strip() == label.strip().casefold() for text, label in zip(texts, labels, strict=True))
    return same > 0.5 * len(texts)
