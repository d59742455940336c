"""Rounding while training: by hand, straight through, and what is handed back loses nothing to the rounding after."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from graftwork.methods import QuantisationAware
from graftwork.methods.quantisation_aware import LEVELS, in_steps, straight_through
from graftwork.shapes import on_grid, packed, unpacked


def test_a_row_is_rounded_to_whole_shares_of_its_largest():
    matrix = torch.tensor([[1.27, -0.634, 0.004], [-0.5, 0.25, 0.0], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.27, -0.63, 0.0], [-0.5, 64 / 127 * 0.5, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(on_grid(matrix, 127), expected)


def test_activations_take_256_steps_of_each_texts_own_range_and_0_stays_0():
    given = torch.tensor([[[-1.0, 0.0], [0.3, 4.1]], [[0.0, 100.0], [0.004, 50.1]]])
    found = in_steps(given)
    steps = torch.tensor([5.1 / 255, 100.0 / 255]).view(2, 1, 1)
    assert (found - given).abs().div(steps).max() <= 0.5 + 1e-4
    torch.testing.assert_close(found / steps, (found / steps).round())
    assert found[0, 0, 1] == 0
    assert torch.equal(in_steps(torch.zeros(1, 2)), torch.zeros(1, 2))


def test_gradients_pass_as_if_nothing_were_rounded():
    given = torch.tensor([0.3, -0.7], requires_grad=True)
    straight_through(given, given.round()).mul(torch.tensor([2.0, 3.0])).sum().backward()
    assert given.grad is not None
    assert given.grad.tolist() == [2.0, 3.0]


@pytest.mark.parametrize("bits", [8, 4])
def test_while_it_trains_the_network_answers_as_the_rounded_one(staged, bits):
    set_up = staged(QuantisationAware(bits=bits, activations="fp32", head_start="random"))
    rounded = copy.deepcopy(set_up.model)
    with torch.no_grad():
        for module in rounded.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
                module.weight.copy_(on_grid(module.weight, LEVELS[bits]))
    set_up.stage.method.prepare(set_up.model, set_up.train)
    texts = ["the old house", "we saw anna again"]
    for one, other in zip(set_up.model.outputs(texts), rounded.outputs(texts), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_copy_made_in_training_computes_with_its_own_weights(staged):
    set_up = staged(QuantisationAware(head_start="random"))
    set_up.stage.method.prepare(set_up.model, set_up.train)
    copied = copy.deepcopy(set_up.model)
    with torch.no_grad():
        for weight in copied.parameters():
            weight.zero_()
    assert np.abs(set_up.model.outputs(["a goal"])[0]).max() > 0
    assert np.abs(copied.outputs(["a goal"])[0]).max() == 0


def test_what_is_handed_back_is_stored_in_8_bits_without_loss(staged):
    set_up = staged(QuantisationAware(lr=3e-3), steps=4)
    set_up.run()
    model = set_up.stage.method.finish(set_up.model, set_up.train)
    weights = model.encoder.state_dict()
    again = unpacked(packed(weights, "int8"))
    assert all(torch.equal(again[name], value) for name, value in weights.items())
