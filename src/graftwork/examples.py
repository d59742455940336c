"""Examples as the network reads them: a split tokenised once, kept on disk, and the batches cut from it.

Token ids (or pixels) lie in one flat memory-mapped array, so a split is bounded by disk, not memory. Batches hold a
fixed number of examples (that is the method's business and changes results) cut from length-sorted windows, so that
hardly any padding is computed; each is split further only where the hardware asks for it, which changes no result.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from graftwork.choice import InputError
from graftwork.task import Task

if TYPE_CHECKING:
    from graftwork.data import Data, Split
    from graftwork.modality import Modality

_CHUNK = 4096
_SORTED_WINDOW = 200  # batches; the more, the less padding, and texts of one length still meet at random


@dataclass(frozen=True)
class Batch:
    """Some windows, padded to the longest of them."""

    inputs: dict[str, Tensor]
    targets: Tensor
    places: np.ndarray
    """Which windows of the split these are."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch({k: v.to(device) for k, v in self.inputs.items()}, self.targets.to(device), self.places)


class Examples:
    """One tokenised split; of pictures, their pixels.

    Attributes:
        lengths: tokens (of pictures, patches) of each window, (windows,): the states that the encoder gives.
        ids: of all windows, one after the other, (tokens,) int32; pictures' pixels, (windows, 3, height, width) uint8.
        example: which row of the split each window belongs to, (windows,); more than one window where a long text is
            read in parts.
        lost: tokens that no window of a row holds, (windows,): what truncation cost.
        key: names the content; equal keys mean equal examples.
        data: what it is a split of.
        together: how many windows, one after the other, are never parted: the 2 of a pair, the 3 of a triplet.
    """

    together: int = 1

    def __init__(self, folder: Path, modality: Modality, task: Task, data: Data):
        described = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
        self.key: str = described["key"]
        self.rows: int = described["rows"]
        self.modality, self.task, self.data = modality, task, data
        self.lengths = np.load(folder / "lengths.npy")
        self.example = np.load(folder / "example.npy")
        self.lost = np.load(folder / "lost.npy")
        self.together = 1 if task.token_level else len(self.lengths) // self.rows
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self.ids = _map(folder / "ids.bin", modality.dtype)
        if modality.shape is not None:
            self.ids = self.ids.reshape(-1, *modality.shape)
        shape = (len(self.lengths), *described["target_shape"]) if not task.token_level else (-1,)
        self.targets = _map(folder / "targets.bin", np.dtype(described["target_type"])).reshape(shape)
        self._asked = (
            np.add.reduceat((self.targets >= 0).astype(np.int64), self.starts[:-1])
            if task.token_level
            else np.ones(len(self.lengths), dtype=np.int64)
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of all windows together."""
        return int(self.starts[-1])

    def weight(self, places: np.ndarray) -> int:
        """How many answers these windows ask for: what a mean over parts of a batch is weighted by."""
        return int(self._asked[places].sum())

    def read(self, place: int) -> np.ndarray:
        """One window as the modality made it."""
        alike = self.modality.shape is not None
        return np.asarray(self.ids[place] if alike else self.ids[self.starts[place] : self.starts[place + 1]])

    def read_all(self, places: np.ndarray) -> np.ndarray:
        """Some windows in one array, as `ids` has them."""
        alike = self.modality.shape is not None
        return self.ids[places] if alike else np.concatenate([self.read(place) for place in places])

    def target(self, place: int) -> np.ndarray:
        """What is asked of one window."""
        if self.task.token_level:
            return np.asarray(self.targets[self.starts[place] : self.starts[place + 1]])
        return np.asarray(self.targets[place])

    def batch(self, places: np.ndarray, remap: np.ndarray | None = None) -> Batch:
        """The windows at `places`; `remap` gives each token id another (see `vocabulary`)."""
        ids = [self.read(p) for p in places]
        pad_id = self.modality.pad_id
        if remap is not None:
            ids = [remap[i] for i in ids]
            pad_id = int(remap[pad_id])
        inputs = self.modality.collate(ids, pad_id=pad_id)
        if not self.task.token_level:
            return Batch(inputs, torch.from_numpy(np.array(self.targets[places])), places)
        targets = np.full(tuple(inputs["input_ids"].shape), -100, dtype=np.int64)
        for row, place in enumerate(places):
            targets[row, : self.lengths[place]] = self.target(place)
        return Batch(inputs, torch.from_numpy(targets), places)

    def shuffled(self, batch_size: int, seed: tuple[int, ...], places: np.ndarray | None = None) -> list[np.ndarray]:
        """One epoch: every window once, in batches of `batch_size` of similar length, in random order.

        The order depends on `seed` alone, so an interrupted epoch can be taken up anywhere.

        Args:
            batch_size: windows a batch; the last one may hold fewer. Where windows stay together that is an average.
            seed: of the order.
            places: these windows instead, repeats allowed.

        Raises:
            InputError: a batch could not hold what stays together.
        """
        if batch_size < self.together:
            raise InputError(f"A row is {self.together} texts, so batch_size must be at least that; got {batch_size}.")
        generator = np.random.default_rng(seed)
        groups = (np.arange(len(self)) if places is None else places).reshape(-1, self.together)
        groups = groups[generator.permutation(len(groups))]
        batches: list[np.ndarray] = []
        span = batch_size * _SORTED_WINDOW // self.together
        for start in range(0, len(groups), span):
            some = groups[start : start + span]
            some = some[np.argsort(self.lengths[some].max(axis=1), kind="stable")]
            cuts = np.arange(batch_size, some.size, batch_size) // self.together
            batches += [part.reshape(-1) for part in np.split(some, cuts)]
        return [batches[i] for i in generator.permutation(len(batches))]

    def in_order_of_length(self, max_tokens: int) -> Iterator[np.ndarray]:
        """Every window once, longest first, in batches of at most `max_tokens` with padding; for reading only."""
        order = np.argsort(-self.lengths, kind="stable")
        return iter(cut_by_tokens(order, self.lengths, max_tokens))


class Joined(Examples):
    """Several tokenised sets after one another.

    Attributes:
        parts: the sets.
        first: the place at which each begins, and at last that at which all end: (parts + 1,).
    """

    def __init__(self, parts: Sequence[Examples]):
        self.parts = tuple(parts)
        self.key = hashlib.sha256("".join(part.key for part in parts).encode()).hexdigest()[:32]
        self.modality, self.task, self.data = parts[0].modality, parts[0].task, parts[0].data
        self.first = np.cumsum([0, *(len(part) for part in parts)])
        self.rows = sum(part.rows for part in parts)
        before = np.cumsum([0, *(part.rows for part in parts)])
        self.example = np.concatenate([part.example + rows for part, rows in zip(parts, before, strict=False)])
        self.lengths = np.concatenate([part.lengths for part in parts])
        self.lost = np.concatenate([part.lost for part in parts])
        self.starts = np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])
        self.ids = np.concatenate([part.ids for part in parts])


def passes(rows: int, wanted: int, generator: np.random.Generator) -> np.ndarray:
    """`wanted` of so many rows: each as often as they are gone through whole, and some of them once more."""
    times, rest = divmod(wanted, rows)
    return np.concatenate([np.tile(np.arange(rows), times), generator.permutation(rows)[:rest]])


def cut_by_tokens(
    places: np.ndarray, lengths: np.ndarray, max_tokens: int, parts: int = 1, together: int = 1
) -> list[np.ndarray]:
    """Split a batch so that no part, padded to its longest window, holds more than `max_tokens`.

    Args:
        places: the batch's windows, sorted by length in either direction.
        lengths: tokens of every window of the split.
        max_tokens: what the hardware takes at once; a single longer window makes a part of its own.
        parts: at least so many parts, where there are so many windows (one for each process); all about equally large.
        together: so many windows, one after the other, stay in one part.
    """
    longest, groups = int(lengths[places].max()), -(-len(places) // together)
    most = max(1, max_tokens // (longest * together))  # groups a part
    count = max(-(-groups // most), min(parts, groups))
    bounds = np.arange(count + 1) * groups // count * together
    return [places[start:end] for start, end in pairwise(bounds)]


def tokenised(data: Data, split: str, task: Task, modality: Modality) -> Examples:
    """The split of `data` as `task` and `modality` read it; done once, then found in the cache again."""
    key = _digest(data.fingerprint, split, modality.digest, modality.max_length, task.spec())
    folder = cache_folder() / "examples" / key
    if not (folder / "examples.json").is_file():
        _build(data[split], task, modality, folder, key, labelled=split != "target")
    return Examples(folder, modality, task, data)


def cache_folder() -> Path:
    """Where derived data is kept between runs: `$GRAFTWORK_CACHE`, or the user's cache folder."""
    from platformdirs import user_cache_dir

    return Path(os.environ.get("GRAFTWORK_CACHE") or user_cache_dir("graftwork"))


def _build(split: Split, task: Task, modality: Modality, folder: Path, key: str, *, labelled: bool) -> None:
    lengths: list[int] = []
    examples: list[int] = []
    lost: list[int] = []
    target: np.ndarray | None = None
    with building(folder) as work:
        with (work / "ids.bin").open("wb") as ids_file, (work / "targets.bin").open("wb") as targets_file:
            row = 0
            for inputs, labels in split.batches(_CHUNK):
                for window in task.windows(modality, inputs, labels if labelled else None):
                    ids_file.write(window.ids.tobytes())
                    targets_file.write(window.target.tobytes())
                    lengths.append(modality.states(window.ids))
                    examples.append(row + window.example)
                    lost.append(window.lost)
                    target = window.target
                row += len(inputs)
        if target is None:
            raise InputError("A split without a single example cannot be read. Run `graft check` on the data.")
        np.save(work / "lengths.npy", np.array(lengths, dtype=np.int32))
        np.save(work / "example.npy", np.array(examples, dtype=np.int32))
        np.save(work / "lost.npy", np.array(lost, dtype=np.int32))
        described = {
            "key": key, "rows": row, "target_type": target.dtype.name,
            "target_shape": [] if task.token_level else list(target.shape),
        }  # fmt: skip
        (work / "examples.json").write_text(json.dumps(described), encoding="utf-8")


class building:  # noqa: N801  a context manager, used like `open`
    """A folder that appears under its name only when it is whole. Two processes may build it; one wins."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __enter__(self) -> Path:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.work = Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=".building-"))
        return self.work

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.work.replace(self.folder)
        except OSError:
            if not self.folder.is_dir():
                raise
        finally:
            shutil.rmtree(self.work, ignore_errors=True)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _map(file: Path, dtype: Any) -> np.ndarray:
    return np.memmap(file, dtype=dtype, mode="r") if file.stat().st_size else np.zeros(0, dtype=dtype)
