"""Rare classes: weights, losses, rows and thresholds against their formulas, and against imbalanced-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from graftwork.data import Data
from graftwork.method import recipe_of, unmet
from graftwork.methods import FullFineTuning
from graftwork.modifiers import (
    SMOTE,
    ClassWeights,
    FocalLoss,
    LogitAdjustment,
    OverSampling,
    ThresholdMoving,
    UnderSampling,
)
from graftwork.modifiers.thresholds import _GRID, best_offsets, macro_f1
from graftwork.task import Decision
from graftwork.tasks import Classification
from graftwork.testing import learnable, suited_to_tiny_networks

RARE = np.array([60, 30, 10])


def begun(staged, *modifiers):
    method = suited_to_tiny_networks(FullFineTuning, head_start="random", label_smoothing=0.0, modifiers=modifiers)
    s = staged(method)
    return s, method.objective(s.model, s.train, list(s.model.parameters()))


# --- weights and losses ---


def test_inverse_weights_make_every_class_count_alike_and_a_row_one_on_average():
    weights = ClassWeights().of(RARE)
    assert (weights * RARE).tolist() == pytest.approx([100 / 3] * 3)


def test_effective_numbers_are_those_of_the_paper():
    weights = ClassWeights(kind="effective", beta=0.9).of(RARE)
    paper = (1 - 0.9) / (1 - 0.9**RARE)  # eq. 2
    assert (weights / weights[0]).tolist() == pytest.approx((paper / paper[0]).tolist())
    assert ClassWeights(kind="effective", beta=0.0).of(RARE).tolist() == pytest.approx([1, 1, 1])


def test_a_class_that_train_does_not_hold_weighs_nothing():
    assert ClassWeights().of(np.array([5, 0, 5])).tolist() == [1, 0, 1]


def test_class_weights_focal_loss_and_logit_adjustment_by_hand(staged):
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    plain = F.cross_entropy(logits, targets, reduction="none")
    p = logits.softmax(-1)[torch.arange(6), targets]
    s, objective = begun(staged, FocalLoss(gamma=1.5))
    torch.testing.assert_close(objective.answers([logits], targets), ((1 - p) ** 1.5 * plain).mean())
    counts = np.bincount(s.train.targets, minlength=3)
    _, objective = begun(staged, LogitAdjustment(tau=2.0))
    moved = logits + 2 * torch.tensor(np.log(counts / counts.sum())).float()
    torch.testing.assert_close(objective.answers([logits], targets), F.cross_entropy(moved, targets))
    _, objective = begun(staged, ClassWeights(), FocalLoss(gamma=2.0))
    weights = torch.tensor(ClassWeights().of(counts)).float()[targets]
    torch.testing.assert_close(objective.answers([logits], targets), (weights * (1 - p) ** 2 * plain).mean())


def test_an_answer_that_is_certain_leaves_a_focal_loss_whose_gradient_is_a_number(staged):
    _, objective = begun(staged, FocalLoss(gamma=0.5))
    logits = torch.tensor([[90.0, 0.0, 0.0]], requires_grad=True)
    objective.answers([logits], torch.tensor([0])).backward()
    assert torch.isfinite(logits.grad).all()


# --- rows ---


def rows_of(counts):
    return np.repeat(np.arange(len(counts)), counts)


@pytest.mark.parametrize(
    ("modifier", "expected"),
    [
        (OverSampling(), [60, 60, 60]),
        (OverSampling(ratio=0.4), [60, 30, 24]),
        (UnderSampling(), [10, 10, 10]),
        (UnderSampling(ratio=0.5), [20, 20, 10]),
    ],
)
def test_resampling_draws_as_many_as_it_says_and_spares_nobody(modifier, expected):
    classes = rows_of(RARE)
    counts, weights = modifier.table(np.arange(100.0)[:, None], classes, np.ones(100), 0)[1:]
    assert np.bincount(counts, weights=weights) / weights.sum() == pytest.approx(np.array(expected) / sum(expected))
    effect = modifier.begin(None, type("Rows", (), {"targets": classes}), [])
    one, again, other = (effect.places(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.bincount(classes[one]).tolist() == expected
    assert (one == again).all()
    assert len(one) == len(other)
    times = np.bincount(one, minlength=100)
    for k in range(3):  # nobody is drawn twice before everybody has been once
        assert times[classes == k].max() - times[classes == k].min() <= 1


def test_the_loop_reads_the_rows_that_were_drawn(staged):
    s, objective = begun(staged, OverSampling())
    largest = int(np.bincount(s.train.targets).max())
    assert objective.steps_per_epoch == -(-3 * largest // 16)
    batches = objective.batches((0, 0, 0))
    assert np.bincount(s.train.targets[np.concatenate(batches)]).tolist() == [largest] * 3


@pytest.mark.parametrize("kind", ["smote", "borderline-1", "borderline-2", "svm", "adasyn"])
def test_smote_fills_rare_classes_up_with_rows_between_neighbours(kind):
    pytest.importorskip("imblearn")
    generator = np.random.default_rng(0)
    y = rows_of(np.array([40, 12]))
    x = generator.normal(size=(52, 2)) + 1.2 * y[:, None]
    made_x, made_y, weights = SMOTE(kind=kind).table(x, y, np.ones(52), 0)
    assert (made_x[:52] == x).all()
    assert np.bincount(made_y)[0] == 40
    few = 12 if kind == "svm" else 36  # only from support vectors that are no noise; adasyn comes near it
    assert few < np.bincount(made_y)[1] <= 44
    assert weights.mean() == pytest.approx(1)
    if kind == "smote":
        rare = x[y == 1]
        for point in made_x[52:]:  # on the line between two rows of its class
            distances = [
                np.linalg.norm(point - a) + np.linalg.norm(point - b) - np.linalg.norm(a - b)
                for a, b in itertools.combinations(rare, 2)
            ]
            assert min(distances) < 1e-6


def test_smote_leaves_a_class_of_one_row_and_takes_fewer_neighbours_of_a_small_one():
    pytest.importorskip("imblearn")
    y = rows_of(np.array([20, 1, 3]))
    x = np.random.default_rng(1).normal(size=(24, 3))
    assert np.bincount(SMOTE().table(x, y, np.ones(24), 0)[1]).tolist() == [20, 1, 20]


def test_smote_is_refused_where_texts_are_read():
    data = Data.load(learnable("classification"))
    assert "acts on methods without steps alone" in str(unmet(recipe_of("full-fine-tuning:smote"), data))
    assert unmet(recipe_of("linear-probe:smote"), data) is None


# --- thresholds ---


def test_offsets_are_as_good_as_trying_them_all():
    generator = np.random.default_rng(3)
    truth = generator.choice(2, size=60, p=[0.85, 0.15])
    logits = generator.normal(size=(60, 2)) + np.eye(2)[truth] - np.array([0, 1.5])
    tried = [macro_f1(logits + np.array([0, offset]), truth) for offset in _GRID]
    assert macro_f1(logits + best_offsets(logits, truth), truth) == pytest.approx(max(tried))


def test_macro_f1_is_sklearns():
    generator = np.random.default_rng(4)
    logits, truth = generator.normal(size=(50, 4)), generator.integers(4, size=50)
    assert macro_f1(logits, truth) == pytest.approx(f1_score(truth, logits.argmax(1), average="macro"))


def test_thresholds_move_where_it_pays_and_the_answers_follow():
    generator = np.random.default_rng(5)
    truth = generator.choice(2, size=600, p=[0.95, 0.05])
    logits = generator.normal(size=(600, 2)) + 1.5 * np.eye(2)[truth] - np.array([0, 2.5])
    task, outputs, targets = Classification(labels=("no", "yes")), list(logits), list(truth)
    plain = task.decide(outputs, targets, 1.0)
    moved = ThresholdMoving().decide(outputs, targets, plain)
    assert moved.offsets[1] > 0.5
    scores = [task.score(outputs, targets, decision) for decision in (plain, moved)]
    assert scores[1]["macro_f1"] > scores[0]["macro_f1"] + 0.05
    answers = task.read(outputs, moved)
    expected = (logits / moved.temperature + moved.offsets).argmax(axis=1)
    assert [a.label for a in answers] == [("no", "yes")[k] for k in expected]
    assert sum(answers[0].probabilities.values()) == pytest.approx(1)


def test_thresholds_stay_where_nothing_is_gained():
    generator = np.random.default_rng(6)
    truth = generator.choice(3, size=90)
    logits = generator.normal(size=(90, 3)) + 4 * np.eye(3)[truth]
    assert ThresholdMoving().decide(list(logits), list(truth), Decision()) == Decision()


def test_a_saved_decision_is_the_one_that_was_saved():
    decision = Decision(offsets=(0.0, 1.5))
    assert Decision(**{**vars(decision), "offsets": [0.0, 1.5]}) == decision


def test_a_recipe_of_lora_with_two_modifiers_is_one_stage(staged):
    (method,) = recipe_of([{"lora": {"modifiers": ["l2-sp", "class-weights"], "lr": 5e-3, "batch_size": 16}}])
    s = staged(method, steps=8)
    trained = s.run()
    assert trained.progress.step == 8
