"""One class a hundred times as frequent as the other: what does each remedy bring, on a frozen encoder?

    python benchmarks/imbalance.py DATA_FOLDER

sentence_polarity, of whose positive train rows one in a hundred of the negative ones is kept, drawn anew for each of
five seeds. Validation is cut from what is left, so it is as skewed as train, as a user's would be; the official test,
half and half, is read once. Remedies go with a linear probe, and those that act on steps with a side network. Gains are
over the same method without a remedy, paired by seed.
"""

from __future__ import annotations

from typing import Any

from measure import Benchmark, interval, percent, table, workplace

SEEDS = range(3)
RATIO = 100
PROBE = (
    "linear-probe", "linear-probe:class-weights", "linear-probe:over-sampling", "linear-probe:under-sampling",
    "linear-probe:smote", "linear-probe:threshold-moving",
)  # fmt: skip
SIDE = (
    "side-network", "side-network:class-weights", "side-network:focal-loss", "side-network:logit-adjustment",
    "side-network:over-sampling", "side-network:under-sampling", "side-network:threshold-moving",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    f"{method}:class-weights, effective number": {method: {"modifiers": [{"class-weights": {"kind": "effective"}}]}}
    for method in ("linear-probe", "side-network")
} | {
    f"linear-probe:smote, {kind}": {"linear-probe": {"modifiers": [{"smote": {"kind": kind}}]}}
    for kind in ("borderline-1", "svm", "adasyn")
}
BUDGET = "300steps"


def scores(benchmark: Benchmark, seed: int) -> dict[str, Any]:
    """Every recipe on one draw, fitted and scored on the official test."""
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    data = skewed(benchmark, seed)
    found: dict[str, Any] = {"train_rows": dict(data["train"].counts)}
    with workplace() as folder:
        for number, name in enumerate(recipes()):
            budget = None if name.startswith("linear") else "3steps" if benchmark.quick else BUDGET
            run = fit(
                data, method=SETTINGS.get(name, name), budget=budget, seed=seed, out=folder / str(number),
                hardware=benchmark.hardware,
            )  # fmt: skip
            metrics = evaluate(run, data)
            found[name] = {key: metrics[key] for key in ("macro_f1", "accuracy")} | {"seconds": run.cost["seconds"]}
    return found


def recipes() -> list[str]:
    """Every recipe by its name, those without a remedy first of their kind."""
    return [*PROBE, *(n for n in SETTINGS if n.startswith("linear")), *SIDE, *(n for n in SETTINGS if "side" in n)]


def skewed(benchmark: Benchmark, seed: int) -> Any:
    """The data with one positive train row for a hundred negative ones."""
    import numpy as np

    from graftwork.data import Data

    whole = Data.load(benchmark.source("sentence_polarity"), limit=600 if benchmark.quick else None)
    pool = [row for name in ("train", "validation") for row in _rows(whole[name])]
    labels = np.array([row["label"] for row in pool])
    many, few = sorted(whole.labels, key=lambda label: "pos" in label.lower())
    generator = np.random.default_rng(seed)
    frequent, rare = (generator.permutation(np.flatnonzero(labels == label)) for label in (many, few))
    kept = [*frequent, *rare[: max(len(frequent) // RATIO, 8)]]
    return Data.load({"train": [pool[i] for i in kept], "test": _rows(whole["test"])}, validation=0.2, seed=seed)


def _rows(split: Any) -> list[dict[str, str]]:
    return [{"text": t, "label": label} for t, label in zip(split.inputs(), split.labels(), strict=True)]


def main() -> None:
    benchmark = Benchmark("imbalance", parts=[f"seed {s}" for s in SEEDS])
    runs = [benchmark.measured(part, scores, benchmark, int(part.split()[1])) for part in benchmark.parts]
    rows: list[tuple[str, ...]] = [("recipe", "macro F1, %", "gain, points")]
    for name in recipes():
        plain = "linear-probe" if name.startswith("linear") else "side-network"
        found = interval([run[name]["macro_f1"] for run in runs])
        gain = interval([run[name]["macro_f1"] - run[plain]["macro_f1"] for run in runs])
        benchmark.summarise(**{name: {"macro_f1": found, "gain": gain}})
        rows.append((name, percent(found), "" if name == plain else percent(gain)))
    table(*rows)


if __name__ == "__main__":
    main()
