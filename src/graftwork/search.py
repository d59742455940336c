"""search: the texts of a collection that are nearest to a query, by the cosine of their embeddings.

Any saved model can search: one that was fitted on pairs of texts was made for it, of others the pooled embedding is
taken. A collection is embedded once and kept in the cache; the search itself is exact.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from graftwork.choice import InputError
from graftwork.examples import building, cache_folder, cut_by_tokens
from graftwork.hardware import Hardware
from graftwork.intact import digest as digest_of
from graftwork.model import TransferModel, evaluating, pool
from graftwork.run import Run
from graftwork.transferability import unit

COLLECTIONS = 20
"""So many embedded collections are kept; the least recently used go first."""
_AT_ONCE = 20_000_000
"""Cosines held in memory at once."""
_MAX_TOKENS = 8192


@dataclass(frozen=True)
class Hit:
    """A text that was found."""

    row: int
    """Its place in the collection, counted from 0."""
    text: str
    score: float
    """The cosine with the query, in [-1, 1]."""


def search(
    run: Run | str | Path,
    queries: Sequence[str],
    corpus: Sequence[str],
    *,
    top: int = 10,
    hardware: Hardware | dict[str, Any] | None = None,
) -> list[list[Hit]]:
    """For each query the `top` nearest texts of a collection, the nearest first; of equally near ones the first.

    Args:
        run: a finished run, its folder, or any folder with a saved model.
        queries: texts.
        corpus: texts to look among.
        top: how many to find, from 1 on; a smaller collection is given whole.
        hardware: device; by default what torch finds.

    Raises:
        InputError: no model, no texts, or `top` below 1.

    Example:
        hits = search("runs/questions-full-fine-tuning", ["How do I lose weight?"], open("faq.txt").read().splitlines())
    """
    if top < 1:
        raise InputError(f"top must be a number of texts from 1 on; got {top}.")
    if isinstance(queries, str) or isinstance(corpus, str):
        raise InputError("Queries and corpus are lists of texts; got a single text. Put it into a list.")
    if not len(corpus):
        raise InputError("The corpus has no texts, so nothing can be found in it.")
    folder = _model_folder(run)
    model = TransferModel.load(folder).to(Hardware.of(hardware).torch_device())
    if model.modality.reads != "text":
        raise InputError(f"Texts are searched, and the model of {str(run)!r} reads pictures. Give a run on texts.")
    known = _collection(model, folder, corpus)
    found = nearest(embedded(model, queries), known, top)
    return [[Hit(int(row), corpus[int(row)], float(score)) for row, score in zip(*each, strict=True)] for each in found]


def recall_at_k(found: Sequence[Sequence[int]], relevant: Sequence[Collection[int]], k: int) -> float:
    """The share of the relevant texts that are among the first `k` found, in [0, 1]: the mean over queries.

    Args:
        found: for each query the rows that were found, the nearest first.
        relevant: for each query the rows that should be, at least one.
        k: how many of those found count.

    Raises:
        InputError: a query without a relevant text, or other numbers of queries.

    Example:
        >>> recall_at_k([[3, 1, 2], [0, 4, 5]], [{1}, {5, 9}], k=3)
        0.75
    """
    if len(found) != len(relevant) or not len(found):
        raise InputError(f"There are {len(found)} searches and {len(relevant)} lists of what is relevant to them.")
    if not all(relevant):
        raise InputError("A query has no relevant text, so it cannot be scored. Leave it out.")
    return float(np.mean([len(set(f[:k]) & set(r)) / len(set(r)) for f, r in zip(found, relevant, strict=True)]))


@torch.inference_mode()
def embedded(model: TransferModel, texts: Sequence[str]) -> np.ndarray:
    """The pooled embeddings of texts at unit length, whatever the model's task: (n, dim) float32."""
    ids = model.text.encode(texts) if len(texts) else []
    lengths = np.array([len(each) for each in ids], dtype=np.int64)
    found = np.zeros((len(ids), model.width), dtype=np.float32)
    if not len(ids):
        return found
    with evaluating(model):
        for places in cut_by_tokens(np.argsort(-lengths, kind="stable"), lengths, _MAX_TOKENS):
            inputs = {k: v.to(model.device) for k, v in model.modality.collate([ids[p] for p in places]).items()}
            states = model.encoder(**inputs).last_hidden_state.float()
            found[places] = pool(states, inputs["attention_mask"], model.pooling).cpu().numpy()
    return unit(found)


def nearest(queries: np.ndarray, corpus: np.ndarray, top: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each query the rows of the `top` largest products and these, the largest first.

    Args:
        queries: (queries, dim).
        corpus: (texts, dim).
        top: at most so many rows a query; of equal products the first rows.
    """
    found = []
    size = max(1, _AT_ONCE // max(len(corpus), 1))
    for start in range(0, len(queries), size):
        for scores in queries[start : start + size] @ corpus.T:
            least = np.partition(scores, len(scores) - top)[len(scores) - top] if top < len(scores) else -np.inf
            rows = np.flatnonzero(scores >= least)
            rows = rows[np.argsort(-scores[rows], kind="stable")][:top]
            found.append((rows, scores[rows]))
    return found


def _model_folder(run: Run | str | Path) -> Path:
    path = Path(run.path if isinstance(run, Run) else run)
    folder = path / "model" if (path / "model").is_dir() else path
    if not (folder / "graft.json").is_file():
        raise InputError(f"Run {str(path)!r} is {Run.open(path).state}: it has no model to search with yet.")
    return folder


def _collection(model: TransferModel, folder: Path, texts: Sequence[str]) -> np.ndarray:
    """The embeddings of texts, from the cache where this model has embedded these texts before."""
    place = cache_folder() / "collections" / _key(model, folder, texts)
    if not (place / "embeddings.npy").is_file():
        found = embedded(model, texts)
        with building(place) as work:
            np.save(work / "embeddings.npy", found)
        _make_room(place.parent)
    (place / "embeddings.npy").touch()  # recently used
    return np.load(place / "embeddings.npy", mmap_mode="r")


def _key(model: TransferModel, folder: Path, texts: Sequence[str]) -> str:
    """Names the model's weights, how it reads and pools, its device, and the texts in their order."""
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), folder / "config.json", folder / "tokenizer.json"]):
        if file.is_file() and file.name != "head.safetensors":  # embeddings are what comes before it
            digest.update(digest_of(file).encode())
    reads = [model.pooling, model.modality.max_length, model.modality.pad_id, model.device.type]
    digest.update(json.dumps(reads).encode())
    for text in texts:
        digest.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:32]


def _make_room(folder: Path) -> None:
    kept = sorted(folder.glob("*/embeddings.npy"), key=lambda file: -file.stat().st_mtime)
    for file in kept[COLLECTIONS:]:
        shutil.rmtree(file.parent, ignore_errors=True)
