"""Writing so that a crash leaves whole files: what is at a place is what was there before, or all of what is new.

So it is written beside its place, flushed to the disk and renamed. A full disk is told of in a sentence.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from graftwork.choice import InputError


class DiskFullError(OSError):
    """The disk or the quota is full: a file was not written, and the one it should replace is untouched."""


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; at the end it is flushed to the disk and takes `path`'s place, or is removed.

    Raises:
        DiskFullError: the disk is full; what was at `path` is still there.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with plain_disk_errors(path):
            yield beside
            with beside.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(beside, path)
            _sync_folder(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace a file's content: a reader, or a crash at any moment, finds the old content or the new, never a part."""
    with atomic_path(path) as beside:
        beside.write_bytes(content)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` to build in; at the end it takes `path`'s place, or is removed and what was there stays.

    Raises:
        InputError: the place cannot be written to.
        DiskFullError: the disk is full.
    """
    beside, aside = (path.with_name(f".{path.name}.{os.getpid()}.{part}") for part in ("new", "old"))
    try:
        with plain_disk_errors(path):
            _make(beside)
            yield beside
            for file in beside.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as written:
                        os.fsync(written.fileno())
            if path.exists():
                os.replace(path, aside)
            os.replace(beside, path)
            _sync_folder(path.parent)
    finally:
        if aside.exists() and not path.exists():
            os.replace(aside, path)
        for rest in (beside, aside):
            shutil.rmtree(rest, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"Cannot write to '{folder.parent}': {error.strerror}. Choose another folder.") from None


@contextmanager
def plain_disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns "no space left on device" into a sentence that says where and what to do."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        number = _number(error)
        if isinstance(error, DiskFullError) or number not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(Path(path).parent).free // 2**20
        full = DiskFullError(
            f"The disk is full: '{path}' could not be written ({free} MiB are free). Make room, then try again."
        )
        full.errno = number
        raise full from error


def _number(error: OSError | SafetensorError) -> int | None:
    """What the system calls it."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"os error (\d+)", str(error))  # safetensors has no other way to say it
    return int(told[1]) if told else None


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
