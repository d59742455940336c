"""Texts: empty ones, numbers, left-overs of markup and of wrong decodings."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from graftwork.data import empty_inputs
from graftwork.finding import Finding, Kind, number, percent
from graftwork.symptom import (
    Case,
    rows_where,
    symptom,
)


@symptom(
    "empty-text", "error", "Rows have no text: nothing can be learned from them or said about them.", of_words=True
)
def _empty_text(say: Kind, case: Case) -> Iterator[Finding]:
    for name, split in case.data.splits.items():
        if (mask := empty_inputs(split)).any():
            fix = "Fill them in, or remove such rows with --drop empty."
            yield say(
                f"{number(int(mask.sum()), 'row')} of {name} without text.", **rows_where(split, mask, name), fix=fix
            )


@symptom("numbers-as-text", "warning", "Nearly all texts are numbers: perhaps the wrong column is read.", of_words=True)
def _numbers_as_text(say: Kind, case: Case) -> Iterator[Finding]:
    share = _share(case.texts["train"], r"^[\s\d.,:;+/-]+$")
    if share > 0.9:
        message = f"{share:.0%} of the texts in column {case.data.columns.text!r} are numbers."
        yield say(message, where="train", fix="Say which column is the text: --text NAME.")


def _share(column: pa.ChunkedArray, pattern: str) -> float:
    return (pc.sum(pc.match_substring_regex(column, pattern)).as_py() or 0) / max(1, len(column))


@symptom("short-text", "warning", "Many texts have fewer than three characters.", of_words=True)
def _short_text(say: Kind, case: Case) -> Iterator[Finding]:
    lengths = pc.utf8_length(pc.utf8_trim_whitespace(case.texts["train"])).to_numpy()
    mask = (lengths < 3) & (lengths > 0)
    if mask.mean() > 0.02:
        message = f"{number(int(mask.sum()), 'text')} ({percent(mask.mean())}) of train under three characters."
        yield say(
            message, **rows_where(case.train, mask, "train"), fix="Look at them: is the text column the right one?"
        )


def _pattern(code: str, sentence: str, pattern: str, what: str, fix: str, least: float) -> None:
    """A symptom for texts that match a pattern, said from a share `least` of the rows on."""

    @symptom(code, "warning", sentence, of_words=True)
    def _found(say: Kind, case: Case) -> Iterator[Finding]:
        for name, split in case.labelled.items():
            mask = pc.match_substring_regex(case.texts[name], pattern).to_numpy()
            if mask.mean() > least:
                message = f"{number(int(mask.sum()), 'text')} ({percent(mask.mean())}) of {name} with {what}."
                yield say(message, **rows_where(split, mask, name), fix=fix)


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


@symptom("same-start", "note", "All texts begin with the same words, which tell nothing.", of_words=True)
def _same_start(say: Kind, case: Case) -> Iterator[Finding]:
    texts = case.train.inputs(range(min(500, len(case.train)))) if case.data.task == "classification" else []
    start = texts[0][:200] if texts else ""
    for text in texts:
        while not text.startswith(start):
            start = start[: len(start) // 2] if len(start) > 40 else start[:-1]
    if len(texts) > 20 and len(start.strip()) >= 20:
        yield say(f"All texts begin with {start[:60]!r}.", where="train", fix="Cut it off: it takes room and time.")
