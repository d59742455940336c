"""Adapting to a domain without labels: each method by its own equation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.domain_classifier import a_distance, error, fitted, importance, out_of_fold
from graftwork.examples import tokenised
from graftwork.features import embeddings
from graftwork.heads import Stacked
from graftwork.loop import train
from graftwork.method import recipe_of, unmet
from graftwork.methods import Coral, Dann, DomainStacking, FullFineTuning, LinearProbe, PseudoLabels, TopLayers
from graftwork.methods.domain import (
    Beside,
    Reversal,
    _SelfTaught,
    _TwoDomains,
    covariance_gap,
    domain_loss,
    plain,
    pseudo_labelled,
    vectors,
)  # fmt: skip
from graftwork.testing import learnable

QUICK = {"lr": 5e-3, "head_lr_factor": 2.0, "batch_size": 16}


@pytest.fixture
def adapting(staged):
    """A model, source and target, and a stage of the loop."""

    def make(method, **options):
        work = staged(method, **options)
        work.data = Data.load(
            learnable("classification"), target={"train": learnable("classification", seed=1)["train"]}
        )
        work.train, work.validation = (
            tokenised(work.data, split, work.model.task, work.model.modality) for split in ("train", "validation")
        )
        return work

    return make


def prepared(work):
    torch.manual_seed(0)
    work.stage.method.prepare(work.model, work.train)
    return work.model, work.stage.method.reads(work.model, work.train)


# --- the domain classifier ---


def test_a_classifier_tells_domains_apart_that_lie_apart_and_no_others():
    generator = np.random.default_rng(0)
    source, alike, apart = (generator.normal(size=(100, 5)) for _ in range(3))
    apart[:, 0] += 8
    assert a_distance(error(*out_of_fold(source, apart))) > 1.8
    assert a_distance(error(*out_of_fold(source, alike))) < 0.4
    weights, bias = fitted(source, apart)
    length = np.linalg.norm(apart, axis=1, keepdims=True)
    assert ((apart / length) @ weights + bias > 0).mean() > 0.9


def test_importance_is_the_ratio_of_densities_whatever_the_rows():
    p = np.array([0.5, 0.8, 0.2])  # odds 1, 4, 1/4
    np.testing.assert_allclose(importance(p, most=100), np.array([1, 4, 0.25]) / 1.75)
    np.testing.assert_allclose(importance(p, flatten=0.5, most=100), np.array([1, 2, 0.5]) / (3.5 / 3))
    np.testing.assert_allclose(importance(p, flatten=0), 1)
    generator = np.random.default_rng(0)
    source, target = generator.normal(size=(400, 3)) + 3, generator.normal(size=(40, 3)) + 3
    assert abs(out_of_fold(source, target)[0].mean() - 0.5) < 0.05  # ten times the rows are no hint


def test_importance_sampling_reads_what_looks_like_the_target_more_often(adapting):
    method = FullFineTuning(modifiers=["importance-sampling"], **QUICK)
    work = adapting(method)
    model, rows = prepared(work)
    objective = method.objective(model, rows, [])
    chances = np.asarray(model.importance)
    drawn = np.bincount(objective.effects[0].places(np.random.default_rng(0)), minlength=len(rows))
    assert drawn.sum() == len(rows)
    assert (np.abs(drawn - chances) < 1).all()
    objective.end()
    assert not hasattr(model, "importance")


# --- making both alike ---


def test_the_gradient_is_reversed_and_multiplied():
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    y = Reversal.apply(x, 0.25)
    assert torch.equal(y, x)
    (y * torch.tensor([3.0, 5.0])).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([-0.75, -1.25]))


def test_lambda_rises_as_the_paper_says():
    method = Dann(weight=0.5, gamma=10)
    assert method.strength(0) == 0
    assert method.strength(0.3) == pytest.approx(0.5 * (2 / (1 + math.exp(-3)) - 1))
    assert method.strength(1) == pytest.approx(0.5, abs=1e-4)


def test_the_domain_loss_counts_both_domains_alike():
    logits = torch.tensor([0.3, -1.0, 2.0])
    by_hand = (F.softplus(torch.tensor([0.3, -1.0])).mean() + F.softplus(torch.tensor(-2.0))) / 2
    torch.testing.assert_close(domain_loss(logits, 2), by_hand)


def test_coral_by_hand():
    source = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])  # covariance [[2, 0], [0, 0]]
    target = torch.tensor([[0.0, 1.0], [0.0, -1.0], [1.0, 0.0], [-1.0, 0.0]])  # [[2/3, 0], [0, 2/3]]
    torch.testing.assert_close(covariance_gap(source, target), torch.tensor(((4 / 3) ** 2 + (2 / 3) ** 2) / 16))
    assert covariance_gap(source[:1], target) == 0


@pytest.mark.parametrize("method", [Dann, Coral])
def test_without_weight_it_is_full_fine_tuning_bit_for_bit(adapting, method):
    states = []
    for chosen in (method(weight=0, **QUICK), FullFineTuning(**QUICK)):
        work = adapting(chosen, steps=6)
        model, _ = prepared(work)
        train(model, work.train, work.validation, work.stage)
        states.append(chosen.finish(model, work.train).state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_at_lambda_0_the_encoder_is_moved_by_source_labels_alone(adapting):
    method = Dann(dropout=0.0, **QUICK)
    work = adapting(method)
    model, both = prepared(work)
    model.eval()
    objective = _TwoDomains(method, model, both, [])
    places = objective.batches((0,))[0]
    assert (places < both.source_rows).sum() * 2 == len(places)
    objective.loss(both.batch(places)).backward()
    found = {name: p.grad.clone() for name, p in model.encoder.named_parameters() if p.grad is not None}
    model.zero_grad()
    plainly = FullFineTuning(**QUICK).objective(model, work.train, [])
    plainly.loss(work.train.batch(places[places < both.source_rows])).backward()
    assert all(torch.equal(found[name], p.grad) for name, p in model.encoder.named_parameters() if p.grad is not None)
    objective.after_step(1, 1.0)  # at the end of the budget it is not
    model.zero_grad()
    objective.loss(both.batch(places)).backward()
    assert not torch.equal(found["embeddings.word_embeddings.weight"], model.encoder.get_input_embeddings().weight.grad)


def test_a_step_makes_the_domains_harder_to_tell_for_the_encoder_and_easier_for_the_classifier(adapting):
    method = Dann(dropout=0.0, **QUICK)
    work = adapting(method)
    model, both = prepared(work)
    model.eval()
    source, target = (part.batch(np.arange(60)).inputs for part in both.parts)

    def gap():
        return method.gap(model, *(vectors(model, model.embed(x), x["attention_mask"]) for x in (source, target)), 1.0)

    def after_a_step(part):
        gap().backward()
        before = [p.detach().clone() for p in part.parameters()]
        with torch.no_grad():
            for p in part.parameters():
                p -= 1e-3 * p.grad
            found = float(gap())
            for p, old in zip(part.parameters(), before, strict=True):
                p.copy_(old)
        model.zero_grad()
        return found

    with torch.no_grad():
        now = float(gap())
    assert after_a_step(model.get_submodule("domain")) < now < after_a_step(model.encoder)


# --- learning from its own answers ---


def test_pseudo_labels_are_the_sure_answers_and_their_precision_is_that_of_validation(adapting):
    work = adapting(PseudoLabels(threshold=0.6, **QUICK))
    model, both = prepared(work)
    told = work.stage.method.notes(model)["pseudo_labels"]
    decision = model.task.decide(model.outputs(work.data["validation"].inputs()),
                                 model.task.targets(work.data["validation"].labels()), 1.0)  # fmt: skip
    answers = model.task.read(model.outputs(work.data["target"].inputs()), decision)
    sure = [a for a in answers if a.confidence >= 0.6]
    assert 0 < told["taken"] == len(sure) < told["target_rows"]
    assert [model.task.labels[i] for i in both.parts[1].targets] == [a.label for a in sure]
    held = model.task.read(model.outputs(work.data["validation"].inputs()), decision)
    right = [a.label == t for a, t in zip(held, work.data["validation"].labels(), strict=True) if a.confidence >= 0.6]
    assert told["validation_precision"] == pytest.approx(np.mean(right))
    assert sum(told["per_class"].values()) == told["taken"]


def test_source_and_target_count_by_their_means(adapting):
    method = PseudoLabels(threshold=0.0, weight=0.3, dropout=0.0, label_smoothing=0.0, **QUICK)
    model, both = prepared(adapting(method))
    model.eval()
    places = _SelfTaught(method, model, both, []).batches((0,))[1]
    batch = both.batch(places)
    with torch.no_grad():
        found = _SelfTaught(method, model, both, []).loss(batch)
        losses = F.cross_entropy(model(batch.inputs), batch.targets, reduction="none")
    own = torch.from_numpy(places < both.source_rows)
    torch.testing.assert_close(found, losses[own].mean() + 0.3 * losses[~own].mean())


def test_where_no_answer_is_sure_the_source_alone_is_learned(adapting, caplog):
    work = adapting(PseudoLabels(threshold=0.999999, **QUICK))
    with torch.no_grad():
        work.model.head.linear.weight.zero_()
    work.model.head.fresh = False
    _, rows = prepared(work)
    assert rows is work.train
    assert "lower threshold" in caplog.text


def test_a_head_that_has_learned_nothing_gives_no_labels(adapting):
    work = adapting(PseudoLabels(head_start="random", **QUICK))
    with pytest.raises(InputError, match="full-fine-tuning,pseudo-labels"):
        prepared(work)


def test_the_stack_begins_as_the_source_classifier_and_reads_the_domain(adapting):
    torch.manual_seed(0)
    network = Stacked(hidden=4).build(6, 3, token_level=False)
    x = torch.randn(5, 6)
    assert torch.equal(network(x), network.source(x))
    with torch.no_grad():
        network.stack[2].weight.normal_()
        unit = F.normalize(x, dim=-1) * 10
        read = torch.cat([unit, network.source(x).softmax(-1), network.domain(x).sigmoid()], -1)
        torch.testing.assert_close(network(x), network.source(x) + network.stack(read))
    network(x).sum().backward()
    assert network.domain.linear.weight.grad is None


def test_a_stack_stands_on_the_head_that_was_trained_before(adapting):
    work = adapting(FullFineTuning(**QUICK), steps=4)
    work.run()
    before = np.stack(work.model.outputs(work.data["test"].inputs()))
    method = DomainStacking(threshold=0.0, **QUICK)
    method.prepare(work.model, work.train)
    np.testing.assert_allclose(np.stack(work.model.outputs(work.data["test"].inputs())), before, atol=1e-5)
    target = tokenised(work.data, "target", work.model.task, work.model.modality)
    with torch.no_grad():
        found = work.model.head.domain(torch.tensor(embeddings(work.model, target))).numpy()[:, 0]
    weights, bias = fitted(embeddings(work.model, work.train), embeddings(work.model, target))
    x = embeddings(work.model, target)
    np.testing.assert_allclose(found, x / np.linalg.norm(x, axis=1, keepdims=True) @ weights + bias, atol=1e-3)


# --- what adapting is compared with ---


def test_the_plain_recipe_is_the_same_without_the_target():
    assert plain(recipe_of([{"dann": {"blocks": 1}}])) == [Dann(blocks=1, weight=0.0)]
    assert plain(recipe_of("lora:importance-sampling:ema")) == list(recipe_of("lora:ema"))
    assert plain(recipe_of(["full-fine-tuning", "pseudo-labels"])) == [FullFineTuning()]
    assert plain([PseudoLabels(blocks=1, lr=1e-3)]) == [TopLayers(blocks=1, lr=1e-3)]
    assert plain([PseudoLabels(lr=1e-3)]) == [FullFineTuning(lr=1e-3)]
    assert plain([DomainStacking()]) == [LinearProbe()]


def test_they_are_refused_without_a_target():
    data = Data.load(learnable("classification"))
    for name in ("dann", "coral", "pseudo-labels", "domain-stacking", "lora:importance-sampling"):
        assert "--target FILE" in str(unmet(recipe_of(name), data)), name


def test_the_target_is_never_asked_for_labels(adapting):
    work = adapting(Dann(**QUICK))
    target = tokenised(work.data, "target", work.model.task, work.model.modality)
    both = Beside(work.train, target)
    assert len(both) == len(work.train) + len(target)
    assert pseudo_labelled(work.model, work.train, 0.0).told["taken"] == len(target)
