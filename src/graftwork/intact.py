"""The files of a model's folder, read whole or refused in a sentence: cut, changed, swapped, or something else.

A seal guards against damage and mix-ups, not against an enemy: who can change a file can change its seal as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from graftwork.choice import InputError, first_line


def digest(file: Path) -> str:
    """The file's sha256, in hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def seals(files: Iterable[Path]) -> dict[str, str]:
    """The digest of each file by its name, in order of names."""
    return {file.name: digest(file) for file in sorted(files)}


def require_sealed(folder: Path, sealed: Mapping[str, str]) -> None:
    """Refuse files that are not what they were.

    Args:
        folder: where they lie.
        sealed: what `seals` gave.

    Raises:
        InputError: the first that is missing or differs.
    """
    for name, expected in sealed.items():
        file = folder / name
        if not file.is_file():
            raise InputError(f"{str(folder)!r} is not a whole model: it has no {name}. Copy it again.")
        if digest(file) != expected:
            raise InputError(
                f"{name} in {str(folder)!r} is not the file that was saved (its sha256 differs). Copy the model again."
            )


def read_json(file: Path) -> dict[str, Any]:
    """An object of a file; empty where there is none.

    Raises:
        InputError: it is no JSON, or no object.
    """
    if not file.is_file():
        return {}
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file.name} in {str(file.parent)!r} is damaged ({first_line(error)}).") from None
    if not isinstance(read, dict):
        raise InputError(f"{file.name} in {str(file.parent)!r} holds no JSON object.")
    return read


def tensor_names(file: Path) -> list[str]:
    """The names in a safetensors file, of which the header alone is read.

    Raises:
        InputError: it is cut, or something else, such as a pickle.
    """
    return list(tensor_shapes(file))


def tensor_shapes(file: Path) -> dict[str, list[int]]:
    """The shapes in a safetensors file by name, of which the header alone is read.

    Raises:
        InputError: it is cut, or something else, such as a pickle.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file.name} in {str(file.parent)!r} is damaged or no safetensors file ({first_line(error)}). "
            "Copy it again."
        ) from error
