"""Spool: batches become one table, in memory while small, else in a memory-mapped file that vanishes with it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

IN_MEMORY = 64 << 20
"""Bytes that are held in memory; what is larger is written to `cache_folder` and mapped."""


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
        return pa.Table.from_batches(held, schema=schema or pa.schema([]))
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
