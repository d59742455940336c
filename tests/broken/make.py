"""A corpus of broken data sets: each entry builds its files in a folder and names the finding it must give.

Of `ERRORS` nothing may be fitted; `WARNINGS` are said aloud and go on.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WORDS = ["red", "green", "blue", "black", "white", "brown", "grey", "pink", "gold", "plain", "old", "new"]
GOOD = [(f"the {word} one is a joy to use and lasts", "good") for word in WORDS]
BAD = [(f"my {word} thing broke after one short day", "bad") for word in WORDS]
ROWS = [row for pair in zip(GOOD, BAD, strict=True) for row in pair]
TAGGED = [
    {"tokens": ["Dr", word.title(), "left", "Paris", "again"], "tags": ["O", "B-PER", "O", "B-LOC", "O"]}
    for word in WORDS
]


@dataclass(frozen=True)
class Entry:
    """A broken data set: `files` maps names to content; `source` is the path given; `code` the finding expected."""

    name: str
    code: str
    files: dict[str, str | bytes]
    source: str = "data.csv"
    load: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the files below `folder`; gives the source to load."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder / self.source


def table(rows: list[tuple[str, ...]] = ROWS, header: str = "text,label", by: str = ",") -> str:
    """Rows as a delimited file."""
    return "\n".join([header, *(by.join(_quoted(cell, by) for cell in row) for row in rows)]) + "\n"


def _quoted(cell: str, by: str) -> str:
    return f'"{cell}"' if by in cell else cell


def lines(rows: list[Any]) -> str:
    """Rows as JSON Lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def objects(rows: list[tuple[str, str]] = ROWS) -> list[dict[str, Any]]:
    """Rows as dicts of text and label."""
    return [{"text": text, "label": label} for text, label in rows]


def with_line(at: int, line: str, text: str | None = None) -> str:
    """A good file with one line put in as line `at` (the header is line 1)."""
    found = (text or table()).splitlines()
    return "\n".join([*found[: at - 1], line, *found[at - 1 :]]) + "\n"


def parquet() -> bytes:
    """A good Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(objects()), sink)
    return sink.getvalue().to_pybytes()


def structs() -> bytes:
    """A Parquet file whose text column holds objects."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([{"text": {"en": t}, "label": x} for t, x in ROWS]), sink)
    return sink.getvalue().to_pybytes()


def picture(grey: int) -> bytes:
    """A picture file of one colour."""
    import io

    from PIL import Image

    sink = io.BytesIO()
    Image.new("RGB", (4, 4), (grey, grey, grey)).save(sink, "png")
    return sink.getvalue()


def pictures() -> dict[str, str | bytes]:
    """A folder of pictures, no two alike."""
    return {
        f"set/train/{name}/{i}.png": picture(20 * i + at) for at, name in enumerate(("red", "blue")) for i in range(12)
    }


def _tagged(at: int, **change: Any) -> str:
    return lines([row | change if i == at else row for i, row in enumerate(TAGGED)])


def _one(name: str, code: str, content: str | bytes, file: str = "data.csv", **load: Any) -> Entry:
    return Entry(name, code, {file: content}, file, load)


def _folder(name: str, code: str, **options: Any) -> Callable[..., Entry]:
    def make(**files: str | bytes) -> Entry:
        named = {f"{stem.replace('__', '.')}": content for stem, content in files.items()}
        return Entry(name, code, {f"set/{stem}": content for stem, content in named.items()}, "set", **options)

    return make


PLACES = ("at home", "near the old river bank", "while I was on holiday with my sister", "in school")
UNCUT = {"validation": 0, "test": 0}
MANY = [(f"{place}, {text}", label) for place in PLACES for text, label in ROWS]
LATIN = table([(text.replace("joy", "joie, né"), label) for text, label in ROWS], by=";", header="text;label")
THREE = [(text, text[::-1], ("same", "other", "neither")[i % 3]) for i, (text, _) in enumerate(ROWS)]

ERRORS = [
    _one("empty", "empty-file", ""),
    _one("empty jsonl", "empty-file", "", "data.jsonl"),
    _one("blank header", "empty-file", "\n\n\n"),
    _one("header only", "no-rows", "text,label\n"),
    _one("blank jsonl", "no-rows", "\n\n", "data.jsonl"),
    _one("a comma too many", "ragged-line", with_line(7, "good, but late,good")),
    _one("a field too few", "ragged-line", with_line(9, "nothing more")),
    _one("ragged tsv", "ragged-line", with_line(3, "a\tb\tc", table(by="\t", header="text\tlabel")), "data.tsv"),
    _one("unclosed quote", "unclosed-quote", with_line(20, '"it never ends,good')),
    _one("latin-1", "wrong-encoding", LATIN.encode("latin-1")),
    _one("latin-1 jsonl", "wrong-encoding", '{"text": "caf\xe9", "label": "a"}\n'.encode("latin-1"), "data.jsonl"),
    _one("broken utf-16", "wrong-encoding", b"\xff\xfe" + table().encode("utf-16-le")[:-1]),
    _one("utf-16 without mark", "null-bytes", table().encode("utf-16-le")),
    _one("nul in a text", "null-bytes", with_line(5, "half a t\0xt,good")),
    _one("workbook", "not-data", b"PK\x03\x04" + bytes(200)),
    _one("web page", "not-data", "<!DOCTYPE html><html><body>Sign in</body></html>"),
    _one("lfs pointer", "not-data", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"),
    _one("pickle", "not-data", b"\x80\x04\x95" + bytes(50)),
    _one("word file", "unknown-format", b"whatever", "data.docx"),
    _one("text file", "unknown-format", "just some lines\n", "data.txt"),
    _one("twin columns", "duplicate-column", table([(t, x, x) for t, x in ROWS], "text,label,label")),
    _one("twins after trimming", "duplicate-column", table([(t, x, x) for t, x in ROWS], "text,label, label")),
    _one("cut gzip", "corrupt-file", gzip.compress(table().encode())[:-20], "data.csv.gz"),
    _one("no gzip", "corrupt-file", table(), "data.csv.gz"),
    _one("cut parquet", "corrupt-file", parquet()[:200], "data.parquet"),
    _one("csv as parquet", "corrupt-file", table(), "data.parquet"),
    _one("csv as arrow", "corrupt-file", table(), "data.arrow"),
    _one("bad json", "invalid-json", with_line(4, '{"text": "a", "label": ', lines(objects())), "data.jsonl"),
    _one("python dicts", "invalid-json", "{'text': 'a', 'label': 'b'}\n", "data.jsonl"),
    _one("json lists", "not-an-object", lines([list(row) for row in ROWS]), "data.jsonl"),
    _one("json strings", "not-an-object", lines([text for text, _ in ROWS]), "data.jsonl"),
    _one("json numbers in array", "not-an-object", "[1, 2]", "data.json"),
    _one("lists and values", "lists-and-values", lines([*objects(), {"text": ["a"], "label": "b"}]), "data.jsonl"),
    _one("half a character", "lone-surrogate", lines([*objects(), {"text": "\ud83d", "label": "b"}]), "data.jsonl"),
    _one("keys differ", "different-keys", lines([*objects(), {"sentence": "a", "label": "b"}]), "data.jsonl"),
    _one("label forgotten", "different-keys", lines([*objects(), {"text": "a"}]), "data.jsonl"),
    _one("mixed labels", "mixed-types", lines([*objects(), {"text": "a", "label": 1}]), "data.jsonl"),
    _one("one column", "one-column", "text\n" + "".join(f"{text}\n" for text, _ in ROWS)),
    _one("wrong column asked", "missing-column", table(), text="sentence"),
    _one("wrong label asked", "missing-column", table(), label="intent"),
    _one("one column twice", "same-column", table(), text="text", label="text"),
    _one("objects as text", "not-text", structs(), "data.parquet", text="text", label="label"),
    _one("no header", "missing-header", "\n".join(",".join(row) for row in ROWS)),
    _one("two texts", "no-text-column", table([(t, t[::-1], x) for t, x in ROWS], "before,after,label")),
    _one("which is similar", "which-is-similar", table([(t, t[::-1], x) for t, x in ROWS], "premise,hypothesis,label")),
    _one("three classes of pairs", "pair-classes", table(THREE, "premise,hypothesis,label")),
    _one("half a pair", "not-a-pair", table(), task="similarity"),
    Entry(
        "a score that is a word",
        "unfit-pair-label",
        {
            "train.csv": table([(t, t[::-1], f"{i / 10}") for i, (t, _) in enumerate(MANY)], "text_a,text_b,score"),
            "test.csv": table([(t[::-1], t, "much") for t, _ in ROWS], "text_a,text_b,score"),
        },
        source=".",
    ),
    _one("ids only", "no-label-column", table([(t, str(i)) for i, (t, _) in enumerate(ROWS)], "text,id")),
    _one("lists in csv", "lists-as-text", table([("['a' 'b']", "['O' 'O']")] * 9, "tokens,tags"), task="tagging"),
    _one("empty text", "empty-text", with_line(6, ",good")),
    _one("blank text", "empty-text", with_line(6, "   ,good")),
    _one("empty label", "empty-label", table([*MANY, *((f"no label on {word}", "") for word in WORDS)])),
    _one("one class", "one-class", table([(text, "good") for text, _ in MANY])),
    _one("spaces in labels", "label-spaces", table([(t, x + " " * (i // 2 % 2)) for i, (t, x) in enumerate(MANY)])),
    _one("empty part", "empty-label-part", table([(t, ("a|b", "a||b", "b")[i % 3]) for i, (t, _) in enumerate(MANY)])),
    _one(
        "ids as labels", "ids-as-labels", table([(t, f"id{i}") for i, (t, _) in enumerate(MANY)]), validation=0, test=0
    ),
    _one(
        "a score", "numeric-label", table([(t, f"{i / 7:.2f}") for i, (t, _) in enumerate(MANY)]), validation=0, test=0
    ),
    _one("label copies text", "label-is-text", table([(t, t) for t, _ in MANY]), **UNCUT),
    _one("swapped", "swapped-columns", table([(x, t) for t, x in MANY]), **UNCUT),
    _one("two rows", "too-few-rows", table(ROWS[:2])),
    _one(
        "dropped all",
        "nothing-left",
        table([("same text", x) for _, x in MANY]),
        drop=["conflicts"],
        **UNCUT,
    ),
    _one("tags too few", "tag-count", _tagged(3, tags=["O", "O"]), "data.jsonl", **UNCUT),
    _one("iob1", "tags-not-iob2", lines(TAGGED).replace("B-", "I-"), "data.jsonl", **UNCUT),
    _one("iobes", "tag-prefix", lines(TAGGED).replace("B-LOC", "S-LOC"), "data.jsonl", **UNCUT),
    _one("words without tags", "not-text", lines([row | {"tags": "O"} for row in TAGGED]), "data.jsonl"),
    _folder("two validations", "two-files-one-split")(train__csv=table(), dev__csv=table(), validation__csv=table()),
    _folder("two formats", "two-files-one-split")(train__csv=table(), train__jsonl=lines(objects())),
    _folder("no splits", "no-split-files")(reviews__csv=table()),
    _folder("no data", "no-split-files")(notes__md="# Notes"),
    _folder("test only", "no-train")(test__csv=table()),
    _folder("columns differ", "columns-differ")(train__csv=table(), validation__csv=table(header="sentence,label")),
    _folder("strange test label", "unknown-test-label")(train__csv=table(), test__csv=with_line(3, "odd one,awful")),
    _folder("empty test", "no-rows")(train__csv=table(), test__csv="text,label\n"),
    _folder("half saved", "corrupt-file")(state__json="{}"),
    Entry("damaged picture", "damaged-picture", pictures() | {"set/train/red/3.png": b"\x89PNG"}, "set", UNCUT),
    Entry("output inside", "output-in-data", {"set/train.csv": table()}, "set", check={"out": "set/runs/first"}),
]

TRIPLETS = [
    {"anchor": f"{t} it said {i}", "positive": f"{t} we heard {i}", "negative": f"the weather of day {i} was {x}"}
    for i, (t, x) in enumerate(MANY)
]

WARNINGS = [
    Entry("picture beside", "unused-pictures", pictures() | {"set/cover.png": picture(0)}, "set", UNCUT),
    _one("spaces in the header", "header-spaces", table(header=" text,label ")),
    _one("semicolons", "delimiter", table(by=";", header="text;label")),
    _one("index column", "unnamed-column", table([(str(i), t, x) for i, (t, x) in enumerate(ROWS)], ",text,label")),
    _one("guessed", "guessed-column", table([(t, x) for t, x in ROWS], "remark,verdict")),
    _one("case of labels", "label-case", table([(t, x if i // 2 % 2 else x.title()) for i, (t, x) in enumerate(MANY)])),
    _one("nan label", "null-word-label", table([*MANY, *((f"what is {word} for", "nan") for word in WORDS)])),
    _one("small class", "small-class", table([*MANY, ("a single odd one", "odd")])),
    _one("imbalance", "imbalance", table([*(row for row in MANY if row[1] == "good"), *BAD[:3]])),
    _one("conflict", "conflicting-labels", table([*MANY, *((text, "bad") for text, _ in MANY[:60:2])])),
    _one("duplicates", "duplicates", table([*MANY, *MANY])),
    _one("numbers", "numbers-as-text", table([(str(i), x) for i, (_, x) in enumerate(MANY)], "text,label")),
    _one("short", "short-text", table([(t if i % 4 else "ok", x) for i, (t, x) in enumerate(MANY)])),
    _one("html", "markup", table([(f"{t}<br />", x) for t, x in MANY])),
    _one("mojibake", "mojibake", table([(f"{t} cafÃ©", x) for t, x in MANY])),
    _one("lost letters", "replacement-character", table([(f"{t} caf\ufffd", x) for t, x in MANY])),
    _one("control", "control-characters", table([(f"{t} \x07", x) for t, x in MANY])),
    _one("same start", "same-start", table([(f"In the year of our company 2020 {t}", x) for t, x in MANY])),
    _one("label named", "label-in-text", table([(f"{t} and so is {x}", x) for t, x in MANY])),
    _one("marker", "marker-word", table([(f"[{x[0]}] {t}", x) for t, x in MANY])),
    _one("other script", "unknown-pieces", table([(f"𐎀𐎁𐎂 𐎃𐎄 {i}", x) for i, (_, x) in enumerate(MANY)])),
    _one("long", "truncation", table([(f"{t} again" * 60, x) for t, x in ROWS])),
    _one("letters apart", "fragmented", table([(" ".join(t.replace(" ", "")), x) for t, x in MANY])),
    _one("label twice", "repeated-label", table([(t, ("a|b", "a|a", "b")[i % 3]) for i, (t, _) in enumerate(MANY)])),
    _one(
        "none applies", "no-label-applies", table([(t, ("a|b", "", "b", "a")[i % 4]) for i, (t, _) in enumerate(MANY)])
    ),
    _one(
        "empty word",
        "empty-word",
        _tagged(0, tokens=["Dr", "", "left", "Paris", "again"]),
        "data.jsonl",
        **UNCUT,
    ),
    _one("plain tags", "plain-tags", lines(TAGGED).replace("B-", ""), "data.jsonl", **UNCUT),
    _one(
        "long sentence",
        "long-sentences",
        _tagged(0, tokens=["word"] * 600, tags=["O"] * 600),
        "data.jsonl",
        **UNCUT,
    ),
    _one(
        "nothing to choose",
        "triplet-without-choice",
        lines([*TRIPLETS, TRIPLETS[0] | {"negative": TRIPLETS[0]["positive"]}]),
        "data.jsonl",
    ),
    _one(
        "nearer and farther",
        "contradicting-triplets",
        lines([*TRIPLETS, TRIPLETS[0] | {"positive": TRIPLETS[0]["negative"], "negative": TRIPLETS[0]["positive"]}]),
        "data.jsonl",
    ),
    _folder("stray file", "unused-file")(train__csv=table(), old__csv=table()),
    _folder("unlabelled test", "unlabelled-test")(train__csv=table(), test__csv="text\na text to predict\n"),
    _folder("class missing", "class-missing-from-split")(train__csv=table(), test__csv=table(GOOD)),
    _folder("overlap", "overlap")(train__csv=table(), test__csv=table(ROWS[:6])),
    _folder("near overlap", "near-overlap")(train__csv=table(), test__csv=table([(ROWS[0][0] + "!", "good")])),
    _folder("near duplicates", "near-duplicates")(train__csv=table([*ROWS, *((t + "!", x) for t, x in ROWS)])),
    _folder("small test", "small-test")(train__csv=table(MANY), test__csv=table(ROWS)),
    _folder("shift", "class-shift")(train__csv=table(MANY), test__csv=table([*GOOD * 20, *BAD])),
    Entry(
        "target holds test",
        "target-holds-test",
        {"set/train.csv": table(), "set/test.csv": table(GOOD), "set/target.csv": table(GOOD)},
        "set",
    ),
]
