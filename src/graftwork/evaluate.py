"""evaluate: how good is a model on a split? Metrics, and every row's prediction, so that runs can be compared in pairs.

The test split is read here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftwork.choice import InputError
from graftwork.examples import Examples, tokenised
from graftwork.hardware import Hardware, autocast
from graftwork.model import TransferModel, evaluating, join
from graftwork.run import Run
from graftwork.significance import Evidence
from graftwork.task import Decision, Prediction, Task

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.features import Features
    from graftwork.modifier import Modifier


_NONE = np.zeros(0)


@torch.inference_mode()
def outputs(
    model: TransferModel,
    examples: Examples,
    *,
    features: Features | None = None,
    remap: np.ndarray | None = None,
    precision: str = "fp32",
    max_tokens: int = 8192,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Raw outputs and targets of every row of a split, in its order; only these are kept in memory.

    Args:
        model: what answers; it is read in eval mode.
        examples: the split.
        features: the frozen prefix's output for it, where there is one.
        remap: rows of the compacted embedding table, where there is one.
        precision: `fp32` or `bf16`.
        max_tokens: computed at once, padding included.
    """
    answers: list[np.ndarray] = [_NONE] * len(examples)
    targets: list[np.ndarray] = [_NONE] * len(examples)
    with evaluating(model), autocast(model.device, precision):
        for places in examples.in_order_of_length(max_tokens):
            batch = examples.batch(places, remap)
            batch = (features.into(batch) if features else batch).to(model.device)
            logits = model(batch.inputs).float().cpu().numpy()
            for place, row in zip(places, logits, strict=True):
                answers[place], targets[place] = model.task.gather(row, examples.target(place))
    return list(join(examples.example, answers, examples.rows)), list(join(examples.example, targets, examples.rows))


def evaluate(
    run: Run | str | Path,
    data: Any = None,
    *,
    split: str = "test",
    hardware: Hardware | None = None,
    **load: Any,
) -> dict[str, Any]:
    """Score a finished run on a split; predictions, metrics and the report in its folder are brought up to date.

    Args:
        run: the run or its folder.
        data: what to score on, as `Data.load` takes it; by default the data the run was fitted on.
        split: `test` by default. A file without splits is scored whole.
        hardware: device and precision; by default fp32, as the model predicts.
        load: further options of `Data.load`, such as `text` and `label`.

    Returns:
        The metrics of the run's task; `split` and `rows` say what was scored.

    Raises:
        InputError: the run is not finished, or the data has no such split or other labels.
    """
    from graftwork.data import Data

    run = run if isinstance(run, Run) else Run.open(run)
    run.require_fitted("evaluate")
    own = data is None
    options: dict[str, Any] = {"validation": 0, "test": 0} | load
    data = Data.load(**run.asked["data"]) if own else Data.load(data, **options)
    name = split
    if not own and split not in data.splits and len(data.splits) == 1:  # the rows of a lone file are called train
        split, name = next(iter(data.splits)), data.name
    if split not in data.splits:
        raise InputError(
            f"The data has no split {split!r}, only {sorted(data.splits)}. Give the rows to score as DATA."
        )
    if own:
        return {"split": name, "rows": len(data[split]), **scored(run, data, split, hardware)}
    found, targets, model, _ = _answers(run, data, split, hardware)
    return {"split": name, "rows": len(data[split]), **model.task.score(found, targets, model.decision)}


def data_of(run: Run) -> Data:
    """The data that a run was asked to learn from, as it was then.

    Raises:
        InputError: it has changed since.
    """
    from graftwork.data import Data

    asked = run.asked["data"]
    data = Data.load(**asked) if isinstance(asked, dict) else Data.load(asked)
    known = run.data.get("fingerprint")
    if known and known != data.fingerprint:
        raise InputError(
            f"The data of run {str(run.path)!r} has changed since it began (fingerprint {known[:12]}, now "
            f"{data.fingerprint[:12]}). Put the old data back, or start a new run."
        )
    return data


def decided(
    task: Task, found: list[np.ndarray], targets: list[np.ndarray], coverage: float, modifiers: Sequence[Modifier]
) -> Decision:
    """The decision fitted to validation: the task's own, with what the last stage's modifiers make of it.

    Args:
        task: what is asked.
        found: raw outputs of validation.
        targets: what is right.
        coverage: share to answer as sure, in (0, 1].
        modifiers: of the last stage.
    """
    decision = task.decide(found, targets, coverage)
    for modifier in modifiers:
        decision = modifier.decide(found, targets, decision)
    return decision


def scored(run: Run, data: Data, split: str, hardware: Hardware | None = None) -> dict[str, Any]:
    """Score a finished run on a split of its own data; metrics, predictions and report are brought up to date."""
    from graftwork.report import report

    found, targets, model, examples = _answers(run, data, split, hardware)
    metrics = model.task.score(found, targets, model.decision)
    record(run, data, split, model.task, model.task.read(found, model.decision), metrics, examples.lost)
    report(run)
    return metrics


def _answers(
    run: Run, data: Data, split: str, hardware: Hardware | None
) -> tuple[list[np.ndarray], list[np.ndarray], TransferModel, Examples]:
    hardware = hardware or Hardware()
    model = TransferModel.load(run.path / "model").to(hardware.torch_device())
    examples = tokenised(data, split, model.task, model.modality)
    return *outputs(model, examples, max_tokens=hardware.max_tokens), model, examples


def record(
    run: Run,
    data: Data,
    split: str,
    task: Task,
    predictions: Sequence[Prediction],
    metrics: dict[str, Any],
    lost: np.ndarray | None = None,
) -> None:
    """Write a split's metrics and per-row predictions into the run.

    Args:
        run: where to.
        data: holds the split.
        split: which one.
        task: what was asked.
        predictions: one a row.
        metrics: what `task.score` gave.
        lost: tokens that the model's length cut off each row, for models that have one.
    """
    import pyarrow as pa

    from graftwork.data import PAIR

    rows = data[split]
    between = PAIR if rows.compares else " "
    table = pa.table(
        {
            "split": pa.array([split] * len(rows), pa.string()),
            "row": pa.array(rows.rows, pa.int64()),
            "input": pa.array([i if isinstance(i, str) else between.join(i) for i in rows.inputs()], pa.string()),
            "label": pa.array([task.cell(label) for label in rows.labels()], pa.string()),
            "prediction": pa.array([task.cell(p.label) for p in predictions], pa.string()),
            "confidence": pa.array([p.confidence for p in predictions], pa.float64()),
            "unsure": pa.array([bool(p.unsure) for p in predictions], pa.bool_()),
            "probabilities": pa.array(
                [None if p.probabilities is None else list(p.probabilities.values()) for p in predictions],
                pa.list_(pa.float32()),
            ),
        }
    )
    run.write_predictions(split, table)
    cut = {}
    if lost is not None:
        cut = {f"truncated_rows_{split}": int((lost > 0).sum()), f"truncated_tokens_{split}": int(lost.sum())}
    run.update(metrics={split: metrics}, happened=cut)


def evidence_of(
    task: Task, truth: Sequence[Any], guess: Sequence[Any], chances: Sequence[list[float] | None]
) -> Evidence:
    """What one run said about each row, for paired tests.

    Args:
        task: what was asked.
        truth: the right answers, in names.
        guess: what was answered.
        chances: the probabilities of each row's answers, where there are any.
    """
    right = np.array([t == g for t, g in zip(truth, guess, strict=True)])
    correct = [right] if task.selection == "accuracy" else None
    return Evidence([task.tally(truth, guess, chances)], task.tallied, correct)


def evidence_of_runs(task: Task, runs: Iterable[Run], split: str = "test") -> Evidence:
    """What runs of one method said about each row of a split, from their predictions.

    Args:
        task: what was asked.
        runs: one a seed; all were scored on the same rows.
        split: which.
    """
    found = []
    for run in runs:
        table = run.predictions(split)
        truth, guess = ([task.named(cell) for cell in table[column].to_pylist()] for column in ("label", "prediction"))
        found.append(evidence_of(task, truth, guess, table["probabilities"].to_pylist()))
    right = [each.correct[0] for each in found if each.correct]
    return Evidence([each.tallies[0] for each in found], task.tallied, right or None)


def quick_score(model: TransferModel, found: list[np.ndarray], targets: list[np.ndarray]) -> dict[str, float]:
    """The scalar metrics of a validation in the middle of training, with the decision refitted where it matters."""
    decision = model.task.decide(found, targets, 1.0) if model.task.decides else Decision()
    return {k: v for k, v in model.task.score(found, targets, decision).items() if isinstance(v, float)}
