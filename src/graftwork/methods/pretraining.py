"""Learning the language before the task: what is minimised is a pretext's loss, on plain text."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

import graftwork.pretexts  # noqa: F401  puts every pretext on its shelf
from graftwork.examples import Batch, Examples
from graftwork.hardware import autocast
from graftwork.language import pieces_of
from graftwork.method import GradientMethod
from graftwork.model import TransferModel, evaluating
from graftwork.objective import Objective
from graftwork.pretext import Pieces, Pretext
from graftwork.pretexts.masked import Masked
from graftwork.schedule import Cosine, Schedule

VALIDATED = 2048
"""Windows that validation reads, evenly spread, always with the same gaps."""
_READ = 32  # windows at once; what is asked depends on it


class Pretraining(GradientMethod, abstract=True):
    """Answer a pretext on plain text; everything trains, the language-model head too."""

    name: ClassVar[str] = "pretraining"
    paper: ClassVar[str] = "BERT, Devlin et al. 2019, section 3.1; continued: Gururangan et al. 2020, sections 3 and 4"

    pretext: Pretext = Masked()
    """What is asked of the text."""
    lr: float = Field(default=1e-3, gt=0, lt=1)
    """Learning rate at its peak."""
    head_lr_factor: float = Field(default=1.0, gt=0)
    """The head learns this many times as fast."""
    batch_size: int = Field(default=32, ge=1)
    """Windows an optimizer step."""
    schedule: Schedule = Cosine()
    """How the rate falls after the warm-up."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target that is spread over all pieces."""
    dropout: float | None = Field(default=0.0, ge=0, lt=1)
    """Of the encoder; text that is read few times needs none."""
    head_start: Literal["probe", "random"] = "random"

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The pretext's loss."""
        return PretextObjective(self, model, train, weights)


class PretextObjective(Objective):
    """The mean cross-entropy, in nats, of the pieces that the pretext asks for; logits are computed for these alone."""

    def __init__(self, method: Pretraining, model: TransferModel, train: Examples, weights: list[Any]):
        super().__init__(method, model, train, weights)
        self.pretext, self.smoothing = method.pretext, method.label_smoothing
        self.pieces = pieces_of(model)

    def loss(self, batch: Batch) -> Tensor:
        """A scalar, in nats."""
        logits, answers = self._answered(batch)
        return F.cross_entropy(logits, answers, label_smoothing=self.smoothing) + self.penalty()

    def _answered(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return answered(self.model, self.pretext, batch.inputs["input_ids"], self.pieces)

    def scores(self, validation: Examples, precision: str) -> dict[str, float]:
        """As `pretext_scores`, on up to 2,048 windows."""
        return pretext_scores(self.model, self.pretext, self.pieces, validation, precision, most=VALIDATED)


def answered(model: TransferModel, pretext: Pretext, ids: Tensor, pieces: Pieces) -> tuple[Tensor, Tensor]:
    """Logits (answers, pieces) in fp32 of what a pretext asks of `ids` (batch, length); and what is right."""
    posed = pretext.posed(ids, pieces)
    states = model.encoder(**posed.inputs).last_hidden_state
    return model.head(states[posed.asked]).float(), posed.answers


@torch.no_grad()
def pretext_scores(
    model: TransferModel, pretext: Pretext, pieces: Pieces, texts: Examples, precision: str, *, most: int
) -> dict[str, float]:
    """`loss` and `log_likelihood` a piece in nats, `perplexity`, and `accuracy`, on `most` windows, evenly spread.

    What is asked is drawn from a seed of its own, so that the same is asked every time.
    """
    places = np.unique(np.linspace(0, len(texts) - 1, most).astype(np.int64))
    device = model.device
    total, right, count = torch.zeros((), device=device), torch.zeros((), device=device), 0
    forked = [device] if device.type == "cuda" else []
    with evaluating(model), autocast(device, precision), torch.random.fork_rng(devices=forked):
        for start in range(0, len(places), _READ):
            torch.manual_seed(start)
            batch = texts.batch(places[start : start + _READ]).to(device)
            logits, answers = answered(model, pretext, batch.inputs["input_ids"], pieces)
            total += F.cross_entropy(logits, answers, reduction="sum")
            right += (logits.argmax(dim=-1) == answers).sum()
            count += len(answers)
    loss = float(total) / count
    return {
        "log_likelihood": -loss, "loss": loss, "perplexity": float(np.exp(min(loss, 700.0))),
        "accuracy": float(right) / count,
    }  # fmt: skip
