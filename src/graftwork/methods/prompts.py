"""Tuning what the encoder reads: a prompt or a prefix learns to bring out what the frozen weights know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from graftwork.insertions.prompts import Prefix, PrefixVectors, Prompt, PromptVectors, listen
from graftwork.methods.inserted import Inserting

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel

Part = TypeVar("Part", bound=nn.Module)


class Prompting(Inserting, abstract=True):
    """What the methods have in common that train vectors which are read beside the text."""

    needs: ClassVar[frozenset[str]] = frozenset({"text"})
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "length": (5, 10, 20)}

    length: int = Field(default=10, ge=1)
    """How many vectors, for each head where every head has its own."""
    lr: float = Field(default=1e-2, gt=0, lt=1)
    """Learning rate of the vectors, at its peak."""
    head_lr_factor: float = Field(default=0.2, gt=0)
    """The head learns this many times as fast."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled decay; vectors that stand for words have none, as embedding tables have none."""

    def start(self, encoder: nn.Module, train: Examples) -> None:
        """Let the vectors mean what some pieces mean that train holds, drawn at random."""
        seen = np.flatnonzero(np.bincount(train.ids))
        self.mean(encoder, torch.from_numpy(seen)[torch.randint(len(seen), (self.length,))])

    def mean(self, encoder: nn.Module, pieces: Tensor) -> None:
        """Let the vectors mean what `pieces` mean, ids (length,)."""
        raise NotImplementedError


class PromptTuning(Prompting):
    """Train a few vectors that stand before the words of every text: a few thousand parameters in all.

    For large encoders: of a small one they take attention away from a short text, and it may do worse than a probe.
    """

    paper: ClassVar[str] = "The Power of Scale for Parameter-Efficient Prompt Tuning, Lester et al. 2021, section 2"

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "length": (2, 5, 10)}

    length: int = Field(default=5, ge=1)
    """How many vectors; each costs as much time as a token of every text."""

    def insertion(self) -> Prompt:
        """Before the words."""
        return Prompt(length=self.length)

    @torch.no_grad()
    def mean(self, encoder: nn.Module, pieces: Tensor) -> None:
        """The embeddings of the pieces."""
        for prompt in _training(encoder, PromptVectors):
            prompt.vectors.copy_(encoder.get_input_embeddings()(pieces.to(prompt.vectors.device)))  # type: ignore[operator]


class PTuning(PromptTuning):
    """Prompt tuning whose vectors come out of a small network while they train, so that they learn together."""

    name: ClassVar[str] = "p-tuning"
    paper: ClassVar[str] = "GPT Understands, Too, Liu et al. 2021, section 3.2, eq. 5"

    network: Literal["lstm", "mlp"] = "lstm"
    """What they come out of: a bidirectional LSTM and two linear layers, or the layers alone; it is not kept."""
    lr: float = Field(default=3e-3, gt=0, lt=1)
    """Learning rate of the network, at its peak."""
    head_lr_factor: float = Field(default=0.7, gt=0)
    """The head learns this many times as fast."""

    def mean(self, encoder: nn.Module, pieces: Tensor) -> None:
        """What a fresh network makes of the embeddings of the pieces."""
        super().mean(encoder, pieces)
        for prompt in _training(encoder, PromptVectors):
            network = _PromptEncoder(prompt.vectors.shape[1], recurrent=self.network == "lstm")
            parametrize.register_parametrization(prompt, "vectors", network.to(prompt.vectors.device))

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The vectors as they came out last, without the network."""
        for module in model.encoder.modules():
            if isinstance(module, PromptVectors) and parametrize.is_parametrized(module, "vectors"):
                parametrize.remove_parametrizations(module, "vectors", leave_parametrized=True)
        return model


class PrefixTuning(Prompting):
    """Train a few keys and values that every head of every block sees before the text: deeper than a prompt.

    They start as what the heads see of words of train, set aside so that the text is read nearly as without them. This
    is P-tuning v2, without a network that the vectors come out of.
    """

    paper: ClassVar[str] = "Prefix-Tuning, Li & Liang 2021, section 4; P-Tuning v2, Liu et al. 2022, section 3.2"

    def insertion(self) -> Prefix:
        """In every attention."""
        return Prefix(length=self.length)

    def mean(self, encoder: nn.Module, pieces: Tensor) -> None:
        """The keys and values of the pieces, read as one text."""
        listen(encoder, pieces, _training(encoder, PrefixVectors))


class _PromptEncoder(nn.Module):
    """Seeds (length, dim) to vectors (length, dim)."""

    def __init__(self, dim: int, *, recurrent: bool):
        super().__init__()
        half = max(1, dim // 2)
        self.recurrent = nn.LSTM(dim, half, num_layers=2, bidirectional=True) if recurrent else None
        self.layers = nn.Sequential(nn.Linear(2 * half if recurrent else dim, dim), nn.ReLU(), nn.Linear(dim, dim))

    def forward(self, seeds: Tensor) -> Tensor:
        with torch.autocast(seeds.device.type, enabled=False):  # LSTMs are not known in half precision everywhere
            return self.layers(seeds if self.recurrent is None else self.recurrent(seeds)[0])


def _training(encoder: nn.Module, kind: type[Part]) -> list[Part]:
    """The parts that have just been put in."""
    return [m for m in encoder.modules() if isinstance(m, kind) and all(p.requires_grad for p in m.parameters())]
