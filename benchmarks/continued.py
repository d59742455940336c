"""Reading a domain's plain text before learning its task: what does it bring, and what is forgotten over it?

    python benchmarks/continued.py DATA_FOLDER

`unlabelled_cs`, then the roles of sentences in `csabstruct`; `unlabelled_biomed`, then the relations of `chemprot`.
From graft-mini, which read old books, and from MiniLM, which gets a masked head first. The same fit, 200 steps of full
fine-tuning on 500 labelled rows drawn anew for each seed, follows 300 steps of reading or none; checkpoints are chosen
on 300 rows of validation, scores are accuracy on the official test (`test_clean` of csabstruct, without the abstracts
that also stand in train). Texts of train that the corpus holds are the task's own, as in TAPT (Gururangan et al. 2020).

Gains are paired by seed. Forgetting is the masked loss on books (`corpus`) before and after, and the cosine of their
embeddings; MiniLM has no head to be asked with before. Reading takes steps of its own, so this is no race at one
budget. Rows of a class that none of the drawn ones has are left out of validation and test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from measure import Benchmark, interval, percent, table, workplace

TASKS = {"csabstruct": "unlabelled_cs", "chemprot": "unlabelled_biomed"}
MODELS = ("graft-mini", "minilm")
SEEDS = range(3)
ROWS, VALIDATION_ROWS, WORDS = 500, 300, 60
READING, STEPS = 300, 200
GENERAL = 300  # passages of books


def parts() -> list[str]:
    """One a model, task and seed; the first seed of all first."""
    return [f"{model}, {task}, seed {seed}" for seed in SEEDS for model in MODELS for task in TASKS]


def measured(benchmark: Benchmark, part: str) -> dict[str, Any]:
    """Accuracy without and with reading, and what reading did to books and to the domain's own texts."""
    from graftwork.pretrain import pretrain

    model, task, seed = part.split(", ")
    number = int(seed.removeprefix("seed "))
    steps = 2 if benchmark.quick else READING
    with workplace() as folder:
        base = pretrain(
            benchmark.source(TASKS[task]), model=model, column="text", budget=f"{steps}steps", batch_size=16,
            seed=number, out=folder / "base", hardware=benchmark.hardware,
        )  # fmt: skip
        found: dict[str, Any] = {
            "before": accuracy(benchmark, task, model, number, folder / "before"),
            "after": accuracy(benchmark, task, base.path, number, folder / "after"),
            "reading_seconds": base.cost["seconds"],
        }
        for name in ("corpus", TASKS[task]):
            texts = passages(benchmark, name)
            found |= {f"{key}, {name}": value for key, value in changed(model, base.path, texts).items()}
        return found


def accuracy(benchmark: Benchmark, task: str, model: str | Path, seed: int, out: Path) -> float:
    """On the official test, after fine-tuning."""
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    data = drawn(benchmark, task, seed)
    run = fit(
        data, model=model, budget=f"{2 if benchmark.quick else STEPS}steps", seed=seed, out=out,
        hardware=benchmark.hardware,
    )  # fmt: skip
    return float(evaluate(run, data)["accuracy"])


def changed(model: str, base: Path, texts: list[str]) -> dict[str, float | None]:
    """The masked loss before and after, and the mean cosine of embeddings."""
    import numpy as np

    from graftwork.hardware import Hardware
    from graftwork.language import language_model
    from graftwork.models import resolve
    from graftwork.shift import embedded, masked_loss, texts_model

    languages = [language_model(resolve(each), "masked") for each in (model, base)]
    before, after = (None if each.head.fresh else masked_loss(each, texts) for each in languages)
    old, new = (embedded(texts_model(resolve(each), Hardware()), texts) for each in (model, base))
    cosines = (old * new).sum(1) / (np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1))
    return {"loss before": before, "loss after": after, "similarity": float(cosines.mean())}


def passages(benchmark: Benchmark, name: str) -> list[str]:
    """Some of the texts that pretraining holds out."""
    import itertools

    from graftwork.corpus import Corpus

    column = None if name == "corpus" else "text"
    held = (text for text, _ in Corpus(benchmark.source(name), column).passages("validation"))
    return [" ".join(text.split()[:WORDS]) for text in itertools.islice(held, 20 if benchmark.quick else GENERAL)]


def drawn(benchmark: Benchmark, task: str, seed: int) -> Any:
    """Some train rows of this seed; validation and test are the same for all."""
    import numpy as np

    from graftwork.data import Data

    folder = benchmark.source(task)
    rows: dict[str, list[dict[str, str]]] = {}
    for name in ("train", "validation", "test"):
        clean = folder / f"{name}_clean.csv"
        file = clean if clean.is_file() else folder / f"{name}.csv"
        whole = Data.load(str(file), text="text", label="label", validation=0, test=0)["train"]
        rows[name] = [
            {"text": " ".join(text.split()[:WORDS]), "label": label}
            for text, label in zip(whole.inputs(), whole.labels(), strict=True)
        ]
    order = np.random.default_rng(seed).permutation(len(rows["train"]))
    rows["train"] = [rows["train"][i] for i in order[: 60 if benchmark.quick else ROWS]]
    known = {row["label"] for row in rows["train"]}
    for name in ("validation", "test"):
        rows[name] = [row for row in rows[name] if row["label"] in known]
    rows["validation"] = rows["validation"][:: max(1, len(rows["validation"]) // VALIDATION_ROWS)]
    if benchmark.quick:
        rows["test"] = rows["test"][:40]
    return Data.load(rows, text="text", label="label")


def main() -> None:
    benchmark = Benchmark("continued", parts=parts())
    for part in benchmark.parts[:1] if benchmark.quick else benchmark.parts:
        benchmark.measured(part, measured, benchmark, part)
    rows: list[tuple[str, ...]] = [
        ("model, task", "without, %", "after reading, %", "gain", "nats on books, before/after")
    ]
    for model in MODELS:
        for task in TASKS:
            name = f"{model}, {task}"
            runs = [entry for part, entry in benchmark.entries().items() if part.startswith(f"{name}, ")]
            if not runs:
                continue
            told = {
                "before": interval([run["before"] for run in runs]), "after": interval([run["after"] for run in runs]),
                "gain": interval([run["after"] - run["before"] for run in runs]),
            }  # fmt: skip
            for key in ("loss before, corpus", "loss after, corpus", "similarity, corpus"):
                if runs[0][key] is not None:
                    told[key] = interval([run[key] for run in runs])
            benchmark.summarise(**{name: told})
            losses = [
                told[key]["mean"] if key in told else None for key in ("loss before, corpus", "loss after, corpus")
            ]
            rows.append((
                name, percent(told["before"]), percent(told["after"]), percent(told["gain"]),
                " / ".join("-" if loss is None else f"{loss:.2f}" for loss in losses),
            ))  # fmt: skip
    table(*rows)


if __name__ == "__main__":
    main()
