"""A modality turns raw examples into tensors, and pads them into a batch. Text and pictures are modalities.

Training and serving share one modality object, saved with the model, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

if TYPE_CHECKING:
    import numpy as np
    import torch

    from graftwork.template import Template


class Modality(Protocol):
    """What `TransferModel` and `fit` ask of a modality."""

    reads: ClassVar[str]
    """What a raw example is: `text` or `image`, as `Data.reads` says it."""
    max_length: int
    """The longest example the model reads, in the states that it gives of it (tokens, patches), special ones included.
    """
    pad_id: int
    """What fills a batch; 0 where nothing is padded."""
    template: Template | None
    """What stands around each text; None for what has no words."""
    place: int
    """Where the state is that a template asks for."""
    shape: tuple[int, ...] | None
    """Of every example's array, where all are alike; None where lengths differ."""
    dtype: ClassVar[type[np.generic]]
    """Of an example's numbers."""

    @property
    def digest(self) -> str:
        """Names all that `read` depends on: two with equal digests give equal arrays."""
        ...

    def within(self, template: Template | None) -> Self:
        """This modality, but reading every example inside `template`; None for examples as they are."""
        ...

    def read(self, inputs: Sequence[Any]) -> Iterator[tuple[np.ndarray, int]]:
        """Each example's array, cut at `max_length`, and how many states the cut cost, in the order given."""
        ...

    def states(self, example: np.ndarray) -> int:
        """How many states the encoder gives of an example: what it costs to compute."""
        ...

    def collate(self, examples: Sequence[np.ndarray], *, pad_id: int | None = None) -> dict[str, torch.Tensor]:
        """Examples padded to the longest of them: the encoder's keyword arguments, each (batch, ...)."""
        ...

    def require_fit(self, config: Any) -> None:
        """Refuse a network that was made for other inputs.

        Raises:
            InputError: `config` is not of one model with this modality.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write what `from_folder` needs."""
        ...
