"""Reading: a source (file, folder of splits, hub id, frame) becomes one Arrow table of text columns a split.

Every cell becomes text or a list of texts here, whatever the format, so that nothing above needs to know which format
the data came in. Reading streams: what does not fit in `IN_MEMORY` bytes goes to a memory-mapped file. What is wrong
with the *form* of a source (encoding, ragged lines, broken archives) is found here; what is wrong with its *content*
is found by `check`.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import contextlib
import csv
import gzip
import io
import json
import logging
import math
import os
import re
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc

from graftwork.choice import InputError, suggest
from graftwork.finding import DataError, Finding, Kind, number

log = logging.getLogger(__name__)

ROW = "__row__"
"""The column that carries the 1-based row number in the source file."""
IN_MEMORY = 64 << 20
BATCH_ROWS, BATCH_CHARACTERS = 32_768, 8_000_000

EMPTY_FILE = Kind("empty-file", "error", "A file holds nothing at all.")
NO_ROWS = Kind("no-rows", "error", "A file or split has no rows.")
RAGGED_LINE = Kind("ragged-line", "error", "A line of a CSV or TSV file has more or fewer fields than the header.")
UNCLOSED_QUOTE = Kind(
    "unclosed-quote", "error", "A quote is opened and never closed: the rest of the file is one cell."
)
WRONG_ENCODING = Kind("wrong-encoding", "error", "A file's bytes are not the UTF-8 (or UTF-16) they should be.")
NULL_BYTES = Kind("null-bytes", "error", "A file holds NUL bytes: it is damaged, or UTF-16 without its mark.")
NOT_DATA = Kind("not-data", "error", "A file is something else than its name says: a web page, an archive, a pointer.")
UNKNOWN_FORMAT = Kind("unknown-format", "error", "The file's format cannot be read.")
DUPLICATE_COLUMN = Kind("duplicate-column", "error", "Two columns have the same name.")
CORRUPT_FILE = Kind("corrupt-file", "error", "A compressed, Parquet or Arrow file is cut off or damaged.")
INVALID_JSON = Kind("invalid-json", "error", "A line of a JSON Lines file is not JSON.")
NOT_AN_OBJECT = Kind("not-an-object", "error", "A line of a JSON Lines file is not an object with named fields.")
LISTS_AND_VALUES = Kind("lists-and-values", "error", "A field holds a list in some rows and a single value in others.")
LONE_SURROGATE = Kind("lone-surrogate", "error", "A JSON string holds half a character (a lone surrogate).")
TWO_FILES_ONE_SPLIT = Kind("two-files-one-split", "error", "A folder holds two files for the same split.")
NO_SPLIT_FILES = Kind("no-split-files", "error", "A folder holds no file named like a split.")
HEADER_SPACES = Kind("header-spaces", "warning", "A column's name is surrounded by spaces; it is read without them.")
DELIMITER = Kind("delimiter", "note", "The fields are separated by something else than the file's name promises.")
UNUSED_FILE = Kind("unused-file", "note", "A data file in the folder is no split and is not read.")
UNNAMED_COLUMN = Kind("unnamed-column", "note", "A column has no name; often an index saved by pandas.")

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    "target": ("target", "unlabelled", "unlabeled", "unsupervised"),
}
TEXT_FORMATS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
FORMATS = (*TEXT_FORMATS, ".parquet", ".arrow", ".feather")


@dataclass
class Reading:
    """What a source holds: a table of text columns (and `ROW`) a split, and what was noticed on the way."""

    name: str
    """What to call the source: the file's or folder's stem."""
    tables: dict[str, pa.Table] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """The file's name behind each split, for messages."""
    lone: bool = False
    """One file without any split name: everything is cut from it."""
    findings: list[Finding] = field(default_factory=list)
    ragged: int = 0
    """Lines left out because they do not fit the header; `RAGGED_LINE` is among the findings then."""
    unusable: dict[str, str] = field(default_factory=dict)
    """Columns that are no text: name -> what they hold."""
    kinds: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """JSON fields: name -> the kinds of values met (text, number, true or false)."""
    missing: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """JSON fields: name -> the places that lack them."""


def read(source: Any) -> Reading:
    """Read every split of `source`: a path, `owner/name` on the hub, a DataFrame, or a dict of split -> rows.

    Raises:
        DataError: the source is there, but its form is broken.
        InputError: there is nothing of that name.
    """
    if isinstance(source, Mapping):
        return _read_mapping(source)
    if not isinstance(source, (str, os.PathLike)):
        return _read_frame(source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        reading = Reading(_stem(path), lone=True)
        reading.tables["train"], reading.files["train"] = _read_files([path], reading), path.name
        return reading
    if _is_hub_id(str(source)):
        return _read_hub(str(source))
    raise InputError(_nothing_there(path))


# --- where the splits are ---------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> Reading:
    reading = Reading(folder.resolve().name)
    for split, paths in (_saved_splits(folder) or _split_files(folder, reading)).items():
        reading.tables[split], reading.files[split] = _read_files(paths, reading), paths[0].name
    if list(reading.tables) == ["train"] and (folder / "state.json").exists():
        reading.lone = True
    return reading


def _split_files(folder: Path, reading: Reading) -> dict[str, list[Path]]:
    """The files named like splits in `folder` or its `data` folder: `train.csv`, `data/test-00000-of-00002.parquet`."""
    for home in (folder, folder / "data"):
        data_files = sorted(p for p in home.glob("*") if p.is_file() and _format(p) and not p.name.startswith("."))
        found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for path in data_files:
            stem = re.sub(r"-\d{5}-of-\d{5}$", "", _stem(path)).lower()
            split = next((split for split, names in SPLIT_NAMES.items() if stem in names), None)
            if split:
                found[split][stem + _format(path)].append(path)
        for split, files in found.items():
            if len(files) > 1:
                names = " and ".join(sorted(paths[0].name for paths in files.values()))
                raise DataError(
                    [TWO_FILES_ONE_SPLIT(f"{names} are both the {split} split of {home}.", fix="Keep one of them.")]
                )
        if found:
            chosen = {split: next(iter(found[split].values())) for split in SPLIT_NAMES if split in found}
            used = {path for paths in chosen.values() for path in paths}
            unused = [p.name for p in data_files if p not in used and not (p.suffix == ".json" and _is_meta(p))]
            if unused:
                message = f"{', '.join(unused)} in {home.name}/ {'is' if len(unused) == 1 else 'are'} not read."
                reading.findings.append(UNUSED_FILE(message, fix="Only files named train, validation, test are."))
            return chosen
    raise DataError([NO_SPLIT_FILES(_why_no_splits(folder), fix="Name them train.csv, validation.csv, test.csv.")])


def _is_meta(path: Path) -> bool:
    """A small .json file that describes the data rather than holding rows."""
    with path.open("rb") as stream:
        return not stream.read(64).lstrip().startswith(b"[{") or path.stem in ("labels", "meta")


def _why_no_splits(folder: Path) -> str:
    files = sorted(p.name for p in folder.glob("*") if p.is_file() and _format(p) not in ("", ".json"))
    inside = sorted(p.name for p in folder.glob("*") if p.is_dir() and any(_format(q) for q in p.glob("*")))
    if files:
        return f"The folder {folder} has no train file; it has {', '.join(files[:6])}: give one of them as the source."
    if inside:
        return f"The folder {folder} holds no data files, but its folders do: give {folder / inside[0]}, for example."
    return f"The folder {folder} holds no file of the formats {', '.join(FORMATS)}."


def _saved_splits(folder: Path) -> dict[str, list[Path]]:
    """The Arrow files of a folder written by `datasets`' `save_to_disk`; empty for any other folder."""
    if (folder / "dataset_dict.json").is_file():
        names = json.loads((folder / "dataset_dict.json").read_text())["splits"]
        known = {name: split for split, aliases in SPLIT_NAMES.items() for name in aliases}
        return {known[name]: _shards(folder / name) for name in names if name in known}
    if (folder / "state.json").is_file():
        return {"train": _shards(folder)}
    return {}


def _shards(folder: Path) -> list[Path]:
    try:
        files = json.loads((folder / "state.json").read_text())["_data_files"]
        return [folder / item["filename"] for item in files]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} is not a complete save_to_disk folder: {error}."
        raise DataError([CORRUPT_FILE(message, fix="Save it again.")]) from None


def _is_hub_id(source: str) -> bool:
    """`owner/name` or `owner/name:config`, where no local folder is called `owner` and no file format is named."""
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)(:[\w.-]+)?", source)
    return bool(match) and not _format(Path(source)) and match[1] not in (".", "..") and not Path(match[1]).exists()


def _read_hub(source: str) -> Reading:
    """A data set of the Hugging Face hub, through `datasets`; `owner/name` or `owner/name:config`."""
    import datasets

    name, _, config = source.partition(":")
    try:
        found = datasets.load_dataset(name, config or None)
    except Exception as error:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{source!r} is no file or folder here, and the hub did not give a data set of that name ({cause}). "
            f"Check the spelling and the network, or give a path."
        ) from error
    reading = Reading(name.split("/")[-1])
    known = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    for name, split in found.items():
        if str(name) in known:
            batches = (batch for table in split.with_format("arrow").iter(BATCH_ROWS) for batch in table.to_batches())
            table = spool(_arrow_batches(batches, split.features.arrow_schema, reading))
            reading.tables[known[str(name)]], reading.files[known[str(name)]] = table, f"{source} {name}"
    return reading


def _nothing_there(path: Path) -> str:
    beside = [p.name for p in path.parent.glob("*") if _format(p) or p.is_dir()] if path.parent.is_dir() else []
    where = f"in {path.parent.resolve()}" if path.parent.is_dir() else f"because the folder {path.parent} is not there"
    known = suggest(path.name, [*sorted(beside)[:12], "pydocs"])
    return f"There is no {path.name!r} {where}. {known} (A data set of the hub is given as owner/name.)"


def _format(path: Path) -> str:
    """The data format a file's name promises (`.csv` for `train.csv.gz`), or nothing."""
    name = path.name.lower().removesuffix(".gz")
    return next((ending for ending in FORMATS if name.endswith(ending)), "")


def _stem(path: Path) -> str:
    return path.name[: path.name.lower().rfind(_format(path))] if _format(path) else path.stem


# --- one split from its files -----------------------------------------------------------------------------------------


def _read_files(paths: list[Path], reading: Reading) -> pa.Table:
    """One table from the shards of one split, rows numbered on from shard to shard."""

    def batches() -> Iterator[pa.RecordBatch]:
        before = 0
        for path in paths:
            last = 0
            for batch in _reader(path)(path, reading):
                last = batch.column(ROW)[-1].as_py() if batch.num_rows else last
                rows = pc.add(batch.column(ROW), pa.scalar(before, pa.int64()))
                yield batch.set_column(batch.schema.get_field_index(ROW), ROW, rows)
            before += last

    table = spool(batches())
    if not table.num_rows:
        raise DataError([NO_ROWS(f"{paths[0].name} has a header but no rows.", where=paths[0].name, fix="Add rows.")])
    return table


def _reader(path: Path) -> Callable[[Path, Reading], Iterator[pa.RecordBatch]]:
    form = _format(path)
    if not form:
        raise DataError(
            [
                UNKNOWN_FORMAT(
                    f"{path.name} is not of a known format.",
                    where=path.name,
                    fix=f"Known: {', '.join(FORMATS)}, and .gz of the text ones.",
                )
            ]
        )
    if path.stat().st_size == 0:
        raise DataError([EMPTY_FILE(f"{path.name} is empty (0 bytes).", where=path.name, fix="Write the file again.")])
    return {".csv": _read_csv, ".tsv": _read_csv, ".parquet": _read_parquet}.get(
        form, _read_json if form in TEXT_FORMATS else _read_arrow
    )


def spool(batches: Iterable[pa.RecordBatch], schema: pa.Schema | None = None) -> pa.Table:
    """The batches as one table: in memory while small, else in a memory-mapped file that vanishes with the table."""
    held: list[pa.RecordBatch] = []
    size, writer, path = 0, None, None
    for batch in batches:
        schema = schema or batch.schema
        size += batch.nbytes
        if writer is None and size > IN_MEMORY:
            handle, path = tempfile.mkstemp(suffix=".arrow", dir=cache_folder())
            os.close(handle)
            writer = pa.ipc.new_file(path, schema)
            for earlier in held:
                writer.write_batch(earlier)
            held.clear()
        if writer is not None:
            writer.write_batch(batch)
        else:
            held.append(batch)
    if writer is None or path is None:
        return pa.Table.from_batches(held, schema=schema or pa.schema([(ROW, pa.int64())]))
    writer.close()
    table = pa.ipc.open_file(pa.memory_map(path)).read_all()
    with contextlib.suppress(PermissionError):  # Windows keeps a mapped file; there it stays in the cache folder
        os.unlink(path)
    return table


def cache_folder() -> Path:
    """Where big tables are kept while they are used: `GRAFTWORK_CACHE`, or the user's cache folder."""
    import platformdirs

    folder = Path(os.environ.get("GRAFTWORK_CACHE") or platformdirs.user_cache_dir("graftwork")) / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
                fix = f"If it reads {as_latin!r}, it is Windows-1252: iconv -f cp1252 -t utf-8 {path.name} > new.csv"
                return WRONG_ENCODING(message + ".", where=place, fix=fix)
    raise AssertionError("a file that does not decode has a line that does not decode")


def _read_csv(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
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
    promised = "\t" if _format(path) == ".tsv" else ","
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
    _no_twins(header, path.name)
    return header


def _no_twins(header: list[str], name: str) -> None:
    twins = [column for column, count in Counter(header).items() if count > 1]
    if twins:
        message = f"{name} has more than one column called {', '.join(map(repr, twins))}."
        raise DataError([DUPLICATE_COLUMN(message, where=f"{name} line 1", fix="Rename one of them.")])


def _read_json(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    """Rows of a JSON Lines file, or of a .json file that is one array of objects."""
    builder = _Rows(path.name, reading)
    lines = _lines(path)
    first = next((line for line in lines if line.strip()), "")
    lines.close()  # type: ignore[attr-defined]
    if first.lstrip().startswith("[") and _format(path) == ".json":
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


class _Rows:
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
        """The columns, from the first batch: every key seen, and whether it holds lists, values or objects."""
        seen: dict[str, set[type]] = defaultdict(set)
        for _, _, value in rows:
            for key, cell in value.items():
                seen[key.strip()].add(type(cell))
        for key, types in seen.items():
            if dict in types:
                self.reading.unusable[key] = "objects with fields of their own"
            else:
                self.columns[key] = list in types or tuple in types

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
        return "true or false"
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


# --- Arrow and what speaks it -----------------------------------------------------------------------------------------


def _read_parquet(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        yield from _arrow_batches(file.iter_batches(BATCH_ROWS), file.schema_arrow, reading, path.name)
    except (pa.ArrowException, OSError) as error:
        raise DataError([_say_corrupt(path, "Parquet", error)]) from None


def _read_arrow(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    """An Arrow IPC file, or the stream format that `datasets` writes."""
    try:
        mapped = pa.memory_map(str(path))
        try:
            file = pa.ipc.open_file(mapped)
            batches: Iterable[pa.RecordBatch] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pa.ArrowInvalid:
            mapped.seek(0)
            file = batches = pa.ipc.open_stream(mapped)
        yield from _arrow_batches(batches, file.schema, reading, path.name)
    except (pa.ArrowException, OSError) as error:
        raise DataError([_say_corrupt(path, "Arrow", error)]) from None


def _say_corrupt(path: Path, form: str, error: Exception) -> Finding:
    cause = str(error).strip().splitlines()[0].rstrip(".")
    return CORRUPT_FILE(f"{path.name} is no readable {form} file: {cause}.", where=path.name, fix="Write it again.")


def _arrow_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, reading: Reading, name: str = "the data"
) -> Iterator[pa.RecordBatch]:
    """Batches with every usable column as text; class numbers become the names that `datasets` keeps beside them."""
    names = _class_names(schema)
    _no_twins([column.strip() for column in schema.names], name)
    usable = [column for column in schema.names if _usable(schema.field(column).type) and column != ROW]
    for column in set(schema.names) - set(usable) - {ROW}:
        reading.unusable[column] = str(schema.field(column).type)
    header = [column.strip() for column in usable]
    kept, row = pa.schema([(column, _text_type(schema.field(column).type)) for column in usable]), 0
    empty = True
    for batch in batches:
        arrays = [_array_as_text(batch.column(column), names.get(column)) for column in usable]
        rows = pa.array(range(row + 1, row + 1 + batch.num_rows), pa.int64())
        row, empty = row + batch.num_rows, False
        yield pa.record_batch([*arrays, rows], names=[*header, ROW])
    if empty:
        yield pa.record_batch([*(pa.array([], field.type) for field in kept), pa.array([], pa.int64())], [*header, ROW])


def _usable(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.DictionaryType):
        return _usable(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _usable(kind.value_type) and not pa.types.is_nested(kind.value_type)
    return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _text_type(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.string()) if pa.types.is_nested(kind) else pa.string()


def _array_as_text(array: pa.Array, names: list[str] | None) -> pa.Array:
    kind = array.type
    if isinstance(array, pa.DictionaryArray):
        return _array_as_text(array.dictionary_decode(), names)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
        return _array_as_text(array.cast(pa.list_(kind.value_type)), names)
    if isinstance(array, pa.ListArray):
        return pa.ListArray.from_arrays(
            _offsets(array), _array_as_text(array.flatten(), names), mask=array.is_null() if array.null_count else None
        )
    if names and pa.types.is_integer(kind):
        inside = pc.and_(pc.greater_equal(array, 0), pc.less(array, len(names)))
        return pc.take(pa.array(names, pa.string()), pc.if_else(inside, array, None))
    if pa.types.is_floating(kind):
        return pa.array([as_text(value) for value in array.to_pylist()], pa.string())
    return array.cast(pa.string())


def _offsets(array: pa.ListArray) -> pa.Array:
    """The list's offsets as `flatten` sees them: from 0, nulls taking no room."""
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """The names of `datasets` ClassLabel columns (and of lists of them), from the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    names = {}
    for column, feature in features.items():
        while isinstance(feature, (dict, list)) and not (isinstance(feature, dict) and "names" in feature):
            feature = feature[0] if isinstance(feature, list) else feature.get("feature")
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            names[column] = feature["names"]
    return names


def _read_frame(frame: Any, split: str = "train", reading: Reading | None = None) -> Reading:
    """A pandas DataFrame, an Arrow table, a `datasets` Dataset, or a list of dicts."""
    reading = reading or Reading("frame", lone=True)
    if isinstance(frame, (list, tuple)):
        rows = ((i, f"item {i} of {split}", row) for i, row in enumerate(frame, 1))
        batches = _Rows("rows", reading).batches(rows)
    else:
        batches = _frame_batches(frame, split, reading)
    reading.tables[split], reading.files[split] = spool(batches), split
    if not reading.tables[split].num_rows:
        raise DataError([NO_ROWS(f"The {split} split has no rows.", where=split, fix="Add rows.")])
    return reading


def _frame_batches(frame: Any, split: str, reading: Reading) -> Iterator[pa.RecordBatch]:
    if hasattr(frame, "features") and hasattr(frame, "with_format"):
        batches = (batch for table in frame.with_format("arrow").iter(BATCH_ROWS) for batch in table.to_batches())
        return _arrow_batches(batches, frame.features.arrow_schema, reading, split)
    if hasattr(frame, "columns") and hasattr(frame, "iloc"):
        names = [str(name) for name in frame.columns]
        _no_twins([name.strip() for name in names], split)
        objects = [name for name, column in zip(names, frame.columns, strict=True) if frame[column].dtype == object]
        if objects:
            return _Rows(split, reading).batches(
                (i, f"row {i} of {split}", dict(zip(names, row, strict=True)))
                for i, row in enumerate(frame.itertuples(index=False, name=None), 1)
            )
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    if isinstance(frame, pa.Table):
        return _arrow_batches(frame.to_batches(BATCH_ROWS), frame.schema, reading, split)
    raise InputError(
        f"Data cannot be read from {type(frame).__name__}. Give a path, a hub id (owner/name), a DataFrame, "
        f"or a dict of split name -> list of dicts."
    )


def _read_mapping(splits: Mapping[str, Any]) -> Reading:
    """A dict of split name -> rows; names other than the four splits are an error, not a guess."""
    known = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    reading = Reading("rows")
    for name, rows in splits.items():
        if name not in known:
            raise InputError(f"{name!r} is no split. {suggest(str(name), SPLIT_NAMES)}")
        if isinstance(rows, (str, os.PathLike)):
            path = Path(rows)
            if not path.is_file():
                raise InputError(_nothing_there(path))
            reading.tables[known[name]], reading.files[known[name]] = _read_files([path], reading), path.name
        else:
            _read_frame(rows, known[name], reading)
    return reading
