"""Episodes are what they say, each meta-learner takes its own paper's step, and few-shot accuracy is counted right."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.neighbors import NearestCentroid
from torch import nn
from torch.nn import functional as F

from graftwork import layers
from graftwork.choice import InputError
from graftwork.data import Data
from graftwork.episodes import Episode, Episodes, Prototypes, few_shot
from graftwork.evaluate import evaluate
from graftwork.features import embeddings
from graftwork.fit import fit
from graftwork.method import recipe_of, unmet
from graftwork.methods import MAML, Prototypical, Reptile
from graftwork.modifiers import EMA, L2SP, ClassWeights, Mixup
from graftwork.regression import start_head
from graftwork.testing import learnable, method_checks, suited_to_tiny_networks, tiny_model

CLASSES = np.repeat([3, 5, 6, 8, 9], [12, 10, 9, 10, 40])  # five classes, one of them with 9 rows


@pytest.fixture
def begun(staged):
    """A stage up to its first step, in eval mode: the stage and its objective."""

    def make(cls, **fields):
        method = suited_to_tiny_networks(cls, **{"dropout": 0.0, "ways": 3, "shots": 2, "queries": 4} | fields)
        s = staged(method)
        torch.manual_seed(0)
        method.prepare(s.model, s.train)
        weights = [p for g in method.param_groups(s.model) for p in g.parameters]
        s.objective = method.objective(s.model, s.train, weights)
        s.batch = s.train.batch(s.objective.batches((0,))[0])
        s.model.eval()
        return s

    return make


def embedded(model, batch, ways=3):
    """(ways, rows, dim), as the batch's one episode has them."""
    return model.embed(batch.inputs).unflatten(0, (ways, -1))


def gradients(s, batch=None):
    """Of the encoder's weights, by name."""
    s.model.zero_grad()
    s.objective.loss(batch or s.batch).backward()
    return {n: p.grad.clone() for n, p in s.model.encoder.named_parameters() if p.grad is not None}


# --- episodes ---


def test_an_episode_has_different_rows_of_different_classes_with_rows_enough():
    episodes = Episodes(CLASSES, ways=3, shots=4, queries=6)
    generator, drawn = np.random.default_rng(0), set()
    for _ in range(100):
        rows = episodes.draw(generator)
        assert rows.shape == (3, 10)
        assert len(set(rows.flat)) == 30 == episodes.size
        classes = CLASSES[rows]
        assert (classes == classes[:, :1]).all()
        assert len(set(classes[:, 0])) == 3
        drawn |= set(classes[:, 0].tolist())
    assert drawn == {3, 5, 8, 9}  # class 6 has 9 rows


def test_too_few_classes_with_rows_enough_are_told():
    with pytest.raises(InputError, match=r"Episodes of 5 classes with 4 \+ 6 rows are asked for, and the data has 4"):
        Episodes(CLASSES, ways=5, shots=4, queries=6)


@pytest.mark.parametrize(("batch_size", "together"), [(16, 1), (18, 1), (36, 2), (50, 2)])
def test_a_batch_is_as_many_whole_episodes_as_fit(begun, batch_size, together):
    objective = begun(Prototypical, batch_size=batch_size).objective
    batches = objective.batches((0, 0, 1))
    assert len(batches) == objective.steps_per_epoch == -(-90 // (18 * together))
    for batch in batches:
        assert len(batch) == 18 * together
        for episode in batch.reshape(together, 3, 6):
            classes = objective.train.targets[episode]
            assert (classes == classes[:, :1]).all()
            assert len(set(classes[:, 0])) == 3


def test_the_episodes_of_an_epoch_depend_on_its_seed_alone(begun):
    objective = begun(Prototypical).objective
    first, again, next_epoch = (objective.batches(seed) for seed in [(3, 0, 1), (3, 0, 1), (3, 0, 2)])
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, next_epoch, strict=True))


def test_where_train_has_fewer_classes_an_episode_is_of_all_of_them(begun):
    assert begun(Prototypical, ways=20).objective.episodes.ways == 3


# --- prototypes ---


def test_euclidean_prototypes_answer_by_the_squared_distance_to_the_mean():
    support, query = torch.randn(2, 4, 3, 8, generator=torch.Generator().manual_seed(0)).unbind()
    means = support.mean(dim=1)
    distance = (query.unsqueeze(2) - means).square().sum(dim=-1)  # (4, 3, 4)
    found = Prototypes.of(support, "euclidean")(query).softmax(dim=-1)
    torch.testing.assert_close(found, (-distance).softmax(dim=-1))


def test_cosine_prototypes_answer_by_the_scaled_cosine_to_the_mean_of_unit_vectors():
    support, query = torch.randn(2, 4, 3, 8, generator=torch.Generator().manual_seed(0)).unbind()
    means = (support / support.norm(dim=-1, keepdim=True)).mean(dim=1)
    cosine = F.cosine_similarity(query.unsqueeze(2), means, dim=-1)
    torch.testing.assert_close(Prototypes.of(support, "cosine", 7.0)(query), 7 * cosine)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_prototypical_loss_is_that_of_the_query_against_the_supports_means(begun, metric):
    s = begun(Prototypical, metric=metric, scale=5.0, batch_size=36)
    losses = []
    for places in s.batch.places.reshape(2, 18):
        z = embedded(s.model, s.train.batch(places))
        if metric == "cosine":
            z = F.normalize(z, dim=-1)
        means = z[:, :2].mean(dim=1)
        for k in range(3):
            for x in z[k, 2:]:
                score = (
                    -(x - means).square().sum(dim=-1) if metric == "euclidean" else 5 * F.cosine_similarity(x, means)
                )
                losses.append(-score.log_softmax(dim=-1)[k])
    torch.testing.assert_close(s.objective.loss(s.batch), torch.stack(losses).mean(), atol=1e-5, rtol=1e-4)


# --- MAML ---


class Scale(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(value, dtype=torch.float64))


class Chain(nn.Module):
    """Two blocks of one weight each; what it says is up to the test."""

    def __init__(self):
        super().__init__()
        self.layer = nn.ModuleList([Scale(0.5), Scale(2.0)])


@dataclass
class Known:
    """An episode whose losses on support and query are given functions of the lower and the upper weight."""

    on_support: object
    on_query: object
    encoder: nn.Module
    support, query = range(1), range(1, 2)

    def read(self, columns, weights=None):
        named = dict(self.encoder.named_parameters()) | (weights or {})
        return (self.on_support if columns == self.support else self.on_query)(
            named["layer.0.weight"], named["layer.1.weight"]
        )


class Given(MAML, abstract=True):
    """MAML whose losses are what an episode says; the upper of two blocks adapts."""

    def prototypes(self, support):
        return Prototypes("euclidean", torch.zeros(1, 1), torch.zeros(1))

    def cross_entropy(self, classifier, z):
        return z


def outer_gradient(order, support, query, **fields):
    """With respect to the lower and the upper weight."""
    chain = Chain()
    method = Given(order=order, shots=1, queries=1, inner_blocks=1, **fields)
    method.episode_loss(Known(support, query, chain)).backward()
    return [float(block.weight.grad or 0) for block in chain.layer]


@pytest.mark.parametrize("steps", [1, 2])
def test_second_order_maml_goes_through_its_steps_and_first_order_takes_them_as_given(steps):
    """With L_support = a (w - s v)^2 / 2 and L_query = (w - q)^2 / 2: w' - s v = (1 - rate a)^k (w - s v)."""
    a, s, q, rate, v, w = 3.0, 1.5, -1.0, 0.1, 0.5, 2.0
    asked = {
        "support": lambda v, w: a * (w - s * v) ** 2 / 2, "query": lambda v, w: (w - q) ** 2 / 2,
        "inner_lr": rate, "inner_steps": steps,
    }  # fmt: skip
    shrunk = (1 - rate * a) ** steps
    adapted = s * v + shrunk * (w - s * v)
    assert outer_gradient(2, **asked) == pytest.approx([(adapted - q) * s * (1 - shrunk), (adapted - q) * shrunk])
    assert outer_gradient(1, **asked) == pytest.approx([0.0, adapted - q])


def test_without_curvature_both_orders_are_the_same():
    asked = {"support": lambda v, w: 3 * w + v, "query": lambda v, w: (w * v - 1) ** 2, "inner_lr": 0.1}
    assert outer_gradient(1, **asked) == pytest.approx(outer_gradient(2, **asked))


def test_second_order_maml_is_the_derivative_of_the_loss_after_the_steps(begun):
    """Against finite differences of the whole network, its prototypes and two steps included."""
    s = begun(MAML, order=2, inner_lr=0.3, inner_steps=2, inner_blocks=2, scale=5.0)
    exact = gradients(s)
    s.objective.method = s.stage.method.model_copy(update={"order": 1})
    taken_as_given = gradients(s)
    s.objective.method = s.stage.method
    generator = torch.Generator().manual_seed(0)
    named = dict(s.model.encoder.named_parameters())
    pairs = []
    for _ in range(5):
        way = {n: torch.randn(g.shape, generator=generator) for n, g in exact.items()}
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for n, v in way.items():
                    named[n] += sign * 1e-4 * v
            values.append(s.objective.loss(s.batch).item())
            with torch.no_grad():
                for n, v in way.items():
                    named[n] -= sign * 1e-4 * v
        along = [sum((g[n] * v).sum().item() for n, v in way.items()) for g in (exact, taken_as_given)]
        pairs.append([(values[0] - values[1]) / 2e-4, *along])
    measured, through, given = np.array(pairs).T
    np.testing.assert_allclose(through, measured, rtol=0.05, atol=0.02)
    assert abs(given - measured).max() > 5 * abs(through - measured).max()


@pytest.mark.parametrize(("blocks", "adapt"), [(0, set()), (1, {"2"}), (2, {"1", "2"}), (9, {"0", "1", "2"})])
def test_only_the_topmost_blocks_take_the_steps_and_all_learn(begun, blocks, adapt):
    s = begun(MAML, inner_blocks=blocks)
    assert {name.split(".")[2] for name in s.stage.method.adapting(s.model.encoder)} == adapt
    found = gradients(s)
    assert {n.split(".")[2] for n in found if n.startswith("encoder.layer")} == {"0", "1", "2"}
    assert "embeddings.word_embeddings.weight" in found


def test_without_steps_worth_the_name_maml_is_prototypical(begun):
    maml, prototypical = (begun(cls, **fields) for cls, fields in ((MAML, {"inner_lr": 1e-12}), (Prototypical, {})))
    torch.testing.assert_close(maml.objective.loss(maml.batch), prototypical.objective.loss(prototypical.batch))
    ours, theirs = gradients(maml), gradients(prototypical)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, atol=1e-5, rtol=1e-3)


# --- Reptile ---


def test_reptiles_outer_step_goes_towards_where_plain_gradient_descent_ends(begun):
    s = begun(Reptile, inner_lr=0.05, inner_steps=3)
    there = copy.deepcopy(s.model)
    with torch.no_grad():
        start = Prototypes.of(embedded(there, s.batch)[:, :2], "cosine")
    head = [start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_()]
    descent = torch.optim.SGD([*there.encoder.parameters(), *head], lr=0.05)
    losses = []
    for columns in ([0, 1], [2, 3], [4, 5]):  # 6 rows a class over 3 steps
        descent.zero_grad()
        z = F.normalize(embedded(there, s.batch)[:, columns], dim=-1)
        loss = F.cross_entropy(F.linear(z, *head).flatten(0, 1), torch.arange(3).repeat_interleave(2))
        loss.backward()
        descent.step()
        losses.append(loss.item())
    before = {n: p.detach().clone() for n, p in s.model.encoder.named_parameters()}
    assert s.objective.loss(s.batch).item() == pytest.approx(np.mean(losses), abs=1e-5)
    assert all(torch.equal(p, before[n]) for n, p in s.model.encoder.named_parameters())
    found = gradients(s)
    phi_tilde = dict(there.encoder.named_parameters())
    for name, phi in before.items():  # phi + epsilon (phi~ - phi), by gradient descent at a rate of epsilon * inner_lr
        stepped = phi - 0.4 * 0.05 * found[name]
        torch.testing.assert_close(stepped, phi + 0.4 * (phi_tilde[name] - phi).detach(), atol=1e-6, rtol=1e-4)


# --- in a stage ---


@pytest.mark.parametrize("cls", [Prototypical, MAML, Reptile])
def test_a_step_of_several_episodes_is_the_mean_of_theirs(begun, cls):
    s = begun(cls, batch_size=36)
    each = [gradients(s, s.train.batch(places)) for places in s.batch.places.reshape(2, 18)]
    for name, gradient in gradients(s).items():
        torch.testing.assert_close(gradient, (each[0][name] + each[1][name]) / 2, atol=1e-5, rtol=1e-3)


OTHERWISE = [(MAML, {"order": 2}), (Reptile, {"metric": "euclidean"}), (Prototypical, {"metric": "euclidean"})]
CONTRACT = [
    pytest.param(check, id=f"{cls.__name__}-{claim}")
    for cls, fields in OTHERWISE
    for claim, check in method_checks(suited_to_tiny_networks(cls, **fields))
    if claim in ("learns", "resumes_to_the_same_bits")
]


@pytest.mark.parametrize("check", CONTRACT)
def test_keeps_the_contract_in_its_other_ways_too(check):
    check()


@pytest.mark.parametrize(("cls", "fields"), [(Prototypical, {}), (MAML, {}), (MAML, {"order": 2}), (Reptile, {})])
def test_learns_in_half_precision(begun, cls, fields):
    s = begun(cls, **fields)
    exact = gradients(s)
    s.model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = s.objective.loss(s.batch)
    loss.backward()
    for name in ("encoder.layer.0.output.dense.weight", "encoder.layer.2.output.dense.weight"):
        half = s.model.encoder.get_parameter(name).grad
        assert F.cosine_similarity(half.flatten(), exact[name].flatten(), dim=0) > 0.9


def test_the_head_that_validation_reads_is_that_of_the_encoder_as_it_is(begun):
    s = begun(Prototypical)
    with torch.no_grad():
        layers.stacks(s.model.encoder)[0][1][-1].output.dense.weight.mul_(-1)
    stale = s.model.head.linear.weight.clone()
    s.objective.before_validation(lambda rows: s.model.embed(s.train.batch(rows).inputs).detach().numpy())
    fresh = s.model.head.linear.weight.clone()
    start_head(s.model, s.train)
    torch.testing.assert_close(fresh, s.model.head.linear.weight, atol=0.1, rtol=0)  # that one may be in bf16
    assert not torch.allclose(stale, fresh, atol=0.3)


# --- over domains ---


@pytest.fixture
def of_other_domains(tmp_path):
    """Two files of labelled rows with the classes of `learnable`, but other words besides."""
    rows = learnable("classification")["train"]
    files = []
    for number in range(2):
        files.append(tmp_path / f"domain-{number}.jsonl")
        lines = [json.dumps({"text": f"domain {number} {row['text']}", "label": row["label"]}) for row in rows]
        files[-1].write_text("\n".join(lines))
    return files


def test_each_episode_is_of_one_domain_and_none_of_train(staged, of_other_domains):
    method = suited_to_tiny_networks(Reptile, domains=of_other_domains, shots=2, queries=4, batch_size=40)
    s = staged(method)
    method.prepare(s.model, s.train)
    mixture = method.reads(s.model, s.train)
    weights = [p for g in method.param_groups(s.model) for p in g.parameters]
    objective = method.objective(s.model, mixture, weights)
    batches = [batch for seed in range(8) for batch in objective.batches((seed,))]
    assert {mixture.part_of(batch) for batch in batches} == {1, 2}
    targets = [mixture.target(place) for place in batches[0].reshape(-1, 6)[:, 0]]
    assert len(set(map(int, targets[:3]))) == 3
    assert torch.isfinite(objective.loss(mixture.batch(batches[0])))


@pytest.mark.parametrize("cls", [Prototypical, Reptile])
def test_what_was_learned_over_domains_is_a_start_for_few_rows(cls, of_other_domains, tmp_path):
    rows = learnable("classification")
    few = {"train": rows["train"][:9], "validation": rows["validation"], "test": rows["test"]}
    first = {cls.name: {"domains": list(map(str, of_other_domains)), "lr": 2e-3, "batch_size": 30}}
    run = fit(few, method=[first, "linear-probe"], model=tiny_model(tmp_path / "model"), budget="30steps",
              out=tmp_path / "run", hardware={"device": "cpu", "precision": "fp32"})  # fmt: skip
    assert run.happened["stages"][0]["steps"] == 30
    assert evaluate(run, Data.load(few))["accuracy"] > 0.5  # by chance: 1 in 3


def test_a_domain_of_other_classes_is_refused(staged, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("text,label\n" + "".join(f"word {i} of it,{'ab'[i % 2]}\n" for i in range(60)))
    method = suited_to_tiny_networks(Prototypical, domains=[other])
    s = staged(method)
    method.prepare(s.model, s.train)
    with pytest.raises(InputError, match="has other classes than train"):
        method.reads(s.model, s.train)


@pytest.mark.parametrize("modifier", [Mixup(), ClassWeights()])
def test_modifiers_of_answers_are_refused(begun, modifier):
    with pytest.raises(InputError, match=f"'{modifier.name}' cannot act on them"):
        begun(Prototypical, modifiers=[modifier])


def test_modifiers_of_weights_act(begun):
    stages = [begun(Prototypical, modifiers=modifiers) for modifiers in ([L2SP(alpha=2.0, beta=0.0), EMA()], [])]
    for s in stages:
        with torch.no_grad():
            s.model.encoder.embeddings.LayerNorm.bias.add_(0.1)
    pulled, plain = (s.objective.loss(s.batch).item() for s in stages)
    assert pulled - plain == pytest.approx(2.0 / 2 * 32 * 0.1**2, rel=1e-3)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"shots": 20, "queries": 20}, r"with 20 \+ 20 rows are asked for, and the data has 0"),
        ({"head": "mlp"}, "linear"),
    ],
)
def test_what_cannot_be_learned_from_is_told(begun, fields, sentence):
    with pytest.raises(InputError, match=sentence):
        begun(Prototypical, **fields)


def test_more_steps_than_rows_are_refused():
    with pytest.raises(InputError, match=r"2 \+ 1 rows a class cannot be cut over 4 steps"):
        recipe_of({"reptile": {"shots": 2, "queries": 1, "inner_steps": 4}})


@pytest.mark.parametrize("kind", ["multi-label", "tagging"])
def test_needs_one_class_a_text(kind):
    assert "Method 'maml' needs" in (unmet([MAML()], Data.load(learnable(kind))) or "")


# --- few-shot accuracy ---


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_few_shot_accuracy_is_that_of_sklearns_nearest_centroid(staged, metric):
    s = staged(Prototypical())
    found = few_shot(s.model, s.data, "train", ways=2, shots=3, queries=4, episodes=25, seed=7, metric=metric)
    z = np.array(embeddings(s.model, s.train))
    z = z / np.linalg.norm(z, axis=1, keepdims=True) if metric == "cosine" else z
    drawn, generator = Episodes(np.asarray(s.train.targets), ways=2, shots=3, queries=4), np.random.default_rng(7)
    theirs = []
    for _ in range(25):
        rows = drawn.draw(generator)
        truth = np.repeat([0, 1], 3), np.repeat([0, 1], 4)
        if metric == "euclidean":
            nearest = NearestCentroid().fit(z[rows[:, :3].ravel()], truth[0])
            theirs.append(nearest.score(z[rows[:, 3:].ravel()], truth[1]))
        else:
            means = z[rows[:, :3]].mean(axis=1)
            means /= np.linalg.norm(means, axis=1, keepdims=True)
            theirs.append(((z[rows[:, 3:].ravel()] @ means.T).argmax(axis=1) == truth[1]).mean())
    np.testing.assert_allclose(found.accuracies, theirs)
    assert found.mean == pytest.approx(np.mean(theirs))
    low, high = stats.t.interval(0.95, 24, loc=np.mean(theirs), scale=stats.sem(theirs))
    assert found.half_width == pytest.approx((high - low) / 2)


def test_few_shot_accuracy_after_steps_is_that_of_plain_descent_on_the_support(staged):
    s = staged(MAML())
    s.model.eval()
    before = copy.deepcopy(s.model.state_dict())
    learner = MAML(inner_lr=0.5, inner_steps=3, inner_blocks=9)
    asked = {"ways": 3, "shots": 2, "queries": 3, "episodes": 6, "seed": 1}
    found = few_shot(s.model, s.data, "validation", answers=learner.answers, **asked)
    assert all(torch.equal(value, before[name]) for name, value in s.model.state_dict().items())
    assert not np.array_equal(found.accuracies, few_shot(s.model, s.data, "validation", **asked).accuracies)
    targets = np.asarray(s.validation.targets)
    drawn, generator, theirs = Episodes(targets, ways=3, shots=2, queries=3), np.random.default_rng(1), []
    for _ in range(6):
        batch, there = s.validation.batch(drawn.draw(generator).reshape(-1)), copy.deepcopy(s.model)
        with torch.no_grad():
            start = Prototypes.of(embedded(there, batch)[:, :2], "cosine")
        head = [start.weight.requires_grad_(), start.bias.requires_grad_()]
        blocks = [p for n, p in there.encoder.named_parameters() if not n.startswith("embeddings")]
        descent = torch.optim.SGD([*blocks, *head], lr=0.5)
        for _ in range(3):
            descent.zero_grad()
            logits = F.linear(F.normalize(embedded(there, batch)[:, :2], dim=-1), *head)
            F.cross_entropy(logits.flatten(0, 1), torch.arange(3).repeat_interleave(2)).backward()
            descent.step()
        logits = F.linear(F.normalize(embedded(there, batch)[:, 2:], dim=-1), *head)
        theirs.append((logits.argmax(dim=-1) == torch.arange(3).unsqueeze(1)).float().mean().item())
    np.testing.assert_allclose(found.accuracies, theirs)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_prototypical_answers_by_the_nearest_mean(staged, metric):
    s = staged(Prototypical())
    asked = {"ways": 3, "shots": 2, "queries": 3, "episodes": 10}
    ours = few_shot(s.model, s.data, "validation", answers=Prototypical(metric=metric).answers, **asked)
    plain = few_shot(s.model, s.data, "validation", metric=metric, **asked)
    np.testing.assert_array_equal(ours.accuracies, plain.accuracies)


def test_an_episode_is_read_as_the_model_reads_its_rows(staged):
    s = staged(Prototypical())
    s.model.eval()
    places = np.argsort(s.train.lengths)[[0, -1, 3, 40, -2, 1]]  # short and long ones
    batch = s.train.batch(places)
    z = s.model.embed(batch.inputs).view(2, 3, -1)
    episode = Episode(s.model, batch.inputs, ways=2, shots=1)
    torch.testing.assert_close(episode.read(episode.support), z[:, :1])
    torch.testing.assert_close(episode.read(episode.query), z[:, 1:])
    weights = {n: p.detach() * 1.5 for n, p in s.model.encoder.named_parameters()}
    other = copy.deepcopy(s.model)
    other.encoder.load_state_dict(weights, strict=False)
    torch.testing.assert_close(episode.read(range(3), weights), other.embed(batch.inputs).view(2, 3, -1))


def test_training_on_episodes_makes_classes_easier_to_tell_from_few_rows(staged):
    s = staged(suited_to_tiny_networks(Prototypical, ways=3, shots=2, queries=4), steps=40)
    before = few_shot(s.model, s.data, "validation", ways=3, shots=1, queries=5, episodes=100)
    s.run()
    after = few_shot(s.model, s.data, "validation", ways=3, shots=1, queries=5, episodes=100)
    assert after.mean - after.half_width > before.mean + before.half_width


def test_a_model_without_one_vector_a_text_has_no_class_means(staged):
    s = staged(Prototypical(), kind="tagging")
    with pytest.raises(InputError, match="one vector a text"):
        few_shot(s.model, Data.load(learnable("classification")))


@pytest.mark.parametrize("kind", ["multi-label", "tagging"])
def test_few_shot_accuracy_is_of_one_class_a_text(staged, kind):
    with pytest.raises(InputError, match="one class a text"):
        few_shot(staged(Prototypical()).model, Data.load(learnable(kind)))


def test_an_interval_needs_two_episodes(staged):
    s = staged(Prototypical())
    with pytest.raises(InputError, match="at least 2 episodes; got 1"):
        few_shot(s.model, s.data, ways=2, episodes=1)


def test_the_blocks_of_a_chain_are_found():
    assert [g.name for g in layers.layer_groups(Chain())] == ["block 0", "block 1"]
