"""Arrow: Parquet files, Arrow files and tables in memory, as batches of text columns."""

from __future__ import annotations

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes the functions of `compute` when it is imported, so pyright cannot see them)
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from graftwork import formats
from graftwork.finding import DataError, Finding
from graftwork.formats import CORRUPT_FILE, ROW, Reading, as_text, no_twins


def read_parquet(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        yield from arrow_batches(file.iter_batches(formats.BATCH_ROWS), file.schema_arrow, reading, path.name)
    except (pa.ArrowException, OSError) as error:
        raise DataError([_say_corrupt(path, "Parquet", error)]) from None


def read_arrow(path: Path, reading: Reading) -> Iterator[pa.RecordBatch]:
    """An Arrow IPC file, or the stream format that `datasets` writes."""
    try:
        mapped = pa.memory_map(str(path))
        try:
            file = pa.ipc.open_file(mapped)
            batches: Iterable[pa.RecordBatch] = (file.get_batch(i) for i in range(file.num_record_batches))
        except pa.ArrowInvalid:
            mapped.seek(0)
            file = batches = pa.ipc.open_stream(mapped)
        yield from arrow_batches(batches, file.schema, reading, path.name)
    except (pa.ArrowException, OSError) as error:
        raise DataError([_say_corrupt(path, "Arrow", error)]) from None


def _say_corrupt(path: Path, form: str, error: Exception) -> Finding:
    cause = str(error).strip().splitlines()[0].rstrip(".")
    return CORRUPT_FILE(f"{path.name} is no readable {form} file: {cause}.", where=path.name, fix="Write it again.")


def arrow_batches(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, reading: Reading, name: str = "the data"
) -> Iterator[pa.RecordBatch]:
    """Batches with every usable column as text; class numbers become the names that `datasets` keeps beside them."""
    names = _class_names(schema)
    no_twins([column.strip() for column in schema.names], name)
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
