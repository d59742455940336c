"""How good is `advise`? Races on eight data sets with few labels and with all, and what the advice would have cost.

    python benchmarks/advisor.py DATA_FOLDER

Each race is one part: three baselines, the probe and three methods of fine-tuning on 8 rows a class (60 steps a run), on
32 (100 steps), and on all of train (200 steps), one seed, at most 1,000 rows of the official test. A data set that was
advised on is left out of the races that the advice knows (leave-one-data-set-out). Regret is the best test score of any
method in the race minus that of the method advised.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from measure import Benchmark, workplace

DATA = ("banking77", "sentence_polarity", "csabstruct", "ag_news", "waimai_10k", "pydocs", "chemprot", "imdb_2k")
METHODS = ("linear-probe", "top-layers", "lora", "full-fine-tuning")
ROUNDS = {"8 shots": (8, "60steps"), "32 shots": (32, "100steps"), "all": (None, "200steps")}
TEST_ROWS = 1000


def race(benchmark: Benchmark, name: str, shots: int | None, budget: str) -> dict[str, Any]:
    """The scores, costs and rows of one race."""
    from graftwork.compare import compare

    with workplace() as folder:
        data = drawn(benchmark, name, shots)
        start = time.perf_counter()
        found = compare(
            data, methods=METHODS, seeds=1, budget="2steps" if benchmark.quick else budget, out=folder / "race",
            hardware=benchmark.hardware,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    kept = ("name", "mean", "low", "high", "tied", "seconds", "model_mb", "latency", "trained_parameters")
    return {
        "data": name, "shots": shots, "budget": found.as_dict()["budget"], "metric": found.metric,
        "rows": {split: len(rows) for split, rows in data.splits.items()}, "classes": len(data.labels),
        "race_seconds": seconds, "entries": [{key: entry[key] for key in kept} for entry in found.entries],
    }  # fmt: skip


def drawn(benchmark: Benchmark, name: str, shots: int | None) -> Any:
    """The data of a race: with few labels validation is small too, 5 rows a class or 100 in all."""
    from graftwork.data import Data

    loaded = Data.load("pydocs" if name == "pydocs" else benchmark.source(name))
    data = loaded if shots is None else loaded.few(shots)
    validation = 1000 if shots is None else max(100, 5 * len(data.labels))
    sizes = {"train": len(data["train"]), "validation": validation, "test": TEST_ROWS}
    return Data.load({split: _rows(data[split], size) for split, size in sizes.items()})


def _rows(split: Any, most: int) -> list[dict[str, Any]]:
    order = np.sort(np.random.default_rng(0).permutation(len(split))[:most])
    texts, labels = split.inputs(), split.labels()
    return [{"text": texts[i], "label": labels[i]} for i in order]


def main() -> None:
    parts = [f"{name}, {label}" for label in ROUNDS for name in DATA]
    benchmark = Benchmark("advisor", parts=parts)
    for part in benchmark.parts:
        name, label = part.split(", ")
        benchmark.measured(part, race, benchmark, name, *ROUNDS[label])


if __name__ == "__main__":
    main()
