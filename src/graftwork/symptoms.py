"""Symptoms: what can be wrong with the content of a data set, one small function a kind.

A symptom is a function of a `Case` that yields findings; the decorator gives its code, severity and sentence. To add
a kind, write one such function here; `check` runs all of them, in this order, and the docs list them by themselves.
Real data is never perfect: an error is only what would make the fitted model or its score wrong or impossible.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from graftwork import splitting
from graftwork.data import Data, Split, conflicting, empty_inputs, empty_labels, repeated
from graftwork.finding import Finding, Kind, Severity, number, percent, place

if TYPE_CHECKING:
    from graftwork.modalities.text import Text

SMALL_CLASS = 8
"""Fewer train rows than this are too few to learn a class from and to measure it."""
SMALL_TEST = 100
"""Below this the 95 % interval of an accuracy is wider than 0.1 to either side."""
IMBALANCE = 10.0
"""The largest class may be this many times the smallest before it is said."""
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
    def single(self) -> bool:
        """Classification with one label a row."""
        return self.data.task == "classification" and not self.data.multi_label

    @cached_property
    def has_classes(self) -> bool:
        """Whether the labels can be classes at all; numbers and ids get one error, not one for each consequence."""
        distinct = len(self.train.counts)
        return not self.single or not (_is_measured(self.train) or (distinct > 10 and distinct > 0.8 * len(self.train)))

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
        every = splitting.groups(split.table["input"] for split in self.labelled.values())
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


def symptom(code: str, severity: Severity, sentence: str) -> Callable[[Symptom], Symptom]:
    """Register a function of (kind, case) that yields the findings of one kind."""

    def register(function: Symptom) -> Symptom:
        SYMPTOMS.append((Kind(code, severity, sentence), function))
        return function

    return register


def _rows(split: Split, mask: np.ndarray, name: str) -> dict[str, Any]:
    """The `where` and `rows` of a finding about the rows of `split` that `mask` marks."""
    rows = split.rows[np.flatnonzero(mask)[:20]]
    return {"where": place(rows, name, count=int(mask.sum())), "rows": rows}


def _some(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name if len(name) <= 40 else name[:37] + "...") for name in names[:limit]) + more


# --- texts ------------------------------------------------------------------------------------------------------------


@symptom("empty-text", "error", "Rows have no text: nothing can be learned from them or said about them.")
def _empty_text(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in case.data.splits.items():
        if (mask := empty_inputs(split)).any():
            fix = "Fill them in, or remove such rows with --drop empty."
            yield say(f"{number(int(mask.sum()), 'row')} of {name} without text.", **_rows(split, mask, name), fix=fix)


@symptom("numbers-as-text", "warning", "Nearly all texts are numbers: perhaps the wrong column is read.")
def _numbers_as_text(say: Kind, case: Case) -> Iterator[Finding]:
    share = _share(case.texts["train"], r"^[\s\d.,:;+/-]+$")
    if share > 0.9:
        message = f"{share:.0%} of the texts in column {case.data.columns.text!r} are numbers."
        yield say(message, where="train", fix="Say which column is the text: --text NAME.")


def _share(column: pa.ChunkedArray, pattern: str) -> float:
    return (pc.sum(pc.match_substring_regex(column, pattern)).as_py() or 0) / max(1, len(column))


@symptom("short-text", "warning", "Many texts have fewer than three characters.")
def _short_text(say: Kind, case: Case) -> Iterator[Finding]:
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(case.texts["train"])).to_numpy()
    mask = (lengths < 3) & (lengths > 0)
    if mask.mean() > 0.02:
        message = f"{number(int(mask.sum()), 'text')} ({percent(mask.mean())}) of train under three characters."
        yield say(message, **_rows(case.train, mask, "train"), fix="Look at them: is the text column the right one?")


def _pattern(code: str, sentence: str, pattern: str, what: str, fix: str, least: float) -> None:
    """A symptom for texts that match a pattern, said from a share `least` of the rows on."""

    @symptom(code, "warning", sentence)
    def _found(say: Kind, case: Case) -> Iterator[Finding]:
        for name, split in case.labelled.items():
            mask = pc.match_substring_regex(case.texts[name], pattern).to_numpy()
            if mask.mean() > least:
                message = f"{number(int(mask.sum()), 'text')} ({percent(mask.mean())}) of {name} with {what}."
                yield say(message, **_rows(split, mask, name), fix=fix)


_pattern(
    "markup",
    "Texts hold left-overs of HTML.",
    r"(?i)</?(br|p|div|span|a|b|i|em|strong|td|tr|li|ul|img|font|h[1-6])(\s[^<>]*)?/?>|&(amp|lt|gt|nbsp|quot|#\d+);",
    "HTML tags or entities, such as <br /> or &amp;",
    "Strip them, unless the texts to predict will have them too.",
    0.01,
)
_pattern(
    "mojibake",
    "Texts were decoded with the wrong encoding on their way here (Ã© for é).",
    r"Ã[\x{0080}-\x{00BF}]|â€[\x{0080}-\x{FFFF}]|Â[\x{00A0}-\x{00BF}]",
    "letters of a wrong decoding, such as Ã© for é",
    "Export them again as UTF-8; the text was decoded as Windows-1252 once.",
    0.0,
)
_pattern(
    "replacement-character",
    "Texts hold U+FFFD, which stands for letters that were lost.",
    "\ufffd",
    "the replacement character U+FFFD: letters were lost",
    "Export them again from the original.",
    0.0,
)
_pattern(
    "control-characters",
    "Texts hold invisible control characters.",
    r"[\x{01}-\x{08}\x{0E}-\x{1F}\x{7F}]",
    "control characters",
    "Remove them; some tokenizers turn them into unknown pieces.",
    0.0,
)


@symptom("same-start", "note", "All texts begin with the same words, which tell nothing.")
def _same_start(say: Kind, case: Case) -> Iterator[Finding]:
    texts = case.train.inputs(range(min(500, len(case.train)))) if case.data.task == "classification" else []
    start = texts[0][:200] if texts else ""
    for text in texts:
        while not text.startswith(start):
            start = start[: len(start) // 2] if len(start) > 40 else start[:-1]
    if len(texts) > 20 and len(start.strip()) >= 20:
        yield say(f"All texts begin with {start[:60]!r}.", where="train", fix="Cut it off: it takes room and time.")


# --- labels -----------------------------------------------------------------------------------------------------------


@symptom("empty-label", "error", "Rows that are learned from have no label.")
def _empty_label(say: Kind, case: Case) -> Iterator[Finding]:
    for name in ("train", "validation"):
        if name in case.data and case.data.task == "classification":
            mask = empty_labels(case.data[name])
            if mask.any() and (case.single or mask.all()):
                fix = "Label them, or remove such rows with --drop empty."
                message = f"{number(int(mask.sum()), 'row')} of {name} without a label."
                yield say(message, **_rows(case.data[name], mask, name), fix=fix)


@symptom("unlabelled-test", "warning", "Rows of test have no label, so they cannot be scored.")
def _unlabelled_test(say: Kind, case: Case) -> Iterator[Finding]:
    if "test" in case.data and not case.data.multi_label and (mask := empty_labels(case.data["test"])).any():
        count = "No row" if mask.all() else f"{int((~mask).sum()):,} of {number(len(mask), 'row')}"
        fix = "They can be predicted, not scored; name the split target if it is unlabelled on purpose."
        yield say(f"{count} of test has a label.", **_rows(case.data["test"], mask, "test"), fix=fix)


@symptom("no-label-applies", "note", "Multi-label rows carry none of the labels.")
def _no_label_applies(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.multi_label and (mask := empty_labels(case.train)).any() and not mask.all():
        message = f"{number(int(mask.sum()), 'row')} of train with no label: they teach that none applies."
        yield say(message, **_rows(case.train, mask, "train"), fix="If labels were forgotten, add them.")


@symptom("one-class", "error", "All train rows have the same label: there is nothing to learn.")
def _one_class(say: Kind, case: Case) -> Iterator[Finding]:
    names = [name for name in case.train.counts if name]
    if len(names) == 1 and not (case.data.task == "tagging" and names != ["O"]):
        fix = "Add rows of other classes, or say which column is the label: --label NAME."
        yield say(f"Every row of train is {names[0]!r}.", where="train", fix=fix)


@symptom("label-spaces", "error", "Two labels differ by spaces only, so one class is counted as two.")
def _label_spaces(say: Kind, case: Case) -> Iterator[Finding]:
    for names in _alike(case, lambda name: " ".join(name.split())):
        yield say(f"{_some(names)} differ by spaces only.", **_first_rows(case, names), fix="Write them the same way.")


@symptom("label-case", "warning", "Two labels differ by upper and lower case only; they are kept apart.")
def _label_case(say: Kind, case: Case) -> Iterator[Finding]:
    for names in _alike(case, lambda name: " ".join(name.split()).casefold()):
        if len({" ".join(name.split()) for name in names}) > 1:
            message = f"{_some(names)} differ by case only and are kept as {len(names)} classes."
            yield say(message, **_first_rows(case, names), fix="If they are one class, write them the same way.")


def _alike(case: Case, key: Callable[[str], str]) -> Iterator[list[str]]:
    """Label names, of any split, that have the same key."""
    together = defaultdict(list)
    for name in sorted({name for split in case.labelled.values() for name in split.counts} - {""}):
        together[key(name)].append(name)
    return (names for names in together.values() if len(names) > 1)


def _first_rows(case: Case, names: list[str]) -> dict[str, Any]:
    """Where each of these labels stands first."""
    for split_name, split in case.labelled.items():
        rarest = min(names, key=lambda name: split.counts.get(name, 0) or np.inf)
        if rarest in split.counts:
            return _rows(split, split.has(rarest), split_name)
    return {}


@symptom("null-word-label", "warning", "A class is called nan, null or none: perhaps a missing label.")
def _null_word_label(say: Kind, case: Case) -> Iterator[Finding]:
    for name, count in case.train.counts.items():
        if name.strip().casefold() in ("nan", "null", "none", "n/a", "na", "<na>", "#n/a"):
            message = f"The label of {number(count, 'train row')} is {name!r}; it is kept as a class."
            mask = case.train.has(name)
            yield say(message, **_rows(case.train, mask, "train"), fix="If the label is missing, leave it empty.")


@symptom("empty-label-part", "error", "A list of labels holds an empty name, as in joy||anger.")
def _empty_label_part(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in case.labelled.items():
        if case.data.multi_label and (mask := split.has("")).any() and "" in split.counts:
            mask &= ~empty_labels(split)
            message = f"{number(int(mask.sum()), 'row')} of {name} with an empty name among the labels."
            yield say(message, **_rows(split, mask, name), fix="Take out the bar too many.")


@symptom("repeated-label", "warning", "A row carries the same label twice.")
def _repeated_label(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.multi_label:
        mask = np.array([len(set(names)) < len(names) for names in case.train.labels()], bool)
        if mask.any():
            message = f"{number(int(mask.sum()), 'row')} of train with the same label twice; it counts once."
            yield say(message, **_rows(case.train, mask, "train"), fix="Keep one of them.")


@symptom("ids-as-labels", "error", "Nearly every row has a label of its own: the column is an id, not a class.")
def _ids_as_labels(say: Kind, case: Case) -> Iterator[Finding]:
    distinct = len(case.train.counts)
    if not case.has_classes and not _is_measured(case.train) and not _copies(case):
        message = f"{distinct:,} different labels in {number(len(case.train), 'row')} of train."
        yield say(message, where="train", fix="Say which column is the label: --label NAME.")


@symptom("numeric-label", "error", "The label is a number of many values: that is regression, not classification.")
def _numeric_label(say: Kind, case: Case) -> Iterator[Finding]:
    names = list(case.train.counts)
    if case.single and _is_measured(case.train):
        column = case.data.columns.label
        message = f"Column {column!r} holds {len(names):,} different numbers, such as {_some(names, 3)}."
        yield say(message, where="train", fix="Cut them into a few classes, or choose another column: --label NAME.")


def _is_measured(split: Split) -> bool:
    """Whether the labels are a measured quantity: all numbers, and many of them, or several with decimals."""
    names = [name.strip() for name in split.counts if name]
    enough = len(names) > 100 or (len(names) > 20 and any("." in name for name in names))
    return enough and all(re.fullmatch(r"[+-]?\d*\.?\d+(e[+-]?\d+)?", name) for name in names)


@symptom("label-is-text", "error", "The label is a copy of the text.")
def _label_is_text(say: Kind, case: Case) -> Iterator[Finding]:
    if _copies(case):
        fix = "Say which columns are meant: --text NAME --label NAME."
        yield say(f"Column {case.data.columns.label!r} repeats the text.", where="train", fix=fix)


def _copies(case: Case) -> bool:
    if not case.single:
        return False
    texts, labels = case.sample
    same = sum(text.strip() == label.strip().casefold() for text, label in zip(texts, labels, strict=True))
    return same > 0.5 * len(texts)


@symptom("swapped-columns", "error", "Text and label look swapped: few short texts, many long labels.")
def _swapped_columns(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.single or len(case.train) < 20:
        return
    texts, labels = case.sample
    text_length, label_length = (float(np.mean([len(cell) for cell in cells])) for cells in (texts, labels))
    if len(set(texts)) * 3 < len(set(labels)) and label_length > 2 * text_length and label_length > 15:
        message = f"{len(set(texts)):,} different texts but {len(set(labels)):,} different labels, which are longer."
        text, label = case.data.columns.label, case.data.columns.text
        yield say(message, where="train", fix=f"Perhaps --text {text} --label {label}.")


@symptom("unknown-test-label", "error", "Labels of test never occur in train or validation: no model can predict them.")
def _unknown_test_label(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.has_classes:
        return
    if "test" in case.data:
        test = case.data["test"]
        strange = [name for name in test.counts if name and name not in case.data.labels]
        if strange:
            mask = np.logical_or.reduce([test.has(name) for name in strange[:50]])
            message = f"test has {number(len(strange), 'label')} that train lacks: {_some(strange)}."
            yield say(message, **_rows(test, mask, "test"), fix="Correct the spelling, or give train rows of them.")


@symptom("class-missing-from-split", "warning", "A class of the data does not occur in one of its splits.")
def _class_missing(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.has_classes:
        return
    for name, split in case.labelled.items():
        if not empty_labels(split).all():
            missing = [label for label in case.data.labels if label not in split.counts]
            if missing:
                message = f"{number(len(missing), 'class')} not in {name}: {_some(missing)}."
                why = "cannot be learned" if name == "train" else "are not measured there"
                yield say(message, where=name, fix=f"They {why}; add rows of them.")


@symptom("small-class", "warning", "A class has too few train rows to be learned.")
def _small_class(say: Kind, case: Case) -> Iterator[Finding]:
    if not case.has_classes:
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


# --- leaks and repetitions --------------------------------------------------------------------------------------------


@symptom("label-in-text", "warning", "The texts name their own label: the model will read it instead of understanding.")
def _label_in_text(say: Kind, case: Case) -> Iterator[Finding]:
    names = [name for name in case.train.counts if len(name.strip()) >= 3]
    if not case.single or not 1 < len(names) <= 1000 or _copies(case):
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


@symptom("marker-word", "warning", "The first or last word of the texts gives the label away.")
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
        message = f"{number(texts, 'text')} of train ({number(int(mask.sum()), 'row')}) with more than one label."
        yield say(message, **_rows(case.train, mask, "train"), fix="Decide on one, or remove them: --drop conflicts.")


@symptom("duplicates", "warning", "Train rows repeat earlier ones, text and label.")
def _duplicates(say: Kind, case: Case) -> Iterator[Finding]:
    mask = repeated(case.train) & ~empty_inputs(case.train)
    if mask.any():
        message = f"Repetitions of earlier rows in train: {number(int(mask.sum()), 'row')} ({percent(mask.mean())})."
        yield say(message, **_rows(case.train, mask, "train"), fix="They weigh double; --drop duplicates removes them.")


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
        message = f"Near-repetitions in train: {number(int(mask.sum()), 'text')} ({percent(mask.mean())})."
        yield say(message, **_rows(split, mask, "train"), fix="They stay on one side of every cut that is made here.")


@symptom("overlap", "warning", "Texts of validation or test also stand in train: scores will flatter.")
def _overlap(say: Kind, case: Case) -> Iterator[Finding]:
    for name, other in _pairs(case):
        split = case.data[name]
        mask = np.isin(split.keys, case.data[other].keys) & ~empty_inputs(split)
        if mask.any():
            message = f"{number(int(mask.sum()), 'text')} of {name} ({percent(mask.mean())}) also in {other}."
            fix = (
                "Remove them from train with --drop overlap."
                if other == "train"
                else "Remove them from one of the two."
            )
            yield say(message, **_rows(split, mask, name), fix=fix)


@symptom("near-overlap", "warning", "Texts of validation or test differ from train texts by a few characters only.")
def _near_overlap(say: Kind, case: Case) -> Iterator[Finding]:
    for name, other in _pairs(case):
        split = case.data[name]
        near = np.isin(case.groups[name], case.groups[other])
        mask = near & ~np.isin(split.keys, case.data[other].keys) & ~empty_inputs(split)
        if mask.any():
            count = f"{number(int(mask.sum()), 'text')} of {name} ({percent(mask.mean())})"
            message = f"{count} nearly the same as one in {other}."
            yield say(message, **_rows(split, mask, name), fix="Scores flatter by about that much; look at them.")


def _pairs(case: Case) -> Iterator[tuple[str, str]]:
    for name, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if name in case.data and other in case.data:
            yield name, other


@symptom("target-holds-test", "warning", "The unlabelled target texts include test texts: adaptation sees the test.")
def _target_holds_test(say: Kind, case: Case) -> Iterator[Finding]:
    if "target" in case.data and "test" in case.data:
        mask = np.isin(case.data["test"].keys, case.data["target"].keys)
        if mask.any():
            message = f"{number(int(mask.sum()), 'text')} of test also in target."
            yield say(message, **_rows(case.data["test"], mask, "test"), fix="Fair only if declared: leave them out.")


# --- tags -------------------------------------------------------------------------------------------------------------


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
                yield say(message, **_rows(split, mask, name), fix="Give every word one tag.")


@symptom("empty-word", "warning", "A word is empty or only white space, so no piece of text carries its tag.")
def _empty_word(say: Kind, case: Case) -> Iterator[Finding]:
    if case.data.task == "tagging":
        for name, split in case.labelled.items():
            joined = pc.binary_join(split.table["input"], "\x1f")
            mask = pc.match_substring_regex(joined, "(^|\x1f)\\s*(\x1f|$)").to_numpy() & ~empty_inputs(split)
            if mask.any():
                message = f"{number(int(mask.sum()), 'row')} of {name} with empty words."
                yield say(message, **_rows(split, mask, name), fix="Take the word and its tag out.")


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
        yield say(
            f"{number(len(strange), 'tag')} not of IOB2: {_some(strange)}.", **_first_rows(case, strange), fix=fix
        )


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
                yield say(message, **_rows(split, mask, name), fix="Convert IOB1 to IOB2: entities begin with B-.")


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
        yield say(f"The tags {_some(tags)} have no B- and I-.", where="train", fix="For entities, use IOB2.")


def _tags(case: Case) -> list[str]:
    return [tag for tag in case.data.labels if tag] if case.data.task == "tagging" else []


# --- what the model can read ------------------------------------------------------------------------------------------


@symptom("truncation", "warning", "Texts are longer than the model reads; their ends are cut off.")
def _truncation(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None and case.data.task == "classification":
        for name, split in case.labelled.items():
            lengths, limit = case.tokens[name][0], case.text.max_length
            mask = lengths > limit
            if mask.any():
                lost = int((lengths[mask] - limit).sum())
                message = (
                    f"{number(int(mask.sum()), 'row')} of {name} ({percent(mask.mean())}) longer than {limit} tokens; "
                    f"{lost:,} of {int(lengths.sum()):,} tokens ({percent(lost / lengths.sum())}) are not read."
                )
                fix = "Shorten the texts so that what matters comes first; the ledger has the loss a class."
                yield say(message, **_rows(split, mask, name), fix=fix)


@symptom("long-sentences", "note", "Sentences are longer than the model reads; they are tagged in overlapping windows.")
def _long_sentences(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None and case.data.task == "tagging":
        for name, split in case.labelled.items():
            mask = case.tokens[name][0] > case.text.max_length
            if mask.any():
                message = f"{number(int(mask.sum()), 'row')} of {name} longer than {case.text.max_length} tokens."
                yield say(message, **_rows(split, mask, name), fix="Nothing is lost; it takes longer.")


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
                yield say(message, **_rows(split, mask, name), fix="Choose a model made for this script or language.")


def _unread(split: Split, mask: np.ndarray, text: Text) -> str:
    """The words most often turned into unknown pieces, from the first rows that have any."""
    inputs = split.inputs(np.flatnonzero(mask)[:200])
    counts: Counter[str] = Counter()
    for given, encoding in zip(inputs, text.encodings(inputs), strict=True):
        for piece, (start, end), word in zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True):
            if piece == text.unknown_id and word is not None:
                counts[given[start:end] if isinstance(given, str) else given[word]] += 1
    return _some([word for word, _ in counts.most_common(5)])


@symptom("fragmented", "note", "The tokenizer cuts the texts into very small pieces: it was made for other texts.")
def _fragmented(say: Kind, case: Case) -> Iterator[Finding]:
    if case.text is not None:
        lengths = case.tokens["train"][0]
        characters = pc.sum(pc.utf8_length(case.texts["train"])).as_py()
        pieces = int(lengths.sum()) - case.text.special_count * len(lengths)
        if pieces and characters / pieces < 2.5:
            message = f"A piece of text has {characters / pieces:.1f} characters on average (English: about 4 to 5)."
            yield say(message, where="train", fix="A model made for this language or kind of text reads more at once.")


# --- where things go --------------------------------------------------------------------------------------------------


@symptom(
    "output-in-data", "error", "The output folder lies inside the data folder, where results would be read as data."
)
def _output_in_data(say: Kind, case: Case) -> Iterator[Finding]:
    source = Path(str(case.data.source["source"]))
    if case.out is not None and source.is_dir() and case.out.resolve().is_relative_to(source):
        yield say(f"{case.out} lies inside {source}.", where=str(case.out), fix="Choose another folder with --out.")
