"""Few-shot methods on BANKING77, ten texts a class: at the same steps, which one makes most of them?

    python benchmarks/fewshot.py DATA_FOLDER [--only METHOD]

Ten draws of ten train rows a class; five others a class are validation, by which each run chooses its checkpoint. With
class names each class has one more train text, its name as words (`--class-names`). Defaults and class names were
looked at on other draws, scored on the train rows that these left, never on the test split.
Published, with encoders five to fifteen times as large: DNNC 86.7, CPFT 87.2 (Zhang et al. 2021).
"""

from __future__ import annotations

from typing import Any

from measure import Benchmark, few_shot, interval, percent, table, workplace

NAMED = ", class names"
METHODS = (
    "linear-probe", f"linear-probe{NAMED}", "supervised-contrastive", f"supervised-contrastive{NAMED}",
    "full-fine-tuning", "multiple-negatives", "siamese", "triplet",
)  # fmt: skip
DRAWS = 10
BUDGET = "120steps"


def score(benchmark: Benchmark, method: str, draw: int) -> dict[str, Any]:
    """One draw, fitted and scored on the official test."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    whole = Data.load(benchmark.source("banking77"), validation=0.02)
    data = few_shot(whole, 2 if benchmark.quick else 10, seed=draw)
    if method.endswith(NAMED):
        method, data = method.removesuffix(NAMED), data.with_class_names()
    with workplace() as folder:
        budget = None if method == "linear-probe" else "3steps" if benchmark.quick else BUDGET
        run = fit(data, method=method, budget=budget, seed=draw, out=folder / "run", hardware=benchmark.hardware)
        found = evaluate(run, data)
        return {
            "draw": draw, "train_rows": len(data["train"]), "seconds": run.cost["seconds"],
            "best_step": run.happened["best_step"], "accuracy": found["accuracy"], "macro_f1": found["macro_f1"],
        }  # fmt: skip


def main() -> None:
    benchmark = Benchmark("fewshot", parts=METHODS)
    rows: list[tuple[str, ...]] = [("BANKING77, 10-shot", "test accuracy, %", "gain on the probe", "draws")]
    for method in benchmark.parts:
        draws = range(1 if benchmark.quick else DRAWS)
        runs = [benchmark.measured(f"{method}, draw {draw}", score, benchmark, method, draw) for draw in draws]
        probes = [
            benchmark.measured(f"linear-probe, draw {draw}", score, benchmark, "linear-probe", draw) for draw in draws
        ]
        accuracy = interval([run["accuracy"] for run in runs])
        gain = interval([run["accuracy"] - probe["accuracy"] for run, probe in zip(runs, probes, strict=True)])
        benchmark.summarise(**{method: {"accuracy": accuracy, "gain": gain}})
        rows.append((method, percent(accuracy), percent(gain), str(len(runs))))
    table(*rows)


if __name__ == "__main__":
    main()
