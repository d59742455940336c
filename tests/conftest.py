"""Tiny random networks and small learnable data sets: the suite needs no network and takes seconds a file."""

from __future__ import annotations

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # before torch loads: on few cores, threads wait for each other
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRAFTWORK_CACHE"] = tempfile.mkdtemp(prefix="graftwork-tests-")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("small", deadline=None, max_examples=25, database=None)
settings.load_profile("small")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Slow tests and those that need an accelerator run when they are asked for: `pytest -m slow`."""
    if not config.option.markexpr:
        for item in items:
            for mark in ("slow", "gpu"):
                if item.get_closest_marker(mark):
                    item.add_marker(pytest.mark.skip(reason=f"runs with -m {mark}"))


@pytest.fixture(scope="session", autouse=True)
def _times_are_rough() -> None:
    """How long answers and steps take is measured in few of them, without rest: what is measured matters, not how."""
    from graftwork import latency, pace

    latency._TIMES, latency._IN_TURN, latency._REST = 2, {1: 10, 32: 5}, 0.0
    pace.STEPS = 3


@pytest.fixture(scope="session", autouse=True)
def _cache_goes_away() -> Iterator[None]:
    yield
    shutil.rmtree(os.environ["GRAFTWORK_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model folders by architecture, made once: `models("roberta")`."""
    from graftwork.testing import tiny_model

    root = tmp_path_factory.mktemp("models")

    def get(architecture: str = "bert") -> Path:
        folder = root / architecture
        return folder if folder.exists() else tiny_model(folder, architecture)

    return get


@pytest.fixture(scope="session")
def language_models(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same with their language-model heads: `language_models("gpt2")`."""
    from graftwork.testing import tiny_model

    root = tmp_path_factory.mktemp("language-models")

    def get(architecture: str = "bert") -> Path:
        folder = root / architecture
        return folder if folder.exists() else tiny_model(folder, architecture, language_model=True)

    return get


@pytest.fixture(scope="session")
def tiny(models: Any) -> Path:
    """A BERT, 3 layers deep and 32 wide."""
    return models("bert")


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of splits on disk: `classification`, `multi-label`, `tagging`."""
    from graftwork.testing import learnable

    root = tmp_path_factory.mktemp("data")
    return {kind: write(learnable(kind), root / kind) for kind in ("classification", "multi-label", "tagging")}


def write(splits: dict[str, list[dict[str, Any]]], folder: Path) -> Path:
    """Splits as JSON lines."""
    import json

    folder.mkdir()
    for name, rows in splits.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def quick() -> dict[str, Any]:
    """Hardware on which a run is exact and takes no time to choose."""
    return {"device": "cpu", "precision": "fp32"}


@pytest.fixture
def staged(tiny: Path, tmp_path: Path) -> Any:
    """A model, tokenised splits and a stage of the loop, without a run folder around them."""
    import torch

    from graftwork.budget import Budget
    from graftwork.data import Data
    from graftwork.examples import tokenised
    from graftwork.hardware import Hardware, World
    from graftwork.loop import Stage
    from graftwork.model import TransferModel
    from graftwork.tasks import Classification, Tagging
    from graftwork.testing import learnable

    class Staged:
        def __init__(self, method: Any, *, kind: Any = "classification", folder: Path = tiny, steps: int = 12):
            self.data = Data.load(learnable(kind))
            labels = self.data.labels
            task = (
                Tagging(labels=labels)
                if kind == "tagging"
                else Classification(labels=labels, multi_label=kind == "multi-label")
            )
            torch.manual_seed(0)
            self.model = TransferModel.pretrained(folder, task, pooling=method.pooling, head=method.head)
            self.train = tokenised(self.data, "train", task, self.model.modality)
            self.validation = tokenised(self.data, "validation", task, self.model.modality)
            self.events: list[dict[str, Any]] = []
            self.stage = Stage(
                number=0, method=method, budget=Budget(steps, "steps"), seed=0,
                hardware=Hardware(device="cpu", precision="fp32", checkpoint_seconds=1e9), precision="fp32",
                world=World(torch.device("cpu")), checkpoint=tmp_path / "latest.safetensors",
                on_event=lambda **event: self.events.append(event), stop_requested=lambda: False,
            )  # fmt: skip

        def run(self) -> Any:
            """Prepare and train; the trained model is `model`."""
            from graftwork.loop import train

            torch.manual_seed(0)
            self.stage.method.prepare(self.model, self.train)
            return train(self.model, self.train, self.validation, self.stage)

        @property
        def losses(self) -> list[float]:
            """Of every step, where nothing is averaged."""
            return [e["loss"] for e in self.events if e["event"] == "step"]

    return Staged


@pytest.fixture
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop reports each step by itself."""
    monkeypatch.setattr("graftwork.loop._REPORT_SECONDS", -1.0)


@pytest.fixture(scope="session")
def typed() -> Callable[..., int]:
    """`typed("fit", ...)`: the exit code of what was typed after `graft`, run in this process."""
    import signal
    import sys

    from graftwork.cli import main

    def run(*words: object) -> int:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", ["graft", *map(str, words)])
                with pytest.raises(SystemExit) as stopped:
                    main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return int(stopped.value.code or 0)

    return run
