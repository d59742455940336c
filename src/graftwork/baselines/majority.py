"""The answer that is right most often, whatever is asked."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import ClassVar

import numpy as np

from graftwork.baseline import Answers, Baseline, Rows, log_odds, log_share
from graftwork.task import Task


class Majority(Baseline):
    """Always the most frequent class; in tagging, each word's most frequent tag in train (`O` for a new word)."""

    tasks: ClassVar[frozenset[str]] = frozenset({"classification", "tagging"})

    def fit(self, train: Rows, task: Task) -> Answers:
        """Count."""
        if task.token_level:
            return _tags_of_words(train, len(task.labels), task.labels.index("O") if "O" in task.labels else 0)
        targets = np.asarray(train.targets)
        if targets.ndim == 2:
            output = log_odds(targets.mean(axis=0))
        else:
            output = log_share(np.bincount(targets, minlength=len(task.labels)) / len(targets))
        return lambda asked: [output] * len(asked.inputs)


def _tags_of_words(train: Rows, tags: int, outside: int) -> Answers:
    seen: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for words, answers in zip(train.inputs, train.targets, strict=True):
        for word, tag in zip(words, answers, strict=True):
            seen[word.lower()][int(tag)] += 1
    unknown = log_share(np.eye(tags)[outside])

    def output(word: str) -> np.ndarray:
        counts = seen.get(word.lower())
        if not counts:
            return unknown
        share = np.zeros(tags)
        share[list(counts)] = list(counts.values())
        return log_share(share / share.sum())

    return lambda asked: [
        np.stack([output(w) for w in words]) if len(words) else np.zeros((0, tags)) for words in asked.inputs
    ]
