"""A picture file: found by its ending, named by its content, read as pixels of one size, all of it by Pillow.

What a file's bytes are, not where it lies, says which picture it is; one that cannot be read has no content.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from graftwork.choice import InputError, first_line

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def is_picture(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return name.lower().endswith(ENDINGS)


def digest(file: str | Path) -> str:
    """SHA-256 of a picture file, (64,) hexadecimal; "" where it is no picture that can be read to its end."""
    try:
        data = Path(file).read_bytes()
        _opened(data)
    except _unreadable():
        return ""
    return hashlib.sha256(data).hexdigest()


def pixels(file: str | Path, size: int, resample: int = 2) -> np.ndarray:
    """A picture in colour, brought to `size` x `size` whatever its shape: (3, size, size) uint8.

    Args:
        file: where it lies.
        size: pixels of each side.
        resample: by PIL's number, as preprocessor_config.json gives it: 2 is bilinear.

    Raises:
        InputError: there is none, or it is damaged.
    """
    try:
        picture = _opened(Path(file).read_bytes())
    except FileNotFoundError:
        raise InputError(f"There is no picture {str(file)!r}. Check its name.") from None
    except _unreadable() as error:
        why = "its format is not known" if "identify" in str(error) else first_line(error)
        raise InputError(f"{str(file)!r} cannot be read as a picture: {why}. Replace it.") from None
    if picture.size != (size, size):
        picture = picture.resize((size, size), resample=resample)
    return np.asarray(picture, dtype=np.uint8).transpose(2, 0, 1)


def _opened(data: bytes) -> Image:
    """The picture that a file's bytes hold, decoded, in red, green and blue.

    Transparent places are white, as a page is.
    """
    from PIL import Image

    picture = Image.open(io.BytesIO(data))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


def _unreadable() -> tuple[type[Exception], ...]:
    """What reading a damaged picture raises.

    Raises:
        InputError: Pillow is not installed.
    """
    try:
        from PIL.Image import DecompressionBombError
    except ImportError:
        raise InputError('Pictures need Pillow. Install it with: pip install "graftwork[images]"') from None
    return (OSError, ValueError, SyntaxError, DecompressionBombError)
