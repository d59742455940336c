"""A method says how knowledge is transferred. The loop does not know which one it runs.

A method states only its difference from full fine-tuning: what trains (`prepare`), how fast each depth moves
(`param_groups`), what is minimised (`objective`), and what is handed back (`finish`). A list of methods is a recipe of
stages: `[LinearProbe(), LoRA()]` trains LoRA from the probe's head, `[TopLayers(), FullFineTuning()]` the top first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from graftwork import layers
from graftwork.choice import Choice, InputError, parse
from graftwork.head import Head
from graftwork.heads.linear import Linear
from graftwork.modifier import Modifier
from graftwork.objective import Objective
from graftwork.optimizer import AdamW, Optimizer
from graftwork.regression import start_head
from graftwork.schedule import Linear as LinearSchedule
from graftwork.schedule import Schedule

if TYPE_CHECKING:
    from torch import Tensor

    from graftwork.data import Data
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    parameters: tuple[nn.Parameter, ...]
    lr: float
    weight_decay: float


class Method(Choice):
    """How knowledge is transferred. By itself: everything trains, at one rate."""

    pooling: Literal["mean", "cls", "max"] = "mean"
    """How token states become one vector, for tasks that need one; the first stage of a recipe decides."""

    head: Head = Linear()
    """What reads the embeddings; the first stage of a recipe decides."""
    modifiers: tuple[Modifier, ...] = ()
    """What is added to this stage: penalties, class weights, averaged weights, ... They combine."""

    needs: ClassVar[frozenset[str]] = frozenset()
    """What data or model must have, of `labels`, `target`, `mask-token`, `pooled`, `one-class`, `text`; checked before
    anything runs."""

    compares: ClassVar[frozenset[str]] = frozenset()
    """What of a similarity task it learns by a loss of its own: `scores` or `classes` of pairs, `triplets`."""

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {}
    """What is worth trying when hyper-parameters are chosen on validation: of a field a factor, the range being its
    default times and divided by it (logarithmic), or the values."""

    adapts: ClassVar[bool] = False
    """Whether a stage is there for the target's sake; what adapting is compared with goes without it."""

    reads_off: ClassVar[bool] = False
    """Whether the head is read off the embeddings by a regression, which only a linear one can hold."""

    gradient: ClassVar[bool] = True
    """Whether the loop has steps to take; a method without computes everything in `finish`."""

    @model_validator(mode="after")
    def _head_holds_what_is_read_off(self) -> Method:
        if self.reads_off and not isinstance(self.head, Linear):
            raise ValueError(f"a regression fits a linear head, not {self.head.name!r}")
        return self

    @property
    def title(self) -> str:
        """As it is typed: `lora`, or `lora@mlp:l2-sp:ema` with a head of its own and modifiers."""
        head = "" if self.head == type(self).model_fields["head"].default else f"@{self.head.name}"
        return self.name + head + "".join(f":{modifier.name}" for modifier in self.modifiers)

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Decide what trains, and insert what is to be inserted. Called once, before the optimizer exists."""
        for modifier in self.modifiers:
            modifier.prepare(model, train)
        model.requires_grad_(True)

    def on_epoch(self, model: TransferModel, epoch: int) -> None:
        """Called before each epoch (the first is 0); may change what trains among the parameters in `param_groups`."""

    def on_step(self, model: TransferModel, step: int) -> None:
        """Called after each optimizer step (the first is 1)."""

    def finish(self, model: TransferModel, train: Examples) -> TransferModel:
        """The plain model again: what was inserted is merged or taken out.

        What the run should tell of the stage besides its steps goes into the model's `found`, JSON-able.
        """
        return model


class GradientMethod(Method, abstract=True):
    """A method that trains by gradient descent: the hyper-parameters they all share."""

    tunable: ClassVar[Mapping[str, float | tuple[Any, ...]]] = {"lr": 5.0, "head_lr_factor": 4.0}

    epochs: float = Field(default=6, gt=0)
    """Passes over the training data, where no budget is given; small data gets more, so that there are 400 steps."""
    lr: float = Field(default=2e-4, gt=0, lt=1)
    """Learning rate of the encoder's topmost block, at its peak."""
    head_lr_factor: float = Field(default=10.0, gt=0)
    """The head learns this many times as fast; a pretrained one, such as a verbalizer, as fast as the topmost block."""
    batch_size: int = Field(default=32, ge=1)
    """Examples an optimizer step."""
    optimizer: Optimizer = AdamW()
    """How a gradient becomes a step."""
    schedule: Schedule = LinearSchedule()
    """How the rate falls after the warm-up; an optimizer that needs no fall brings its own."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled decay of matrices; never of biases, norms and embedding tables."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient; what is longer is scaled down to it."""
    label_smoothing: float = Field(default=0.05, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Of the encoder; by default as its config says."""
    head_start: Literal["probe", "random"] = "probe"
    """A fresh head starts from a logistic regression on the frozen encoder, which tears no feature in the first steps
    (classification only; LP-FT, Kumar et al. 2022, section 4), or from small random weights."""
    patience: int | None = Field(default=None, ge=1)
    """Validations without a new best after which training stops; by default it goes on to the budget's end."""

    @model_validator(mode="before")
    @classmethod
    def _schedule_of_the_optimizer(cls, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("optimizer") is None or "schedule" in given:
            return given
        schedule = parse(Optimizer, given["optimizer"]).schedule
        return given if schedule is None else given | {"schedule": schedule}

    @property
    def depth_factor(self) -> float:
        """Each depth below the topmost learns at this times the rate of the one above it."""
        return 1.0

    def prepare(self, model: TransferModel, train: Examples) -> None:
        """Everything trains; a head that has learned nothing yet is read off the frozen encoder first."""
        super().prepare(model, train)
        if self.head_start == "probe" and model.head.fresh and not model.reads_tokens:
            start_head(model, train)

    def reads(self, model: TransferModel, train: Examples) -> Examples:
        """What batches are drawn from: by default train; more, where a method learns from other data besides."""
        return train

    def objective(self, model: TransferModel, train: Examples, weights: list[Tensor]) -> Objective:
        """What is minimised, made anew for each stage: by default the task's loss, with what the modifiers make of it.

        Args:
            model: as it begins to train, `prepare`d.
            train: what it trains on, as `reads` gives it.
            weights: what trains, in the order of `param_groups`.
        """
        return Objective(self, model, train, weights)

    def param_groups(self, model: TransferModel) -> list[ParamGroup]:
        """Every parameter that may ever train, each in exactly one group: the head, then depths downwards."""
        tables = {id(m.weight) for m in model.encoder.modules() if isinstance(m, nn.Embedding)}
        factor = 1.0 if model.head.pretrained else self.head_lr_factor
        parameters = dict(model.encoder.named_parameters())
        shared = {id(p) for p in parameters.values()}  # a language model's table of embeddings
        head = [p for p in model.head.parameters() if id(p) not in shared]
        groups = self._split("head", head, self.lr * factor, tables)
        for distance, group in enumerate(reversed(layers.layer_groups(model.encoder))):
            members = [parameters[name] for name in group.parameters if parameters[name].requires_grad]
            groups += self._split(group.name, members, self.lr * self.depth_factor**distance, tables)
        return groups

    def _split(self, name: str, members: list[nn.Parameter], lr: float, tables: set[int]) -> list[ParamGroup]:
        """The group with weight decay and the one without."""
        with_decay = tuple(p for p in members if p.ndim > 1 and id(p) not in tables)
        without = tuple(p for p in members if p.ndim <= 1 or id(p) in tables)
        groups = [
            ParamGroup(name, with_decay, lr, self.weight_decay),
            ParamGroup(f"{name}, no decay", without, lr, 0.0),
        ]
        return [g for g in groups if g.parameters]


def unfolded(word: str) -> dict[str, dict[str, Any]]:
    """A stage as it is typed, METHOD[@HEAD][:MODIFIER...], as its mapping.

    Example:
        >>> unfolded("lora@mlp:l2-sp:ema")
        {'lora': {'head': 'mlp', 'modifiers': ['l2-sp', 'ema']}}
    """
    method, *modifiers = word.split(":")
    name, _, head = method.partition("@")
    return {name: ({"head": head} if head else {}) | ({"modifiers": modifiers} if modifiers else {})}


def recipe_of(spec: Any) -> tuple[Method, ...]:
    """One method (as it is typed, mapping or object), or a list of them, as a recipe of stages.

    Raises:
        InputError: an unknown method or field, or no stage at all.
    """
    given = spec if isinstance(spec, (list, tuple)) else [spec]
    stages = tuple(parse(Method, unfolded(stage) if isinstance(stage, str) else stage) for stage in given)
    if not stages:
        raise InputError("A recipe needs at least one method.")
    return stages


def unmet(recipe: Sequence[Method], data: Data) -> str | None:
    """The sentence that says what a recipe needs and does not find in `data`; None where it has everything."""
    if data.comparison and (strange := [method for method in recipe if not _takes(method, data.comparison)]):
        what = "triplets" if data.comparison == "triplets" else f"pairs with {data.comparison}"
        known = sorted(strange[0].compares)
        compared = f"{what} of texts, whose embeddings are compared"
        return (
            f"Method {strange[0].title!r} "
            + (f"learns from {' or '.join(known)}; these are {what}." if known else f"has no answer for {compared}.")
            + " Choose one that trains the encoder, such as 'full-fine-tuning' or 'lora', or 'pretrained', which "
            "leaves it as it is."
        )
    has = {"pooled"} if data.task == "classification" else set()
    has |= {"one-class"} if data.task == "classification" and not data.multi_label else set()
    has |= {"labels"} if data.labels else set()
    has |= {"target"} & set(data.splits)
    has |= {"text"} if data.reads == "text" else set()
    nouns = "texts" if data.reads == "text" else "pictures"
    means = {
        "labels": "a label for every training example",
        "target": f"unlabelled {nouns} of the target domain; give them with --target FILE, or target=...",
        "mask-token": "a model with a mask token",
        "pooled": "a task with one answer a text, such as classification",
        "one-class": "one class a text",
        "text": "texts, and these are pictures",
    }
    for chosen in [choice for method in recipe for choice in (method, *method.modifiers)]:
        own = {"pooled", "one-class"} if isinstance(chosen, Method) and data.comparison in chosen.compares else set()
        for need in sorted(chosen.needs - has - own):
            kind = "Modifier" if isinstance(chosen, Modifier) else "Method"
            return (
                f"{kind} {chosen.name!r} needs {means[need]}; the data has {sorted(data.splits)}. "
                f"Choose another {kind.lower()}."
            )
    for method in recipe:
        deaf = [m.name for m in method.modifiers if not (method.gradient or m.closed_form)]
        if deaf:
            return f"Method {method.name!r} takes no steps, so {deaf[0]!r} cannot act on it. Leave it out."
        deaf = [m.name for m in method.modifiers if method.gradient and not m.steps]
        if deaf:
            return (
                f"Modifier {deaf[0]!r} acts on methods without steps alone, such as 'linear-probe', and "
                f"{method.name!r} takes steps. Leave it out."
            )
    head = recipe[0].head
    if head.template and data.reads != "text":
        return f"The head {head.name!r} puts words around each text, and these are pictures. Choose another."
    if (data.task == "tagging" and not head.for_tokens) or (data.task != "similarity" and not head.for_classes):
        return f"The head {head.name!r} cannot answer a {data.task} task. Choose another."
    return None


def _takes(method: Method, comparison: str) -> bool:
    """Whether a method compares so, trains by the task's own loss, or not at all; and is given no other head."""
    given = method.head.name not in (type(method).model_fields["head"].default.name, "embedding")
    if given or comparison in method.compares:
        return not given
    if "pooled" in method.needs:
        return False
    hooks = ("objective", "reads") if isinstance(method, GradientMethod) else ("finish",)
    plain = GradientMethod if isinstance(method, GradientMethod) else Method
    return all(getattr(type(method), hook) is getattr(plain, hook) for hook in hooks)
