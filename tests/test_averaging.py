"""Averages of weights against their formulas, and who is handed back."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from graftwork.methods import FullFineTuning
from graftwork.modifiers import EMA, SWA, ModelSoup
from graftwork.testing import suited_to_tiny_networks

QUICK = suited_to_tiny_networks(FullFineTuning, head_start="random")


def walked(modifier, values, fractions=None):
    """The effect after a weight has taken these values."""
    weight = torch.nn.Parameter(torch.zeros(2))
    effect = modifier.begin(None, None, [weight])
    for step, value in enumerate(values, start=1):
        weight.data.fill_(value)
        effect.after_step(step, fractions[step - 1] if fractions else step / len(values))
    return effect


def test_moving_average_weighs_each_step_as_its_formula_says():
    values = [1.0, 4.0, -2.0, 3.0]
    weights = np.array([0.5 ** (4 - s) for s in range(1, 5)])
    expected = float((weights * values).sum() / weights.sum())
    (average,) = walked(EMA(decay=0.5), values).weights()
    assert average.tolist() == pytest.approx([expected] * 2)


def test_plain_mean_begins_where_it_is_told_and_takes_every_so_many():
    effect = walked(SWA(start=0.5, every=2), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0])
    assert effect.weights()[0].tolist() == pytest.approx([(4 + 6 + 8) / 3] * 2)
    assert walked(SWA(start=0.5), [1.0, 2.0], fractions=[0.1, 0.2]).weights() is None


def test_soup_keeps_what_validation_likes_and_leaves_the_rest():
    effect = ModelSoup(candidates=3).begin(None, None, [])
    for score, value in ((0.5, 9.0), (0.8, 1.0), (0.7, 3.0), (0.75, 5.0)):
        effect.validated(score, [torch.tensor([value])])
    assert [score for score, _ in effect.candidates] == [0.8, 0.75, 0.7]
    asked = []

    def score(weights):
        asked.append(float(weights[0]))
        return 0.9 if asked[-1] == 2.0 else 0.1

    (soup,) = effect.final(score)
    assert asked == [3.0, 2.0]  # (1 + 5) / 2 is worse, so 5 is left out; (1 + 3) / 2 is better
    assert float(soup) == 2.0


@pytest.mark.parametrize("modifier", [EMA(decay=0.9), SWA(start=0.3, every=2), ModelSoup()])
def test_what_is_remembered_comes_back(modifier):
    effect = walked(modifier, [1.0, 4.0, -2.0, 3.0])
    effect.validated(0.5, [torch.tensor([1.0, 2.0])])
    again = modifier.begin(None, None, [torch.nn.Parameter(torch.zeros(2))])
    again.load_state(effect.state())
    assert again.state().keys() == effect.state().keys()
    assert all(torch.equal(again.state()[name], value) for name, value in effect.state().items())


def test_the_average_is_what_is_validated_and_handed_back(staged):
    s = staged(QUICK.model_copy(update={"modifiers": (EMA(decay=0.5),), "warmup": 0.0}), steps=6)
    seen = []
    s.stage.on_event = lambda **event: (
        seen.append((event, s.model.head.linear.weight.detach().clone())) if event["event"] == "step" else None
    )
    s.stage.tell_every_step = True
    s.run()
    after = [weight for _, weight in seen]
    weights = [0.5 ** (len(after) - 1 - i) for i in range(len(after))]
    expected = sum(w * value for w, value in zip(weights, after, strict=True)) / math.fsum(weights)
    torch.testing.assert_close(s.model.head.linear.weight.detach(), expected)
