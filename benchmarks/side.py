"""BANKING77, every row: a dense side network beside the frozen encoder, against full fine-tuning.

    python benchmarks/full.py DATA_FOLDER
    python benchmarks/side.py DATA_FOLDER

Accuracy on the official test, three seeds, with the defaults of each; full fine-tuning's is what `full.py` measured.
Speed is examples a second after the first epoch, when each text's states are read from disk: the two methods are timed
in turn, three times, in one run, validations included. Full fine-tuning is as quick in its first epoch as later, so
some steps of it are enough.
"""

from __future__ import annotations

import json
import statistics
from typing import Any

from measure import RESULTS, Benchmark, fitted, interval, percent, table, workplace

SEEDS = (0, 1, 2)
TURNS = 3
STEPS = {"full-fine-tuning": 80, "side-network": 564}
"""A part of an epoch, and four epochs."""


def rates(benchmark: Benchmark) -> dict[str, Any]:
    """Examples a second of both methods, turn by turn."""
    from graftwork.data import Data
    from graftwork.fit import fit

    data = Data.load(benchmark.source("banking77"), seed=0, limit=400 if benchmark.quick else None)
    found: dict[str, list[float]] = {method: [] for method in STEPS}
    with workplace() as folder:
        for turn in range(1 if benchmark.quick else TURNS):
            for method, steps in STEPS.items():
                budget = f"{20 if benchmark.quick else steps}steps"
                run = fit(
                    data, method=method, budget=budget, out=folder / f"{method}-{turn}", hardware=benchmark.hardware
                )
                told = [e for e in run.events() if e["event"] == "step"]
                cached = method == "side-network" and not benchmark.quick
                first = next(e for e in told if e["epoch"] >= 1 or not cached)
                epochs, seconds = (told[-1][key] - first[key] for key in ("epoch", "seconds"))
                found[method].append(epochs * len(data["train"]) / seconds)
    return {"examples_per_second": found}


def main() -> None:
    benchmark = Benchmark("side", parts=["accuracy", "speed"])
    if "accuracy" in benchmark.parts:
        runs = [
            benchmark.measured(f"side-network, seed {s}", fitted, benchmark, "banking77", "side-network", s)
            for s in SEEDS
        ]
        side = interval([run["test"]["accuracy"] for run in runs])
        full = json.loads((RESULTS / "full.json").read_text(encoding="utf-8"))["summary"]["accuracy"]
        benchmark.summarise(accuracy={"side-network": side, "full-fine-tuning": full})
        table(("BANKING77", "test accuracy, %"), ("side-network", percent(side)), ("full-fine-tuning", percent(full)))
        print(f"Behind by {100 * (full['mean'] - side['mean']):.2f} points (at most 1.0)")
    if "speed" in benchmark.parts:
        found = benchmark.measured("speed", rates, benchmark)["examples_per_second"]
        ratio = statistics.median(
            side / full for side, full in zip(found["side-network"], found["full-fine-tuning"], strict=True)
        )
        benchmark.summarise(speed=ratio)
        print(f"Examples a second after the first epoch: {ratio:.1f} times as many (at least 5)")


if __name__ == "__main__":
    main()
