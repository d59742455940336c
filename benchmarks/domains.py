"""From reviews of one kind of product to another: what does each way of adapting bring, and is the shift a hint?

    python benchmarks/domains.py DATA_FOLDER

amazon_multidomain, all 12 ordered pairs of 4 domains. Of the source 400 train rows have labels, and its validation is
what the best weights are chosen by; of the target 400 train texts are known, without labels; its official test is read
once. Each text is cut to its first 32 words. MiniLM's topmost block trains, the rest is frozen, for 48 steps of 16
rows, which a recipe of two stages shares; continued pretraining takes 48 steps of its own before, with the whole
encoder. `in the target` learns from 400 labelled rows of the target itself. Rows are drawn anew for each seed.

Gains are over `source only`, paired by pair and seed; intervals are over the 12 pairs, each the mean of its seeds. As
pairs share domains, these intervals are somewhat too narrow.
"""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

from measure import Benchmark, interval, percent, table, workplace

DOMAINS = ("books", "dvd", "electronics", "kitchen")
PAIRS = tuple(itertools.permutations(DOMAINS, 2))
SEEDS = range(3)
ROWS, WORDS = 400, 32
STEPS = 48
OWN = {"blocks": 1, "batch_size": 16}
TOP: dict[str, Any] = {"top-layers": OWN}
METHODS: dict[str, list[Any]] = {
    "source only": [TOP],
    "dann": [{"dann": OWN | {"layer_decay": 1.0}}],
    "coral": [{"coral": OWN | {"layer_decay": 1.0}}],
    "domain stacking": [TOP, {"domain-stacking": {"batch_size": 16}}],
    "pseudo-labels": [TOP, {"pseudo-labels": OWN | {"layer_decay": 1.0}}],
    "importance sampling": [{"top-layers": OWN | {"modifiers": ["importance-sampling"]}}],
    "continued pretraining": [TOP],
}
ORACLE = "in the target"


def parts() -> list[str]:
    """Every part: a pair's shift, and each method on a pair, or in a target, with a seed; all of one seed first."""
    found = [f"{source} to {target}, shift" for source, target in PAIRS]
    for seed in SEEDS:
        for source, target in PAIRS:
            found += [f"{source} to {target}, {method}, seed {seed}" for method in METHODS]
        found += [f"{ORACLE}, {target}, seed {seed}" for target in DOMAINS]
    return found


class Domains:
    """The data, and what is made once for several parts."""

    def __init__(self, benchmark: Benchmark, folder: Path):
        self.benchmark, self.folder = benchmark, folder
        self.rows = 40 if benchmark.quick else ROWS
        self.steps = 2 if benchmark.quick else STEPS
        self.hardware = benchmark.hardware

    def measured(self, part: str) -> dict[str, Any]:
        """What a part comes to."""
        if part.endswith(", shift"):
            return self.shift(*part.removesuffix(", shift").split(" to "))
        what, _, seed = part.rpartition(", seed ")
        if what.startswith(ORACLE):
            target = what.removeprefix(f"{ORACLE}, ")
            return self.fitted(target, target, "source only", int(seed))
        pair, method = what.split(", ", 1)
        return self.fitted(*pair.split(" to "), method, int(seed))

    def shift(self, source: str, target: str) -> dict[str, Any]:
        """The measures of the first seed's rows."""
        from graftwork.shift import shift

        return shift(self.data(source, target, 0), hardware=self.hardware).as_dict()

    def fitted(self, source: str, target: str, method: str, seed: int) -> dict[str, Any]:
        """A method on a pair: accuracy on the target's test, and on the source's validation."""
        from graftwork.evaluate import evaluate
        from graftwork.fit import fit

        data, recipe = self.data(source, target, seed), METHODS[method]
        run = fit(
            data, method=recipe, model=self.base(target, seed) if method.startswith("continued") else "minilm",
            budget=f"{self.steps}steps", seed=seed, out=self.folder / "run", force=True,
            hardware=self.hardware,
        )  # fmt: skip
        stages = [stage.get("found", {}) for stage in run.happened["stages"]]
        told = [found["pseudo_labels"] for found in stages if "pseudo_labels" in found]
        return {
            "target_accuracy": evaluate(run, data)["accuracy"],
            "source_validation_accuracy": run.metrics["validation"]["accuracy"], "seconds": run.cost["seconds"],
        } | ({"pseudo_labels": told[0]} if told else {})  # fmt: skip

    def base(self, target: str, seed: int) -> Path:
        """MiniLM after as many steps of masked language modelling on the target's texts, made once."""
        from graftwork.pretrain import pretrain

        out = self.folder / f"base-{target}-{seed}"
        if not (out / "model").is_dir():
            texts = self.folder / f"{target}-{seed}"
            texts.mkdir(exist_ok=True)
            rows = [json.dumps({"text": row["text"]}) + "\n" for row in self.drawn(target, seed)]
            kept = len(rows) // 20 + 4
            (texts / "train.jsonl").write_text("".join(rows[kept:]), encoding="utf-8")
            (texts / "validation.jsonl").write_text("".join(rows[:kept]), encoding="utf-8")
            pretrain(
                texts, model="minilm", length=64, budget=f"{self.steps}steps", batch_size=16, seed=seed, out=out,
                hardware=self.hardware,
            )  # fmt: skip
        return out

    def data(self, source: str, target: str, seed: int) -> Any:
        """The pair's data; in a target of its own nothing is unlabelled."""
        from graftwork.data import Data

        splits = {
            "train": self.drawn(source, seed), "validation": self.read(source, "validation"),
            "test": self.read(target, "test"),
        }  # fmt: skip
        texts = None if source == target else {"train": [{"text": row["text"]} for row in self.drawn(target, seed)]}
        return Data.load(splits, target=texts, text="text", label="label")

    def drawn(self, domain: str, seed: int) -> list[dict[str, str]]:
        """Some of its train rows."""
        import numpy as np

        whole = self.read(domain, "train")
        return [whole[i] for i in np.random.default_rng(seed).permutation(len(whole))[: self.rows]]

    def read(self, domain: str, split: str) -> list[dict[str, str]]:
        """Texts and labels."""
        file = self.benchmark.source("amazon_multidomain") / domain / f"{split}.csv"
        with file.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))[: 40 if self.benchmark.quick else None]
        return [{"text": " ".join(row["text"].split()[:WORDS]), "label": row["label"]} for row in rows]


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Of each method the accuracy and the gain over the pairs that are finished, and how gains go with the shift."""
    from scipy import stats

    told: dict[str, Any] = {}
    plain = {pair: _means(found, pair, "source only") for pair in PAIRS}
    for method in [*METHODS, ORACLE]:
        scores, gains, distances = [], [], []
        for pair in PAIRS:
            own = _means(found, pair, method)
            both = sorted(own.keys() & plain[pair].keys())
            if both:
                scores.append(sum(own[s] for s in both) / len(both))
                gains.append(sum(own[s] - plain[pair][s] for s in both) / len(both))
                distances.append(found.get("{} to {}, shift".format(*pair), {}).get("distance"))
        if not scores:
            continue
        told[method] = {"accuracy": interval(scores), "gain": interval(gains)}
        if len(gains) > 3 and None not in distances and len(set(gains)) > 1:
            told[method]["rank_correlation_of_gain_and_distance"] = float(stats.spearmanr(distances, gains).statistic)
    return told


def _means(found: dict[str, Any], pair: tuple[str, str], method: str) -> dict[int, float]:
    """The accuracy of each finished seed."""
    source, target = pair
    name = f"{ORACLE}, {target}" if method == ORACLE else f"{source} to {target}, {method}"
    return {s: found[key]["target_accuracy"] for s in SEEDS if (key := f"{name}, seed {s}") in found}


def main() -> None:
    benchmark = Benchmark("domains", parts=parts())
    wanted = [p for p in benchmark.parts if p.startswith("books to dvd") and "seed 1" not in p and "seed 2" not in p]
    with workplace() as folder:
        domains = Domains(benchmark, folder)
        for part in wanted if benchmark.quick else benchmark.parts:
            benchmark.measured(part, domains.measured, part)
            benchmark.summarise(**summary(benchmark.entries()))
    rows: list[tuple[str, ...]] = [("method", "target accuracy, %", "gain, points", "gain and shift: rank correlation")]
    for method, said in summary(benchmark.entries()).items():
        related = said.get("rank_correlation_of_gain_and_distance")
        rows.append((
            method, percent(said["accuracy"]), percent(said["gain"]) if method != "source only" else "",
            "" if related is None else f"{related:+.2f}",
        ))  # fmt: skip
    table(*rows)


if __name__ == "__main__":
    main()
