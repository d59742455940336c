"""Pictures: brought to the size the network reads, in colour, and normalised as its preprocessor_config.json says.

What is kept on disk are bytes; they become numbers around 0 when a batch is made, by the formula of `transformers`'
own ViTImageProcessor, whose file is read and written. Neither torchvision nor that class is needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.choice import InputError
from graftwork.intact import read_json
from graftwork.picture import pixels

if TYPE_CHECKING:
    import torch

    from graftwork.template import Template

HALF = (0.5, 0.5, 0.5)
"""Mean and deviation that bring pixels to [-1, 1], as ViT's do."""
SETTINGS = "preprocessor_config.json"


class Image:
    """Picture files to pixels.

    Args:
        size: pixels of each side.
        patch: pixels of each side of a patch; divides `size`.
        resample: how sizes are changed, by PIL's number: 2 is bilinear, 3 bicubic.
        mean: of red, green and blue, in [0, 1]: what is taken off.
        deviation: what is divided by after that.

    Attributes:
        max_length: states of a picture: one a patch, and one for the whole.
        shape: (3, size, size).
    """

    reads: ClassVar[str] = "image"
    dtype: ClassVar[type[np.generic]] = np.uint8
    pad_id: int = 0
    template: Template | None = None
    place: int = -1

    def __init__(
        self, size: int, patch: int, *, resample: int = 2, mean: Sequence[float] = HALF,
        deviation: Sequence[float] = HALF,
    ):  # fmt: skip
        self.size, self.patch, self.resample = size, patch, resample
        self.mean, self.deviation = tuple(mean), tuple(deviation)
        self.max_length = (size // patch) ** 2 + 1
        self.shape: tuple[int, ...] | None = (3, size, size)

    @classmethod
    def from_folder(cls, folder: Path | str) -> Image:
        """The preprocessing of a saved model.

        Raises:
            InputError: it is no ViT of square pictures in colour, or they are prepared in a way that is not known here.
        """
        folder = Path(folder)
        config, settings = read_json(folder / "config.json"), read_json(folder / SETTINGS)
        kind, size, patch = (config.get(name) for name in ("model_type", "image_size", "patch_size"))
        if kind != "vit" or type(size) is not int or type(patch) is not int or config.get("num_channels", 3) != 3:
            raise InputError(
                f"The {kind} in {str(folder)!r} is no ViT of square pictures in colour, which alone is read. Choose "
                "another model."
            )
        resample = settings.get("resample", 2)
        if any(settings.get(name) for name in ("do_center_crop", "do_pad")) or resample not in (2, 3):
            raise InputError(
                f"{SETTINGS} in {str(folder)!r} asks for more than resizing and normalising. Choose another model."
            )
        normal = settings.get("do_normalize", True)
        mean = settings.get("image_mean", HALF) if normal else (0.0, 0.0, 0.0)
        return cls(
            size, patch, resample=resample, mean=mean,
            deviation=settings.get("image_std", HALF) if normal else (1.0, 1.0, 1.0),
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """Names the sizes: pixels are kept as they are before they are normalised."""
        return hashlib.sha256(json.dumps(["pictures", self.size, self.patch, self.resample]).encode()).hexdigest()

    def within(self, template: Template | None) -> Image:
        """Itself: a picture stands in no sentence.

        Raises:
            InputError: there is a template.
        """
        if template is not None:
            raise InputError(
                f"The template {template.text!r} is for texts, and this model reads pictures. Leave it out."
            )
        return self

    def read(self, inputs: Sequence[str]) -> Iterator[tuple[np.ndarray, int]]:
        """The pixels of each file, (3, size, size) uint8; nothing is cut."""
        for file in inputs:
            yield pixels(file, self.size, self.resample), 0

    def states(self, example: np.ndarray) -> int:
        """Of any picture `max_length`."""
        return self.max_length

    def collate(self, examples: Sequence[np.ndarray], *, pad_id: int | None = None) -> dict[str, torch.Tensor]:
        """`pixel_values`, (batch, 3, size, size) float32."""
        import torch

        mean, deviation = (torch.tensor(each).view(3, 1, 1) for each in (self.mean, self.deviation))
        stacked = torch.from_numpy(np.stack(examples))
        return {"pixel_values": (stacked.float() / 255 - mean) / deviation}

    def require_fit(self, config: Any) -> None:
        """Refuse a network of another size.

        Raises:
            InputError: it reads texts, or other pictures.
        """
        found = tuple(getattr(config, name, None) for name in ("image_size", "patch_size"))
        if found != (self.size, self.patch):
            raise InputError(
                f"Pictures are brought to {self.size} pixels in patches of {self.patch}, and the network reads "
                f"{found[0]} in patches of {found[1]}. They are not of one model."
            )

    def save(self, folder: Path) -> None:
        """Write preprocessor_config.json, as plain `transformers` reads it."""
        settings = {
            "image_processor_type": "ViTImageProcessor", "do_convert_rgb": True, "do_resize": True,
            "size": {"height": self.size, "width": self.size}, "resample": self.resample, "do_rescale": True,
            "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": self.mean, "image_std": self.deviation,
        }  # fmt: skip
        (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")
