"""Leaks and repetitions: what lets a model look better than it is."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np

from graftwork.data import conflicting, empty_inputs, repeated
from graftwork.finding import Finding, Kind, number, percent
from graftwork.symptom import (
    Case,
    copies,
    rows_where,
    symptom,
)


@symptom(
    "label-in-text",
    "warning",
    "The texts name their own label: the model will read it instead of understanding.",
    of_words=True,
)
def _label_in_text(say: Kind, case: Case) -> Iterator[Finding]:
    names = [name for name in case.train.counts if len(name.strip()) >= 3]
    if not case.single or not 1 < len(names) <= 1000 or copies(case):
        return
    texts, labels = case.sample
    own = np.array([_names(label, text) for text, label in zip(texts, labels, strict=True)])
    others = np.array([_names(label, text) for text, label in zip(texts, np.roll(np.array(labels), 1), strict=True)])
    if own.mean() > 0.8 and own.mean() > 2 * others.mean():
        message = f"{own.mean():.0%} of the train texts contain the name of their own class."
        yield say(message, where="train", fix="Take the label out of the text, unless it will be there in use.")


def _names(label: str, text: str) -> bool:
    spaced = re.sub(r"[_-]+", " ", label.casefold()).strip()
    return len(spaced) >= 3 and (spaced in text or label.casefold() in text)


@symptom("marker-word", "warning", "The first or last word of the texts gives the label away.", of_words=True)
def _marker_word(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.single or len(case.train) < 50 or len(case.train.counts) > 0.2 * len(case.train):
        return
    texts, labels = case.sample
    for which, at in (("first", 0), ("last", -1)):
        words = [(text.split() or [""])[at] for text in texts]
        by_word: dict[str, Counter[str]] = defaultdict(Counter)
        for word, label in zip(words, labels, strict=True):
            by_word[word][label] += 1
        hits = sum(max(counts.values()) for counts in by_word.values())
        guess = Counter(labels).most_common(1)[0][1]
        few = len(by_word) <= 3 * len(set(labels))
        if few and hits > 0.98 * len(texts) and guess < 0.9 * len(texts):
            example = ", ".join(
                f"{word!r} -> {counts.most_common(1)[0][0]!r}" for word, counts in list(by_word.items())[:2]
            )
            message = f"The {which} word of a text alone gives its label in {hits / len(texts):.0%} of rows: {example}."
            yield say(message, where="train", fix="Take that word out, unless it will be there in use.")


@symptom("conflicting-labels", "warning", "The same text has different labels.")
def _conflicting_labels(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.has_classes:
        return
    mask = conflicting(case.train) & ~empty_inputs(case.train)
    if mask.any():
        texts = len(np.unique(case.train.keys[mask]))
        message = f"{number(texts, case.noun)} of train ({number(int(mask.sum()), 'row')}) with more than one label."
        yield say(
            message, **rows_where(case.train, mask, "train"), fix="Decide on one, or remove them: --drop conflicts."
        )


@symptom("duplicates", "warning", "Train rows repeat earlier ones, text and label.")
def _duplicates(say: Kind, case: Case) -> Iterator[Finding]:
    mask = repeated(case.train) & ~empty_inputs(case.train)
    if mask.any():
        message = f"Repetitions of earlier rows in train: {number(int(mask.sum()), 'row')} ({percent(mask.mean())})."
        yield say(
            message, **rows_where(case.train, mask, "train"), fix="They weigh double; --drop duplicates removes them."
        )


@symptom("near-duplicates", "note", "Train texts differ from others of train by a few characters only.")
def _near_duplicates(say: Kind, case: Case) -> Iterator[Finding]:
    group, split = case.groups["train"], case.train
    _, first = np.unique(group, return_index=True)
    again = np.ones(len(group), bool)
    again[first] = False
    _, first = np.unique(split.keys, return_index=True)
    exact = np.ones(len(group), bool)
    exact[first] = False
    if (mask := again & ~exact & ~empty_inputs(split)).any():
        message = f"Near-repetitions in train: {number(int(mask.sum()), case.noun)} ({percent(mask.mean())})."
        yield say(
            message, **rows_where(split, mask, "train"), fix="They stay on one side of every cut that is made here."
        )


@symptom("overlap", "warning", "Texts of validation or test also stand in train: scores will flatter.")
def _overlap(say: Kind, case: Case) -> Iterator[Finding]:
    for name, other in _pairs(case):
        split = case.data[name]
        mask = np.isin(split.keys, case.data[other].keys) & ~empty_inputs(split)
        if mask.any():
            message = f"{number(int(mask.sum()), case.noun)} of {name} ({percent(mask.mean())}) also in {other}."
            fix = (
                "Remove them from train with --drop overlap."
                if other == "train"
                else "Remove them from one of the two."
            )
            yield say(message, **rows_where(split, mask, name), fix=fix)


@symptom("near-overlap", "warning", "Texts of validation or test differ from train texts by a few characters only.")
def _near_overlap(say: Kind, case: Case) -> Iterator[Finding]:
    for name, other in _pairs(case):
        split = case.data[name]
        near = np.isin(case.groups[name], case.groups[other])
        mask = near & ~np.isin(split.keys, case.data[other].keys) & ~empty_inputs(split)
        if mask.any():
            count = f"{number(int(mask.sum()), case.noun)} of {name} ({percent(mask.mean())})"
            message = f"{count} nearly the same as one in {other}."
            yield say(message, **rows_where(split, mask, name), fix="Scores flatter by about that much; look at them.")


def _pairs(case: Case) -> Iterator[tuple[str, str]]:
    for name, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if name in case.data and other in case.data:
            yield name, other


@symptom("target-holds-test", "warning", "The unlabelled target texts include test texts: adaptation sees the test.")
def _target_holds_test(say: Kind, case: Case) -> Iterator[Finding]:
    if "target" in case.data and "test" in case.data:
        mask = np.isin(case.data["test"].keys, case.data["target"].keys)
        if mask.any():
            message = f"{number(int(mask.sum()), case.noun)} of test also in target."
            yield say(
                message, **rows_where(case.data["test"], mask, "test"), fix="Fair only if declared: leave them out."
            )
