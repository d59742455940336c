"""Cloze prompts with bases of our own: without a label, with a few, and with a template that was searched for.

    python benchmarks/cloze.py DATA_FOLDER [--only PART]

Sentiment of sentences (sentence_polarity, two classes, the first 1,000 test rows) and topics of news (ag_news, four,
the first 300), by `graft-mini` (masked) and `graft-mini-gpt` (causal) as they ship: they have read old books, no film
review and no news. Templates and label words were written down by what they mean, before any was tried on test.

`zero-shot` trains nothing: calibration on three texts that say nothing is all there is. Who guesses is right in one of
k rows, with the standard deviation of so many tosses. `few-shot` fine-tunes the masked base in the first template on 32
labels a class. On sentiment, searches choose a prompt by the same labels; `hand-written` is the first template with
nothing but the balance of the classes fitted on them. A draw gives all of them the same labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from measure import Benchmark, few_shot, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.data import Data

MASKED, CAUSAL = "graft-mini", "graft-mini-gpt"
SENTIMENT, TOPICS = "sentence_polarity", "ag_news"
TEMPLATES = {
    SENTIMENT: (
        "{text} It was [MASK].",
        "{text} All in all, it was [MASK].",
        "{text} This is [MASK].",
        "{text} I think it is [MASK].",
    ),
    TOPICS: ("{text} This is about [MASK].", "{text} It is a matter of [MASK]."),
}
WORDS = {
    SENTIMENT: {"neg": ["bad", "terrible", "dull"], "pos": ["good", "great", "wonderful"]},
    TOPICS: {
        "Business": ["business", "trade", "money"],
        "Sci/Tech": ["science", "machines", "knowledge"],
        "Sports": ["sport", "game", "play"],
        "World": ["war", "government", "politics"],
    },
}
ROWS = {SENTIMENT: 1000, TOPICS: 300}
SHOTS, DRAWS, STEPS = 32, 3, "20steps"
SEARCHES: dict[str, dict[str, Any]] = {
    "hand-written": {"by": "candidates", "templates": [], "found_words": 0},
    **{by: {"by": by, "evaluations": 14} for by in ("candidates", "gradient", "mutation")},
}
PARTS = ("zero-shot", "few-shot", "search", "topics", "causal")


def head(name: str, template: str | None = None) -> dict[str, Any]:
    return {"verbalizer": {"template": template or TEMPLATES[name][0], "words": WORDS[name]}}


def few_shot_of(name: str) -> dict[str, Any]:
    return {"full-fine-tuning": {"head": head(name), "batch_size": 16}}


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


def draws_of(benchmark: Benchmark, name: str) -> list[Data]:
    """Some labels a class each, and the first rows of test."""
    from graftwork.data import Data

    whole = Data.load(benchmark.source(name))
    shots, rows = (8, 60) if benchmark.quick else (SHOTS, ROWS[name])
    drawn = []
    for seed in range(1 if benchmark.quick else DRAWS):
        kept = {
            split: [{"text": text, "label": label} for text, label in zip(s.inputs(), s.labels(), strict=True)]
            for split, s in few_shot(whole, shots, seed).splits.items()
        }
        drawn.append(Data.load(kept | {"test": kept["test"][:rows]}))
    return drawn


def main() -> None:
    benchmark = Benchmark("cloze", parts=PARTS)
    lines = [("data", "what", "accuracy on test, %", "gain")]
    draws = draws_of(benchmark, SENTIMENT)
    if "zero-shot" in benchmark.parts:
        lines.append(zero_shot(benchmark, draws[0], SENTIMENT, MASKED))
    if "few-shot" in benchmark.parts:
        lines.append(with_labels(benchmark, draws, SENTIMENT, "few-shot", few_shot_of(SENTIMENT), "zero-shot"))
    if "search" in benchmark.parts:
        for by, fields in SEARCHES.items():
            method = {"prompt-search": {"head": head(SENTIMENT)} | fields}
            over = "zero-shot" if by == "hand-written" else "hand-written"
            lines.append(with_labels(benchmark, draws, SENTIMENT, by, method, over))
    if "topics" in benchmark.parts:
        draws_of_topics = draws_of(benchmark, TOPICS)
        lines.append(zero_shot(benchmark, draws_of_topics[0], TOPICS, MASKED))
        lines.append(with_labels(benchmark, draws_of_topics, TOPICS, "few-shot", few_shot_of(TOPICS), "zero-shot"))
    if "causal" in benchmark.parts:
        lines.append(zero_shot(benchmark, draws[0], SENTIMENT, CAUSAL))
    table(*lines)


def without_labels(benchmark: Benchmark, data: Data, name: str, model: str, template: str) -> dict[str, Any]:
    """One template without a label."""
    method = {"pretrained": {"head": head(name, template)}}
    return benchmark.measured(f"{name}, {model}, {template}", score, benchmark, data, model, method, 0)


def zero_shot(benchmark: Benchmark, data: Data, name: str, model: str) -> tuple[str, ...]:
    """Every template without a label, against chance."""
    found = [without_labels(benchmark, data, name, model, template) for template in TEMPLATES[name]]
    accuracy, chance = interval([each["accuracy"] for each in found]), 1 / len(WORDS[name])
    deviation = (chance * (1 - chance) / found[0]["rows"]) ** 0.5
    above = [(each["accuracy"] - chance) / deviation for each in found]
    summary = {"accuracy_over_templates": accuracy, "chance": chance, "deviations_above_chance": above}
    benchmark.summarise(**{f"{name}, {model}, zero-shot": summary})
    said = f"sd above chance: {', '.join(f'{each:.1f}' for each in above)}"
    return (name, f"zero-shot, {model}, {len(found)} templates", percent(accuracy), said)


def with_labels(
    benchmark: Benchmark, draws: list[Data], name: str, what: str, method: dict[str, Any], over: str
) -> tuple[str, ...]:
    """A method on each draw of labels, and its gain on the first template without a label, or with the same labels."""
    own = [
        benchmark.measured(f"{name}, {what}, draw {seed}", score, benchmark, data, MASKED, method, seed)["accuracy"]
        for seed, data in enumerate(draws)
    ]
    if over == "zero-shot":
        others = [without_labels(benchmark, draws[0], name, MASKED, TEMPLATES[name][0])["accuracy"]] * len(own)
    else:
        others = [benchmark.entries()[f"{name}, {over}, draw {seed}"]["accuracy"] for seed in range(len(own))]
    accuracy, gain = interval(own), interval([one - other for one, other in zip(own, others, strict=True)])
    benchmark.summarise(**{f"{name}, {what}": {"accuracy": accuracy, f"gain_over_{over}": gain}})
    return (name, f"{what}, {len(own)} draws", percent(accuracy), f"{percent(gain)} points over {over}")


if __name__ == "__main__":
    main()
