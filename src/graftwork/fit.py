"""fit: take a pretrained model to the data, and leave a run folder that shows how good it is and why.

What is asked is written down before anything is computed, so every run can be resumed, repeated and compared.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

import graftwork.methods  # noqa: F401  puts every method on its shelf
from graftwork import checkpoint, layers
from graftwork.advise import advise
from graftwork.budget import Budget
from graftwork.choice import InputError, suggest, wording
from graftwork.evaluate import data_of, decided, outputs, record
from graftwork.examples import Examples, tokenised
from graftwork.hardware import Hardware, World, peak_memory_mb
from graftwork.loop import Stage, Trained, default_budget, train
from graftwork.method import GradientMethod, Method, recipe_of, unmet
from graftwork.model import TransferModel
from graftwork.models import require_reader, resolve
from graftwork.rate_test import rate_test
from graftwork.report import report
from graftwork.run import Run
from graftwork.sharding import processes, refuse_memory_with_processes, spread
from graftwork.tasks import task_of
from graftwork.work import OnEvent, Work

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.finding import Finding

log = logging.getLogger(__name__)


class Request(BaseModel):
    """A run file. What stands before `out` changes results; `hardware` must not."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    data: str | dict[str, Any]
    """Where the data is, or `Data.load`'s options as a mapping with `source`."""
    model: str = "minilm"
    """An embedded model's name, a folder, or a hub id."""
    method: str | dict[str, Any] | list[str | dict[str, Any]] = "full-fine-tuning"
    """A method, or a list of them: a recipe of stages."""
    task: str | None = None
    """`classification` or `tagging`; by default what the data looks like."""
    budget: str | None = None
    """`3epochs`, `500steps`, `90s`, `10m`; by default what the method asks for. Stages share it equally."""
    seed: int = Field(default=0, ge=0)
    """Of everything random."""
    coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of the examples to answer; the least certain rest is marked `unsure`."""
    out: str | None = None
    """The run folder; by default runs/DATA-METHOD."""
    hardware: Hardware = Hardware()
    """Device, precision and how batches are split."""

    @classmethod
    def build(cls, **values: Any) -> Request:
        """A request from plain values, with errors in plain words.

        Raises:
            InputError: an unknown word or a value that is not allowed.
        """
        for word in values:
            if word not in cls.model_fields:
                raise InputError(f"A run has no {word!r}. {suggest(word, cls.model_fields)}")
        try:
            return cls(**values)
        except ValidationError as error:
            raise InputError(f"The run cannot be read: {wording(error)}.") from None

    @classmethod
    def from_yaml(cls, file: str | Path) -> Request:
        """Read a run file. A relative `data` path is taken from the file's own folder.

        Raises:
            InputError: no such file, no YAML, or not a run.
        """
        file = Path(file)
        try:
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"Run file {str(file)!r} cannot be read: {error.strerror}.") from None
        except yaml.YAMLError as error:
            raise InputError(f"Run file {str(file)!r} is not YAML: {' '.join(str(error).split())}.") from None
        if not isinstance(values, dict) or "data" not in values:
            raise InputError(f"Run file {str(file)!r} must be a mapping with at least `data: ...`.")
        request = cls.build(**values)
        source = request.data if isinstance(request.data, str) else request.data.get("source", "")
        if isinstance(source, str) and not Path(source).exists() and (file.parent / source).exists():
            source = str(file.parent / source)
            data = source if isinstance(request.data, str) else {**request.data, "source": source}
            request = request.model_copy(update={"data": data})
        return request

    @property
    def recipe(self) -> list[Method]:
        """The stages."""
        return list(recipe_of(self.method))


def fit(
    data: Any,
    *,
    model: str | Path = "minilm",
    method: Any = "full-fine-tuning",
    task: str | None = None,
    budget: str | Budget | None = None,
    seed: int = 0,
    coverage: float = 1.0,
    out: str | Path | None = None,
    force: bool = False,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
) -> Run:
    """Fit a model to data and give back the finished run.

    Args:
        data: a path, `"pydocs"`, a table, a `Data`, or a mapping of `Data.load`'s options.
        model: `"minilm"`, a folder, or a hub id.
        method: a method (name, mapping or object), or a list of them; `"auto"` for what `advise` says, at the learning
            rate that `rate_test` allows.
        task: `classification` or `tagging`; by default what the data looks like.
        budget: `3epochs`, `500steps`, `90s`, `10m`; shared equally by the stages that take steps.
        seed: of everything random.
        coverage: in (0, 1]; the share of examples to answer as sure.
        out: the run folder; by default runs/DATA-METHOD.
        force: whether a finished run there may be replaced.
        hardware: device, precision, batch split; does not change results.
        on_event: is told what happens, as it happens.

    Raises:
        InputError: something given cannot be used; nothing has been trained, nothing of the user's is lost.
        Interrupted: SIGINT or SIGTERM came; `resume(error.run)` goes on.

    Example:
        run = fit("reviews.csv", method="lora", budget="5m")
        run.metrics["validation"]["accuracy"]
    """
    from graftwork.data import Data

    began = time.perf_counter()
    advised = method in ("auto", ["auto"], ("auto",))
    stages = [] if advised else list(recipe_of(method))
    loaded = Data.of(data, task=task)
    followed: dict[str, Any] | None = None
    if advised:
        stages, budget, followed = _advised(loaded, model, budget, seed, Hardware.of(hardware), on_event)
        if budget and Budget.parse(budget).unit == "seconds":  # the advice counts, up to half of what there is
            began = max(began, time.perf_counter() - Budget.parse(budget).amount / 2)
    request = Request.build(
        data=loaded.source, model=str(model), method=[m.spec() for m in stages], task=task or loaded.task,
        budget=str(Budget.parse(budget)) if budget is not None else None, seed=seed, coverage=coverage,
        out=None if out is None else str(out), hardware=hardware or Hardware(),
    )  # fmt: skip
    path = Path(out) if out else Run.default_path(loaded.name, "-".join(m.title for m in stages))
    findings = checked(request, loaded, path)
    return start(
        request, loaded, path, findings, force=force, on_event=on_event, began=began, happened={"advice": followed}
    )


def _advised(
    data: Data,
    model: str | Path,
    budget: str | Budget | None,
    seed: int,
    hardware: Hardware,
    on_event: OnEvent | None,
) -> tuple[list[Method], str | Budget | None, dict[str, Any]]:
    """The recipe and the budget that `advise` says, and the evidence for them."""
    advice = advise(data, models=[model], budget=budget, hardware=hardware, on_event=on_event)
    best = advice.best
    stages = list(recipe_of(best.spec))
    told: dict[str, Any] = {"option": dataclasses.asdict(best), "labels": advice.labels, "seconds": advice.seconds}
    sentence = f"Advised: {best.name}. {best.reason}"
    if isinstance(stages[0], GradientMethod):
        curve = rate_test(data, method=stages[0], model=model, seed=seed, hardware=hardware)
        told["rate_test"] = curve.as_dict()
        if curve.advised != curve.default:
            stages[0] = stages[0].model_copy(update={"lr": curve.advised})
            sentence += (
                f" Its learning rate of {curve.default:.1e} does not suit the model: {curve.advised:.1e} instead."
            )
    if on_event:
        on_event({"event": "note", "message": sentence})
    return stages, best.budget, told


def start(
    request: Request,
    data: Data,
    path: Path,
    findings: Sequence[Finding] = (),
    *,
    force: bool = False,
    on_event: OnEvent | None = None,
    began: float | None = None,
    happened: dict[str, Any] | None = None,
) -> Run:
    """`fit` from a request that has been `checked`, on data that is loaded; `happened` is what came before."""
    folder = resolve(request.model)
    world = World(request.hardware.torch_device())
    run = Run.create(path, request.model_dump(mode="json"), force=force) if world.leads else None
    world.wait()
    run = run or Run.open(path)
    if world.leads:
        run.update(findings=[finding.as_dict() for finding in findings], happened=happened or {})
    return _Fitting(run, request, data, folder, world, on_event, began or time.perf_counter()).execute()


def resume(run: Run | str | Path, *, on_event: OnEvent | None = None) -> Run:
    """Go on with an interrupted or failed run from its last checkpoint, as if nothing had happened.

    Raises:
        InputError: the run is finished or at work, or its data has changed since.
    """
    began = time.perf_counter()
    run = run if isinstance(run, Run) else Run.open(run)
    run.require_unfinished()
    request = Request.build(**run.asked)
    return _Fitting(
        run, request, data_of(run), resolve(request.model), World(request.hardware.torch_device()), on_event, began
    ).execute()


def predict(
    run: Run | str | Path, inputs: list[Any], *, hardware: Hardware | None = None, memory: str | None = None
) -> list[dict[str, Any]]:
    """Answers of a finished run: `label`, `confidence`, `unsure`, `probabilities` for each input, in order.

    Args:
        run: the run, its folder, or any folder with a saved model.
        inputs: texts; lists of words (or texts, cut at white space) for tagging; pairs or triplets for similarity;
            files of pictures.
        hardware: device; by default what torch finds.
        memory: main memory for weights, such as `200MB`; what does not fit is read from disk as it is computed.

    Where `torchrun` started several processes, each holds its share of the weights, and all find the same answers.

    Raises:
        InputError: the run holds no model yet, or the inputs are not what it reads.
    """
    path = Path(run.path if isinstance(run, Run) else run)
    folder = path / "model" if (path / "model").is_dir() else path
    if not (folder / "graft.json").is_file():
        known = Run.open(path)
        known.require_task()
        raise InputError(f"Run {str(path)!r} is {known.state}: it has no model to predict with yet.")
    refuse_memory_with_processes(memory)
    model, device = TransferModel.load(folder, memory=memory), (hardware or Hardware()).torch_device()
    if processes() > 1:
        spread(model, model.encoder, device)
    elif memory is None:
        model = model.to(device)
    inputs = model.task.inputs([str(each) if isinstance(each, Path) else each for each in inputs])
    return [p.as_dict() for p in model.predict(inputs)] if inputs else []


def checked(request: Request, data: Data, path: Path) -> Sequence[Finding]:
    """Refuse what can be known to be wrong before a model is loaded; gives what is worth knowing otherwise."""
    from graftwork.check import check

    found = check(data, model=request.model, out=path)
    found.require()
    require_suitable(request, data)
    return found.findings


def require_suitable(request: Request, data: Data) -> None:
    """Refuse a request that does not suit the data.

    Raises:
        InputError: another task's data, a split without rows, or a method that needs what is not there.
    """
    if request.task and request.task != data.task:
        raise InputError(f"The task is {request.task!r}, but the data is for {data.task!r}. Check its columns.")
    for split in ("train", "validation"):
        if split not in data.splits or not len(data[split]):
            raise InputError(f"The data has no {split} rows. Give more rows, or a {split} split of your own.")
    require_reader(request.model, data.reads)
    if sentence := unmet(request.recipe, data):
        raise InputError(sentence)
    if request.budget and not any(m.gradient for m in request.recipe):
        log.info("The budget is not needed: %s takes no steps.", request.recipe[0].name)


class _Fitting(Work):
    """One execution of a request, from the pretrained weights or a checkpoint to the finished run."""

    def __init__(
        self, run: Run, request: Request, data: Data, folder: Path, world: World, on_event: OnEvent | None, began: float
    ):
        super().__init__(run, request.hardware, world, on_event, began)
        self.request, self.data, self.folder = request, data, folder
        self.recipe = request.recipe

    def _execute(self) -> None:
        device = self.hardware.torch_device()
        precision = self._precision()
        at = checkpoint.stage_of(self.checkpoint) or 0
        self._lead(lambda: self._write_down_start(precision, at))
        for sentence in self.data.said:
            self._on_event(event="note", message=sentence)
        model = self._model(at).to(device)
        depths = [group.name for group in layers.layer_groups(model.encoder)]
        self._lead(lambda: self.run.update(happened={"depths": depths}))
        train_rows, validation_rows = self._tokenised(model, "train"), self._tokenised(model, "validation")
        done: list[dict[str, Any]] = list(self.run.happened.get("stages", []))[:at]
        last: Trained | None = None
        for number, method in enumerate(self.recipe):
            if number < at:
                continue
            self._on_event(event="stage", stage=number, message=f"Stage {number + 1}/{len(self.recipe)}: {method.name}")
            if number > at:
                self._lead(partial(self._keep, model))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.request.seed * 1000 + number)
                method.prepare(model, train_rows)
                model.to(device)
            if isinstance(method, GradientMethod):
                last = train(
                    model, train_rows, validation_rows, self._stage(number, method, precision, len(train_rows))
                )
            model = method.finish(model, train_rows).to(device)
            done.append(self._described(method, model, last))
            if model.found:
                self._on_event(event="note", message=model.found.get("said", ""))
                done[-1]["found"], model.found = model.found, {}
            # it may read its texts in another way than before
            train_rows, validation_rows = self._tokenised(model, "train"), self._tokenised(model, "validation")
            self._lead(partial(self.run.update, happened={"stages": done}))
        self._lead(lambda: self._finish(model, train_rows, validation_rows, done, last))
        self.world.wait()

    def _keep(self, model: TransferModel) -> None:
        """Save what a stage begins with, for a run that is resumed in it; whole, or not at all."""
        fresh = self.checkpoint.parent / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        model.save(fresh)
        shutil.rmtree(self.checkpoint.parent / "before", ignore_errors=True)
        self.checkpoint.unlink(missing_ok=True)
        fresh.rename(self.checkpoint.parent / "before")

    def _model(self, stage: int) -> TransferModel:
        """The model as the first stage to run finds it."""
        if stage:
            return TransferModel.load(self.checkpoint.parent / "before")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.request.seed)
            return TransferModel.pretrained(
                self.folder, task_of(self.data), pooling=self.recipe[0].pooling, head=self.recipe[0].head
            )

    def _tokenised(self, model: TransferModel, split: str) -> Examples:
        if self.world.leads:
            tokenised(self.data, split, model.task, model.modality)
        self.world.wait()
        return tokenised(self.data, split, model.task, model.modality)

    def _stage(self, number: int, method: GradientMethod, precision: str, examples: int) -> Stage:
        stages = sum(isinstance(m, GradientMethod) for m in self.recipe)
        before = sum(isinstance(m, GradientMethod) for m in self.recipe[:number])
        whole = Budget.parse(self.request.budget) if self.request.budget else None
        budget = Budget(whole.amount / stages, whole.unit) if whole else default_budget(method, examples)
        spent = time.perf_counter() - self.began - before * budget.amount if budget.unit == "seconds" else 0.0
        return Stage(
            number=number, method=method, budget=budget, seed=self.request.seed, hardware=self.hardware,
            precision=precision, world=self.world, checkpoint=self.checkpoint, on_event=self._on_event,
            stop_requested=self.stop.is_set, spent=max(spent, 0.0),
        )  # fmt: skip

    # --- what is written ---

    def _write_down_start(self, precision: str, stage: int) -> None:
        self.checkpoint.parent.mkdir(exist_ok=True)
        self.run.truncate_log(checkpoint.step_of(self.checkpoint), stage)
        self.run.update(
            data={
                "fingerprint": self.data.fingerprint, "labels": list(self.data.labels), "task": self.data.task,
                "multi_label": self.data.multi_label, "texts": self.data.texts, "reads": self.data.reads,
                "rows": {name: len(s) for name, s in self.data.splits.items()},
            },
            happened={
                "precision": precision, "said": list(self.data.said), "dropped": dict(self.data.dropped),
                "processes": self.world.size, "device": str(self.hardware.torch_device()),
            },
        )  # fmt: skip

    def _described(self, method: Method, model: TransferModel, trained: Trained | None) -> dict[str, Any]:
        described: dict[str, Any] = {"method": method.spec()}
        if trained and isinstance(method, GradientMethod):
            described |= {
                "trained_parameters": sum(p.numel() for g in trained.groups for p in g.parameters),
                "groups": [
                    {"name": g.name, "lr": g.lr, "weight_decay": g.weight_decay,
                     "parameters": sum(p.numel() for p in g.parameters)}
                    for g in trained.groups
                ],
                "steps": trained.progress.step, "best_step": trained.progress.best_step, "stopped": trained.stopped,
            }  # fmt: skip
        else:
            described["trained_parameters"] = sum(p.numel() for p in model.head.parameters())
        return described

    def _finish(
        self,
        model: TransferModel,
        train_rows: Examples,
        validation_rows: Examples,
        done: list[dict[str, Any]],
        last: Trained | None,
    ) -> None:
        """Fit the decision on validation, save, score as the saved model scores, and write the report."""
        found, targets = outputs(model, validation_rows)
        model.decision = decided(model.task, found, targets, self.request.coverage, self.recipe[-1].modifiers)
        model.save(self.run.path / "model")
        metrics = model.task.score(found, targets, model.decision)
        predictions = model.task.read(found, model.decision)
        record(self.run, self.data, "validation", model.task, predictions, metrics, validation_rows.lost)
        progress = last.progress if last else checkpoint.Progress()
        steps = progress.step
        self.run.update(
            happened={
                "stages": done, "steps": steps, "best_step": progress.best_step,
                "epochs": round(progress.examples / len(train_rows), 3),
                "stopped": last.stopped if last else "closed form",
                "padding_waste": round(1 - progress.tokens / progress.padded, 4) if progress.padded else 0.0,
                "unfreezing": progress.unfreezing, "decision": dataclasses.asdict(model.decision),
                "truncated_rows": int((train_rows.lost > 0).sum()),
                "truncated_tokens": int(train_rows.lost.sum()),
            },
            cost={
                "seconds": round(time.perf_counter() - self.began, 2),
                "training_seconds": round(progress.seconds, 2),
                "examples_per_second": round(progress.examples / progress.seconds, 1) if progress.seconds else None,
                "peak_memory_mb": peak_memory_mb(),
                "trained_parameters": max(stage["trained_parameters"] for stage in done),
                "total_parameters": sum(p.numel() for p in model.parameters()),
                "model_mb": round(sum(f.stat().st_size for f in (self.run.path / "model").iterdir()) / 1e6, 1),
            },
        )  # fmt: skip
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        self.run.set_state("done")
        report(self.run)
