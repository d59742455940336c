"""Make the bases that graftwork ships: a masked `graft-mini` and a causal `graft-mini-gpt`.

    python benchmarks/bases.py CORPUS OUT [--only masked|causal] [--budget 9m] [--batch 512] [--size mini]

CORPUS is a folder of public-domain text. Weights are stored in fp16, so that a file stays below 16 MB.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import torch

from graftwork.language import language_model, save_language_model
from graftwork.pretrain import pretrain

NAMES = {"masked": "graft-mini", "causal": "graft-mini-gpt"}


def make(corpus: Path, out: Path, objective: str, budget: str, batch: int, size: str) -> None:
    """One base, from nothing to the folder that is shipped."""
    began = time.time()

    def told(event: dict) -> None:
        if event["event"] != "step":
            print(f"{time.time() - began:7.1f} s", json.dumps(event), flush=True)

    run = pretrain(
        corpus, objective=objective, size=size, budget=budget, batch_size=batch, out=out / f"run-{objective}",
        force=True, on_event=told,
    )  # fmt: skip
    print(run.metrics, run.cost, run.happened["tokens"], flush=True)
    model = language_model(run.path / "model", objective)
    base = out / NAMES[objective]
    model.head.network.half()  # type: ignore[union-attr]
    model.encoder.half()
    save_language_model(model, base)
    shutil.copy(run.path / "model" / "README.md", base / "README.md")
    shutil.copy(run.path / "metrics.jsonl", out / f"{NAMES[objective]}.jsonl")
    shutil.copy(run.path / "run.json", out / f"{NAMES[objective]}.json")
    size_mb = (base / "model.safetensors").stat().st_size / 1e6
    print(f"{base}: {size_mb:.1f} MB", flush=True)
    assert size_mb <= 16, "a shipped file is to stay below 16 MB"


def main() -> None:
    """Both bases, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--budget", default="9m")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--size", default="mini")
    asked = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    for objective in [asked.only] if asked.only else NAMES:
        make(asked.corpus, asked.out, objective, asked.budget, asked.batch, asked.size)


if __name__ == "__main__":
    main()
