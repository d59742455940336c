"""Heads that read all layers: their equations, the cache that serves them, and an encoder that stays as it was."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from graftwork.features import embeddings, embeddings_of, layer_states
from graftwork.heads import DenseSide, ScalarMix
from graftwork.methods import SideNetwork
from graftwork.testing import suited_to_tiny_networks

QUICK = suited_to_tiny_networks(SideNetwork, head={"dense-side": {"width": 8}})
X = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))


def moved(head, classes=2):
    torch.manual_seed(1)
    network = head.build(6, classes, token_level=False, layers=4).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


@torch.no_grad()
def test_scalar_mix_by_hand():
    network = moved(ScalarMix())
    weights = network.scores.softmax(0)
    mixed = network.gamma * sum(weights[k] * X[:, k] for k in range(4))
    torch.testing.assert_close(network(X), mixed @ network.linear.linear.weight.T + network.linear.linear.bias)


@torch.no_grad()
def test_each_stage_reads_its_layer_and_every_stage_before_it():
    network = moved(DenseSide(width=5, layers=3, dropout=0.0))
    found = []
    for k, stage in enumerate(network.stages):
        low = (
            F.layer_norm(X[:, k + 1], (6,), stage.norm.weight, stage.norm.bias) @ stage.down.weight.T + stage.down.bias
        )
        joined = torch.cat([low, *found], dim=1)
        assert joined.shape[1] == 5 * (k + 1)
        found.append(F.gelu(joined @ stage.join.weight.T + stage.join.bias))
    side = torch.cat(found, dim=1) @ network.up.weight.T + network.up.bias
    torch.testing.assert_close(network(X), network.linear(X[:, -1]) + side)


def test_parameters_are_as_many_as_the_formula_says():
    network, (d, r, layers, classes) = (
        DenseSide(width=96, layers=6).build(384, 77, token_level=False, layers=7),
        (384, 96, 6, 77),
    )
    stages = sum(2 * d + d * r + r + r * r * (before + 1) + r for before in range(layers))
    expected = stages + r * layers * classes + classes + d * classes + classes
    assert sum(p.numel() for p in network.parameters()) == expected


def test_training_begins_at_the_probe_and_no_gradient_enters_the_encoder(staged):
    s = staged(QUICK, steps=8)
    torch.manual_seed(0)
    QUICK.prepare(s.model, s.train)
    states = embeddings_of(s.model, s.train, np.arange(len(s.train)), "fp32")
    with torch.no_grad():
        read = s.model.head(torch.from_numpy(states))
        torch.testing.assert_close(read, s.model.head.linear(torch.from_numpy(states[:, -1])))
    before = {n: p.clone() for n, p in s.model.encoder.named_parameters()}
    s.run()
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in s.model.encoder.named_parameters())


def test_the_cache_holds_what_would_be_computed(staged):
    s = staged(QUICK)
    kept = embeddings(s.model, s.train)
    assert kept.shape == (len(s.train), 4, 32)
    places = np.arange(10)
    np.testing.assert_allclose(kept[:10], embeddings_of(s.model, s.train, places, "fp32"), atol=1e-5)
    np.testing.assert_allclose(kept[:10].transpose(1, 0, 2), layer_states(s.model, s.train, places, "fp32"), atol=1e-5)


def test_every_epoch_after_the_first_reads_the_cache(staged, monkeypatch):
    s = staged(QUICK, steps=12)
    s.run()
    again = staged(QUICK, steps=12)
    monkeypatch.setattr("graftwork.features._compute", lambda *_: pytest.fail("computed again"))
    again.run()
    assert [e["loss"] for e in again.events if e["event"] == "evaluation"] == [
        e["loss"] for e in s.events if e["event"] == "evaluation"
    ]
