"""Sparsity: which weights are zero is what the papers' equations say, and they stay so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graftwork.choice import InputError
from graftwork.compressors import Heads, Sparse
from graftwork.compressors.width import FFN
from graftwork.methods import FullFineTuning, LoRA
from graftwork.modifiers import MagnitudePruning, MovementPruning
from graftwork.sparsity import highest, matrices, zeros

# --- which are the lowest ---


@given(st.integers(0, 10**6), st.floats(0, 0.99), st.sampled_from(["matrix", "global"]))
def test_the_lowest_share_goes(seed: int, share: float, over: Any):
    generator = torch.Generator().manual_seed(seed)
    scores = [torch.randn(5, 7, generator=generator), torch.randn(4, 3, generator=generator)]
    kept = highest(scores, share, over)
    groups = list(zip(scores, kept, strict=True))
    if over == "global":
        groups = [(torch.cat([s.flatten() for s in scores]), torch.cat([k.flatten() for k in kept]))]
    for values, mask in groups:
        assert int((~mask).sum()) == int(share * values.numel())
        if (~mask).any() and mask.any():
            assert values[~mask].max() <= values[mask].min()


# --- one shot ---


@pytest.mark.parametrize("over", ["matrix", "global"])
def test_sparse_leaves_exactly_the_largest(over: Any, staged: Any):
    at_hand = staged(FullFineTuning())
    at_hand.model.eval()
    smaller = Sparse(share=0.6, over=over).apply(at_hand.model, at_hand.train)
    before, after = (matrices(model.encoder) for model in (at_hand.model, smaller))
    assert zeros(after) == pytest.approx(0.6, abs=0.001)
    gone = torch.cat([a.detach().abs()[b == 0] for a, b in zip(before, after, strict=True)])
    left = torch.cat([a.detach().abs()[b != 0] for a, b in zip(before, after, strict=True)])
    assert all(torch.equal(a[b != 0], b[b != 0]) for a, b in zip(before, after, strict=True))
    if over == "global":
        assert gone.max() <= left.min()


def test_sparse_says_how_much_of_everything_is_zero(staged: Any):
    at_hand = staged(FullFineTuning())
    smaller = Sparse(share=0.5).apply(at_hand.model.eval(), at_hand.train)
    notes = Sparse(share=0.5).notes(at_hand.model, smaller, at_hand.validation)
    assert notes["zeros_in_linear_layers"] == pytest.approx(0.5, abs=0.001)
    assert notes["zeros_in_all_weights"] < 0.5


# --- while training ---


def test_the_share_grows_by_the_cube(staged: Any):
    choice = MagnitudePruning(share=0.8, start=0.2, full=0.6)
    assert [choice.share_at(f) for f in (0.0, 0.1, 0.2, 0.4, 0.6, 1.0)] == pytest.approx(
        [0, 0, 0, 0.8 * (1 - 0.5**3), 0.8, 0.8]
    )
    assert MagnitudePruning(share=0.8, start=0, full=0).share_at(0.0) == 0.8


def test_a_trained_model_has_exactly_this_share_of_zeros(staged: Any):
    at_hand = staged(FullFineTuning(modifiers=(MagnitudePruning(share=0.7, every=1),)))
    at_hand.run()
    for weight in matrices(at_hand.model.encoder):
        assert int((weight == 0).sum()) == int(0.7 * weight.numel())


def test_the_last_of_the_budget_trains_with_the_weights_that_stay(staged: Any):
    at_hand = staged(FullFineTuning())
    weights = [p for p in at_hand.model.parameters() if p.requires_grad]
    effect: Any = MagnitudePruning(share=0.5, start=0, full=0.5, every=1).begin(at_hand.model, at_hand.train, weights)
    effect.after_step(1, 0.5)
    settled = [mask.clone() for mask in effect.masks]
    with torch.no_grad():
        for weight in effect.pruned:
            weight.copy_(torch.randn_like(weight))
    effect.after_step(2, 0.6)
    assert all(torch.equal(a, b) for a, b in zip(settled, effect.masks, strict=True))
    assert zeros(effect.pruned) == pytest.approx(0.5, abs=0.001)


def test_training_after_sparse_holds_the_zeros(staged: Any):
    start = MagnitudePruning(share=0.5, start=0, full=0)
    at_hand = staged(FullFineTuning(modifiers=(start,)))
    at_hand.model = Sparse(share=0.5).apply(at_hand.model.eval(), at_hand.train)
    at_hand.run()
    assert zeros(matrices(at_hand.model.encoder)) == pytest.approx(0.5, abs=0.001)


def test_what_trains_no_matrix_of_the_encoder_is_refused(staged: Any):
    at_hand = staged(LoRA(modifiers=(MagnitudePruning(),)))
    with pytest.raises(InputError, match="none of them trains here"):
        at_hand.run()


# --- by movement ---


def test_a_score_is_minus_gradient_times_weight_and_what_is_at_zero_stays_as_it_was(staged: Any):
    at_hand = staged(FullFineTuning())
    weights = [p for p in at_hand.model.parameters() if p.requires_grad]
    effect: Any = MovementPruning(share=0.5, start=0, full=1, every=1).begin(at_hand.model, at_hand.train, weights)
    first, before = effect.pruned[0], effect.pruned[0].detach().clone()
    slopes = [torch.randn_like(first) for _ in range(2)]
    (first * slopes[0]).sum().backward()
    assert torch.allclose(effect.scores[0], -slopes[0] * before)
    with torch.no_grad():
        first.sub_(0.1)
    effect.after_step(1, 0.5)
    at_zero = first == 0
    assert torch.equal(at_zero, ~highest(effect.scores[:1], effect.choice.share_at(0.5), "matrix")[0])
    (first * slopes[1]).sum().backward()
    moved = -slopes[0] * before - slopes[1] * (before - 0.1)
    assert torch.allclose(effect.scores[0], moved, atol=1e-6)  # also of weights that are zero now: they may come back
    with torch.no_grad():
        first.sub_(0.1)
    effect.after_step(2, 0.5)
    back = at_zero & (first != 0)
    assert back.any()
    assert torch.allclose(first[back], before[back] - 0.1)
    effect.end()


def test_movement_leaves_exactly_this_share_and_resumes_to_the_same(staged: Any):
    at_hand = staged(FullFineTuning(modifiers=(MovementPruning(share=0.7, every=1),)))
    at_hand.run()
    for weight in matrices(at_hand.model.encoder):
        assert int((weight == 0).sum()) == int(0.7 * weight.numel())
    weights = list(at_hand.model.parameters())
    one, other = (MovementPruning(start=0, full=0).begin(at_hand.model, at_hand.train, weights) for _ in range(2))
    one.scores[0].normal_()  # type: ignore[attr-defined]
    other.load_state(one.state())
    assert all(torch.equal(a, b) for a, b in zip(one.state().values(), other.state().values(), strict=True))


# --- in rounds ---


@pytest.mark.parametrize(("step", "units"), [(Heads(keep=0.5, rounds=2), 12), (FFN(keep=0.3, rounds=3), 64)])
def test_rounds_leave_as_many_as_one_cut_would(step: Any, units: int, staged: Any):
    at_hand = staged(FullFineTuning())
    model = at_hand.model.eval()
    whole = step.counted(step.parts(model.encoder))
    rounds = step.in_rounds(model)
    assert len(rounds) == step.rounds
    for each in rounds:
        model = each.apply(model, at_hand.train)
    assert step.counted(step.parts(model.encoder)) == round(step.keep * whole)
