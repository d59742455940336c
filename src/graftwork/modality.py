"""A modality turns raw examples into tensors, and pads them into a batch. Text, images, speech are modalities.

Training and serving share one modality object, saved with the model, so that they cannot disagree.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch


class Modality(Protocol):
    """What `TransferModel` and `fit` ask of a modality."""

    max_length: int
    """The longest example the model reads, in its own units (tokens), special ones included."""

    def encode(self, inputs: list[Any]) -> list[np.ndarray]:
        """One integer array an example, cut at `max_length`."""
        ...

    def collate(self, examples: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Examples padded to the longest of them: the encoder's keyword arguments, each (batch, length, ...)."""
        ...

    def save(self, folder: Path) -> None:
        """Write what `from_folder` needs."""
        ...
