"""Labels: missing, misspelt, too few, too many, or no classes at all."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from graftwork.data import Split, empty_labels
from graftwork.finding import Finding, Kind, number
from graftwork.roles import is_number
from graftwork.symptom import (
    Case,
    copies,
    first_rows,
    is_measured,
    rows_where,
    some,
    symptom,
)

SMALL_CLASS = 8
"""Fewer train rows than this are too few to learn a class from and to measure it."""
SMALL_TEST = 100
"""Below this the 95 % interval of an accuracy is wider than 0.1 to either side."""
IMBALANCE = 10.0
"""The largest class may be this many times the smallest before it is said."""


@symptom("empty-label", "error", "Rows that are learned from have no label.")
def _empty_label(say: Kind, case: Case) -> Iterator[Finding]:
    for name in ("train", "validation"):
        if name in case.data and case.data.task != "tagging":
            mask = empty_labels(case.data[name])
            if mask.any() and (not case.data.multi_label or mask.all()):
                fix = "Label them, or remove such rows with --drop empty."
                message = f"{number(int(mask.sum()), 'row')} of {name} without a label."
                yield say(message, **rows_where(case.data[name], mask, name), fix=fix)


@symptom("unlabelled-test", "warning", "Rows of test have no label, so they cannot be scored.")
def _unlabelled_test(say: Kind, case: Case) -> Iterator[Finding]:
    if "test" in case.data and not case.data.multi_label and (mask := empty_labels(case.data["test"])).any():
        count = "No row" if mask.all() else f"{int((~mask).sum()):,} of {number(len(mask), 'row')}"
        fix = "They can be predicted, not scored; name the split target if it is unlabelled on purpose."
        yield say(f"{count} of test has a label.", **rows_where(case.data["test"], mask, "test"), fix=fix)


@symptom("no-label-applies", "note", "Multi-label rows carry none of the labels.")
def _no_label_applies(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.multi_label and (mask := empty_labels(case.train)).any() and not mask.all():
        message = f"{number(int(mask.sum()), 'row')} of train with no label: they teach that none applies."
        yield say(message, **rows_where(case.train, mask, "train"), fix="If labels were forgotten, add them.")


@symptom("one-class", "error", "All train rows have the same label: there is nothing to learn.")
def _one_class(say: Kind, case: Case) -> Iterator[Finding]:
    names = [name for name in case.train.counts if name]
    if len(names) == 1 and not case.data.ordered and not (case.data.task == "tagging" and names != ["O"]):
        fix = "Add rows of other classes, or say which column is the label: --label NAME."
        yield say(f"Every row of train is {names[0]!r}.", where="train", fix=fix)


@symptom("label-spaces", "error", "Two labels differ by spaces only, so one class is counted as two.")
def _label_spaces(say: Kind, case: Case) -> Iterator[Finding]:
    for names in _alike(case, lambda name: " ".join(name.split())):
        yield say(f"{some(names)} differ by spaces only.", **first_rows(case, names), fix="Write them the same way.")


@symptom("label-case", "warning", "Two labels differ by upper and lower case only; they are kept apart.")
def _label_case(say: Kind, case: Case) -> Iterator[Finding]:
    for names in _alike(case, lambda name: " ".join(name.split()).casefold()):
        if len({" ".join(name.split()) for name in names}) > 1:
            message = f"{some(names)} differ by case only and are kept as {len(names)} classes."
            yield say(message, **first_rows(case, names), fix="If they are one class, write them the same way.")


def _alike(case: Case, key: Callable[[str], str]) -> Iterator[list[str]]:
    """Label names, of any split, that have the same key."""
    together = defaultdict(list)
    for name in sorted({name for split in case.labelled.values() for name in split.counts} - {""}):
        together[key(name)].append(name)
    return (names for names in together.values() if len(names) > 1)


@symptom("null-word-label", "warning", "A class is called nan, null or none: perhaps a missing label.")
def _null_word_label(say: Kind, case: Case) -> Iterator[Finding]:
    for name, count in case.train.counts.items():
        if name.strip().casefold() in ("nan", "null", "none", "n/a", "na", "<na>", "#n/a"):
            message = f"The label of {number(count, 'train row')} is {name!r}; it is kept as a class."
            mask = case.train.has(name)
            yield say(message, **rows_where(case.train, mask, "train"), fix="If the label is missing, leave it empty.")


@symptom("empty-label-part", "error", "A list of labels holds an empty name, as in joy||anger.")
def _empty_label_part(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in case.labelled.items():
        if case.data.multi_label and (mask := split.has("")).any() and "" in split.counts:
            mask &= ~empty_labels(split)
            message = f"{number(int(mask.sum()), 'row')} of {name} with an empty name among the labels."
            yield say(message, **rows_where(split, mask, name), fix="Take out the bar too many.")


@symptom("repeated-label", "warning", "A row carries the same label twice.")
def _repeated_label(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.multi_label:
        mask = np.array([len(set(names)) < len(names) for names in case.train.labels()], bool)
        if mask.any():
            message = f"{number(int(mask.sum()), 'row')} of train with the same label twice; it counts once."
            yield say(message, **rows_where(case.train, mask, "train"), fix="Keep one of them.")


@symptom("ids-as-labels", "error", "Nearly every row has a label of its own: the column is an id, not a class.")
def _ids_as_labels(say: Kind, case: Case) -> Iterator[Finding]:
    distinct = len(case.train.counts)
    if not case.has_classes and not is_measured(case.train) and not copies(case):
        message = f"{distinct:,} different labels in {number(len(case.train), 'row')} of train."
        yield say(message, where="train", fix="Say which column is the label: --label NAME.")


@symptom("numeric-label", "error", "The label is a number of many values: that is regression, not classification.")
def _numeric_label(say: Kind, case: Case) -> Iterator[Finding]:
    names = list(case.train.counts)
    if case.single and is_measured(case.train):
        column = case.data.columns.label
        message = f"Column {column!r} holds {len(names):,} different numbers, such as {some(names, 3)}."
        yield say(message, where="train", fix="Cut them into a few classes, or choose another column: --label NAME.")


@symptom("label-is-text", "error", "The label is a copy of the text.", of_words=True)
def _label_is_text(say: Kind, case: Case) -> Iterator[Finding]:
    if copies(case):
        fix = "Say which columns are meant: --text NAME --label NAME."
        yield say(f"Column {case.data.columns.label!r} repeats the text.", where="train", fix=fix)


@symptom("swapped-columns", "error", "Text and label look swapped: few short texts, many long labels.", of_words=True)
def _swapped_columns(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.single or len(case.train) < 20:
        return
    texts, labels = case.sample
    text_length, label_length = (float(np.mean([len(cell) for cell in cells])) for cells in (texts, labels))
    if len(set(texts)) * 3 < len(set(labels)) and label_length > 2 * text_length and label_length > 15:
        message = f"{len(set(texts)):,} different texts but {len(set(labels)):,} different labels, which are longer."
        text, label = case.data.columns.label, case.data.columns.text
        yield say(message, where="train", fix=f"Perhaps --text {text} --label {label}.")


def _has_classes(case: Case) -> bool:
    """Whether rows are of classes; pairs of texts may have scores, and triplets their order."""
    return case.has_classes and not case.data.scored and not case.data.ordered


@symptom("unknown-test-label", "error", "Labels of test never occur in train or validation: no model can predict them.")
def _unknown_test_label(say: Kind, case: Case) -> Iterator[Finding]:
    if not _has_classes(case):
        return
    if "test" in case.data:
        test = case.data["test"]
        strange = [name for name in test.counts if name and name not in case.data.labels]
        if strange:
            mask = np.logical_or.reduce([test.has(name) for name in strange[:50]])
            message = f"test has {number(len(strange), 'label')} that train lacks: {some(strange)}."
            yield say(
                message, **rows_where(test, mask, "test"), fix="Correct the spelling, or give train rows of them."
            )


@symptom("unfit-pair-label", "error", "Labels of pairs in validation or test are not of the kind that train has.")
def _unfit_pair_label(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in case.labelled.items():
        if case.data.task == "similarity" and (case.data.scored or name == "validation"):
            fits = is_number if case.data.scored else case.data.labels.__contains__
            strange = [label for label in split.counts if label and not fits(label)]
            if strange:
                what = "no numbers" if case.data.scored else "none of train's"
                message = f"{number(len(strange), 'label')} of {name}, {what}: {some(strange)}."
                mask = np.logical_or.reduce([split.has(label) for label in strange[:50]])
                yield say(message, **rows_where(split, mask, name), fix="Correct them, or leave such rows out.")


@symptom("class-missing-from-split", "warning", "A class of the data does not occur in one of its splits.")
def _class_missing(say: Kind, case: Case) -> Iterator[Finding]:
    if not _has_classes(case):
        return
    for name, split in case.labelled.items():
        if not empty_labels(split).all():
            missing = [label for label in case.data.labels if label not in split.counts]
            if missing:
                message = f"{number(len(missing), 'class')} not in {name}: {some(missing)}."
                why = "cannot be learned" if name == "train" else "are not measured there"
                yield say(message, where=name, fix=f"They {why}; add rows of them.")


@symptom("small-class", "warning", "A class has too few train rows to be learned.")
def _small_class(say: Kind, case: Case) -> Iterator[Finding]:
    if not _has_classes(case):
        return
    small = {name: n for name, n in case.train.counts.items() if n < SMALL_CLASS and name not in ("", "O")}
    if small:
        listed = ", ".join(f"{name!r} ({n})" for name, n in sorted(small.items(), key=lambda item: item[1])[:5])
        have = f"{number(len(small), 'class')} with fewer than {SMALL_CLASS} train rows"
        yield say(
            f"{have}: {listed}{' ...' if len(small) > 5 else ''}.", where="train", fix="Add rows, or join classes."
        )


@symptom("imbalance", "warning", "The largest class is many times the smallest: accuracy will flatter.")
def _imbalance(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.has_classes:
        return
    counts = {name: n for name, n in case.train.counts.items() if name not in ("", "O")}
    if case.data.task == "classification" and len(counts) > 1:
        most, least = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
        if counts[most] >= IMBALANCE * counts[least]:
            message = f"{most!r} has {counts[most]:,} train rows, {least!r} {counts[least]:,}."
            yield say(message, where="train", fix="Read macro-F1 and the table per class, not accuracy alone.")


@symptom("class-shift", "warning", "The classes are mixed in other proportions in a split than in train.")
def _class_shift(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.has_classes:
        return
    for name, split in case.labelled.items():
        here, there = _proportions(split), _proportions(case.train)
        if name != "train" and here and case.data.task == "classification" and len(split) >= SMALL_TEST:
            moved = sum(abs(here.get(label, 0) - there.get(label, 0)) for label in {*here, *there}) / 2
            label = max({*here, *there}, key=lambda label: abs(here.get(label, 0) - there.get(label, 0)))
            if moved > 0.2:
                change = f"{label!r} is {there.get(label, 0):.0%} of train and {here.get(label, 0):.0%} of {name}"
                fix = "If the split is meant to be like train, draw it at random from the same rows."
                yield say(
                    f"{moved:.0%} of {name} would have to change class to be mixed like train: {change}.", fix=fix
                )


def _proportions(split: Split) -> dict[str, float]:
    counts = {name: n for name, n in split.counts.items() if name}
    return {name: n / sum(counts.values()) for name, n in counts.items()}


@symptom("small-test", "note", "The test split is so small that scores on it are uncertain.")
def _small_test(say: Kind, case: Case) -> Iterator[Finding]:
    if "test" in case.data and len(case.data["test"]) < SMALL_TEST:
        half = 0.98 / np.sqrt(len(case.data["test"]))
        message = f"test has {number(len(case.data['test']), 'row')}: an accuracy is uncertain by up to {half:.0%}."
        yield say(message, where="test", fix="Compare methods only by paired tests, or add rows.")
