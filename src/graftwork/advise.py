"""advise: before anything is trained, which model and method should be, and what to expect of them.

The evidence is cheap: a probe's learning curve and counted words on the user's own rows, a few timed steps of each
method, and what past races in like situations gave (`experience`). The test split is not read.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from graftwork import experience, layers, pace
from graftwork.baseline import Rows
from graftwork.baselines import Tfidf
from graftwork.budget import Budget
from graftwork.choice import InputError
from graftwork.evaluate import outputs, quick_score
from graftwork.examples import Examples, tokenised
from graftwork.features import frozen_prefix
from graftwork.finding import number, percent
from graftwork.hardware import Hardware, faster_precision
from graftwork.latency import latency
from graftwork.learning_curve import Outlook, outlook
from graftwork.loop import default_budget
from graftwork.method import GradientMethod, Method, recipe_of, unmet
from graftwork.methods import RACING
from graftwork.methods.depth import LowerLayers
from graftwork.methods.finetune import FullFineTuning
from graftwork.modalities.text import Text
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.regression import Regression, table
from graftwork.report.wording import duration
from graftwork.tasks import task_of

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.task import Task

OnEvent = Callable[[dict[str, Any]], None]

TRAIN_ROWS, VALIDATION_ROWS = 4000, 1000
"""What is read at most to form an opinion."""
_PARTS = (1 / 8, 1 / 4, 1 / 2, 1)
_ROWS_TO_CUT_BY = 1000
_FEWEST_STEPS = 20
_NEAR = 0.005
_UNREADABLE = 0.05  # share of pieces
_Z = 1.2816  # of an 80 % interval


@dataclass(frozen=True)
class Option:
    """One way to go, and what to expect of it. Scores are in [0, 1]; the interval is an 80 % one."""

    name: str
    model: str
    spec: Any
    baseline: bool
    """Whether it leaves no model to predict with."""
    score: float
    low: float
    high: float
    seconds: float
    """Of the whole run."""
    model_mb: float | None
    latency_ms: float | None
    """Median, of one text, to its answer."""
    budget: str | None
    """To run with; None for the method's own."""
    reason: str
    command: str


@dataclass(frozen=True)
class Advice:
    """What `advise` found."""

    options: list[Option]
    """The best first."""
    left_out: list[dict[str, str]]
    """`name`, `model` and `why`, of what the limits forbid."""
    metric: str
    labels: list[dict[str, Any]]
    """What more labels would give the probe: `rows`, `mean`, `low`, `high`."""
    models: list[dict[str, Any]]
    """Each model with its probe's score."""
    seconds: float
    """That the advice took."""
    said: list[str] = field(default_factory=list)
    """What to know about it, as sentences."""

    @property
    def best(self) -> Option:
        """What is advised: of those that leave a model and are expected within half a point of the best, the quickest.

        Half a point is less than anybody can foretell.
        """
        fitted = [option for option in self.options if not option.baseline]
        near = [option for option in fitted if option.score >= fitted[0].score - _NEAR]
        return min(near, key=lambda option: option.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"advised": self.best.name}


def advise(
    data: Any,
    *,
    models: Sequence[str | Path] = ("minilm",),
    methods: Sequence[Any] | None = None,
    budget: str | Budget | None = None,
    max_size: float | None = None,
    max_latency: float | None = None,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
    races: Sequence[experience.Race] | None = None,
) -> Advice:
    """Rank models and methods by what to expect of them on this data.

    Args:
        data: as `fit` takes it. At most 4,000 train and 1,000 validation rows are read, and no test row.
        models: embedded names, folders or hub ids.
        methods: names, mappings or objects; a list among them is a recipe. By default those that race by default.
        budget: of one run; what takes longer gets fewer steps, and what could take hardly any is left out.
        max_size: megabytes that a model's file may take.
        max_latency: milliseconds that one text may take, in the median.
        hardware: device and precision.
        on_event: is told what happens.
        races: past races to learn from; by default those that ship with graftwork.

    Raises:
        InputError: something given cannot be used, or nothing is within the limits.
    """
    from graftwork.data import Data

    began = time.perf_counter()
    loaded: Data = Data.of(data)
    for split in ("train", "validation"):
        if split not in loaded.splits or not len(loaded[split]):
            raise InputError(f"The data has no {split} rows. Give more rows, or a {split} split of your own.")
    machine = Hardware.of(hardware)
    # lower layers are tried with every method
    asked = [spec for spec in RACING if isinstance(spec, str)] if methods is None else methods
    recipes = [recipe_of(spec) for spec in asked]
    for recipe in recipes:
        if sentence := unmet(recipe, loaded):
            raise InputError(sentence)
    limits = _Limits(Budget.parse(budget) if budget else None, max_size, max_latency)
    adviser = _Adviser(loaded, machine, limits, experience.committed() if races is None else races, on_event)
    return adviser.advice([str(m) for m in models], recipes, began)


@dataclass(frozen=True)
class _Limits:
    budget: Budget | None
    max_size: float | None
    max_latency: float | None

    @property
    def seconds(self) -> float | None:
        """What a run may take by the clock."""
        return self.budget.amount if self.budget and self.budget.unit == "seconds" else None

    def broken(self, option: Option) -> str | None:
        """Why an option cannot be taken."""
        if self.max_size and option.model_mb and option.model_mb > self.max_size:
            return f"its file takes {option.model_mb:.0f} MB, more than {self.max_size:g}"
        if self.max_latency and option.latency_ms and option.latency_ms > self.max_latency:
            return f"one text takes {option.latency_ms:.1f} ms, more than {self.max_latency:g}"
        if self.seconds and option.seconds > 1.05 * self.seconds:
            return f"it takes about {duration(option.seconds)}, more than {duration(self.seconds)}"
        return None


class _Adviser:
    """One execution of `advise`."""

    def __init__(
        self,
        data: Data,
        hardware: Hardware,
        limits: _Limits,
        races: Sequence[experience.Race],
        on_event: OnEvent | None,
    ):
        self.data, self.hardware, self.limits, self.races, self.told = data, hardware, limits, races, on_event
        self.task: Task = task_of(data)
        self.some = data.some(TRAIN_ROWS, VALIDATION_ROWS)
        self.rows = len(data["train"])
        self.left_out: list[dict[str, str]] = []

    def advice(self, models: Sequence[str], recipes: Sequence[tuple[Method, ...]], began: float) -> Advice:
        points = self._words()
        words = self.carried(points) if points else None
        found = [_Evidence.of(self, model) for model in models]
        every = [evidence for whole in found for evidence in (whole, whole.lower()) if evidence]
        options = list(self._baselines(words))
        for evidence in every:
            self._tell(f"Timing a few steps of each method on {evidence}")
            options += [self._option(evidence, evidence.before + recipe, words) for recipe in recipes]
        allowed = []
        for option in options:
            why = self.limits.broken(option)
            if why:
                self.left_out.append({"name": option.name, "model": option.model, "why": why})
            else:
                allowed.append(option)
        if not any(not option.baseline for option in allowed):
            told = "; ".join(f"{o['name']} on {o['model']}: {o['why']}" for o in self.left_out if o["model"])
            raise InputError(f"No method is within the limits ({told}). Give a larger limit, or a smaller model.")
        allowed.sort(key=lambda option: -option.score)
        best = max(every, key=lambda evidence: evidence.expected.mean)
        return Advice(
            options=allowed, left_out=self.left_out, metric=self.task.selection, labels=list(best.more_labels()),
            models=[{"model": e.name, "probe": e.points[-1][1], "mb": e.mb, "parameters": e.parameters} for e in found],
            seconds=round(time.perf_counter() - began, 1), said=list(self._said(found)),
        )  # fmt: skip

    # --- options ---

    def _baselines(self, words: Outlook | None) -> Iterator[Option]:
        if words is None:
            return
        yield Option(
            name="tf-idf", model="", spec=Tfidf().spec(), baseline=True, score=words.mean, low=words.low,
            high=words.high, seconds=max(self.words_seconds * self.rows / len(self.some["train"]), 0.1),
            model_mb=None, latency_ms=None, budget=None,
            reason="Counts words and knows no language; measured on validation. What a network must beat.",
            command=f"graft compare {self._source()} --methods linear-probe",
        )  # fmt: skip

    def _option(self, evidence: _Evidence, recipe: tuple[Method, ...], words: Outlook | None) -> Option:
        name = "+".join(m.title for m in recipe)
        plan = evidence.plan(recipe)
        budget = self._affordable(plan)
        probe = evidence.expected
        situation = experience.Situation(
            rows=self.rows, classes=len(self.data.labels), steps=self._steps(plan, budget), probe=probe.mean,
            words=words.mean if words else probe.mean, unknown=evidence.unknown,
        )  # fmt: skip
        # what a method adds to a probe is learned from races in which nothing was cut
        gain = experience.expected("+".join(m.name for m in recipe[len(evidence.before) :]), situation, self.races)
        middle = experience.logit(probe.mean) + gain.mean
        own = (experience.logit(probe.high) - experience.logit(probe.low)) / (2 * _Z)
        sd = float(np.hypot(gain.sd, own))
        score = experience.share(middle)
        return Option(
            name=name, model=evidence.name, spec=[m.spec() for m in recipe], baseline=False, score=score,
            low=experience.share(middle - _Z * sd), high=experience.share(middle + _Z * sd),
            seconds=round(plan.seconds(budget), 1), model_mb=evidence.mb, latency_ms=evidence.latency_ms,
            budget=str(budget) if budget else None, reason=_reason(evidence, gain, score - probe.mean),
            command=self._command(recipe, evidence.name, budget),
        )  # fmt: skip

    def _affordable(self, plan: pace.Plan) -> Budget | None:
        """What to give a run: what was asked for, or None, the method's own, where that ends sooner."""
        asked = self.limits.budget
        takes_steps = any(m.gradient for m in plan.recipe)
        if asked is None or not takes_steps or (self.limits.seconds and plan.seconds() <= self.limits.seconds):
            return None
        if self.limits.seconds and plan.steps(asked) < _FEWEST_STEPS:  # then it takes longer than it may
            return Budget(_FEWEST_STEPS, "steps")
        return asked

    def _steps(self, plan: pace.Plan, budget: Budget | None) -> float:
        """What likeness to past races is judged by; for a method without steps, what fine-tuning would take."""
        if any(m.gradient for m in plan.recipe):
            return plan.steps(budget)
        if budget and budget.unit != "seconds":
            return budget.steps(-(-self.rows // 32)) or 1
        own = default_budget(FullFineTuning(), self.rows)
        return own.steps(-(-self.rows // 32)) or 1

    def _source(self) -> str:
        source = self.data.source.get("source")
        return source if isinstance(source, str) else "DATA"

    def _command(self, recipe: Sequence[Method], model: str, budget: Budget | None) -> str:
        given = self.data.source
        words = ["graft fit", self._source(), "--method", ",".join(m.title for m in recipe)]
        for method in recipe:
            if isinstance(method, LowerLayers) and method.blocks:
                words += ["--set", f"{method.name}.blocks={method.blocks}"]
        if model != "minilm":
            words += ["--model", model]
        if budget:
            words += ["--budget", str(budget)]
        for option in ("limit", "shots"):
            if given.get(option) is not None:
                words += [f"--{option}", str(given[option])]
        words += ["--class-names"] * bool(given.get("class_names"))
        return " ".join(words)

    # --- evidence ---

    def _words(self) -> list[tuple[int, float]] | None:
        """The curve of TF-IDF on validation; None where it cannot answer the task."""
        if self.data.task not in Tfidf.tasks:
            return None
        self._tell("Counting words")
        train, validation = (self._rows(split) for split in ("train", "validation"))
        points = []
        for places in self.parts(len(train.inputs)):
            start = time.perf_counter()
            part = Rows([train.inputs[i] for i in places], np.asarray(train.targets)[places], train.embeddings)
            found = Tfidf().fit(part, self.task)(validation)
            decision = self.task.decide(found, list(validation.targets), 1.0)
            score = self.task.score(found, list(validation.targets), decision)[self.task.selection]
            self.words_seconds = time.perf_counter() - start
            points.append((len(places), score))
        return points

    def _rows(self, split: str) -> Rows:
        rows = self.some[split]
        return Rows(rows.inputs(), self.task.targets(rows.labels()), lambda: np.zeros(0))

    def parts(self, rows: int) -> list[np.ndarray]:
        """Ever larger parts of so many rows, each within the next."""
        order = np.random.default_rng(0).permutation(rows)
        sizes = dict.fromkeys(max(2, round(rows * part)) for part in _PARTS)
        return [np.sort(order[:size]) for size in sizes]

    def carried(self, points: Sequence[tuple[int, float]], wanted: int | None = None) -> Outlook:
        """The score to expect at `wanted` rows (by default all of train) from those at fewer."""
        wanted = wanted or self.rows
        rows, scores = [n for n, _ in points], [s for _, s in points]
        errors = [float(np.sqrt(max(s * (1 - s), 1e-4) / len(self.some["validation"]))) for s in scores]
        if wanted == rows[-1] or len(rows) < 3:
            half = _Z * errors[-1]
            return Outlook(scores[-1], max(scores[-1] - half, 0.0), min(scores[-1] + half, 1.0))
        return outlook(rows, scores, errors, wanted)

    def _said(self, found: Sequence[_Evidence]) -> Iterator[str]:
        some = self.some
        if len(some["train"]) < self.rows:
            yield f"Judged by {len(some['train']):,} of {self.rows:,} train rows; the rest is carried on by the curve."
        if len(some["validation"]) < 200:
            yield (
                f"Validation has only {number(len(some['validation']), 'row')}: scores are known to "
                f"{100 * _Z * 0.5 / len(some['validation']) ** 0.5:.0f} points at best."
            )
        for evidence in found:
            if evidence.unknown > _UNREADABLE:
                yield (
                    f"The vocabulary of {evidence.name} lacks {percent(evidence.unknown)} of the pieces of these "
                    "texts, so past races say little of what it can learn. A model of their language is likely to do "
                    "better."
                )
        if len(found) > 1 and (told := experience.correlations()):
            yield (
                "Models are ranked by their probes; over measured fine-tunes that ranking had a rank correlation "
                f"of {told['scores']['probe']['mean']:.2f} with the true one ({told['data_sets']} data sets)."
            )

    def _tell(self, message: str) -> None:
        if self.told:
            self.told({"event": "note", "message": message})


class _Evidence:
    """What one model's embeddings, and a clock, say."""

    def __init__(
        self,
        adviser: _Adviser,
        name: str,
        model: TransferModel,
        load: float,
        mb: float,
        before: tuple[Method, ...] = (),
    ):
        self.adviser, self.name, self.model, self.load, self.mb, self.before = adviser, name, model, load, mb, before
        self.parameters = sum(p.numel() for p in self.model.parameters())
        self.precision = faster_precision(self.model.device.type)
        self.train, self.validation = (self._tokenised(adviser.some, split) for split in ("train", "validation"))
        self.points = self._curve()

    def __str__(self) -> str:
        return f"{self.name}{f', {layers.block_count(self.model.encoder)} blocks' if self.before else ''}"

    @classmethod
    def of(cls, adviser: _Adviser, name: str) -> _Evidence:
        """Of a model as it is."""
        adviser._tell(f"Probing {name}")
        folder, start = resolve(name), time.perf_counter()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = TransferModel.pretrained(folder, adviser.task).to(adviser.hardware.torch_device())
        mb = round(sum(f.stat().st_size for f in folder.glob("*.safetensors")) / 1e6, 3)
        return cls(adviser, name, model, time.perf_counter() - start, mb)

    def lower(self) -> _Evidence | None:
        """Of the model cut off where a probe reads best; None where that is the top, or gains less than it may."""
        stage = LowerLayers(rows=_ROWS_TO_CUT_BY)
        encoder = self.model.encoder
        if self.model.task.token_level or not layers.has_single_stack(encoder):
            return None
        self.adviser._tell(f"Probing the layers of {self.name}")
        best = stage.best(self.model, self.train)
        if best == layers.block_count(encoder):
            return None
        cut = copy.deepcopy(self.model)
        layers.keep_lowest(cut.encoder, best)
        mb = round(4 * sum(p.numel() for p in cut.encoder.parameters()) / 1e6, 3)
        found = _Evidence(self.adviser, self.name, cut, self.load, mb, (LowerLayers(blocks=best),))
        return found if found.points[-1][1] > self.points[-1][1] + _NEAR else None

    @cached_property
    def little(self) -> tuple[Examples, Examples]:
        """Rows to time steps on."""
        some = self.adviser.data.some(pace.STEPS * 32, 64)
        return self._tokenised(some, "train"), self._tokenised(some, "validation")

    @cached_property
    def reading(self) -> pace.Reading:
        """What the model takes to read."""
        quick = pace.reading(self.model, self.little[0], self.precision)
        exact = quick if self.precision == "fp32" else pace.reading(self.model, self.little[0], "fp32")
        return pace.Reading(load=self.load, quick=quick, exact=exact, solving=self._solving)

    @cached_property
    def latency_ms(self) -> float:
        """Median milliseconds of one text."""
        some = self.adviser.some["validation"]
        return latency(self.model, some.inputs(range(min(64, len(some)))))["ms_1_p50"]

    @cached_property
    def rows(self) -> pace.Rows:
        """How much a run will read, by the part that was tokenised."""
        data = self.adviser.data
        return pace.Rows(
            train=len(data["train"]), validation=len(data["validation"]),
            train_tokens=pace.padded_tokens(self.train), validation_tokens=pace.padded_tokens(self.validation),
        )  # fmt: skip

    def plan(self, recipe: Sequence[Method]) -> pace.Plan:
        """The run of a recipe, with a few steps of each stage timed."""
        timed = [
            pace.training(self.model, method, *self.little, self.adviser.hardware, self.precision)
            if isinstance(method, GradientMethod)
            else None
            for method in recipe
        ]
        return pace.Plan(recipe, timed, self.reading, self.rows)

    @cached_property
    def unknown(self) -> float:
        """Share of train's pieces that the vocabulary lacks."""
        modality = self.model.modality
        unknown = modality.unknown_id if isinstance(modality, Text) else None
        return 0.0 if unknown is None else float((self.train.ids == unknown).mean())

    @cached_property
    def expected(self) -> Outlook:
        """The probe's score on all of train."""
        return self.adviser.carried(self.points)

    def more_labels(self) -> Iterator[dict[str, Any]]:
        """The probe's score at once, twice and four times as many labels."""
        for times in (1, 2, 4):
            wanted = times * self.adviser.rows
            yield {"rows": wanted, **asdict(self.adviser.carried(self.points, wanted))}

    def _tokenised(self, data: Data, split: str) -> Examples:
        return tokenised(data, split, self.model.task, self.model.modality)

    def _curve(self) -> list[tuple[int, float]]:
        """(rows, score on validation) of a quick probe on ever larger parts of train."""
        model, task = self.model, self.model.task
        x, y = table(model, self.train, self.precision)
        model.encoder.requires_grad_(False)
        points: list[tuple[int, float]] = []
        try:
            with frozen_prefix(model, [self.validation], precision=self.precision) as features:
                for places in self.adviser.parts(len(x)):
                    if len(np.unique(y[places])) < 2:
                        continue
                    start = time.perf_counter()
                    Regression((10.0,), folds=5, max_iter=1000, tolerance=1e-3, seed=0).write_head(
                        model, x[places], y[places]
                    )
                    self._solving = (time.perf_counter() - start) / len(places)
                    found, targets = outputs(
                        model, self.validation, features=features[0] if features else None, precision=self.precision
                    )
                    rows = round(len(places) * self.train.rows / len(x))
                    points.append((rows, quick_score(model, found, targets)[task.selection]))
        finally:
            model.encoder.requires_grad_(True)
            model.head.fresh = True
        if not points:
            raise InputError("Train holds only one class, so there is nothing to learn. Check the label column.")
        return points


def _reason(evidence: _Evidence, gain: experience.Gain, points: float) -> str:
    measured = f"a quick probe gives {percent(evidence.points[-1][1])} on validation"
    if not gain.races:
        return f"No race is on record for it: {measured}, and this is taken to do as well."
    told = f"{100 * abs(points):.1f} points {'above' if points >= 0 else 'below'} that"
    return f"A{measured[1:]}; from races like this one ({'; '.join(gain.races[:2])}), {told} is to be expected."
