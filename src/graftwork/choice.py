"""A choice is a named, validated thing a user picks: a method, a task, a kind of pooling.

Its fields *are* the hyper-parameters. One sentence under a field serves the command line's help, YAML, the docs
and the page's form; one range in a field serves validation, its error message, and the tests' invalid values.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator


class InputError(ValueError):
    """Something a user gave cannot be used. One sentence: what was given, what is allowed, what to do next."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def wording(error: ValidationError) -> str:
    """What pydantic found wrong, a part a field: where, what it must be, what was given."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}, got {e['input']!r}" for e in error.errors())


def suggest(word: str, known: Iterable[str]) -> str:
    """The end of an error message about an unknown `word`: the nearest known ones, then all of them."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), [k.lower() for k in known], n=1, cutoff=0.6)
    hint = next((f"Did you mean {k!r}? " for k in known if near and k.lower() == near[0]), "")
    return f"{hint}Known: {', '.join(known) or 'none'}."


@dataclass(frozen=True)
class Field:
    """One hyper-parameter of a choice, as catalogues print it."""

    name: str
    type: str
    range: str
    default: Any
    sentence: str


class Choice(BaseModel):
    """A frozen set of hyper-parameters with a name of its own on its shelf.

    A direct subclass of `Choice` opens a *shelf* (`Method`, `Task`); every class below it stands on that shelf under
    the kebab-case of its class name (`FullFineTuning` -> `full-fine-tuning`), or under `name` where it sets one. A
    class made with `abstract=True` shares fields and stands nowhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    _shelf: ClassVar[dict[str, type[Choice]]]

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if Choice in cls.__bases__:
            cls._shelf = {}
            return
        if abstract:
            return
        if "name" not in cls.__dict__:
            cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        cls._shelf[cls.name] = cls

    @classmethod
    def fields(cls) -> list[Field]:
        """The hyper-parameters of this choice, in the order they are declared."""
        return [
            Field(
                name=name,
                type=_type_name(info.annotation),
                range=_range_of(info.metadata),
                default=_said(info.get_default(call_default_factory=True)),
                sentence=" ".join((info.description or "").split()),
            )
            for name, info in cls.model_fields.items()
        ]

    @field_validator("*", mode="before")
    @classmethod
    def _parse_choices(cls, value: Any, info: ValidationInfo) -> Any:
        """A field that holds choices of another shelf takes what `parse` takes."""
        shelf, several = _shelf_of(cls.model_fields[str(info.field_name)].annotation)
        if shelf is None or value is None:
            return value
        if not several:
            return parse(shelf, value)
        return tuple(parse(shelf, each) for each in (value if isinstance(value, (list, tuple)) else [value]))

    def spec(self) -> dict[str, Any]:
        """What `parse` needs to make this choice again: `{name: {field: value}}`, defaults included."""
        return {self.name: {field: _plain(getattr(self, field)) for field in type(self).model_fields}}


C = TypeVar("C", bound=Choice)


def import_shelf(package: str) -> None:
    """Import every module of a shelf's package, and give the package the classes they define.

    So a new kind is a new file, and no list has to be kept.
    """
    shelf = sys.modules[package]
    for found in sorted(pkgutil.iter_modules(shelf.__path__), key=lambda found: found.name):
        module = importlib.import_module(f"{package}.{found.name}")
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, Choice) and value.__module__ == module.__name__:
                setattr(shelf, name, value)


def names(shelf: type[Choice]) -> list[str]:
    """The names on a shelf, sorted."""
    return sorted(shelf._shelf)


def lookup(shelf: type[C], name: str) -> type[C]:
    """The class that stands on `shelf` under `name`; class names (`LoRA`) are understood too.

    Raises:
        InputError: nothing stands there; the message names the nearest.
    """
    for known, cls in shelf._shelf.items():
        if name in (known, cls.__name__):
            return typing.cast("type[C]", cls)
    raise InputError(f"Unknown {shelf.__name__.lower()} {name!r}. {suggest(name, names(shelf))}")


def parse(shelf: type[C], spec: C | str | dict[str, Any]) -> C:
    """A choice from what a user wrote: itself, `"lora"`, or `{"lora": {"rank": 8}}`.

    Raises:
        InputError: an unknown name or field, or a value out of its range; each is named with what is allowed.
    """
    if isinstance(spec, shelf):
        return spec
    if isinstance(spec, str):
        return build(lookup(shelf, spec), {})
    if isinstance(spec, dict) and len(spec) == 1:
        (name, values), *_ = spec.items()
        if values is None or isinstance(values, dict):
            return build(lookup(shelf, name), values or {})
    raise InputError(
        f"A {shelf.__name__.lower()} is a name or {{name: {{field: value}}}}; got {spec!r}. Known: {names(shelf)}."
    )


def build(cls: type[C], values: dict[str, Any]) -> C:
    """`cls(**values)`, with pydantic's errors told in one sentence a field."""
    known = cls.model_fields
    for field in values:
        if field not in known:
            raise InputError(f"{cls.__name__} has no field {field!r}. {suggest(field, known)}")
    try:
        return cls(**values)
    except ValidationError as error:
        raise InputError("; ".join(_explain(cls, item) for item in error.errors())) from None


def _explain(cls: type[Choice], item: Any) -> str:
    """One pydantic error as a sentence: the field, what it must be, what was given."""
    cause = item.get("ctx", {}).get("error")
    if isinstance(cause, InputError):  # of a choice within: it says all that there is to say
        return str(cause)
    field = str(item["loc"][0]) if item["loc"] else ""
    if field not in cls.model_fields:
        return f"{cls.__name__}: {item['msg'].removeprefix('Value error, ')}"
    info = cls.model_fields[field]
    must = " ".join(filter(None, [_type_name(info.annotation), _range_of(info.metadata)]))
    why = f" ({item['msg'].removeprefix('Value error, ')})" if item["type"] == "value_error" else ""
    return f"The {field!r} of {cls.__name__} must be {must}; got {item['input']!r}{why}. Default: {info.default!r}"


def _shelf_of(annotation: Any) -> tuple[type[Choice] | None, bool]:
    """Which shelf a field's values stand on, if any, and whether it holds several."""
    several = typing.get_origin(annotation) is tuple
    inner = [a for a in typing.get_args(annotation) or (annotation,) if isinstance(a, type) and issubclass(a, Choice)]
    return (inner[0] if inner else None), several


def _plain(value: Any) -> Any:
    """A field's value as JSON has it; choices as `parse` takes them."""
    if isinstance(value, Choice):
        return value.spec()
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def _said(default: Any) -> Any:
    """A default as catalogues print it."""
    if isinstance(default, tuple) and not default:
        return None
    return default.name if isinstance(default, Choice) else default


def _type_name(annotation: Any) -> str:
    """A type as a person would say it."""
    shelf, several = _shelf_of(annotation)
    if shelf is not None:
        known = f"of {', '.join(names(shelf))}"
        return f"any {known}" if several else f"one {known}"
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(a) for a in arguments)
    if arguments and origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(a) for a in arguments)
    if origin is typing.Annotated:
        return " ".join(filter(None, [_type_name(arguments[0]), _range_of(arguments[1:])]))
    plain = {int: "an integer", float: "a number", str: "text", bool: "true or false", type(None): "nothing"}
    if origin in (list, tuple):
        return "a list of " + ", ".join(_type_name(a) for a in arguments if a is not Ellipsis)
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _range_of(metadata: Iterable[Any]) -> str:
    """The interval that pydantic's constraints describe: `in [0, inf)`; empty where there is none."""
    low, high, left, right = "-inf", "inf", "(", ")"
    for item in metadata:
        if getattr(item, "ge", None) is not None:
            low, left = item.ge, "["
        if getattr(item, "gt", None) is not None:
            low, left = item.gt, "("
        if getattr(item, "le", None) is not None:
            high, right = item.le, "]"
        if getattr(item, "lt", None) is not None:
            high, right = item.lt, ")"
    return "" if (low, high) == ("-inf", "inf") else f"in {left}{low}, {high}{right}"
