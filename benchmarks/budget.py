"""Is `--budget 60s` kept? Wall time of a whole `fit`, from the call to the finished run, against what was asked.

    python benchmarks/budget.py DATA_FOLDER

Time that has passed before training (checking, tokenising) and what is needed after it (the decision, the saved model,
the report) belong to the budget. The import of libraries does not: it is over before `fit` is called.
"""

from __future__ import annotations

import time
from typing import Any

from measure import Benchmark, table, workplace

SECONDS = (30, 60, 90, 180)
TOLERANCE = 0.1


def kept(benchmark: Benchmark, seconds: int) -> dict[str, Any]:
    """One fit with a budget in seconds."""
    from graftwork.data import Data
    from graftwork.fit import fit

    data = Data.load(benchmark.source("banking77"))
    with workplace() as folder:
        start = time.perf_counter()
        run = fit(data, budget=f"{seconds}s", out=folder / "run", hardware=benchmark.hardware)
        took = time.perf_counter() - start
        return {
            "asked": seconds,
            "took": took,
            "off": took / seconds - 1,
            "steps": run.happened["steps"],
            "training_seconds": run.cost["training_seconds"],
            "validation_accuracy": run.metrics["validation"]["accuracy"],
        }


def main() -> None:
    benchmark = Benchmark("budget", parts=[f"{s}s" for s in SECONDS])
    rows: list[tuple[str, ...]] = [("asked", "took", "off", "kept within 10 %", "steps")]
    for part in benchmark.parts[: 1 if benchmark.quick else None]:
        found = benchmark.measured(part, kept, benchmark, int(part[:-1]))
        kept_it = "yes" if abs(found["off"]) <= TOLERANCE else "no"
        rows.append((part, f"{found['took']:.1f}s", f"{100 * found['off']:+.1f} %", kept_it, str(found["steps"])))
    table(*rows)


if __name__ == "__main__":
    main()
