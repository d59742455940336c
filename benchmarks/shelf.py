"""Every method and head on one real data set: better than the commonest class and its own start, and the same as ONNX?

    python benchmarks/shelf.py DATA_FOLDER [--only METHOD] [--export]

sentence_polarity, a hundred labels a class, three seeds that move the rows, the order and the dropout; 60 steps of each
method's own batch, its defaults otherwise; 200 validation rows choose the checkpoint. The start is `pretrained`: the
frozen encoder with a quick regression, from which nearly all of them begin. Heads are asked on an encoder of which the
topmost block trains. A hundred labels and a minute are few: what needs more to pay is seen to lose here. Left out is
what needs a target domain or a language model's own head. With
`--export` each is also written as ONNX after five steps, and must answer 200 rows as its run does.
"""

from __future__ import annotations

from typing import Any

from measure import Benchmark, interval, percent, small, table, workplace

SEEDS = range(3)
SHOTS = 100
VALIDATION_ROWS = 200
BUDGET = "60steps"
START = "pretrained"
HEADED = "top-layers"


def shelf() -> list[str]:
    """Every method, and every head that any text can have."""
    import graftwork.heads
    import graftwork.methods  # noqa: F401
    from graftwork.choice import lookup, names
    from graftwork.head import Head
    from graftwork.method import Method

    plain = [n for n in names(Head) if lookup(Head, n).for_classes and not lookup(Head, n)().template and n != "linear"]
    return [
        START,
        *(n for n in names(Method) if n != START and _suits(lookup(Method, n))),
        *(f"{HEADED}@{n}" for n in plain),
    ]


def _spec(method: str) -> Any:
    """What a row of the table is fitted by."""
    name, _, head = method.partition("@")
    return {name: {"blocks": 1, "head": head}} if head else name


def _suits(method: Any) -> bool:
    return "target" not in method.needs and not method.model_fields["head"].default.template


def score(benchmark: Benchmark, method: str, seed: int) -> dict[str, Any]:
    """One fit, scored on the official test."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit
    from graftwork.method import recipe_of

    data = Data.load(benchmark.source("sentence_polarity"), seed=seed, shots=8 if benchmark.quick else SHOTS)
    data = small(data, VALIDATION_ROWS)
    steps = any(stage.gradient for stage in recipe_of(_spec(method)))
    with workplace() as folder:
        budget = ("2steps" if benchmark.quick else BUDGET) if steps else None
        run = fit(data, method=_spec(method), budget=budget, seed=seed, out=folder / "run", hardware=benchmark.hardware)
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

    data = small(
        Data.load(benchmark.source("sentence_polarity"), shots=10), VALIDATION_ROWS
    )  # as many as an episode takes
    budget = "5steps" if any(stage.gradient for stage in recipe_of(_spec(method))) else None
    with workplace() as folder:
        saved = Data.load(data.save(folder / "data"))  # export reads the rows again
        run = fit(saved, method=_spec(method), budget=budget, out=folder / "run", hardware=benchmark.hardware)
        gate = export(run, "onnx", out=folder / "onnx").gate
        return {"rows": gate.rows, "agreement": gate.agreement, "largest_difference": gate.largest_difference}


def main() -> None:
    every = shelf()
    benchmark = Benchmark(
        "shelf",
        parts=every,
        options=lambda parser: parser.add_argument("--export", action="store_true", help="also ask each as ONNX"),
    )
    rows: list[tuple[str, ...]] = [
        ("method", "test accuracy, %", "over the majority", "over its start", "seconds", "as ONNX")
    ]
    starts = [benchmark.measured(f"{START}, seed {s}", score, benchmark, START, s) for s in SEEDS]
    for method in benchmark.parts:
        runs = [benchmark.measured(f"{method}, seed {s}", score, benchmark, method, s) for s in SEEDS]
        found = {
            "accuracy": interval([run["accuracy"] for run in runs]),
            "over_majority": interval([run["accuracy"] - run["majority"] for run in runs]),
            "over_start": interval([a["accuracy"] - b["accuracy"] for a, b in zip(runs, starts, strict=True)]),
        }
        row = (
            method,
            *(percent(each) for each in found.values()),
            f"{sum(r['seconds'] for r in runs) / len(runs):.0f}",
        )
        if benchmark.asked.export:
            same = benchmark.measured(f"{method}, exported", exported, benchmark, method)
            found["exported"] = same["agreement"]
            row += (f"{same['agreement']:.0%} the same labels, probabilities within {same['largest_difference']:.0e}",)
        benchmark.summarise(**{method: found})
        rows.append((*row, "")[:6])
    table(*rows)


if __name__ == "__main__":
    main()
