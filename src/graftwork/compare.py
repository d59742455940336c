"""compare: a fair race of methods on the user's own data.

Every method sees the same rows, the same validation split, the same budget and the same seeds. The test split is read
once, after everything is fitted, and differences are believed only where they are more than chance (`significance`).
What the race found is kept as run folders, so a race that was interrupted goes on with what is missing; when nothing
is, they become a `Comparison`.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graftwork import cluster, significance
from graftwork.baseline import Baseline, Rows
from graftwork.baselines import Majority  # noqa: F401  puts every baseline on its shelf
from graftwork.budget import Budget
from graftwork.check import check
from graftwork.choice import InputError, names, parse, suggest
from graftwork.cluster import Job
from graftwork.comparison import Comparison
from graftwork.evaluate import evidence_of_runs, record, scored
from graftwork.examples import tokenised
from graftwork.features import embeddings
from graftwork.fit import Request, require_suitable, resume, start
from graftwork.hardware import Hardware, peak_memory_mb, reset_peak_memory
from graftwork.latency import latency
from graftwork.loop import default_budget
from graftwork.method import Method, recipe_of, unmet
from graftwork.methods import RACING
from graftwork.methods.finetune import FullFineTuning
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.report.wording import METRICS, duration, figure
from graftwork.run import Run, is_run, plain_cause
from graftwork.tasks import task_of
from graftwork.tune import Tuned, require_optuna, tune
from graftwork.verdict import Entry, choice, findings, model_to_use, prospects, suspects, verdict
from graftwork.work import Interrupted

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.finding import Finding

OnEvent = Callable[[dict[str, Any]], None]

ENGINES = ("here", "ray")
OURS = ("runs", "tuning", "comparison.json", "comparison.html")


@dataclass(frozen=True)
class Entrant:
    """One method on one model, with a name that is its own in the race."""

    name: str
    model: str
    recipe: tuple[Method, ...]
    baseline: Baseline | None = None

    @property
    def random(self) -> bool:
        """Whether its result depends on the seed; what is solved in closed form is run once."""
        return any(m.gradient for m in self.recipe)

    def spec(self) -> Any:
        """What makes it again."""
        return self.baseline.spec() if self.baseline else [m.spec() for m in self.recipe]


def compare(
    data: Any,
    *,
    methods: Sequence[Any] | None = None,
    models: Sequence[str | Path] = ("minilm",),
    baselines: Sequence[Any] | None = None,
    seeds: int | Sequence[int] = 3,
    budget: str | Budget | None = None,
    shots: Sequence[int] = (),
    trials: int = 0,
    engine: str = "here",
    out: str | Path | None = None,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
) -> Comparison:
    """Race methods on data, under one budget and over several seeds, and say which to take.

    A race in `out` that was interrupted goes on: runs that are finished and asked for the same are not run again.

    Args:
        data: a path, `"pydocs"`, a table, a `Data`, or a mapping of `Data.load`'s options.
        methods: names, mappings or objects; a list among them is a recipe of stages. By default those of `RACING`
            that suit the task.
        models: embedded names, folders or hub ids; each method runs on each.
        baselines: by default all of the shelf that suit the task; `[]` for none.
        seeds: how many (0, 1, ...), or which.
        budget: of each single run: `3epochs`, `500steps`, `90s`. By default what full fine-tuning asks for, in steps
            that all share.
        shots: the race is also run with so few train rows of each class: how much do more labels buy? The validation
            and test splits stay whole.
        trials: hyper-parameters of each method that takes steps are first chosen on validation in so many trials, each
            with a run's budget; 0 for each method's defaults. Needs the extra `tune`.
        engine: where runs with steps are fitted: `here`, one after another, or `ray`: on the workers of the Ray cluster
            at `$RAY_ADDRESS`, or of one that is started on this machine. Needs the extra `ray`.
        out: the comparison's folder; by default comparisons/DATA.
        hardware: device, precision, batch split; does not change results.
        on_event: is told what happens, as it happens.

    Raises:
        InputError: something given cannot be used; nothing has been trained.
        Interrupted: SIGINT or SIGTERM came; the same call goes on.
    """
    from graftwork.data import Data

    loaded = Data.of(data)
    if "test" not in loaded.splits:
        raise InputError("A race is decided on a test split, and the data has none. Leave test at its default of 0.1.")
    entrants = list(_entrants(methods, models, baselines, loaded))
    if baselines is None and loaded.reads == "image" and on_event:
        on_event(
            {"event": "note", "message": "No tf-idf among the baselines: it counts words, and these are pictures."}
        )
    which = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not which:
        raise InputError("A race needs at least one seed. Give --seeds 3.")
    rounds = [_Round(k, few, _shared(budget, few)) for k in sorted(set(shots)) for few in [loaded.few(k)]]
    rounds = [r for r in rounds if len(r.data["train"]) < len(loaded["train"])]
    rounds.append(_Round(None, loaded, _shared(budget, loaded)))
    path = Path(out) if out else Path("comparisons") / loaded.name
    machine = Hardware.of(hardware)
    if trials < 0:
        raise InputError(f"trials must be a number from 0 on; got {trials}.")
    if trials:
        require_optuna()
    if engine not in ENGINES:
        raise InputError(f"Unknown engine {engine!r}. {suggest(engine, ENGINES)}")
    if engine == "ray":
        cluster.require_ray()
    return _Race(path, rounds, entrants, which, machine, on_event, trials, engine).run()


@dataclass(frozen=True)
class _Round:
    """The race on all of the data, or on a few shots of it."""

    shots: int | None
    data: Data
    budget: str


def _shared(budget: str | Budget | None, data: Data) -> str:
    """What every run on `data` is given."""
    return str(Budget.parse(budget) if budget else default_budget(FullFineTuning(), len(data["train"])))


def _entrants(
    methods: Sequence[Any] | None, models: Sequence[str | Path], baselines: Sequence[Any] | None, data: Data
) -> Iterator[Entrant]:
    """Everything that races, each under a name of its own."""
    for i, model in enumerate(models):
        resolve(model)
        where = f" on {Path(model).name}" if len(models) > 1 else ""
        for spec in names(Baseline) if baselines is None else baselines:
            baseline = parse(Baseline, spec)
            reads_model = baseline.name == "nearest-neighbours"
            if data.reads not in baseline.reads and baselines is not None:
                raise InputError(f"The baseline {baseline.name!r} counts words, and these are pictures. Leave it out.")
            if data.task in baseline.tasks and data.reads in baseline.reads and (reads_model or i == 0):
                yield Entrant(baseline.name + (where if reads_model else ""), str(model), (), baseline)
        said: dict[str, int] = {}
        recipes = [recipe_of(spec) for spec in (RACING if methods is None else methods)]
        for recipe in recipes if methods else [r for r in recipes if not unmet(r, data)]:
            name = "+".join(m.title for m in recipe)
            said[name] = said.get(name, 0) + 1
            number = f" {said[name]}" if said[name] > 1 else ""
            yield Entrant(f"{name}{number}{where}", str(model), recipe)


class _Race:
    """One execution of a race."""

    def __init__(
        self,
        path: Path,
        rounds: list[_Round],
        entrants: list[Entrant],
        seeds: tuple[int, ...],
        hardware: Hardware,
        on_event: OnEvent | None,
        trials: int,
        engine: str,
    ):
        self.engine = engine
        self.path, self.rounds, self.entrants, self.trials = path, rounds, entrants, trials
        self.seeds, self.hardware, self.told = seeds, hardware, on_event
        self.data = rounds[-1].data
        self.task = task_of(self.data)
        self.said = {sentence for part in rounds for sentence in part.data.said}
        self.failed: dict[str, str] = {}
        self.tuned: dict[str, Tuned] = {}

    def run(self) -> Comparison:
        """Fit what is missing, then score, time and compare.

        Raises:
            RuntimeError: every method failed.
        """
        doctor = check(self.data, model=self.entrants[0].model, out=None)
        doctor.require()
        for entrant in self.entrants:
            if entrant.recipe:
                require_suitable(self._request(self.rounds[-1], entrant, 0), self.data)
        self._own_folder()
        for sentence in self.data.said:
            self._tell(event="note", message=sentence)
        if self.trials:
            self.entrants = [self._tuned(entrant) for entrant in self.entrants]
        planned = [(r, e, s) for r in self.rounds for s in self.seeds for e in self.entrants if s in self._seeds(e)]
        self._tell(event="race", names=[entrant.name for entrant in self.entrants], metric=self.task.selection)
        if self.engine == "ray":
            self._fit_elsewhere(planned, doctor.findings)
        for number, (part, entrant, seed) in enumerate(planned):
            if entrant.name in self.failed:
                continue
            self._say(number, len(planned), part, entrant, seed)
            try:
                self._fitted(part, entrant, seed, doctor.findings)
                self._report(entrant, self._run(part, entrant, seed))
            except Interrupted as stopped:
                message = (
                    f"The race was stopped in run {number + 1} of {len(planned)}. The same command goes on with it."
                )
                raise Interrupted(message) from stopped
            except (RuntimeError, MemoryError) as error:  # one method that diverges does not end the race
                self._drop(entrant, plain_cause(error))
        self.entrants = [e for e in self.entrants if e.name not in self.failed]
        if not self.entrants:
            raise RuntimeError(f"Every method failed. The first: {next(iter(self.failed.values()))}")
        for part, entrant, seed in planned:  # only now, when nothing is decided by it any more
            if entrant in self.entrants:
                self._tested(part, entrant, seed)
        for entrant in self.entrants:
            self._timed(entrant)
        return self._concluded()

    def _seeds(self, entrant: Entrant) -> tuple[int, ...]:
        return self.seeds if entrant.random else self.seeds[:1]

    def _own_folder(self) -> None:
        """Make the folder, or see that it is ours.

        Raises:
            InputError: there is something else.
        """
        strange = [f.name for f in self.path.iterdir() if f.name not in OURS] if self.path.is_dir() else []
        if strange or self.path.is_file():
            raise InputError(f"'{self.path}' holds something that is not a comparison. Choose another --out.")
        (self.path / "runs").mkdir(parents=True, exist_ok=True)

    # --- runs ---

    def _request(self, part: _Round, entrant: Entrant, seed: int) -> Request:
        return Request.build(
            data=part.data.source, model=entrant.model, method=entrant.spec(), task=self.data.task,
            budget=part.budget if entrant.random else None, seed=seed, out=None, hardware=self.hardware,
        )  # fmt: skip

    def _place(self, part: _Round, entrant: Entrant, seed: int) -> Path:
        """A run's folder: its name says for people what it is, its key for programs."""
        budget = part.budget if entrant.random else None
        asked = [part.data.fingerprint, entrant.model, entrant.spec(), budget, seed, self.hardware.precision]
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]
        stem = re.sub(r"[^\w.]+", "-", entrant.name).strip("-").lower()
        few = f"-{part.shots}-shot" if part.shots else ""
        return self.path / "runs" / f"{stem}{few}-seed{seed}-{key}"

    def _tuned(self, entrant: Entrant) -> Entrant:
        """The entrant with the hyper-parameters that did best on validation, on all of the data."""
        if not entrant.random:
            return entrant
        part, seed = self.rounds[-1], self.seeds[0]
        folder = self.path / "tuning" / f"{self._place(part, entrant, seed).name}-{self.trials}"
        self._tell(event="note", message=f"Tuning {entrant.name}: {self.trials} trials")
        try:
            found = tune(self._request(part, entrant, seed), self.data, folder, self.trials, on_event=self._hear)
        except RuntimeError as error:  # as in the race itself, one method that fails does not end it
            self.failed[entrant.name] = plain_cause(error)
            return entrant
        self.tuned[entrant.name] = found
        return replace(entrant, recipe=found.recipe)

    def _run(self, part: _Round, entrant: Entrant, seed: int) -> Run:
        return Run.open(self._place(part, entrant, seed))

    def _fitted(self, part: _Round, entrant: Entrant, seed: int, doctor: Sequence[Finding]) -> None:
        """See that the run is there and done."""
        path = self._place(part, entrant, seed)
        if self._is_done(path):
            return
        if is_run(path) and entrant.recipe and (path / "checkpoint" / "latest.safetensors").exists():
            resume(Run.open(path), on_event=self._hear)
            return
        if entrant.recipe:
            start(self._request(part, entrant, seed), part.data, path, doctor, force=True, on_event=self._hear)
        else:
            self._guessed(part, entrant, path)

    def _fit_elsewhere(self, planned: Sequence[tuple[_Round, Entrant, int]], doctor: Sequence[Finding]) -> None:
        """The runs that are missing, on a cluster; what takes no steps is left to this process."""
        missing = [
            (part, entrant, seed) for part, entrant, seed in planned
            if entrant.random and not self._is_done(self._place(part, entrant, seed))
        ]  # fmt: skip
        jobs = [Job(self._request(p, e, s), p.data, self._place(p, e, s)) for p, e, s in missing]
        if jobs:
            self._tell(event="note", message=f"{len(jobs)} runs are sent to the cluster.")
        try:
            for number, fault in cluster.fitted(jobs, doctor) if jobs else ():
                _, entrant, seed = missing[number]
                if fault:
                    self._drop(entrant, fault)
                else:
                    self._tell(event="note", message=f"{entrant.name}, seed {seed}, is back.")
        except KeyboardInterrupt as stopped:
            raise Interrupted("The race was stopped. Runs that came back stay; the same command goes on.") from stopped

    def _is_done(self, path: Path) -> bool:
        return is_run(path) and Run.open(path).state == "done"

    def _drop(self, entrant: Entrant, cause: str) -> None:
        """A method that failed is out of the race."""
        if entrant.name not in self.failed:
            self.failed[entrant.name] = cause
            self._tell(event="failed", name=entrant.name, message=f"        {entrant.name} failed: {cause}")

    def _guessed(self, part: _Round, entrant: Entrant, path: Path) -> None:
        """A baseline's run, on validation."""
        asked = {"data": part.data.source, "model": entrant.model, "method": entrant.spec(), "seed": 0}
        run = Run.create(path, asked, force=True)
        with run.working():
            run.update(data={"fingerprint": part.data.fingerprint, "labels": list(part.data.labels)})
            self._answered(part, entrant, run, "validation")
            run.set_state("done")

    def _answered(self, part: _Round, entrant: Entrant, run: Run, split: str) -> None:
        """Fit a baseline and let it answer `split`; its decision is fitted on validation, like a model's."""
        assert entrant.baseline
        reset_peak_memory()
        began = time.perf_counter()
        answers = entrant.baseline.fit(self._rows(part, entrant, "train"), self.task)
        validation = self._rows(part, entrant, "validation")
        outputs = answers(validation)
        decision = self.task.decide(outputs, list(validation.targets), 1.0)
        asked = validation if split == "validation" else self._rows(part, entrant, split)
        outputs = outputs if split == "validation" else answers(asked)
        metrics = self.task.score(outputs, list(asked.targets), decision)
        record(run, part.data, split, self.task, self.task.read(outputs, decision), metrics)
        if split == "validation":
            seconds = round(time.perf_counter() - began, 2)
            run.update(cost={"seconds": seconds, "peak_memory_mb": peak_memory_mb()})

    def _rows(self, part: _Round, entrant: Entrant, split: str) -> Rows:
        rows = part.data[split]
        labels = rows.labels()
        targets = [self.task.targets(t) for t in labels] if self.task.token_level else self.task.targets(labels)

        def embedded() -> np.ndarray:
            model = TransferModel.pretrained(resolve(entrant.model), self.task).to(self.hardware.torch_device())
            return embeddings(model, tokenised(part.data, split, self.task, model.modality))

        return Rows(rows.inputs(), targets, embedded)

    def _tested(self, part: _Round, entrant: Entrant, seed: int) -> None:
        run = self._run(part, entrant, seed)
        if "test" in run.metrics:
            return
        if entrant.recipe:
            scored(run, part.data, "test", self.hardware)
        else:
            self._answered(part, entrant, run, "test")

    def _timed(self, entrant: Entrant) -> None:
        """How long an answer takes, measured once a method."""
        run = self._run(self.rounds[-1], entrant, self.seeds[0])
        if not entrant.recipe or "latency" in run.cost:
            return
        some = self.data["validation"].inputs(range(min(256, len(self.data["validation"]))))
        model = TransferModel.load(run.path / "model").to(self.hardware.torch_device())
        run.update(cost={"latency": latency(model, some)})

    # --- what they say ---

    def _concluded(self) -> Comparison:
        """Write the comparison from the runs alone."""
        last = self.rounds[-1]
        runs = self._runs(last)
        evidence = self._evidence(runs)
        standing = significance.standings(evidence)
        entrants = {e.name: e for e in self.entrants}
        entries = [
            Entry(
                name=name, model=entrants[name].model, spec=entrants[name].spec(),
                baseline=entrants[name].baseline is not None, scores=evidence[name].scores.tolist(),
                runs=[str(r.path.relative_to(self.path)) for r in runs[name]], **asdict(place), **_cost(runs[name]),
            )
            for name, place in standing.items()
        ]  # fmt: skip
        metric = self.task.selection
        curve = [*(self._point(r) for r in self.rounds[:-1]), _point(last, standing)] if self.rounds[:-1] else []
        told = {
            "metric": metric, "budget": last.budget, "seeds": list(self.seeds),
            "data": {"name": self.data.name, "source": self.data.source, "fingerprint": self.data.fingerprint,
                     "rows": {name: len(split) for name, split in self.data.splits.items()},
                     "labels": list(self.data.labels), "task": self.data.task},
            "verdict": verdict(entries, metric), "taken": choice(entries).name, "use": self._use(entries, runs),
            "entries": [asdict(e) for e in entries],
            "curve": curve, "prospects": prospects(curve, entries),
            "findings": [f.as_dict() for f in findings(entries, runs, evidence, self.task, self._cut(entries, runs))],
            "suspects": suspects(entries, runs),
            "differs": [*_differs(self.entrants, self.engine), *_of_tuning(self.tuned)], "failed": self.failed,
            "tuned": {name: asdict(found) for name, found in self.tuned.items()},
            "environment": next(iter(runs.values()))[0].environment,
        }  # fmt: skip
        return Comparison.write(self.path, told, runs)

    def _use(self, entries: list[Entry], runs: Mapping[str, Sequence[Run]]) -> str | None:
        """The folder of the run to predict with: of the method to use, the seed that did best on validation."""
        entry = model_to_use(entries)
        if entry is None:
            return None
        best = max(runs[entry.name], key=lambda run: run.metrics["validation"][self.task.selection])
        return str(best.path.relative_to(self.path))

    def _cut(self, entries: list[Entry], runs: Mapping[str, Sequence[Run]]) -> np.ndarray | None:
        """Of which test rows the model to use reads only a part: (rows,) bool."""
        entry = model_to_use(entries)
        if entry is None:
            return None
        model = TransferModel.load(runs[entry.name][0].path / "model")
        examples = tokenised(self.data, "test", model.task, model.modality)
        cut = np.zeros(examples.rows, dtype=bool)
        cut[examples.example[examples.lost > 0]] = True
        return cut

    def _runs(self, part: _Round) -> dict[str, list[Run]]:
        """Every method's runs of one round, in order of seeds."""
        return {e.name: [self._run(part, e, s) for s in self._seeds(e)] for e in self.entrants}

    def _evidence(self, runs: Mapping[str, Sequence[Run]]) -> dict[str, significance.Evidence]:
        return {name: evidence_of_runs(self.task, found) for name, found in runs.items()}

    def _point(self, part: _Round) -> dict[str, Any]:
        return _point(part, significance.standings(self._evidence(self._runs(part))))

    def _hear(self, event: dict[str, Any]) -> None:
        """Pass on what a run tells; what the data was understood to be is not said again for every run."""
        if event["event"] != "stage" and event.get("message") not in self.said:
            self._tell(**event)

    def _report(self, entrant: Entrant, run: Run) -> None:
        """What a run came to, as soon as it is there: a race is long."""
        score, seconds = run.metrics["validation"][self.task.selection], run.cost.get("seconds") or 0.0
        name = METRICS[self.task.selection][0]
        self._tell(
            event="result", name=entrant.name, score=score, seconds=seconds,
            message=f"        {name} {figure(self.task.selection, score)} on validation, {duration(seconds)}",
        )  # fmt: skip

    def _tell(self, **event: Any) -> None:
        if self.told:
            self.told(event)

    def _say(self, number: int, count: int, part: _Round, entrant: Entrant, seed: int) -> None:
        few = f", {part.shots} shots" if part.shots else ""
        message = f"Run {number + 1}/{count}: {entrant.name}{few}" + (f", seed {seed}" if entrant.random else "")
        self._tell(
            event="run", number=number, count=count, name=entrant.name, shots=part.shots, seed=seed, message=message
        )


def _of_tuning(tuned: Mapping[str, Tuned]) -> list[str]:
    """How many trials each method had, and what they chose."""
    told = []
    for name, found in tuned.items():
        best = max((t for t in found.trials if t.state == "done"), key=lambda trial: trial.score or 0.0)
        chosen = ", ".join(
            f"{field.partition('.')[2]} {value:.2g}"
            if isinstance(value, float)
            else f"{field.partition('.')[2]} {value}"
            for field, value in best.settings.items()
        )
        told.append(f"{name} was tuned on validation in {len(found.trials)} trials: {chosen}.")
    return told


def _point(part: _Round, standing: Mapping[str, significance.Standing]) -> dict[str, Any]:
    """One point of the learning curve: every method on so many labels."""
    scores = {name: {"mean": s.mean, "low": s.low, "high": s.high, "tied": s.tied} for name, s in standing.items()}
    return {"shots": part.shots, "rows": len(part.data["train"]), "budget": part.budget, "scores": scores}


def _cost(runs: Sequence[Run]) -> dict[str, Any]:
    """The costs of a method: means over its runs, the largest memory."""
    costs = [run.cost for run in runs]

    def mean(name: str) -> float | None:
        values = [c[name] for c in costs if c.get(name) is not None]
        return round(float(np.mean(values)), 2) if values else None

    memory = [c["peak_memory_mb"] for c in costs if c.get("peak_memory_mb")]
    return {
        "seconds": mean("seconds"), "peak_memory_mb": max(memory, default=None),
        "trained_parameters": costs[0].get("trained_parameters"), "model_mb": costs[0].get("model_mb"),
        "latency": costs[0].get("latency"),
    }  # fmt: skip


def _differs(entrants: Sequence[Entrant], engine: str) -> list[str]:
    """What is not the same for all, in sentences."""
    methods = [m for e in entrants for m in e.recipe if m.gradient]
    told = []
    for field, words in (("batch_size", "batch size"), ("lr", "learning rate"), ("schedule", "schedule")):
        values = sorted({str(getattr(m, field)) for m in methods if hasattr(m, field)})
        if len(values) > 1:
            told.append(f"The {words} is each method's own default: {', '.join(values)}.")
    once = [e.name for e in entrants if not e.random]
    if once:
        told.append(f"Run once, because no seed changes them: {', '.join(once)}.")
    if engine == "ray":
        told.append("Runs shared the machines of a cluster with each other: their times are rough.")
    return told
