"""When some classes are rare: other weights, other losses, other rows.

Each counts the rows of train, in the order of `labels`; none looks at validation or test.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from graftwork.choice import InputError
from graftwork.modifier import Effect, Modifier

if TYPE_CHECKING:
    from types import ModuleType

    from graftwork.examples import Examples
    from graftwork.model import TransferModel
    from graftwork.modifier import Criterion

log = logging.getLogger(__name__)

ONE_CLASS = frozenset({"one-class"})
_BORDER = 10  # neighbours of any class that tell whether a row lies at the border, in imbalanced-learn's own default
_SURE = 1e-6  # a probability nearer to 1 than this has no gradient: a power below 1 would have an infinite one


def _counts(model: TransferModel, train: Examples) -> np.ndarray:
    """Rows of each class, (classes,)."""
    return np.bincount(np.asarray(train.targets), minlength=len(model.task.labels))


# --- other weights, other losses ---


class ClassWeights(Modifier):
    """Let each row of a rare class count more, each of a common one less; on average over train a row counts 1.

    `inverse`: proportional to 1 / n_c, n_c being the rows of class c. `effective`: to (1 - beta) / (1 - beta^n_c), for
    rows of one class repeat one another, and beyond some 1 / (1 - beta) of them more rows say nothing new.
    """

    paper: ClassVar[str] = "King & Zeng 2001, section 4.2; Class-Balanced Loss, Cui et al. 2019, eq. 2"
    needs: ClassVar[frozenset[str]] = ONE_CLASS
    closed_form: ClassVar[bool] = True

    kind: Literal["inverse", "effective"] = "inverse"
    """By how many rows a class has, or by how many they effectively are."""
    beta: float = Field(default=0.999, ge=0, lt=1)
    """Of `effective`: at 0 all classes weigh alike, near 1 it is `inverse`."""

    def of(self, counts: np.ndarray) -> np.ndarray:
        """Rows of each class, (classes,), to the weight of a row of each; 0 where train has none."""
        present = np.maximum(counts, 1)
        effective = (1 - self.beta**present) / (1 - self.beta) if self.kind == "effective" else present
        weights = np.where(counts > 0, 1 / effective, 0.0)
        return weights * counts.sum() / (counts * weights).sum()

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """The loss of each answer times the weight of its class."""
        return _Weighted(torch.tensor(self.of(_counts(model, train)), dtype=torch.float32, device=model.device))

    def table(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same rows; what each counts, times the weight of its class."""
        return x, y, weight * self.of(np.bincount(y, weights=weight))[y]


class _Weighted(Effect):
    def __init__(self, weights: Tensor):
        self.class_weights = weights

    def criterion(self, inner: Criterion) -> Criterion:
        return lambda logits, targets: inner(logits, targets) * self.class_weights[targets]


class FocalLoss(Modifier):
    """Let answers that are already right with certainty count little, so that the hard ones, often rare, are learned.

    (1 - p)^gamma times the loss of each answer, p being the probability of the right class; with `class-weights`, which
    give the alpha of each class, it is eq. 5.
    """

    paper: ClassVar[str] = "Focal Loss for Dense Object Detection, Lin et al. 2017, eq. 4 and 5"
    needs: ClassVar[frozenset[str]] = ONE_CLASS

    gamma: float = Field(default=2.0, ge=0)
    """How quickly the easy ones fade; 0 is the plain loss."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """The factor on each answer."""
        return _Focal(self.gamma)


class _Focal(Effect):
    def __init__(self, gamma: float):
        self.gamma = gamma

    def criterion(self, inner: Criterion) -> Criterion:
        def focal(logits: Tensor, targets: Tensor) -> Tensor:
            right = logits.float().softmax(dim=-1).gather(1, targets.unsqueeze(1)).squeeze(1)
            return (1 - right).clamp(min=_SURE) ** self.gamma * inner(logits, targets)

        return focal


class LogitAdjustment(Modifier):
    """Train logits that need not learn how frequent a class is: they answer as if all classes were equally likely.

    While it trains, tau times the log of each class's share of train is added to its logit; afterwards no more. A class
    that train does not hold is taken to have one row.
    """

    paper: ClassVar[str] = "Long-Tail Learning via Logit Adjustment, Menon et al. 2021, eq. 10"
    needs: ClassVar[frozenset[str]] = ONE_CLASS

    tau: float = Field(default=1.0, ge=0)
    """How much of it: 1 is right for equal frequencies, less lies between these and those of train."""

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """What is added to the logits."""
        counts = np.maximum(_counts(model, train), 1)
        shift = self.tau * np.log(counts / counts.sum())
        return _Adjusted(torch.tensor(shift, dtype=torch.float32, device=model.device))


class _Adjusted(Effect):
    def __init__(self, shift: Tensor):
        self.shift = shift

    def criterion(self, inner: Criterion) -> Criterion:
        return lambda logits, targets: inner(logits.float() + self.shift, targets)


# --- other rows ---


class Resampling(Modifier, abstract=True):
    """Another number of rows of each class, drawn at random."""

    needs: ClassVar[frozenset[str]] = ONE_CLASS
    closed_form: ClassVar[bool] = True

    ratio: float = Field(default=1.0, gt=0, le=1)
    """Rows of the rarer class to rows of the more frequent one; 1 makes all equally frequent."""

    def wanted(self, counts: np.ndarray) -> np.ndarray:
        """Rows of each class, (classes,), to how many there are to be; 0 stays 0."""
        raise NotImplementedError

    def begin(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Effect:
        """Rows drawn anew for each epoch, always equally many."""
        return _Resampled(np.asarray(train.targets), self)

    def table(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows drawn, each once; one drawn k times counts k times as much.

        This is the same regression, and no copy of a row lands on the other side of a cross-validation's cut.
        """
        drawn = _Resampled(y, self).places(np.random.default_rng(seed))
        rows, times = np.unique(drawn, return_counts=True)
        counts = weight[rows] * times
        return x[rows], y[rows], counts / counts.mean()


class _Resampled(Effect):
    def __init__(self, classes: np.ndarray, choice: Resampling):
        counts = np.bincount(classes)
        self.rows = [np.flatnonzero(classes == k) for k in np.flatnonzero(counts)]
        self.wanted = choice.wanted(counts)[counts > 0]

    def places(self, generator: np.random.Generator) -> np.ndarray:
        """Of each class all rows as often as they fit into what is wanted, and of the rest each at most once more."""
        drawn = []
        for rows, wanted in zip(self.rows, self.wanted, strict=True):
            times, rest = divmod(int(wanted), len(rows))
            drawn += [np.tile(rows, times), generator.choice(rows, rest, replace=False)]
        return np.concatenate(drawn)


class OverSampling(Resampling):
    """Repeat rows of rare classes until each class has at least `ratio` times the rows of the largest."""

    paper: ClassVar[str] = "The Class Imbalance Problem, Japkowicz & Stephen 2002, random over-sampling"

    def wanted(self, counts: np.ndarray) -> np.ndarray:
        """No class less than it has."""
        enough = round(self.ratio * int(counts.max()))
        return np.where(counts > 0, np.maximum(counts, enough), 0)


class UnderSampling(Resampling):
    """Read fewer rows of common classes, other ones each epoch: at most those of the smallest divided by `ratio`.

    Epochs become short, and a method in closed form, which reads train once, never sees the rest.
    """

    paper: ClassVar[str] = "The Class Imbalance Problem, Japkowicz & Stephen 2002, random under-sampling"

    def wanted(self, counts: np.ndarray) -> np.ndarray:
        """No class more than it has."""
        return np.minimum(counts, round(int(counts[counts > 0].min()) / self.ratio))


class SMOTE(Modifier):
    """Make new rows of rare classes between the embeddings of neighbours of one class, for methods without steps.

    Each class with fewer than `ratio` times the rows of the largest is filled up; imbalanced-learn does it. A class
    with k rows or fewer takes fewer neighbours; one with a single row has none and stays as it is.
    """

    paper: ClassVar[str] = (
        "SMOTE, Chawla et al. 2002; Borderline-SMOTE, Han et al. 2005; SVM: Nguyen et al. 2011; ADASYN, He et al. 2008"
    )
    needs: ClassVar[frozenset[str]] = ONE_CLASS
    closed_form: ClassVar[bool] = True
    steps: ClassVar[bool] = False  # they read texts, and there is none to a made-up embedding

    kind: Literal["smote", "borderline-1", "borderline-2", "svm", "adasyn"] = "smote"
    """From all rows of the class; from those at the border (2: also towards other classes); from support vectors; or
    the more, the more neighbours are of other classes."""
    ratio: float = Field(default=1.0, gt=0, le=1)
    """Rows of the rarer class to rows of the largest; 1 makes all equally frequent."""
    k: int = Field(default=5, ge=1)
    """Neighbours of its own class to which a row may be joined."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Ask for imbalanced-learn before anything is computed."""
        _imbalanced_learn()

    def table(
        self, x: np.ndarray, y: np.ndarray, weight: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows, and after them the new ones; each of these counts what its class does on average."""
        counts = np.bincount(y)
        enough = round(self.ratio * int(counts.max()))
        few = [c for c in np.flatnonzero(counts) if counts[c] < enough]
        if alone := [int(c) for c in few if counts[c] == 1]:
            log.warning("smote leaves %d class(es) as they are: a single row has no neighbour.", len(alone))
        made_x, made_y = [x], [y]
        for k in sorted({min(self.k, int(counts[c]) - 1) for c in few} - {0}):  # classes that bear as many neighbours
            wanted = {int(c): enough for c in few if min(self.k, counts[c] - 1) == k}
            more_x, more_y = self._made(x, y, wanted, k, seed)
            made_x.append(more_x[len(x) :].astype(x.dtype))
            made_y.append(more_y[len(y) :])
        every = np.concatenate(made_y)
        each = np.bincount(y, weights=weight) / np.maximum(counts, 1)
        counting = np.concatenate([weight, each[every[len(y) :]]])
        return np.concatenate(made_x), every, counting / counting.mean()

    def _made(self, x: np.ndarray, y: np.ndarray, wanted: dict[int, int], k: int, seed: int) -> Any:
        """The rows and then new ones, of the classes `wanted` until there are so many."""
        makers = _imbalanced_learn()
        common: dict[str, Any] = {"sampling_strategy": wanted, "random_state": seed}
        border = common | {"k_neighbors": k, "m_neighbors": min(_BORDER, len(x) - 1)}
        if self.kind == "smote":
            maker = makers.SMOTE(k_neighbors=k, **common)
        elif self.kind == "adasyn":
            maker = makers.ADASYN(n_neighbors=k, **common)
        elif self.kind == "svm":
            maker = makers.SVMSMOTE(**border)
        else:
            maker = makers.BorderlineSMOTE(kind=self.kind, **border)
        try:
            return maker.fit_resample(x, y)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"smote of kind {self.kind!r} finds no place here: {error} Take kind 'smote'.") from error


def _imbalanced_learn() -> ModuleType:
    """Its over-samplers.

    Raises:
        InputError: it is not installed.
    """
    try:
        from imblearn import over_sampling
    except ImportError:
        raise InputError('smote needs imbalanced-learn. Install it with: pip install "graftwork[imbalance]"') from None
    return over_sampling
