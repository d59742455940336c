"""The shelf of tasks: importing it puts every task on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graftwork.tasks.classification import Classification
from graftwork.tasks.similarity import Similarity
from graftwork.tasks.tagging import Tagging
from graftwork.tasks.triplets import Triplets

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.task import Task

__all__ = ["Classification", "Similarity", "Tagging", "Triplets", "task_of"]


def task_of(data: Data) -> Task:
    """The task that `data` asks for, with its class names."""
    if data.task == "tagging":
        return Tagging(labels=data.labels)
    if data.ordered:
        return Triplets(labels=data.labels)
    if data.task == "similarity":
        return Similarity(labels=data.labels, scored=data.scored)
    return Classification(labels=data.labels, multi_label=data.multi_label)
