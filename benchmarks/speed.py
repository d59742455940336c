"""FullFineTuning and TopLayers against `transformers.Trainer`: same weights, data, batch, steps, machine.

    python benchmarks/speed.py DATA_FOLDER [--only rate] [--rounds 5]

The parts:
    settings  Trainer's own best setting here: bf16 or fp32, batches made in the process or by a worker
    rate      examples per second at batch 32, rounds of the two in turn, medians (set-up is not counted)
    score     wall time from loaded data to Trainer's final validation score, ours with its validations
    textbook  padded to 512, batch 16, fp32: the recipe of most tutorials, examples per second
    frozen    TopLayers(blocks=2) for 10 epochs against Trainer with the same layers frozen, wall time

Trainer always pads each batch to its longest text, groups by length, and neither logs, saves nor evaluates while its
clock runs. What differs: Trainer trains BertForSequenceClassification, whose head reads the first token through the
pooler (148k more weights, one product more a text); ours reads the mean of the tokens. Both run all six blocks on all
tokens, where the time goes. Both draw dropout, clip gradients at norm 1 and step AdamW (fused) once a batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from measure import Benchmark, table, workplace

if TYPE_CHECKING:
    from transformers import Trainer

    from graftwork.data import Data

PARTS = ("settings", "rate", "score", "textbook", "frozen")
WARM = 50  # steps before the clock starts; Trainer's sampler sorts 50 batches at a time, so whole windows are timed
TIMED = 100
SETTINGS = {
    f"{'bf16' if bf16 else 'fp32'}, {workers} workers": {"bf16": bf16, "dataloader_num_workers": workers}
    for bf16 in (True, False)
    for workers in (0, 1)
}
RECIPES = (2e-5, 5e-5, 1e-4)  # learning rates; 5 epochs, 10 % warm-up, then linear
FROZEN_BLOCKS = 4  # of 6


class Clock:
    """Notes when each step ended."""

    def __init__(self) -> None:
        self.marks: dict[int, float] = {}

    def mark(self, step: int) -> None:
        self.marks[step] = time.perf_counter()

    def rate(self, warm: int, batch_size: int) -> float:
        """Examples per second from the first mark at `warm` or later to the last."""
        first, last = min(s for s in self.marks if s >= warm), max(self.marks)
        return (last - first) * batch_size / (self.marks[last] - self.marks[first])


def trainer(data: Data, folder: Any, clock: Clock, *, pad_to: int | None = None, **settings: Any) -> Trainer:
    """Trainer on the embedded model, with nothing that costs time and is not training.

    Args:
        data: its train split is trained on.
        folder: for what Trainer may write.
        clock: is told of each step.
        pad_to: every text is padded to this length; by default each batch to its longest.
        settings: of `TrainingArguments`.
    """
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PreTrainedTokenizerFast,
        PrinterCallback,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )
    from transformers.utils import logging

    from graftwork.modalities.text import Text
    from graftwork.models import resolve

    class Marks(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            clock.mark(state.global_step)

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(resolve("minilm"), num_labels=len(data.labels))
    modality = Text.from_folder(resolve("minilm"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=modality.tokenizer, pad_token="[PAD]")
    grouped = {} if pad_to else {"train_sampling_strategy": "group_by_length"}
    arguments = TrainingArguments(
        str(folder), use_cpu=True, optim="adamw_torch_fused", lr_scheduler_type="linear", warmup_steps=0.1,
        weight_decay=0.01, logging_strategy="no", save_strategy="no", eval_strategy="no", report_to=[],
        disable_tqdm=True, dataloader_pin_memory=False, logging_nan_inf_filter=False,
        **{"per_device_train_batch_size": 32, **grouped, **settings},
    )  # fmt: skip
    made = Trainer(
        model,
        arguments,
        train_dataset=rows(data, "train"),  # type: ignore[arg-type]  a list serves
        data_collator=DataCollatorWithPadding(tokenizer, padding="max_length" if pad_to else True, max_length=pad_to),
        callbacks=[Marks()],
    )
    made.remove_callback(PrinterCallback)
    return made


def rows(data: Data, split: str) -> list[dict[str, Any]]:
    """A split tokenised as Trainer reads it."""
    from graftwork.modalities.text import Text
    from graftwork.models import resolve

    number = {label: i for i, label in enumerate(data.labels)}
    ids = Text.from_folder(resolve("minilm")).encode(data[split].inputs())
    labels = data[split].labels()
    return [
        {"input_ids": i.tolist(), "attention_mask": [1] * len(i), "labels": number[label]}
        for i, label in zip(ids, labels, strict=True)
    ]


@contextmanager
def threads(benchmark: Benchmark) -> Iterator[None]:
    """Both sides compute with the same number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(benchmark.asked.threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trainer_rate(benchmark: Benchmark, steps: int, warm: int, **settings: Any) -> float:
    """Trainer's examples per second over `steps` steps after `warm`."""
    clock = Clock()
    with workplace() as folder, threads(benchmark):
        trainer(loaded(benchmark), folder, clock, max_steps=warm + steps, **settings).train()
    return clock.rate(warm, settings.get("per_device_train_batch_size", 32))


def our_rate(benchmark: Benchmark, steps: int, warm: int) -> float:
    """Our examples per second over `steps` steps after `warm`, the same measure."""
    from graftwork.fit import fit

    clock = Clock()
    with workplace() as folder:
        fit(
            loaded(benchmark), budget=f"{warm + steps}steps", out=folder / "run", hardware=benchmark.hardware,
            on_event=lambda event: clock.mark(event["step"]) if event["event"] == "step" else None,
        )  # fmt: skip
    return clock.rate(warm, 32)


def loaded(benchmark: Benchmark) -> Data:
    """BANKING77 with the validation split both sides keep away from training."""
    from graftwork.data import Data

    return Data.load(benchmark.source("banking77"), limit=200 if benchmark.quick else None)


# --- the parts ---


def settings(benchmark: Benchmark) -> dict[str, Any]:
    """Trainer's rate in each setting; `best` names the fastest."""
    steps, warm = (2, 1) if benchmark.quick else (50, 50)
    rates = {name: trainer_rate(benchmark, steps, warm, **chosen) for name, chosen in SETTINGS.items()}
    return {"examples_per_second": rates, "best": max(rates, key=lambda name: rates[name])}


def best(benchmark: Benchmark) -> dict[str, Any]:
    """Trainer's best setting, measured once."""
    return SETTINGS[benchmark.measured("settings", settings, benchmark)["best"]]


def rate(benchmark: Benchmark) -> dict[str, Any]:
    """Rounds of Trainer and of us in turn."""
    steps, warm, rounds = (4, 1, 1) if benchmark.quick else (TIMED, WARM, benchmark.asked.rounds)
    chosen = best(benchmark)
    theirs, ours = [], []
    for _ in range(rounds):
        theirs.append(trainer_rate(benchmark, steps, warm, **chosen))
        ours.append(our_rate(benchmark, steps, warm))
    found = {"trainer": statistics.median(theirs), "graftwork": statistics.median(ours)}
    ratios = [b / a for a, b in zip(theirs, ours, strict=True)]
    rounds_said = {"trainer": theirs, "graftwork": ours, "ratio": ratios}
    return found | {"ratio": found["graftwork"] / found["trainer"], "setting": chosen, "rounds": rounds_said}


def textbook(benchmark: Benchmark) -> dict[str, Any]:
    """Padded to 512, batch 16, fp32, against our rate."""
    steps, warm = (1, 1) if benchmark.quick else (6, 2)
    theirs = trainer_rate(benchmark, steps, warm, pad_to=512, per_device_train_batch_size=16)
    ours = our_rate(benchmark, *((4, 1) if benchmark.quick else (TIMED, WARM)))
    return {"trainer": theirs, "graftwork": ours, "ratio": ours / theirs}


def score(benchmark: Benchmark) -> dict[str, Any]:
    """Wall time until Trainer's final validation accuracy, of its best recipe, is reached."""
    recipes = RECIPES[:1] if benchmark.quick else RECIPES
    theirs = [trainer_recipe(benchmark, lr) for lr in recipes]
    goal = max(theirs, key=lambda run: run["accuracy"])
    ours = [time_to(benchmark, goal["accuracy"], seed) for seed in range(1 if benchmark.quick else 3)]
    reached = [run["seconds"] for run in ours if run["reached"]]
    seconds = statistics.median(reached) if len(reached) == len(ours) else None
    return {
        "recipes": theirs, "goal": goal, "runs": ours, "trainer": goal["seconds"], "graftwork": seconds,
        "ratio": goal["seconds"] / seconds if seconds else None,
    }  # fmt: skip


def trainer_recipe(benchmark: Benchmark, lr: float) -> dict[str, Any]:
    """Five epochs at `lr`: seconds from the loaded data, and the validation accuracy at the end (not timed)."""
    import numpy as np
    import torch

    data, length = loaded(benchmark), {"max_steps": 3} if benchmark.quick else {"num_train_epochs": 5}
    chosen = best(benchmark)
    with workplace() as folder, threads(benchmark):
        start = time.perf_counter()
        run = trainer(data, folder, Clock(), learning_rate=lr, **length, **chosen)
        run.train()
        seconds = time.perf_counter() - start
        with torch.inference_mode():
            answers = run.predict(rows(data, "validation"))  # type: ignore[arg-type]
    right = np.argmax(answers.predictions, axis=1) == answers.label_ids
    return {"lr": lr, "epochs": 5, "seconds": seconds, "accuracy": float(right.mean())}


class Reached(Exception):  # noqa: N818
    """The score is reached: there is nothing more to wait for."""


def time_to(benchmark: Benchmark, goal: float, seed: int) -> dict[str, Any]:
    """Seconds from the loaded data until a validation of our default fit reaches `goal`."""
    from graftwork.fit import fit

    data, curve = loaded(benchmark), []

    def watch(event: dict[str, Any]) -> None:
        if event["event"] == "evaluation":
            curve.append({"epoch": event["epoch"], "accuracy": event["accuracy"], "at": time.perf_counter() - start})
            if event["accuracy"] >= goal:
                raise Reached

    budget = "3steps" if benchmark.quick else None
    with workplace() as folder:
        start, reached = time.perf_counter(), False
        try:
            fit(data, out=folder / "run", seed=seed, budget=budget, hardware=benchmark.hardware, on_event=watch)
        except Reached:
            reached = True
    return {"seed": seed, "reached": reached, "seconds": curve[-1]["at"], "curve": curve}


def frozen(benchmark: Benchmark) -> dict[str, Any]:
    """Ten epochs with the lower blocks frozen; Trainer's are one measured epoch times ten, ours the whole of `fit`."""
    from graftwork.fit import fit

    data, epochs, chosen = loaded(benchmark), 2 if benchmark.quick else 10, best(benchmark)
    with workplace() as folder, threads(benchmark):
        run = trainer(data, folder, Clock(), num_train_epochs=1, **chosen)
        bert: Any = run.model.base_model  # type: ignore[union-attr]
        lower = [bert.embeddings, *bert.encoder.layer[:FROZEN_BLOCKS]]
        for part in lower:
            part.requires_grad_(False)
        start = time.perf_counter()
        run.train()
        epoch = time.perf_counter() - start
    with workplace() as folder:
        start = time.perf_counter()
        found = fit(
            data,
            method={"top-layers": {"blocks": 2}},
            budget=f"{epochs}epochs",
            out=folder / "run",
            hardware=benchmark.hardware,
        )
        ours = time.perf_counter() - start
        accuracy = found.metrics["validation"]["accuracy"]
        training = found.cost["training_seconds"]
    theirs = epoch * epochs
    return {
        "trainer": theirs, "trainer_epoch_measured": epoch, "graftwork": ours, "graftwork_training": training,
        "ratio": theirs / ours, "epochs": epochs, "validation_accuracy": accuracy,
    }  # fmt: skip


def main() -> None:
    benchmark = Benchmark(
        "speed",
        parts=PARTS,
        options=lambda parser: parser.add_argument("--rounds", type=int, default=5, help="of the part rate"),
    )
    measures: dict[str, Callable[[Benchmark], dict[str, Any]]] = {
        "settings": settings, "rate": rate, "score": score, "textbook": textbook, "frozen": frozen,
    }  # fmt: skip
    reach = {"rate": "1.5, aim 2.2", "score": "2, aim 3", "textbook": "40", "frozen": "4, aim 10"}
    lines: list[tuple[str, ...]] = [("part", "unit", "Trainer", "graftwork", "times faster", "at least")]
    for part in benchmark.parts:
        found = benchmark.measured(part, measures[part], benchmark)
        if part == "settings":
            for name, speed in found["examples_per_second"].items():
                lines.append((f"Trainer, {name}", "examples/s", f"{speed:.1f}", "", "", ""))
            continue
        unit = "examples/s" if part in ("rate", "textbook") else "seconds"
        numbers = [f"{found[key]:.1f}" if found[key] else "not reached" for key in ("trainer", "graftwork")]
        ratio = f"{found['ratio']:.2f}" if found["ratio"] else "-"
        lines.append((part, unit, *numbers, ratio, reach[part]))
    table(*lines)


if __name__ == "__main__":
    main()
