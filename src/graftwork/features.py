"""The frozen-prefix cache: what a frozen part computes is computed once an example, not once an epoch.

When the lowest groups of an encoder do not train, their output is the same in every epoch, for every seed, and for
every method that freezes the same part. It is written once to disk, memory-mapped, and named by all it depends on:
the frozen weights, the depth, the examples, the precision. The numbers are those of a run without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from graftwork import layers
from graftwork.examples import Batch, Examples, building, cache_folder, cut_by_tokens
from graftwork.hardware import autocast
from graftwork.model import TransferModel, evaluating

log = logging.getLogger(__name__)

FORMAT = 2

LIMIT_BYTES = 20 * 2**30
"""What the features of all runs may take on disk; the least recently used go first."""

_STORED = {torch.float32: np.float32, torch.bfloat16: np.int16}  # numpy has no bfloat16: its bits are kept


class Features:
    """The output of the `depth` lowest groups for every window of one split.

    Where the whole encoder is frozen this is what the head reads (one vector an example, for tasks that pool);
    otherwise it is the token states that enter the first block that trains.
    """

    def __init__(self, folder: Path, examples: Examples):
        self.examples = examples
        described = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        self.pooled: bool = described["pooled"]
        self.name: str = described["name"]
        self.dtype = getattr(torch, described["dtype"])
        self.array = np.memmap(
            folder / "features.bin", dtype=_STORED[self.dtype], mode="r", shape=tuple(described["shape"])
        )
        (folder / "features.json").touch()  # recently used

    def rows(self, places: np.ndarray) -> Tensor:
        """The features of windows: (batch, dim), or (batch, length, dim) with zeros where there is padding."""
        if self.pooled:
            return torch.from_numpy(self.array[places])
        starts, lengths = self.examples.starts, self.examples.lengths[places]
        padded = np.zeros((len(places), int(lengths.max()), self.array.shape[1]), dtype=self.array.dtype)
        for row, place in enumerate(places):
            padded[row, : lengths[row]] = self.array[starts[place] : starts[place + 1]]
        return torch.from_numpy(padded).view(self.dtype)

    def into(self, batch: Batch) -> Batch:
        """The batch with these features where the frozen part would have been run."""
        features = {self.name: self.rows(batch.places)}
        return Batch(batch.inputs | features, batch.targets, batch.places)


@contextmanager
def frozen_prefix(
    model: TransferModel,
    splits: list[Examples],
    *,
    precision: str,
    remap: np.ndarray | None = None,
    worthwhile: bool = True,
) -> Iterator[list[Features] | None]:
    """While open, `model` starts where its frozen part ends, given the features of `splits`.

    Yields None, and changes nothing, where there is no frozen part worth keeping, where the network cannot be run from
    the middle, where the features would not fit on the disk, or where they will hardly be read again (`worthwhile`).
    """
    frozen = layers.frozen_depth(model.encoder)
    blocks = frozen - 1
    if blocks < 1 or not worthwhile or not layers.has_single_stack(model.encoder):
        yield None
        return
    whole = frozen == len(layers.layer_groups(model.encoder))
    # only what follows the blocks trains, the head wants to see the states below, or these are not the text's alone
    if not whole and (
        blocks == layers.block_count(model.encoder)
        or model.head.reads_layers
        or any(insertion.lengthens for insertion in model.insertions)
    ):
        yield None
        return
    with ExitStack() as stack:
        try:
            features = [_features(model, s, None if whole else blocks, precision, remap) for s in splits]
        except _DoesNotFit as reason:
            log.warning("%s", reason)
            yield None
            return
        if not whole:
            model.above = stack.enter_context(layers.running_above(model.encoder, blocks))
        try:
            yield features
        finally:
            model.above = None


class _DoesNotFit(Exception):  # noqa: N818  a decision, not an error
    pass


def _features(
    model: TransferModel, examples: Examples, blocks: int | None, precision: str, remap: np.ndarray | None
) -> Features:
    """The features of one split, from the cache or computed; `blocks` is None for the whole encoder."""
    pooled = blocks is None and not model.reads_tokens
    key = hashlib.sha256(
        json.dumps(
            [FORMAT, examples.key, blocks, pooled and model.pooling, precision, _weights_digest(model, remap)]
            + ["layers"] * model.head.reads_layers
        ).encode()
    ).hexdigest()[:32]
    folder = cache_folder() / "features" / key
    if not (folder / "features.json").is_file():
        states = (layers.block_count(model.encoder) + 1,) if model.head.reads_layers else ()
        shape = (len(examples) if pooled else examples.tokens, *states, model.width)
        size = 4 * math.prod(shape)  # at most
        folder.parent.mkdir(parents=True, exist_ok=True)
        if size > min(LIMIT_BYTES, shutil.disk_usage(folder.parent).free // 2):
            raise _DoesNotFit(
                f"Frozen features would take {size / 2**30:.1f} GiB on disk; they are recomputed instead."
            )
        _make_room(folder.parent, size)
        with building(folder) as work:
            dtype = _compute(model, examples, blocks, precision, remap, work / "features.bin", shape)
            name = "embedding" if blocks is None else "hidden"
            described = {"shape": shape, "pooled": pooled, "name": name, "dtype": str(dtype).removeprefix("torch.")}
            (work / "features.json").write_text(json.dumps(described), encoding="utf-8")
    return Features(folder, examples)


@torch.inference_mode()
def _compute(
    model: TransferModel,
    examples: Examples,
    blocks: int | None,
    precision: str,
    remap: np.ndarray | None,
    file: Path,
    shape: tuple[int, ...],
) -> torch.dtype:
    """Write the features to `file`, in the type they come in."""
    array: np.memmap | None = None
    with evaluating(model), autocast(model.device, precision):
        for places in examples.in_order_of_length(max_tokens=8192):
            batch = examples.batch(places, remap).to(model.device)
            if blocks is None:
                states = model.embed(batch.inputs)
            else:
                states = layers.run_below(model.encoder, blocks, **batch.inputs)
            if array is None:
                array = np.memmap(file, dtype=_STORED[states.dtype], mode="w+", shape=shape)
            values = states.cpu().view(torch.int16 if states.dtype == torch.bfloat16 else states.dtype).numpy()
            if values.ndim == len(shape):
                array[places] = values
                continue
            for row, place in enumerate(places):
                array[examples.starts[place] : examples.starts[place + 1]] = values[row, : examples.lengths[place]]
    assert array is not None, "a split has at least one window"
    array.flush()
    return next(kind for kind, stored in _STORED.items() if stored == array.dtype)


def _weights_digest(model: TransferModel, remap: np.ndarray | None) -> str:
    """Names the weights of the frozen groups and of the ids they read."""
    digest = hashlib.sha256(b"" if remap is None else remap.tobytes())
    parameters = dict(model.encoder.named_parameters())
    for group in layers.layer_groups(model.encoder)[: layers.frozen_depth(model.encoder)]:
        for name in group.parameters:
            digest.update(name.encode())
            digest.update(parameters[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _make_room(folder: Path, size: int) -> None:
    """Remove the least recently used features until `size` more bytes fit under the limit."""
    kept = sorted(folder.glob("*/features.json"), key=lambda f: f.stat().st_mtime)
    sizes = {f: (f.parent / "features.bin").stat().st_size for f in kept}
    total = sum(sizes.values())
    for file in kept:
        if total + size <= LIMIT_BYTES:
            break
        total -= sizes[file]
        shutil.rmtree(file.parent, ignore_errors=True)


def embeddings(model: TransferModel, examples: Examples, *, precision: str = "fp32") -> np.ndarray:
    """What the head reads for every window of a split: (windows, dim), for tasks that pool.

    The whole encoder is taken as frozen, whatever its parameters say.
    """
    trains = {p: p.requires_grad for p in model.encoder.parameters()}
    model.encoder.requires_grad_(False)
    try:
        return np.asarray(_features(model, examples, None, precision, None).array)
    finally:
        for parameter, flag in trains.items():
            parameter.requires_grad_(flag)


def embeddings_of(
    model: TransferModel,
    examples: Examples,
    places: np.ndarray,
    precision: str,
    *,
    features: Features | None = None,
    remap: np.ndarray | None = None,
    max_tokens: int = 8192,
) -> np.ndarray:
    """What the head reads of some windows, (places, ...) float32, computed now and not kept.

    Args:
        model: what reads, in eval mode.
        examples: the split.
        places: which windows of it.
        precision: `fp32` or `bf16`.
        features: the frozen prefix's output for the split, where there is one.
        remap: rows of the compacted embedding table, where there is one.
        max_tokens: computed at once, padding included.
    """

    def read(some: np.ndarray) -> Tensor:
        batch = examples.batch(some, remap)
        return model.embed((features.into(batch) if features else batch).to(model.device).inputs)

    return _gathered(model, examples, places, precision, read, max_tokens)


def layer_states(model: TransferModel, examples: Examples, places: np.ndarray, precision: str) -> np.ndarray:
    """What a head would read of windows at every depth: (blocks + 1, places, dim) float32, pooled, the lowest first.

    The first are the embeddings, the last is what `embeddings` gives.
    """

    def read(some: np.ndarray) -> Tensor:
        return model.embed_layers(examples.batch(some).to(model.device).inputs)

    found = _gathered(model, examples, places, precision, read, max_tokens=8192)
    return np.ascontiguousarray(found.transpose(1, 0, 2))


@torch.inference_mode()
def _gathered(
    model: TransferModel,
    examples: Examples,
    places: np.ndarray,
    precision: str,
    read: Callable[[np.ndarray], Tensor],
    max_tokens: int,
) -> np.ndarray:
    """What `read` gives of windows, (some, ...), a part of `places` at a time, in the order of `places`."""
    found: np.ndarray | None = None
    order = np.argsort(-examples.lengths[places], kind="stable")
    position = {int(place): i for i, place in enumerate(places)}
    with evaluating(model), autocast(model.device, precision):
        for part in cut_by_tokens(places[order], examples.lengths, max_tokens):
            states = read(part).float().cpu().numpy()
            found = np.zeros((len(places), *states.shape[1:]), dtype=np.float32) if found is None else found
            found[[position[int(place)] for place in part]] = states
    assert found is not None, "there is at least one window"
    return found
