"""The shelf of modalities, and which of them a model's folder has."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftwork.intact import read_json
from graftwork.modalities.image import Image
from graftwork.modalities.text import Text

if TYPE_CHECKING:
    from graftwork.modality import Modality

__all__ = ["Image", "Text", "modality_in", "reads_pictures"]


def reads_pictures(folder: Path) -> bool:
    """Whether the model in `folder` reads pictures: its config says how large they are."""
    return "image_size" in read_json(folder / "config.json")


def modality_in(folder: Path) -> Modality:
    """What the model in `folder` reads, as it was saved with it.

    Raises:
        InputError: its tokenizer or its preprocessing is missing, or not known.
    """
    return Image.from_folder(folder) if reads_pictures(folder) else Text.from_folder(folder)
