"""LoRA against full fine-tuning on three data sets, a hundred labels a class: the same rows, seeds and steps.

    python benchmarks/lora.py DATA_FOLDER [--only DATA_SET]

Both with their defaults; the seed moves which rows are taken, the order and the dropout. 300 validation rows choose the
checkpoint; test is the official one.
"""

from __future__ import annotations

from typing import Any

from measure import Benchmark, interval, percent, small, table, workplace

SETS = ("sentence_polarity", "csabstruct", "banking77")
METHODS = ("full-fine-tuning", "lora")
SEEDS = range(3)
SHOTS = {"sentence_polarity": 100, "csabstruct": 100, "banking77": 20}
VALIDATION_ROWS = 300
BUDGET = "150steps"


def score(benchmark: Benchmark, name: str, method: str, seed: int) -> dict[str, Any]:
    """One fit, scored on the official test."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    data = Data.load(benchmark.source(name), seed=seed, shots=4 if benchmark.quick else SHOTS[name])
    data = small(data, VALIDATION_ROWS)
    with workplace() as folder:
        budget = "3steps" if benchmark.quick else BUDGET
        run = fit(data, method=method, budget=budget, seed=seed, out=folder / "run", hardware=benchmark.hardware)
        found = evaluate(run, data)
        return {
            "train_rows": len(data["train"]), "accuracy": found["accuracy"], "macro_f1": found["macro_f1"],
            **{key: run.cost[key] for key in ("seconds", "trained_parameters")},
        }  # fmt: skip


def main() -> None:
    benchmark = Benchmark("lora", parts=SETS)
    rows: list[tuple[str, ...]] = [("data", *(f"{method}, %" for method in METHODS), "LoRA - full, points", "within")]
    for name in benchmark.parts:
        found = {
            method: [
                benchmark.measured(f"{name}, {method}, seed {s}", score, benchmark, name, method, s) for s in SEEDS
            ]
            for method in METHODS
        }
        accuracy = {method: interval([run["accuracy"] for run in runs]) for method, runs in found.items()}
        full, lora = ([run["accuracy"] for run in found[method]] for method in METHODS)
        gap = interval([a - b for a, b in zip(lora, full, strict=True)])
        within = abs(gap["mean"]) <= (gap["half_width_95"] or 0.0)
        benchmark.summarise(**{name: accuracy | {"gap": gap, "within": within}})
        rows.append((name, *(percent(accuracy[method]) for method in METHODS), percent(gap), str(within)))
    table(*rows)


if __name__ == "__main__":
    main()
