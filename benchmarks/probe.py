"""BANKING77, LinearProbe, official test: 10 and 30 examples a class, and the full train split.

    python benchmarks/probe.py DATA_FOLDER

The probe chooses its C by cross-validation on train; validation decides nothing but the temperature, which does not
change which class is most probable. So the validation split is kept small: five rows a class beside a few-shot draw,
2 % of train in the full setting.
"""

from __future__ import annotations

from typing import Any

from measure import Benchmark, few_shot, interval, percent, table, workplace

DRAWS = {"10-shot": 10, "30-shot": 5, "full": 1}
REACH = {"10-shot": (84.5, 85.4), "30-shot": (89.5, 90.0), "full": (92.3, 92.9)}


def score(benchmark: Benchmark, part: str, draw: int) -> dict[str, Any]:
    """One draw, fitted and scored on the official test."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    data = Data.load(benchmark.source("banking77"), validation=0.02)
    if part != "full":
        data = few_shot(data, 2 if benchmark.quick else int(part.removesuffix("-shot")), seed=draw)
    elif benchmark.quick:
        data = Data.load(benchmark.source("banking77"), validation=0.02, limit=300)
    with workplace() as folder:
        run = fit(data, method="linear-probe", out=folder / "run", hardware=benchmark.hardware)
        found = evaluate(run, data)
        seconds = run.cost["seconds"]
    kept = {key: found[key] for key in ("accuracy", "macro_f1", "ece")}
    return {"draw": draw, "train_rows": len(data["train"]), "seconds": seconds, **kept}


def main() -> None:
    benchmark = Benchmark("probe", parts=list(DRAWS))
    rows: list[tuple[str, ...]] = [("BANKING77, LinearProbe", "test accuracy, %", "at least", "aim", "draws")]
    for part in benchmark.parts:
        draws = range(1 if benchmark.quick else DRAWS[part])
        runs = [benchmark.measured(f"{part}, draw {draw}", score, benchmark, part, draw) for draw in draws]
        least, aim = REACH[part]
        accuracy = interval([r["accuracy"] for r in runs])
        benchmark.summarise(**{part: accuracy})
        rows.append((part, percent(accuracy), str(least), str(aim), str(len(runs))))
    table(*rows)


if __name__ == "__main__":
    main()
