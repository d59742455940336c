"""An insertion is a small part that is put into a pretrained encoder and stays there: an adapter, a prefix, a prompt.

What can be merged into the weights is merged, and is no insertion. What cannot is saved beside the encoder, which
stays as plain `transformers` reads it, and is put in again when the model is loaded.

An insertion hangs its modules under the name `inserted` on the modules that they act on, and lets them act by hooks
that are *bound methods* of those modules: so names of the encoder's own weights do not change, depths are counted as
before, and a deep copy of the encoder has hooks of its own.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from graftwork.choice import Choice

NAME = "inserted"


class Insertion(Choice):
    """A part that is put into an encoder and stays there."""

    lengthens: ClassVar[bool] = False
    """Whether the encoder's blocks see more positions than the text has."""

    def into(self, encoder: nn.Module) -> None:
        """Hang fresh modules into `encoder`. They start so that the encoder's output is what it was, or near it.

        Raises:
            InputError: this encoder has no place for them.
        """
        raise NotImplementedError


def hang(on: nn.Module, part: nn.Module) -> None:
    """Hang `part` on the module it acts on; several follow one another."""
    if not hasattr(on, NAME):
        on.add_module(NAME, nn.ModuleDict())  # a list of equal parts would look like a stack of blocks
    parts = getattr(on, NAME)
    parts[str(len(parts))] = part


def inserted_parameters(encoder: nn.Module) -> list[nn.Parameter]:
    """The parameters of every insertion."""
    return [p for name, p in encoder.named_parameters() if _is_inserted(name)]


def inserted_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """What of the encoder's state belongs to insertions."""
    return {name: value for name, value in encoder.state_dict().items() if _is_inserted(name)}


def _is_inserted(name: str) -> bool:
    return NAME in name.split(".")
