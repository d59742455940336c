"""Who helps whom? Four tasks, each alone, after each other one, and together with each other one, at the same steps.

    python benchmarks/multitask.py DATA_FOLDER [--only TARGET]

The target has 32 train rows a class, drawn anew for each seed; the other task brings more labels than the target has,
up to 1,000 train rows, for this is when one thinks of it. Every score costs the same 120 optimizer steps: all on the
target; half on the other task and half on the target, from its encoder (intermediate-task transfer, Phang et al. 2018);
or all on both at once (`multi-task` with its defaults). Of each text the first 100 words are read, which makes reviews
as cheap as sentences. Checkpoints are chosen on at most 200 rows of validation; scores are accuracy on 1,000 of test.
Of the 24 differences, each with its 95 % interval over five paired seeds, one is expected to stand out by chance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from measure import Benchmark, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.data import Data

TASKS = ("sentence_polarity", "imdb_2k", "csabstruct", "chemprot")
SEEDS = range(5)
SHOTS, OTHER_ROWS, VALIDATION_ROWS, TEST_ROWS, WORDS = 32, 1000, 200, 1000, 100
STEPS = 120
WAYS = ("before", "together")


def score(benchmark: Benchmark, target: str, other: str | None, way: str | None, seed: int) -> dict[str, Any]:
    """The target's test score, alone or with another task `before` it or `together` with it."""
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    steps, limit = (4, 40) if benchmark.quick else (STEPS, OTHER_ROWS)
    with workplace() as folder:
        data = drawn(benchmark, target, seed, shots=SHOTS)
        asked: dict[str, Any] = {"seed": seed, "hardware": benchmark.hardware}
        seconds = 0.0
        if other and way == "before":
            rows = drawn(benchmark, other, seed, limit=limit)
            first = fit(rows, budget=f"{steps // 2}steps", out=folder / "first", **asked)
            asked |= {"model": first.path, "budget": f"{steps // 2}steps"}
            seconds = first.cost["seconds"]
        else:
            asked["budget"] = f"{steps}steps"
        if other and way == "together":
            saved = drawn(benchmark, other, seed, limit=limit).save(folder / "other")
            asked["method"] = {"multi-task": {"tasks": [str(saved)]}}
        run = fit(data, out=folder / "run", **asked)
        found = evaluate(run, data)
        return {
            "target": target, "other": other, "way": way, "seed": seed, "train_rows": len(data["train"]),
            "best_step": run.happened["best_step"], "seconds": seconds + run.cost["seconds"],
            "accuracy": found["accuracy"], "macro_f1": found["macro_f1"],
        }  # fmt: skip


def drawn(benchmark: Benchmark, name: str, seed: int, *, shots: int | None = None, limit: int | None = None) -> Data:
    """A task with few train rows of this seed; validation and test are the same for all seeds."""
    from graftwork.data import Data

    data = Data.load(benchmark.source(name), drop=["overlap"], seed=seed, shots=shots, limit=limit)
    most = (40, 40) if benchmark.quick else (VALIDATION_ROWS, TEST_ROWS)
    sizes = {"train": len(data["train"]), "validation": most[0], "test": most[1]}
    return Data.load({split: _rows(data[split], size) for split, size in sizes.items()})


def _rows(split: Any, most: int) -> list[dict[str, Any]]:
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:most])
    texts = [" ".join(text.split()[:WORDS]) for text in split.inputs(chosen)]
    return [{"text": text, "label": label} for text, label in zip(texts, split.labels(chosen), strict=True)]


def main() -> None:
    benchmark = Benchmark("multitask", parts=TASKS)
    seeds = SEEDS[:1] if benchmark.quick else SEEDS

    def accuracies(target: str, other: str | None = None, way: str | None = None) -> list[float]:
        part = f"{target}, {way} {other}" if other else f"{target}, alone"
        runs = [benchmark.measured(f"{part}, seed {s}", score, benchmark, target, other, way, s) for s in seeds]
        return [run["accuracy"] for run in runs]

    rows: list[tuple[str, ...]] = [
        ("target", "other task", "alone, %", "other before, points", "both together, points")
    ]
    for target in benchmark.parts:
        alone = accuracies(target)
        found: dict[str, Any] = {"alone": interval(alone)}
        for other in (task for task in TASKS if task != target):
            gains = {way: np.subtract(accuracies(target, other, way), alone).tolist() for way in WAYS}
            found[other] = {way: interval(gain) for way, gain in gains.items()}
            rows.append((target, other, percent(found["alone"]), *(judged(found[other][way]) for way in WAYS)))
        benchmark.summarise(**{target: found})
    table(*rows)


def judged(gain: dict[str, Any]) -> str:
    """A gain in points, and whether its 95 % interval leaves out 0."""
    sure = gain["half_width_95"] is not None and abs(gain["mean"]) > gain["half_width_95"]
    return f"{'+' if gain['mean'] >= 0 else ''}{percent(gain)}{(' helped' if gain['mean'] > 0 else ' hurt') * sure}"


if __name__ == "__main__":
    main()
