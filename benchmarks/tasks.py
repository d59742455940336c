"""Does full fine-tuning beat the linear probe? Sentiment, multi-label emotions and named entities, three seeds each.

    python benchmarks/tasks.py DATA_FOLDER [--budget 3epochs]

Both see the same rows: the sets come with their own validation and test splits. The probe has no randomness but the
folds of its cross-validation, so its interval is that of the folds.
"""

from __future__ import annotations

from measure import Benchmark, fitted, interval, percent, table

SEEDS = (0, 1, 2)
METRIC = {"sentence_polarity": "accuracy", "goemotions": "macro_f1", "ncbi_disease": "f1"}
METHODS = ("linear-probe", "full-fine-tuning")


def main() -> None:
    benchmark = Benchmark(
        "tasks",
        parts=list(METRIC),
        options=lambda parser: parser.add_argument("--budget", help="of fine-tuning, such as 3epochs (default: fit's)"),
    )
    rows: list[tuple[str, ...]] = [("data", "metric", *METHODS, "gain", "beats it by more than the interval")]
    for name in benchmark.parts:
        found = {}
        for method in METHODS:
            runs = [
                benchmark.measured(f"{name}, {method}, seed {seed}", fitted, benchmark, name, method, seed)
                for seed in SEEDS[: 1 if benchmark.quick else None]
            ]
            found[method] = interval([run["test"][METRIC[name]] for run in runs])
        probe, tuned = (found[method] for method in METHODS)
        gain = tuned["mean"] - probe["mean"]
        spread = (tuned["half_width_95"] or 0) + (probe["half_width_95"] or 0)
        benchmark.summarise(**{name: {"metric": METRIC[name], **found, "gain": gain, "beats": gain > spread}})
        row = (name, METRIC[name], percent(probe), percent(tuned), f"{100 * gain:+.2f}", str(gain > spread))
        rows.append(row)
    table(*rows)


if __name__ == "__main__":
    main()
