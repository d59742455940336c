"""Is a small ViT that learned to see from the pictures themselves worth more than the same one with random weights?

    python benchmarks/images.py DATA_FOLDER

Of each data set two bases are made from its train pictures without their labels, `masked-autoencoder` and
`image-denoising`, of size tiny (2 blocks, 128 wide), with `pretrain`'s defaults and as many steps. Each, and the same
architecture with random weights begun as theirs were, is then fitted on 32 labels a class, the same rows and steps,
three draws: full fine-tuning and a linear probe, five others a class as validation, `fit`'s defaults.

Scored on 1,000 pictures of the official test, evenly spread. There is one base of each kind a data set, so the
intervals are over draws of labels and seeds of fitting alone. Random weights are drawn anew for each draw. `cifar10` is
read from DATA_FOLDER/cifar10.tar.gz where there is no folder; `fashion_mnist` is an .npz, written as pictures first.
"""

from __future__ import annotations

import itertools
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measure import Benchmark, few_shot, interval, percent, table, workplace

if TYPE_CHECKING:
    from graftwork.data import Data

SETS = {"fashion_mnist": 28, "cifar10": 32}
"""How large the pictures are."""
OBJECTIVES = ("masked-autoencoder", "image-denoising")
METHODS = ("full-fine-tuning", "linear-probe")
DRAWS = range(3)
SIZE, PATCH, BATCH, STEPS = "tiny", 4, 64, 200
SHOTS, TUNING, TEST_ROWS = 32, 60, 1000
PRECISE = {"precision": "fp32"}


def pictures(benchmark: Benchmark, name: str, folder: Path) -> Path:
    """A data set as SPLIT/CLASS/NUMBER, under `folder`."""
    at = benchmark.asked.data / name
    if name == "cifar10":
        if at.is_dir():
            return at
        if not at.with_suffix(".tar.gz").is_file():
            sys.exit(f"{benchmark.asked.data} holds neither cifar10 nor cifar10.tar.gz. Give the folder that does.")
        with tarfile.open(at.with_suffix(".tar.gz")) as packed:
            packed.extractall(folder, filter="data")
        return folder / name
    return _written(benchmark.source(name) / "fashion_mnist_subset.npz", folder / name)


def _written(file: Path, folder: Path) -> Path:
    """The arrays of an .npz as pictures."""
    import numpy as np
    from PIL import Image

    arrays = np.load(file)
    named = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
    for part in (key.removeprefix("x_") for key in arrays if key.startswith("x_")):
        every = 10 if part == "test" else 1  # so many more are not asked
        both = (arrays[f"{kind}_{part}"][::every] for kind in "xy")
        for number, (pixels, label) in enumerate(zip(*both, strict=True)):
            home = folder / named[part] / str(arrays["classes"][label]).replace("/", "-")
            home.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(home / f"{number}.png")
    return folder


def learned(benchmark: Benchmark, name: str, objective: str, source: Path, out: Path) -> dict[str, Any]:
    """A base at `out`; how well it rebuilds, and what it cost."""
    from graftwork.pretrain import pretrain

    run = pretrain(
        source, objective=objective, size=SIZE, image_size=SETS[name], patch=PATCH, batch_size=BATCH,
        budget=f"{5 if benchmark.quick else STEPS}steps", out=out, hardware=benchmark.hardware | PRECISE,
    )  # fmt: skip
    kept = ("training_seconds", "pictures_per_second", "total_parameters")
    return {**run.metrics["validation"], "pictures": run.happened["pictures"]} | {k: run.cost[k] for k in kept}


def transfer(benchmark: Benchmark, models: dict[str, Path], whole: Data, folder: Path, seed: int) -> dict[str, Any]:
    """Test accuracy of each model by each method, on the same few rows."""
    import numpy as np

    from graftwork.data import Data
    from graftwork.evaluate import evaluate
    from graftwork.fit import fit

    drawn = few_shot(whole, 4 if benchmark.quick else SHOTS, seed)
    rows = {
        split: [{"text": t, "label": label} for t, label in zip(part.inputs(), part.labels(), strict=True)]
        for split, part in drawn.splits.items()
    }
    spread = np.linspace(0, len(rows["test"]) - 1, 40 if benchmark.quick else TEST_ROWS).astype(int)
    data = Data.load(rows | {"test": [rows["test"][i] for i in spread]})
    found: dict[str, Any] = {method: {} for method in METHODS}
    for (which, model), method in itertools.product(models.items(), METHODS):
        run = fit(
            data, model=model, method=method, seed=seed, out=folder / f"{which}-{method}-{seed}",
            budget=None if method == "linear-probe" else f"{2 if benchmark.quick else TUNING}steps",
            hardware=benchmark.hardware | PRECISE,
        )  # fmt: skip
        found[method][which] = evaluate(run, data)["accuracy"]
    return found


def measured(benchmark: Benchmark, name: str) -> dict[str, Any]:
    """The bases of a data set, and every draw's accuracies."""
    import torch

    from graftwork.data import Data
    from graftwork.pretext import SIZES
    from graftwork.rebuilding import start_from_nothing

    with workplace() as folder:
        source = pictures(benchmark, name, folder)
        bases = {o: learned(benchmark, name, o, source, folder / o) for o in OBJECTIVES}
        draws, whole = [], Data.load(source)
        for seed in DRAWS:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                start_from_nothing(SIZES[SIZE], SETS[name], PATCH, folder / f"random-{seed}")
            models = {o: folder / o for o in OBJECTIVES} | {"random": folder / f"random-{seed}"}
            draws.append(transfer(benchmark, models, whole, folder, seed))
        return {"bases": bases, "draws": draws}


def main() -> None:
    benchmark = Benchmark("images", parts=[*SETS])
    rows: list[tuple[str, ...]] = [("accuracy, %", "base", "random weights", "difference")]
    for name in benchmark.parts:
        draws = benchmark.measured(name, measured, benchmark, name)["draws"]
        for method in METHODS:
            sides = {which: interval([draw[method][which] for draw in draws]) for which in (*OBJECTIVES, "random")}
            gaps = {o: interval([draw[method][o] - draw[method]["random"] for draw in draws]) for o in OBJECTIVES}
            told = sides | {f"{objective}, gap": gap for objective, gap in gaps.items()}
            benchmark.summarise(**{f"{name}, {method}": told})
            for objective, gap in gaps.items():
                cells = (sides[objective], sides["random"], gap)
                rows.append((f"{name}, {method}, {objective}", *map(percent, cells)))
    table(*rows)


if __name__ == "__main__":
    main()
