"""Episodes: small tasks drawn from data of many classes, each to be learned from a few rows a class.

What learns from them (`methods/meta.py`) and what is measured with them (`few_shot`) share this one definition, and the
classifier that needs no training: the nearest mean of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from graftwork.choice import InputError
from graftwork.examples import Examples, tokenised
from graftwork.features import embeddings
from graftwork.model import TransferModel, evaluating
from graftwork.tasks import task_of

if TYPE_CHECKING:
    from graftwork.data import Data

Metric = Literal["cosine", "euclidean"]

Inputs = dict[str, Tensor]

SCALE = 20.0
"""What cosines are multiplied by, where nothing else is said: the inverse of the 0.05 that MiniLM was pretrained at."""

_PARTS = 4
"""In which an episode is read, each of texts of about one length: its rows are drawn without a look at theirs."""


class Episodes:
    """Tasks of `ways` classes with `shots` rows to learn each from and `queries` to be asked about.

    Args:
        classes: the class of each row, (n,). A class with fewer than `shots` + `queries` rows is never drawn.
        ways: classes an episode.
        shots: rows a class in the support.
        queries: rows a class in the query.

    Raises:
        InputError: there are not so many classes with so many rows.
    """

    def __init__(self, classes: np.ndarray, *, ways: int, shots: int, queries: int):
        self.ways, self.shots, self.queries = ways, shots, queries
        found = (np.flatnonzero(classes == k) for k in np.unique(classes))
        self.rows = [rows for rows in found if len(rows) >= shots + queries]
        if len(self.rows) < ways:
            raise InputError(
                f"Episodes of {ways} classes with {shots} + {queries} rows are asked for, and the data has "
                f"{len(self.rows)} classes with so many. Give fewer ways, shots or queries."
            )

    @property
    def size(self) -> int:
        """Rows an episode."""
        return self.ways * (self.shots + self.queries)

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One episode's rows, all different, a class a line: (ways, shots + queries), the support first."""
        chosen = generator.choice(len(self.rows), self.ways, replace=False)
        return np.stack([generator.choice(self.rows[k], self.shots + self.queries, replace=False) for k in chosen])


class Episode:
    """The rows of one episode as a model reads them.

    Args:
        model: what reads.
        inputs: of all rows, class by class, each (ways * (shots + queries), length).
        ways: classes.
        shots: how many rows of each class are the support; the others are the query.
    """

    def __init__(self, model: TransferModel, inputs: Inputs, ways: int, shots: int):
        self.encoder, self.ways = model.encoder, ways
        self._reader, self._inputs = _Reader(model), {k: v.unflatten(0, (ways, -1)) for k, v in inputs.items()}
        columns = next(iter(self._inputs.values())).shape[1]
        self.support, self.query = range(shots), range(shots, columns)

    def read(self, columns: range, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """Embeddings (ways, columns, dim) of some rows of each class; by other `weights` of the encoder, by name."""
        rows = {name: v[:, columns.start : columns.stop].flatten(0, 1) for name, v in self._inputs.items()}
        others = {f"model.encoder.{name}": weight for name, weight in (weights or {}).items()}
        return functional_call(self._reader, others, (rows,)).unflatten(0, (self.ways, -1))


class _Reader(nn.Module):
    """A model's embeddings as a forward pass, so that they can be computed with other weights."""

    def __init__(self, model: TransferModel):
        super().__init__()
        self.model = model

    def forward(self, inputs: Inputs) -> Tensor:
        """(batch, dim)."""
        if "attention_mask" not in inputs:  # nothing is padded
            return self.model.embed(inputs)
        lengths = inputs["attention_mask"].sum(dim=1)
        order = lengths.argsort(stable=True)
        parts = [
            self.model.embed({name: v[part, : int(lengths[part[-1]])] for name, v in inputs.items()})
            for part in order.chunk(_PARTS)
        ]
        return torch.cat(parts)[order.argsort()]


@dataclass(frozen=True)
class Prototypes:
    """A classifier over embeddings: logits = `seen(z)` W^T + b.

    `euclidean`: W = 2 c, b = -||c||^2 with c the mean of a class, whose softmax is that of -||z - c||^2 (Snell et al.
    2017, eq. 2 and 8). `cosine`: W = scale * c, b = 0, with z and c of unit length.
    """

    metric: Metric
    weight: Tensor
    """(ways, dim)"""
    bias: Tensor
    """(ways,)"""

    @classmethod
    def of(cls, support: Tensor, metric: Metric, scale: float = SCALE) -> Prototypes:
        """The means of embeddings (ways, shots, dim), as a linear classifier."""
        means = seen(support, metric).mean(dim=1)
        if metric == "cosine":
            weight = scale * F.normalize(means, dim=-1)
            return cls(metric, weight, weight.new_zeros(len(weight)))
        return cls(metric, 2 * means, -means.square().sum(dim=-1))

    def __call__(self, z: Tensor) -> Tensor:
        """Logits (..., ways) of embeddings (..., dim)."""
        return F.linear(seen(z, self.metric), self.weight, self.bias)


def seen(z: Tensor, metric: Metric) -> Tensor:
    """Embeddings as a metric sees them: of unit length for `cosine`."""
    return F.normalize(z.float(), dim=-1) if metric == "cosine" else z.float()


@dataclass(frozen=True)
class FewShot:
    """How well classes are told apart after a few rows of each."""

    mean: float
    """Accuracy over all episodes, in [0, 1]."""
    half_width: float
    """Half the width of its 95 % interval, by Student's t over episodes: what other episodes of these classes may
    give. Other classes may give more or less than that."""
    accuracies: np.ndarray
    """Of each episode, (episodes,); those of two models over the same data and seed are of the same episodes."""

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.half_width:.1f} %"


def few_shot(
    model: TransferModel,
    data: Data,
    split: str = "train",
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    metric: Metric = "cosine",
    answers: Callable[[Episode], Tensor] | None = None,
) -> FewShot:
    """Accuracy on episodes of classes that `model` need never have seen; it is left as it is.

    Args:
        model: of which the encoder and its pooling are asked, not the head.
        data: texts of one class each.
        split: which rows of it.
        ways: classes an episode.
        shots: rows a class that are learned from.
        queries: rows a class that are asked.
        episodes: how many are drawn, at least 2.
        seed: of the draws; which episodes come depends on it and the rows' classes alone.
        metric: by which the nearest class mean is the answer, the cosine or the Euclidean distance.
        answers: how an episode is answered otherwise, logits (ways, queries, ways): `MAML().answers` takes its steps
            on the support first. It takes as long as so many training steps.

    Raises:
        InputError: not one class a text, a head that reads no pooled vector, or too few classes or rows.
    """
    from scipy.stats import t

    if data.task != "classification" or data.multi_label:
        raise InputError(f"Few-shot accuracy is of one class a text; the data asks for {data.task}. Give other data.")
    if model.reads_tokens or model.head.reads_layers:
        raise InputError("Episodes need one vector a text. Give a classifier whose head reads the pooled embedding.")
    if episodes < 2:
        raise InputError(f"An interval needs at least 2 episodes; got {episodes}.")
    examples = tokenised(data, split, task_of(data), model.modality)
    drawn = Episodes(np.asarray(examples.targets), ways=ways, shots=shots, queries=queries)
    generator = np.random.default_rng(seed)
    rows = (drawn.draw(generator) for _ in range(episodes))
    found = (
        _answered(model, examples, rows, shots, answers) if answers else _nearest(model, examples, rows, shots, metric)
    )
    truth = torch.arange(ways).unsqueeze(1)
    accuracies = np.array([float((logits.argmax(dim=-1).cpu() == truth).float().mean()) for logits in found])
    half = t.ppf(0.975, episodes - 1) * accuracies.std(ddof=1) / episodes**0.5
    return FewShot(float(accuracies.mean()), float(half), accuracies)


def _nearest(
    model: TransferModel, examples: Examples, episodes: Iterator[np.ndarray], shots: int, metric: Metric
) -> Iterator[Tensor]:
    """Logits (ways, queries, ways) of each episode by its class means; every row is read once for all episodes."""
    z = torch.from_numpy(np.array(embeddings(model, examples)))
    for rows in episodes:
        states = z[torch.from_numpy(rows)]  # (ways, shots + queries, dim)
        yield Prototypes.of(states[:, :shots], metric)(states[:, shots:])


def _answered(
    model: TransferModel,
    examples: Examples,
    episodes: Iterator[np.ndarray],
    shots: int,
    answers: Callable[[Episode], Tensor],
) -> Iterator[Tensor]:
    """Logits (ways, queries, ways) of each episode, as `answers` gives them."""
    with evaluating(model):
        for rows in episodes:
            batch = examples.batch(rows.reshape(-1)).to(model.device)
            yield answers(Episode(model, batch.inputs, len(rows), shots))
