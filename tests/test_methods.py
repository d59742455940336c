"""Every method on the shelf keeps the contract, and each does what its own paper says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold

from graftwork import layers
from graftwork.choice import InputError, lookup, names
from graftwork.data import Data
from graftwork.examples import tokenised
from graftwork.features import embeddings, layer_states
from graftwork.layers import frozen_depth
from graftwork.method import Method, unmet
from graftwork.methods import (
    DiscriminativeRates,
    FullFineTuning,
    GradualUnfreezing,
    LinearProbe,
    LoRA,
    LowerLayers,
    TopLayers,
)
from graftwork.model import TransferModel
from graftwork.tasks import Classification
from graftwork.testing import KEYWORDS, ContractBroken, check_method, learnable, method_checks

CONTRACT = [(method, name, check) for method in names(Method) for name, check in method_checks(lookup(Method, method))]


@pytest.mark.parametrize(("method", "claim", "check"), CONTRACT, ids=[f"{m}-{claim}" for m, claim, _ in CONTRACT])
def test_keeps_the_contract(method, claim, check):
    check()


# --- references ---


@pytest.fixture(scope="module")
def work(tiny):
    """A fresh model and its tokenised train split, for 2 or 3 classes."""

    def make(classes: int = 3, missing: str | None = None, folder=tiny):
        rows = {split: [r for r in rows if r["label"] in list(KEYWORDS)[:classes]] for split, rows in ROWS.items()}
        labels = sorted({r["label"] for r in rows["train"]})
        rows["train"] = [r for r in rows["train"] if r["label"] != missing]
        data = Data.load(rows)
        torch.manual_seed(0)
        model = TransferModel.pretrained(folder, Classification(labels=tuple(labels)))
        return model, data, tokenised(data, "train", model.task, model.modality)

    return make


ROWS = learnable("classification")


@pytest.mark.parametrize("classes", [2, 3])
def test_linear_probe_predicts_what_sklearn_predicts(work, classes):
    model, data, train = work(classes)
    LinearProbe(strengths=(10.0,)).finish(model, train)
    with torch.no_grad():
        x = np.stack([model.embed(train.batch(np.array([i])).inputs)[0].numpy() for i in range(len(train))])
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    theirs = LogisticRegression(C=10.0, max_iter=1000).fit(x, data["train"].labels()).predict_proba(x)
    ours = np.array([list(p.probabilities.values()) for p in model.predict(data["train"].inputs())])
    np.testing.assert_allclose(ours, theirs, atol=2e-3)  # two solvers, each within its tolerance


def test_linear_probe_chooses_the_strength_that_sklearn_chooses(work):
    model, data, train = work()
    LinearProbe(strengths=(0.01, 1.0, 100.0), folds=3, seed=4).finish(model, train)
    x = model.head.prepared(embeddings(model, train))
    folds = StratifiedKFold(3, shuffle=True, random_state=4)
    theirs = LogisticRegressionCV(
        Cs=(0.01, 1.0, 100.0),
        cv=folds,
        scoring="accuracy",
        max_iter=1000,
        use_legacy_attributes=False,
        l1_ratios=(0.0,),
    ).fit(x, data["train"].labels())
    ours = [p.label for p in model.predict(data["validation"].inputs())]
    model.head.linear.weight.data = torch.from_numpy(theirs.coef_ / model.head.scale).float()
    model.head.linear.bias.data = torch.from_numpy(theirs.intercept_).float()
    assert ours == [p.label for p in model.predict(data["validation"].inputs())]


def test_linear_probe_never_predicts_a_class_that_train_does_not_hold(work):
    model, data, train = work(missing="food")
    LinearProbe().finish(model, train)
    predictions = model.predict(data["test"].inputs() + data["validation"].inputs())
    assert "food" not in {p.label for p in predictions}
    assert max(p.probabilities["food"] for p in predictions) < 1e-3


def test_merged_lora_answers_as_the_updates_beside_the_weights_do(work):
    model, data, train = work()
    method = LoRA(rank=4, alpha=32)
    method.prepare(model, train)
    torch.manual_seed(3)
    for name, parameter in model.encoder.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    beside = np.stack(model.outputs(data["test"].inputs()))
    merged = np.stack(method.finish(model, train).outputs(data["test"].inputs()))
    np.testing.assert_allclose(merged, beside, atol=2e-5)


def test_lora_begins_where_the_pretrained_model_is(work):
    model, data, train = work()
    before = np.stack(model.outputs(data["test"].inputs()))
    LoRA(head_start="random").prepare(model, train)
    np.testing.assert_array_equal(np.stack(model.outputs(data["test"].inputs())), before)


@pytest.mark.parametrize("targets", ["query,value", " query , value "])
def test_lora_trains_the_layers_it_is_told(work, targets):
    model, _, train = work()
    LoRA(targets=targets).prepare(model, train)
    trains = {n.split(".lora_")[0].split(".")[-1] for n, p in model.encoder.named_parameters() if p.requires_grad}
    assert trains == {"query", "value"}


def test_groups_decay_matrices_alone_and_slow_down_with_depth(work):
    model, _, train = work()
    method = FullFineTuning(lr=1e-3, head_lr_factor=5, layer_decay=0.5, weight_decay=0.1)
    method.prepare(model, train)
    rate = {g.name: g.lr for g in method.param_groups(model)}
    expected = {"head": 5e-3, "block 2": 1e-3, "block 1": 5e-4, "block 0": 2.5e-4, "embeddings": 1.25e-4}
    assert {n: pytest.approx(lr) for n, lr in expected.items()} == {
        n: lr for n, lr in rate.items() if not n.endswith("no decay")
    } | ({"embeddings": rate["embeddings, no decay"]})
    names_of = {id(p): n for n, p in model.named_parameters()}
    for group in method.param_groups(model):
        for parameter in group.parameters:
            plain = parameter.ndim == 1 or "embedding" in names_of[id(parameter)]
            assert group.weight_decay == (0.0 if plain else 0.1), names_of[id(parameter)]


def test_no_embedding_table_decays_in_any_architecture(models):
    for architecture in ("roberta", "distilbert", "gpt2"):
        torch.manual_seed(0)
        model = TransferModel.pretrained(models(architecture), Classification(labels=("a", "b")))
        tables = {id(m.weight) for m in model.encoder.modules() if isinstance(m, torch.nn.Embedding)}
        for group in FullFineTuning(weight_decay=0.1).param_groups(model):
            if group.weight_decay:
                assert tables.isdisjoint(id(p) for p in group.parameters), architecture


def test_discriminative_rates_divide_by_the_factor_at_each_depth(work):
    model, _, train = work()
    method = DiscriminativeRates(lr=1e-3, decay=2.0)
    method.prepare(model, train)
    rate = {g.name.removesuffix(", no decay"): g.lr for g in method.param_groups(model)}
    assert [rate[f"block {i}"] for i in (2, 1, 0)] == pytest.approx([1e-3, 5e-4, 2.5e-4])
    assert rate["embeddings"] == pytest.approx(1.25e-4)


@pytest.mark.parametrize(("blocks", "trains"), [(0, set()), (1, {"2"}), (2, {"1", "2"}), (9, {"0", "1", "2"})])
def test_top_layers_trains_so_many_blocks_and_no_embeddings(work, blocks, trains):
    model, _, train = work()
    TopLayers(blocks=blocks).prepare(model, train)
    names_that_train = [n for n, p in model.encoder.named_parameters() if p.requires_grad]
    assert {n.split(".")[2] for n in names_that_train} == trains
    assert all(p.requires_grad for p in model.head.parameters())


def test_gradual_unfreezing_adds_one_depth_at_a_time_from_the_top(work):
    model, _, train = work()
    method = GradualUnfreezing(every=2)
    method.prepare(model, train)
    frozen = []
    for epoch in range(12):
        method.on_epoch(model, epoch)
        frozen.append(frozen_depth(model.encoder))
    assert frozen == [4, 4, 3, 3, 2, 2, 1, 1, 0, 0, 0, 0]


def test_a_fresh_head_starts_from_the_probe_and_a_trained_one_is_kept(work):
    model, _, train = work()
    FullFineTuning().prepare(model, train)
    started = model.head.linear.weight.clone()
    again, _, _ = work()
    LinearProbe(strengths=(10.0,)).finish(again, train)
    torch.testing.assert_close(started, again.head.linear.weight, atol=0.1, rtol=0)  # bf16, and a looser tolerance
    model.head.linear.weight.data.zero_()
    model.head.fresh = False
    FullFineTuning().prepare(model, train)
    assert not model.head.linear.weight.any()


def test_the_encoder_is_cut_where_a_probe_reads_best(work):
    model, _, train = work()
    with torch.no_grad():  # a top that has forgotten everything
        for parameter in layers.stacks(model.encoder)[0][1][-1].parameters():
            parameter.zero_()
    whole = sum(p.numel() for p in model.encoder.parameters())
    method = LowerLayers()
    best = method.best(model, train)
    assert best < 3
    cut = method.finish(model, train)
    assert layers.block_count(cut.encoder) == best == cut.encoder.config.num_hidden_layers
    assert sum(p.numel() for p in cut.encoder.parameters()) < whole
    assert not cut.head.fresh


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "gpt2"])
def test_a_cut_encoder_says_what_its_lower_blocks_said_and_loads_so(work, models, tmp_path, architecture):
    model, _, train = work(folder=models(architecture))
    places = np.arange(10)
    expected = layer_states(model, train, places, "fp32")[2]
    cut = LowerLayers(blocks=2).finish(model, train)
    cut.save(tmp_path)
    again = TransferModel.load(tmp_path)
    for each in (cut, again):
        # what follows the blocks, a last norm, is not in the states between them
        found = layer_states(each, train, places, "fp32")
        assert len(found) == 3
        if not any(g.name == "output" for g in layers.layer_groups(each.encoder)):
            np.testing.assert_allclose(found[2], expected, atol=1e-5)
    np.testing.assert_array_equal(layer_states(cut, train, places, "fp32"), layer_states(again, train, places, "fp32"))


def test_more_blocks_than_there_are_cannot_be_kept(work):
    model, _, train = work()
    with pytest.raises(InputError, match="the encoder has 3"):
        LowerLayers(blocks=4).finish(model, train)


def test_what_a_method_needs_and_does_not_find_is_told_before_anything_runs(work):
    _, data, _ = work()

    class NeedsTarget(LinearProbe, abstract=True):
        needs = frozenset({"target"})

    assert "needs unlabelled texts of the target domain" in (unmet([LinearProbe(), NeedsTarget()], data) or "")
    assert unmet([LinearProbe()], data) is None


# --- the checks themselves ---


class MovesTheEncoder(LinearProbe, abstract=True):
    """Says that it fits a head, and moves a weight elsewhere."""

    def finish(self, model, train):
        model = super().finish(model, train)
        next(model.encoder.parameters()).data.add_(1)
        return model


class ForgetsAGroup(FullFineTuning, abstract=True):
    """Trains a layer that no group holds."""

    def param_groups(self, model):
        return [g for g in super().param_groups(model) if g.name != "block 1"]


class KeepsItsWrapper(LoRA, abstract=True):
    """Hands back the updates beside the weights."""

    def finish(self, model, train):
        return model


class DrawsAtRandom(LinearProbe, abstract=True):
    """Ends elsewhere each time."""

    def finish(self, model, train):
        model = super().finish(model, train)
        model.head.linear.bias.data += float(np.random.default_rng().random())
        return model


class StumblesAtEachStep(FullFineTuning, abstract=True):
    """Walks elsewhere each time."""

    def on_step(self, model, step):
        model.head.linear.bias.data += float(np.random.default_rng().random())


@pytest.mark.parametrize(
    ("method", "claim", "sentence"),
    [
        (MovesTheEncoder, "moves_only_what_it_says", "handed back changed, though neither trained nor adapted"),
        (ForgetsAGroup, "groups_every_parameter_once", "would train but stands in no group"),
        (KeepsItsWrapper, "hands_back_the_plain_model", "the modules are not those it came with"),
        (DrawsAtRandom, "same_seed_gives_the_same_bits", "two runs with one seed differ"),
        (StumblesAtEachStep, "resumes_to_the_same_bits", "two runs with one seed differ"),
    ],
)
def test_a_method_that_breaks_the_contract_is_found(method, claim, sentence):
    with pytest.raises(ContractBroken, match=f"(?i){sentence}"):
        dict(method_checks(method))[claim]()


def test_check_method_runs_every_check_on_a_configured_method():
    check_method(LinearProbe(strengths=(1.0, 10.0), folds=2))
