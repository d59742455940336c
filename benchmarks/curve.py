"""How far is the carried-on learning curve from the truth? The probe's score on all rows, foretold from few.

    python benchmarks/curve.py DATA_FOLDER

On five data sets the linear probe is fitted on 4, 8, 16, ... rows of each class, as far as there are rows, and on all,
three draws a point, and scored on the official test (at most 1,000 rows). From the first half of the points
`learning_curve.outlook` foretells the score on all rows, with its interval of 80 %, as a race does it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from measure import Benchmark, interval, table, workplace

if TYPE_CHECKING:
    from graftwork.data import Data
    from graftwork.model import TransferModel

SETS = ("banking77", "ag_news", "sentence_polarity", "csabstruct", "chemprot")
DRAWS, FIRST, WORDS = 3, 4, 48
TRAIN_ROWS, TEST_ROWS = 4000, 1000


def curve(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """The points of the probe, and what the first half of them foretells of the last."""
    from graftwork.data import Data
    from graftwork.examples import tokenised
    from graftwork.features import embeddings
    from graftwork.learning_curve import outlook
    from graftwork.model import TransferModel
    from graftwork.models import resolve
    from graftwork.tasks import task_of

    whole = Data.load(benchmark.source(name))
    data, task = _small(whole, 400 if benchmark.quick else TRAIN_ROWS), task_of(whole)
    with workplace():
        model = TransferModel.pretrained(resolve("minilm"), task)
        tables = {
            split: (embeddings(model, tokenised(data, split, task, model.modality)), task.targets(data[split].labels()))
            for split in ("train", "test")
        }
    points = [_point(model, tables, shots) for shots in [*_shots(tables["train"][1]), None]]
    half = points[: max(3, (len(points) + 1) // 2)]
    known = [[p[key] for p in half] for key in ("rows", "mean", "standard_error")]
    told = outlook(*known, points[-1]["rows"])  # type: ignore[arg-type]
    found = points[-1]["mean"]
    return {
        "points": points, "known": len(half), "from_rows": half[-1]["rows"], "to_rows": points[-1]["rows"],
        "foretold": told.mean, "low": told.low, "high": told.high, "found": found, "error": told.mean - found,
        "inside": told.low <= found <= told.high,
    }  # fmt: skip


def _small(data: Data, train: int) -> Data:
    """Some train and test rows, drawn evenly, each cut to its first words."""
    from graftwork.data import Data

    rows: dict[str, list[dict[str, Any]]] = {}
    for split, most in (("train", train), ("test", TEST_ROWS)):
        places = np.random.default_rng(0).permutation(len(data[split]))[:most]
        texts = [" ".join(text.split()[:WORDS]) for text in data[split].inputs(places)]
        labels = data[split].labels()
        rows[split] = [{"text": t, "label": labels[i]} for t, i in zip(texts, places, strict=True)]
    return Data.load(rows, validation=0)


def _shots(targets: np.ndarray) -> list[int]:
    """Rows a class, doubling, while most classes have as many and there are fewer than in all."""
    typical = float(np.median(np.bincount(targets)))
    return [shots for shots in (FIRST * 2**k for k in range(12)) if shots < typical]


def _point(model: TransferModel, tables: dict[str, tuple[np.ndarray, np.ndarray]], shots: int | None) -> dict[str, Any]:
    import torch

    from graftwork.regression import Regression

    (x, y), (unseen, truth) = tables["train"], tables["test"]
    scores, rows = [], 0
    for draw in range(DRAWS if shots else 1):
        order = np.random.default_rng(draw).permutation(len(y))
        kept = order if shots is None else np.concatenate([order[y[order] == c][:shots] for c in np.unique(y)])
        rows = len(kept)
        Regression(strengths=(0.1, 1.0, 10.0), folds=5, max_iter=1000, tolerance=1e-3, seed=0).write_head(
            model, model.head.prepared(x[kept]), y[kept]
        )
        with torch.inference_mode():
            answers = model.head(torch.from_numpy(np.array(unseen, dtype=np.float32))).argmax(dim=1).numpy()
        scores.append(float((answers == truth).mean()))
    noise = float(np.std(scores, ddof=1) / len(scores) ** 0.5) if len(scores) > 1 else 0.0
    return {"shots": shots, "rows": rows, "mean": float(np.mean(scores)), "standard_error": noise}


def main() -> None:
    benchmark = Benchmark("curve", parts=SETS)
    some = benchmark.parts[1:2] if benchmark.quick else benchmark.parts
    found = {name: benchmark.measured(name, curve, benchmark, name) for name in some}
    rows: list[tuple[str, ...]] = [
        ("data", "from rows", "to rows", "foretold, %", "80 % interval", "found, %", "error")
    ]
    for name, told in found.items():
        rows.append((
            name, f"{told['from_rows']:,}", f"{told['to_rows']:,}", f"{100 * told['foretold']:.1f}",
            f"{100 * told['low']:.1f} to {100 * told['high']:.1f}", f"{100 * told['found']:.1f}",
            f"{100 * told['error']:+.1f}",
        ))  # fmt: skip
    table(*rows)
    errors = interval([abs(told["error"]) for told in found.values()])
    benchmark.summarise(absolute_error=errors, inside=sum(told["inside"] for told in found.values()), sets=len(found))


if __name__ == "__main__":
    main()
