"""A race of six methods and three baselines over three seeds on BANKING77, 10-shot; and the same runs one at a time.

    python benchmarks/race.py DATA_FOLDER [--budget 400steps]

The parts:
    race        `compare`, with an empty cache: the table, and its wall time from the loaded data to the comparison
    one by one  the same fits, each a `graft fit` of its own with an empty cache, and its test split scored; wall time

The race also measures every method's latency and writes its page; the runs one at a time do not. What the race shares:
the interpreter with its imports, the checked and tokenised data, the frozen prefixes.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import Benchmark, few_shot, table, workplace

METHODS = ("linear-probe", "top-layers", "lora", "full-fine-tuning", "discriminative-rates", "gradual-unfreezing")
SEEDS = 3
PARTS = ("race", "one by one")


def shots(benchmark: Benchmark, folder: Path) -> Path:
    """Ten rows a class to train on, and 40 a class of the official test to decide by, as a folder of saved data."""
    from graftwork.data import Data

    data = few_shot(Data.load(benchmark.source("banking77")), 2 if benchmark.quick else 10, seed=0)
    return data.save(folder / "banking77-10-shot")


def budget(benchmark: Benchmark) -> str:
    """Of every single run."""
    return "2steps" if benchmark.quick else benchmark.asked.budget


def race(benchmark: Benchmark) -> dict[str, Any]:
    """The comparison, and how long it took."""
    from graftwork.compare import compare
    from graftwork.data import Data

    with workplace() as folder:
        data = Data.load(shots(benchmark, folder))
        start = time.perf_counter()
        found = compare(
            data, methods=METHODS, seeds=1 if benchmark.quick else SEEDS, budget=budget(benchmark), out=folder / "race",
            hardware=benchmark.hardware,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        memory = [run.cost["peak_memory_mb"] for e in found.entries for run in found.runs(e["name"])]
    kept = {
        key: value for key, value in found.as_dict().items() if key not in ("path", "environment", "suspects", "data")
    }
    return {"seconds": seconds, "largest_run_mb": max(m for m in memory if m), **kept}


def one_by_one(benchmark: Benchmark) -> dict[str, Any]:
    """The same fits as processes of their own."""
    asked = [
        (method, seed)
        for seed in range(1 if benchmark.quick else SEEDS)
        for method in METHODS
        if method != "linear-probe" or seed == 0
    ]
    taken = {}
    for method, seed in asked:
        with workplace() as folder:
            source = shots(benchmark, folder)
            words = ["fit", source, "--method", method, "--seed", seed, "--out", folder / "run", "--json"]
            words += [] if method == "linear-probe" else ["--budget", budget(benchmark)]
            words += ["--threads", benchmark.asked.threads] if benchmark.asked.threads else []
            start = time.perf_counter()
            command = [sys.executable, "-c", "from graftwork.cli import main; main()", *map(str, words)]
            subprocess.run(command, check=True, capture_output=True)
            taken[f"{method}, seed {seed}"] = time.perf_counter() - start
    return {"seconds": sum(taken.values()), "runs": taken}


def main() -> None:
    benchmark = Benchmark(
        "race",
        parts=PARTS,
        options=lambda parser: parser.add_argument("--budget", default="400steps", help="of every single run"),
    )
    found = {}
    if "race" in benchmark.parts:
        found["race"] = benchmark.measured("race", race, benchmark)
        rows: list[tuple[str, ...]] = [("method", "accuracy", "95 % interval", "tied", "seconds a run")]
        for e in found["race"]["entries"]:
            interval = f"{100 * e['low']:.1f} to {100 * e['high']:.1f}"
            rows.append((e["name"], f"{100 * e['mean']:.1f}", interval, str(e["tied"]), f"{e['seconds']:.1f}"))
        table(*rows)
        print(found["race"]["verdict"])
    if "one by one" in benchmark.parts:
        found["one by one"] = benchmark.measured("one by one", one_by_one, benchmark)
    if len(found) == 2:
        seconds = {name: part["seconds"] for name, part in found.items()}
        benchmark.summarise(seconds=seconds, times_faster=seconds["one by one"] / seconds["race"])
        print(f"one by one {seconds['one by one']:.0f} s, race {seconds['race']:.0f} s")


if __name__ == "__main__":
    main()
