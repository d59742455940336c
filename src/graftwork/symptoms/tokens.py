"""Tokens: what the model cannot read of the texts."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from graftwork.data import Split
from graftwork.finding import Finding, Kind, number, percent
from graftwork.modalities.text import Text
from graftwork.symptom import (
    Case,
    rows_where,
    some,
    symptom,
)


@symptom("truncation", "warning", "Texts are longer than the model reads; their ends are cut off.")
def _truncation(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None and case.data.task != "tagging":
        for name, split in case.labelled.items():
            lengths, limit = case.tokens[name][0], case.text.max_length
            excess = np.maximum(lengths - limit, 0)
            if split.compares:  # only together too long: each text is read by itself
                for row in np.flatnonzero(excess):
                    excess[row] = np.maximum(case.text.lengths(split.inputs([int(row)])[0]) - limit, 0).sum()
            mask = excess > 0
            if mask.any():
                lost = int(excess.sum())
                message = (
                    f"{number(int(mask.sum()), 'row')} of {name} ({percent(mask.mean())}) longer than {limit} tokens; "
                    f"{lost:,} of {int(lengths.sum()):,} tokens ({percent(lost / lengths.sum())}) are not read."
                )
                fix = "Shorten the texts so that what matters comes first; the ledger has the loss a class."
                yield say(message, **rows_where(split, mask, name), fix=fix)


@symptom("long-sentences", "note", "Sentences are longer than the model reads; they are tagged in overlapping windows.")
def _long_sentences(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None and case.data.task == "tagging":
        for name, split in case.labelled.items():
            mask = case.tokens[name][0] > case.text.max_length
            if mask.any():
                message = f"{number(int(mask.sum()), 'row')} of {name} longer than {case.text.max_length} tokens."
                yield say(message, **rows_where(split, mask, name), fix="Nothing is lost; it takes longer.")


@symptom("unknown-pieces", "warning", "The tokenizer does not know letters of the texts: the model sees [UNK] instead.")
def _unknown_pieces(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None and case.text.unknown_id is not None:
        for name, split in case.labelled.items():
            lengths, unknown = case.tokens[name]
            share = unknown.sum() / max(1, lengths.sum())
            if share > 0.01 or (unknown > 0.3 * lengths).mean() > 0.01:
                mask = unknown > 0
                words = _unread(split, mask, case.text)
                rows = f"in {number(int(mask.sum()), 'row')}: {words}"
                message = f"{percent(share)} of the tokens of {name} are unknown pieces, {rows}."
                yield say(
                    message, **rows_where(split, mask, name), fix="Choose a model made for this script or language."
                )


def _unread(split: Split, mask: np.ndarray, text: Text) -> str:
    """The words most often turned into unknown pieces, from the first rows that have any."""
    inputs = split.inputs(np.flatnonzero(mask)[:200])
    counts: Counter[str] = Counter()
    for given, encoding in zip(inputs, text.encodings(inputs), strict=True):
        for piece, (start, end), word in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
            if piece == text.unknown_id and word is not None:
                part = given if isinstance(given, str) else given[word]
                counts[part[start:end] if isinstance(given, str) or split.compares else part] += 1
    return some([word for word, _ in counts.most_common(5)])


@symptom("fragmented", "note", "The tokenizer cuts the texts into very small pieces: it was made for other texts.")
def _fragmented(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None:
        lengths = case.tokens["train"][0]
        characters = pc.sum(pc.utf8_length(case.texts["train"])).as_py()
        pieces = int(lengths.sum()) - case.text.special_count * len(lengths)
        if pieces and characters / pieces < 2.5:
            message = f"A piece of text has {characters / pieces:.1f} characters on average (English: about 4 to 5)."
            yield say(message, where="train", fix="A model made for this language or kind of text reads more at once.")
