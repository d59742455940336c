"""Cloze prompts with bases of our own: without a label, with a few, and with a template that was searched for.

    python benchmarks/cloze.py DATA_FOLDER [--only PART]

Sentiment of sentences (sentence_polarity, two classes), the first 1,000 rows of its test split; `graft-mini` (masked)
and `graft-mini-gpt` (causal) as they ship: they have read old books, and no film review. The four templates and
the label words were written down by what they mean, before any was tried on test.

`zero-shot` trains nothing: calibration on three texts that say nothing is all there is. Who tosses a coin is right in
50 % of 1,000 rows, with a standard deviation of 1.6 points. `few-shot` fine-tunes the masked base in the first template
on 32 labels a class, and the searches choose a prompt by the same labels; `hand-written` is the first template with
nothing but the balance of the classes fitted on them. A draw gives all of them the same labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from measure import Benchmark, few_shot, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.data import Data

TEMPLATES = (
    "{text} It was [MASK].",
    "{text} All in all, it was [MASK].",
    "{text} This is [MASK].",
    "{text} I think it is [MASK].",
)
WORDS = {"neg": ["bad", "terrible", "dull"], "pos": ["good", "great", "wonderful"]}
HEAD = {"verbalizer": {"template": TEMPLATES[0], "words": WORDS}}
MODELS = ("graft-mini", "graft-mini-gpt")
SHOTS, DRAWS, ROWS = 32, 3, 1000
FEW_SHOT = {"full-fine-tuning": {"head": HEAD}}
STEPS = "50steps"
SEARCH = {"head": HEAD, "evaluations": 24}
ALONE = {"by": "candidates", "templates": [], "found_words": 0}
METHODS: dict[str, dict[str, Any]] = {
    "few-shot": FEW_SHOT,
    "hand-written": {"prompt-search": SEARCH | ALONE},
    **{by: {"prompt-search": SEARCH | {"by": by}} for by in ("candidates", "gradient", "mutation")},
}


def score(benchmark: Benchmark, data: Data, model: str, method: dict[str, Any], seed: int) -> dict[str, Any]:
    """A fit, its accuracy on test, and the prompt that was found, where one was searched for."""
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    budget = None if "full-fine-tuning" not in method else "2steps" if benchmark.quick else STEPS
    with workplace() as folder:
        run = fit(
            data, model=model, method=method, budget=budget, seed=seed, out=folder / "run", hardware=benchmark.hardware
        )
        found = evaluate(run, data)
        searched = run.happened["stages"][0].get("found", {})
        return {
            "method": run.asked["method"], "model": model, "rows": found["n"], "accuracy": found["accuracy"],
            "macro_f1": found["macro_f1"], "seconds": run.cost["seconds"],
            **({"prompt": searched["best"][0], "tried": searched["tried"]} if searched else {}),
        }  # fmt: skip


def draw(data: Data, shots: int, rows: int, seed: int) -> Data:
    """`shots` labels a class, and the first `rows` rows of test."""
    from graftwork.data import Data

    some = few_shot(data, shots, seed)
    kept = {
        name: [{"text": text, "label": label} for text, label in zip(split.inputs(), split.labels(), strict=True)]
        for name, split in some.splits.items()
    }
    return Data.load(kept | {"test": kept["test"][:rows]})


def main() -> None:
    benchmark = Benchmark("cloze", parts=(*MODELS, *METHODS))
    from graftwork.data import Data

    whole = Data.load(benchmark.source("sentence_polarity"))
    shots, rows = (8, 60) if benchmark.quick else (SHOTS, ROWS)
    draws = [draw(whole, shots, rows, seed) for seed in range(1 if benchmark.quick else DRAWS)]
    lines = [("sentence_polarity", "model", "accuracy on test, %", "gain, points")]
    for model in MODELS:
        if model in benchmark.parts:
            lines.append(zero_shot(benchmark, draws[0], model))
    for name, method in METHODS.items():
        if name in benchmark.parts:
            lines.append(with_labels(benchmark, draws, name, method))
    table(*lines)


def zero_shot(benchmark: Benchmark, data: Data, model: str) -> tuple[str, ...]:
    """Every template without a label, against chance."""
    found = []
    for template in TEMPLATES:
        head = {"verbalizer": {"template": template, "words": WORDS}}
        part = f"{model}, {template}"
        found.append(benchmark.measured(part, score, benchmark, data, model, {"pretrained": {"head": head}}, 0))
    accuracy = interval([each["accuracy"] for each in found])
    deviation = (0.25 / found[0]["rows"]) ** 0.5
    deviations = [(each["accuracy"] - 0.5) / deviation for each in found]
    benchmark.summarise(**{f"{model}, zero-shot": {"accuracy": accuracy, "deviations_above_chance": deviations}})
    above = ", ".join(f"{each:.1f}" for each in deviations)
    return (f"zero-shot, {len(found)} templates", model, percent(accuracy), f"sd above chance: {above}")


def with_labels(benchmark: Benchmark, draws: list[Data], name: str, method: dict[str, Any]) -> tuple[str, ...]:
    """A method on each draw of labels; its gain on the first template without a label, or with the same labels."""
    pairs = []
    for seed, data in enumerate(draws):
        found = benchmark.measured(f"{name}, draw {seed}", score, benchmark, data, MODELS[0], method, seed)
        base, key = METHODS["hand-written"], f"hand-written, draw {seed}"
        if name in ("few-shot", "hand-written"):
            base, key = {"pretrained": {"head": HEAD}}, f"{MODELS[0]}, {TEMPLATES[0]}"
        pairs.append(
            (found["accuracy"], benchmark.measured(key, score, benchmark, data, MODELS[0], base, seed)["accuracy"])
        )
    accuracy, gain = interval([own for own, _ in pairs]), interval([own - other for own, other in pairs])
    over = "zero-shot" if name in ("few-shot", "hand-written") else "hand-written"
    benchmark.summarise(**{name: {"accuracy": accuracy, f"gain_over_{over}": gain}})
    return (f"{name}, {len(pairs)} draws", MODELS[0], percent(accuracy), f"{percent(gain)} over {over}")


if __name__ == "__main__":
    main()
