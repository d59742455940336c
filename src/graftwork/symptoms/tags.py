"""Tags: one for each word, in IOB2."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import re
from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from graftwork.data import empty_inputs
from graftwork.finding import Finding, Kind, number
from graftwork.symptom import (
    Case,
    first_rows,
    rows_where,
    some,
    symptom,
)


@symptom("tag-count", "error", "A row has not as many tags as words.")
def _tag_count(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.task == "tagging":
        for name, split in case.labelled.items():
            words, tags = (pc.list_value_length(split.table[c]).to_numpy() for c in ("input", "label"))
            mask = (words != tags) & ~((name == "test") & (tags == 0))
            if mask.any():
                at = int(np.flatnonzero(mask)[0])
                first = f"the first has {words[at]} words and {tags[at]} tags"
                message = f"{number(int(mask.sum()), 'row')} of {name} with other numbers of words and tags: {first}."
                yield say(message, **rows_where(split, mask, name), fix="Give every word one tag.")


@symptom("empty-word", "warning", "A word is empty or only white space, so no piece of text carries its tag.")
def _empty_word(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.task == "tagging":
        for name, split in case.labelled.items():
            joined = pc.binary_join(split.table["input"], "\x1f")
            mask = pc.match_substring_regex(joined, "(^|\x1f)\\s*(\x1f|$)").to_numpy() & ~empty_inputs(split)
            if mask.any():
                message = f"{number(int(mask.sum()), 'row')} of {name} with empty words."
                yield say(message, **rows_where(split, mask, name), fix="Take the word and its tag out.")


@symptom("tag-prefix", "error", "Tags begin with something else than B- or I-.")
def _tag_prefix(say: Kind, case: Case) -> Iterator[Finding]:
    tags = _tags(case)
    strange = [tag for tag in tags if tag != "O" and not re.match(r"[BI]-.", tag)]
    if any(re.match(r"[BI]-", tag) for tag in tags) and strange:
        schemes = {"E": "IOBES", "S": "IOBES", "L": "BILOU", "U": "BILOU"}
        scheme = next((schemes[tag[0]] for tag in strange if re.match(r"[ESLU]-", tag)), None)
        fix = (
            f"Convert {scheme} to IOB2."
            if scheme
            else "Write B-TYPE for the first word of an entity, I-TYPE for others."
        )
        yield say(f"{number(len(strange), 'tag')} not of IOB2: {some(strange)}.", **first_rows(case, strange), fix=fix)


@symptom("tags-not-iob2", "error", "An entity begins with I- instead of B-, as in IOB1: scores would be wrong.")
def _tags_not_iob2(say: Kind, case: Case) -> Iterator[Finding]:
    if any(re.match(r"[BI]-", tag) for tag in _tags(case)):
        for name, split in case.labelled.items():
            mask = np.array([_orphan(tags) for tags in split.labels()], bool)
            if mask.any():
                iob1 = "" if any(tag.startswith("B-") for tag in split.counts) else " No B- occurs at all."
                message = (
                    f"{number(int(mask.sum()), 'row')} of {name} with an I- that follows no tag of its type.{iob1}"
                )
                yield say(message, **rows_where(split, mask, name), fix="Convert IOB1 to IOB2: entities begin with B-.")


def _orphan(tags: list[str]) -> bool:
    """Whether an I-TYPE follows neither B-TYPE nor I-TYPE."""
    before = "O"
    for tag in tags:
        if tag[:2] == "I-" and before[2:] != tag[2:]:
            return True
        before = tag
    return False


@symptom("plain-tags", "note", "The tags have no B- and I-: each word is scored by itself, not whole entities.")
def _plain_tags(say: Kind, case: Case) -> Iterator[Finding]:
    tags = _tags(case)
    if tags and not any(re.match(r"[BI]-", tag) for tag in tags):
        yield say(f"The tags {some(tags)} have no B- and I-.", where="train", fix="For entities, use IOB2.")


def _tags(case: Case) -> list[str]:
    return [tag for tag in case.data.labels if tag] if case.data.task == "tagging" else []
