"""A task says what the network must answer: its head, its loss, how answers are read, and how they are scored.

A task never touches files or optimizers. Its class names travel in the checkpoint, so predictions are names and
label ids cannot swap on reload.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.choice import Choice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Window:
    """One row of the network's batch: a whole example, or the part of a long one that fits."""

    ids: np.ndarray
    """What the modality made of it: token ids (length,) int32, or pixels (3, height, width) uint8."""
    target: np.ndarray
    """Classification: () int64 class, or (classes,) float32 in {0, 1}. Tagging: (length,) int64, -100 where nothing
    is asked."""
    example: int
    """Which of the given inputs this came from."""
    lost: int = 0
    """Tokens of the example that no window holds."""


@dataclass(frozen=True)
class Decision:
    """How raw outputs become an answer; fitted on validation, saved with the model, used wherever it predicts."""

    temperature: float = 1.0
    """Logits are divided by this before the softmax (Guo et al. 2017, eq. 9)."""
    threshold: float = 0.5
    """Multi-label: a label is given from this probability upwards."""
    sure_from: float = 0.0
    """A prediction with less confidence than this is marked `unsure`."""
    offsets: tuple[float, ...] = ()
    """One class a text: what is added to the log-probability of each, in the order of the labels; empty for nothing."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "offsets", tuple(self.offsets))  # a saved one is a list


@dataclass(frozen=True)
class Prediction:
    """One answer, in names."""

    label: str | list[str]
    """The class; the list of labels (multi-label); one tag a word (tagging)."""
    confidence: float | None
    """In [0, 1]: the answer's calibrated probability (the mean over words, for tagging); None for a score."""
    unsure: bool
    """Whether the confidence lies below what the stated coverage asks for."""
    probabilities: dict[str, float] | None
    """Every class's probability; None for tagging."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(self.__dict__)


class Task(Choice):
    """What is asked of a network. Subclasses say how; the shelf is `tasks/`."""

    labels: tuple[str, ...] = ()
    """Class names, in the order of the network's outputs; filled in from the data."""

    token_level: ClassVar[bool] = False
    """Whether the head reads every token, or one pooled vector an example."""
    selection: ClassVar[str] = "accuracy"
    """The validation metric that early stopping and model selection look at; higher is better."""
    head: ClassVar[str | None] = None
    """The one head that answers it; None where any does that suits."""

    @property
    def decides(self) -> bool:
        """Whether scores mean little before the decision is fitted, in the middle of training too."""
        return False

    def inputs(self, given: Sequence[Any]) -> list[Any]:
        """What a user gives to be answered, as `windows` takes it.

        Raises:
            InputError: it is something else.
        """
        raise NotImplementedError

    def windows(self, modality: Any, inputs: Sequence[Any], labels: Sequence[Any] | None) -> Iterator[Window]:
        """Inputs (and their labels, where known) as the rows the network reads, in the order given.

        Args:
            modality: turns an input into arrays; a task of words asks for `Text`, others for any `Modality`.
            inputs: raw examples.
            labels: one an input.
        """
        raise NotImplementedError

    def asked(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What is answered and what was asked, one row an answer: (n, classes) and (n,), or (n, classes)."""
        return logits, targets

    def losses(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """The loss of each answer, (n,), as `asked` gives them. `smoothing` in [0, 1) is label smoothing."""
        raise NotImplementedError

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """The mean loss over what is asked: a scalar."""
        return self.losses(*self.asked(logits, targets), smoothing=smoothing).mean()

    def gather(self, logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of one window, the outputs that are answers and their targets; windows of one example are joined in order."""
        raise NotImplementedError

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], coverage: float) -> Decision:
        """The decision fitted on validation, so that a share of `coverage` in (0, 1] is answered as sure."""
        raise NotImplementedError

    def read(self, outputs: list[np.ndarray], decision: Decision) -> list[Prediction]:
        """Answers in names, one an example."""
        raise NotImplementedError

    def score(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> dict[str, Any]:
        """Every metric of this task, as plain JSON-able values."""
        raise NotImplementedError

    @property
    def separator(self) -> str | None:
        """What stands between the names of one row's answer in predictions.parquet; None where it is one name."""
        return None

    def cell(self, label: str | Sequence[str]) -> str:
        """An answer in names, as it stands in predictions.parquet."""
        return label if isinstance(label, str) else (self.separator or "|").join(label)

    def named(self, cell: str) -> str | list[str]:
        """The answer that `cell` wrote."""
        if self.separator is None:
            return cell
        return cell.split(self.separator) if cell else []

    def targets(self, labels: Sequence[Any]) -> Any:
        """Answers in names as numbers: positions in `labels`, one array or one for each example."""
        raise NotImplementedError

    def tally(self, truth: Sequence[Any], guess: Sequence[Any], chances: Sequence[Any] | None = None) -> np.ndarray:
        """What each row, given in names, adds to the sums that the `selection` metric is made of: (rows, k).

        Args:
            truth: what is right.
            guess: what was answered.
            chances: the probabilities of each row's answers, for metrics of their order.
        """
        raise NotImplementedError

    def tallied(self, sums: np.ndarray) -> np.ndarray:
        """Sums of tallies (..., k) as the `selection` metric (...)."""
        raise NotImplementedError


def coverage_threshold(confidences: np.ndarray, coverage: float) -> float:
    """The confidence that a share of `coverage` in (0, 1] reaches; 0 where everything is to be answered."""
    return 0.0 if coverage >= 1 else float(np.quantile(confidences, 1 - coverage))


def calibration_error(confidences: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, eq. 3): the mean gap of confidence and accuracy over equal bins.

    Example:
        >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
        0.4
    """
    which = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = (
        abs(confidences[which == b].mean() - correct[which == b].mean()) * (which == b).mean() for b in np.unique(which)
    )
    return round(float(sum(gaps)), 12)
