"""Penalties, mixout, R-Drop, fresh layers and dropout schedules, each against its own equation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftwork.choice import InputError
from graftwork.methods import FullFineTuning, LoRA
from graftwork.modifiers import (
    L1,
    L2SP,
    ClassWeights,
    DropoutSchedule,
    FocalLoss,
    Mixout,
    Mixup,
    RDrop,
    ReinitialisedLayers,
)
from graftwork.testing import suited_to_tiny_networks

QUICK = suited_to_tiny_networks(FullFineTuning, head_start="random", dropout=0.0)


def begun(staged, *modifiers, kind="classification", method=QUICK, **fields):
    """A prepared model, its objective with the modifiers, and a batch."""
    method = method.model_copy(update={"modifiers": tuple(modifiers)} | fields)
    s = staged(method, kind=kind)
    method.prepare(s.model, s.train)
    weights = [p for group in method.param_groups(s.model) for p in group.parameters]
    return s, method.objective(s.model, s.train, weights), s.train.batch(np.arange(8))


def moved(model, by=0.01):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by)


def test_l1_is_the_sum_of_the_absolute_values_of_matrices(staged):
    s, objective, _ = begun(staged, L1(strength=0.5))
    matrices = [p for n, p in s.model.named_parameters() if p.ndim > 1 and "embeddings" not in n]
    with torch.no_grad():
        assert float(objective.penalty()) == pytest.approx(0.5 * sum(float(p.abs().sum()) for p in matrices), rel=1e-5)


@torch.no_grad()
def test_l2_sp_is_the_distance_from_the_start_and_the_heads_size(staged):
    s, objective, _ = begun(staged, L2SP(alpha=3.0, beta=0.5))
    head = sum(float(p.square().sum()) for p in s.model.head.parameters())
    assert float(objective.penalty()) == pytest.approx(0.25 * head, rel=1e-5)
    moved(s.model)
    count = sum(p.numel() for p in s.model.encoder.parameters())
    head = sum(float(p.square().sum()) for p in s.model.head.parameters())
    assert float(objective.penalty()) == pytest.approx(1.5 * count * 1e-4 + 0.25 * head, rel=1e-3)


def test_mixout_reads_the_pretrained_weights_as_often_as_it_says_and_is_right_in_expectation(staged):
    s, objective, batch = begun(staged, Mixout(probability=0.7))
    layer = s.model.encoder.encoder.layer[0].intermediate.dense
    start = layer.weight.detach().clone()
    moved(s.model, by=0.5)
    seen = []
    layer.register_forward_pre_hook(lambda module, _: seen.append(module.weight.detach().clone()))
    s.model.train()
    torch.manual_seed(0)
    for _ in range(20):
        objective.loss(batch).backward()
    read = torch.stack(seen)
    assert float(torch.isclose(read, start, atol=1e-6).float().mean()) == pytest.approx(0.7, abs=0.01)
    assert float((read - start).mean()) == pytest.approx(0.5, abs=0.01)
    assert layer.weight.grad is not None
    s.model.eval()
    objective.loss(batch)
    torch.testing.assert_close(seen[-1], start + 0.5)
    objective.end()
    s.model.train()
    objective.loss(batch)
    torch.testing.assert_close(seen[-1], start + 0.5)


def test_mixout_leaves_what_does_not_train(staged):
    s, objective, batch = begun(staged, Mixout(), method=suited_to_tiny_networks(LoRA, head_start="random"))
    s.model.train()
    with torch.no_grad():
        first, second = objective.loss(batch), objective.loss(batch)
    assert torch.isfinite(first)
    assert torch.isfinite(second)
    objective.end()


def test_r_drop_adds_the_symmetric_divergence_of_two_readings(staged):
    _, objective, _ = begun(staged, RDrop(alpha=4.0), label_smoothing=0.0)
    one, other, targets = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    p, q = F.log_softmax(one, dim=-1), F.log_softmax(other, dim=-1)
    kl = F.kl_div(p, q, log_target=True, reduction="sum") + F.kl_div(q, p, log_target=True, reduction="sum")
    both = (F.cross_entropy(one, targets) + F.cross_entropy(other, targets)) / 2
    torch.testing.assert_close(objective.answers([one, other], targets), both + 4.0 / 4 * kl / 5)
    assert objective.passes == 2


def test_r_drop_of_several_labels_is_over_yes_and_no(staged):
    _, objective, _ = begun(staged, RDrop(alpha=4.0), kind="multi-label", label_smoothing=0.0)
    one, other, targets = torch.randn(4, 3), torch.randn(4, 3), torch.ones(4, 3)
    p, q = one.sigmoid(), other.sigmoid()
    kl = ((p - q) * (p / q).log() + (q - p) * ((1 - p) / (1 - q)).log()).sum(dim=1)
    plain = [F.binary_cross_entropy_with_logits(z, targets, reduction="none").sum(1) for z in (one, other)]
    torch.testing.assert_close(objective.answers([one, other], targets), ((plain[0] + plain[1]) / 2 + kl).mean())


def test_fresh_layers_are_the_topmost_and_no_others(staged):
    method = QUICK.model_copy(update={"modifiers": (ReinitialisedLayers(blocks=2),)})
    s = staged(method)
    before = {n: p.detach().clone() for n, p in s.model.encoder.named_parameters()}
    torch.manual_seed(3)
    method.prepare(s.model, s.train)
    changed = {n.split(".")[2] for n, p in s.model.encoder.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {"1", "2"}
    weight = s.model.encoder.encoder.layer[2].intermediate.dense.weight
    assert float(weight.detach().std()) == pytest.approx(s.model.encoder.config.initializer_range, rel=0.1)


def test_fresh_layers_must_train(staged):
    with pytest.raises(InputError, match="Take one that does"):
        begun(staged, ReinitialisedLayers(), method=suited_to_tiny_networks(LoRA))
    with pytest.raises(InputError, match="the encoder has 3"):
        begun(staged, ReinitialisedLayers(blocks=4))


@pytest.mark.parametrize(("course", "factors"), [("rise", [0, 0.5, 1, 1]), ("fall", [1, 0.5, 0, 0])])
def test_dropout_goes_its_course(staged, course, factors):
    s, objective, _ = begun(staged, DropoutSchedule(course=course, over=0.5), dropout=None)
    for fraction, factor in zip((0.0, 0.25, 0.5, 1.0), factors, strict=True):
        if fraction:
            objective.after_step(1, fraction)
        now = {m.p for m in s.model.encoder.modules() if isinstance(m, torch.nn.Dropout)}
        assert now == {0.1 * factor}
    objective.end()
    assert {m.p for m in s.model.encoder.modules() if isinstance(m, torch.nn.Dropout)} == {0.1}


def test_mixup_blends_embeddings_and_losses_alike(staged):
    _, objective, _ = begun(staged, Mixup(alpha=1.0), label_smoothing=0.0)
    (effect,) = objective.effects
    torch.manual_seed(11)
    embeddings, targets = torch.eye(6, 3)[:6] + torch.arange(6.0).unsqueeze(1), torch.tensor([0, 1, 2, 0, 1, 2])
    own, partner = effect._pairs(embeddings)
    assert 0 <= float(own.min()) <= float(own.max()) <= 1
    blended = effect.embeddings(embeddings)
    torch.testing.assert_close(
        blended, own[:, None] * embeddings + (1 - own[:, None]) * embeddings[partner], atol=1e-5, rtol=0
    )
    logits = torch.randn(6, 3)
    own, partner = effect._pairs(logits)
    charged = own * F.cross_entropy(logits, targets, reduction="none")
    charged += (1 - own) * F.cross_entropy(logits, targets[partner], reduction="none")
    torch.testing.assert_close(objective.answers([logits], targets), charged.mean())


def test_modifiers_of_one_stage_combine_and_the_loss_is_the_same_in_parts(staged):
    s, objective, _ = begun(staged, L2SP(), L1(), ClassWeights(), FocalLoss())
    moved(s.model)
    whole = objective.loss(s.train.batch(np.arange(8)))
    parts = [objective.loss(s.train.batch(np.arange(k, k + 4))) / 2 for k in (0, 4)]
    torch.testing.assert_close(whole, parts[0] + parts[1])
