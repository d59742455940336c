"""pretrain: plain text, or pictures -> a base that every other verb takes as its model.

From nothing, tokenizer included, or going on from a model; through the one training loop, so it can be stopped, resumed
and shared by processes like any other run.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graftwork.budget import Budget
from graftwork.choice import InputError, parse, suggest, wording
from graftwork.corpus import Corpus
from graftwork.disk import atomic_write
from graftwork.examples import Examples
from graftwork.hardware import Hardware, World, peak_flops, peak_memory_mb
from graftwork.loop import Stage, Trained, train
from graftwork.material import Card, Material, material_of
from graftwork.methods.pretraining import Pretraining
from graftwork.model import TransferModel
from graftwork.models import require_reader, resolve
from graftwork.pretext import Pretext
from graftwork.run import Run
from graftwork.work import OnEvent, Work

_ON_A_GPU = 65536
"""Tokens computed at once on a GPU, where nothing is said: a small network leaves it idle with less."""


class Request(BaseModel):
    """What was asked of a pretraining. What stands before `hardware` changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    corpus: str
    """A text file, or a folder of them; or a folder of pictures."""
    column: str | None = None
    """Which column holds the text, where files have columns."""
    deduplicate: bool = False
    """Whether passages that nearly repeat an earlier one are left out."""
    model: str | None = None
    """The model to go on from; None for random weights and a tokenizer of its own."""
    size: Literal["tiny", "mini", "small", "base"] = "mini"
    """Of a network from nothing."""
    pieces: int = Field(default=8192, ge=300, le=200_000)
    """Of a vocabulary from nothing."""
    extend: int = Field(default=0, ge=0, le=50_000)
    """How many words of the corpus, which the tokenizer cuts, become pieces of their own, where a model goes on."""
    length: int = Field(default=128, ge=8, le=8192)
    """Tokens a window."""
    image_size: int = Field(default=32, ge=8, le=1024)
    """Pixels of each side to which pictures are brought, for a network from nothing."""
    patch: int = Field(default=4, ge=1, le=64)
    """Pixels of each side of the patches that they are cut into; divides `image_size`."""
    method: dict[str, dict[str, Any]]
    """The pretext and how it is learned."""
    budget: str = "1epochs"
    """`3epochs`, `500steps`, `90s`, `10m`."""
    seed: int = Field(default=0, ge=0)
    """Of everything random."""
    hardware: Hardware = Hardware()
    """Device, precision and how batches are split."""


def pretrain(
    corpus: str | Path,
    *,
    objective: Any = "masked",
    model: str | Path | None = None,
    size: str = "mini",
    pieces: int = 8192,
    extend: int = 0,
    length: int = 128,
    image_size: int = 32,
    patch: int = 4,
    budget: str | Budget = "1epochs",
    seed: int = 0,
    column: str | None = None,
    deduplicate: bool = False,
    out: str | Path | None = None,
    force: bool = False,
    hardware: Hardware | dict[str, Any] | None = None,
    on_event: OnEvent | None = None,
    **settings: Any,
) -> Run:
    """Learn a language model from plain text, or to see from pictures; `RUN/model` is its folder, or RUN itself.

    Args:
        corpus: a text file (.txt, .jsonl, .parquet, .csv, each also .gz), or a folder of them; or one of pictures.
        objective: a pretext, by name, mapping or object: `masked`, `causal`, `permuted`, `denoising`; of pictures
            `masked-autoencoder`, `image-denoising`.
        model: one to go on from: an embedded one, a folder, a hub id; by default none. A body without a
            language-model head gets a fresh one, tied to its embeddings.
        size: of a network from nothing: `tiny`, `mini`, `small` or `base`.
        pieces: of a vocabulary from nothing.
        extend: how many words of the corpus, which the tokenizer of `model` cuts, become pieces of their own; each
            begins as the mean of those that it was cut into.
        length: tokens a window; nothing is padded.
        image_size: pixels of each side to which pictures are brought, whatever their shape; of a network from nothing.
        patch: pixels of each side of a patch; divides `image_size`.
        budget: `3epochs`, `500steps`, `90s`, `10m`.
        seed: of everything random.
        column: which column holds the text, where files have columns.
        deduplicate: whether passages that nearly repeat an earlier one are left out; how many is told.
        out: the run folder; by default runs/CORPUS-OBJECTIVE.
        force: whether a finished run there may be replaced.
        hardware: device, precision, batch split; does not change results.
        on_event: is told what happens, as it happens.
        settings: fields of `methods.pretraining.Pretraining`, such as `lr` and `batch_size`.

    Raises:
        InputError: something given cannot be used; nothing has been trained.
        Interrupted: SIGINT or SIGTERM came; `resume` goes on.

    Example:
        base = pretrain("books/", objective="masked", budget="10m")
        fit("reviews.csv", model=base.path)
    """
    began = time.perf_counter()
    import graftwork.pretexts  # noqa: F401  puts every pretext on its shelf

    pretext = parse(Pretext, objective)
    if model is not None:
        settings = {"lr": 2e-4} | settings  # a gentler rate than from nothing: what is there should stay
    for word in settings:
        if word not in Pretraining.model_fields:
            raise InputError(f"Pretraining has no {word!r}. {suggest(word, Pretraining.model_fields)}")
    try:
        method = Pretraining(pretext=pretext, **settings)
        request = Request(
            corpus=str(corpus), column=column, deduplicate=deduplicate, model=None if model is None else str(model),
            size=size,  # type: ignore[arg-type]
            pieces=pieces, extend=extend, length=length, image_size=image_size, patch=patch, method=method.spec(),
            budget=str(Budget.parse(budget)), seed=seed, hardware=Hardware.of(hardware),
        )  # fmt: skip
    except ValidationError as error:
        raise InputError(f"The pretraining cannot be read: {wording(error)}.") from None
    if extend and model is None:
        raise InputError(
            "A vocabulary from nothing is of the corpus already: leave --extend out, or give --from MODEL."
        )
    material = material_of(request, pretext)
    if model is not None:
        require_reader(model, pretext.reads)
    begins = resolve(model) if model is not None else None
    path = Path(out) if out else Run.default_path(material.source.name, pretext.name)
    world = World(request.hardware.torch_device())
    run = Run.create(path, request.model_dump(mode="json"), force=force) if world.leads else None
    world.wait()
    return _Pretraining(run or Run.open(path), request, method, material, begins, world, on_event, began).execute()


def resume(run: Run | str | Path, *, on_event: OnEvent | None = None) -> Run:
    """Go on with an interrupted or failed pretraining from its last checkpoint, as if nothing had happened.

    Raises:
        InputError: the run is finished or at work, or its corpus has changed since.
    """
    began = time.perf_counter()
    run = run if isinstance(run, Run) else Run.open(run)
    run.require_unfinished()
    request = Request(**run.asked)
    method = Pretraining(**request.method["pretraining"])
    material = material_of(request, method.pretext)
    known = run.data.get("fingerprint")
    if known and known != material.source.fingerprint:
        raise InputError(f"The corpus of run {str(run.path)!r} has changed since it began. Put the old one back.")
    begins = resolve(request.model) if request.model is not None else None
    world = World(request.hardware.torch_device())
    return _Pretraining(run, request, method, material, begins, world, on_event, began).execute()


class _Pretraining(Work):
    """One execution of a request."""

    def __init__(
        self, run: Run, request: Request, method: Pretraining, material: Material, begins: Path | None, world: World,
        on_event: OnEvent | None, began: float,
    ):  # fmt: skip
        hardware = request.hardware
        if hardware.torch_device().type == "cuda" and "max_tokens" not in hardware.model_fields_set:
            hardware = hardware.model_copy(update={"max_tokens": _ON_A_GPU})
        super().__init__(run, hardware, world, on_event, began)
        self.request, self.method, self.material, self.begins = request, method, material, begins
        self.flops, self.peak = 0.0, 1.0

    def _execute(self) -> None:
        device, precision = self.hardware.torch_device(), self._precision()
        self._lead(lambda: self._write_down_start(precision))
        start = self._started() if self.begins is None or self.request.extend else self.begins
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.request.seed)
            model = self.material.model(start).to(device)
        if self.request.deduplicate:
            self._lead(self._tell_repeats)
        train_on, held_out = self._examples(model, "train"), self._examples(model, "validation")
        there, kept = (f"{self.material.units(len(each)):,}" for each in (train_on, held_out))
        self._note(
            f"{there} {self.material.unit} to learn from, {kept} held out; "
            f"{sum(p.numel() for p in model.parameters()):,} parameters."
        )
        self.method.prepare(model, train_on)
        self.flops, self.peak = self.material.flops(model), peak_flops(device.type, precision)
        budget = Budget.parse(self.request.budget)
        spent = time.perf_counter() - self.began if budget.unit == "seconds" else 0.0
        done = train(
            model, train_on, held_out,
            Stage(
                number=0, method=self.method, budget=budget, seed=self.request.seed, hardware=self.hardware,
                precision=precision, world=self.world, checkpoint=self.checkpoint, on_event=self._on_event,
                stop_requested=self.stop.is_set, spent=spent,
            ),
        )  # fmt: skip
        self._lead(lambda: self._finish(model, len(train_on), held_out, done))
        self.world.wait()

    def _note(self, message: str) -> None:
        self._on_event(event="note", message=message)

    def _on_event(self, **event: Any) -> None:
        if rate := event.get("examples_per_second"):
            event |= self._pace(rate)
        super()._on_event(**event)

    def _pace(self, examples_per_second: float) -> dict[str, float]:
        """What passes by a second, and the share of what matrix products reach on the devices of all processes."""
        share = examples_per_second * self.flops / self.peak / self.world.size
        return {
            f"{self.material.unit}_per_second": round(self.material.units(1) * examples_per_second),
            "utilisation": round(share, 4),
        }

    def _tell_repeats(self) -> None:
        if "left_out" not in self.run.data:  # a resumed run knows already
            assert isinstance(self.material.source, Corpus), "pictures are not asked whether they repeat"
            repeated = self.material.source.repeated
            self.run.update(data=self.run.data | {"passages": len(repeated), "left_out": int(repeated.sum())})
        passages, left_out = self.run.data["passages"], self.run.data["left_out"]
        self._note(f"{left_out:,} of {passages:,} passages nearly repeat an earlier one and are left out.")

    def _write_down_start(self, precision: str) -> None:
        from graftwork import checkpoint

        self.checkpoint.parent.mkdir(exist_ok=True)
        self.run.truncate_log(checkpoint.step_of(self.checkpoint))
        source = self.material.source
        corpus = {"fingerprint": source.fingerprint, "files": [file.name for file in source.files]}
        self.run.update(
            data=self.run.data | corpus,
            happened={
                "precision": precision, "processes": self.world.size, "device": str(self.hardware.torch_device())
            },
        )  # fmt: skip

    def _started(self) -> Path:
        """The folder that this run made to begin from; made once, whole or not at all."""
        folder = self.checkpoint.parent / "start"
        self._lead(lambda: None if folder.is_dir() else self._start(folder))
        return folder

    def _start(self, folder: Path) -> None:
        beside = folder.with_name("starting")
        shutil.rmtree(beside, ignore_errors=True)
        if told := self.material.start(self.begins, beside, self._note):
            self.run.update(happened=told)
        beside.rename(folder)

    def _examples(self, model: TransferModel, split: str) -> Examples:
        found: list[Examples] = []
        self._lead(lambda: found.append(self.material.examples(split, model, self._note)))
        return found[0] if found else self.material.examples(split, model, self._note)

    def _finish(self, model: TransferModel, examples: int, held_out: Examples, done: Trained) -> None:
        self.material.save(model, self.run.path / "model")
        metrics = self.material.scores(model, held_out)
        progress = done.progress
        rate = progress.examples / progress.seconds if progress.seconds else 0.0
        self.run.update(
            metrics={"validation": metrics},
            happened={
                "stages": [{"method": self.method.spec()}], "steps": progress.step, "best_step": progress.best_step,
                "epochs": round(progress.examples / examples, 3), "stopped": done.stopped,
                self.material.unit: self.material.units(progress.examples),
            },
            cost={
                "seconds": round(time.perf_counter() - self.began, 2), "training_seconds": round(progress.seconds, 2),
                **self._pace(rate), "peak_memory_mb": peak_memory_mb(), "examples_per_second": round(rate, 1),
                "total_parameters": sum(p.numel() for p in model.parameters()),
            },
        )  # fmt: skip
        atomic_write(self.run.path / "model" / "README.md", card(self.run, self.material.card(self.run)).encode())
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        self.run.set_state("done")


def card(run: Run, about: Card) -> str:
    """The model card of a base: what it learned from, for how long, how well, and what it is good for."""
    asked, happened, cost = Request(**run.asked), run.happened, run.cost
    unit = next(name for name in ("tokens", "pictures") if name in happened)
    curve = [e for e in run.events() if e.get("event") == "evaluation"]
    told = "\n".join(f"| {e['step']:,} | {e['loss']:.3f} | {e[about.score]:{about.form}} |" for e in _spread(curve, 12))
    origin = f"from `{asked.model}`" if asked.model else f"from {about.origin}"
    return f"""# {run.name}

A {about.kind}, learned {origin} by `graft pretrain`.

- {about.source} (fingerprint {run.data["fingerprint"][:12]}).
- Seen: {happened[unit]:,} {unit} in {happened["steps"]:,} steps, {happened["epochs"]:g} passes.
- Size: {cost["total_parameters"]:,} parameters; {about.size}.
- Cost: {cost["training_seconds"]:,.0f} seconds at {cost[f"{unit}_per_second"]:,} {unit} a second \
on {happened["device"]}, {cost["utilisation"]:.0%} of what matrix products reach there.
- {about.held_out}

| step | loss | {about.score} |
|---|---|---|
{told}

{about.good_for}
"""


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many of them, evenly, the last one too."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
