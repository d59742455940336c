"""How well does a score that trains nothing foretell which encoder will do best once it is fine-tuned?

    python benchmarks/ranking.py DATA_FOLDER

Seven encoders are made of MiniLM by keeping some of its six blocks. On each of four data sets every one is scored by
`rank` on at most 2,000 train rows, and fine-tuned (full, 120 steps, one seed) to its accuracy on at most 1,000 test
rows. A score's worth is Spearman's rank correlation between it and those accuracies, the mean over the data sets.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from advisor import drawn
from measure import Benchmark, interval, table, workplace

DATA = ("banking77", "sentence_polarity", "csabstruct", "ag_news")
ENCODERS = ("012345", "01234", "0123", "012", "01", "024", "0145")
"""The blocks that each keeps, from the lowest (0) to the topmost (5)."""
BUDGET = "120steps"


def cut(blocks: str, folder: Path) -> Path:
    """MiniLM with these blocks alone, as a model folder."""
    from torch import nn
    from transformers import AutoModel

    from graftwork.models import resolve

    source = resolve("minilm")
    encoder = AutoModel.from_pretrained(source)
    encoder.encoder.layer = nn.ModuleList(encoder.encoder.layer[int(block)] for block in blocks)
    encoder.config.num_hidden_layers = len(blocks)
    encoder.save_pretrained(folder)
    for file in source.iterdir():
        if "token" in file.name or file.name == "vocab.txt":
            shutil.copy(file, folder / file.name)
    return folder


def measured(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """Every encoder's scores and its accuracy after fine-tuning, on one data set."""
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit
    from graftwork.rank import rank

    with workplace() as folder:
        data = drawn(benchmark, name, None)
        found = {}
        for blocks in ENCODERS[: 2 if benchmark.quick else None]:
            model = cut(blocks, folder / blocks)
            ranked = rank(data, models=[model], hardware=benchmark.hardware)[0]
            budget = "2steps" if benchmark.quick else BUDGET
            run = fit(data, model=model, budget=budget, out=folder / f"run-{blocks}", hardware=benchmark.hardware)
            test = evaluate(run, data)
            found[blocks] = {
                "scores": ranked.scores, "seconds": ranked.seconds, "accuracy": test["accuracy"],
                "fit_seconds": run.cost["seconds"],
            }  # fmt: skip
            shutil.rmtree(folder / f"run-{blocks}")
    return {"encoders": found}


def main() -> None:
    from scipy.stats import spearmanr

    benchmark = Benchmark("ranking", parts=DATA)
    parts = [benchmark.measured(name, measured, benchmark, name) for name in benchmark.parts]
    names = list(next(iter(parts[0]["encoders"].values()))["scores"])
    found = {}
    for name in names:
        each = []
        for part in parts:
            encoders = part["encoders"].values()
            each.append(float(spearmanr([e["scores"][name] for e in encoders], [e["accuracy"] for e in encoders])[0]))
        found[name] = interval(each)
    cost = float(np.mean([e["seconds"] / e["fit_seconds"] for p in parts for e in p["encoders"].values()]))
    benchmark.summarise(scores=found, data_sets=len(parts), encoders=len(ENCODERS), cost_share=cost)
    rows = [(name, *(f"{value:.2f}" for value in (found[name]["mean"], *found[name]["values"]))) for name in names]
    table(("score", "rank correlation", *benchmark.parts), *rows)
    print(f"Scoring took {cost:.1%} of the time that fine-tuning took.")


if __name__ == "__main__":
    main()
