"""BANKING77, FullFineTuning with the defaults `fit` picks by itself, official test, three seeds.

    python benchmarks/full.py DATA_FOLDER

Every row of train that `fit` does not keep for validation is learned from; test is read once, at the end. The seed
moves the validation split, the head's first weights, the dropout masks and the order of the batches.
"""

from __future__ import annotations

from measure import Benchmark, fitted, interval, percent, table

SEEDS = (0, 1, 2)
REACH = ("93.6", "94.3")


def main() -> None:
    benchmark = Benchmark("full", parts=[f"seed {s}" for s in SEEDS])
    runs = [
        benchmark.measured(part, fitted, benchmark, "banking77", "full-fine-tuning", int(part.split()[1]))
        for part in benchmark.parts
    ]
    rows: list[tuple[str, ...]] = [("seed", "test accuracy, %", "validation, %", "best step of", "seconds")]
    for run in runs:
        steps = f"{run['best_step']} of {run['steps']}"
        accuracy = [f"{100 * run[split]['accuracy']:.2f}" for split in ("test", "validation")]
        rows.append((str(run["seed"]), *accuracy, steps, f"{run['seconds']:.0f}"))
    table(*rows)
    accuracy = interval([run["test"]["accuracy"] for run in runs])
    benchmark.summarise(accuracy=accuracy)
    print(f"BANKING77, FullFineTuning: {percent(accuracy)} (at least {REACH[0]}, aim {REACH[1]})")


if __name__ == "__main__":
    main()
