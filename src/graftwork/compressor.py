"""A compressor makes a fitted model smaller or faster, and hands back a TransferModel like any other.

What it takes away is chosen on train rows alone. What it cannot do to a model it refuses, before anything is computed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

from graftwork.choice import Choice, InputError, lookup, parse

if TYPE_CHECKING:
    from graftwork.examples import Examples
    from graftwork.model import TransferModel


class Compressor(Choice):
    """One way to make a model smaller or faster."""

    main: ClassVar[str] = ""
    """The field that `NAME=VALUE` sets."""
    refits: ClassVar[bool] = True
    """Whether the head is to be fitted anew afterwards, because it reads something else."""
    stores: ClassVar[bool] = False
    """Whether it changes how weights are stored, and nothing else: it then comes last, and nothing trains after it."""
    faster: ClassVar[bool] = False
    """Whether answers take less time afterwards, besides taking less room."""
    not_after: ClassVar[Mapping[str, str]] = {}
    """Names of steps that this one must not follow, with the reason."""

    @property
    def title(self) -> str:
        """As it is typed: `layers=3`, `layers=3:which=lowest`."""
        first = f"{self.name}={getattr(self, self.main)}" if self.main else self.name
        others = {name: field.default for name, field in type(self).model_fields.items() if name != self.main}
        own = [f"{name}={getattr(self, name)}" for name, usual in others.items() if getattr(self, name) != usual]
        return ":".join([first, *own])

    @property
    def idle(self) -> tuple[float, Any] | None:
        """The share of single weights that training after it is to hold at zero, and of what; None for none."""
        return None

    @classmethod
    def levels(cls, model: TransferModel) -> list[Compressor]:
        """What a search for a goal tries of this step on a model, the mildest first; by default it leaves it out."""
        return []

    def unsuited(self, model: TransferModel) -> str | None:
        """The sentence that says why this model cannot be compressed so; None where it can."""
        return None

    def refused(self, model: TransferModel) -> str | None:
        """Why this model cannot be compressed so, for reasons of this step or of every step; None where it can."""
        return _of_any(self, model) or self.unsuited(model)

    def require_suited(self, model: TransferModel) -> None:
        """Refuse a model that cannot be compressed so.

        Raises:
            InputError: with the reason.
        """
        if why := self.refused(model):
            raise InputError(why)

    def apply(self, model: TransferModel, train: Examples) -> TransferModel:
        """A smaller model; the one given stays as it is.

        Args:
            model: fitted.
            train: the rows it was fitted on, as it reads them.

        Raises:
            InputError: this model cannot be compressed so.
        """
        self.require_suited(model)
        smaller = copy.deepcopy(model).eval()
        self.change(smaller, train)
        return smaller

    def change(self, model: TransferModel, train: Examples) -> None:
        """Make this model smaller, which suits."""
        raise NotImplementedError

    def in_rounds(self, model: TransferModel) -> list[Compressor]:
        """The step as one or several smaller ones, after each of which the model recovers."""
        return [self]

    def notes(self, before: TransferModel, after: TransferModel, validation: Examples) -> dict[str, Any]:
        """What else is to be known of this step, as plain values.

        Args:
            before: the model that it was applied to.
            after: what it gave.
            validation: rows as `before` reads them.
        """
        return {}


def _of_any(step: Compressor, model: TransferModel) -> str | None:
    """What hinders every compressor."""
    if model.storage != "fp32":
        return (
            f"The model's weights are stored in {model.storage} already, so {step.name!r} would lose more than it "
            "says. Compress the run that it was made of, with all steps at once."
        )
    if model.insertions and not step.stores:
        return (
            f"The encoder works with a part that was put into it ({model.insertions[0].name}), and {step.name!r} would "
            "tear the two apart. Compress a run of a method that leaves a plain encoder, such as 'lora'."
        )
    return None


def steps_of(spec: Any) -> tuple[Compressor, ...]:
    """Steps, from `"layers=3, vocabulary"`, or a list of such words, mappings and objects.

    Raises:
        InputError: an unknown step or value, no step at all, or an order that makes no sense.

    Example:
        >>> import graftwork.compressors
        >>> [step.title for step in steps_of("vocabulary, layers=3")]
        ['vocabulary', 'layers=3']
    """
    given = spec.split(",") if isinstance(spec, str) else [spec] if isinstance(spec, (Compressor, dict)) else spec
    steps = tuple(_step(each) for each in given if each != "")
    if not steps:
        raise InputError("Give at least one step, such as vocabulary.")
    for place, step in enumerate(steps):
        for earlier in steps[:place]:
            if earlier.name == step.name:
                raise InputError(
                    f"The step {step.name!r} comes twice. Give it once, with the value that it is to have."
                )
            if why := step.not_after.get(earlier.name):
                raise InputError(f"{step.name!r} cannot follow {earlier.name!r}: {why}. Give it before.")
            if earlier.stores:
                raise InputError(
                    f"{earlier.name!r} is how weights are stored, so it comes last; got {step.name!r} after."
                )
    return steps


def _step(each: Any) -> Compressor:
    """One step: `layers=3:which=lowest` as `{layers: {keep: 3, which: lowest}}`."""
    if not isinstance(each, str):
        return parse(Compressor, each)
    first, *others = each.split(":")
    name, equals, value = (part.strip() for part in first.partition("="))
    kind = lookup(Compressor, name)
    if equals and not kind.main:
        raise InputError(f"The step {name!r} takes no value; got {each.strip()!r}.")
    fields = {kind.main: value} if equals else {}
    for other in others:
        field, equals, value = (part.strip() for part in other.partition("="))
        if not equals:
            raise InputError(f"A field of a step is written NAME=VALUE:FIELD=VALUE; got {each.strip()!r}.")
        fields[field] = value
    return parse(Compressor, {name: {field: yaml.safe_load(value) for field, value in fields.items()}})
