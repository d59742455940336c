"""compress: make a fitted model smaller and faster step by step, and measure after each what was gained and lost.

With a goal the steps are found: each kind is tried from its mildest value on and kept as long as the goal's scores hold
beyond chance, until size and speed hold as well. Nothing here reads the test split: `graft evaluate` does, on the run
that this leaves.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

import graftwork.compressors
import graftwork.methods  # noqa: F401  puts every method on its shelf
from graftwork.budget import Budget
from graftwork.choice import InputError, lookup, names
from graftwork.compression import SURE, Compression, Measured, Point, exported_as, saved_mb, shared, trains
from graftwork.compressor import Compressor, steps_of
from graftwork.disk import atomic_write
from graftwork.evaluate import record
from graftwork.goal import Condition, Goal
from graftwork.graph import require_onnx
from graftwork.hardware import Hardware, peak_memory_mb
from graftwork.model import TransferModel
from graftwork.report import report
from graftwork.report.compression import compression_page
from graftwork.run import Run, refuse_replacing
from graftwork.work import OnEvent

DEFAULT_STEPS = "vocabulary, half"
PAGE = "compression.html"
ORDER = ("vocabulary", "layers", "ffn", "heads", "factorised-embedding")
"""In which a search tries the kinds of steps; others come after these."""
EXPORTED = {"": 32, "dynamic": 8, "weights": 8, "weights=4": 4}
"""How a search exports: by no scheme or which, and at least so many bits a weight."""
_LIMITS = {"size": "mb", "latency": "ms_1_p50", "throughput": "per_second"}


def compress(
    run: Run | str | Path,
    *,
    steps: Any = None,
    goal: str | Goal | None = None,
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
        steps: `"vocabulary, layers=3"`, or a list of such words, mappings and compressors; by default vocabulary and
            half. With a goal: what may be tried, in this order; by default every step, in several values.
        goal: what must hold, as `Goal.parse` reads it: `"accuracy>=-0.5, size<=20MB, latency<=3ms"`. A score must hold
            on validation with 95 % confidence. Size and latency are those of what is deployed, which may be an export.
        budget: of training, shared equally by the steps that training can help; with a goal, of each training. By
            default nothing is trained.
        seed: of training.
        out: the new run's folder; by default that of the run with `-compressed`.
        force: whether a finished run there may be replaced.
        hardware: device, precision, threads.
        on_event: is told what happens, as it happens.

    Returns:
        The new run; `happened["compression"]` holds `of`, `steps`, `budget`, `metric`, `rows` and `table`, one
        `Measured` a step; with a goal also `goal`, whether it `holds`, the `verdict` in words and the command to
        `deploy`. Where no point holds it, the run is the nearest one.

    Raises:
        InputError: the run is not finished, a step does not suit its model or its place, the goal is not understood or
            beyond the original, or the data has changed.

    Example:
        small = compress("runs/reviews-full-fine-tuning", goal="accuracy>=-0.5, size<=20MB")
        small.happened["compression"]["verdict"]
    """
    began = time.perf_counter()
    whole = run if isinstance(run, Run) else Run.open(run)
    parsed: tuple[Compressor, ...] = ()
    if steps is not None or not goal:
        parsed = steps_of(DEFAULT_STEPS if steps is None else steps)
    path = Path(out) if out else Run.default_path(f"{whole.path.resolve().name}", "compressed", whole.path.parent)
    if path.exists() and any(path.iterdir() if path.is_dir() else [path]):
        refuse_replacing(path, force=force)
    if path.resolve() == whole.path.resolve():
        raise InputError("The compressed model would take the place of the original. Choose another folder with --out.")
    whole.require_fitted("compress")
    wanted = Goal.parse(goal, _metrics(whole)) if goal else None
    spent = Budget.parse(budget) if budget else None
    training = sum(trains(step) for step in parsed)
    if spent and parsed and not training:
        titles = ", ".join(step.title for step in parsed)
        raise InputError(f"None of the steps is followed by training, so leave the budget out: {titles}.")
    share = shared(spent, training) if spent and not wanted else spent
    hardware = Hardware.of(hardware)
    work = Compression(whole, share, seed, hardware, on_event)
    with _threads(hardware):
        found = _Search(work, wanted, parsed).found() if wanted else _in_order(work, parsed)
        return _written(work, found, path, spent, force=force, began=began)


@dataclass(frozen=True)
class _Found:
    """Where the steps led: the point that is left, all that was measured, and what it comes to."""

    point: Point
    table: list[Measured]
    told: dict[str, Any]


def _in_order(work: Compression, steps: Sequence[Compressor]) -> _Found:
    """The steps as they were given."""
    steps[0].require_suited(work.model)  # the others are asked when their turn has come
    points = [work.original]
    for number, step in enumerate(steps):
        work.note(f"Step {number + 1}/{len(steps)}: {step.title}")
        points.append(work.after(points[-1], step))
    return _Found(points[-1], [point.measured for point in points], {})


# --- with a goal ---


def _metrics(run: Run) -> list[str]:
    """Of what a goal may speak: shares on validation."""
    values = run.metrics.get("validation", {})
    return [name for name, value in values.items() if isinstance(value, float) and name != "loss"]


def _all_steps(model: TransferModel) -> tuple[list[list[Compressor]], list[Compressor]]:
    """What may be tried, kind by kind, from the mildest value on; and the ways to store the weights."""
    kinds = [lookup(Compressor, name) for name in names(Compressor)]
    kinds.sort(key=lambda kind: ORDER.index(kind.name) if kind.name in ORDER else len(ORDER))
    return [levels for kind in kinds if (levels := kind.levels(model))], [kind() for kind in kinds if kind.stores]


class _Search:
    """Looks for the first point at which a goal holds.

    Of each kind of step the values are tried from the mildest on, each on what the kinds before it left, until one
    does not hold the scores. So whatever is kept was tested once, and before anything stronger of its kind: testing in
    a fixed order up to the first failure needs no correction for the number of tests (Maurer et al. 1995).
    """

    def __init__(self, work: Compression, goal: Goal, steps: Sequence[Compressor]):
        self.work, self.goal = work, goal
        given = [[step] for step in steps if not step.stores], [step for step in steps if step.stores]
        self.families, self.storages = given if steps else _all_steps(work.model)
        self.table: list[Measured] = []
        self.exports = _can_export(work)

    def found(self) -> _Found:
        """The point to take, and all that was tried."""
        work = self.work
        if lost := self._scores_missed(work.original):
            raise InputError(f"The goal is beyond the original: {' '.join(lost)} Ask for less, or fit a better model.")
        if work.budget:
            count = sum(trains(step) for family in self.families for step in family)
            work.note(f"At most {count} models are trained, each for {work.budget}.")
        self.nearest = self.held = self._judged(work.original)
        for held in self._on_the_way():
            for point in self._forms(held):
                if not point.measured.misses:
                    return self._told(point, reached=True)
        for _ in self._each_form(self.held, fitting=False):
            pass  # the nearest may be one that could not have sufficed
        return self._told(self.nearest, reached=False)

    def _on_the_way(self) -> Iterator[Point]:
        """The points that hold the scores, from the original on; without a limit only the last of them."""
        if self.goal.limits:
            yield self.held
        for family in self.families:
            base = self.held
            for step in family:
                if not self._helps(step) or step.refused(base.model):
                    continue
                self.work.note(f"Trying {', '.join(each.title for each in (*base.steps, step))}")
                point = self._judged(self.work.after(base, step))
                if not point.good:
                    break
                self.held = point
                if self.goal.limits:
                    yield self.held
        if not self.goal.limits:
            yield self.held

    def _helps(self, step: Compressor) -> bool:
        """Whether a step does anything for the limits that there are."""
        return step.faster or not self.goal.limits or any(limit.name == "size" for limit in self.goal.limits)

    def _forms(self, point: Point) -> Iterator[Point]:
        """A point as it is, stored in fewer bits, and exported; without a limit the smallest first."""
        forms = self._each_form(point)
        return forms if self.goal.limits else iter(sorted(forms, key=lambda form: form.measured.mb))

    def _each_form(self, point: Point, *, fitting: bool = True) -> Iterator[Point]:
        """With `fitting` those alone that may be small and fast enough, else the others."""
        yield point
        known = {measured.steps for measured in self.table}
        slow = [limit for limit in self.goal.limits if limit.name != "size" and self._lacks(limit, point) > 0]
        stored = [] if slow and fitting else [step for step in self.storages if not step.refused(point.model)]
        train = self.work.examples(point.model, "train")
        applied = {step: step.apply(point.model, train) for step in stored}
        sizes = {step: saved_mb(model) for step, model in applied.items()}
        for step in sorted(stored, key=lambda step: -sizes[step]):
            if (*point.measured.steps, step.title) not in known and (not fitting or self._fits(sizes[step])):
                yield self._judged(self.work.after(point, step, applied[step]))
        for quantized, bits in EXPORTED.items() if self.exports else ():
            if (*point.measured.steps, exported_as(quantized)) in known:
                continue
            if not fitting or self._fits(point.measured.parameters * bits / 8 / 1e6):
                form = self.work.exported(point, quantized)
                if isinstance(form, Point):
                    yield self._judged(form)
                else:
                    self.work.note(f"As {exported_as(quantized)} it would not pass: {form}")

    # --- does it hold? ---

    def _judged(self, point: Point) -> Point:
        """The point with what it misses of the goal, which is noted; only the nearest and those held stay in memory."""
        lost = self._scores_missed(point)
        misses = [*lost, *self._limits_missed(point)]
        point = replace(point, good=not lost, measured=replace(point.measured, misses=tuple(misses)))
        self.table.append(point.measured)
        if point.good and len(self.table) > 1 and self._distance(point) < self._distance(self.nearest):
            self.nearest = point
        said = f"{point.measured.step}: {_summary(point.measured, self.metric)}"
        self.work.note(f"{said}: {' '.join(misses) or 'the goal holds.'}")
        return point

    @property
    def metric(self) -> str:
        """What models are chosen by."""
        return self.work.model.task.selection

    def _scores_missed(self, point: Point) -> list[str]:
        found = []
        for wanted in self.goal.scores:
            surely = point.surely(wanted.name, self.work.original if wanted.relative else None)
            if (surely > wanted.value) if wanted.low_is_good else (surely < wanted.value):
                asked = f"{100 * wanted.value:+.1f} points" if wanted.relative else f"{wanted.value:.1%}"
                bound = f"{100 * surely:+.1f} points" if wanted.relative else f"{surely:.1%}"
                found.append(f"{wanted.name} may be as bad as {bound}, and {asked} is asked for.")
        return found

    def _limits_missed(self, point: Point) -> list[str]:
        return [
            f"{limit.name} is {_shown(limit, _value(limit, point))}, and "
            f"{_shown(limit, limit.bound(_value(limit, self.work.original)))} is asked for."
            for limit in self.goal.limits
            if self._lacks(limit, point) > 0
        ]

    def _lacks(self, limit: Condition, point: Point) -> float:
        return limit.lacks(_value(limit, point), _value(limit, self.work.original))

    def _fits(self, mb: float) -> bool:
        """Whether something of this size could do."""
        whole = self.work.original.measured.mb
        return all(limit.holds(mb, whole) for limit in self.goal.limits if limit.name == "size")

    def _distance(self, point: Point) -> float:
        """By how much a point misses the limits, added up."""
        return sum(max(0.0, self._lacks(limit, point)) for limit in self.goal.limits)

    # --- what it comes to ---

    def _told(self, point: Point, *, reached: bool) -> _Found:
        what = ", ".join(point.measured.steps) or "the original as it is"
        said = _summary(point.measured, self.metric)
        if reached:
            verdict = f"{what} holds {self.goal}: {said}."
        else:
            lacks = " ".join(point.measured.misses or ())
            nearest = f"The nearest is {what}: {said}. {lacks}{self._advice()}"
            verdict = f"Nothing that was tried holds {self.goal}. {nearest}"
        return _Found(point, self.table, {"goal": str(self.goal), "holds": reached, "verdict": verdict, "sure": SURE})

    def _advice(self) -> str:
        if self.work.budget is None:
            return " Training after each step may win back more: give a --budget."
        return " A larger --budget, or a goal that asks for less, may do."


def _value(limit: Condition, point: Point) -> float:
    measured = point.measured
    return measured.mb if limit.name == "size" else measured.latency[_LIMITS[limit.name]]


def _shown(limit: Condition, value: float) -> str:
    return {"size": f"{value:.1f} MB", "latency": f"{value:.2f} ms", "throughput": f"{value:,.0f} a second"}[limit.name]


def _summary(measured: Measured, metric: str) -> str:
    """A point in a line."""
    against = "" if measured.step == "original" else (
        f" ({100 * measured.difference:+.1f} points, {100 * measured.difference_low:+.1f} to "
        f"{100 * measured.difference_high:+.1f})"
    )  # fmt: skip
    return f"{metric} {measured.score:.1%}{against}, {measured.mb:.1f} MB, {measured.latency['ms_1_p50']:.1f} ms a text"


def _can_export(work: Compression) -> bool:
    try:
        require_onnx()
    except InputError:
        work.note("Exports are not tried, because what they need is missing: pip install 'graftwork[export]'.")
        return False
    return True


# --- what is left ---


def _written(work: Compression, found: _Found, path: Path, budget: Budget | None, *, force: bool, began: float) -> Run:
    """The new run: model, table, and what it answers on validation."""
    point, model = found.point.exported or found.point, found.point.model
    compression = {
        "of": str(work.run.path), "steps": [step.spec() for step in point.steps],
        "budget": str(budget) if budget else None, "metric": model.task.selection,
        "rows": len(work.data["validation"]), "table": [dataclasses.asdict(each) for each in found.table],
        **found.told, **({"deploy": _deployed(found.point, path)} if found.told else {}),
    }  # fmt: skip
    run = Run.create(path, work.run.asked | {"out": str(path)}, force=force)
    with run.working():
        model.save(run.path / "model")
        metrics = model.task.score(point.answers, point.targets, model.decision)
        record(run, work.data, "validation", model.task, model.task.read(point.answers, model.decision), metrics)
        happened = {"compression": compression, "decision": dataclasses.asdict(model.decision)}
        cost = {
            "seconds": round(time.perf_counter() - began, 2), "peak_memory_mb": peak_memory_mb(),
            "total_parameters": point.measured.parameters, "model_mb": round(point.measured.mb, 1),
        }  # fmt: skip
        run.update(data=work.run.data, findings=work.run.findings, happened=happened, cost=cost)
        run.set_state("done")
    report(run)
    page = compression_page(compression, run.as_dict())
    atomic_write(run.path / PAGE, page.encode())
    return run


def _deployed(point: Point, path: Path) -> str:
    """The command that puts it to use."""
    if not point.exported:
        return f'graft predict {path} "..."'
    verb, *options = point.measured.step.split()
    return " ".join(["graft", verb, str(path), *options])


@contextmanager
def _threads(hardware: Hardware) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(hardware.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
