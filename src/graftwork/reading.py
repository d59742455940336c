"""Reading: a source (file, folder of splits, hub id, frame) becomes one Arrow table of text columns a split.

What is wrong with the *form* of a source (encoding, ragged lines, broken archives) is found on the way; what is wrong
with its *content* is found by `check`.
"""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from graftwork.arrow import arrow_batches, read_arrow, read_parquet
from graftwork.choice import InputError, suggest
from graftwork.finding import DataError, Kind
from graftwork.formats import (
    BATCH_ROWS,
    CORRUPT_FILE,
    EMPTY_FILE,
    FORMATS,
    ROW,
    SPLIT_NAMES,
    TEXT_FORMATS,
    Reading,
    Rows,
    format_of,
    no_twins,
    read_csv,
    read_json,
    stem_of,
)
from graftwork.picture_folder import picture_rows
from graftwork.spool import spool

NO_ROWS = Kind("no-rows", "error", "A file or split has no rows.")
UNKNOWN_FORMAT = Kind("unknown-format", "error", "The file's format cannot be read.")
TWO_FILES_ONE_SPLIT = Kind("two-files-one-split", "error", "A folder holds two files for the same split.")
NO_SPLIT_FILES = Kind("no-split-files", "error", "A folder holds no file named like a split.")
UNUSED_FILE = Kind("unused-file", "note", "A data file in the folder is no split and is not read.")


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
        reading = Reading(stem_of(path), lone=True)
        reading.tables["train"], reading.files["train"] = _read_files([path], reading), path.name
        reading.homes["train"] = path.parent
        return reading
    if _is_hub_id(str(source)):
        return _read_hub(str(source))
    raise InputError(_nothing_there(path))


# --- where the splits are ---------------------------------------------------------------------------------------------


def _read_folder(folder: Path) -> Reading:
    reading = Reading(folder.resolve().name)
    found = _saved_splits(folder) or _split_files(folder, reading)
    pictures = {} if found or _tables(folder) else picture_rows(folder, reading)
    if not found and not pictures:
        raise DataError([NO_SPLIT_FILES(_why_no_splits(folder), fix="Name them train.csv, validation.csv, test.csv.")])
    for split, rows in pictures.items():
        _read_frame(rows, split, reading)
    for split, paths in found.items():
        reading.tables[split], reading.files[split] = _read_files(paths, reading), paths[0].name
        reading.homes[split] = paths[0].parent
    if list(reading.tables) == ["train"] and (folder / "state.json").exists():
        reading.lone = True
    return reading


def _split_files(folder: Path, reading: Reading) -> dict[str, list[Path]]:
    """The files named like splits in `folder` or its `data` folder: `train.csv`, `data/test-00000-of-00002.parquet`.

    Empty where there are none.
    """
    for home in (folder, folder / "data"):
        data_files = sorted(p for p in home.glob("*") if p.is_file() and format_of(p) and not p.name.startswith("."))
        found: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
        for path in data_files:
            stem = re.sub(r"-\d{5}-of-\d{5}$", "", stem_of(path)).lower()
            split = next((split for split, names in SPLIT_NAMES.items() if stem in names), None)
            if split:
                found[split][stem + format_of(path)].append(path)
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
    return {}


def _tables(folder: Path) -> list[str]:
    """The files of `folder` that hold rows, whatever they are called; a .json may describe the others."""
    return sorted(p.name for p in folder.glob("*") if p.is_file() and format_of(p) not in ("", ".json"))


def _is_meta(path: Path) -> bool:
    """A small .json file that describes the data rather than holding rows."""
    with path.open("rb") as stream:
        return not stream.read(64).lstrip().startswith(b"[{") or path.stem in ("labels", "meta")


def _why_no_splits(folder: Path) -> str:
    files = _tables(folder)
    inside = sorted(p.name for p in folder.glob("*") if p.is_dir() and any(format_of(q) for q in p.glob("*")))
    if files:
        return f"The folder {folder} has no train file; it has {', '.join(files[:6])}: give one of them as the source."
    if inside:
        return f"The folder {folder} holds no data files, but its folders do: give {folder / inside[0]}, for example."
    return f"The folder {folder} holds no file of the formats {', '.join(FORMATS)}, and no pictures."


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
    return bool(match) and not format_of(Path(source)) and match[1] not in (".", "..") and not Path(match[1]).exists()


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
            table = spool(arrow_batches(batches, split.features.arrow_schema, reading))
            reading.tables[known[str(name)]], reading.files[known[str(name)]] = table, f"{source} {name}"
    return reading


def _nothing_there(path: Path) -> str:
    beside = [p.name for p in path.parent.glob("*") if format_of(p) or p.is_dir()] if path.parent.is_dir() else []
    where = f"in {path.parent.resolve()}" if path.parent.is_dir() else f"because the folder {path.parent} is not there"
    known = suggest(path.name, [*sorted(beside)[:12], "pydocs"])
    return f"There is no {path.name!r} {where}. {known} (A data set of the hub is given as owner/name.)"


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
        raise DataError([NO_ROWS(f"{paths[0].name} has no rows.", where=paths[0].name, fix="Add rows.")])
    return table


def _reader(path: Path) -> Callable[[Path, Reading], Iterator[pa.RecordBatch]]:
    form = format_of(path)
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
    return {".csv": read_csv, ".tsv": read_csv, ".parquet": read_parquet}.get(
        form, read_json if form in TEXT_FORMATS else read_arrow
    )


# --- what is in memory ------------------------------------------------------------------------------------------------


def _read_frame(frame: Any, split: str = "train", reading: Reading | None = None) -> Reading:
    """A pandas DataFrame, an Arrow table, a `datasets` Dataset, or a list of dicts."""
    reading = reading or Reading("frame", lone=True)
    if isinstance(frame, (list, tuple)):
        rows = ((i, f"item {i} of {split}", row) for i, row in enumerate(frame, 1))
        batches = Rows("rows", reading).batches(rows)
    else:
        batches = _frame_batches(frame, split, reading)
    reading.tables[split], reading.files[split] = spool(batches), split
    if not reading.tables[split].num_rows:
        raise DataError([NO_ROWS(f"The {split} split has no rows.", where=split, fix="Add rows.")])
    return reading


def _frame_batches(frame: Any, split: str, reading: Reading) -> Iterator[pa.RecordBatch]:
    if hasattr(frame, "features") and hasattr(frame, "with_format"):
        batches = (batch for table in frame.with_format("arrow").iter(BATCH_ROWS) for batch in table.to_batches())
        return arrow_batches(batches, frame.features.arrow_schema, reading, split)
    if hasattr(frame, "columns") and hasattr(frame, "iloc"):
        names = [str(name) for name in frame.columns]
        no_twins([name.strip() for name in names], split)
        objects = [name for name, column in zip(names, frame.columns, strict=True) if frame[column].dtype == object]
        if objects:
            frame = frame.astype(object).where(frame.notna(), None)
            return Rows(split, reading).batches(
                (i, f"row {i} of {split}", dict(zip(names, map(_plain, row), strict=True)))
                for i, row in enumerate(frame.itertuples(index=False, name=None), 1)
            )
        frame = pa.Table.from_pandas(frame, preserve_index=False)
    if isinstance(frame, pa.Table):
        return arrow_batches(frame.to_batches(BATCH_ROWS), frame.schema, reading, split)
    raise InputError(
        f"Data cannot be read from {type(frame).__name__}. Give a path, a hub id (owner/name), a DataFrame, "
        f"or a dict of split name -> list of dicts."
    )


def _plain(cell: Any) -> Any:
    """A cell of numpy's as Python's own: pandas gives arrays where Parquet had lists."""
    return cell.tolist() if hasattr(cell, "tolist") else cell


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
