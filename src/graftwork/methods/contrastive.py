"""Learning by comparing: texts of one class are brought together and others apart, in pairs, triplets or whole batches.

With few labels there are many more pairs than texts, and a comparison teaches the encoder what a class label alone does
not. All compare embeddings of unit length, z; the head is read off the encoder again before each validation. Where the
data says itself which texts are alike, in pairs or triplets, these are compared.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from graftwork.examples import Batch
from graftwork.method import GradientMethod
from graftwork.objective import Objective
from graftwork.regression import read_anew

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel

_TOGETHER = 4
"""Texts of one class that stand in a batch together: each has three positives."""


class Contrastive(GradientMethod, abstract=True):
    """What the methods that compare have in common."""

    needs: ClassVar[frozenset[str]] = frozenset({"one-class", "pooled"})
    reads_off: ClassVar[bool] = True

    lr: float = Field(default=1e-4, gt=0, lt=1)
    """Learning rate of the encoder's topmost block, at its peak."""
    layer_decay: float = Field(default=0.9, gt=0, le=1)
    """Each depth below the topmost learns at this times the rate of the one above it; 1 is one rate for all."""
    classification: float = Field(default=0.0, ge=0)
    """Weight of the head's own cross-entropy beside the comparison; at 0 the head is a regression, fitted anew before
    each validation."""

    @property
    def depth_factor(self) -> float:
        """`layer_decay`."""
        return self.layer_decay

    def compared(self, z: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch: embeddings of unit length (batch, dim) and classes (batch,) to a scalar."""
        raise NotImplementedError

    def drawn(self, classes: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        """One epoch's batches of rows, given the class of each row, (n,)."""
        return batches_of_classes(classes, self.batch_size, _TOGETHER, generator)

    def told(self, z: Tensor, alike: Tensor) -> Tensor:
        """The loss of rows that say themselves what is alike: embeddings (rows, texts, dim) to a scalar.

        Args:
            z: of unit length; of a pair two texts, of a triplet the anchor, the nearer and the farther one.
            alike: how alike pairs are, from 0 to 1: (rows,).
        """
        raise NotImplementedError

    def learned(self, alike: np.ndarray) -> np.ndarray:
        """Which rows that are so much alike, (n,), are learned from: (n,) bool."""
        return np.ones(len(alike), dtype=bool)

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The comparison, and the cross-entropy where it has a weight."""
        return (_Comparison if train.together == 1 else _Told)(self, model, train, weights)


class _Comparison(Objective):
    whole = True
    method: Contrastive

    def __init__(self, method: Contrastive, model: TransferModel, train: Examples, weights: list[Tensor]):
        super().__init__(method, model, train, weights)
        self.classes = np.asarray(train.targets)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.method.drawn(self.classes, np.random.default_rng(0)))

    def batches(self, seed: tuple[int, ...]) -> list[np.ndarray]:
        return self.method.drawn(self.classes, np.random.default_rng(seed))

    def loss(self, batch: Batch) -> Tensor:
        embeddings = self._embeddings(batch)
        loss = self.method.compared(F.normalize(embeddings.float(), dim=-1), batch.targets) + self.penalty()
        if self.method.classification:
            loss = loss + self.method.classification * self.answers([self.model.head(embeddings)], batch.targets)
        return loss

    def before_validation(self, embed: Callable[[np.ndarray], np.ndarray]) -> None:
        if not self.method.classification:
            read_anew(self.model, self.train, embed)


class _Told(Objective):
    """Of pairs and triplets that the data gives."""

    whole = True
    method: Contrastive

    def _places(self, seed: tuple[int, ...]) -> np.ndarray | None:
        rows = self.method.learned(np.asarray(self.train.targets[:: self.train.together]))
        return np.flatnonzero(np.repeat(rows, self.train.together))

    def loss(self, batch: Batch) -> Tensor:
        z = F.normalize(self._embeddings(batch).float(), dim=-1)
        rows = z.unflatten(0, (-1, self.train.together))  # (rows, texts, dim)
        return self.method.told(rows, batch.targets[:: self.train.together]) + self.penalty()


class Siamese(Contrastive):
    """Learn from pairs of texts whether they are of one class: as SetFit does, with pairs that do not explode.

    An epoch is `pairs` pairs for each text, all different, half of one class and half of two; or the pairs that the
    data gives, of which scores are shares between 0 and 1, or both pairs of each triplet.
    """

    compares: ClassVar[frozenset[str]] = frozenset({"scores", "classes", "triplets"})

    paper: ClassVar[str] = "SetFit, Tunstall et al. 2022, section 3; contrastive: Hadsell, Chopra & LeCun 2006, eq. 4"

    loss: Literal["cosine", "contrastive"] = "cosine"
    """`cosine`: (z1 z2 - y)^2 with y = 1 for one class, else 0. `contrastive`: y d^2 / 2 + (1 - y) max(0, margin -
    d)^2 / 2 of the distance d = ||z1 - z2||."""
    margin: float = Field(default=1.0, gt=0, le=2)
    """Of `contrastive`: pairs of two classes are pushed no further apart than this."""
    pairs: float = Field(default=4.0, gt=0)
    """Pairs an epoch for each text of train."""

    def compared(self, z: Tensor, targets: Tensor) -> Tensor:
        """Rows 0 and 1 are a pair, rows 2 and 3, and so on."""
        return self._of_pairs(z[0::2], z[1::2], (targets[0::2] == targets[1::2]).float())

    def told(self, z: Tensor, alike: Tensor) -> Tensor:
        """Of a triplet the nearer text is as the anchor, the farther one is not."""
        if z.shape[1] == 2:
            return self._of_pairs(z[:, 0], z[:, 1], alike)
        nearer, farther = (self._of_pairs(z[:, 0], z[:, i], torch.full_like(alike, 2.0 - i)) for i in (1, 2))
        return (nearer + farther) / 2

    def _of_pairs(self, one: Tensor, other: Tensor, same: Tensor) -> Tensor:
        if self.loss == "cosine":
            return ((one * other).sum(dim=-1) - same).square().mean()
        apart = _length(one - other)
        return ((same * apart.square() + (1 - same) * F.relu(self.margin - apart).square()) / 2).mean()

    def drawn(self, classes: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        """Batches of pairs, one row after the other."""
        pairs = distinct_pairs(classes, round(self.pairs * len(classes)), generator).reshape(-1)
        size = max(self.batch_size // 2, 1) * 2
        return [pairs[i : i + size] for i in range(0, len(pairs), size)]


class Triplet(Contrastive):
    """Learn that a text is nearer to one of its class than to one of another, on the pairs that are hard in a batch.

    d = ||z1 - z2|| is the distance; a batch holds four texts of each of its classes. Triplets that the data gives are
    taken as they are.
    """

    compares: ClassVar[frozenset[str]] = frozenset({"triplets"})

    paper: ClassVar[str] = (
        "FaceNet, Schroff et al. 2015, eq. 3; triplet network: Hoffer & Ailon 2015; batch-hard: Hermans et al. 2017, "
        "eq. 5"
    )

    loss: Literal["hinge", "softmax", "ranking"] = "hinge"
    """Of distances p to the positive and n to the negative. `hinge`: max(0, p - n + margin). `softmax`: the
    cross-entropy -log(exp(-p) / (exp(-p) + exp(-n))). `ranking`: max(0, s_n - s_p + margin) of cosines s."""
    mining: Literal["batch-hard", "semi-hard", "all"] = "batch-hard"
    """Per text the farthest positive and the nearest negative; per positive pair the nearest negative that is farther
    than the positive (the farthest, where none is); or every triplet."""
    margin: float = Field(default=0.3, gt=0, le=2)
    """By how much the negative is to be farther away."""

    def compared(self, z: Tensor, targets: Tensor) -> Tensor:
        """The mean over the triplets that were mined; 0 where a batch holds none."""
        anchor, positive, negative = mined(z.detach(), targets, self.mining)
        if not len(anchor):
            return z.sum() * 0
        return self._of_triplets(z[anchor], z[positive], z[negative])

    def told(self, z: Tensor, alike: Tensor) -> Tensor:
        """The mean over the triplets, none of them mined."""
        return self._of_triplets(*z.unbind(dim=1))

    def _of_triplets(self, a: Tensor, p: Tensor, n: Tensor) -> Tensor:
        if self.loss == "ranking":
            return F.relu((a * n).sum(dim=-1) - (a * p).sum(dim=-1) + self.margin).mean()
        difference = _length(a - p) - _length(a - n)
        return (F.relu(difference + self.margin) if self.loss == "hinge" else F.softplus(difference)).mean()


class MultipleNegatives(Contrastive):
    """Learn to find, among all texts of a batch, the one that is of the same class.

    Of pairs (a_i, b_i), each of one class: -log(exp(s a_i b_i) / sum_j exp(s a_i b_j)), the sum over b_i itself and the
    b_j of other classes. Of pairs that the data gives, those that are alike, the sum is over all b_j of the batch; of
    triplets over their farther texts, too.
    """

    compares: ClassVar[frozenset[str]] = frozenset({"classes", "triplets"})

    paper: ClassVar[str] = "Efficient Natural Language Response Suggestion, Henderson et al. 2017, section 4.4"

    scale: float = Field(default=20.0, gt=0)
    """What the similarities are multiplied by."""
    symmetric: bool = True
    """Whether b_i must find a_i as well."""

    def compared(self, z: Tensor, targets: Tensor) -> Tensor:
        """Rows 0 and 1 are a pair of one class, rows 2 and 3, and so on."""
        scores = self.scale * z[0::2] @ z[1::2].T  # (pairs, pairs)
        kin = targets[0::2].unsqueeze(1) == targets[1::2]
        scores = scores.masked_fill(kin & ~torch.eye(len(scores), dtype=torch.bool, device=z.device), -math.inf)
        return self._found(scores)

    def told(self, z: Tensor, alike: Tensor) -> Tensor:
        """Among the second texts of all rows, and the third."""
        return self._found(self.scale * z[:, 0] @ z[:, 1:].transpose(0, 1).flatten(0, 1).T)  # (rows, other texts)

    def learned(self, alike: np.ndarray) -> np.ndarray:
        """Pairs that are alike; every triplet."""
        return alike == 1

    def _found(self, scores: Tensor) -> Tensor:
        """That text i is found by row i, of scores (rows, texts), and the row by the text."""
        right = torch.arange(len(scores), device=scores.device)
        there = F.cross_entropy(scores, right)
        return (there + F.cross_entropy(scores[:, : len(scores)].T, right)) / 2 if self.symmetric else there

    def drawn(self, classes: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        """Batches of pairs of one class; rows without a partner are left out."""
        return batches_of_classes(classes, self.batch_size, 2, generator)


class SupervisedContrastive(Contrastive):
    """Learn to tell, from a batch, which texts are of one's own class: every one of them counts.

    The mean over texts i of -1/|P(i)| sum over p in P(i) of log(exp(z_i z_p / t) / sum over a != i of exp(z_i z_a /
    t)), where P(i) are the others of its class.
    """

    paper: ClassVar[str] = (
        "Supervised Contrastive Learning, Khosla et al. 2020, eq. 2; with cross-entropy: Gunel et al. 2021"
    )

    temperature: float = Field(default=0.1, gt=0)
    """t: the lower, the more the nearest of the others count."""
    classification: float = Field(default=1.0, ge=0)
    """Weight of the head's own cross-entropy beside the comparison; at 0 the head is a regression, fitted anew before
    each validation."""

    def compared(self, z: Tensor, targets: Tensor) -> Tensor:
        """Over the rows that have another of their class in the batch; 0 where there is none."""
        himself = torch.eye(len(z), dtype=torch.bool, device=z.device)
        kin = (targets.unsqueeze(1) == targets) & ~himself  # (batch, batch)
        logs = F.log_softmax((z @ z.T / self.temperature).masked_fill(himself, -math.inf), dim=1)
        count = kin.sum(dim=1)
        each = -logs.masked_fill(~kin, 0).sum(dim=1) / count.clamp(min=1)
        return each.sum() / (count > 0).sum().clamp(min=1)


def _length(vectors: Tensor) -> Tensor:
    """The length of each row, (n,), with a gradient of 0 where it is 0."""
    return vectors.square().sum(dim=-1).clamp(min=1e-12).sqrt()


def mined(z: Tensor, targets: Tensor, mining: str) -> tuple[Tensor, Tensor, Tensor]:
    """Places of anchors, positives and negatives, (triplets,) each, among embeddings (batch, dim) of unit length."""
    distance = (2 - 2 * z @ z.T).clamp(min=0).sqrt()  # (batch, batch)
    same = targets.unsqueeze(1) == targets
    positive = same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    if mining == "batch-hard":
        anchor = torch.nonzero(positive.any(dim=1) & ~same.all(dim=1)).squeeze(1)
        farthest = distance.masked_fill(~positive, -1).argmax(dim=1)
        nearest = distance.masked_fill(same, math.inf).argmin(dim=1)
        return anchor, farthest[anchor], nearest[anchor]
    if mining == "all":
        anchor, other, negative = torch.nonzero(positive.unsqueeze(2) & ~same.unsqueeze(1), as_tuple=True)
        return anchor, other, negative
    anchor, other = torch.nonzero(positive & ~same.all(dim=1, keepdim=True), as_tuple=True)
    away = distance[anchor].masked_fill(same[anchor], -1)  # (pairs, batch)
    farther = away > distance[anchor, other].unsqueeze(1)
    nearest = away.masked_fill(~farther, math.inf).argmin(dim=1)
    return anchor, other, torch.where(farther.any(dim=1), nearest, away.argmax(dim=1))


def batches_of_classes(
    classes: np.ndarray, batch_size: int, together: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """One epoch in batches whose rows come `together` at a time from one class; every such group once, in random order.

    A class whose rows are not a multiple of `together` fills its last group with others of its rows; a class of a
    single row has nobody to be compared with and is left out.
    """
    groups: list[np.ndarray] = []
    for rows in _by_class(classes):
        if len(rows) < 2:
            continue
        order = generator.permutation(rows)
        missing = -len(order) % together
        order = np.concatenate([order, np.resize(order, missing)])  # from the front: never a row with itself, but for
        groups += list(order.reshape(-1, together))  # classes that are smaller than a group
    size = max(batch_size // together, 2)
    shuffled = [groups[i] for i in generator.permutation(len(groups))]
    return [np.concatenate(shuffled[i : i + size]) for i in range(0, len(shuffled), size)]


def distinct_pairs(classes: np.ndarray, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """At most `wanted` different pairs of rows, half of one class and half of two, in random order: (pairs, 2).

    Fewer where there are not so many. No list of all pairs is made: BANKING77 with ten texts a class has 296,065.
    """
    draw = random.Random(int(generator.integers(2**63)))
    counts = np.bincount(classes)
    possible = int((counts * (counts - 1) // 2).sum())
    every = len(classes) * (len(classes) - 1) // 2
    positive = min(possible, -(-wanted // 2))
    negative = min(every - possible, wanted - positive)
    pairs = list(_positive_pairs(classes, sorted(draw.sample(range(possible), positive))))
    seen: set[tuple[int, int]] = set()
    while len(seen) < negative:
        one, other = sorted(draw.sample(range(len(classes)), 2))
        if classes[one] != classes[other]:
            seen.add((one, other))
    found = np.array([*pairs, *sorted(seen)], dtype=np.int64).reshape(-1, 2)
    return found[generator.permutation(len(found))]


def _positive_pairs(classes: np.ndarray, numbers: list[int]) -> Iterator[tuple[int, int]]:
    """The pairs of one class with these numbers, rising, when all are counted class by class."""
    begin, waiting = 0, iter(numbers)
    number = next(waiting, None)
    for rows in _by_class(classes):
        end = begin + len(rows) * (len(rows) - 1) // 2
        while number is not None and number < end:
            j = (1 + math.isqrt(1 + 8 * (number - begin))) // 2  # pairs (i, j) with i < j, ordered by j
            yield int(rows[number - begin - j * (j - 1) // 2]), int(rows[j])
            number = next(waiting, None)
        begin = end


def _by_class(classes: np.ndarray) -> list[np.ndarray]:
    """The rows of each class that occurs."""
    return [np.flatnonzero(classes == k) for k in np.unique(classes)]
