"""Tasks: losses, decisions and metrics agree with torch, scikit-learn, seqeval and arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from seqeval.metrics import classification_report
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from torch.nn import functional as F

from graftwork.choice import InputError
from graftwork.modalities.text import Text
from graftwork.task import Decision, calibration_error, coverage_threshold
from graftwork.tasks import Classification, Tagging
from graftwork.testing import CITIES, FILLER, PEOPLE

ONE = Classification(labels=("a", "b", "c"))
SEVERAL = Classification(labels=("a", "b", "c"), multi_label=True)
TAGS = Tagging(labels=("O", "B-LOC", "B-PER", "I-LOC", "I-PER"))


@pytest.fixture
def generator():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def text(tiny):
    return Text.from_folder(tiny)


# --- losses ---


def test_classification_loss_is_torchs_cross_entropy():
    logits, targets = torch.randn(7, 3, generator=torch.Generator().manual_seed(0)), torch.arange(7) % 3
    assert ONE.loss(logits, targets) == F.cross_entropy(logits, targets)
    assert ONE.loss(logits, targets, smoothing=0.1) == F.cross_entropy(logits, targets, label_smoothing=0.1)


def test_multi_label_loss_by_hand():
    logits, targets = torch.tensor([[0.0, math.log(3), -math.log(3)]]), torch.tensor([[1.0, 1.0, 0.0]])
    by_hand = -(math.log(0.5) + math.log(0.75) + math.log(0.75))
    assert float(SEVERAL.loss(logits, targets)) == pytest.approx(by_hand, abs=1e-6)


def test_tagging_loss_is_the_mean_over_the_words_that_are_asked():
    logits = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[-100, 0, 1, -100], [2, -100, -100, -100]])
    asked = torch.stack([logits[0, 1], logits[0, 2], logits[1, 0]])
    assert float(TAGS.loss(logits, targets)) == pytest.approx(float(F.cross_entropy(asked, torch.tensor([0, 1, 2]))))


# --- decisions ---


def test_temperature_minimises_the_negative_log_likelihood(generator):
    targets = [np.int64(i % 3) for i in range(60)]
    outputs = [3 * (2 * np.eye(3)[t] + generator.normal(size=3)) for t in targets]
    temperature = ONE.decide(outputs, targets, 1.0).temperature

    def loss(t):
        return float(F.cross_entropy(torch.tensor(np.array(outputs)) / t, torch.tensor(np.array(targets))))

    assert loss(temperature) < min(loss(temperature * 1.02), loss(temperature / 1.02), loss(1.0))


def test_temperature_of_tags_minimises_the_negative_log_likelihood(generator):
    targets = [generator.integers(0, 5, size=n) for n in (3, 5, 9, 30)]
    outputs = [4 * (np.eye(5)[t] + generator.normal(size=(len(t), 5))) for t in targets]
    temperature = TAGS.decide(outputs, targets, 1.0).temperature

    def loss(t):
        return float(F.cross_entropy(torch.tensor(np.concatenate(outputs)) / t, torch.tensor(np.concatenate(targets))))

    assert loss(temperature) < min(loss(temperature * 1.02), loss(temperature / 1.02), loss(1.0))


def test_the_threshold_is_the_one_with_the_highest_macro_f1(generator):
    truth = [(generator.random(3) < 0.3).astype(np.float32) for _ in range(50)]
    outputs = [2.0 * t - 2.5 + generator.normal(size=3) for t in truth]
    decision = SEVERAL.decide(outputs, truth, 1.0)
    p = SEVERAL.probabilities(outputs, decision.temperature)

    def macro(t):
        return f1_score(np.array(truth), p >= t, average="macro", zero_division=0)

    assert macro(decision.threshold) == pytest.approx(max(macro(t) for t in np.linspace(0.05, 0.95, 91)))


@pytest.mark.parametrize("coverage", [0.3, 0.8, 1.0])
@pytest.mark.parametrize("task", [ONE, SEVERAL, TAGS], ids=["one", "several", "tags"])
def test_the_stated_share_of_examples_is_answered_as_sure(task, coverage, generator):
    shape = {ONE: (3,), SEVERAL: (3,), TAGS: (4, 5)}[task]
    outputs = [generator.normal(size=shape) for _ in range(100)]
    targets = [np.int64(1) if task is ONE else np.ones(shape[0], dtype=np.int64) for _ in range(100)]
    predictions = task.read(outputs, task.decide(outputs, targets, coverage))
    assert np.mean([not p.unsure for p in predictions]) == pytest.approx(coverage, abs=0.011)


def test_coverage_threshold_by_hand():
    assert coverage_threshold(np.array([0.1, 0.2, 0.3, 0.4, 0.5]), 0.5) == pytest.approx(0.3)
    assert coverage_threshold(np.array([0.1, 0.2]), 1.0) == 0.0


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55, 0.55, 1.0])
    right = np.array([True, False, True, True, False, True])
    # 15 bins: {0.95, 0.95, 1.0} stand in the last, {0.55 x 3} in the ninth
    by_hand = 3 / 6 * abs(2.9 / 3 - 2 / 3) + 3 / 6 * abs(0.55 - 2 / 3)
    assert calibration_error(confidence, right) == pytest.approx(by_hand, abs=1e-9)


def test_a_perfectly_calibrated_answer_has_no_error():
    assert calibration_error(np.full(10, 0.7), np.arange(10) < 7) == 0.0


# --- reading and scoring ---


def test_predictions_are_names_with_probabilities_that_sum_to_one(generator):
    outputs = [generator.normal(size=3) for _ in range(20)]
    for output, prediction in zip(outputs, ONE.read(outputs, Decision(temperature=2.0)), strict=True):
        assert prediction.label == "abc"[int(output.argmax())]
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
        assert prediction.confidence == max(prediction.probabilities.values())


def test_every_label_from_the_threshold_upwards_is_given():
    outputs = [np.array([0.0, 1.0, -1.0]), np.array([-3.0, -3.0, -3.0])]
    first, second = SEVERAL.read(outputs, Decision(threshold=0.4))
    assert (first.label, second.label) == (["a", "b"], [])
    assert first.confidence == pytest.approx(0.5)


def test_classification_scores_are_sklearns(generator):
    outputs, truth = [generator.normal(size=3) for _ in range(40)], [np.int64(i % 3) for i in range(40)]
    guess = np.array(outputs).argmax(axis=1)
    scores = ONE.score(outputs, truth, Decision())
    assert scores["accuracy"] == accuracy_score(truth, guess)
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert scores["confusion"]["matrix"] == confusion_matrix(truth, guess).tolist()
    assert scores["loss"] == pytest.approx(float(F.cross_entropy(torch.tensor(np.array(outputs)), torch.tensor(truth))))
    assert (scores["n"], scores["coverage"]) == (40, 1.0)


def test_a_class_that_no_row_has_scores_zero_and_warns_nobody():
    scores = ONE.score([np.eye(3)[0]] * 4, [np.int64(0)] * 4, Decision())
    assert scores["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_multi_label_scores_are_sklearns(generator):
    truth = [(generator.random(3) < 0.4).astype(np.float32) for _ in range(50)]
    outputs = [t - 0.5 + generator.normal(size=3) for t in truth]
    guess = np.array(outputs) >= 0
    scores = SEVERAL.score(outputs, truth, Decision())
    assert scores["micro_f1"] == pytest.approx(f1_score(np.array(truth), guess, average="micro"))
    assert scores["macro_f1"] == pytest.approx(f1_score(np.array(truth), guess, average="macro"))
    assert scores["subset_accuracy"] == accuracy_score(np.array(truth), guess)


def test_tagging_scores_are_seqevals(generator):
    truth = [np.array([1, 3, 0, 2, 4, 0]), np.array([0, 2, 0]), np.array([1, 1, 3])]
    guess = [np.array([1, 3, 0, 2, 0, 0]), np.array([0, 2, 0]), np.array([1, 3, 3])]
    names = [[[TAGS.labels[i] for i in row] for row in rows] for rows in (truth, guess)]
    theirs = classification_report(*names, output_dict=True, zero_division=0)
    scores = TAGS.score([3.0 * np.eye(5)[g] for g in guess], truth, Decision())
    for ours, name in (("f1", "f1-score"), ("precision", "precision"), ("recall", "recall")):
        assert scores[ours] == pytest.approx(theirs["micro avg"][name])
    assert scores["per_class"]["LOC"]["f1"] == pytest.approx(theirs["LOC"]["f1-score"])
    assert scores["token_accuracy"] == pytest.approx(10 / 12)


@pytest.mark.parametrize("labels", [("a",), ("b", "nonsense")])
def test_an_unknown_label_is_named_with_the_nearest(labels, text):
    task = Classification(labels=("sense", "b"))
    with pytest.raises(InputError, match="is none of the model's"):
        list(task.windows(text, ["x"] * len(labels), labels))


def test_an_unknown_tag_is_named_with_the_nearest(text):
    with pytest.raises(InputError, match=r"Tag 'B-LOK' is none of the model's\. Did you mean 'B-LOC'\?"):
        list(TAGS.windows(text, [["x"]], [["B-LOK"]]))


# --- windows ---

words = st.lists(st.sampled_from([*FILLER[:9], *PEOPLE, *CITIES, "\u200b", "\x00", "😀", "x" * 150]), max_size=120)


def answered(given_, text):
    """(example, id of the word's first piece) in the order that the windows ask."""
    return [(w.example, int(i)) for w in TAGS.windows(text, given_, None) for i in w.ids[w.target != -100]]


@given(st.lists(words, min_size=1, max_size=3))
def test_every_word_is_answered_exactly_once_whatever_the_length(text, given_):
    tags = [[TAGS.labels[i % 5] for i in range(len(row))] for row in given_]
    asked = [[] for _ in given_]
    for window in TAGS.windows(text, given_, tags):
        assert len(window.ids) == len(window.target) <= text.max_length
        asked[window.example] += window.target[window.target != -100].tolist()
    assert asked == [[i % 5 for i in range(len(row))] for row in given_]


def test_a_short_text_is_one_window_with_the_tag_on_the_first_piece(text):
    (window,) = TAGS.windows(text, [["we", "paris"]], [["O", "B-LOC"]])
    assert window.ids.tolist() == text.encode([["we", "paris"]])[0].tolist()
    assert window.target.tolist() == [-100, 0, 1, -100, -100, -100, -100, -100]


def test_windows_overlap_and_each_has_its_special_tokens(text):
    whole = text.encodings([["we"] * 150])[0].ids
    windows = list(TAGS.windows(text, [["we"] * 150], None))
    assert len(windows) == 3
    assert all(w.ids[0] == whole[0] and w.ids[-1] == whole[-1] for w in windows)
    assert all(len(w.ids) == text.max_length for w in windows)


def test_a_word_at_a_seam_is_asked_where_it_has_context_on_both_sides(text):
    first, second, *_ = TAGS.windows(text, [["we"] * 150], None)
    assert np.flatnonzero(first.target != -100)[-1] < text.max_length - 5
    assert np.flatnonzero(second.target != -100)[0] > 5


def test_classification_counts_what_truncation_loses(text):
    short, long = ONE.windows(text, ["we saw", "river " * 100], ["a", "b"])
    assert (short.lost, long.lost) == (0, 102 - 64)
