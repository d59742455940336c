"""Advice reads no test row, keeps to limits, follows the past, and can be followed."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch

from graftwork import layers
from graftwork.advise import Advice, advise
from graftwork.choice import InputError
from graftwork.data import Data, Split
from graftwork.experience import Race, Situation
from graftwork.fit import fit
from graftwork.methods import FullFineTuning, LinearProbe, LoRA, TopLayers

METHODS = [LinearProbe(), TopLayers(blocks=1, lr=5e-3, batch_size=16), FullFineTuning(lr=5e-3, batch_size=16)]


@pytest.fixture
def whole(monkeypatch):
    """No layer is better than the last: a random network's may well be."""
    monkeypatch.setattr("graftwork.methods.LowerLayers.best", lambda _, model, __: layers.block_count(model.encoder))


@pytest.fixture
def asked(sources, tiny, quick):
    """Advice on the small data set, with what is given changed."""

    def ask(kind="classification", **changed) -> Advice:
        given = {"models": [tiny], "methods": METHODS, "hardware": quick, "races": ()} | changed
        return advise(given.pop("data", sources[kind]), **given)

    return ask


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_every_task_gets_a_ranked_list_with_all_that_a_decision_needs(asked, kind):
    found = asked(kind)
    fitted = [o for o in found.options if not o.baseline]
    assert {o.name.removeprefix("lower-layers+") for o in fitted} == {m.name for m in METHODS}
    assert [o.score for o in found.options] == sorted((o.score for o in found.options), reverse=True)
    for option in found.options:
        assert 0 <= option.low <= option.score <= option.high <= 1
        assert option.seconds > 0
        assert option.reason
        assert option.command.startswith("graft ")
    assert all(o.model_mb and o.latency_ms for o in fitted)
    assert [point["rows"] for point in found.labels] == [n * found.labels[0]["rows"] for n in (1, 2, 4)]
    assert found.best.name in {o.name for o in fitted}
    assert found.as_dict()["advised"] == found.best.name


def test_no_test_row_is_read(asked, sources, monkeypatch):
    data = Data.load(sources["classification"])
    test = data["test"]
    for name in ("inputs", "labels", "batches"):
        real = getattr(Split, name)

        def watched(self, *given, real=real):
            assert self is not test, "the test split was read"
            return real(self, *given)

        monkeypatch.setattr(Split, name, watched)
    asked(data=data)


def test_the_same_advice_twice(asked):
    first, second = asked(), asked()
    assert [(o.name, o.score, o.low, o.high) for o in first.options] == [
        (o.name, o.score, o.low, o.high) for o in second.options
    ]


def test_texts_that_the_model_cannot_read_are_told(asked, sources):
    rows = {
        split: [{"text": "☃ " * (1 + i % 6), "label": label} for i, label in enumerate(rows.labels())]
        for split, rows in Data.load(sources["classification"]).splits.items()
    }
    assert not [line for line in asked().said if "lacks" in line]
    (said,) = [line for line in asked(data=Data.load(rows)).said if "lacks" in line]
    assert "A model of their language is likely to do better." in said


def test_past_races_decide_what_is_expected_beyond_the_probe(asked, whole):
    without = {o.name: o for o in asked().options}
    probe, words = without["linear-probe"].score, without["tf-idf"].score
    like = Situation(rows=90, classes=3, steps=400, probe=probe, words=words)
    races = [Race("once, all", like, {"full-fine-tuning": 0.995, "linear-probe": like.probe, "top-layers": 0.2})] * 5
    found = asked(races=races)
    told = {o.name: o for o in found.options}
    assert told["full-fine-tuning"].score > without["full-fine-tuning"].score
    assert told["top-layers"].score < without["top-layers"].score
    assert "once, all" in told["full-fine-tuning"].reason
    assert "No race is on record" in without["full-fine-tuning"].reason
    assert found.best.name == "full-fine-tuning"


def test_a_top_that_knows_nothing_of_the_task_is_cut_off(asked, tiny, tmp_path):
    from transformers import AutoModel

    folder = shutil.copytree(tiny, tmp_path / "spoilt")
    encoder = AutoModel.from_pretrained(folder)
    with torch.no_grad():  # the last block forgets what it is given
        encoder.encoder.layer[-1].output.LayerNorm.weight.zero_()
    encoder.save_pretrained(folder)
    found = asked(models=[folder])
    names = [o.name for o in found.options]
    assert "lower-layers+linear-probe" in names
    told = {o.name: o for o in found.options}
    assert told["lower-layers+linear-probe"].score > told["linear-probe"].score + 0.1
    assert told["lower-layers+linear-probe"].model_mb < told["linear-probe"].model_mb
    assert list(told["lower-layers+linear-probe"].spec[0]) == ["lower-layers"]
    assert found.best.name.startswith("lower-layers+")
    assert "--set lower-layers.blocks=" in found.best.command
    assert "--method lower-layers," in found.best.command


def test_of_what_is_expected_alike_the_quickest_is_taken(asked, whole):
    assert asked().best.name == "linear-probe"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_size": 0.001}, "MB, more than 0.001"),
        ({"max_latency": 0.0001}, "ms, more than 0.0001"),
        ({"budget": "0.01s", "methods": METHODS[1:]}, "more than 0.0 s"),
    ],
)
def test_limits_that_nothing_keeps_are_refused_with_the_reason(asked, limits, told):
    with pytest.raises(InputError, match="No method is within the limits") as refused:
        asked(**limits)
    assert told in str(refused.value)


def test_what_cannot_be_done_in_time_is_left_out_and_said(asked, whole):
    found = asked(methods=[LinearProbe(), FullFineTuning(batch_size=4096)], budget="3s")
    names = {o.name for o in found.options}
    assert "linear-probe" in names
    assert {o["name"] for o in found.left_out} | names == {"tf-idf", "linear-probe", "full-fine-tuning"}
    for option in found.left_out:
        assert "it takes about" in option["why"]


def test_a_method_that_does_not_suit_the_task_is_refused(asked):
    class Pooled(LinearProbe, abstract=True):
        needs = frozenset({"pooled"})

    with pytest.raises(InputError, match="one answer a text"):
        asked("tagging", methods=[Pooled()])


def test_a_limit_of_rows_stands_in_the_command(asked, sources):
    found = asked(data={"source": str(sources["classification"]), "shots": 4})
    assert all(o.command.endswith("--shots 4") for o in found.options if not o.baseline)


# --- following it ---


def test_auto_follows_the_advice_and_writes_down_why(sources, tiny, quick, tmp_path, monkeypatch):
    told: list[str] = []
    run = fit(
        sources["classification"], model=tiny, method="auto", hardware=quick, out=tmp_path / "run",
        on_event=lambda e: told.append(e.get("message", "")),
    )  # fmt: skip
    advice = run.happened["advice"]
    assert run.state == "done"
    assert "+".join(name for stage in run.asked["method"] for name in stage) == advice["option"]["name"]
    assert any(m.startswith(f"Advised: {advice['option']['name']}.") for m in told)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert f"Advised: {advice['option']['name']}, " in page


def test_auto_takes_the_rate_that_the_test_allows(sources, tiny, quick, tmp_path, monkeypatch, whole):
    import importlib

    module = importlib.import_module("graftwork.fit")
    method = FullFineTuning(lr=0.9, batch_size=16)  # far too high
    real = module.advise
    monkeypatch.setattr(
        module, "advise", lambda data, **given: real(data, **(given | {"methods": [method], "races": ()}))
    )
    run = fit(
        sources["classification"], model=tiny, method="auto", budget="6steps", hardware=quick, out=tmp_path / "run"
    )
    curve = run.happened["advice"]["rate_test"]
    assert curve["default"] == 0.9
    assert curve["advised"] < 0.9
    assert run.asked["method"][0]["full-fine-tuning"]["lr"] == curve["advised"]
    assert run.asked["budget"] == "6steps"
    assert f"{curve['advised']:.1e} was taken." in (run.path / "report.html").read_text(encoding="utf-8")


# --- how long it will take ---


def test_the_time_of_a_run_adds_up(staged):
    from graftwork.budget import Budget
    from graftwork.pace import Plan, Reading, Rows, StepsPace

    method = FullFineTuning(batch_size=10, head_start="random")
    plan = Plan(
        [method], [StepsPace(token=0.01, frozen=0.0)], Reading(load=1.0, quick=0.001, exact=0.002, solving=0.0),
        Rows(train=100, validation=50, train_tokens=10.0, validation_tokens=10.0),
    )  # fmt: skip
    around = 2.0 + 2 * 1.0 + 50 * 10 * 0.002
    steps = 30 * 10 * 10 * 0.01
    looks = 3 * 50 * 10 * 0.001
    assert plan.seconds(Budget.parse("3epochs")) == pytest.approx(around + steps + looks)
    assert plan.steps(Budget.parse("3epochs")) == 30
    assert plan.seconds(Budget.parse("30s")) == 30
    assert plan.steps(Budget.parse("25s")) == pytest.approx((25 - around) / 1.0)
    half = dataclasses.replace(plan, steps_pace=[StepsPace(token=0.01, frozen=0.5)])
    assert half.seconds(Budget.parse("3epochs")) == pytest.approx(around + steps + 0.5 * 150 * 10 * 0.001 + looks / 2)


def test_a_probe_waits_for_its_solver_and_two_stages_share_the_budget():
    from graftwork.budget import Budget
    from graftwork.pace import Plan, Reading, Rows, StepsPace

    reading = Reading(load=0.0, quick=0.0, exact=0.0, solving=0.01)
    rows = Rows(train=100, validation=10, train_tokens=1.0, validation_tokens=1.0)
    assert Plan([LinearProbe()], [None], reading, rows).seconds() == pytest.approx(2 + 0.01 * (6 * 100 + 100))
    method = FullFineTuning(batch_size=10, head_start="random")
    pace = StepsPace(token=0.1, frozen=0.0)
    both = Plan([method, method], [pace, pace], reading, rows)
    assert both.steps(Budget.parse("4epochs")) == 40
    assert both.seconds(Budget.parse("4epochs")) == pytest.approx(2 + 40 * 10 * 0.1)


@pytest.mark.parametrize("method", [FullFineTuning(batch_size=16), TopLayers(blocks=1, batch_size=16), LoRA()])
def test_timing_steps_leaves_the_model_as_it_was(staged, method):
    from graftwork.hardware import Hardware
    from graftwork.pace import training

    s = staged(method)
    before = {n: p.clone() for n, p in s.model.named_parameters()}
    found = training(s.model, method, s.train, s.validation, Hardware(device="cpu", precision="fp32"), "fp32")
    assert found.token > 0
    assert found.frozen == pytest.approx(2 / 3 if isinstance(method, TopLayers) else 0.0)
    assert {n for n, _ in s.model.named_parameters()} == set(before)
    assert all(torch.equal(p, before[n]) for n, p in s.model.named_parameters())


@pytest.mark.parametrize(("steps", "per_epoch"), [(60, 6), (600, 6), (12, 6), (5, 6), (7, 3), (2500, 10_000)])
def test_validations_are_foretold_as_they_happen(steps, per_epoch):
    from graftwork.loop import validations

    seen, last = 0, 0.0
    for step in range(1, steps + 1):
        due = step / steps - last >= 0.05 - 1e-9 if step % per_epoch == 0 else step % 1000 == 0
        if due or step == steps:
            seen, last = seen + 1, step / steps
    assert validations(steps, per_epoch) == seen
