"""Tagging: one tag a word, spans written in IOB2 (named entities, parts of a document).

A word that the tokenizer splits is labelled at its first piece. A text longer than the model reads is not cut: it is
read in overlapping windows, and each word is answered in the one window where it has context on both sides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from graftwork.choice import InputError, suggest
from graftwork.task import Decision, Prediction, Task, Window, coverage_threshold

if TYPE_CHECKING:
    from tokenizers import Encoding
    from torch import Tensor

    from graftwork.modalities.text import Text

IGNORED = -100
"""A target where nothing is asked: what torch's cross-entropy ignores by default."""


class Tagging(Task):
    """Which words are named entities, and of which type."""

    token_level: ClassVar[bool] = True
    selection: ClassVar[str] = "f1"

    def inputs(self, given: Sequence[Any]) -> list[Any]:
        """Lists of words; a text is cut at white space."""
        given = [each.split() if isinstance(each, str) else each for each in given]
        if any(not isinstance(each, list) for each in given):
            raise InputError("A tagging model reads lists of words.")
        return given

    def windows(self, modality: Text, inputs: Sequence[list[str]], labels: Sequence[Any] | None) -> Iterator[Window]:
        """One or more windows a text; every word is asked in exactly one of them."""
        for i, encoding in enumerate(_every_word_encoded(modality, inputs)):
            answers = self.targets(labels[i]) if labels is not None else np.zeros(len(inputs[i]), dtype=np.int64)
            ids = np.array(encoding.ids, dtype=np.int32)
            special = np.array(encoding.special_tokens_mask, dtype=bool)
            words = np.array([-1 if word is None else word for word in encoding.word_ids])
            first = np.concatenate([[True], words[1:] != words[:-1]]) & (words >= 0) & ~special
            target = np.full(len(ids), IGNORED, dtype=np.int64)
            target[first] = answers[words[first]]
            for part_ids, part_target in _overlapping(ids, target, special, modality.max_length):
                yield Window(part_ids, part_target, i)

    def targets(self, labels: Sequence[str]) -> np.ndarray:
        """The tags of one example: (words,) int64."""
        position = {name: i for i, name in enumerate(self.labels)}
        try:
            return np.array([position[tag] for tag in labels], dtype=np.int64)
        except KeyError as error:
            unknown = error.args[0]
            raise InputError(f"Tag {unknown!r} is none of the model's. {suggest(unknown, self.labels)}") from None

    def asked(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The first piece of each word, of all texts after one another: (words, tags) and (words,)."""
        words = targets != IGNORED
        return logits[words], targets[words]

    def losses(self, logits: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy of each word."""
        from torch.nn import functional as F

        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing, reduction="none")

    @property
    def separator(self) -> str | None:
        """A space: words have none in them."""
        return " "

    def gather(self, logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The outputs at the first piece of each word asked: (words, tags)."""
        asked = target != IGNORED
        return logits[: len(target)][asked], target[asked]

    def decide(self, outputs: list[np.ndarray], targets: list[np.ndarray], coverage: float) -> Decision:
        """Temperature by maximum likelihood over words; a sentence is as sure as its least certain word."""
        from scipy.optimize import minimize_scalar

        flat, truth = np.concatenate(outputs).astype(np.float64), np.concatenate(targets)
        fitted = minimize_scalar(
            lambda log_t: -_log_softmax(flat / np.exp(log_t))[np.arange(len(truth)), truth].mean(),
            bounds=(-3.0, 3.0), method="bounded",
        )  # fmt: skip
        temperature = float(np.exp(fitted.x))
        confidence = np.array([self._confidence(o, temperature) for o in outputs])
        return Decision(temperature=temperature, sure_from=coverage_threshold(confidence, coverage))

    def _confidence(self, output: np.ndarray, temperature: float) -> float:
        if not len(output):
            return 1.0
        return float(np.exp(_log_softmax(output.astype(np.float64) / temperature)).max(axis=1).min())

    def read(self, outputs: list[np.ndarray], decision: Decision) -> list[Prediction]:
        """The most probable tag of each word."""
        confidence = [self._confidence(o, decision.temperature) for o in outputs]
        return [
            Prediction([self.labels[k] for k in o.argmax(axis=1)] if len(o) else [], c, c < decision.sure_from, None)
            for o, c in zip(outputs, confidence, strict=True)
        ]

    def score(self, outputs: list[np.ndarray], targets: list[np.ndarray], decision: Decision) -> dict[str, Any]:
        """Entity-level precision, recall and F1 by seqeval: a span counts only when its borders and type are right."""
        from seqeval.metrics import classification_report, f1_score, precision_score, recall_score

        truth = [[self.labels[k] for k in t] for t in targets]
        predictions = self.read(outputs, decision)
        guess = [list(p.label) for p in predictions]
        zero: Any = {"zero_division": 0}  # seqeval's own hints allow only text here
        report: Any = classification_report(truth, guess, output_dict=True, **zero)
        flat, answers = np.concatenate(outputs).astype(np.float64), np.concatenate(targets)
        chance = _log_softmax(flat / decision.temperature)[np.arange(len(answers)), answers]
        sure = np.array([not p.unsure for p in predictions])
        right = np.array([t == g for t, g in zip(truth, guess, strict=True)])
        return {
            "n": len(targets),
            "loss": float(-chance.mean()),
            "f1": float(np.mean(f1_score(truth, guess, **zero))),
            "precision": float(np.mean(precision_score(truth, guess, **zero))),
            "recall": float(np.mean(recall_score(truth, guess, **zero))),
            "token_accuracy": float((flat.argmax(axis=1) == answers).mean()),
            "coverage": float(sure.mean()),
            "accuracy_when_sure": float(right[sure].mean()) if sure.any() else None,
            "per_class": {
                name: {"precision": float(row["precision"]), "recall": float(row["recall"]),
                       "f1": float(row["f1-score"]), "support": int(row["support"])}
                for name, row in report.items() if not name.endswith(" avg")
            },
        }  # fmt: skip

    def tally(self, truth: Sequence[Any], guess: Sequence[Any], chances: Sequence[Any] | None = None) -> np.ndarray:
        """Twice the spans that are right, and the spans given and asked for."""
        from seqeval.metrics.sequence_labeling import get_entities

        rows = [(set(get_entities(list(t))), set(get_entities(list(g)))) for t, g in zip(truth, guess, strict=True)]
        return np.array([[2 * len(t & g), len(t) + len(g)] for t, g in rows], dtype=np.float64).reshape(-1, 2)

    def tallied(self, sums: np.ndarray) -> np.ndarray:
        """F1 of spans, over all types together."""
        return sums[..., 0] / np.maximum(sums[..., 1], 1)


def _every_word_encoded(modality: Text, inputs: Sequence[list[str]]) -> list[Encoding]:
    """The tokenizer's records, in which every word has at least one token.

    A tokenizer drops what its normaliser removes (a lone control character); such a word is read as unknown, because
    a word without a token would have no answer.
    """
    encodings = modality.encodings(inputs)
    for i, (words, encoding) in enumerate(zip(inputs, encodings, strict=True)):
        missing = set(range(len(words))).difference(w for w in encoding.word_ids if w is not None)
        if missing:
            kept = [modality.stand_in if k in missing else word for k, word in enumerate(words)]
            encodings[i] = modality.encodings([kept])[0]
    return encodings


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _overlapping(
    ids: np.ndarray, target: np.ndarray, special: np.ndarray, max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut one encoded text into windows of `max_length` that overlap by a quarter, special tokens around each.

    A word is asked in the window where it stands farther from a cut edge: the seam lies in the overlap's middle.
    """
    if len(ids) <= max_length:
        yield ids, target
        return
    inner = np.flatnonzero(~special)
    head, tail = ids[: inner[0]], ids[inner[-1] + 1 :]
    body, asked = ids[inner], target[inner]
    room = max_length - len(head) - len(tail)
    overlap = room // 4
    starts = [*range(0, len(body) - room, room - overlap), len(body) - room]
    middles = [(previous + room + start) // 2 for previous, start in pairwise(starts)]
    for start, (low, high) in zip(starts, pairwise([0, *middles, len(body)]), strict=True):
        part = asked[start : start + room].copy()
        places = np.arange(start, start + len(part))
        part[(places < low) | (places >= high)] = IGNORED
        border = (np.full(len(head), IGNORED), np.full(len(tail), IGNORED))
        yield np.concatenate([head, body[start : start + room], tail]), np.concatenate([border[0], part, border[1]])
