"""pretrain: plain text -> a base that every other verb takes as its model.

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
from graftwork.corpus import Corpus, Windows, train_tokenizer, windows
from graftwork.disk import atomic_write
from graftwork.extension import extend as extend_vocabulary
from graftwork.hardware import Hardware, World, peak_flops, peak_memory_mb
from graftwork.language import language_model, pieces_of, save_language_model, start_from_nothing
from graftwork.layers import stacks
from graftwork.loop import Stage, Trained, train
from graftwork.methods.pretraining import VALIDATED, Pretraining, pretext_scores
from graftwork.model import TransferModel
from graftwork.models import resolve
from graftwork.pretext import SIZES, Pretext
from graftwork.run import Run
from graftwork.work import OnEvent, Work

_ON_A_GPU = 65536
"""Tokens computed at once on a GPU, where nothing is said: a small network leaves it idle with less."""


class Request(BaseModel):
    """What was asked of a pretraining. What stands before `hardware` changes results."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    corpus: str
    """A text file, or a folder of them."""
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
    """Learn a language model from plain text; its folder is `RUN/model`, and RUN itself does for `model=`.

    Args:
        corpus: a text file (.txt, .jsonl, .parquet, .csv, each also .gz), or a folder of them.
        objective: a pretext, by name, mapping or object: `masked`, `causal`, `permuted`, `denoising`.
        model: one to go on from: an embedded one, a folder, a hub id; by default none. A body without a
            language-model head gets a fresh one, tied to its embeddings.
        size: of a network from nothing: `tiny`, `mini`, `small` or `base`.
        pieces: of a vocabulary from nothing.
        extend: how many words of the corpus, which the tokenizer of `model` cuts, become pieces of their own; each
            begins as the mean of those that it was cut into.
        length: tokens a window; nothing is padded.
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
            pieces=pieces, extend=extend, length=length, method=method.spec(), budget=str(Budget.parse(budget)),
            seed=seed, hardware=Hardware.of(hardware),
        )  # fmt: skip
    except ValidationError as error:
        raise InputError(f"The pretraining cannot be read: {wording(error)}.") from None
    if extend and model is None:
        raise InputError(
            "A vocabulary from nothing is of the corpus already: leave --extend out, or give --from MODEL."
        )
    texts = Corpus(corpus, column, deduplicate)
    begins = resolve(model) if model is not None else None
    path = Path(out) if out else Run.default_path(texts.name, pretext.name)
    world = World(request.hardware.torch_device())
    run = Run.create(path, request.model_dump(mode="json"), force=force) if world.leads else None
    world.wait()
    return _Pretraining(run or Run.open(path), request, method, texts, begins, world, on_event, began).execute()


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
    texts = Corpus(request.corpus, request.column, request.deduplicate)
    known = run.data.get("fingerprint")
    if known and known != texts.fingerprint:
        raise InputError(f"The corpus of run {str(run.path)!r} has changed since it began. Put the old one back.")
    begins = resolve(request.model) if request.model is not None else None
    world = World(request.hardware.torch_device())
    return _Pretraining(run, request, method, texts, begins, world, on_event, began).execute()


class _Pretraining(Work):
    """One execution of a request."""

    def __init__(
        self, run: Run, request: Request, method: Pretraining, corpus: Corpus, begins: Path | None, world: World,
        on_event: OnEvent | None, began: float,
    ):  # fmt: skip
        hardware = request.hardware
        if hardware.torch_device().type == "cuda" and "max_tokens" not in hardware.model_fields_set:
            hardware = hardware.model_copy(update={"max_tokens": _ON_A_GPU})
        super().__init__(run, hardware, world, on_event, began)
        self.request, self.method, self.corpus, self.begins = request, method, corpus, begins
        self.token_flops, self.peak = 0.0, 1.0

    def _execute(self) -> None:
        device, precision = self.hardware.torch_device(), self._precision()
        self._lead(lambda: self._write_down_start(precision))
        start = self._started() if self.begins is None or self.request.extend else self.begins
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.request.seed)
            model = language_model(start, self.method.pretext.kind).to(device)
        self._require_room(model)
        if self.request.deduplicate:
            self._lead(self._tell_repeats)
        texts, held_out = self._windows(model, "train"), self._windows(model, "validation")
        self._note(
            f"{texts.tokens:,} tokens in {len(texts):,} windows of {self.request.length} to learn from, "
            f"{held_out.tokens:,} held out; {sum(p.numel() for p in model.parameters()):,} parameters."
        )
        self.method.prepare(model, texts)
        self.token_flops, self.peak = (
            token_flops(model.encoder, self.request.length),
            peak_flops(device.type, precision),
        )
        budget = Budget.parse(self.request.budget)
        spent = time.perf_counter() - self.began if budget.unit == "seconds" else 0.0
        done = train(
            model, texts, held_out,
            Stage(
                number=0, method=self.method, budget=budget, seed=self.request.seed, hardware=self.hardware,
                precision=precision, world=self.world, checkpoint=self.checkpoint, on_event=self._on_event,
                stop_requested=self.stop.is_set, spent=spent,
            ),
        )  # fmt: skip
        self._lead(lambda: self._finish(model, texts, held_out, done))
        self.world.wait()

    def _note(self, message: str) -> None:
        self._on_event(event="note", message=message)

    def _on_event(self, **event: Any) -> None:
        if rate := event.get("examples_per_second"):
            event["tokens_per_second"] = round(rate * self.request.length)
            event["utilisation"] = round(self._utilisation(event["tokens_per_second"]), 4)
        super()._on_event(**event)

    def _utilisation(self, tokens_per_second: float) -> float:
        """The share of what matrix products reach on this device (all processes together may have more than one)."""
        return tokens_per_second * self.token_flops / self.peak / self.world.size

    def _tell_repeats(self) -> None:
        if "left_out" not in self.run.data:  # a resumed run knows already
            repeated = self.corpus.repeated
            self.run.update(data=self.run.data | {"passages": len(repeated), "left_out": int(repeated.sum())})
        passages, left_out = self.run.data["passages"], self.run.data["left_out"]
        self._note(f"{left_out:,} of {passages:,} passages nearly repeat an earlier one and are left out.")

    def _write_down_start(self, precision: str) -> None:
        from graftwork import checkpoint

        self.checkpoint.parent.mkdir(exist_ok=True)
        self.run.truncate_log(checkpoint.step_of(self.checkpoint))
        corpus = {"fingerprint": self.corpus.fingerprint, "files": [file.name for file in self.corpus.files]}
        self.run.update(
            data=self.run.data | corpus,
            happened={
                "precision": precision, "processes": self.world.size, "device": str(self.hardware.torch_device())
            },
        )  # fmt: skip

    def _started(self) -> Path:
        """The folder of weights and a tokenizer that this run made to begin from; made once, whole or not at all."""
        folder = self.checkpoint.parent / "start"
        self._lead(lambda: None if folder.is_dir() else self._start(folder))
        return folder

    def _start(self, folder: Path) -> None:
        pretext, request = self.method.pretext, self.request
        if self.begins is not None:
            return self._extended(self.begins, folder)
        self._note(f"Training a tokenizer of {request.pieces:,} pieces ...")
        tokenizer, special = pretext.tokenizer()
        tokenizer = train_tokenizer(self.corpus, tokenizer, special, request.pieces)
        beside = folder.with_name("starting")
        shutil.rmtree(beside, ignore_errors=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(request.seed)
            start_from_nothing(pretext, SIZES[request.size], tokenizer, special, request.length, beside)
        beside.rename(folder)

    def _extended(self, begins: Path, folder: Path) -> None:
        beside = folder.with_name("starting")
        shutil.rmtree(beside, ignore_errors=True)
        words = extend_vocabulary(begins, self.method.pretext.kind, self.corpus, self.request.extend, beside)
        self.run.update(happened={"new_pieces": words})
        self._note(f"{len(words):,} words are pieces of their own now, such as {', '.join(words[:5])}.")
        beside.rename(folder)

    def _require_room(self, model: TransferModel) -> None:
        if self.request.length > model.modality.max_length:
            raise InputError(
                f"{self.request.model} reads {model.modality.max_length} tokens at most, and windows of "
                f"{self.request.length} were asked for. Give a smaller --length."
            )

    def _windows(self, model: TransferModel, split: str) -> Windows:
        found: list[Windows] = []
        self._lead(lambda: found.append(windows(self.corpus, split, model, self.request.length, self._note)))
        return found[0] if found else windows(self.corpus, split, model, self.request.length, self._note)

    def _finish(self, model: TransferModel, texts: Windows, held_out: Windows, done: Trained) -> None:
        save_language_model(model, self.run.path / "model")
        metrics = pretext_scores(
            model, self.method.pretext, pieces_of(model), held_out, "fp32", most=VALIDATED
        )  # fmt: skip
        progress = done.progress
        pace = progress.tokens / progress.seconds if progress.seconds else 0.0
        self.run.update(
            metrics={"validation": metrics},
            happened={
                "stages": [{"method": self.method.spec()}], "steps": progress.step, "best_step": progress.best_step,
                "epochs": round(progress.examples / len(texts), 3), "tokens": progress.tokens, "stopped": done.stopped,
            },
            cost={
                "seconds": round(time.perf_counter() - self.began, 2), "training_seconds": round(progress.seconds, 2),
                "tokens_per_second": round(pace), "utilisation": round(self._utilisation(pace), 4),
                "peak_memory_mb": peak_memory_mb(),
                "examples_per_second": round(pace / self.request.length, 1),
                "total_parameters": sum(p.numel() for p in model.parameters()),
            },
        )  # fmt: skip
        atomic_write(self.run.path / "model" / "README.md", card(self.run).encode())
        shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
        self.run.set_state("done")


def token_flops(encoder: torch.nn.Module, length: int) -> float:
    """Operations to learn from a token: 6 N + 12 L H T (PaLM, Chowdhery et al. 2022, appendix B), of the blocks alone.

    Args:
        encoder: N of its parameters are in L blocks, H wide.
        length: T, the tokens that see each other.
    """
    blocks = [block for _, stack in stacks(encoder) for block in stack]
    parameters = sum(p.numel() for block in blocks for p in block.parameters())
    return 6.0 * parameters + 12.0 * len(blocks) * encoder.config.hidden_size * length  # type: ignore[union-attr]


def card(run: Run) -> str:
    """The model card of a base: what it learned from, for how long, how well, and what it is good for."""
    asked, happened, cost = Request(**run.asked), run.happened, run.cost
    metrics, method = run.metrics["validation"], Pretraining(**run.asked["method"]["pretraining"])
    curve = [e for e in run.events() if e.get("event") == "evaluation"]
    told = "\n".join(f"| {e['step']:,} | {e['loss']:.3f} | {e['perplexity']:.1f} |" for e in _spread(curve, 12))
    origin = f"from `{asked.model}`" if asked.model else "from random weights, with a tokenizer of its own"
    return f"""# {run.name}

A {method.pretext.name} language model, learned {origin} by `graft pretrain`.

- Texts: {", ".join(run.data["files"])} (fingerprint {run.data["fingerprint"][:12]}).
- Seen: {happened["tokens"]:,} tokens in {happened["steps"]:,} steps, {happened["epochs"]:g} passes.
- Size: {cost["total_parameters"]:,} parameters; reads {asked.length} tokens.
- Cost: {cost["training_seconds"]:,.0f} seconds at {cost["tokens_per_second"]:,} tokens a second \
on {happened["device"]}, {cost["utilisation"]:.0%} of what matrix products reach there.
- Held-out text: {metrics["loss"]:.3f} nats a piece that is asked, perplexity {metrics["perplexity"]:.1f}, \
{100 * metrics["accuracy"]:.1f} % told right.

| step | loss | perplexity |
|---|---|---|
{told}

Good for: a base to fit a task on (`graft fit DATA --model RUN`), and to look at what it knows. It has read no more
than the texts above: it knows their words and their time, and is no source of facts.
"""


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many of them, evenly, the last one too."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
