"""Does meta-learning teach an encoder to tell apart classes that it has never seen, from five rows of each?

    python benchmarks/meta.py DATA_FOLDER [--budget 100steps] [--only METHOD]

BANKING77, 50 classes to train on and 27 held out, drawn anew for each seed. Every method trains from MiniLM on the
train rows of the 50 with its defaults and the same number of optimizer steps; then nothing is trained any more: on 600
episodes of the held-out classes (rows of the official test, 5 ways, 5 shots, 15 queries a class) each query is given
the class whose mean of the five is nearest by cosine. `plain` is MiniLM as it is. `full-fine-tuning`, which learns the
50 classes as one task, tells what the episodes add.

All methods of a seed meet the same episodes, so gains over `plain` are paired: within a seed over episodes, and over
seeds, whose interval is the one that counts, for it holds for other classes too. Validation rows, 5 % of train, are of
the 50 classes; they choose the checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from measure import Benchmark, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.data import Data, Split

METHODS = ("plain", "full-fine-tuning", "prototypical", "reptile", "maml")
SEEDS = range(5)
TRAIN_CLASSES = 50
EPISODES = 600
WAYS, SHOTS, QUERIES = 5, 5, 15


def score(benchmark: Benchmark, method: str, seed: int) -> dict[str, Any]:
    """Few-shot accuracy on the held-out classes of one seed, episode by episode."""
    from graftwork.data import Data
    from graftwork.episodes import few_shot
    from graftwork.fit import fit
    from graftwork.model import TransferModel
    from graftwork.models import resolve
    from graftwork.tasks import task_of

    whole = Data.load(benchmark.source("banking77"), validation=0.05, seed=seed)
    order = np.random.default_rng(seed).permutation(len(whole.labels))
    seen, held = ([whole.labels[k] for k in part] for part in np.split(order, [TRAIN_CLASSES]))
    unseen = Data.load({"train": rows(whole["test"], held)}, validation=0, test=0)
    with workplace() as folder:
        cost = {}
        if method == "plain":
            model = TransferModel.pretrained(resolve("minilm"), task_of(unseen))
        else:
            run = fit(
                data_of(whole, seen, 12 if benchmark.quick else None),
                method=method,
                budget="2steps" if benchmark.quick else benchmark.asked.budget,
                seed=seed,
                out=folder / "run",
                hardware=benchmark.hardware,
            )
            model = TransferModel.load(run.path / "model")
            cost = {
                "seconds": run.cost["seconds"], "best_step": run.happened["best_step"], "method": run.asked["method"],
                "validation": run.metrics["validation"]["accuracy"],
            }  # fmt: skip
        found = few_shot(
            model, unseen, ways=WAYS, shots=SHOTS, queries=QUERIES, episodes=20 if benchmark.quick else EPISODES,
            seed=seed,
        )  # fmt: skip
    right = np.rint(found.accuracies * WAYS * QUERIES).astype(int).tolist()
    return {
        "seed": seed,
        "held_out": held,
        "accuracy": found.mean,
        "half_width_95": found.half_width,
        "right": right,
    } | cost


def data_of(whole: Data, labels: list[str], most: int | None) -> Data:
    """The train and validation rows of some classes, at most so many rows of each."""
    from graftwork.data import Data

    return Data.load({name: rows(whole[name], labels, most) for name in ("train", "validation")}, test=0)


def rows(split: Split, labels: list[str], most: int | None = None) -> list[dict[str, str]]:
    """Those of some classes, at most `most` of each."""
    given, wanted = np.array(split.labels()), set(labels)
    chosen = np.concatenate([np.flatnonzero(given == label)[:most] for label in sorted(wanted)])
    return [{"text": text, "label": label} for text, label in zip(split.inputs(chosen), given[chosen], strict=True)]


def main() -> None:
    benchmark = Benchmark(
        "meta",
        parts=METHODS,
        options=lambda parser: parser.add_argument("--budget", default="100steps", help="of every training"),
    )
    seeds = SEEDS[:2] if benchmark.quick else SEEDS
    asked = 1 / (WAYS * QUERIES)
    found: dict[str, list[dict[str, Any]]] = {}
    lines: list[tuple[str, ...]] = [
        ("method", "5-way 5-shot accuracy, %", "gain over plain, points", "of each seed, over its episodes", "seconds")
    ]
    for method in dict.fromkeys(("plain", *benchmark.parts)):
        runs = [benchmark.measured(f"{method}, seed {s}", score, benchmark, method, s) for s in seeds]
        found[method] = runs
        accuracy = interval([run["accuracy"] for run in runs])
        summary: dict[str, Any] = {"accuracy": accuracy}
        line = (percent(accuracy), "", "", "")
        if method != "plain":
            paired = [
                interval((asked * np.subtract(run["right"], plain["right"])).tolist())
                for run, plain in zip(runs, found["plain"], strict=True)
            ]
            for each in paired:
                del each["values"]
            gain = interval([each["mean"] for each in paired])
            summary |= {"gain": gain, "gain_of_each_seed": paired}
            seconds = float(np.mean([run["seconds"] for run in runs]))
            line = (percent(accuracy), signed(gain), ", ".join(signed(each) for each in paired), f"{seconds:.0f}")
        benchmark.summarise(**{method: summary})
        lines.append((method, *line))
    table(*lines)


def signed(gain: dict[str, Any]) -> str:
    return ("+" if gain["mean"] >= 0 else "") + percent(gain)


if __name__ == "__main__":
    main()
