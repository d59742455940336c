"""Every head on the shelf can be taken by a method, and each answers as its own formula says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftwork.choice import InputError, lookup, names
from graftwork.data import Data
from graftwork.head import Head
from graftwork.heads import MLP, AttentionPooling, Cosine, DepthwiseSeparable
from graftwork.method import recipe_of, unmet
from graftwork.methods import FullFineTuning, TopLayers
from graftwork.testing import learnable, method_checks, suited_to_tiny_networks

CONTRACT = [
    (head, name, check)
    for head in names(Head)
    if lookup(Head, head).for_classes
    for name, check in method_checks(suited_to_tiny_networks(FullFineTuning, head=head))
]


@pytest.mark.parametrize(("head", "claim", "check"), CONTRACT, ids=[f"{h}-{claim}" for h, claim, _ in CONTRACT])
def test_keeps_the_contract_of_methods(head, claim, check):
    check()


# --- each by its own formula ---

X = torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1] * 7, [1] * 5 + [0] * 2, [1] * 3 + [0] * 4, [1] + [0] * 6])


def built(head, dim=6, classes=3, token_level=False):
    torch.manual_seed(1)
    network = head.build(dim, classes, token_level=token_level).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@torch.no_grad()
def test_mlp_by_hand():
    network = built(MLP(hidden=5))
    first, _, _, second = network.layers
    by_hand = F.gelu(X[:, 0] @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(network(X[:, 0]), by_hand)


@torch.no_grad()
def test_cosine_answers_by_angle_alone_and_starts_at_the_means_of_the_classes():
    network = Cosine(scale=7.0).build(6, 3, token_level=False)
    rows, targets = X[:, 0].numpy(), np.array([0, 2, 0, 2])
    own = network.prototypes[1].clone()
    network.start(rows, targets)
    length = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mean = length[[0, 2]].mean(0)
    found = network(X[:, 0] * torch.tensor([[1.0], [5.0], [0.1], [2.0]]))
    np.testing.assert_allclose(found[:, 0], 7 * length @ mean / np.linalg.norm(mean), atol=1e-5)
    assert torch.equal(network.prototypes[1], own)
    several = Cosine(scale=7.0).build(6, 3, token_level=False)
    several.start(rows, np.eye(3)[targets])
    torch.testing.assert_close(several(X[:, 0])[:, [0, 2]], network(X[:, 0])[:, [0, 2]])


@torch.no_grad()
def test_separable_convolution_by_hand():
    network = built(DepthwiseSeparable(kernel=3))
    states = X[1, :5]  # without its padding
    padded = torch.cat([torch.zeros(1, 6), states, torch.zeros(1, 6)])
    deep = torch.stack([(padded[t : t + 3] * network.depthwise.weight[:, 0].T).sum(0) for t in range(5)])
    deep = F.gelu(deep + network.depthwise.bias)
    joined = states + deep @ network.pointwise.weight[:, :, 0].T + network.pointwise.bias
    expected = joined.mean(0) @ network.linear.weight.T + network.linear.bias
    torch.testing.assert_close(network(X, MASK)[1], expected)


@pytest.mark.parametrize(("dim", "kernel"), [(6, 3), (384, 5)])
def test_separable_convolution_has_fewer_parameters_than_a_dense_one(dim, kernel):
    network = DepthwiseSeparable(kernel=kernel).build(dim, 3, token_level=False)
    separable = sum(p.numel() for layer in (network.depthwise, network.pointwise) for p in layer.parameters())
    assert separable == kernel * dim + dim + dim**2 + dim
    dense = sum(p.numel() for p in torch.nn.Conv1d(dim, dim, kernel).parameters())
    assert dense == kernel * dim**2 + dim
    assert separable < dense


def test_a_kernel_without_a_middle_is_refused():
    with pytest.raises(InputError, match="must be odd"):
        recipe_of({"full-fine-tuning": {"head": {"depthwise-separable": {"kernel": 4}}}})


@torch.no_grad()
def test_attention_pooling_by_hand():
    network = built(AttentionPooling())
    weights = (X[2, :3] @ network.query).softmax(0)
    expected = (weights[:, None] * X[2, :3]).sum(0) @ network.linear.weight.T + network.linear.bias
    torch.testing.assert_close(network(X, MASK)[2], expected)


@torch.no_grad()
@pytest.mark.parametrize("head", [DepthwiseSeparable(kernel=5), AttentionPooling()])
def test_padding_has_no_say(head):
    network, other = built(head), X.clone()
    other[MASK == 0] = 99.0
    torch.testing.assert_close(network(other, MASK), network(X, MASK))
    torch.testing.assert_close(network(X[1:2, :5], MASK[1:2, :5]), network(X, MASK)[1:2])


@torch.no_grad()
@pytest.mark.parametrize("head", [DepthwiseSeparable(), AttentionPooling()])
def test_what_reads_tokens_begins_as_a_mean_and_a_linear_layer(head):
    network = head.build(6, 3, token_level=False)
    torch.testing.assert_close(network(X, MASK)[1], network.linear(X[1, :5].mean(0)))


def test_a_head_for_texts_is_refused_where_words_are_asked():
    data = Data.load(learnable("tagging"))
    assert "cannot answer a tagging task" in str(unmet(recipe_of("full-fine-tuning@attention-pooling"), data))
    assert unmet(recipe_of("full-fine-tuning@depthwise-separable"), data) is None


def test_a_frozen_encoder_serves_a_head_that_reads_tokens_from_the_cache(staged):
    method = suited_to_tiny_networks(TopLayers, blocks=0, head="attention-pooling")
    s = staged(method, steps=6)
    trained = s.run()
    assert s.model.above is None
    assert trained.progress.step == 6
