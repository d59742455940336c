"""Adapting to a domain of which only texts are known: source rows have labels, target rows have none.

What is validated is validated on source rows: nobody knows the target's labels, so nothing here may be chosen by them.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork import domain_classifier, layers
from graftwork.choice import InputError
from graftwork.evaluate import outputs
from graftwork.examples import Batch, Examples, Joined, passes, tokenised
from graftwork.features import embeddings
from graftwork.head import Head
from graftwork.heads.linear import LinearNetwork
from graftwork.heads.stacked import Stacked, StackedNetwork
from graftwork.method import Method, ParamGroup
from graftwork.methods.finetune import FullFineTuning, TopLayers
from graftwork.methods.probe import LinearProbe
from graftwork.model import pool
from graftwork.objective import Objective

if TYPE_CHECKING:
    from graftwork.model import TransferModel

log = logging.getLogger(__name__)


class DomainAdaptation(FullFineTuning, abstract=True):
    """What the methods of this file have in common: full fine-tuning, and target texts besides."""

    needs: ClassVar[frozenset[str]] = frozenset({"target", "pooled"})

    blocks: int | None = Field(default=None, ge=0)
    """How many of the topmost blocks train; 0 trains what stands on the encoder alone; by default all of it."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """As full fine-tuning; or with the topmost blocks alone."""
        super().prepare(model, train)
        if self.blocks is not None:
            layers.train_top(model.encoder, self.blocks)

    def gap(self, model: TransferModel, source: Tensor, target: Tensor, fraction: float) -> Tensor:
        """What a step adds to the loss, a scalar, of embeddings (n, dim) and (m, dim), at a share of the budget.

        They are brought to unit length and multiplied by the root of their width, so that coordinates are near 1
        whatever the encoder.
        """
        return source.new_zeros(())


def target_of(model: TransferModel, train: Examples) -> Examples:
    """The target texts that stand beside `train`, as `model` reads them; what they ask for is nothing."""
    return tokenised(train.data, "target", model.task, model.modality)


# --- making source and target alike ---


class Alignment(DomainAdaptation, abstract=True):
    """Methods that add to the task's loss how far what the encoder says of source and target lies apart.

    Each step reads as many target rows, at random, as source rows.
    """

    weight: float = Field(default=1.0, ge=0)
    """How much the gap counts; at 0 this is full fine-tuning, bit for bit."""

    def reads(self, model: TransferModel, train: Examples) -> Examples:
        """The source rows, and those of the target after them, where there is something to learn of them."""
        return Beside(train, target_of(model, train)) if self.weight else train

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The task's loss on source rows, and the gap."""
        if not isinstance(train, Beside):
            return super().objective(model, train, weights)
        return _TwoDomains(self, model, train, weights)


class Dann(Alignment):
    """Learn embeddings that answer the task and from which no classifier can tell the domain.

    A domain classifier (one hidden layer) learns to tell source from target; on its gradient's way into the encoder the
    sign is turned, and it is multiplied by lambda = weight * (2 / (1 + exp(-gamma p)) - 1), p being the share of the
    budget that is spent: at first the classifier learns alone.
    """

    name: ClassVar[str] = "dann"
    paper: ClassVar[str] = "Domain-Adversarial Training of Neural Networks, Ganin et al. 2016, eq. 9-18, section 5.2.2"
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "weight": (0.01, 0.03, 0.1, 0.3, 1.0)}

    weight: float = Field(default=1.0, ge=0)
    """The reversed gradient's factor lambda at the end; at 0 this is full fine-tuning, bit for bit."""
    gamma: float = Field(default=10.0, gt=0)
    """How soon lambda rises."""
    hidden: int = Field(default=100, ge=1)
    """Width of the domain classifier's hidden layer."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """There is a domain classifier, too, with small random weights."""
        super().prepare(model, train)
        if self.weight:
            net = nn.Sequential(nn.Linear(model.width, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 1))
            model.domain = net.to(model.device)

    def param_groups(self, model: TransferModel) -> list[ParamGroup]:
        """The domain classifier, too, at the rate of the head."""
        groups = super().param_groups(model)
        if self.weight:
            own = list(model.get_submodule("domain").parameters())
            groups += self._split("domain classifier", own, self.lr * self.head_lr_factor, set())
        return groups

    def strength(self, fraction: float) -> float:
        """Lambda at a share of the budget (eq. 14): 0 at first, near `weight` at last."""
        return self.weight * (2 / (1 + math.exp(-self.gamma * fraction)) - 1)

    def gap(self, model: TransferModel, source: Tensor, target: Tensor, fraction: float) -> Tensor:
        """The domain classifier's cross-entropy, the mean of both domains' means; its gradient is reversed."""
        z = Reversal.apply(torch.cat([source, target]), self.strength(fraction))
        return domain_loss(model.get_submodule("domain")(z).squeeze(-1), len(source))

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The model without the domain classifier."""
        if self.weight:
            del model.domain
        return super().finish(model, train)


def domain_loss(logits: Tensor, source: int) -> Tensor:
    """The binary cross-entropy of log odds (n,) for the target, the first `source` of them being of the source.

    Both domains count alike; a scalar.
    """
    truth = (torch.arange(len(logits), device=logits.device) >= source).float()
    losses = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
    return (losses[:source].mean() + losses[source:].mean()) / 2


class Reversal(torch.autograd.Function):
    """What it is given; its gradient, times minus a factor (Ganin et al. 2016, eq. 16-17)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`x` itself."""
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """-factor times the gradient."""
        return -ctx.factor * gradient, None


class Coral(Alignment):
    """Learn embeddings whose covariance is the same in source and target.

    The gap is ||C_S - C_T||^2 / (4 d^2), C being the covariance of a batch's embeddings of width d. The paper takes the
    last layer's outputs; here it is what the head reads.
    """

    name: ClassVar[str] = "coral"
    paper: ClassVar[str] = "Deep CORAL, Sun & Saenko 2016, eq. 1-3"
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "weight": 10.0}

    def gap(self, model: TransferModel, source: Tensor, target: Tensor, fraction: float) -> Tensor:
        """The squared distance of the covariances; 0 where a batch has a single row of a domain."""
        return self.weight * covariance_gap(source, target)


def covariance_gap(source: Tensor, target: Tensor) -> Tensor:
    """||C_S - C_T||^2 / (4 d^2) of embeddings (n, d) and (m, d): a scalar; 0 where a single row has no covariance."""
    if min(len(source), len(target)) < 2:
        return source.sum() * 0
    return (source.float().T.cov() - target.float().T.cov()).square().sum() / (4 * source.shape[1] ** 2)


# --- learning from the model's own answers ---


class PseudoLabels(DomainAdaptation):
    """Take what the model answers of the target with certainty as labels, and learn from these rows besides.

    The model as this stage finds it answers the target (a fresh head is a regression on the frozen encoder first), its
    confidence calibrated on source validation. Of answers from `threshold` on, loss = L_source + weight * L_target,
    each a mean; a step reads as many rows of both. How many of such answers are right is checked on source validation,
    the only labels there are: on the target it is lower. A second stage of it answers anew.
    """

    paper: ClassVar[str] = (
        "Pseudo-Label, Lee 2013, eq. 15, with one weight and a threshold; for adaptation: Zou et al. 2018, section 3"
    )
    adapts: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"target", "pooled", "one-class"})
    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "threshold": (0.7, 0.8, 0.9, 0.95)}

    threshold: float = Field(default=0.9, ge=0, lt=1)
    """From which confidence on an answer is a label."""
    weight: float = Field(default=1.0, gt=0)
    """How much the target's rows count, all together, against those of the source."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """The model answers the target."""
        super().prepare(model, train)
        if model.head.fresh:
            raise InputError(
                f"{self.name} begins with what the model answers, and this head has learned nothing. Give another "
                f"method before it, such as full-fine-tuning,{self.name}."
            )
        model.pseudo = pseudo_labelled(model, train, self.threshold)

    def reads(self, model: TransferModel, train: Examples) -> Examples:
        """The source rows, and those of the target that have a label now."""
        rows = _pseudo(model).rows
        return Beside(train, rows) if rows else train

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """The losses of both."""
        if not isinstance(train, Beside):
            return super().objective(model, train, weights)
        return _SelfTaught(self, model, train, weights)

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The model without its answers; in `found` how many there were, and how often such are right in source."""
        told = _pseudo(model).told
        del model.pseudo
        plain = super().finish(model, train)
        plain.found = {"pseudo_labels": told}
        return plain


class Pseudo(nn.Module):
    """What the model answered of the target, on the model while the stage runs.

    Attributes:
        rows: the target rows that were answered with certainty, with these answers; None where there is none.
        told: `threshold`, `target_rows`, `taken`, `per_class`, `validation_taken` and `validation_precision`.
    """

    def __init__(self, rows: Examples | None, told: dict[str, Any]):
        super().__init__()
        self.rows, self.told = rows, told


def _pseudo(model: TransferModel) -> Pseudo:
    found = model.get_submodule("pseudo")
    assert isinstance(found, Pseudo)
    return found


def pseudo_labelled(model: TransferModel, train: Examples, threshold: float) -> Pseudo:
    """What a model answers of the target with a calibrated confidence from `threshold` on."""
    target, validation = target_of(model, train), tokenised(train.data, "validation", model.task, model.modality)
    found, truth = outputs(model, validation)
    decision = model.task.decide(found, truth, 1.0)
    sure, answers = _sure(model, found, decision.temperature, threshold)
    right = answers[sure] == np.asarray(truth)[sure]
    taken, classes = _sure(model, outputs(model, target)[0], decision.temperature, threshold)
    places = np.flatnonzero(taken)
    counts = np.bincount(classes[places], minlength=len(model.task.labels)).tolist()
    told = {
        "threshold": threshold, "target_rows": len(target), "taken": len(places),
        "per_class": dict(zip(model.task.labels, counts, strict=True)), "validation_taken": int(sure.sum()),
        "validation_precision": float(right.mean()) if sure.any() else None,
    }  # fmt: skip
    if not len(places):
        log.warning(
            "No target row is answered with a confidence of %g or more: this stage learns from the source alone. "
            "Give a lower threshold.", threshold,
        )  # fmt: skip
    return Pseudo(Relabelled(target, places, classes[places]) if len(places) else None, told)


def _sure(
    model: TransferModel, found: list[np.ndarray], temperature: float, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Which answers reach the confidence (n,), and which class each is (n,)."""
    probabilities = model.task.probabilities(found, temperature)  # type: ignore[attr-defined]
    return probabilities.max(axis=1) >= threshold, probabilities.argmax(axis=1)


class Relabelled(Examples):
    """Some windows of a set, with other answers."""

    def __init__(self, whole: Examples, places: np.ndarray, targets: np.ndarray):
        digest = hashlib.sha256(whole.key.encode() + places.tobytes() + targets.tobytes())
        self.key, self.rows = digest.hexdigest()[:32], len(places)
        self.modality, self.task, self.data = whole.modality, whole.task, whole.data
        self.lengths, self.lost, self.example = whole.lengths[places], whole.lost[places], np.arange(len(places))
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self.ids = whole.read_all(places)
        self.targets, self._asked = targets.astype(whole.targets.dtype), np.ones(len(places), dtype=np.int64)


class DomainStacking(PseudoLabels):
    """Stack a small classifier, which also reads how much a text is of the target, and fine-tune it on the target.

    Below is the source classifier: the linear head that the stage finds, or a regression on the frozen encoder. Above
    it the head `stacked` reads the embedding, what the source classifier answers, and what a domain classifier says of
    the text. It learns from source rows and from the target's pseudo-labels; loss = L_source + weight * L_target +
    L_domain, where L_domain is the domain classifier's cross-entropy, which moves that alone and the encoder's blocks.
    Nearest to PRED, for which the target has labels; here pseudo-labels stand in for them.
    """

    paper: ClassVar[str] = (
        "PRED in Frustratingly Easy Domain Adaptation, Daumé III 2007, section 2; Stacked Generalization, Wolpert 1992"
    )

    head: Head = Stacked()
    """The stack; where an earlier stage has trained a linear head, it is put on top of that."""
    blocks: int | None = Field(default=0, ge=0)
    """How many of the topmost blocks train besides; 0 trains the head alone."""

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """The source classifier and the domain classifier are there; the stack on them adds nothing yet."""
        _stack(model)
        super().prepare(model, train)
        assert isinstance(model.head, StackedNetwork)
        apart = embeddings(model, train), embeddings(model, target_of(model, train))
        weights, bias = domain_classifier.fitted(*apart)
        model.head.domain.write(weights[None].astype(np.float32), np.array([bias], dtype=np.float32))

    def gap(self, model: TransferModel, source: Tensor, target: Tensor, fraction: float) -> Tensor:
        """The domain classifier's cross-entropy, the mean of both domains' means."""
        assert isinstance(model.head, StackedNetwork)
        return domain_loss(model.head.domain(torch.cat([source, target])).squeeze(-1), len(source))


def _stack(model: TransferModel) -> None:
    """Put the stack on a linear head, where it is not there already.

    Raises:
        InputError: it is another head.
    """
    if isinstance(model.head, StackedNetwork):
        return
    below = model.head
    if not isinstance(below, LinearNetwork) or not below.normalized:
        raise InputError(
            f"domain-stacking stands on a linear head, not on {model.head_choice.name!r}. Leave the head of the stages "
            "before it as it is."
        )
    model.head_choice = Stacked(scale=below.scale, template=model.head_choice.template)
    head = model.head_choice.build(model.width, len(model.task.labels), token_level=False)
    assert isinstance(head, StackedNetwork)
    head.source.load_state_dict(below.state_dict())
    head.fresh = below.fresh
    model.head = head.to(model.device)


def plain(recipe: Sequence[Method]) -> list[Method]:
    """The same recipe without what it makes of the target: what adapting is compared with."""
    found: list[Method] = []
    for stage in recipe:
        others = tuple(m for m in stage.modifiers if "target" not in m.needs)
        if len(others) < len(stage.modifiers):
            stage = stage.model_copy(update={"modifiers": others})
        if isinstance(stage, Alignment):
            stage = stage.model_copy(update={"weight": 0.0})
        if not stage.adapts:
            found.append(stage)
    return found or [_of_source_alone(recipe[0])]


def _of_source_alone(stage: Method) -> Method:
    """What learns from the source's labels alone: of what a stage trains by its task's loss, with its settings."""
    if not isinstance(stage, DomainAdaptation) or stage.blocks == 0:
        return LinearProbe()
    cls = FullFineTuning if stage.blocks is None else TopLayers
    return cls(**{name: getattr(stage, name) for name in stage.model_fields_set & cls.model_fields.keys()})


# --- batches of two domains ---


class Beside(Joined):
    """Source rows and target rows of one task; a batch may hold both."""

    def __init__(self, source: Examples, target: Examples):
        super().__init__([source, target])
        self.targets = np.concatenate([source.targets, target.targets])
        self._asked = np.ones(len(self), dtype=np.int64)

    @property
    def source_rows(self) -> int:
        """How many rows are of the source; they come first."""
        return int(self.first[1])


class _TwoDomains(Objective):
    """The task's loss on source rows, and what the method makes of source and target; a step reads as many of both."""

    whole = True
    method: DomainAdaptation
    train: Beside

    def __init__(self, method: DomainAdaptation, model: TransferModel, both: Beside, weights: list[Tensor]):
        super().__init__(method, model, both.parts[0], weights)  # what modifiers look at is the source
        self.train = both
        self.fraction = 0.0

    def _places(self, seed: tuple[int, ...]) -> np.ndarray:
        chosen = super()._places(seed)
        return np.arange(self.train.source_rows) if chosen is None else chosen

    def batches(self, seed: tuple[int, ...]) -> list[np.ndarray]:
        """Those of the source, each with as many target rows at random after it."""
        steps = super().batches(seed)
        ends = np.cumsum([len(places) for places in steps])
        generator = np.random.default_rng((*seed, 2))
        first, end = int(self.train.first[1]), int(self.train.first[2])
        target = first + generator.permutation(passes(end - first, int(ends[-1]), generator))
        return [np.concatenate([places, some]) for places, some in zip(steps, np.split(target, ends[:-1]), strict=True)]

    def loss(self, batch: Batch) -> Tensor:
        count = int((batch.places < self.train.source_rows).sum())
        source, target = self._part(batch, slice(count)), self._part(batch, slice(count, None))
        loss, told = super().loss(source), self.said
        return loss + self._of_target(target) + self.method.gap(self.model, told, self.said, self.fraction)

    def _of_target(self, target: Batch) -> Tensor | float:
        """What the target's rows add by themselves; they are read here."""
        self._read(target)
        return 0.0

    def _read(self, batch: Batch) -> Tensor:
        states = super()._read(batch)
        self.said = vectors(self.model, states, batch.inputs.get("attention_mask"))
        return states

    def _part(self, batch: Batch, rows: slice) -> Batch:
        """Some rows, padded to the longest of them."""
        places = batch.places[rows]
        longest = int(self.train.lengths[places].max())
        padded = "attention_mask" in batch.inputs
        whole = {"embedding"} if padded and not self.model.reads_tokens else set() if padded else set(batch.inputs)
        inputs = {name: value[rows] if name in whole else value[rows, :longest] for name, value in batch.inputs.items()}
        return Batch(inputs, batch.targets[rows], places)

    def after_step(self, step: int, fraction: float) -> None:
        super().after_step(step, fraction)
        self.fraction = fraction

    def state(self) -> dict[str, Tensor]:
        return super().state() | {"fraction": torch.tensor(self.fraction, dtype=torch.float64)}

    def load_state(self, state: dict[str, Tensor]) -> None:
        super().load_state(state)
        self.fraction = float(state["fraction"])


class _SelfTaught(_TwoDomains):
    method: PseudoLabels  # pyright: ignore[reportIncompatibleVariableOverride]

    def _of_target(self, target: Batch) -> Tensor:
        return self.method.weight * self.answers(self._logits(target), target.targets)


def vectors(model: TransferModel, states: Tensor, mask: Tensor | None) -> Tensor:
    """One vector a text, (batch, dim), of mean square 1, whatever the head reads: tokens, layers, or a vector."""
    if model.head.reads_layers:
        states = states[:, -1]
    elif model.reads_tokens:
        states = pool(states, mask, model.pooling)
    return F.normalize(states.float(), dim=-1) * states.shape[-1] ** 0.5
