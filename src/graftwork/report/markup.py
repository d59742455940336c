"""HTML and SVG that cannot be broken by a user's text: every string is escaped unless it was made here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TypeAlias

# Text (escaped), a number, Markup (as it is), several of these, or nothing.
Child: TypeAlias = "str | float | Sequence[Child] | None"


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def element(name: str, *children: Child, **attributes: str | float | None) -> Markup:
    """`<name attributes>children</name>`, with strings escaped and an attribute that is None left out.

    An underscore in an attribute's name becomes a hyphen; a trailing one is dropped (`class_`).

    Example:
        >>> element("td", "a < b", class_="number")
        '<td class="number">a &lt; b</td>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{said}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """The children one after the other; None is nothing, a list is its items."""
    return Markup("".join(_one(child) for child in children))


def _one(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, (str, int, float)):
        return escape(str(child))
    return join(*child)


def _number(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
