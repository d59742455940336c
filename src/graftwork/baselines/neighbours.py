"""What the nearest training texts are called, in the space of the pretrained encoder."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from graftwork.baseline import Answers, Baseline, Rows, log_odds, log_share
from graftwork.task import Task
from graftwork.transferability import unit

_CHUNK = 1024


class NearestNeighbours(Baseline):
    """A vote of the nearest training texts, by cosine of the frozen encoder's embeddings, the near ones louder."""

    paper: ClassVar[str] = "Cover & Hart 1967; weights of the votes: Wu et al. 2018, section 3.4"

    neighbours: int = Field(default=10, ge=1)
    """How many training texts vote; fewer where there are fewer."""
    temperature: float = Field(default=0.07, gt=0)
    """A vote weighs exp(cosine / temperature)."""

    def fit(self, train: Rows, task: Task) -> Answers:
        """Keep the training texts' embeddings."""
        stored, targets = unit(train.embeddings()), np.asarray(train.targets)
        several = targets.ndim == 2
        answers = targets if several else np.eye(len(task.labels), dtype=np.float32)[targets]
        k = min(self.neighbours, len(stored))

        def outputs(asked: Rows) -> list[np.ndarray]:
            queries = unit(asked.embeddings())
            found: list[np.ndarray] = []
            for start in range(0, len(queries), _CHUNK):
                cosine = queries[start : start + _CHUNK] @ stored.T
                nearest = np.argpartition(-cosine, k - 1, axis=1)[:, :k]
                near = np.take_along_axis(cosine, nearest, axis=1)
                votes = np.exp((near - near.max(axis=1, keepdims=True)) / self.temperature)
                share = np.einsum("qk,qkc->qc", votes / votes.sum(axis=1, keepdims=True), answers[nearest])
                found.extend(log_odds(share) if several else log_share(share))
            return found

        return outputs
