"""What every benchmark shares: its command line, its results file, intervals, few-shot draws, and a place to work.

A results file holds one entry a finished part. A benchmark that was interrupted finds the finished parts there and
goes on with the others; `--again` measures them anew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftwork.data import Data

RESULTS = Path(__file__).parent / "results"


class Benchmark:
    """One script's command line and results file.

    Args:
        name: of the results file.
        parts: what `--only` may name.
        options: adds the script's own arguments.
    """

    def __init__(
        self, name: str, *, parts: Sequence[str], options: Callable[[argparse.ArgumentParser], Any] | None = None
    ):
        parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
        parser.add_argument("data", type=Path, help="folder that holds the data sets, each in a folder of its name")
        parser.add_argument("--threads", type=int, help="CPU threads (default: what torch takes)")
        parser.add_argument("--only", choices=parts, action="append", help="measure this part (may be repeated)")
        parser.add_argument("--quick", action="store_true", help="a tiny version that shows that the script works")
        parser.add_argument("--again", action="store_true", help="measure finished parts anew")
        if options:
            options(parser)
        self.asked = parser.parse_args()
        if self.asked.threads:  # before torch is imported: it reads this once
            os.environ["OMP_NUM_THREADS"] = str(self.asked.threads)
        self.parts = self.asked.only or list(parts)
        self.quick: bool = self.asked.quick
        results = Path(tempfile.gettempdir()) / "graftwork-quick" if self.quick else RESULTS
        self.file = results / f"{name}.json"
        self.fresh: set[str] = set()
        from graftwork.machine import environment

        self.environment = environment()  # now: the code that is imported is this commit's, whatever is edited later

    @property
    def hardware(self) -> dict[str, Any]:
        """What `fit` is told about the machine."""
        return {"threads": self.asked.threads}

    def measured(self, part: str, measure: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
        """The entry of `part`: from the results file, or `measure(*given)` now, and written there."""
        from graftwork.run import as_json

        found = self.entries().get(part)
        stale = (self.asked.again or self.quick) and part not in self.fresh
        if found and not stale:
            return found
        about = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "git": self.environment["git"]}
        entry = json.loads(as_json(measure(*given) | about))
        self.fresh.add(part)
        machine = {key: value for key, value in self.environment.items() if key != "git"}
        self._write(environment=machine | {"threads": self.asked.threads}, parts=self.entries() | {part: entry})
        print(f"  {part}: measured", file=sys.stderr)
        return entry

    def summarise(self, **found: Any) -> None:
        """Write what the parts come to, for example an `interval` over seeds; earlier summaries of other parts stay."""
        self._write(summary=self._read().get("summary", {}) | found)

    def entries(self) -> dict[str, Any]:
        """Every finished part."""
        return self._read().get("parts", {})

    def _read(self) -> dict[str, Any]:
        return json.loads(self.file.read_text(encoding="utf-8")) if self.file.is_file() else {}

    def _write(self, **sections: Any) -> None:
        from graftwork.disk import atomic_write
        from graftwork.run import as_json

        self.file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.file, (as_json(self._read() | sections, indent=1) + "\n").encode())

    def source(self, name: str) -> Path:
        """The folder of a data set.

        Raises:
            SystemExit: it is not there.
        """
        folder = self.asked.data / name
        if not folder.is_dir():
            sys.exit(f"{self.asked.data} holds no data set {name!r}. Give the folder that holds the data sets.")
        return folder


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder for runs, with an empty cache: nothing that an earlier measurement computed is found again."""
    before = os.environ.get("GRAFTWORK_CACHE")
    with tempfile.TemporaryDirectory(prefix="graftwork-benchmark-", ignore_cleanup_errors=True) as folder:
        os.environ["GRAFTWORK_CACHE"] = str(Path(folder) / "cache")
        try:
            yield Path(folder)
        finally:
            os.environ.pop("GRAFTWORK_CACHE")
            if before is not None:
                os.environ["GRAFTWORK_CACHE"] = before


def fitted(benchmark: Benchmark, name: str, method: str, seed: int) -> dict[str, Any]:
    """A data set fitted with a method's defaults (and the budget asked for, if any) and scored on its test split."""
    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    probes = method == "linear-probe"
    data = Data.load(benchmark.source(name), seed=seed, limit=400 if benchmark.quick else None)
    budget = None if probes else "5steps" if benchmark.quick else getattr(benchmark.asked, "budget", None)
    with workplace() as folder:
        run = fit(
            data,
            method={method: {"seed": seed}} if probes else method,
            budget=budget,
            seed=seed,
            out=folder / "run",
            hardware=benchmark.hardware,
        )
        test = evaluate(run, data)
        curve = [_scalars(event) for event in run.events() if event["event"] == "evaluation"]
        return {
            "seed": seed,
            "method": run.asked["method"],
            "budget": run.asked["budget"],
            "train_rows": len(data["train"]),
            "test": _scalars(test),
            "validation": _scalars(run.metrics["validation"]),
            "curve": curve,
            **{key: run.happened[key] for key in ("steps", "best_step", "stopped", "precision")},
            **run.cost,
        }


def _scalars(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if isinstance(value, (int, float)) or key == "split"}


def interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean, and half the width of its 95 % interval by Student's t; None where one value tells no spread."""
    import numpy as np
    from scipy import stats

    mean, half = float(np.mean(values)), None
    if len(values) > 1:
        half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
    return {"mean": mean, "half_width_95": half, "n": len(values), "values": list(values)}


def percent(found: dict[str, Any]) -> str:
    """An interval of shares as people read it: `93.18 ± 0.21`."""
    half = found["half_width_95"]
    return f"{100 * found['mean']:.2f}" + (f" ± {100 * half:.2f}" if half is not None else "")


def few_shot(data: Data, shots: int, seed: int) -> Data:
    """`shots` train rows a class drawn at random; five others a class are validation; test stays as it is.

    A class with fewer than `shots` + 5 rows gives what it has, train first.
    """
    import numpy as np

    from graftwork.data import Data

    generator = np.random.default_rng(seed)
    # what Data.load cut from train for validation goes back before the draw
    pool = [row for name in ("train", "validation") for row in _rows(data, name)]
    labels = np.array([row["label"] for row in pool])
    train, validation = [], []
    for label in data.labels:
        order = generator.permutation(np.flatnonzero(labels == label))
        train += [pool[i] for i in order[:shots]]
        validation += [pool[i] for i in order[shots : shots + 5]]
    return Data.load({"train": train, "validation": validation, "test": _rows(data, "test")})


def small(data: Data, validation: int) -> Data:
    """The same train and test rows, and at most so many of validation, drawn at random, the same for every seed.

    Where train is small, reading all of validation again and again would cost more than training.
    """
    import numpy as np

    from graftwork.data import Data

    rows = {name: _rows(data, name) for name in ("train", "validation", "test")}
    kept = np.sort(np.random.default_rng(0).permutation(len(rows["validation"]))[:validation])
    return Data.load(rows | {"validation": [rows["validation"][i] for i in kept]})


def _rows(data: Data, split: str) -> list[dict[str, Any]]:
    texts, labels = data[split].inputs(), data[split].labels()
    return [{"text": text, "label": label} for text, label in zip(texts, labels, strict=True)]


def table(*rows: Sequence[str]) -> None:
    """Print rows (the first is the head) in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
