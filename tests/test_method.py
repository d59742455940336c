"""How a stage is asked for: a method with a head and modifiers, and what is refused before anything is trained."""

from __future__ import annotations

import json

import pytest

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.heads import Linear
from graftwork.method import Method, recipe_of, unmet
from graftwork.methods import FullFineTuning, LinearProbe, LoRA
from graftwork.modifier import Modifier
from graftwork.testing import learnable


@pytest.fixture(autouse=True)
def _a_shelf_of_its_own(monkeypatch):
    monkeypatch.setattr(Modifier, "_shelf", dict(Modifier._shelf))


@pytest.fixture
def modifier():
    class Heavy(Modifier):
        """Nothing."""

        needs = frozenset({"one-class"})
        strength: float = 1.0
        """Of nothing."""

    class Both(Modifier):
        """Nothing, also without steps."""

        closed_form = True

    return Heavy


@pytest.mark.usefixtures("modifier")
@pytest.mark.parametrize("typed", ["lora", "lora:heavy", "lora:heavy:both", "lora@linear:both", "linear-probe:both"])
def test_a_stage_is_named_as_it_is_typed_and_made_again_from_its_spec(typed):
    (stage,) = recipe_of(typed)
    assert stage.title == typed.replace("@linear", "")
    assert recipe_of(json.loads(json.dumps([stage.spec()]))) == (stage,)


def test_a_modifier_may_be_a_name_a_mapping_or_an_object(modifier):
    by_name, by_mapping, by_object, alone = (
        LoRA(modifiers=given) for given in (["heavy"], [{"heavy": {"strength": 1.0}}], [modifier()], "heavy")
    )
    assert by_name == by_mapping == by_object == alone
    assert recipe_of({"lora": {"modifiers": [{"heavy": {"strength": 2}}]}})[0].modifiers == (modifier(strength=2),)


@pytest.mark.usefixtures("modifier")
@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("lora:hevy", "Did you mean 'heavy'"),
        ("lora@linaer", "Did you mean 'linear'"),
        ("lroa:heavy", "Did you mean 'lora'"),
        ({"lora": {"modifiers": [{"heavy": {"strenght": 1}}]}}, "Did you mean 'strength'"),
        ({"lora": {"modifiers": [3]}}, "a modifier is a name"),
    ],
)
def test_what_is_misspelt_is_named(typed, said):
    with pytest.raises(InputError, match=f"(?i){said}"):
        recipe_of(typed)


@pytest.mark.usefixtures("modifier")
def test_a_stage_is_refused_what_it_cannot_heed():
    one, several, tags = (Data.load(learnable(kind)) for kind in ("classification", "multi-label", "tagging"))
    assert unmet(recipe_of("lora:heavy"), one) is None
    for data in (several, tags):
        assert "Modifier 'heavy' needs one class a text" in str(unmet(recipe_of("lora:heavy"), data))
    assert "'linear-probe' takes no steps, so 'heavy'" in str(unmet(recipe_of("linear-probe:heavy"), one))
    assert unmet(recipe_of("linear-probe:both"), one) is None


def test_the_spec_of_every_field_is_plain():
    spec = FullFineTuning().spec()["full-fine-tuning"]
    assert spec["head"] == {"linear": {"template": "", "scale": 10.0, "normalized": None}}
    assert (spec["modifiers"], spec["schedule"]) == ([], {"linear": {}})
    assert isinstance(FullFineTuning().head, Linear)
    assert issubclass(LinearProbe, Method)
