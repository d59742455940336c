"""compress: make a fitted model smaller and faster step by step, and measure after each what was gained and lost.

Nothing here reads the test split: `graft evaluate` does, on the run that this leaves.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import graftwork.compressors
import graftwork.methods  # noqa: F401  puts every method on its shelf
from graftwork.budget import Budget
from graftwork.choice import InputError
from graftwork.compressor import Compressor, steps_of
from graftwork.evaluate import data_of, decided, evidence_of, outputs, record
from graftwork.examples import Examples, tokenised
from graftwork.hardware import Hardware, World, peak_memory_mb
from graftwork.latency import latency
from graftwork.loop import Stage, train
from graftwork.method import GradientMethod, recipe_of
from graftwork.methods.distillation import Distillation
from graftwork.methods.finetune import FullFineTuning
from graftwork.model import TransferModel
from graftwork.regression import read_off, start_head, table
from graftwork.report import report
from graftwork.run import Run, refuse_replacing
from graftwork.significance import Evidence, difference, standings
from graftwork.work import OnEvent

DEFAULT_STEPS = "vocabulary, half"


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
    head: str
    """What became of the head: `as it was`, `re-fitted` in closed form, or `trained` with the rest."""
    seconds: float
    """What the step took, with its training."""
    notes: dict[str, Any]
    """What else is to be known of this step."""


def compress(
    run: Run | str | Path,
    *,
    steps: Any = DEFAULT_STEPS,
    budget: str | Budget | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
) -> Run:
    """Compress the model of a finished run, and give back a new run that holds the smaller one.

    After each step that changes what the head reads, a linear head is fitted anew in closed form, and kept where it
    does better on validation. With a budget the model learns from the original's answers instead, by distillation.

    Args:
        run: a finished run, or its folder.
        steps: `"vocabulary, layers=3"`, or a list of such words, mappings and compressors.
        budget: of training, shared equally by the steps that training can help; by default nothing is trained.
        seed: of training.
        out: the new run's folder; by default that of the run with `-compressed`.
        force: whether a finished run there may be replaced.
        hardware: device, precision, threads.
        on_event: is told what happens, as it happens.

    Returns:
        The new run; `happened["compression"]` holds `of`, `steps`, `budget`, `metric`, `rows` and `table`, one
        `Measured` a step.

    Raises:
        InputError: the run is not finished, a step does not suit its model or its place, or the data has changed.

    Example:
        small = compress("runs/reviews-full-fine-tuning", steps="vocabulary, layers=3", budget="2m")
        small.happened["compression"]["table"]
    """
    began = time.perf_counter()
    whole = run if isinstance(run, Run) else Run.open(run)
    parsed = steps_of(steps)
    path = Path(out) if out else Run.default_path(f"{whole.path.resolve().name}", "compressed", whole.path.parent)
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        refuse_replacing(path, force=force)
    if path.resolve() == whole.path.resolve():
        raise InputError("The compressed model would take the place of the original. Choose another folder with --out.")
    work = _Compressing(whole, parsed, Budget.parse(budget) if budget else None, seed, Hardware.of(hardware), on_event)
    found = work.measured()
    return work.written(path, found, force=force, began=began)


class _Compressing:
    """One run being compressed."""

    def __init__(
        self,
        run: Run,
        steps: Sequence[Compressor],
        budget: Budget | None,
        seed: int,
        hardware: Hardware,
        on_event: OnEvent | None,
    ):
        run.require_fitted("compress")
        self.run, self.steps, self.seed, self.hardware, self.told = run, steps, seed, hardware, on_event
        self.data = data_of(run)
        self.recipe = recipe_of(run.asked["method"])
        self.model = TransferModel.load(run.path / "model").to(hardware.torch_device())
        steps[0].require_suited(self.model)  # the others are asked when their turn has come
        training = sum(_trains(step) for step in steps)
        if budget and not training:
            raise InputError(f"None of the steps is followed by training, so leave the budget out: {_titles(steps)}.")
        self.budget = budget
        self.share = Budget(_shared(budget, training), budget.unit) if budget else None

    def measured(self) -> list[Measured]:
        """The original and each step; afterwards `model` is the smallest."""
        self._note("Measuring the original")
        self.answers, self.targets = outputs(self.model, self._examples(self.model, "validation"))
        evidence = self.evidence = self._evidence(self.model)
        found = [self._measured("original", self.model, evidence, "as it was", 0.0, {})]
        for number, step in enumerate(self.steps):
            began = time.perf_counter()
            self._note(f"Step {number + 1}/{len(self.steps)}: {step.title}")
            smaller = step.apply(self.model, self._examples(self.model, "train")).to(self.model.device)
            notes = step.notes(self.model, smaller, self._examples(self.model, "validation"))
            head = self._recovered(smaller, step, number)
            self.model = smaller
            self.answers, self.targets = outputs(smaller, self._examples(smaller, "validation"))
            coverage, modifiers = self.run.asked.get("coverage", 1.0), self.recipe[-1].modifiers
            smaller.decision = decided(smaller.task, self.answers, self.targets, coverage, modifiers)
            seconds = time.perf_counter() - began
            found.append(self._measured(step.title, smaller, self._evidence(smaller), head, seconds, notes))
        return found

    # --- after a step ---

    def _recovered(self, model: TransferModel, step: Compressor, number: int) -> str:
        """Fit the head anew, and train where there is a budget; gives what became of the head."""
        head = self._refitted(model) if step.refits else "as it was"
        if self.share is None or not _trains(step):
            return head
        train_rows, validation = self._examples(model, "train"), self._examples(model, "validation")
        pairs = self.data.task == "similarity"
        method: GradientMethod = FullFineTuning() if pairs else Distillation(teachers=(str(self.run.path),))
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed * 1000 + number)
            began = time.perf_counter()
            method.prepare(model, train_rows)
            model.to(self.hardware.torch_device())
            stage = Stage(
                number=number, method=method, budget=self.share, seed=self.seed, hardware=self.hardware,
                precision=self.hardware.chosen_precision(), world=World(model.device),
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
        train_rows, validation = self._examples(model, "train"), self._examples(model, "validation")
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

    def _evidence(self, model: TransferModel) -> Evidence:
        """What is known of the model whose validation was read last."""
        task = model.task
        predictions = task.read(self.answers, model.decision)
        truth = self.data["validation"].labels()
        truth, guess = (
            [task.named(task.cell(name)) for name in names] for names in (truth, [p.label for p in predictions])
        )
        chances = [None if p.probabilities is None else list(p.probabilities.values()) for p in predictions]
        return evidence_of(task, truth, guess, chances)

    def _measured(
        self, step: str, model: TransferModel, evidence: Evidence, head: str, seconds: float, notes: dict[str, Any]
    ) -> Measured:
        stands = standings({step: evidence})[step]
        original = step == "original"
        gap, low, high, p = (0.0, 0.0, 0.0, None) if original else difference(evidence, self.evidence)
        with tempfile.TemporaryDirectory() as folder:
            model.save(folder)
            size = sum(file.stat().st_size for file in Path(folder).iterdir())
        measured = Measured(
            step=step, score=stands.mean, low=stands.low, high=stands.high, difference=gap, difference_low=low,
            difference_high=high, p=p, mb=round(size / 1e6, 2), parameters=sum(w.numel() for w in model.parameters()),
            latency=latency(model, list(self.data["validation"].inputs())), head=head, seconds=round(seconds, 1),
            notes=notes,
        )  # fmt: skip
        if self.told:
            self.told({"event": "compressed", **dataclasses.asdict(measured)})
        return measured

    # --- what is told and written ---

    def written(self, path: Path, found: Sequence[Measured], *, force: bool, began: float) -> Run:
        """The new run: model, table, and what it answers on validation."""
        compression = {
            "of": str(self.run.path), "steps": [step.spec() for step in self.steps],
            "budget": str(self.budget) if self.budget else None, "metric": self.model.task.selection,
            "rows": len(self.data["validation"]), "table": [dataclasses.asdict(each) for each in found],
        }  # fmt: skip
        run = Run.create(path, self.run.asked | {"out": str(path)}, force=force)
        with run.working():
            model = self.model
            model.save(run.path / "model")
            metrics = model.task.score(self.answers, self.targets, model.decision)
            record(run, self.data, "validation", model.task, model.task.read(self.answers, model.decision), metrics)
            happened = {"compression": compression, "decision": dataclasses.asdict(model.decision)}
            cost = {
                "seconds": round(time.perf_counter() - began, 2), "peak_memory_mb": peak_memory_mb(),
                "total_parameters": found[-1].parameters, "model_mb": round(found[-1].mb, 1),
            }  # fmt: skip
            run.update(data=self.run.data, findings=self.run.findings, happened=happened, cost=cost)
            run.set_state("done")
        report(run)
        return run

    def _examples(self, model: TransferModel, split: str) -> Examples:
        return tokenised(self.data, split, model.task, model.modality)

    def _note(self, message: str) -> None:
        self._on_event(event="note", message=message)

    def _on_event(self, **event: Any) -> None:
        if self.told:
            self.told(event)


def _trains(step: Compressor) -> bool:
    """Whether training may bring back what a step lost."""
    return step.refits and not step.stores


def _titles(steps: Sequence[Compressor]) -> str:
    return ", ".join(step.title for step in steps)


def _shared(budget: Budget, parts: int) -> float:
    share = budget.amount / parts
    return max(1.0, float(round(share))) if budget.unit == "steps" else share
