"""Tiny random networks and small learnable data sets: the suite needs no network and takes seconds a file."""

from __future__ import annotations

import os
import tempfile

os.environ["OMP_NUM_THREADS"] = "1"  # before torch loads: on few cores, threads wait for each other
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["GRAFTWORK_CACHE"] = tempfile.mkdtemp(prefix="graftwork-tests-")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("small", deadline=None, max_examples=25, database=None)
settings.load_profile("small")


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
