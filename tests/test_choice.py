"""A choice's fields are its help, its validation and its error messages."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from graftwork.choice import Choice, InputError, build, lookup, names, parse, suggest


class Tool(Choice):
    """A shelf of its own, so that these tests depend on no other."""


class SharpKnife(Tool):
    """Cuts."""

    length: float = Field(10.0, gt=0, le=30)
    """Of the blade, in
    centimetres."""
    edges: int = Field(1, ge=1)
    """Sharp sides."""
    handle: Literal["wood", "steel"] = "wood"
    """What one holds."""
    sheath: str | None = None
    """What it is carried in."""


class URLOpener(Tool):
    """Two capitals together."""


class Tong(Tool):
    """Named otherwise than its class."""

    name = "tongs"


class Sharpened(Tool, abstract=True):
    """Shares fields, stands nowhere."""


class Axe(Sharpened):
    """Stands where its abstract parent does not."""


def test_a_shelf_holds_every_class_but_the_abstract_under_its_kebab_case_name():
    assert names(Tool) == ["axe", "sharp-knife", "tongs", "urlopener"]


def test_two_shelves_do_not_share_their_names():
    from graftwork.method import Method
    from graftwork.task import Task

    assert set(names(Tool)).isdisjoint(names(Method))
    assert set(names(Method)).isdisjoint(names(Task))


@pytest.mark.parametrize("name", ["sharp-knife", "SharpKnife"])
def test_lookup_understands_names_and_class_names(name):
    assert lookup(Tool, name) is SharpKnife


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"Unknown tool 'sharp-knive'\. Did you mean 'sharp-knife'\? Known: axe, "):
        lookup(Tool, "sharp-knive")


@pytest.mark.parametrize("spec", [SharpKnife(), "sharp-knife", {"sharp-knife": None}, {"sharp-knife": {"edges": 1}}])
def test_parse_reads_an_object_a_name_and_a_mapping(spec):
    assert parse(Tool, spec) == SharpKnife()


@pytest.mark.parametrize("spec", [3, None, ["sharp-knife"], {}, {"axe": {}, "tongs": {}}, {"axe": 3}])
def test_what_is_no_spec_is_answered_with_the_form_of_one(spec):
    with pytest.raises(InputError, match=r"A tool is a name or \{name: \{field: value\}\}; got "):
        parse(Tool, spec)


@given(st.floats(0.01, 30), st.integers(1, 9), st.sampled_from(["wood", "steel"]), st.none() | st.text())
def test_a_spec_gives_the_same_choice_again(length, edges, handle, sheath):
    knife = SharpKnife(length=length, edges=edges, handle=handle, sheath=sheath)
    assert parse(Tool, knife.spec()) == knife


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("length", 0, r"The 'length' of SharpKnife must be a number in \(0, 30\]; got 0\. Default: 10\.0|got 0"),
        ("length", 31, r"a number in \(0, 30\]; got 31"),
        ("edges", 0, r"an integer in \[1, inf\); got 0"),
        ("edges", 1.5, r"an integer in \[1, inf\); got 1\.5"),
        ("handle", "gold", r"one of 'wood', 'steel'; got 'gold'"),
        ("sheath", 3, r"text or nothing; got 3"),
    ],
)
def test_a_value_out_of_range_is_told_with_field_range_and_value(field, value, sentence):
    with pytest.raises(InputError, match=sentence):
        build(SharpKnife, {field: value})


def test_every_wrong_field_is_told_at_once():
    with pytest.raises(InputError, match=r"'length'.*'edges'"):
        build(SharpKnife, {"length": -1, "edges": 0})


def test_an_unknown_field_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"SharpKnife has no field 'lenght'\. Did you mean 'length'\?"):
        build(SharpKnife, {"lenght": 3})


def test_fields_carry_the_sentence_below_them_on_one_line():
    length, edges, handle, sheath = SharpKnife.fields()
    assert (length.name, length.type, length.range, length.default) == ("length", "a number", "in (0, 30]", 10.0)
    assert length.sentence == "Of the blade, in centimetres."
    assert (edges.type, edges.range) == ("an integer", "in [1, inf)")
    assert handle.type == "one of 'wood', 'steel'"
    assert (sheath.type, sheath.range) == ("text or nothing", "")


def test_a_choice_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        SharpKnife().length = 3.0  # type: ignore[misc]


def test_nothing_is_suggested_where_nothing_is_near():
    assert suggest("zebra", ["axe", "tongs"]) == "Known: axe, tongs."
    assert suggest("x", []) == "Known: none."
