"""A fitted run being compressed: a step is applied, what it took is won back, and everything is measured again.

Every point on the way is read on validation once, row by row, so that any two can be compared in pairs. What is
exported is measured as the user would run it: by its own predict.py, through onnxruntime.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graftwork.budget import Budget
from graftwork.choice import InputError
from graftwork.compressor import Compressor
from graftwork.evaluate import data_of, decided, evidence_of, outputs
from graftwork.examples import Examples, tokenised
from graftwork.export import ExportFailed, export
from graftwork.gate import Standalone
from graftwork.hardware import Hardware, World, peak_memory_mb, reset_peak_memory
from graftwork.latency import latency, waited_beside
from graftwork.loop import Stage, train
from graftwork.method import GradientMethod, recipe_of
from graftwork.methods.distillation import Distillation
from graftwork.methods.finetune import FullFineTuning
from graftwork.model import TransferModel
from graftwork.modifiers.sparsity import MagnitudePruning
from graftwork.regression import read_off, start_head, table
from graftwork.run import Run
from graftwork.significance import Evidence, at_least, difference, standings
from graftwork.work import OnEvent

SURE = 0.95
"""How sure it must be, one-sided, that a score is not lower than it is asked to be."""
_DRAWS = 200
"""Of the bootstrap of a metric that has to be computed anew for each draw."""


@dataclass(frozen=True)
class Measured:
    """A model after one step; the differences are to the original, on the same validation rows."""

    step: str
    """As it is typed; `original` for the first."""
    score: float
    """On validation, by the metric that models are chosen by."""
    low: float
    """Lower end of the score's 95 % interval over rows."""
    high: float
    """Upper end."""
    difference: float
    """How much higher the score is than the original's."""
    difference_low: float
    """Lower end of the difference's 95 % interval, paired by row."""
    difference_high: float
    """Upper end."""
    p: float | None
    """Probability of so large a difference by chance; None for the original."""
    mb: float
    """The model's folder, in 1,000,000 bytes."""
    parameters: int
    """Of encoder and head."""
    latency: dict[str, float]
    """`ms_1_p50`, `ms_1_p95`, `ms_32_p50`, `ms_32_p95` and `per_second`, from text to names."""
    peak_memory_mb: float | None
    """The most memory that the process held while this step was made and measured; training is a part of it."""
    head: str
    """What became of the head: `as it was`, `re-fitted` in closed form, or `trained` with the rest."""
    seconds: float
    """What the step took, with its training."""
    notes: dict[str, Any]
    """What else is to be known of this step."""
    steps: tuple[str, ...] = ()
    """All steps that lead here, this one the last."""
    misses: tuple[str, ...] | None = None
    """What of the goal is not held here, in words; none where all is; None without a goal."""


@dataclass(frozen=True, eq=False)
class Point:
    """A model on the way, what it answers on validation, and what was measured of it."""

    model: TransferModel
    steps: tuple[Compressor, ...]
    answers: list[np.ndarray]
    targets: list[np.ndarray]
    evidence: Evidence
    measured: Measured
    exported: Point | None = None
    """Of an export, the point that was exported; None where the model itself is meant."""
    good: bool = True
    """Whether the scores of a goal hold here; without one it is not asked."""

    def metric(self, name: str) -> float:
        """One of the task's metrics on validation."""
        return float(self.model.task.score(self.answers, self.targets, self.model.decision)[name])

    def surely(self, name: str, original: Point | None = None) -> float:
        """What a metric, or its lead over the original's, is not below (above, where low is good), `SURE` of it.

        Args:
            name: one of the task's metrics.
            original: what to compare with, on the same rows.
        """
        if name == self.model.task.selection:
            return at_least(self.evidence, original.evidence if original else None, level=SURE)
        found = self._redrawn(name) - (original._redrawn(name) if original else 0)
        return float(np.quantile(found, SURE if name in ("ece", "loss") else 1 - SURE))

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """What `_redrawn` gave."""
        return {}

    def _redrawn(self, name: str) -> np.ndarray:
        """A metric on redrawn rows, the same for every point: (draws,)."""
        if name in self._drawn:
            return self._drawn[name]
        generator, task = np.random.default_rng(0), self.model.task
        found = []
        for _ in range(_DRAWS):
            rows = generator.integers(0, len(self.answers), len(self.answers))
            answers, targets = ([each[i] for i in rows] for each in (self.answers, self.targets))
            found.append(task.score(answers, targets, self.model.decision)[name])
        self._drawn[name] = np.array(found, dtype=np.float64)
        return self._drawn[name]


class Compression:
    """One run being compressed.

    Args:
        run: finished.
        budget: of training after each step that training can help; None for none.
        seed: of training.
        hardware: what it computes on.
        on_event: is told what happens.

    Raises:
        InputError: the run is not finished, or its data has changed.
    """

    def __init__(self, run: Run, budget: Budget | None, seed: int, hardware: Hardware, on_event: OnEvent | None):
        run.require_fitted("compress")
        self.run, self.budget, self.seed, self.hardware, self.told = run, budget, seed, hardware, on_event
        self.data = data_of(run)
        self.recipe = recipe_of(run.asked["method"])
        self.model = TransferModel.load(run.path / "model").to(hardware.torch_device())

    @cached_property
    def original(self) -> Point:
        """The run's own model, measured."""
        self.note("Measuring the original")
        reset_peak_memory()
        answers, targets = outputs(self.model, self.examples(self.model, "validation"))
        evidence = self._evidence(self.model, answers)
        measured = self._measured("original", (), evidence, evidence, {
            "mb": saved_mb(self.model), "latency": latency(self.model, self._inputs), "head": "as it was",
            "seconds": 0.0, "notes": {}, "parameters": _count(self.model),
        })  # fmt: skip
        return Point(self.model, (), answers, targets, evidence, measured)

    def after(self, point: Point, step: Compressor, applied: TransferModel | None = None) -> Point:
        """A point one step on; the one given stays as it is.

        Args:
            point: where the step begins.
            step: what is done.
            applied: what a step that only stores makes of the point's model, where that is known.

        Raises:
            InputError: the step does not suit its model.
        """
        began = time.perf_counter()
        reset_peak_memory()
        model, head = point.model, "as it was"
        rounds = step.in_rounds(model)
        for number, each in enumerate(rounds):
            model = (applied or each.apply(model, self.examples(model, "train"))).to(point.model.device)
            head = self._recovered(model, (*point.steps, step), number, len(rounds))
        notes = step.notes(point.model, model, self.examples(point.model, "validation"))
        answers, targets = outputs(model, self.examples(model, "validation"))
        coverage, modifiers = self.run.asked.get("coverage", 1.0), self.recipe[-1].modifiers
        model.decision = decided(model.task, answers, targets, coverage, modifiers)
        evidence = self._evidence(model, answers)
        steps = (*point.steps, step)
        measured = self._measured(step.title, steps, evidence, self.original.evidence, {
            "mb": saved_mb(model), "latency": self._waited(model.predict), "head": head, "notes": notes,
            "seconds": round(time.perf_counter() - began, 1), "parameters": _count(model),
        })  # fmt: skip
        return Point(model, steps, answers, targets, evidence, measured)

    def exported(self, point: Point, quantized: str = "") -> Point | str:
        """A point as `graft export` would write it, measured through onnxruntime; or why it cannot be.

        Args:
            point: whose model is exported, with weights in fp32.
            quantized: the scheme by which they take fewer bits then; by default none.
        """
        began = time.perf_counter()
        reset_peak_memory()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "export"
            try:
                export(self._as_run(point, Path(folder) / "run"), "onnx", quantized=quantized, out=out)
            except (ExportFailed, InputError) as error:
                return str(error)
            written = Standalone(out)
            answers = [written.outputs(each) for each in self._inputs] if quantized else point.answers
            waits = self._waited(lambda some: list(written.answers(some)))
            size = _folder_mb(out)
        evidence = self._evidence(point.model, answers)
        step = exported_as(quantized)
        measured = self._measured(step, point.steps, evidence, self.original.evidence, {
            "mb": size, "latency": waits, "head": "as it was", "notes": {},
            "seconds": round(time.perf_counter() - began, 1), "parameters": _count(point.model),
        })  # fmt: skip
        measured = replace(measured, steps=(*measured.steps, step))
        return replace(point, answers=answers, evidence=evidence, measured=measured, exported=point)

    def examples(self, model: TransferModel, split: str) -> Examples:
        """A split as a model reads it."""
        return tokenised(self.data, split, model.task, model.modality)

    def note(self, message: str) -> None:
        """Tell people something."""
        self._on_event(event="note", message=message)

    # --- after a step ---

    def _recovered(self, model: TransferModel, steps: Sequence[Compressor], number: int, rounds: int) -> str:
        """Fit the head anew, and train where there is a budget; gives what became of the head.

        Args:
            model: after the last of the steps, or a round of it.
            steps: all that lead here.
            number: of the round.
            rounds: of the last step; they share its budget.
        """
        head = self._refitted(model) if steps[-1].refits else "as it was"
        if self.budget is None or not trains(steps[-1]):
            return head
        train_rows, validation = self.examples(model, "train"), self.examples(model, "validation")
        pairs = self.data.task == "similarity"
        idle = [MagnitudePruning(share=s.idle[0], over=s.idle[1], start=0, full=0) for s in steps if s.idle]
        kind = FullFineTuning if pairs else partial(Distillation, teachers=(str(self.run.path),))
        method: GradientMethod = kind(modifiers=tuple(idle))
        place = len(steps) - 1
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1000 + place)
            began = time.perf_counter()
            method.prepare(model, train_rows)
            model.to(self.hardware.torch_device())
            stage = Stage(
                number=place, method=method, budget=shared(self.budget, rounds), seed=self.seed + number,
                hardware=self.hardware, precision=self.hardware.chosen_precision(), world=World(model.device),
                checkpoint=Path(folder) / "latest.safetensors", on_event=self._on_event, stop_requested=lambda: False,
                spent=time.perf_counter() - began,
            )  # fmt: skip
            train(model, train_rows, validation, stage)
            method.finish(model, train_rows).eval()
        return "trained"

    def _refitted(self, model: TransferModel) -> str:
        """Put a quick regression into a linear head, where validation is answered better by it."""
        if model.head.probe is None or self.data.task == "similarity":
            return "as it was"
        train_rows, validation = self.examples(model, "train"), self.examples(model, "validation")
        before = copy.deepcopy(model.head.state_dict())
        score = self._score(model, validation)
        if model.reads_tokens:
            read_off(model, *table(model, train_rows))
        else:
            start_head(model, train_rows)
        if self._score(model, validation) > score:
            return "re-fitted"
        model.head.load_state_dict(before)
        return "as it was"

    def _score(self, model: TransferModel, validation: Examples) -> float:
        found, targets = outputs(model, validation)
        decision = model.task.decide(found, targets, 1.0) if model.task.decides else model.decision
        return float(model.task.score(found, targets, decision)[model.task.selection])

    # --- how good, how large, how fast ---

    @cached_property
    def _inputs(self) -> list[Any]:
        return list(self.data["validation"].inputs())

    def _waited(self, ask: Callable[[list[Any]], Any]) -> dict[str, float]:
        """How long answers take, measured in turn with the original's."""
        return waited_beside(ask, self.model.predict, self.original.measured.latency, self._inputs)

    def _evidence(self, model: TransferModel, answers: Sequence[np.ndarray]) -> Evidence:
        """What these answers say of each validation row."""
        task = model.task
        predictions = task.read(list(answers), model.decision)
        truth = self.data["validation"].labels()
        truth, guess = (
            [task.named(task.cell(name)) for name in names] for names in (truth, [p.label for p in predictions])
        )
        chances = [None if p.probabilities is None else list(p.probabilities.values()) for p in predictions]
        return evidence_of(task, truth, guess, chances)

    def _measured(
        self, step: str, steps: Sequence[Compressor], evidence: Evidence, original: Evidence, costs: dict[str, Any]
    ) -> Measured:
        stands = standings({step: evidence})[step]
        gap, low, high, p = (0.0, 0.0, 0.0, None) if evidence is original else difference(evidence, original)
        measured = Measured(
            step=step, score=stands.mean, low=stands.low, high=stands.high, difference=gap, difference_low=low,
            difference_high=high, p=p, peak_memory_mb=peak_memory_mb(), steps=tuple(each.title for each in steps),
            **costs,
        )  # fmt: skip
        self._on_event(event="compressed", **dataclasses.asdict(measured))
        return measured

    def _as_run(self, point: Point, path: Path) -> Run:
        """A point as a finished run, for verbs that take runs."""
        run = Run.create(path, self.run.asked)
        point.model.save(run.path / "model")
        happened = {"stages": self.run.happened.get("stages", [])}
        run.update(data=self.run.data, metrics=self.run.metrics, happened=happened)
        run.set_state("done")
        return run

    def _on_event(self, **event: Any) -> None:
        if self.told:
            self.told(event)


def trains(step: Compressor) -> bool:
    """Whether training may bring back what a step lost."""
    return step.refits and not step.stores


def exported_as(quantized: str) -> str:
    """An export as a step: what is typed after `graft`, without the run."""
    return f"export --quantized {quantized}" if quantized else "export"


def shared(budget: Budget, parts: int) -> Budget:
    """One of so many equal parts of a budget; a step at least."""
    share = budget.amount / parts
    return Budget(max(1.0, float(round(share))) if budget.unit == "steps" else share, budget.unit)


def saved_mb(model: TransferModel) -> float:
    """What a model's folder takes, in 1,000,000 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        return _folder_mb(Path(folder))


def _folder_mb(folder: Path) -> float:
    return round(sum(file.stat().st_size for file in folder.iterdir()) / 1e6, 2)


def _count(model: TransferModel) -> int:
    return sum(weights.numel() for weights in model.parameters())
