"""Gallery: pictures to learn to see from, whatever they show. Classes that folders name are left aside.

Folders named train and validation are used as such, and test is never read; without them a part is held out, drawn by
the pictures' content, so that equal ones never stand on both sides.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from graftwork.choice import InputError
from graftwork.data import Split
from graftwork.picture import digest
from graftwork.picture_folder import splits_in

HELD_OUT = 0.05
"""Of the pictures, where no folder is named for validation."""
_LEAST = 8  # pictures to learn from


class Gallery:
    """A folder of pictures, as `examples.tokenised` reads data.

    Args:
        source: the folder; all folders in it are looked through.

    Raises:
        InputError: it holds no picture, too few, or one that cannot be read.
    """

    def __init__(self, source: Path | str):
        path = Path(source).expanduser()
        if not path.is_dir():
            raise InputError(f"There is no folder {str(path)!r}. Give one that holds pictures.")
        self.path = path.resolve()
        self.files = [self.path]
        found = splits_in(self.path)
        given = {
            "train": [*found.get("train", found.get("", [])), *found.get("target", [])],
            "validation": found.get("validation", []),
        }
        if not given["train"]:
            raise InputError(f"{str(path)!r} holds no pictures. Known: .png, .jpg, .jpeg, .bmp and .webp.")
        self._splits = _read(given, self.name)

    @property
    def name(self) -> str:
        """The folder's."""
        return self.path.name

    def __getitem__(self, split: str) -> Split:
        return self._splits[split]

    @cached_property
    def fingerprint(self) -> str:
        """Names the content of both splits, in order: (64,) hexadecimal."""
        total = hashlib.sha256()
        for name, split in self._splits.items():
            total.update(f"{name} {len(split)} {''.join(split.shown.to_pylist())}".encode())
        return total.hexdigest()


def _read(given: dict[str, list[Path]], name: str) -> dict[str, Split]:
    """The splits with what each picture holds; without one for validation, some of train's are set aside."""
    rows = {split: [(str(file), digest(file)) for file in files] for split, files in given.items()}
    damaged = [file for each in rows.values() for file, content in each if not content]
    if damaged:
        raise InputError(
            f"{len(damaged):,} of {sum(map(len, rows.values())):,} pictures cannot be read, such as {damaged[0]!r}. "
            "Replace them, or take them out."
        )
    if not rows["validation"]:
        held = {content for _, content in rows["train"] if int(content[:16], 16) < HELD_OUT * 2**64}
        held = held or {min(content for _, content in rows["train"])}
        rows["validation"] = [row for row in rows["train"] if row[1] in held]
        rows["train"] = [row for row in rows["train"] if row[1] not in held]
    if len(rows["train"]) < _LEAST:
        raise InputError(
            f"{len(rows['train'])} pictures of {name!r} are left to learn from. Give at least {_LEAST}, of "
            "different content."
        )
    return {split: Split(_table(each)) for split, each in rows.items()}


def _table(rows: list[tuple[str, str]]) -> pa.Table:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in (0, 1)]
    return pa.table(
        {
            "input": columns[0],
            "label": pa.array([""] * len(rows), pa.string()),
            "row": pa.array(range(1, len(rows) + 1), pa.int64()),
            "digest": columns[1],
        }
    )
