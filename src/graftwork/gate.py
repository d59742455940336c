"""Does what was written answer as the model does? Asked of both about the user's own rows, part by part and whole.

A file that is wrong looks like one that is right: labels in another order, capitals no longer lowered, a fresh head.
Whole answers show what is lost; the parts, asked exactly, show also what few answers betray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from graftwork.graph import INPUTS
from graftwork.model import TransferModel
from graftwork.models import load_network
from graftwork.task import Task

LARGEST_DIFFERENCE = 1e-3
"""Of a probability, in fp32; measured are differences of about 1e-6."""
LEAST_AGREEMENT = 0.97
"""Share of the labels that fewer bits must keep. Of a probe on BANKING77, with its 77 near classes, they keep 98 %."""
LARGEST_SHIFT = 0.05
"""Of a score of fewer bits, as a share of its scale, that still counts as the same."""
LARGEST_LOSS = 0.01
"""How much worse fewer bits may score on the rows compared."""

_HARD = 8  # so many rows are made hard in each way
_ODD = "\u2063\U0001f9ff"  # an invisible separator, and a sign younger than most vocabularies
_TOGETHER = 32
_LAST_BITS = 1e-9

Answer = dict[str, Any]


@dataclass(frozen=True)
class Gate:
    """What came of asking a model and what was written of it the same."""

    rows: int
    """How many rows were compared."""
    agreement: float
    """Share of the labels that are the same; of several labels a row each yes or no counts, of tags each word."""
    largest_difference: float
    """Of a probability; of a score, as a share of its scale."""
    metric: str
    """What `score` is of."""
    score: dict[str, float]
    """On the rows compared: of the `model`, and of what was `exported`."""
    latency: dict[str, dict[str, float]]
    """Milliseconds from a text to its answer, one at a time: `p50` and `p95` of `model` and `exported`."""
    faults: tuple[str, ...]
    """What is wrong, in sentences; none where it may be trusted."""


class Written(Protocol):
    """What was written of a model, as it lies in a folder."""

    outputs: Callable[[Any], np.ndarray]
    """Raw outputs of one input."""
    answer: Callable[[np.ndarray], Answer]
    """What they mean, as `Prediction.as_dict` says it."""

    def faults(self, model: TransferModel, inputs: list[Any], *, exact: bool) -> list[str]:
        """What is wrong with its parts; where not `exact`, outputs may differ a little."""
        ...


def gated(
    model: TransferModel, written: Callable[[], Written], inputs: list[Any], labels: list[Any], *, exact: bool
) -> Gate:
    """Ask a model and what was written of it about the same rows.

    Args:
        model: what is to be equalled.
        written: reads what was written.
        inputs: rows that both answer.
        labels: what is right.
        exact: whether answers must be equal, or may differ as those of 8 bits do.
    """
    task = model.task
    expected, own_ms = _answered(lambda given: model.outputs([given])[0], _reader(model), inputs)
    score, latency = {"model": _score(task, labels, expected)}, {"model": own_ms}
    try:
        other = written()
        found, latency["exported"] = _answered(other.outputs, other.answer, inputs)
        faults = other.faults(model, inputs, exact=exact)
        agree = [_agreement(model, a, b, exact=exact) for a, b in zip(expected, found, strict=True)]
        largest = max(_difference(task, a, b) for a, b in zip(expected, found, strict=True))
        score["exported"] = _score(task, labels, found)
    except Exception as error:  # whatever a damaged file raises, it says that the file is damaged
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return Gate(len(inputs), 0.0, np.inf, task.selection, score, latency, (f"It cannot be asked: {said}.",))
    faults += _differs(agree, largest) if exact else _loses(agree, score)
    return Gate(len(inputs), float(np.mean(agree)), largest, task.selection, score, latency, tuple(faults))


def kept(model: TransferModel, written: Written, inputs: list[Any], expected: list[np.ndarray]) -> tuple[float, float]:
    """The share of the labels that what was written keeps, and how far its raw outputs moved as a share of their size.

    Args:
        model: what is to be equalled.
        written: what is asked.
        inputs: rows.
        expected: the model's raw outputs of them.
    """
    found, reader = [written.outputs(given) for given in inputs], _reader(model)
    pairs = list(zip(expected, found, strict=True))
    same = np.mean([_agreement(model, reader(e), written.answer(f), exact=False) for e, f in pairs])
    return float(same), float(sum(np.abs(e - f).sum() for e, f in pairs) / sum(np.abs(e).sum() for e, _ in pairs))


def _differs(agree: list[float], largest: float) -> list[str]:
    differ = sum(share < 1 for share in agree)
    found = [f"{differ} of {len(agree)} answers differ."] * (differ > 0)
    if not largest <= LARGEST_DIFFERENCE:  # what is no number is not within it either
        found.append(f"A probability differs by {largest:.2g}, and {LARGEST_DIFFERENCE:g} is allowed.")
    return found


def _loses(agree: list[float], score: dict[str, float]) -> list[str]:
    """In few rows one may differ, whatever share of them that is."""
    rows, differ = len(agree), 1 - float(np.mean(agree))
    allowed, bearable = max(1 - LEAST_AGREEMENT, 1 / rows), max(LARGEST_LOSS, 1 / rows)
    lost = round(score["model"] - score["exported"], 4)
    found = [f"{differ:.1%} of the labels differ, and of fewer bits {allowed:.1%} may."] * (
        round(differ - allowed, 9) > 0
    )
    if not lost <= bearable:
        found.append(f"Fewer bits lose {lost:.3f} of the score, and {bearable:.3g} is allowed.")
    return found and [*found, "Choose another --quantized, or leave it out."]


# --- what can be asked ---


class Standalone:
    """A folder that answers by its own predict.py, which is run as it lies there."""

    def __init__(self, folder: Path):
        file = folder / "predict.py"
        self.script: dict[str, Any] = {"__file__": str(file), "__name__": "predict"}
        exec(compile(file.read_bytes(), str(file), "exec"), self.script)  # an import would leave a __pycache__ there
        self.outputs: Callable[[Any], np.ndarray] = self.script["outputs"]
        self.answer: Callable[[np.ndarray], Answer] = self.script["answer"]
        self.answers: Callable[[list[Any]], Iterator[Answer]] = self.script["answers"]

    def faults(self, model: TransferModel, inputs: list[Any], *, exact: bool) -> list[str]:
        """How texts are read, what outputs mean, and whether the graph takes a padded batch."""
        given = [*inputs, *_hard(model, inputs)]
        misread = sum(self._read(model.task, each) != _ids(model, each) for each in given)
        outputs = model.outputs(inputs)
        meant = [p.as_dict() for p in model.task.read(outputs, model.decision)]
        misanswered = sum(not _equal(model, self.answer(o), m) for o, m in zip(outputs, meant, strict=True))
        return [
            *[f"{misread} of {len(given)} texts, hard ones among them, are cut into other tokens."] * (misread > 0),
            *[f"{misanswered} of {len(meant)} outputs are read as another answer."] * (misanswered > 0),
            *self._together(model, inputs[:_TOGETHER], exact=exact),
        ]

    def _read(self, task: Task, given: Any) -> list[list[int]]:
        if task.token_level:
            return [ids for ids, _ in self.script["windows"](given)]
        return [self.script["encode"](text) for text in ([given] if isinstance(given, str) else given)]

    def _together(self, model: TransferModel, inputs: list[Any], *, exact: bool) -> list[str]:
        """Whether rows of several lengths, asked at once and padded, come out as the network has them.

        Activations of 8 bits share a scale in each batch, so they depend on their company; then only shapes are asked.
        """
        windows = list(model.task.windows(model.modality, inputs, None))
        batch = model.modality.collate([w.ids for w in windows])
        (found,) = self.script["opened"](0).run(None, {name: batch[name].numpy() for name in INPUTS})
        with torch.inference_mode():
            expected = model(batch).numpy()
        if found.shape != expected.shape:
            return [f"A batch gives outputs of shape {found.shape}, not {expected.shape}."]
        there = batch["attention_mask"].numpy() == 1 if model.task.token_level else slice(None)
        apart = np.abs(found - expected)[there].max() / max(np.abs(expected[there]).max(), 1e-6)
        if exact and not apart <= LARGEST_DIFFERENCE:
            return [f"In a padded batch outputs differ by {apart:.2g} of the largest."]
        return []


class Saved:
    """A folder that graftwork loads, and of which `transformers` reads the encoder."""

    def __init__(self, folder: Path):
        self.folder, self.model = folder, TransferModel.load(folder)
        self.outputs: Callable[[Any], np.ndarray] = lambda given: self.model.outputs([given])[0]
        self.answer: Callable[[np.ndarray], Answer] = _reader(self.model)

    def faults(self, model: TransferModel, inputs: list[Any], *, exact: bool) -> list[str]:
        """What is not equal to the last bit, and what plain `transformers` does not find."""
        from transformers import AutoModel

        given = [*inputs, *_hard(model, inputs)]
        both = zip(self.model.outputs(given), model.outputs(given), strict=True)
        differ = sum(not np.array_equal(one, other) for one, other in both)
        _, said = load_network(AutoModel, self.folder)
        missing = sorted(name for name in said["missing_keys"] if not name.startswith("pooler."))
        return [
            *[f"{differ} of {len(given)} outputs differ in their bits."] * (differ > 0),
            *[f"Plain transformers misses weights: {', '.join(missing[:3])}."] * bool(missing),
        ]


# --- answers, and how they differ ---


def _answered(
    outputs: Callable[[Any], np.ndarray], answer: Callable[[np.ndarray], Answer], inputs: list[Any]
) -> tuple[list[Answer], dict[str, float]]:
    """Each row's answer, one row at a time as a user waits for it, and how long that took."""
    answer(outputs(inputs[0]))  # the first one pays for all that is made once
    found, taken = [], []
    for given in inputs:
        began = time.perf_counter()
        found.append(answer(outputs(given)))
        taken.append(1000 * (time.perf_counter() - began))
    p50, p95 = np.percentile(taken, [50, 95])
    return found, {"p50": round(float(p50), 2), "p95": round(float(p95), 2)}


def _reader(model: TransferModel) -> Callable[[np.ndarray], Answer]:
    return lambda found: model.task.read([found], model.decision)[0].as_dict()


def _ids(model: TransferModel, given: Any) -> list[list[int]]:
    return [w.ids.tolist() for w in model.task.windows(model.modality, [given], None)]


def _hard(model: TransferModel, inputs: list[Any]) -> list[Any]:
    """Rows made hard to read: in capitals, far too long, and of nothing but signs that no vocabulary has."""
    some, times = inputs[:_HARD], model.modality.max_length
    if model.task.token_level:
        return [*([word.upper() for word in words] for words in some), *(words * times for words in some), [_ODD]]
    changes: list[Callable[[str], str]] = [str.upper, lambda text: f"{text} " * times, lambda _: _ODD]
    return [c(each) if isinstance(each, str) else [c(text) for text in each] for c in changes for each in some]


def _agreement(model: TransferModel, one: Answer, other: Answer, *, exact: bool) -> float:
    """The share of an answer that is the same: of several labels each yes or no counts, of tags each word.

    Where it is to be exact, being sure counts, too; but what lies on its border may fall on either side.
    """
    if one["confidence"] is None:
        return float(_difference(model.task, one, other) <= (LARGEST_DIFFERENCE if exact else LARGEST_SHIFT))
    borderline = abs(one["confidence"] - model.decision.sure_from) <= LARGEST_DIFFERENCE
    if exact and one["unsure"] != other["unsure"] and not borderline:
        return 0.0
    if isinstance(one["label"], str):
        return float(one["label"] == other["label"])
    if model.task.token_level:
        return float(np.mean([a == b for a, b in zip(one["label"], other["label"], strict=True)] or [True]))
    return 1 - len(set(one["label"]) ^ set(other["label"])) / len(model.task.labels)


def _difference(task: Task, one: Answer, other: Answer) -> float:
    """The largest difference of two answers' probabilities; of scores, as a share of their scale."""
    if one["confidence"] is None:
        low, high = float(task.labels[0]), float(task.labels[1])
        return abs(float(one["label"]) - float(other["label"])) / (high - low)
    if one["probabilities"] is None:
        return abs(one["confidence"] - other["confidence"])
    return float(np.max([abs(p - other["probabilities"][name]) for name, p in one["probabilities"].items()]))


def _equal(model: TransferModel, one: Answer, other: Answer) -> bool:
    """Whether two answers to equal outputs are equal, but for the last bits of their sums."""
    numbers = [[*(a["probabilities"] or {}).values(), a["confidence"] or 0.0] for a in (one, other)]
    said = [(a["label"], list(a["probabilities"] or {})) for a in (one, other)]
    borderline = abs(numbers[0][-1] - model.decision.sure_from) <= _LAST_BITS
    alike = said[0] == said[1] and (one["unsure"] == other["unsure"] or borderline)
    return alike and bool(np.allclose(*numbers, rtol=0, atol=_LAST_BITS))


def _score(task: Task, labels: list[Any], answers: list[Answer]) -> float:
    chances = [list((answer["probabilities"] or {}).values()) for answer in answers]
    sums = task.tally(labels, [answer["label"] for answer in answers], chances)
    return round(float(task.tallied(sums.sum(axis=0))), 4)
