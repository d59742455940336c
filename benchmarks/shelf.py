"""Every method and head on one real data set: better than the commonest class and its own start, and the same as ONNX?

    python benchmarks/shelf.py DATA_FOLDER [--only METHOD]

sentence_polarity, a hundred labels a class, three seeds that move the rows, the order and the dropout; 60 steps of each
method's own batch, its defaults otherwise; 200 validation rows choose the checkpoint. The start is `pretrained`: the
frozen encoder with a quick regression, from which nearly all of them begin. A hundred labels and a minute are few: what
needs more to pay is seen to lose here.
"""

from __future__ import annotations

from typing import Any

from measure import Benchmark, interval, percent, small, table, workplace

SEEDS = range(3)
SHOTS = 100
VALIDATION_ROWS = 200
BUDGET = "60steps"
START = "pretrained"


def shelf() -> list[str]:
    """Every method, and full fine-tuning with every head that any text can have."""
    import graftwork.heads
    import graftwork.methods  # noqa: F401
    from graftwork.choice import lookup, names
    from graftwork.head import Head
    from graftwork.method import Method

    plain = [n for n in names(Head) if lookup(Head, n).for_classes and not lookup(Head, n)().template and n != "linear"]
    return [
        START,
        *(n for n in names(Method) if n != START and "target" not in lookup(Method, n).needs),
        *(f"full-fine-tuning@{n}" for n in plain),
    ]


def score(benchmark: Benchmark, method: str, seed: int) -> dict[str, Any]:
    """One fit, scored on the official test."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit
    from graftwork.method import recipe_of

    data = Data.load(benchmark.source("sentence_polarity"), seed=seed, shots=8 if benchmark.quick else SHOTS)
    data = small(data, VALIDATION_ROWS)
    steps = any(stage.gradient for stage in recipe_of(method))
    with workplace() as folder:
        budget = ("2steps" if benchmark.quick else BUDGET) if steps else None
        run = fit(data, method=method, budget=budget, seed=seed, out=folder / "run", hardware=benchmark.hardware)
        found = evaluate(run, data)
        return {
            "accuracy": found["accuracy"], "majority": max(data["test"].counts.values()) / len(data["test"]),
            "seconds": run.cost["seconds"], "trained_parameters": run.cost["trained_parameters"],
        }  # fmt: skip


def exported(benchmark: Benchmark, method: str) -> dict[str, Any]:
    """After few steps: does the model that was saved, loaded and written as ONNX answer validation as the run does?"""
    from graftwork.data import Data
    from graftwork.export import export
    from graftwork.fit import fit
    from graftwork.method import recipe_of

    data = small(Data.load(benchmark.source("sentence_polarity"), shots=8), VALIDATION_ROWS)
    budget = "5steps" if any(stage.gradient for stage in recipe_of(method)) else None
    with workplace() as folder:
        saved = Data.load(data.save(folder / "data"))  # export reads the rows again
        run = fit(saved, method=method, budget=budget, out=folder / "run", hardware=benchmark.hardware)
        gate = export(run, "onnx", out=folder / "onnx").gate
        return {"rows": gate.rows, "agreement": gate.agreement, "largest_difference": gate.largest_difference}


def main() -> None:
    every = shelf()
    benchmark = Benchmark("shelf", parts=every)
    rows: list[tuple[str, ...]] = [
        (
            "method",
            "test accuracy, %",
            "over the majority",
            "over its start",
            "seconds",
            "as ONNX: labels, probabilities",
        )
    ]
    starts = [benchmark.measured(f"{START}, seed {s}", score, benchmark, START, s) for s in SEEDS]
    for method in benchmark.parts:
        runs = [benchmark.measured(f"{method}, seed {s}", score, benchmark, method, s) for s in SEEDS]
        accuracy = interval([run["accuracy"] for run in runs])
        gain = interval([run["accuracy"] - run["majority"] for run in runs])
        further = interval([run["accuracy"] - start["accuracy"] for run, start in zip(runs, starts, strict=True)])
        seconds = sum(run["seconds"] for run in runs) / len(runs)
        other = benchmark.measured(f"{method}, exported", exported, benchmark, method)
        found = {"accuracy": accuracy, "over_majority": gain, "over_start": further, "exported": other["agreement"]}
        benchmark.summarise(**{method: found})
        same = f"{other['agreement']:.0%} equal, apart by {other['largest_difference']:.0e}"
        rows.append((method, percent(accuracy), percent(gain), percent(further), f"{seconds:.0f}", same))
    table(*rows)


if __name__ == "__main__":
    main()
