"""One loop trains every method: its schedule, its batches, its stops and its numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.budget import Budget
from graftwork.dropout import QuickDropout, quick_dropout
from graftwork.hardware import Hardware
from graftwork.loop import Diverged, StopRequested, default_budget
from graftwork.methods import FullFineTuning, GradualUnfreezing, TopLayers
from graftwork.objective import Objective

QUICK = FullFineTuning(lr=5e-3, head_lr_factor=2, batch_size=16, head_start="random")


def quick(**fields):
    return QUICK.model_copy(update=fields)


@pytest.mark.parametrize(("examples", "epochs"), [(32 * 400, 6), (3200, 6), (320, 40), (5, 400)])
def test_small_data_is_gone_through_more_often(examples, epochs):
    assert default_budget(FullFineTuning(), examples) == Budget(epochs, "epochs")


# --- golden numbers ---


@pytest.mark.usefixtures("every_step_is_told")
def test_golden_losses_of_a_short_fit(staged):
    # made by: OMP_NUM_THREADS=1 pytest tests/test_loop.py -k golden (the failure prints the new ones)
    s = staged(quick(dropout=0.0, lr=1e-3, head_lr_factor=5), steps=20)
    trained = s.run()
    found = [s.losses[i] for i in (0, 4, 9, 14, 19)]
    assert found == pytest.approx(GOLDEN_LOSSES, abs=1e-5), found
    last = [e for e in s.events if e["event"] == "evaluation"][-1]
    assert [last["loss"], last["accuracy"], last["macro_f1"]] == pytest.approx(GOLDEN_SCORES, abs=1e-5), last
    assert trained.progress.best_step == GOLDEN_BEST_STEP


GOLDEN_LOSSES = [1.0973448753, 1.2400406599, 1.0028271675, 0.9673514366, 0.7612645030]
GOLDEN_SCORES = [0.8946953, 0.6666667, 0.6099456]
GOLDEN_BEST_STEP = 20


# --- against a loop written out with torch's own AdamW ---


@pytest.mark.usefixtures("every_step_is_told")
def test_losses_are_those_of_a_loop_written_by_hand(staged):
    method = quick(dropout=0.0, layer_decay=0.8, weight_decay=0.1, warmup=0.25, label_smoothing=0.1)
    ours = staged(method, steps=8)
    ours.run()
    s = staged(method, steps=8)
    s.model.train()
    for module in s.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    groups = method.param_groups(s.model)
    optimizer = torch.optim.AdamW([{"params": g.parameters, "weight_decay": g.weight_decay} for g in groups])
    batches = [b for epoch in (0, 1) for b in s.train.shuffled(16, (0, 0, epoch))]
    losses = []
    for step, places in enumerate(batches[:8]):
        factor = max(step / 8, 1e-3) / 0.25 if step / 8 < 0.25 else 1 - (step / 8 - 0.25) / 0.75
        for group, asked in zip(optimizer.param_groups, groups, strict=True):
            group["lr"] = asked.lr * factor
        batch = s.train.batch(places)
        loss = nn.functional.cross_entropy(s.model(batch.inputs), batch.targets, label_smoothing=0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(s.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    np.testing.assert_allclose(ours.losses, losses, atol=2e-5)


# --- every architecture, every kind ---


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2"])
def test_every_architecture_trains(staged, models, architecture):
    s = staged(quick(), folder=models(architecture), steps=4)
    before = {n: p.clone() for n, p in s.model.named_parameters()}
    s.run()
    moved = [n for n, p in s.model.named_parameters() if not torch.equal(p, before[n])]
    assert len(moved) > 0.8 * len(before)


# --- what the hardware may not change ---


@pytest.mark.usefixtures("every_step_is_told")
@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
def test_how_batches_are_split_changes_no_loss(staged, kind):
    losses = []
    for max_tokens in (10**6, 30):
        s = staged(quick(dropout=0.0), kind=kind, steps=6)
        s.stage.hardware = Hardware(max_tokens=max_tokens)
        s.run()
        losses.append(s.losses)
    np.testing.assert_allclose(*losses, atol=1e-5)


@pytest.mark.usefixtures("every_step_is_told")
def test_out_of_memory_halves_what_is_computed_at_once_and_keeps_the_effective_batch(staged, monkeypatch):
    plain = staged(quick(dropout=0.0), steps=6)
    plain.run()
    real, calls = Objective.loss, []

    def sometimes(self, batch):
        calls.append(batch.inputs["input_ids"].numel())
        if len(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return real(self, batch)

    monkeypatch.setattr(Objective, "loss", sometimes)
    s = staged(quick(dropout=0.0), steps=6)
    s.stage.hardware = Hardware(max_tokens=256)
    trained = s.run()
    assert trained.progress.max_tokens == 128
    assert max(calls[3:]) <= 128
    assert [e["message"] for e in s.events if e["event"] == "note"] == [
        "Out of memory: computing 128 tokens at once from now on."
    ]
    np.testing.assert_allclose(s.losses, plain.losses, atol=1e-5)


def test_memory_too_small_for_one_example_ends_the_run(staged, monkeypatch):
    def never(*_):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Objective, "loss", never)
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        staged(quick()).run()


def test_another_error_is_not_taken_for_want_of_memory(staged, monkeypatch):
    def wrong(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Objective, "loss", wrong)
    with pytest.raises(RuntimeError, match="shapes differ"):
        staged(quick()).run()


# --- stops ---


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_and_names_step_and_rows(staged, monkeypatch, value):
    real, calls = Objective.loss, []

    def sometimes(self, batch):
        calls.append(batch.places)
        return real(self, batch) * (value if len(calls) == 4 else 1)

    monkeypatch.setattr(Objective, "loss", sometimes)
    s = staged(quick())
    with pytest.raises(Diverged, match=r"at step 4, on rows \[") as caught:
        s.run()
    assert str(sorted(calls[3].tolist())) in str(caught.value)
    assert "Give a lower lr than 0.005" in str(caught.value)


def test_early_stopping_waits_for_its_patience_and_the_best_weights_come_back(staged, monkeypatch):
    scores = iter([0.5, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    monkeypatch.setattr("graftwork.loop.quick_score", lambda *_: {"accuracy": next(scores), "loss": 0.0})
    s = staged(quick(patience=3), steps=10**4)
    at_best = {}
    real = s.stage.on_event

    def watch(**event):
        real(**event)
        if event["event"] == "evaluation" and event["accuracy"] == 0.9:
            at_best.update({n: p.detach().clone() for n, p in s.model.head.named_parameters()})

    s.stage.on_event = watch
    trained = s.run()
    assert (trained.stopped, trained.progress.best_step, trained.progress.step) == ("early", 12, 30)
    assert all(torch.equal(p, at_best[n]) for n, p in s.model.head.named_parameters())


@pytest.mark.parametrize(
    ("steps", "validated"), [(60, [6 * i for i in range(1, 11)]), (600, [30 * i for i in range(1, 21)])]
)
def test_validation_is_read_at_the_end_of_epochs_and_at_most_twenty_times(staged, steps, validated):
    s = staged(quick(), steps=steps)
    s.run()
    assert [e["step"] for e in s.events if e["event"] == "evaluation"] == validated


def test_a_budget_in_steps_is_kept_exactly_and_one_in_epochs_too(staged):
    assert staged(quick(), steps=7).run().progress.step == 7
    s = staged(quick())
    s.stage.budget = Budget(1.5, "epochs")  # of 6 steps each
    trained = s.run()
    assert (trained.progress.step, trained.total_steps, trained.stopped) == (9, 9, "budget")


def test_a_stop_saves_and_the_next_run_begins_there(staged, monkeypatch):
    s = staged(quick(), steps=12)
    asked = iter(range(100))
    s.stage.stop_requested = lambda: next(asked) >= 4
    with pytest.raises(StopRequested, match="Stopped at step 5"):
        s.run()
    whole, rest = staged(quick(), steps=12), staged(quick(), steps=12)
    assert rest.run().progress.step == 12
    whole.stage.checkpoint = whole.stage.checkpoint.parent / "other"
    whole.run()
    for (name, a), b in zip(rest.model.state_dict().items(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_checkpoints_are_written_as_often_as_asked(staged):
    s = staged(quick(), steps=5)
    s.stage.hardware = Hardware(checkpoint_seconds=0)
    s.run()
    assert [e["step"] for e in s.events if e["event"] == "checkpoint"] == [1, 2, 3, 4]


# --- records ---


def test_which_depths_train_is_recorded_for_each_epoch(staged):
    s = staged(GradualUnfreezing(lr=1e-3, batch_size=45), steps=12)
    assert s.run().progress.unfreezing == [
        [0, []],
        [1, ["block 2"]],
        [2, ["block 1", "block 2"]],
        [3, ["block 0", "block 1", "block 2"]],
        [4, ["embeddings", "block 0", "block 1", "block 2"]],
    ]


def test_what_gradual_unfreezing_has_not_reached_does_not_move(staged):
    s = staged(
        GradualUnfreezing(lr=5e-3, batch_size=45, head_start="random"), steps=4
    )  # two epochs: the head, then the topmost block
    before = {n: p.clone() for n, p in s.model.encoder.named_parameters()}
    s.run()
    moved = {n.split(".")[2] for n, p in s.model.encoder.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"2"}


def test_padding_is_counted(staged):
    progress = staged(quick(), steps=6).run().progress
    s = staged(quick())
    batches = s.train.shuffled(16, (0, 0, 0))
    assert progress.tokens == s.train.tokens
    assert progress.padded == sum(len(b) * s.train.lengths[b].max() for b in batches)


def test_the_global_generator_is_left_as_it_was(staged):
    s = staged(quick(), steps=2)
    s.stage.method.prepare(s.model, s.train)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    from graftwork.loop import train

    train(s.model, s.train, s.validation, s.stage)
    assert torch.equal(torch.get_rng_state(), before)


# --- dropout ---


def test_quick_dropout_drops_the_stated_share_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = QuickDropout(0.25)(torch.ones(400, 401))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.005)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0.0, 1 / 0.75])


@pytest.mark.parametrize("module", [QuickDropout(0.5).eval(), QuickDropout(0.0)])
def test_quick_dropout_does_nothing_in_eval_mode_and_at_zero(module):
    x = torch.ones(3, 5)
    assert torch.equal(module(x), x)


def test_dropouts_are_the_old_ones_after_training(staged):
    s = staged(TopLayers(dropout=0.7), steps=2)
    before = {n: (m, m.p) for n, m in s.model.named_modules() if isinstance(m, nn.Dropout)}
    s.run()
    assert {n: (m, m.p) for n, m in s.model.named_modules() if isinstance(m, nn.Dropout)} == before


def test_the_rate_that_is_given_is_that_of_every_dropout():
    network = nn.Sequential(nn.Dropout(0.1), nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.2)))
    with quick_dropout(network, 0.3):
        assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.3, 0.3]
