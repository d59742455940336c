"""Comparing: every loss against its formula, mining against trying all, and pairs that are distinct and bounded."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from graftwork.methods import MultipleNegatives, Siamese, SupervisedContrastive, Triplet
from graftwork.methods.contrastive import batches_of_classes, distinct_pairs, mined
from graftwork.testing import suited_to_tiny_networks

Z = F.normalize(torch.randn(8, 5, generator=torch.Generator().manual_seed(0)), dim=-1)
PAIRED = torch.tensor([0, 0, 1, 2, 1, 1, 0, 0])
MIXED = torch.tensor([0, 1, 0, 1, 2, 0, 1, 3])
classes = st.lists(st.integers(0, 4), min_size=2, max_size=30).map(np.array)


def distance(i, j):
    return float((Z[i] - Z[j]).norm())


# --- losses ---


def test_cosine_pairs_by_hand():
    expected = np.mean([(float(Z[i] @ Z[i + 1]) - (PAIRED[i] == PAIRED[i + 1]).item()) ** 2 for i in (0, 2, 4, 6)])
    assert float(Siamese().compared(Z, PAIRED)) == pytest.approx(expected, abs=1e-6)


def test_contrastive_pairs_by_hand():
    each = [
        distance(i, i + 1) ** 2 / 2 if PAIRED[i] == PAIRED[i + 1] else max(0.0, 1.8 - distance(i, i + 1)) ** 2 / 2
        for i in (0, 2, 4, 6)
    ]
    found = Siamese(loss="contrastive", margin=1.8).compared(Z, PAIRED)
    assert float(found) == pytest.approx(np.mean(each), abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("hinge", lambda a, p, n: max(0.0, distance(a, p) - distance(a, n) + 0.4)),
        ("softmax", lambda a, p, n: -math.log(
            math.exp(-distance(a, p)) / (math.exp(-distance(a, p)) + math.exp(-distance(a, n)))
        )),
        ("ranking", lambda a, p, n: max(0.0, float(Z[a] @ Z[n]) - float(Z[a] @ Z[p]) + 0.4)),
    ],
)  # fmt: skip
def test_triplets_by_hand(loss, of):
    triplets = zip(*(t.tolist() for t in mined(Z, MIXED, "all")), strict=True)
    expected = np.mean([of(*triplet) for triplet in triplets])
    assert float(Triplet(loss=loss, mining="all", margin=0.4).compared(Z, MIXED)) == pytest.approx(expected, abs=1e-5)


def test_multiple_negatives_by_hand_and_kin_are_no_negatives():
    targets = torch.tensor([0, 0, 1, 1, 0, 0, 2, 2])
    there, back = [], []
    for i in range(4):
        others = [j for j in range(4) if j == i or targets[2 * j] != targets[2 * i]]
        row = [math.exp(20 * float(Z[2 * i] @ Z[2 * j + 1])) for j in others]
        column = [math.exp(20 * float(Z[2 * j] @ Z[2 * i + 1])) for j in others]
        there.append(-math.log(row[others.index(i)] / sum(row)))
        back.append(-math.log(column[others.index(i)] / sum(column)))
    one_way = float(MultipleNegatives(symmetric=False).compared(Z, targets))
    assert one_way == pytest.approx(np.mean(there), abs=1e-4)
    assert float(MultipleNegatives().compared(Z, targets)) == pytest.approx(np.mean(there + back), abs=1e-4)


def test_supervised_contrastive_by_hand():
    each = []
    for i in range(8):
        kin = [p for p in range(8) if p != i and MIXED[p] == MIXED[i]]
        total = sum(math.exp(float(Z[i] @ Z[a]) / 0.1) for a in range(8) if a != i)
        if kin:
            each.append(-np.mean([math.log(math.exp(float(Z[i] @ Z[p]) / 0.1) / total) for p in kin]))
    assert len(each) == 6  # two are alone
    assert float(SupervisedContrastive().compared(Z, MIXED)) == pytest.approx(np.mean(each), abs=1e-4)


@pytest.mark.parametrize(
    "method", [Triplet(), MultipleNegatives(), SupervisedContrastive(), Siamese(loss="contrastive")]
)
def test_equal_texts_and_strangers_alone_give_numbers(method):
    z = torch.ones(4, 3, requires_grad=True)
    for targets in (torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 2, 3])):
        loss = method.compared(F.normalize(z, dim=-1), targets)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(z.grad).all()


# --- mining ---


def test_the_hardest_of_a_batch():
    anchor, positive, negative = mined(Z, MIXED, "batch-hard")
    assert anchor.tolist() == [0, 1, 2, 3, 5, 6]
    for a, p, n in zip(anchor.tolist(), positive.tolist(), negative.tolist(), strict=True):
        assert p == max((j for j in range(8) if j != a and MIXED[j] == MIXED[a]), key=lambda j: distance(a, j))
        assert n == min((j for j in range(8) if MIXED[j] != MIXED[a]), key=lambda j: distance(a, j))


def test_semi_hard_negatives_are_the_nearest_that_are_farther_than_the_positive():
    triplets = zip(*(t.tolist() for t in mined(Z, MIXED, "semi-hard")), strict=True)
    found = {(a, p): n for a, p, n in triplets}
    assert found.keys() == {(a, p) for a, p in itertools.permutations(range(8), 2) if MIXED[a] == MIXED[p]}
    for (a, p), n in found.items():
        away = {j: distance(a, j) for j in range(8) if MIXED[j] != MIXED[a]}
        farther = [j for j in away if away[j] > distance(a, p)]
        assert n == (min(farther, key=away.__getitem__) if farther else max(away, key=away.__getitem__))


# --- batches ---


@given(classes, st.integers(1, 400), st.integers(0, 9))
def test_pairs_are_distinct_within_the_budget_and_half_of_each_kind(classes, wanted, seed):
    pairs = distinct_pairs(classes, wanted, np.random.default_rng(seed))
    assert len({tuple(pair) for pair in pairs.tolist()}) == len(pairs) <= wanted
    assert (pairs[:, 0] < pairs[:, 1]).all()
    same = classes[pairs[:, 0]] == classes[pairs[:, 1]]
    possible = sum(n * (n - 1) // 2 for n in np.bincount(classes).tolist())
    assert same.sum() == min(possible, -(-wanted // 2))
    assert (~same).sum() == min(len(classes) * (len(classes) - 1) // 2 - possible, wanted - same.sum())
    assert (pairs == distinct_pairs(classes, wanted, np.random.default_rng(seed))).all()


def test_pairs_do_not_explode():
    pairs = distinct_pairs(np.repeat(np.arange(77), 130), 2000, np.random.default_rng(0))  # 50 million in all
    assert len(pairs) == 2000


@given(classes, st.sampled_from([2, 4]), st.integers(0, 9))
def test_groups_are_of_one_class_and_everybody_with_a_partner_is_there(classes, together, seed):
    batches = batches_of_classes(classes, 8, together, np.random.default_rng(seed))
    groups = [group for batch in batches for group in batch.reshape(-1, together)]
    assert all(len(set(classes[group].tolist())) == 1 for group in groups)
    counts = np.bincount(classes)
    seen = {int(row) for group in groups for row in group}
    assert seen == {row for row in range(len(classes)) if counts[classes[row]] > 1}
    if together == 2:
        assert all(a != b for a, b in groups)
    assert all(len(batch) <= 8 for batch in batches)


# --- in the loop ---


def test_the_head_is_read_off_the_encoder_as_it_is(staged):
    s = staged(suited_to_tiny_networks(MultipleNegatives), steps=12)
    s.run()
    from graftwork.features import embeddings_of
    from graftwork.regression import read_off

    weight = s.model.head.linear.weight.detach().clone()
    x = s.model.head.prepared(embeddings_of(s.model, s.train, np.arange(len(s.train)), "fp32"))
    read_off(s.model, x, np.asarray(s.train.targets))
    torch.testing.assert_close(weight, s.model.head.linear.weight.detach(), atol=2e-3, rtol=0)
