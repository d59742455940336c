"""No network at all: counted words and character n-grams, and a linear support vector machine."""

from __future__ import annotations

import re
import warnings
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from graftwork.baseline import RARE, Answers, Baseline, Rows
from graftwork.task import Task


class Tfidf(Baseline):
    """TF-IDF of words and character n-grams with a linear SVM: often hard to beat on topics, and free to run."""

    name: ClassVar[str] = "tf-idf"
    paper: ClassVar[str] = "Joachims 1998; Wang & Manning 2012"

    reads: ClassVar[frozenset[str]] = frozenset({"text"})

    strength: float = Field(default=1.0, gt=0)
    """The SVM's C: inverse regularisation."""
    words: int = Field(default=2, ge=1, le=5)
    """The longest word n-gram."""
    characters: int = Field(default=5, ge=2, le=8)
    """The longest character n-gram, inside words; the shortest is 2."""
    features: int = Field(default=200_000, ge=1)
    """At most so many n-grams of each kind, the most frequent."""

    def fit(self, train: Rows, task: Task) -> Answers:
        """Count, weigh, and separate each class from the others."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union
        from sklearn.svm import LinearSVC

        common: dict[str, Any] = {"sublinear_tf": True, "max_features": self.features}
        kinds = [TfidfVectorizer(analyzer="char_wb", ngram_range=(2, self.characters), **common)]
        if any(re.search(r"\w", text) for text in train.inputs):  # texts of signs alone have no words
            words = TfidfVectorizer(ngram_range=(1, self.words), token_pattern=r"(?u)\b\w+\b", **common)
            kinds.insert(0, words)
        counted = make_union(*kinds)
        targets = np.asarray(train.targets)
        table = targets if targets.ndim == 2 else np.eye(len(task.labels))[targets]
        decided = [k for k in range(table.shape[1]) if 0 < table[:, k].sum() < len(table)]
        features: Any = counted.fit_transform(train.inputs)
        machines = []
        for k in decided:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # the margin hardly moves any more by then
                machines.append(LinearSVC(C=self.strength, random_state=0).fit(features, table[:, k]))
        weights = np.zeros((features.shape[1], len(machines)), dtype=np.float32)
        for column, machine in enumerate(machines):
            weights[:, column] = np.ravel(machine.coef_)
        offsets = np.ravel([machine.intercept_ for machine in machines])
        constant = np.where(table.any(axis=0), -RARE, RARE).astype(float)  # a class that is on every row, or on none

        def outputs(asked: Rows) -> list[np.ndarray]:
            found = np.tile(constant, (len(asked.inputs), 1))
            found[:, decided] = counted.transform(asked.inputs) @ weights + offsets
            return list(found)

        return outputs
