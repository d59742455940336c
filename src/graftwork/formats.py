"""Formats: the rows of CSV, TSV and JSON files, as batches of text columns; each problem with its line.

Every cell becomes text or a list of texts here, so that nothing above needs to know which format the data came in.
Reading streams: never more than a batch is held.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from graftwork.finding import DataError, Finding, Kind, number

ROW = "__row__"
"""The column that carries the 1-based row number in the source file."""
BATCH_ROWS, BATCH_CHARACTERS = 32_768, 8_000_000
TEXT_FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
FORMATS = (*TEXT_FORMATS, ".parquet", ".arrow", ".feather")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    "target": ("target", "unlabelled", "unlabeled", "unsupervised"),
}

EMPTY_FILE = Kind("empty-file", "error", "A file holds nothing at all.")
RAGGED_LINE = Kind("ragged-line", "error", "A line of a CSV or TSV file has more or fewer fields than the header.")
UNCLOSED_QUOTE = Kind(
    "unclosed-quote", "error", "A quote is opened and never closed: the rest of the file is one cell."
)
WRONG_ENCODING = Kind("wrong-encoding", "error", "A file's bytes are not the UTF-8 (or UTF-16) they should be.")
NULL_BYTES = Kind("null-bytes", "error", "A file holds NUL bytes: it is damaged, or UTF-16 without its mark.")
NOT_DATA = Kind("not-data", "error", "A file is something else than its name says: a web page, an archive, a pointer.")
DUPLICATE_COLUMN = Kind("duplicate-column", "error", "Two columns have the same name.")
CORRUPT_FILE = Kind("corrupt-file", "error", "A compressed, Parquet or Arrow file is cut off or damaged.")
INVALID_JSON = Kind("invalid-json", "error", "A line of a JSON Lines file is not JSON.")
NOT_AN_OBJECT = Kind("not-an-object", "error", "A line of a JSON Lines file is not an object with named fields.")
LISTS_AND_VALUES = Kind("lists-and-values", "error", "A field holds a list in some rows and a single value in others.")
LONE_SURROGATE = Kind("lone-surrogate", "error", "A JSON string holds half a character (a lone surrogate).")
HEADER_SPACES = Kind("header-spaces", "warning", "A column's name is surrounded by spaces; it is read without them.")
DELIMITER = Kind("delimiter", "note", "The fields are separated by something else than the file's name promises.")
UNNAMED_COLUMN = Kind("unnamed-column", "note", "A column has no name; often an index saved by pandas.")


@dataclass
class Reading:
    """What a source holds: a table of text columns (and `ROW`) a split, and what was noticed on the way."""

    name: str
    """What to call the source: the file's or folder's stem."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """The file's name behind each split, for messages."""
    homes: dict[str, Path] = field(default_factory=dict)
    """The folder of each split's file, from which paths in it are meant."""
    lone: bool = False
    """One file without any split name: everything is cut from it."""
    findings: list[Finding] = field(default_factory=list)
    ragged: int = 0
    """Lines left out because they do not fit the header; `RAGGED_LINE` is among the findings then."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Columns that are no text: name -> what they hold."""
    kinds: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """JSON fields: name -> the kinds of values met (text, number, truth value)."""
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """JSON fields: name -> the places that lack them."""


def format_of(path: Path) -> str:
    """The data format a file's name promises (`.csv` for `train.csv.gz`), or nothing."""
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in FORMATS if name.endswith(ending)), "")


def stem_of(path: Path) -> str:
    """A file's name without the ending of its format."""
    return path.name[: path.name.lower().rfind(format_of(path))] if format_of(path) else path.stem


# --- text files -------------------------------------------------------------------------------------------------------

_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"SQLite": "an SQLite database",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"\x80\x04\x95": "a pickle, which is never read",
    b"\x80\x05\x95": "a pickle, which is never read",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself",
    b"<!doctype html": "a web page",
    b"<!DOCTYPE html": "a web page",
    b"<html": "a web page",
}
_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def _open_bytes(path: Path) -> IO[bytes] | gzip.GzipFile:
    with path.open("rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
    if path.suffix == ".gz" and not zipped:
        raise DataError(
            [CORRUPT_FILE(f"{path.name} is not a gzip file.", where=path.name, fix="Take .gz off its name.")]
        )
    return gzip.open(path) if zipped else path.open("rb")


def _lines(path: Path) -> Iterator[str]:
    """The file's lines with their ends; a byte-order mark chooses UTF-16 and is taken off.

    Raises:
        DataError: bytes that are no text, NUL bytes, a broken gzip; each with its line.
    """
    try:
        with _open_bytes(path) as stream:
            start = stream.read(64)
            stream.seek(0)
            kind = next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)
            if kind:
                fix = "Run `git lfs pull`." if "LFS" in kind else "Export the data as CSV, JSON Lines or Parquet."
                raise DataError([NOT_DATA(f"{path.name} is {kind}.", where=path.name, fix=fix)])
            encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
            with io.TextIOWrapper(stream, encoding, newline="") as texts:  # type: ignore[arg-type]
                for line, text in enumerate(texts, 1):
                    if "\0" in text:
                        raise DataError([_say_null(path, line, utf16=start.count(b"\0") >= len(start) // 3)])
                    yield text
    except UnicodeDecodeError as error:
        raise DataError([_locate(path, error)]) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        message = f"{path.name} is a damaged gzip file: {error}."
        raise DataError([CORRUPT_FILE(message, where=path.name, fix="Fetch or write it again.")]) from None


def _say_null(path: Path, line: int, *, utf16: bool) -> Finding:
    where = f"{path.name} line {line}"
    if utf16:
        return NULL_BYTES(
            f"{where} holds NUL bytes: it is UTF-16 without its mark.", where=where, fix="Save it as UTF-8."
        )
    return NULL_BYTES(f"{where} holds a NUL byte.", where=where, fix="Write the file again, or use: tr -d '\\0'.")


def _locate(path: Path, error: UnicodeDecodeError) -> Finding:
    """The line and byte where the file stops being UTF-8."""
    if error.encoding.lower().startswith("utf-16"):
        return WRONG_ENCODING(
            f"{path.name} is broken UTF-16: {error.reason}.", where=path.name, fix="Save it as UTF-8."
        )
    with _open_bytes(path) as stream:
        for line, raw in enumerate(stream, 1):
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as here:
                place = f"{path.name} line {line} byte {here.start + 1}"
                as_latin = raw[max(0, here.start - 20) : here.start + 12].decode("cp1252", "replace").strip()
                message = f"{path.name} is not UTF-8: line {line}, byte {here.start + 1} is 0x{raw[here.start]:02x}"
                new = f"new{path.suffix}"
                fix = f"If it reads {as_latin!r}, it is Windows-1252: iconv -f cp1252 -t utf-8 {path.name} > {new}"
                return WRONG_ENCODING(message + ".", where=place, fix=fix)
    raise AssertionError("a file that does not decode has a line that does not decode")


def read_csv(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    """Rows of a delimited file. Lines that do not fit the header are left out, counted and named."""
    delimiter = _delimiter(path, reading)
    limit = csv.field_size_limit(2**31 - 1)
    try:
        rows = csv.reader(_lines(path), delimiter=delimiter)
        header = _header(next(rows, []), path, reading)
        width, row, ended = len(header), 0, rows.line_num
        ragged: list[tuple[int, int, int, bool]] = []
        held: list[list[str]] = []
        numbers: list[int] = []
        characters = 0
        for fields in rows:
            start, ended = ended + 1, rows.line_num
            if not fields:
                continue
            row += 1
            if len(fields) != width:
                ragged.append((start, row, len(fields), ended > start))
                continue
            held.append(fields)
            numbers.append(row)
            characters += sum(map(len, fields))
            if len(held) >= BATCH_ROWS or characters >= BATCH_CHARACTERS:
                yield _text_batch(header, held, numbers)
                held, numbers, characters = [], [], 0
        yield _text_batch(header, held, numbers)
    finally:
        csv.field_size_limit(limit)
    if ragged:
        reading.ragged += len(ragged)
        reading.findings.append(_say_ragged(path, ragged, width, ended))


def _text_batch(header: list[str], rows: list[list[str]], numbers: list[int]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[] for _ in header]
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.record_batch([*arrays, pa.array(numbers, pa.int64())], names=[*header, ROW])


def _say_ragged(path: Path, ragged: list[tuple[int, int, int, bool]], width: int, end: int) -> Finding:
    line, row, fields, spans = ragged[-1]
    if spans and fields < width and len(ragged) <= 2:
        message = (
            f"A quote opened in line {line} of {path.name} is never closed: lines {line} to {end} became one cell."
        )
        return UNCLOSED_QUOTE(
            message, where=f"{path.name} line {line}", rows=[row], fix='Close it with a " of its own.'
        )
    shown = ", ".join(f"line {line} has {fields}" for line, _, fields, _ in ragged[:3])
    have = "line does" if len(ragged) == 1 else "lines do"
    return RAGGED_LINE(
        f"{len(ragged):,} {have} not have the {number(width, 'field')} of the header of {path.name}: {shown}.",
        where=f"{path.name} line {ragged[0][0]}",
        rows=[row for _, row, _, _ in ragged],
        fix="Put quotes around texts that hold the separator, or leave these lines out with --drop ragged.",
    )


def _delimiter(path: Path, reading: Reading) -> str:
    """The separator: what the name promises if the header has it, else the one that both first lines agree on."""
    promised = "\t" if format_of(path) == ".tsv" else ","
    lines = _lines(path)
    first = [line for line, _ in zip(lines, range(2), strict=False)]
    lines.close()  # type: ignore[attr-defined]
    if first and promised not in first[0]:
        for other in (";", "\t", ",", "|"):
            widths = {len(row) for row in csv.reader(first, delimiter=other)}
            if len(widths) == 1 and widths != {1}:
                name = {";": "semicolons", "\t": "tabs", ",": "commas", "|": "bars"}[other]
                reading.findings.append(DELIMITER(f"The fields of {path.name} are separated by {name}; read so."))
                return other
    return promised


def _header(names: list[str], path: Path, reading: Reading) -> list[str]:
    if not any(name.strip() for name in names):
        raise DataError([EMPTY_FILE(f"{path.name} has no header line.", where=path.name, fix="Write the file again.")])
    spaced = [name for name in names if name != name.strip()]
    if spaced:
        message = f"The header of {path.name} has spaces around {', '.join(map(repr, spaced))}; read without them."
        reading.findings.append(HEADER_SPACES(message, where=f"{path.name} line 1", fix="Take the spaces out."))
    header = [name.strip() or f"column {index}" for index, name in enumerate(names, 1)]
    if unnamed := [name for name, given in zip(header, names, strict=True) if not given.strip()]:
        message = f"{number(len(unnamed), 'column')} of {path.name} without a name; called {', '.join(unnamed)}."
        reading.findings.append(UNNAMED_COLUMN(message, where=f"{path.name} line 1"))
    no_twins(header, path.name)
    return header


def no_twins(header: list[str], name: str) -> None:
    """Two columns of one name are an error: nobody could say which is meant."""
    twins = [column for column, count in Counter(header).items() if count > 1]
    if twins:
        message = f"{name} has more than one column called {', '.join(map(repr, twins))}."
        raise DataError([DUPLICATE_COLUMN(message, where=f"{name} line 1", fix="Rename one of them.")])


def read_json(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    """Rows of a JSON Lines file, or of a .json file that is one array of objects."""
    builder = Rows(path.name, reading)
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    lines.close()  # type: ignore[attr-defined]
    if first.lstrip().startswith("[") and format_of(path) == ".json":
        yield from builder.batches(_array_of_objects(path))
    else:
        yield from builder.batches(_objects(path))


def _array_of_objects(path: Path) -> Iterator[tuple[int, str, Any]]:
    text = "".join(_lines(path))
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise DataError([_say_invalid(path, getattr(error, "lineno", 1), error)]) from None
    for item, value in enumerate(rows, 1):
        yield item, f"{path.name} item {item}", value


def _objects(path: Path) -> Iterator[tuple[int, str, Any]]:
    for line, text in enumerate(_lines(path), 1):
        if text.strip():
            try:
                yield line, f"{path.name} line {line}", json.loads(text)
            except (ValueError, RecursionError) as error:
                raise DataError([_say_invalid(path, line, error)]) from None


def _say_invalid(path: Path, line: int, error: Exception) -> Finding:
    column = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
    cause = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    return INVALID_JSON(
        f"Line {line}{column} of {path.name} is not JSON: {cause}.",
        where=f"{path.name} line {line}",
        fix='Every line is one object, such as {"text": "...", "label": "..."}.',
    )


# --- rows of named values ---------------------------------------------------------------------------------------------


class Rows:
    """Turns objects into record batches whose columns are text or lists of text."""

    def __init__(self, name: str, reading: Reading):
        self.name, self.reading = name, reading
        self.columns: dict[str, bool] = {}  # name -> whether its values are lists

    def batches(self, rows: Iterable[tuple[int, str, Any]]) -> Iterator[pa.RecordBatch]:
        """`rows` are (line, its place in words, value); nothing is held beyond one batch."""
        held: list[tuple[int, str, dict[str, Any]]] = []
        count = 0
        for line, where, value in rows:
            if not isinstance(value, dict):
                message = f"{where} is {_a(value)}, not an object with named fields."
                fix = 'Write {"text": "...", "label": "..."}.'
                raise DataError([NOT_AN_OBJECT(message, where=where, fix=fix)])
            held.append((line, where, value))
            if len(held) >= BATCH_ROWS:
                yield self._batch(held, count)
                count += len(held)
                held = []
        if held or not count:
            yield self._batch(held, count)

    def _batch(self, rows: list[tuple[int, str, dict[str, Any]]], before: int) -> pa.RecordBatch:
        if not self.columns:
            self._settle(rows)
        arrays = [self._column(name, lists, rows) for name, lists in self.columns.items()]
        numbers = pa.array(range(before + 1, before + 1 + len(rows)), pa.int64())
        return pa.record_batch([*arrays, numbers], names=[*self.columns, ROW])

    def _settle(self, rows: list[tuple[int, str, dict[str, Any]]]) -> None:
        """The columns, from the first batch: every key seen, and whether its first value is a list."""
        empty: dict[str, bool] = {}
        for _, _, value in rows:
            for key, cell in value.items():
                name = key.strip()
                if isinstance(cell, dict):
                    self.reading.unusable[name] = "objects with fields of their own"
                elif cell is not None:
                    self.columns.setdefault(name, isinstance(cell, (list, tuple)))
                else:
                    empty.setdefault(name, False)
        self.columns = {**empty, **self.columns}
        for name in self.reading.unusable:
            self.columns.pop(name, None)

    def _column(self, name: str, lists: bool, rows: list[tuple[int, str, dict[str, Any]]]) -> pa.Array:
        kinds, missing = self.reading.kinds[name], self.reading.missing[name]
        cells: list[Any] = []
        for _, where, value in rows:
            cell = value.get(name)
            if cell is None:
                if name not in value and not (cell := _with_spaces(value, name)):
                    missing.append(where)
                cells.append(cell)
                continue
            if isinstance(cell, (list, tuple)) != lists:
                message = (
                    f"The field {name!r} is {_a(cell)} in {where}, but {'a list' if lists else 'one value'} elsewhere."
                )
                raise DataError([LISTS_AND_VALUES(message, where=where, fix="Make it the same in every row.")])
            kinds.add("list" if lists else _kind(cell))
            cells.append([as_text(item) for item in cell] if lists else as_text(cell))
        try:
            return pa.array(cells, pa.list_(pa.string()) if lists else pa.string())
        except UnicodeEncodeError:
            where = next(where for (_, where, _), cell in zip(rows, cells, strict=True) if _has_surrogate(cell))
            message = f"The field {name!r} of {where} holds half a character (a lone surrogate)."
            raise DataError([LONE_SURROGATE(message, where=where, fix="Write the text again as UTF-8.")]) from None


def _with_spaces(value: dict[str, Any], name: str) -> Any:
    return next((cell for key, cell in value.items() if key.strip() == name), None)


def _has_surrogate(cell: Any) -> bool:
    texts = cell if isinstance(cell, list) else [cell]
    return any("\ud800" <= character <= "\udfff" for text in texts if text for character in text)


def _kind(cell: Any) -> str:
    if isinstance(cell, bool):
        return "truth value"
    return "number" if isinstance(cell, (int, float)) else "text"


def _a(value: Any) -> str:
    names = {
        list: "a list",
        tuple: "a list",
        dict: "an object",
        str: "a text",
        type(None): "null",
        bool: "true or false",
    }
    return names.get(type(value), "a number")


def as_text(value: Any) -> str | None:
    """A cell as text: `1` for 1 and 1.0, `true` for True, JSON for lists and objects, nothing for None and NaN."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False, default=str)
