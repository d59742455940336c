"""rank: which encoder suits this data, or which layer of one, before anything is trained.

Every score of `transferability` on the same rows of train, from one reading of each encoder.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork.choice import InputError
from graftwork.examples import tokenised
from graftwork.features import layer_states
from graftwork.hardware import Hardware, faster_precision
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.tasks import task_of
from graftwork.transferability import SCORES

if TYPE_CHECKING:
    from graftwork.data import Data

ROWS = 2000
"""Of train are read at most."""
BY = "probe"
"""What is ranked by: of the four, the one that asks the question that is meant."""


@dataclass(frozen=True)
class Ranked:
    """One encoder, or one layer of it, and how well it seems to suit the data. Every score: the higher the better."""

    model: str
    layer: str
    """`last`, `average` (of all layers), or the number of the block after which it is read; 0 is the embeddings."""
    scores: dict[str, float]
    """By name: `logme`, `h-score`, `neighbours` and `probe` (accuracies in [0, 1])."""
    seconds: float
    """Of reading the rows once (all layers of one encoder are read together), and of scoring."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def rank(
    data: Any,
    *,
    models: Sequence[str | Path] = ("minilm",),
    layers: bool = False,
    rows: int = ROWS,
    hardware: Hardware | dict[str, Any] | None = None,
) -> list[Ranked]:
    """Score encoders on data without training, the best first.

    Args:
        data: as `fit` takes it; one class a text. No validation or test row is read.
        models: embedded names, folders or hub ids.
        layers: whether every layer is scored, and the average of all, or the last alone: where could the encoder be
            cut?
        rows: of train at most.
        hardware: device and precision.

    Raises:
        InputError: the task has no single class a text, or something given cannot be used.
    """
    from graftwork.data import Data

    loaded: Data = Data.of(data)
    if loaded.task != "classification" or loaded.multi_label:
        raise InputError(
            "Encoders are ranked by how they part classes, so each text needs one class. Use graft advise."
        )
    machine = Hardware.of(hardware)
    some = loaded.some(rows, 1)
    found = [each for name in models for each in _of_model(str(name), some, layers, machine)]
    return sorted(found, key=lambda each: -each.scores[BY])


def _of_model(name: str, some: Data, layers: bool, hardware: Hardware) -> Iterator[Ranked]:
    model = TransferModel.pretrained(resolve(name), task_of(some)).to(hardware.torch_device())
    train = tokenised(some, "train", model.task, model.modality)
    classes = np.asarray(train.targets)
    start = time.perf_counter()
    precision = faster_precision(model.device.type)
    states = layer_states(model, train, np.arange(len(train)), precision)  # (blocks + 1, n, dim)
    read = time.perf_counter() - start
    asked = {"last": states[-1]}
    if layers:
        asked = {str(i): state for i, state in enumerate(states)} | {"average": states.mean(axis=0)}
    for layer, embeddings in asked.items():
        start = time.perf_counter()
        scores = {score: round(measure(embeddings, classes), 4) for score, measure in SCORES.items()}
        yield Ranked(name, layer, scores, round(read + time.perf_counter() - start, 2))
