"""Baselines answer what their definitions say, in the same form as a network."""

from __future__ import annotations

import numpy as np
import pytest

from graftwork.baseline import RARE, Baseline, Rows
from graftwork.baselines import Majority, NearestNeighbours, Tfidf
from graftwork.choice import names, parse
from graftwork.data import Data
from graftwork.task import Task
from graftwork.tasks import Classification, Tagging, task_of
from graftwork.testing import learnable


def rows(data: Data, task: Task, split: str) -> Rows:
    """A split; its embeddings say how many letters of each kind a text has."""
    labels = data[split].labels()
    targets = [task.targets(t) for t in labels] if task.token_level else task.targets(labels)
    inputs = data[split].inputs()

    def embeddings() -> np.ndarray:
        return np.array(
            [[str(text).count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for text in inputs], float
        )

    return Rows(inputs, targets, embeddings)


@pytest.mark.parametrize("kind", ["classification", "multi-label", "tagging"])
@pytest.mark.parametrize("name", names(Baseline))
def test_every_baseline_answers_every_row_of_its_tasks_and_learns_what_can_be_learned(name, kind):
    baseline = parse(Baseline, name)
    data = Data.load(learnable(kind))
    if data.task not in baseline.tasks:
        pytest.skip("not its task")
    task = task_of(data)
    validation = rows(data, task, "validation")
    outputs = baseline.fit(rows(data, task, "train"), task)(validation)
    assert len(outputs) == len(validation.inputs)
    assert all(np.isfinite(o).all() and o.shape[-1] == len(task.labels) for o in outputs)
    decision = task.decide(outputs, list(validation.targets), 1.0)
    score = task.score(outputs, list(validation.targets), decision)[task.selection]
    if name == "tf-idf" or (name, kind) == ("majority", "tagging"):
        assert score > 0.8


def test_the_majority_is_the_most_frequent_class_and_knows_its_share():
    task = Classification(labels=("no", "yes", "never"))
    train = Rows(["a"] * 4, task.targets(["yes", "yes", "no", "yes"]), dict)
    outputs = Majority().fit(train, task)(Rows(["b", "c"], None, dict))
    assert task.probabilities(outputs, 1.0) == pytest.approx(np.array([[0.25, 0.75, 0]] * 2), abs=1e-4)


def test_a_word_never_seen_is_outside_every_span():
    task = Tagging(labels=("B-PER", "O"))
    train = Rows([["Ada", "wrote"]], [np.array([0, 1])], dict)
    (output,) = Majority().fit(train, task)(Rows([["ada", "sleeps"]], None, dict))
    assert output.argmax(axis=1).tolist() == [0, 1]


def test_the_nearest_neighbour_alone_is_copied():
    task = Classification(labels=("east", "north"))
    train = Rows(["a", "b"], np.array([0, 1]), lambda: np.array([[1.0, 0.0], [0.0, 1.0]]))
    asked = Rows(["c", "d"], None, lambda: np.array([[5.0, 0.1], [0.1, 0.2]]))
    outputs = NearestNeighbours(neighbours=1).fit(train, task)(asked)
    assert np.argmax(outputs, axis=1).tolist() == [0, 1]
    assert np.min(outputs) == RARE


def test_tf_idf_is_what_scikit_learn_makes_of_words_and_characters():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    data = Data.load(learnable("classification"))
    task = task_of(data)
    train, test = rows(data, task, "train"), rows(data, task, "test")
    own = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        ),
        LinearSVC(random_state=0),
    ).fit(train.inputs, train.targets)
    expected = own.decision_function(test.inputs)
    found = np.array(Tfidf().fit(train, task)(test))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_tf_idf_tells_texts_without_a_word_apart_by_their_signs():
    task = Classification(labels=("glad", "sad"))
    train = Rows(["☺ !!", "☹ ..."] * 4, np.array([0, 1] * 4), lambda: np.zeros(0))
    found = Tfidf().fit(train, task)(Rows(["☹", "☺"], None, lambda: np.zeros(0)))
    assert np.argmax(found, axis=1).tolist() == [1, 0]


def test_a_class_that_train_lacks_is_never_the_answer_and_breaks_nothing():
    task = Classification(labels=("a", "b", "c"))
    train = Rows(["x y", "z w"] * 4, np.array([0, 1] * 4), lambda: np.eye(2)[[0, 1] * 4])
    asked = Rows(["x", "z"], None, lambda: np.eye(2))
    for baseline in (Majority(), NearestNeighbours(), Tfidf()):
        assert max(np.argmax(o) for o in baseline.fit(train, task)(asked)) < 2
