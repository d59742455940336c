"""Learning the language, or to see, before the task: what is minimised is a pretext's loss, on raw examples."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

import graftwork.pretexts  # noqa: F401  puts every pretext on its shelf
from graftwork.examples import Batch, Examples
from graftwork.hardware import autocast
from graftwork.language import LanguageNetwork, pieces_of
from graftwork.method import GradientMethod
from graftwork.model import TransferModel, evaluating
from graftwork.objective import Objective
from graftwork.pretext import PicturePretext, Pieces, Pretext
from graftwork.pretexts.masked import Masked
from graftwork.rebuilding import rebuilt
from graftwork.schedule import Cosine, Schedule

VALIDATED = 2048
"""Windows that validation reads, evenly spread, always with the same gaps."""
_READ = 32  # windows at once; what is asked depends on it


class Pretraining(GradientMethod, abstract=True):
    """Answer a pretext on plain text or pictures; everything trains, the language-model head or the decoder too."""

    name: ClassVar[str] = "pretraining"
    paper: ClassVar[str] = "BERT, Devlin et al. 2019, section 3.1; continued: Gururangan et al. 2020, sections 3 and 4"

    pretext: Pretext = Masked()
    """What is asked of the text, or of the pictures."""
    lr: float = Field(default=1e-3, gt=0, lt=1)
    """Learning rate at its peak."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """The head learns this many times as fast."""
    batch_size: int = Field(default=32, ge=1)
    """Windows, or pictures, an optimizer step."""
    schedule: Schedule = Cosine()
    """How the rate falls after the warm-up."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all pieces."""
    dropout: float | None = Field(default=0.0, ge=0, lt=1)
    """Of the encoder; text that is read few times needs none."""
    head_start: Literal["probe", "random"] = "random"

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Everything trains; a pretext that compares passages gets what tells them apart."""
        super().prepare(model, train)
        if self.pretext.compares:
            assert isinstance(model.head, LanguageNetwork)
            model.head.relate(model.encoder.config.hidden_size, model.device)  # type: ignore[union-attr]

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The pretext's loss."""
        kind = RebuildingObjective if isinstance(self.pretext, PicturePretext) else PretextObjective
        return kind(self, model, train, weights)


class PretextObjective(Objective):
    """The mean cross-entropy, in nats, of the pieces that the pretext asks for; logits are computed for these alone."""

    def __init__(self, method: Pretraining, model: TransferModel, train: Examples, weights: list[Any]):
        super().__init__(method, model, train, weights)
        self.pretext, self.smoothing = method.pretext, method.label_smoothing
        self.pieces = pieces_of(model)

    def loss(self, batch: Batch) -> Tensor:
        """A scalar, in nats; where passages are compared, the sum of both questions' (Devlin et al. 2019, A.2)."""
        found = answered(self.model, self.pretext, batch.inputs["input_ids"], self.pieces)
        loss = F.cross_entropy(found.logits, found.answers, label_smoothing=self.smoothing)
        if found.apart is not None:
            loss = loss + F.cross_entropy(found.relation, found.apart)
        return loss + self.penalty()

    def scores(self, validation: Examples, precision: str) -> dict[str, float]:
        """As `pretext_scores`, on up to 2,048 windows."""
        return pretext_scores(self.model, self.pretext, self.pieces, validation, precision, most=VALIDATED)


class RebuildingObjective(Objective):
    """The mean squared difference of the numbers that are to be rebuilt (MAE, He et al. 2022, section 3)."""

    def __init__(self, method: Pretraining, model: TransferModel, train: Examples, weights: list[Any]):
        super().__init__(method, model, train, weights)
        assert isinstance(method.pretext, PicturePretext)
        self.pretext = method.pretext

    def loss(self, batch: Batch) -> Tensor:
        """A scalar."""
        found, right = rebuilt_patches(self.model, self.pretext, batch)
        return F.mse_loss(found, right) + self.penalty()

    def scores(self, validation: Examples, precision: str) -> dict[str, float]:
        """As `rebuilding_scores`, on up to 2,048 pictures."""
        return rebuilding_scores(self.model, self.pretext, validation, precision, most=VALIDATED)


def rebuilt_patches(model: TransferModel, pretext: PicturePretext, batch: Batch) -> tuple[Tensor, Tensor]:
    """What a model makes of the patches that a pretext asks for, and what is right: each (asked, numbers) in fp32."""
    shown = pretext.shown(batch.inputs["pixel_values"], model.encoder.config.patch_size)  # type: ignore[union-attr]
    return rebuilt(model, shown)[shown.asked], shown.answers[shown.asked]


@torch.no_grad()
def rebuilding_scores(
    model: TransferModel, pretext: PicturePretext, pictures: Examples, precision: str, *, most: int
) -> dict[str, float]:
    """`loss`, and the share of the numbers' variance that is `explained`, on `most` pictures, evenly spread.

    What is asked is drawn from a seed of its own, so that the same is asked every time.
    """
    places, device = _spread(pictures, most), model.device
    total, sums, squares = (torch.zeros((), device=device, dtype=torch.float64) for _ in range(3))
    count = 0
    with _asking(model, precision):
        for start in range(0, len(places), _READ):
            torch.manual_seed(start)
            found, right = rebuilt_patches(model, pretext, pictures.batch(places[start : start + _READ]).to(device))
            total += F.mse_loss(found, right, reduction="sum")
            sums, squares, count = sums + right.sum(), squares + right.square().sum(), count + right.numel()
    variance = float(squares) / count - (float(sums) / count) ** 2
    loss = float(total) / count
    return {"explained": 1 - loss / max(variance, 1e-12), "loss": loss}


def _spread(examples: Examples, most: int) -> np.ndarray:
    """At most so many places, evenly."""
    return np.unique(np.linspace(0, len(examples) - 1, most).astype(np.int64))


@contextmanager
def _asking(model: TransferModel, precision: str) -> Iterator[None]:
    """While open, a model answers, and torch's generator is left as it was."""
    forked = [model.device] if model.device.type == "cuda" else []
    with evaluating(model), autocast(model.device, precision), torch.random.fork_rng(devices=forked):
        yield


@dataclass(frozen=True)
class Answered:
    """What a model says to a pretext, and what is right."""

    logits: Tensor
    """(answers, pieces) in fp32."""
    answers: Tensor
    """Ids, (answers,)."""
    relation: Tensor
    """(batch, 2) in fp32, where passages are compared; else (0, 2)."""
    apart: Tensor | None
    """As in `Posed`."""


def answered(model: TransferModel, pretext: Pretext, ids: Tensor, pieces: Pieces) -> Answered:
    """What a model says to what a pretext asks of `ids`, (batch, length)."""
    posed = pretext.posed(ids, pieces)
    states = model.encoder(**posed.inputs).last_hidden_state
    relation = states.new_zeros((0, 2))
    if posed.apart is not None:
        assert isinstance(model.head, LanguageNetwork)
        assert model.head.relation is not None
        relation = model.head.relation(states[:, 0])
    return Answered(model.head(states[posed.asked]).float(), posed.answers, relation.float(), posed.apart)


@torch.no_grad()
def pretext_scores(
    model: TransferModel, pretext: Pretext, pieces: Pieces, texts: Examples, precision: str, *, most: int
) -> dict[str, float]:
    """`loss` and `log_likelihood` a piece in nats, `perplexity`, and `accuracy`, on `most` windows, evenly spread.

    Where passages are compared also `relation_accuracy`, of telling whether they follow one another. What is asked is
    drawn from a seed of its own, so that the same is asked every time.
    """
    places, device = _spread(texts, most), model.device
    total, right, related = (torch.zeros((), device=device) for _ in range(3))
    count = 0
    with _asking(model, precision):
        for start in range(0, len(places), _READ):
            torch.manual_seed(start)
            batch = texts.batch(places[start : start + _READ]).to(device)
            found = answered(model, pretext, batch.inputs["input_ids"], pieces)
            total += F.cross_entropy(found.logits, found.answers, reduction="sum")
            right += (found.logits.argmax(dim=-1) == found.answers).sum()
            count += len(found.answers)
            if found.apart is not None:
                related += (found.relation.argmax(dim=-1) == found.apart).sum()
    loss = float(total) / count
    scores = {
        "log_likelihood": -loss, "loss": loss, "perplexity": float(np.exp(min(loss, 700.0))),
        "accuracy": float(right) / count,
    }  # fmt: skip
    return scores | ({"relation_accuracy": float(related) / len(places)} if pretext.compares else {})
