"""Trials are counted, choose on validation, and are not made twice."""

from __future__ import annotations

import sys

import pytest

from graftwork.choice import InputError, lookup, names
from graftwork.data import Data
from graftwork.fit import Request
from graftwork.method import Method
from graftwork.methods import FullFineTuning, LinearProbe, TopLayers
from graftwork.tune import Tuned, tune


@pytest.fixture
def asked(sources, tiny, quick):
    """A request whose default rate is far too low, and its data."""
    data = Data.load(sources["classification"])
    method = FullFineTuning(lr=2e-5, head_lr_factor=2, batch_size=16, head_start="random")
    return Request.build(
        data=data.source, model=str(tiny), method=[method.spec()], budget="8steps", hardware=quick
    ), data  # fmt: skip


def test_the_defaults_are_tried_first_and_the_best_on_validation_is_taken(asked, tmp_path):
    request, data = asked
    found = tune(request, data, tmp_path / "search", 4)
    assert len(found.trials) == 4
    assert found.trials[0].settings == {"0.lr": 2e-5, "0.head_lr_factor": 2.0}
    best = max((t for t in found.trials if t.state == "done"), key=lambda t: t.score)
    (method,) = found.recipe
    assert method.lr == best.settings["0.lr"]
    assert 2e-5 / 5 <= method.lr <= 2e-5 * 5
    assert not list((tmp_path / "search").rglob("*.safetensors"))


def test_a_finished_search_is_not_made_again(asked, tmp_path, monkeypatch):
    import importlib

    request, data = asked
    first = tune(request, data, tmp_path / "search", 2)
    monkeypatch.setattr(importlib.import_module("graftwork.tune"), "start", None)
    assert tune(request, data, tmp_path / "search", 2) == first


def test_the_same_seed_searches_alike(asked, tmp_path):
    request, data = asked
    one, two = (tune(request, data, tmp_path / str(i), 3) for i in range(2))
    assert one == two


def test_a_trial_that_diverges_is_counted_and_the_search_goes_on(asked, tmp_path, monkeypatch):
    import importlib

    module = importlib.import_module("graftwork.tune")
    real, calls = module.start, []

    def breaks_once(*given, **more):
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the loss is nan")
        return real(*given, **more)

    monkeypatch.setattr(module, "start", breaks_once)
    request, data = asked
    found = tune(request, data, tmp_path / "search", 2)
    assert [t.state for t in found.trials] == ["failed", "done"]
    monkeypatch.setattr(module, "start", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("the loss is nan")))
    with pytest.raises(RuntimeError, match="Every trial failed"):
        tune(request, data, tmp_path / "other", 2)


def test_without_optuna_the_extra_is_named(asked, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    request, data = asked
    with pytest.raises(InputError, match=r"pip install graftwork\[tune\]"):
        tune(request, data, tmp_path / "search", 2)


def test_what_is_tunable_is_a_field_with_room_around_its_default():
    for name in names(Method):
        cls = lookup(Method, name)
        fields = {field.name: field for field in cls.fields()}
        for field, how in cls.tunable.items():
            assert field in fields, (name, field)
            for value in how if isinstance(how, tuple) else (fields[field].default * how, fields[field].default / how):
                assert getattr(cls(**{field: value}), field) == value


def test_settings_of_a_recipe_go_to_their_stages():
    found = Tuned([LinearProbe().spec(), TopLayers(blocks=3).spec()], [])
    assert [m.name for m in found.recipe] == ["linear-probe", "top-layers"]
    assert found.recipe[1].blocks == 3
