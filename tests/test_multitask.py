"""Across tasks: who is read how often, whose head learns from what, and what another task must not give away."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from conftest import write
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from graftwork import layers
from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.evaluate import outputs
from graftwork.features import frozen_prefix
from graftwork.fit import fit
from graftwork.loop import StopRequested, train
from graftwork.method import Method, recipe_of
from graftwork.methods import FullFineTuning, HoulsbyAdapters, MultiTask
from graftwork.methods.multitask import Mixture, other_task, shares
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.tasks import Classification, task_of
from graftwork.testing import learnable, method_checks, suited_to_tiny_networks


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A multi-label task of 270 train rows and a tagging task of 24."""
    root = tmp_path_factory.mktemp("others")
    several = write(learnable("multi-label", rows=450, seed=1), root / "several")
    return several, write(learnable("tagging", rows=40, seed=2), root / "tags")


def tiny_method(*tasks, **fields):
    return suited_to_tiny_networks(MultiTask, tasks=tasks, **fields)


@pytest.fixture
def begun(staged, others):
    """A stage with both other tasks, up to its first step: the stage, its mixture and its objective."""

    def make(**fields):
        s = staged(tiny_method(*others, **fields))
        torch.manual_seed(0)
        s.stage.method.prepare(s.model, s.train)
        mixture = s.stage.method.reads(s.model, s.train)
        weights = [p for g in s.stage.method.param_groups(s.model) for p in g.parameters]
        return s, mixture, s.stage.method.objective(s.model, mixture, weights)

    return make


# --- who is read how often ---


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=5), st.floats(1, 50))
def test_shares_are_the_powers_of_the_formula(rows, temperature):
    found = shares(rows, temperature)
    assert found.sum() == pytest.approx(1)
    for share, n in zip(found, rows, strict=True):
        assert share / found[0] == pytest.approx((n / rows[0]) ** (1 / temperature))


def test_shares_by_hand():
    assert shares([100, 900], 1.0).tolist() == pytest.approx([0.1, 0.9])
    assert shares([100, 900], 2.0).tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("temperature", [1.0, 2.0, 100.0])
def test_an_epoch_is_a_pass_over_the_target_at_its_share_of_the_steps(begun, temperature):
    _, mixture, objective = begun(temperature=temperature)
    sizes = np.array([90, 270, 24])
    expected = sizes ** (1 / temperature) / (sizes ** (1 / temperature)).sum()
    assert objective.steps_per_epoch == round(6 / expected[0])  # 90 rows, 16 a batch
    counts = np.zeros(3)
    for epoch in range(400):
        batches = objective.batches((0, 0, epoch))
        assert len(batches) == objective.steps_per_epoch
        tasks = [mixture.part_of(batch) for batch in batches]  # which refuses a batch of two tasks
        own = np.concatenate([batch for batch, task in zip(batches, tasks, strict=True) if task == 0])
        assert sorted(own) == list(range(90))
        counts += np.bincount(tasks, minlength=3)
    spread = np.sqrt(expected * (1 - expected) / counts.sum())
    rounding = abs(6 / objective.steps_per_epoch - expected[0])
    assert (abs(counts / counts.sum() - expected) < 4 * spread + rounding).all()


def test_the_batches_of_an_epoch_depend_on_its_seed_alone(begun):
    objective = begun()[2]
    first, again, next_epoch = (objective.batches(seed) for seed in [(3, 0, 1), (3, 0, 1), (3, 0, 2)])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, next_epoch, strict=True))


def test_a_small_task_is_gone_through_again_before_a_row_is_read_twice_as_often(begun):
    _, mixture, objective = begun(temperature=100.0)
    read = np.concatenate([b for b in objective.batches((0, 0, 0)) if mixture.part_of(b) == 2])
    times = np.bincount(read - 360, minlength=24)
    assert len(read) > 24
    assert times.max() - times.min() <= 1


# --- whose head learns from what ---


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_batch_teaches_the_encoder_and_the_head_of_its_task(begun, part):
    s, mixture, objective = begun(weight=0.5, label_smoothing=0.0)
    places = mixture.first[part] + np.arange(5)
    batch = mixture.batch(places)
    loss = objective.loss(batch)
    loss.backward()
    heads = [s.model.head, *s.model.others.heads]
    assert [any(p.grad is not None for p in head.parameters()) for head in heads] == [part == i for i in range(3)]
    assert all(p.grad is not None for p in s.model.encoder.parameters())
    with torch.no_grad():
        states = s.model.encoder(**batch.inputs).last_hidden_state
        if part == 2:
            by_hand = 0.5 * F.cross_entropy(heads[2].linear(states).flatten(0, 1), batch.targets.flatten())
        else:
            mask = batch.inputs["attention_mask"].unsqueeze(-1)
            z = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
            logits = heads[part].linear(10 * z)
            by_hand = (
                F.cross_entropy(logits, batch.targets)
                if part == 0
                else 0.5 * F.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none").sum(1).mean()
            )
    assert loss.item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert s.model.task.labels == s.data.labels
    assert s.model.head is heads[0]


def test_a_mixture_holds_what_its_parts_hold(begun):
    _, mixture, _ = begun()
    with pytest.raises(AssertionError, match="windows of two tasks"):
        mixture.part_of(np.array([5, 95]))
    assert len(mixture) == 90 + 270 + 24
    for part, (rows, first) in enumerate(zip(mixture.parts, mixture.first, strict=False)):
        own = np.array([3, 0, 7])
        ours, theirs = mixture.batch(first + own), rows.batch(own)
        assert torch.equal(ours.inputs["input_ids"], theirs.inputs["input_ids"])
        assert torch.equal(ours.targets, theirs.targets)
        assert ours.places.tolist() == (first + own).tolist()
        assert mixture.weight(first + own) == rows.weight(own)
        assert np.array_equal(mixture.target(int(first) + 7), rows.target(7))
        assert np.array_equal(
            mixture.ids[mixture.starts[first + 7] : mixture.starts[first + 8]],
            rows.ids[rows.starts[7] : rows.starts[8]],
        )
        assert mixture.part_of(first + own) == part
    read = list(mixture.in_order_of_length(max_tokens=200))
    assert sorted(np.concatenate(read)) == list(range(len(mixture)))
    assert all(len(batch) * mixture.lengths[batch].max() <= 200 for batch in read)
    assert mixture.key != Mixture(mixture.parts[:2]).key


def test_another_head_starts_where_it_would_as_the_target(begun, others, tiny):
    s, _, _ = begun()
    data = Data.load(others[0])
    alone = TransferModel.pretrained(tiny, Classification(labels=data.labels, multi_label=True))
    FullFineTuning().prepare(alone, s.model.others.examples[0])
    torch.testing.assert_close(s.model.others.heads[0].linear.weight, alone.head.linear.weight)


def test_modifiers_see_the_target_alone(begun):
    modifiers = ["class-weights", "over-sampling", "mixup", "r-drop", "ema"]
    s, mixture, objective = begun(modifiers=modifiers, label_smoothing=0.0)
    plain = begun(label_smoothing=0.0)[2]
    for part in (1, 2):  # their losses are what they are without modifiers
        batch = mixture.batch(mixture.first[part] + np.arange(5))
        torch.manual_seed(1)
        with_them = objective.loss(batch).item()
        torch.manual_seed(1)
        assert with_them == pytest.approx(plain.loss(batch).item(), abs=1e-6)
    assert torch.isfinite(objective.loss(mixture.batch(np.arange(5))))
    assert train(s.model, s.train, s.validation, s.stage).progress.step == 12


# --- the stage as a whole ---


def test_without_other_tasks_it_is_full_fine_tuning_to_the_bit(staged):
    weights = []
    for cls in (FullFineTuning, MultiTask):
        s = staged(suited_to_tiny_networks(cls))
        s.run()
        weights.append(s.stage.method.finish(s.model, s.train).state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_model_of_a_run_is_the_targets_alone(others, tiny, sources, quick, tmp_path):
    recipe = [tiny_method(*others), suited_to_tiny_networks(FullFineTuning)]
    run = fit(sources["classification"], model=tiny, method=recipe, budget="6steps", out=tmp_path / "a", hardware=quick)
    groups = [{group["name"] for group in stage["groups"]} for stage in run.happened["stages"]]
    assert ["other heads" in names for names in groups] == [True, False]
    model = TransferModel.load(run.path / "model")
    assert {name.partition(".")[0] for name in model.state_dict()} == {"encoder", "head"}
    assert model.task.labels == Data.load(sources["classification"]).labels


@pytest.mark.parametrize("fields", [{}, {"blocks": 2, "modifiers": "ema"}])
def test_keeps_the_contract_with_two_tasks(others, tmp_path, fields):
    small = write(learnable("classification", rows=40, seed=3), tmp_path / "small")
    for name, check in method_checks(tiny_method(small, others[1], **fields)):
        if name != "learns_tagging":  # of the contract's 30 steps the target's are too few
            check()


def test_another_task_is_learned(staged, others):
    s = staged(tiny_method(others[1]), steps=120)
    s.run()
    rows = s.model.others.examples[0]
    model = TransferModel(s.model.encoder, s.model.modality, rows.task)
    model.head = s.model.others.heads[0]
    found, targets = outputs(model, rows)
    right = np.concatenate([f.argmax(axis=1) == t for f, t in zip(found, targets, strict=True)])
    assert right.mean() > 0.8  # 54 % are "O"


def test_a_batch_cut_in_parts_gives_the_same_gradients(staged, others):
    trained = []
    for max_tokens in (10_000, 60):
        s = staged(tiny_method(*others, dropout=0.0, optimizer="sgd", lr=1e-2))
        s.stage.hardware = s.stage.hardware.model_copy(update={"max_tokens": max_tokens})
        s.run()
        trained.append(s.model.state_dict())
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, atol=2e-5, rtol=1e-4)


def test_the_frozen_prefix_of_every_task_is_read_from_the_cache(begun):
    s, mixture, _ = begun(blocks=1)
    trains = {group.name for group in layers.layer_groups(s.model.encoder)
              if any(dict(s.model.encoder.named_parameters())[n].requires_grad for n in group.parameters)}  # fmt: skip
    assert trains == {"block 2"}
    s.model.eval()
    batches = [mixture.batch(first + np.array([4, 1, 2])) for first in mixture.first[:3]]
    with torch.no_grad():
        computed = [s.model.encoder(**batch.inputs).last_hidden_state for batch in batches]
        with frozen_prefix(s.model, [mixture, s.validation], precision="fp32") as features:
            assert features is not None
            for batch, whole in zip(batches, computed, strict=True):
                inputs = features[0].into(batch).inputs
                above = s.model.above(inputs.pop("hidden"), **inputs)
                real = batch.inputs["attention_mask"].bool()
                torch.testing.assert_close(above[real], whole[real], atol=1e-5, rtol=1e-5)


def test_a_stage_is_not_resumed_on_other_rows(staged, others, tmp_path):
    folder = write(learnable("multi-label", seed=1), tmp_path / "other")
    s = staged(tiny_method(folder))
    asked = iter(range(10))
    s.stage.stop_requested = lambda: next(asked) >= 3
    with pytest.raises(StopRequested):
        s.run()
    (folder / "train.jsonl").write_text((folder / "train.jsonl").read_text().replace("goal", "coach"))
    again = staged(tiny_method(folder))
    with pytest.raises(InputError, match="data of another task has changed since the run began"):
        again.run()


# --- which data, and what it must not give away ---


def test_texts_that_the_target_is_asked_about_are_not_learned(tmp_path, caplog):
    target = Data.load(learnable("classification"))
    asked = [text for split in ("validation", "test") for text in target[split].inputs()[:4]]
    rows = [{"text": f" {text.upper()}", "label": "other"} for text in asked]
    rows += learnable("classification", rows=50, seed=5)["train"]
    file = tmp_path / "others.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING):
        left = other_task(str(file), target)["train"]
    assert left.inputs() == [row["text"] for row in rows[8:]]
    assert "8 rows of others left out: near-identical texts stand in the target's" in caplog.text
    file.write_text("".join(json.dumps(row | {"label": f"{i % 2}"}) + "\n" for i, row in enumerate(rows[:8])))
    with pytest.raises(InputError, match=r"Every row of the task .* stands in the target's validation or test"):
        other_task(str(file), target)


def test_the_rows_left_out_stay_out_of_the_stage(staged, tmp_path):
    s = staged(tiny_method())
    rows = learnable("classification", seed=5)["train"] + [
        {"text": text, "label": "food"} for text in s.data["test"].inputs()
    ]
    file = tmp_path / "others.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    method = tiny_method(file)
    method.prepare(s.model, s.train)
    assert len(method.reads(s.model, s.train)) == len(s.train) + 90


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"text": "a b", "label": "x"}, {"text": "c d", "label": "x"}], "are of one class"),
        (
            [{"text": "a b", "label": "x"}, {"text": "c d", "label": ""}, {"text": "e", "label": "y"}],
            "1 row of the task",
        ),
        ([{"text": "a b"}, {"text": "c d"}], "cannot be learned along"),
    ],
)
def test_a_task_that_nothing_can_be_learned_from_is_refused(tmp_path, rows, said):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=said):
        other_task(str(file), Data.load(learnable("classification")))


@pytest.mark.parametrize("gone", ["nowhere.csv", "/no/such/folder", "nowhere"])
def test_a_place_where_nothing_is_is_refused_at_once(gone):
    with pytest.raises(InputError, match=f"'tasks' of MultiTask .*there is no file or folder '{gone}'"):
        recipe_of({"multi-task": {"tasks": [gone]}})


def test_places_are_kept_from_wherever_the_run_is_resumed(others, monkeypatch):
    monkeypatch.chdir(others[0].parent)
    method = MultiTask(tasks=("several", "tags"))
    assert method.tasks == tuple(str(folder) for folder in others)
    (one,) = recipe_of({"multi-task": {"tasks": "several"}})
    monkeypatch.chdir("/")
    assert recipe_of(json.loads(json.dumps([one.spec()]))) == (one,)
    assert isinstance(one, Method)
    assert MultiTask(tasks=("pydocs", "owner/name")).tasks == ("pydocs", "owner/name")


# --- one task after another ---


@pytest.fixture(scope="module")
def first_run(tmp_path_factory, tiny, sources):
    """A task fitted before."""
    out = tmp_path_factory.mktemp("runs") / "a"
    hardware = {"device": "cpu", "precision": "fp32"}
    return fit(sources["multi-label"], model=tiny, method=suited_to_tiny_networks(FullFineTuning, pooling="cls"),
               budget="4steps", out=out, hardware=hardware)  # fmt: skip


def test_another_task_begins_with_a_runs_encoder_and_a_fresh_head(first_run, sources):
    data = Data.load(sources["classification"])
    model = TransferModel.pretrained(resolve(first_run.path), task_of(data))
    before = TransferModel.load(first_run.path / "model")
    theirs = before.encoder.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.encoder.state_dict().items())
    assert model.head.fresh
    assert len(model.head.linear.weight) == len(data.labels)
    assert (model.pooling, before.pooling) == ("mean", "cls")
    assert model.decision == type(model.decision)()


def test_a_run_is_fitted_from_another(first_run, sources, quick, tmp_path):
    method = suited_to_tiny_networks(FullFineTuning)
    second = fit(sources["tagging"], model=first_run.path, method=method, budget="2steps", out=tmp_path / "b",
                 hardware=quick)  # fmt: skip
    model = TransferModel.load(second.path / "model")
    assert model.task.labels == Data.load(sources["tagging"]).labels
    assert second.asked["model"] == str(first_run.path)


def test_an_encoder_that_is_not_whole_without_insertions_is_refused(tiny, sources, quick, tmp_path):
    run = fit(sources["classification"], model=tiny, method=suited_to_tiny_networks(HoulsbyAdapters), budget="2steps",
              out=tmp_path / "a", hardware=quick)  # fmt: skip
    with pytest.raises(InputError, match="put 'adapters' into its encoder"):
        resolve(run.path)
    with pytest.raises(InputError, match="put 'adapters' into its encoder"):
        resolve(run.path / "model")


def test_a_run_without_a_model_says_how_to_go_on(first_run, tmp_path):
    (tmp_path / "run.json").write_bytes((first_run.path / "run.json").read_bytes())
    with pytest.raises(InputError, match=r"holds no model yet\. Go on with it first: graft resume"):
        resolve(tmp_path)
