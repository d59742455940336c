"""How much of the encoder is used: what its topmost blocks learned last is not what every task asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from graftwork import layers
from graftwork.choice import InputError
from graftwork.features import layer_states
from graftwork.hardware import faster_precision
from graftwork.method import Method
from graftwork.regression import start_head
from graftwork.transferability import probe

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel

_LABELS = 8  # of several labels a text, those that are looked at


class LowerLayers(Method):
    """Cut the encoder off where a probe reads best: smaller, faster, and better where the top knows another task.

    The first stage of a recipe: `lower-layers,linear-probe`, or `lower-layers,full-fine-tuning`. By itself it leaves
    a quick probe on what is kept.
    """

    paper: ClassVar[str] = "Tenney, Das & Pavlick 2019, BERT Rediscovers the Classical NLP Pipeline; Sajjad et al. 2023"
    gradient: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"pooled"})

    blocks: int | None = Field(default=None, ge=1)
    """How many of the lowest blocks are kept; by default as many as serve a cross-validated probe on train best."""
    rows: int = Field(default=2000, ge=20)
    """Of train that the probe reads, at most."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Nothing trains by gradient."""
        super().prepare(model, train)
        if model.head.reads_layers:
            raise InputError(f"The head {model.head_choice.name!r} reads the layers that lower-layers cuts off.")
        if not layers.has_single_stack(model.encoder):
            raise InputError("This encoder's blocks share their weights or stand in two stacks: it cannot be cut.")
        model.encoder.requires_grad_(False)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The encoder, cut, with a quick probe as its head."""
        count = layers.block_count(model.encoder)
        kept = self.blocks or self.best(model, train)
        if kept > count:
            raise InputError(f"lower-layers is to keep {kept} blocks, and the encoder has {count}. Give at most that.")
        layers.keep_lowest(model.encoder, kept)
        if model.head.fresh:
            start_head(model, train)
        return model

    def best(self, model: TransferModel, train: Examples) -> int:
        """The depth, in blocks, at which a probe in three-fold cross-validation does best."""
        places = np.sort(np.random.default_rng(0).permutation(len(train))[: self.rows])
        states = layer_states(model, train, places, faster_precision(model.device.type))
        targets = np.asarray(train.targets[places])
        return 1 + int(np.argmax([_score(state, targets) for state in states[1:]]))


def _score(states: np.ndarray, targets: np.ndarray) -> float:
    """Accuracy of a probe on rows held out; of several labels a text, the mean over the most frequent."""
    if targets.ndim == 1:
        return probe(states, targets)
    often = np.argsort(-targets.sum(axis=0), kind="stable")[:_LABELS]
    asked = [targets[:, k] for k in often if 3 <= targets[:, k].sum() <= len(targets) - 3]
    return float(np.mean([probe(states, answers) for answers in asked])) if asked else 0.0
